// SPDX-License-Identifier: Apache-2.0
/* waggle status: is the agent up and ready, what can the kernel do, how full are the maps. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include <waggle/netlink.h>
#include "bpf_maps.h"
#include "http_get.h"
#include "bpf_features.h"
#include "map_fill.h"
#include "nodes.h"

#define NSEC_PER_SEC 1000000000ULL
#define NODES_SHOWN 10

static const struct output_column columns[] = { { "WHAT", "what" }, { "STATUS", "status" } };

static json_t *lines_of(char *text)
{
	json_t *list = json_array();
	char *save = NULL;

	for (char *line = strtok_r(text, "\r\n", &save); line; line = strtok_r(NULL, "\r\n", &save))
		json_array_append_new(list, json_string(line));
	return list;
}

/* {answers, healthy, ready, notReady: [...]} */
static json_t *agent_json(const struct cli *cli)
{
	_cleanup_free_ char *health = NULL, *ready = NULL;
	int r = http_get(cli->health_addr, "/healthz", &health), s;
	json_t *agent;

	if (r < 0)
		return json_pack("{s:b, s:b, s:b, s:[o]}", "answers", 0, "healthy", 0, "ready", 0,
				 "notReady",
				 json_sprintf("%s: %s", cli->health_addr, strerror(-r)));
	s = http_get(cli->health_addr, "/readyz", &ready);
	agent = json_pack("{s:b, s:b, s:b}", "answers", 1, "healthy", r == 200, "ready", s == 200);
	json_object_set_new(agent, "notReady",
			    s == 200 || !ready ? json_array() : lines_of(ready));
	return agent;
}

/* How what pods send out of the node is held to their limits. */
static const char *bandwidth_by(const struct cli *cli)
{
	_cleanup_map_ struct pinned_map map = PINNED_MAP_NONE;
	struct wag_runtime runtime;
	__u32 zero = 0;

	int r = pinned_map_open_typed(cli, "wag_runtime", sizeof(zero), sizeof(runtime), &map,
				      NULL);

	if (r < 0 || pinned_map_lookup(&map, &zero, &runtime) < 0)
		return "?";
	return runtime.pacing ? "departure times" : "token bucket";
}

static json_t *meta_json(const struct cli *cli, const struct wag_meta *meta)
{
	static const char *const attach[] = { "none", "tcx", "clsact" };
	static const char *const socket_lb[] = { "off", "host", "full" };
	char v4[WAG_ADDR_TEXT], v6[WAG_ADDR_TEXT];
	struct timespec now;
	double up;

	clock_gettime(CLOCK_MONOTONIC, &now);
	up = (double)now.tv_sec - (double)(meta->started_ns / NSEC_PER_SEC);
	return json_pack(
		"{s:s, s:s, s:i, s:i, s:s, s:s, s:s, s:s, s:i, s:f, s:b, s:s}", "node",
		meta->node_name, "version", meta->version, "abi", (int)meta->abi, "pid",
		(int)meta->agent_pid, "attach",
		meta->attach < 3 ? attach[meta->attach] : "?", "socketLB",
		meta->socket_lb < 3 ? socket_lb[meta->socket_lb] : "?", "nodeIPv4",
		wag_addr_is_zero(&meta->node_v4) ? "" : wag_addr_format(&meta->node_v4, v4),
		"nodeIPv6",
		wag_addr_is_zero(&meta->node_v6) ? "" : wag_addr_format(&meta->node_v6, v6), "mtu",
		(int)meta->mtu, "startedSecondsAgo", up, "synced", meta->synced_ns != 0,
		"bandwidth", bandwidth_by(cli));
}

/* {mode, device, deviceMTU, mtu, podRouteMTU}; the device is "" where there is no tunnel. */
static json_t *routing_json(const struct wag_meta *meta)
{
	static const char *const modes[] = { "native", "tunnel", "auto" };
	static const char *const names[] = { "waggle_vxlan", "waggle_geneve" };
	_cleanup_(nl_freep) struct nl *nl = NULL;
	struct nl_link link = { 0 };

	for (int i = 0; i < 2 && !link.ifindex; i++)
		if (nl || nl_new(&nl) == 0)
			(void)nl_link_get(nl, names[i], &link);
	return json_pack("{s:s, s:s, s:i, s:i, s:i}", "mode",
			 meta->routing < 3 ? modes[meta->routing] : "?", "device", link.name,
			 "deviceMTU", (int)link.mtu, "mtu", (int)meta->mtu, "podRouteMTU",
			 (int)(meta->route_mtu ? meta->route_mtu : meta->mtu));
}

