// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include <waggle/netlink.h>
#include "bpf_btf.h"
#include "bpf_maps.h"
#include "nodes.h"

#define ROUTE_PROTO 78 /* docs/routing.md */

struct routes {
	struct nl_route *list; /* by prefix */
	size_t n, cap;
};

struct walk {
	struct routes routes;
	json_t *list;  /* what the caller gets */
	json_t *index; /* link and address -> position in list */
};

static int by_prefix(const void *a, const void *b)
{
	const struct nl_route *x = a, *y = b;
	int r = memcmp(&x->dst, &y->dst, sizeof(x->dst));

	return r ? r : (x->bits > y->bits) - (x->bits < y->bits);
}

static int add_route(const struct nl_route *r, void *ctx)
{
	struct routes *routes = ctx;

	if (r->protocol != ROUTE_PROTO || r->table != RT_TABLE_MAIN)
		return 0;
	if (routes->n == routes->cap) {
		size_t cap = routes->cap ? routes->cap * 2 : 64;
		struct nl_route *list = reallocarray(routes->list, cap, sizeof(*list));

		if (!list)
			return -ENOMEM;
		routes->list = list;
		routes->cap = cap;
	}
	routes->list[routes->n++] = *r;
	return 0;
}

static int read_routes(struct routes *routes)
{
	_cleanup_(nl_freep) struct nl *nl = NULL;
	int r = nl_new(&nl);

	if (r == 0)
		r = nl_route_list(nl, add_route, routes);
	if (r == 0 && routes->n)
		qsort(routes->list, routes->n, sizeof(*routes->list), by_prefix);
	return r;
}

/* The element of a way, made if there is none yet. */
static json_t *element(struct walk *w, const char *link, const char *to)
{
	_cleanup_json_ json_t *key = json_sprintf("%s %s", link, to);
	json_t *at = json_object_get(w->index, json_string_value(key)), *one;

	if (at)
		return json_array_get(w->list, json_integer_value(at));
	one = json_pack("{s:s, s:s, s:s, s:i, s:[], s:[]}", "link", link, "to", to, "device", "",
			"mtu", 0, "addresses", "podCIDRs");
	json_object_set_new(w->index, json_string_value(key),
			    json_integer(json_array_size(w->list)));
	json_array_append_new(w->list, one);
	return one;
}

static void set_way(json_t *one, uint32_t ifindex, uint32_t mtu)
{
	char name[IF_NAMESIZE];

	if (ifindex && if_indextoname(ifindex, name))
		json_object_set_new(one, "device", json_string(name));
	if (mtu)
		json_object_set_new(one, "mtu", json_integer(mtu));
}

static const struct nl_route *find_route(const struct walk *w, const struct wag_cidr_key *key)
{
	struct nl_route want = { .bits = key->bits };

	memcpy(want.dst.w, key->addr, sizeof(key->addr));
	if (key->bits >= 96 && wag_addr_is_v4(&want.dst))
		want.bits -= 96;
	if (!w->routes.n)
		return NULL;
	return bsearch(&want, w->routes.list, w->routes.n, sizeof(want), by_prefix);
}

static bool is_packed(const struct wag_cidr *c)
{
	return !wag_addr_is_zero(&c->tunnel) && !(c->flags & WAG_CIDR_DIRECT);
}

static json_t *way_of_pods(struct walk *w, const struct wag_cidr_key *key,
			   const struct wag_cidr *c, const struct nl_route *route)
{
	char to[WAG_ADDR_TEXT] = "";
	const char *link = "network";
	json_t *one;

	if (is_packed(c)) {
		link = "tunnel";
		wag_addr_format(&c->tunnel, to);
	} else if (route && !wag_addr_is_zero(&route->gw)) {
		link = "direct";
		wag_addr_format(&route->gw, to);
	}
	one = element(w, link, to);
	set_way(one, route ? route->ifindex : 0, is_packed(c) ? c->mtu : 0);
	return one;
}

static int add_entry(const void *key_data, const void *value, void *ctx)
{
	char text[WAG_ADDR_TEXT + 4], to[WAG_ADDR_TEXT];
	struct wag_cidr_key key;
	struct walk *w = ctx;
	struct wag_cidr c;
	json_t *one;

	memcpy(&key, key_data, sizeof(key));
	memcpy(&c, value, sizeof(c));
	cidr_key_text(&key, text, sizeof(text));
	if (c.flags & WAG_CIDR_PODS) {
		one = way_of_pods(w, &key, &c, find_route(w, &key));
		json_array_append_new(json_object_get(one, "podCIDRs"), json_string(text));
	} else if (c.flags & WAG_CIDR_NODE) {
		*strchr(text, '/') = '\0';
		one = is_packed(&c) ? element(w, "tunnel", wag_addr_format(&c.tunnel, to)) :
				      element(w, "direct", text);
		set_way(one, 0, is_packed(&c) ? c.mtu : 0);
		json_array_append_new(json_object_get(one, "addresses"), json_string(text));
	}
	return 0;
}

int nodes_read(const struct cli *cli, json_t **ret, struct wag_err *err)
{
	_cleanup_map_ struct pinned_map map = PINNED_MAP_NONE;
	_cleanup_json_ json_t *list = json_array(), *index = json_object();
	struct walk w = { .list = list, .index = index };
	int r = pinned_map_open_typed(cli, "wag_cidr", sizeof(struct wag_cidr_key),
				      sizeof(struct wag_cidr), &map, err);

	if (r < 0)
		return r;
	r = read_routes(&w.routes);
	if (r == 0)
		r = pinned_map_each(&map, add_entry, &w);
	free(w.routes.list);
	if (r < 0)
		return wag_err_set(err, r, "routes and map wag_cidr: %s", strerror(-r));
	*ret = json_incref(list);
	return 0;
}

json_t *node_way(const json_t *node)
{
	const char *link = json_string_value(json_object_get(node, "link"));
	const char *to = json_string_value(json_object_get(node, "to"));
	const char *device = json_string_value(json_object_get(node, "device"));

	return json_sprintf("%s%s%s%s%s", link, *to ? " to " : "", to, *device ? " by " : "",
			    device);
}
