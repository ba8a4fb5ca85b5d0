// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include <waggle/pins.h>

#include "conf.h"

static const char *const versions[] = { CNI_VERSIONS };

static int version_parse(json_t *root, struct cni_conf *conf, struct wag_err *err)
{
	json_t *v = json_object_get(root, "cniVersion");
	const char *text = json_string_value(v);

	if (v && !text)
		return wag_err_set(err, CNI_E_DECODE, "cniVersion: must be a string");
	if (!text)
		return wag_err_set(err, CNI_E_VERSION,
				   "cniVersion: missing; write one of 0.3.1, 0.4.0, 1.0.0, 1.1.0");
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
		if (strcmp(versions[i], text) == 0) {
			snprintf(conf->version, sizeof(conf->version), "%s", text);
			return 0;
		}
	}
	return wag_err_set(err, CNI_E_VERSION,
			   "cniVersion \"%.32s\" is not supported; use one of 0.3.1, 0.4.0, 1.0.0, "
			   "1.1.0",
			   text);
}

static int name_parse(json_t *root, struct cni_conf *conf, struct wag_err *err)
{
	const char *name = json_string_value(json_object_get(root, "name"));
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789._-";

	if (!name || !*name)
		return wag_err_set(err, CNI_E_CONFIG,
				   "name: missing; give the network a name, such as \"waggle\"");
	if (strlen(name) >= sizeof(conf->name) || name[strspn(name, allowed)] ||
	    strchr("._-", name[0]))
		return wag_err_set(err, CNI_E_CONFIG,
				   "name: must start with a letter or digit and have only letters, "
				   "digits, '.', '_', '-' (at most %zu)",
				   sizeof(conf->name) - 1);
	snprintf(conf->name, sizeof(conf->name), "%s", name);
	return 0;
}

static int dir_parse(json_t *root, const char *key, const char *normal, char *buf, size_t size,
		     struct wag_err *err)
{
	json_t *v = json_object_get(root, key);
	const char *text = v ? json_string_value(v) : normal;

	if (!text || text[0] != '/' || strstr(text, "/../") || strlen(text) >= size)
		return wag_err_set(err, CNI_E_CONFIG,
				   "%s: must be an absolute path without \"..\" of at most %zu "
				   "bytes; the default is %s",
				   key, size - 1, normal);
	snprintf(buf, size, "%s", text);
	return 0;
}

static int mtu_parse(json_t *root, struct cni_conf *conf, struct wag_err *err)
{
	json_t *v = json_object_get(root, "mtu");
	json_int_t mtu = v ? json_integer_value(v) : 1500;

	if ((v && !json_is_integer(v)) || mtu < 576 || mtu > 65535)
		return wag_err_set(
			err, CNI_E_CONFIG,
			"mtu: must be a whole number of 576 to 65535; leave it out for 1500");
	conf->mtu = mtu;
	return 0;
}

/* ---- ranges ---- */

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
				   "ipam.ranges: %s %.64s lies outside of subnet %s/%u%s", key,
				   json_string_value(v), wag_addr_format(&range->subnet, text),
				   range->bits, range->bits < 64 ? " (its first /64)" : "");
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
	json_object_foreach(obj, key,
			    v) if (strcmp(key, "subnet") != 0 && strcmp(key, "rangeStart") != 0 &&
				   strcmp(key, "rangeEnd") != 0 &&
				   strcmp(key, "gateway") !=
					   0) return wag_err_set(err, CNI_E_FIELD,
								 "ipam.ranges: %.64s is not "
								 "supported; a range has subnet, "
								 "rangeStart, rangeEnd and gateway",
								 key);
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
		if (!wag_addr_is_v4(&range->subnet) && conf->mtu < 1280)
			return wag_err_set(err, CNI_E_CONFIG,
					   "mtu: IPv6 needs 1280 or more, this is %u", conf->mtu);
	}
	return 0;
}

static int ipam_parse(json_t *root, struct cni_conf *conf, struct wag_err *err)
{
	json_t *ipam = json_object_get(root, "ipam"), *ranges, *v;
	unsigned families[2] = { 0 };
	const char *key;
	size_t i;
	int r;

	json_object_foreach(ipam, key, v) if (strcmp(key, "ranges") != 0) return wag_err_set(
		err, CNI_E_FIELD, "ipam.%.64s is not supported; ipam has only ranges", key);
	ranges = json_object_get(ipam, "ranges");
	if (!json_is_object(ipam) || !json_is_array(ranges) || !json_array_size(ranges) ||
	    json_array_size(ranges) > CONF_SETS)
		return wag_err_set(err, CNI_E_CONFIG,
				   "ipam.ranges: must hold 1 to %d lists, such as "
				   "[[{\"subnet\":\"10.244.0.0/24\"}]]",
				   CONF_SETS);
	json_array_foreach(ranges, i, v)
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

static int fields_check(json_t *root, struct wag_err *err)
{
	static const char *const unsupported[] = { "chainingMode", "runtimeConfig" };

	for (size_t i = 0; i < sizeof(unsupported) / sizeof(unsupported[0]); i++) {
		json_t *v = json_object_get(root, unsupported[i]);

		if (v && !(json_is_object(v) && !json_object_size(v)))
			return wag_err_set(err, CNI_E_FIELD, "%s is not supported; remove it",
					   unsupported[i]);
	}
	if (json_object_get(root, "prevResult"))
		return wag_err_set(err, CNI_E_FIELD,
				   "prevResult: waggle-cni must be the first plugin of the list");
	return 0;
}

static int add_parse(json_t *root, struct cni_conf *conf, struct wag_err *err)
{
	json_t *dns = json_object_get(root, "dns");
	int r;

	r = fields_check(root, err);
	if (!r)
		r = mtu_parse(root, conf, err);
	if (!r)
		r = ipam_parse(root, conf, err);
	if (r)
		return r;
	if (dns && !json_is_object(dns))
		return wag_err_set(err, CNI_E_CONFIG, "dns: must be an object");
	if (dns) {
		conf->dns = json_dumps(dns, JSON_COMPACT);
		if (!conf->dns)
			return wag_err_set(err, CNI_E_IO, "out of memory");
	}
	return 0;
}

int conf_parse(const char *text, size_t size, enum conf_use use, struct cni_conf *ret,
	       struct wag_err *err)
{
	_cleanup_(json_decrefp) json_t *root = NULL;
	json_error_t at;
	int r;

	memset(ret, 0, sizeof(*ret));
	if (size > CONF_STDIN_MAX)
		return wag_err_set(err, CNI_E_DECODE,
				   "the network configuration on stdin is larger than 1 MB");
	root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &at);
	if (!root)
		return wag_err_set(err, CNI_E_DECODE,
				   "the network configuration on stdin is not JSON: line %d: %s",
				   at.line, at.text);
	if (!json_is_object(root))
		return wag_err_set(err, CNI_E_DECODE,
				   "the network configuration on stdin is not a JSON object");
	r = version_parse(root, ret, err);
	if (r || use == CONF_VERSION)
		return r;
	r = name_parse(root, ret, err);
	if (!r)
		r = dir_parse(root, "pinDir", WAG_PIN_DIR, ret->pin_dir, sizeof(ret->pin_dir), err);
	if (!r)
		r = dir_parse(root, "stateDir", WAG_STATE_DIR, ret->state_dir,
			      sizeof(ret->state_dir), err);
	if (r || use == CONF_DEL)
		return r;
	return add_parse(root, ret, err);
}

void conf_done(struct cni_conf *conf)
{
	free(conf->dns);
	conf->dns = NULL;
}
