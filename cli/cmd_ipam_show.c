// SPDX-License-Identifier: Apache-2.0
/* waggle ipam show */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "ipam_state.h"

static const struct output_column range_columns[] = {
	{ "RANGE", "range" }, { "STATE", "state" },	  { "USED", "used" },
	{ "FREE", "left" },   { "QUARANTINED", "quarantined" },
};

static const struct output_column lease_columns[] = {
	{ "ADDRESS", "address" },     { "STATE", "state" }, { "POD", "title" },
	{ "CONTAINER", "short" }, { "SINCE", "since" },
};

#define N(a) (sizeof(a) / sizeof((a)[0]))

/* A /64 has more addresses than a JSON integer counts. */
static json_t *number(uint64_t n)
{
	return n > INT64_MAX ? json_real((double)n) : json_integer((json_int_t)n);
}

static void add_range(json_t *ranges, const struct ipam_state *s, const struct cli *cli,
		      const struct ipam_range *range, const char *state)
{
	struct ipam_usage u = { 0 };
	char text[IPAM_RANGE_KEY];
	uint64_t left;
	json_t *one;

	if (ipam_usage(cli->state_dir, range, s->boot_id, s->now_ms, &u) < 0)
		return;
	left = u.capacity - u.used - u.quarantined;
	one = json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o}", "range",
			node_range_text(range, text), "family",
			wag_addr_is_v4(&range->subnet) ? "IPv4" : "IPv6", "state", state, "used",
			number(u.used), "quarantined", number(u.quarantined), "free", number(left),
			"capacity", number(u.capacity));
	json_object_set_new(one, "left",
			    left > INT64_MAX ? json_string("almost 2^64") : number(left));
	json_array_append_new(ranges, one);
}

static bool is_listed(const json_t *ranges, const char *text)
{
	const json_t *one;
	size_t i;

	json_array_foreach((json_t *)ranges, i, one)
		if (strcmp(json_string_value(json_object_get(one, "range")), text) == 0)
			return true;
	return false;
}

/* The node's ranges, those that are no more, and whatever else leases tell of. */
static json_t *ranges_of(const struct ipam_state *s, const struct cli *cli)
{
	json_t *ranges = json_array();
	char text[IPAM_RANGE_KEY];
	struct ipam_range range;

	for (int f = 0; f < 2; f++)
		for (size_t i = 0; i < s->node.family[f].n; i++)
			add_range(ranges, s, cli, &s->node.family[f].at[i], "in use");
	for (size_t i = 0; i < s->node.draining.n; i++)
		add_range(ranges, s, cli, &s->node.draining.at[i], "draining");
	for (size_t i = 0; i < s->n_leases; i++)
		if (!is_listed(ranges, node_range_text(&s->leases[i].range, text)) &&
		    ipam_range_parse(text, &range) == 0)
			add_range(ranges, s, cli, &range, "not of the node");
	return ranges;
}

/* A lease's time is of the clock since boot. NULL: of another boot. */
static json_t *since(const struct ipam_state *s, const struct ipam_lease *lease)
{
	struct timespec now;
	char text[32];
	struct tm tm;
	time_t t;

	if (strcmp(lease->boot_id, s->boot_id) != 0)
		return json_null();
	clock_gettime(CLOCK_REALTIME, &now);
	t = now.tv_sec - (s->now_ms - lease->time_ms) / 1000;
	gmtime_r(&t, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return json_string(text);
}

static const char *state_of(const struct ipam_state *s, const struct ipam_lease *lease)
{
	if (ipam_lease_holds(lease, s->boot_id))
		return "used";
	return ipam_lease_waits(lease, s->boot_id, s->now_ms) ? "quarantined" : "free";
}

static json_t *leases_of(const struct ipam_state *s)
{
	json_t *leases = json_array(), *one;

	for (size_t i = 0; i < s->n_leases; i++) {
		const struct state_lease *l = &s->leases[i];
		const struct record *rec =
			ipam_state_record(s, l->lease.container_id, l->lease.ifname);
		char addr[WAG_ADDR_TEXT], range[IPAM_RANGE_KEY];

		if (!ipam_lease_holds(&l->lease, s->boot_id))
			rec = NULL;
		one = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:o}", "address",
				wag_addr_format(&l->addr, addr), "range",
				node_range_text(&l->range, range), "state", state_of(s, &l->lease),
				"namespace", rec ? rec->ns : "", "pod", rec ? rec->pod : "",
				"container", l->lease.container_id, "interface", l->lease.ifname,
				"since", since(s, &l->lease));
		json_object_set_new(one, "title",
				    rec && rec->pod[0] ? json_sprintf("%s/%s", rec->ns, rec->pod) :
							 json_string("-"));
		json_object_set_new(one, "short", json_sprintf("%.12s", l->lease.container_id));
		json_array_append_new(leases, one);
	}
	return leases;
}

static json_t *without(json_t *list, const char *const *keys)
{
	json_t *copy = json_deep_copy(list), *one;
	size_t i;

	json_array_foreach(copy, i, one)
		for (const char *const *key = keys; *key; key++)
			json_object_del(one, *key);
	return copy;
}

int cmd_ipam_show(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	static const char *const helpers[] = { "left", "title", "short", NULL };
	_cleanup_ipam_state_ struct ipam_state s = { 0 };
	_cleanup_json_ json_t *ranges = NULL, *leases = NULL, *doc = NULL;
	int r;

	r = ipam_state_load(&s, cli, err);
	if (r < 0)
		return r;
	ranges = ranges_of(&s, cli);
	leases = leases_of(&s);
	doc = json_pack("{s:s, s:o, s:o}", "mode", s.node.mode, "ranges", without(ranges, helpers),
			"leases", without(leases, helpers));
	r = output_print(cli->format, doc, ranges, range_columns, N(range_columns), err);
	if (r == 0 && cli->verbose && cli->format == OUTPUT_TABLE) {
		putchar('\n');
		r = output_print(cli->format, doc, leases, lease_columns, N(lease_columns), err);
	}
	return r;
}
