// SPDX-License-Identifier: Apache-2.0
/* waggle endpoint list */
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "bpf_maps.h"

static const struct output_column columns[] = {
	{ "ID", "id" },	      { "POD", "title" },	  { "IPV4", "ipv4" },
	{ "IPV6", "ipv6" },   { "INTERFACE", "interface" }, { "CONTAINER", "short" },
	{ "STATE", "state" },
};

static json_t *addr_or_dash(const struct wag_addr *addr)
{
	char text[WAG_ADDR_TEXT];

	return json_string(wag_addr_is_zero(addr) ? "-" : wag_addr_format(addr, text));
}

static int add_endpoint(const void *key, const void *value, void *ctx)
{
	struct wag_endpoint ep;
	json_t *list = ctx, *one;
	char title[330], name[IF_NAMESIZE];
	bool ready;
	__u32 id;

	memcpy(&id, key, sizeof(id));
	memcpy(&ep, value, sizeof(ep));
	ep.ifname[sizeof(ep.ifname) - 1] = ep.container_id[sizeof(ep.container_id) - 1] = '\0';
	ep.ns[sizeof(ep.ns) - 1] = ep.pod[sizeof(ep.pod) - 1] = '\0';
	ep.pod_ifname[sizeof(ep.pod_ifname) - 1] = '\0';
	/* The interface is the node's: in another network namespace it cannot be seen. */
	ready = if_indextoname(ep.ifindex, name) && strcmp(name, ep.ifname) == 0;
	snprintf(title, sizeof(title), "%s%s%s", ep.ns, *ep.ns ? "/" : "", *ep.pod ? ep.pod : "-");
	one = json_pack("{s:I, s:s, s:s, s:s, s:o, s:o, s:s, s:i, s:s, s:s, s:s, s:s}",
			"id", (json_int_t)id, "namespace", ep.ns, "pod", ep.pod, "title", title,
			"ipv4", addr_or_dash(&ep.v4), "ipv6", addr_or_dash(&ep.v6),
			"interface", ep.ifname, "ifindex", (int)ep.ifindex,
			"podInterface", ep.pod_ifname, "container", ep.container_id,
			"short", "", "state", ready ? "ready" : "no interface here");
	json_object_set_new(one, "short", json_sprintf("%.12s", ep.container_id));
	json_array_append_new(list, one);
	return 0;
}

int cmd_endpoint_list(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	_cleanup_map_ struct pinned_map map = PINNED_MAP_NONE;
	_cleanup_json_ json_t *rows = json_array(), *doc = NULL;
	json_t *one;
	size_t i;
	int r;

	r = pinned_map_open_typed(cli, "wag_endpoint", sizeof(__u32), sizeof(struct wag_endpoint),
				  &map, err);
	if (r < 0)
		return r;
	r = pinned_map_each(&map, add_endpoint, rows);
	if (r < 0)
		return wag_err_set(err, r, "wag_endpoint: %s", strerror(-r));
	doc = json_deep_copy(rows);
	json_array_foreach(doc, i, one) {
		json_object_del(one, "title");
		json_object_del(one, "short");
	}
	return output_print(cli->format, doc, rows, columns,
			    sizeof(columns) / sizeof(columns[0]), err);
}
