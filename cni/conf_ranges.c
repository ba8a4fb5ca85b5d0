// SPDX-License-Identifier: Apache-2.0
/* Where pod addresses come from: ipam.ranges, or what the agent wrote for the node. */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <waggle/addr.h>
#include <waggle/node_ranges.h>

#include "conf.h"

_Static_assert(CONF_RANGES >= NODE_RANGES_MAX, "sets hold what node.json may");

static uint64_t low_bits(const struct wag_addr *addr)
{
	return wag_addr_is_v4(addr) ? ntohl(addr->w[3]) : be64toh(addr->d[1]);
}

/* The offset of an optional address in the subnet. */
static int offset_parse(json_t *obj, const char *key, const struct ipam_range *range,
			uint64_t normal, uint64_t *ret, struct wag_err *err)
{
	json_t *v = json_object_get(obj, key);
	char text[WAG_ADDR_TEXT];
	struct wag_addr addr;

	*ret = normal;
	if (!v)
		return 0;
	if (!json_is_string(v) || wag_addr_parse(json_string_value(v), &addr) < 0)
		return wag_err_set(err, CNI_E_CONFIG, "ipam.ranges: %s: not an address", key);
	if (!wag_addr_in_cidr(&addr, &range->subnet, range->bits) ||
	    (!wag_addr_is_v4(&addr) && addr.d[0] != range->subnet.d[0]))
		return wag_err_set(err, CNI_E_CONFIG,
				   "ipam.ranges: %s %.64s lies outside of %ssubnet %s/%u", key,
				   json_string_value(v),
				   !wag_addr_is_v4(&addr) && range->bits < 64 ? "the first /64 of "
									      : "",
				   wag_addr_format(&range->subnet, text), range->bits);
	*ret = low_bits(&addr) - low_bits(&range->subnet);
	return 0;
}

static int subnet_parse(json_t *obj, struct ipam_range *range, struct wag_err *err)
{
	const char *text = json_string_value(json_object_get(obj, "subnet"));
	struct wag_addr net;
	unsigned min_host;
	bool v4;

	if (!text || !strchr(text, '/') || wag_cidr_parse(text, &net, &range->bits) < 0)
		return wag_err_set(err, CNI_E_CONFIG,
				   "ipam.ranges: subnet: must be like \"10.244.0.0/24\" or "
				   "\"fd00:10:244::/64\"");
	v4 = wag_addr_is_v4(&net);
	min_host = (v4 ? 32 : 128) - 2;
	if (range->bits > min_host || range->bits < 8)
		return wag_err_set(err, CNI_E_CONFIG,
				   "ipam.ranges: subnet %.64s: the prefix length must be 8 to %u",
				   text, min_host);
	range->subnet = net;
	for (unsigned i = v4 ? 96 + range->bits : range->bits; i < 128; i++)
		range->subnet.b[i / 8] &= ~(0x80 >> i % 8);
	if (!wag_addr_equal(&net, &range->subnet))
		return wag_err_set(
			err, CNI_E_CONFIG,
			"ipam.ranges: subnet %.64s has host bits set; write the network's "
			"own address",
			text);
	return 0;
}

static int range_parse(json_t *obj, struct ipam_range *range, struct wag_err *err)
{
	uint64_t last;
	unsigned host;
	const char *key;
	json_t *v;
	int r;

	if (!json_is_object(obj))
		return wag_err_set(err, CNI_E_CONFIG,
				   "ipam.ranges: must be a list of lists of {\"subnet\": ...}");
	json_object_foreach(obj, key, v)
	{
		if (strcmp(key, "subnet") != 0 && strcmp(key, "rangeStart") != 0 &&
		    strcmp(key, "rangeEnd") != 0 && strcmp(key, "gateway") != 0)
			return wag_err_set(err, CNI_E_FIELD,
					   "ipam.ranges: %.64s is not supported; a range has "
					   "subnet, rangeStart, rangeEnd and gateway",
					   key);
	}
	r = subnet_parse(obj, range, err);
	if (r)
		return r;
	host = (wag_addr_is_v4(&range->subnet) ? 32 : 128) - range->bits;
	/* The last address of an IPv4 subnet is its broadcast, the first of both is taken. */
	last = host >= 64 ? UINT64_MAX - 1 : (1ULL << host) - 1;
	if (wag_addr_is_v4(&range->subnet))
		last--;
	r = offset_parse(obj, "gateway", range, 1, &range->gateway, err);
	if (!r)
		r = offset_parse(obj, "rangeStart", range, 1, &range->first, err);
	if (!r)
		r = offset_parse(obj, "rangeEnd", range, last, &range->last, err);
	if (r)
		return r;
	if (range->first < 1 || range->last > last || range->first > range->last)
		return wag_err_set(
			err, CNI_E_CONFIG,
			"ipam.ranges: rangeStart must not be above rangeEnd, and neither "
			"may be the network's or the broadcast address");
	return 0;
}

