// SPDX-License-Identifier: Apache-2.0
/* waggle policy get: rules, and what they have judged. waggle endpoint get: what is for one pod. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "bpf_maps.h"
#include "policies.h"

static const struct output_column rule_columns[] = {
	{ "TIER", "tier" },	  { "POLICY", "policy" },   { "DIRECTION", "direction" },
	{ "RULE", "rule" },	  { "JUDGED", "packets" }, { "BYTES", "bytes" },
};

static const struct output_column endpoint_columns[] = {
	{ "POD", "title" },	     { "ADDRESSES", "addresses" }, { "DIRECTION", "direction" },
	{ "ELSE", "verdict" },	     { "POLICIES", "policies" },   { "STATE", "state" },
};

struct rules {
	struct pinned_map stat;
	json_t *list;
	const char *wanted; /* NAME or NS/NAME; NULL: all */
};

static json_t *counters(const struct pinned_map *stat, uint32_t rule)
{
	size_t bytes = pinned_map_value_bytes(stat), n = bytes / sizeof(struct wag_stat);
	_cleanup_free_ struct wag_stat *each = calloc(1, bytes);
	json_int_t packets = 0, sum = 0;

	if (each && pinned_map_lookup(stat, &rule, each) == 0)
		for (size_t i = 0; i < n; i++) {
			packets += (json_int_t)each[i].packets;
			sum += (json_int_t)each[i].bytes;
		}
	return json_pack("{s:I, s:I}", "packets", packets, "bytes", sum);
}

static int add_rule(const void *key, const void *value, void *ctx)
{
	struct rules *rules = ctx;
	struct policy_rule_text text;
	struct wag_rule_name name;
	uint32_t rule;
	json_t *one;

	memcpy(&rule, key, sizeof(rule));
	memcpy(&name, value, sizeof(name));
	policy_rule_text(&name, &text);
	if (rules->wanted && strcmp(rules->wanted, text.policy) != 0)
		return 0;
	one = counters(&rules->stat, rule);
	json_object_update_new(one, json_pack("{s:I, s:s, s:s, s:s, s:s}", "id", (json_int_t)rule,
					      "tier", text.tier, "policy", text.policy,
					      "direction", text.direction, "rule", text.rule));
	return json_array_append_new(rules->list, one);
}

int cmd_policy_get(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	_cleanup_map_ struct pinned_map names = PINNED_MAP_NONE;
	_cleanup_json_ json_t *list = json_array();
	struct rules rules = { .stat = PINNED_MAP_NONE, .list = list,
			       .wanted = argc ? argv[0] : NULL };
	int r;

	r = pinned_map_open_typed(cli, "wag_rule_name", sizeof(uint32_t),
				  sizeof(struct wag_rule_name), &names, err);
	if (r == 0)
		r = pinned_map_open(cli, "wag_rule_stat", &rules.stat, err);
	if (r < 0)
		return r;
	r = pinned_map_each(&names, add_rule, &rules);
	pinned_map_done(&rules.stat);
	if (r < 0)
		return wag_err_set(err, r, "wag_rule_name: %s", strerror(-r));
	if (argc && !json_array_size(list))
		return wag_err_set(err, -ENOENT, "no policy '%s' is in force here: 'waggle policy "
				   "get' lists them; a NetworkPolicy is NAMESPACE/NAME", argv[0]);
	return output_print(cli->format, list, list, rule_columns,
			    sizeof(rule_columns) / sizeof(rule_columns[0]), err);
}

/* ---- endpoint get ---- */

struct wanted {
	const char *what; /* NS/POD, an id or an address */
	struct policies *p;
	json_t *rows;
	int err;
};

static bool is_wanted(const char *what, uint32_t id, const struct wag_endpoint *ep)
{
	struct wag_addr addr;
	char title[330];

	snprintf(title, sizeof(title), "%s/%s", ep->ns, ep->pod);
	if (strcmp(title, what) == 0 || (strtoul(what, NULL, 10) == id && !strchr(what, '.')))
		return true;
	return wag_addr_parse(what, &addr) == 0 &&
	       (wag_addr_equal(&addr, &ep->v4) || wag_addr_equal(&addr, &ep->v6));
}

static int visit_endpoint(const void *key, const void *value, void *ctx)
{
	struct wanted *w = ctx;
	struct wag_endpoint ep;
	uint32_t id;

	memcpy(&id, key, sizeof(id));
	memcpy(&ep, value, sizeof(ep));
	ep.ns[sizeof(ep.ns) - 1] = ep.pod[sizeof(ep.pod) - 1] = 0;
	if (!is_wanted(w->what, id, &ep))
		return 0;
	for (int dir = 0; dir < 2; dir++)
		json_array_append_new(w->rows, policies_of(w->p, id, &ep, dir));
	return 0;
}

int cmd_endpoint_get(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	_cleanup_map_ struct pinned_map map = PINNED_MAP_NONE;
	_cleanup_json_ json_t *rows = json_array();
	_cleanup_(policies_done) struct policies p = POLICIES_NONE;
	struct wanted w = { .p = &p, .rows = rows };
	int r;

	if (!argc)
		return wag_err_set(err, -EINVAL, "endpoint get: which one? NAMESPACE/POD, an "
				   "address or an id of 'waggle endpoint list'");
	w.what = argv[0];
	r = policies_open(cli, &p, err);
	if (r == 0)
		r = pinned_map_open_typed(cli, "wag_endpoint", sizeof(uint32_t),
					  sizeof(struct wag_endpoint), &map, err);
	if (r == 0)
		r = pinned_map_each(&map, visit_endpoint, &w);
	if (r < 0)
		return r;
	if (!json_array_size(rows))
		return wag_err_set(err, -ENOENT, "no pod '%s' on this node: 'waggle endpoint list' "
				   "lists them", argv[0]);
	return output_print(cli->format, rows, rows, endpoint_columns,
			    sizeof(endpoint_columns) / sizeof(endpoint_columns[0]), err);
}