static json_t *nodes_json(const struct cli *cli)
{
	json_t *list;

	return nodes_read(cli, &list, NULL) == 0 ? list : json_array();
}

static json_t *drops_json(const struct cli *cli)
{
	static struct wag_stat stats[WAG_POINTS * WAG_REASONS_MAX];
	json_t *list = json_array();

	if (stats_read(cli, stats, sizeof(stats) / sizeof(stats[0]), NULL) < 0)
		return list;
	for (unsigned reason = WAG_DROP_FORWARDED + 1; reason < WAG_REASON_COUNT; reason++) {
		__u64 packets = 0;

		for (unsigned point = 0; point < WAG_POINTS; point++)
			packets += stats[WAG_STAT_INDEX(point, reason)].packets;
		if (packets)
			json_array_append_new(list, json_pack("{s:s, s:I}", "reason",
				wag_reason_text(reason), "packets", (json_int_t)packets));
	}
	return list;
}

static void add_row(json_t *rows, const char *what, json_t *status)
{
	json_array_append_new(rows, json_pack("{s:s, s:o}", "what", what, "status", status));
}

static void add_agent_rows(json_t *rows, const json_t *agent)
{
	const json_t *why = json_object_get(agent, "notReady");
	bool up = json_is_true(json_object_get(agent, "healthy"));

	if (!json_is_true(json_object_get(agent, "answers")))
		add_row(rows, "Agent", json_sprintf("DOWN (%s); what is pinned keeps forwarding",
			json_string_value(json_array_get(why, 0))));
	else
		add_row(rows, "Agent", json_sprintf("%s, %s", up ? "ok" : "NOT HEALTHY",
			json_is_true(json_object_get(agent, "ready")) ? "ready" : "NOT READY"));
	if (json_is_true(json_object_get(agent, "answers")) && json_array_size(why))
		add_row(rows, "Not ready", json_incref((json_t *)why));
}

static void add_meta_rows(json_t *rows, const json_t *meta)
{
	const char *v4 = json_string_value(json_object_get(meta, "nodeIPv4"));
	const char *v6 = json_string_value(json_object_get(meta, "nodeIPv6"));

	add_row(rows, "Node", json_sprintf("%s (%s%s%s)",
		json_string_value(json_object_get(meta, "node")), v4, *v4 && *v6 ? ", " : "", v6));
	add_row(rows, "Version", json_sprintf("%s, map layout %d",
		json_string_value(json_object_get(meta, "version")),
		(int)json_integer_value(json_object_get(meta, "abi"))));
	add_row(rows, "Started", json_sprintf("%.0f s ago, pid %d, %s",
		json_real_value(json_object_get(meta, "startedSecondsAgo")),
		(int)json_integer_value(json_object_get(meta, "pid")),
		json_is_true(json_object_get(meta, "synced")) ? "synced" : "NOT SYNCED"));
	add_row(rows, "Datapath", json_sprintf("attach %s, socket LB %s, mtu %d, bandwidth by %s",
		json_string_value(json_object_get(meta, "attach")),
		json_string_value(json_object_get(meta, "socketLB")),
		(int)json_integer_value(json_object_get(meta, "mtu")),
		json_string_value(json_object_get(meta, "bandwidth"))));
}