static bool ranges_overlap(const struct ipam_range *a, const struct ipam_range *b)
{
	unsigned bits = a->bits < b->bits ? a->bits : b->bits;

	return wag_addr_is_v4(&a->subnet) == wag_addr_is_v4(&b->subnet) &&
	       wag_addr_in_cidr(&a->subnet, &b->subnet, bits);
}

static int overlap_check(const struct cni_conf *conf, const struct ipam_range *range,
			 struct wag_err *err)
{
	for (unsigned i = 0; i < conf->set_count; i++) {
		for (unsigned k = 0; k < conf->sets[i].range_count; k++) {
			const struct ipam_range *other = &conf->sets[i].ranges[k];
			char a[WAG_ADDR_TEXT], b[WAG_ADDR_TEXT];

			if (other == range)
				return 0;
			if (ranges_overlap(other, range))
				return wag_err_set(err, CNI_E_CONFIG,
						   "ipam.ranges: subnets %s/%u and %s/%u overlap",
						   wag_addr_format(&other->subnet, a), other->bits,
						   wag_addr_format(&range->subnet, b), range->bits);
		}
	}
	return 0;
}

static int set_parse(json_t *list, struct cni_conf *conf, struct wag_err *err)
{
	struct conf_set *set = &conf->sets[conf->set_count];
	json_t *obj;
	size_t i;
	int r;

	if (!json_is_array(list) || !json_array_size(list) || json_array_size(list) > CONF_RANGES)
		return wag_err_set(err, CNI_E_CONFIG,
				   "ipam.ranges: must be a list of lists of 1 to %d ranges each",
				   CONF_RANGES);
	set->range_count = 0;
	conf->set_count++;
	json_array_foreach(list, i, obj)
	{
		struct ipam_range *range = &set->ranges[i];

		r = range_parse(obj, range, err);
		if (r)
			return r;
		set->range_count++;
		r = overlap_check(conf, range, err);
		if (r)
			return r;
		if (wag_addr_is_v4(&range->subnet) != wag_addr_is_v4(&set->ranges[0].subnet))
			return wag_err_set(
				err, CNI_E_CONFIG,
				"ipam.ranges: IPv4 and IPv6 in one list; give each family "
				"a list of its own, a pod gets one address from each");
	}
	return 0;
}

int conf_ranges_parse(json_t *list, struct cni_conf *conf, struct wag_err *err)
{
	unsigned families[2] = { 0 };
	json_t *v;
	size_t i;
	int r;

	if (!json_is_array(list) || !json_array_size(list) || json_array_size(list) > CONF_SETS)
		return wag_err_set(err, CNI_E_CONFIG,
				   "ipam.ranges: must hold 1 to %d lists, such as "
				   "[[{\"subnet\":\"10.244.0.0/24\"}]]",
				   CONF_SETS);
	json_array_foreach(list, i, v)
	{
		r = set_parse(v, conf, err);
		if (r)
			return r;
		if (families[wag_addr_is_v4(&conf->sets[i].ranges[0].subnet)]++)
			return wag_err_set(
				err, CNI_E_CONFIG,
				"ipam.ranges: two lists of one family; a pod gets one "
				"address a family, put further ranges into the same list");
	}
	return 0;
}

int conf_node_ranges(struct cni_conf *conf, struct wag_err *err)
{
	struct node_ranges node;
	int r;

	r = node_ranges_read(conf->state_dir, &node, err);
	if (r == -ENOENT)
		return wag_err_set(err, CNI_E_AGAIN,
				   "waggle-agent has not written this node's pod ranges to "
				   "%s/ipam/node.json yet: see its log",
				   conf->state_dir);
	if (r < 0) {
		err->code = CNI_E_IO;
		return err->code;
	}
	for (unsigned f = 0; f < 2; f++) {
		struct conf_set *set = &conf->sets[conf->set_count];

		if (!node.family[f].n)
			continue;
		set->range_count = node.family[f].n;
		memcpy(set->ranges, node.family[f].at,
		       node.family[f].n * sizeof(set->ranges[0]));
		conf->set_count++;
	}
	if (!conf->set_count)
		return wag_err_set(err, CNI_E_AGAIN,
				   "this node has no pod ranges yet: see the log of waggle-agent");
	return 0;
}