static void add_routing_rows(json_t *rows, const json_t *routing, const json_t *nodes)
{
	const char *device = json_string_value(json_object_get(routing, "device"));
	json_t *lines = json_array(), *node;
	char tunnel[64] = "";
	size_t i, more;

	if (*device)
		snprintf(tunnel, sizeof(tunnel), " by %s, MTU %d", device,
			 (int)json_integer_value(json_object_get(routing, "deviceMTU")));
	add_row(rows, "Routing", json_sprintf("%s%s; MTU between nodes %d, of pods' routes %d",
		json_string_value(json_object_get(routing, "mode")), tunnel,
		(int)json_integer_value(json_object_get(routing, "mtu")),
		(int)json_integer_value(json_object_get(routing, "podRouteMTU"))));
	json_array_foreach((json_t *)nodes, i, node) {
		const char *addr = json_string_value(
			json_array_get(json_object_get(node, "addresses"), 0));
		_cleanup_json_ json_t *way = node_way(node);

		if (i < NODES_SHOWN)
			json_array_append_new(lines, json_sprintf("%s: %s", addr ? addr : "?",
				json_string_value(way)));
	}
	more = json_array_size(nodes) > NODES_SHOWN ? json_array_size(nodes) - NODES_SHOWN : 0;
	if (more)
		json_array_append_new(lines, json_sprintf("and %zu more: waggle node list", more));
	if (json_array_size(lines) == 0)
		json_array_append_new(lines, json_string("none known"));
	add_row(rows, "Other nodes", lines);
}

static json_t *table_of(const json_t *doc)
{
	const json_t *kernel = json_object_get(doc, "kernel"), *value;
	const json_t *meta = json_object_get(doc, "datapath");
	json_t *rows = json_array(), *lines = json_array();
	const char *key;
	size_t i;

	add_agent_rows(rows, json_object_get(doc, "agent"));
	if (json_is_object(meta))
		add_meta_rows(rows, meta);
	if (json_is_object(meta))
		add_routing_rows(rows, json_object_get(doc, "routing"),
				 json_object_get(doc, "nodes"));
	json_object_foreach((json_t *)kernel, key, value)
		json_array_append_new(lines, json_is_string(value) ?
			json_incref((json_t *)value) :
			json_sprintf("%s %s", json_is_true(value) ? "yes" : "no ", key));
	add_row(rows, "Kernel", lines);
	if (!json_is_object(meta))
		return rows;
	lines = json_array();
	json_array_foreach(json_object_get(doc, "maps"), i, value) {
		json_int_t used = json_integer_value(json_object_get(value, "entries"));
		json_int_t max = json_integer_value(json_object_get(value, "maxEntries"));

		json_array_append_new(lines, json_sprintf("%-12s %7lld of %7lld (%.1f %%)",
			json_string_value(json_object_get(value, "name")), used, max,
			max ? 100.0 * (double)used / (double)max : 0.0));
	}
	add_row(rows, "Maps", lines);
	lines = json_array();
	json_array_foreach(json_object_get(doc, "drops"), i, value)
		json_array_append_new(lines, json_sprintf("%s: %lld",
			json_string_value(json_object_get(value, "reason")),
			json_integer_value(json_object_get(value, "packets"))));
	if (json_array_size(lines) == 0)
		json_array_append_new(lines, json_string("none"));
	add_row(rows, "Drops", lines);
	return rows;
}

int cmd_status(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	_cleanup_json_ json_t *doc = NULL, *rows = NULL;
	struct wag_err meta_err = {};
	struct wag_meta meta;
	json_t *agent;
	bool good;
	int r, s;

	r = meta_read(cli, &meta, &meta_err);
	agent = agent_json(cli);
	good = r == 0 && json_is_true(json_object_get(agent, "healthy")) &&
	       json_is_true(json_object_get(agent, "ready"));
	doc = json_pack("{s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "ok", good, "agent", agent,
			"datapath", r == 0 ? meta_json(cli, &meta) : json_null(), "routing",
			r == 0 ? routing_json(&meta) : json_null(), "nodes",
			r == 0 ? nodes_json(cli) : json_array(), "kernel", kernel_features(),
			"maps", r == 0 ? map_fill(cli) : json_array(), "drops",
			r == 0 ? drops_json(cli) : json_array());
	if (!doc)
		return wag_err_set(err, -ENOMEM, "out of memory");
	rows = table_of(doc);
	s = output_print(cli->format, doc, rows, columns, 2, err);
	if (s < 0)
		return s;
	if (r < 0) {
		*err = meta_err;
		return r;
	}
	return good ? 0 : 1;
}
