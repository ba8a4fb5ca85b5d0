// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "node_route.h"

#define PRIORITY_V6 1024 /* what the kernel gives an IPv6 route without one */

struct present {
	struct nl_route *list;
	size_t n, cap;
};

static void present_done(struct present *p)
{
	free(p->list);
}

static int on_route(const struct nl_route *r, void *ctx)
{
	struct present *p = ctx;

	if (r->protocol != NODE_ROUTE_PROTO || r->table != RT_TABLE_MAIN)
		return 0;
	if (p->n == p->cap) {
		size_t cap = p->cap ? p->cap * 2 : 64;
		struct nl_route *list = reallocarray(p->list, cap, sizeof(*list));

		if (!list)
			return -ENOMEM;
		p->list = list;
		p->cap = cap;
	}
	p->list[p->n++] = *r;
	return 0;
}

static int by_prefix(const void *a, const void *b)
{
	const struct nl_route *x = a, *y = b;
	int r = memcmp(&x->dst, &y->dst, sizeof(x->dst));

	return r ? r : (x->bits > y->bits) - (x->bits < y->bits);
}

static struct nl_route wire_form(const struct node_route *r)
{
	return (struct nl_route){
		.dst = r->dst,
		.gw = r->via,
		.src = r->src,
		.bits = r->bits,
		.ifindex = r->ifindex,
		.mtu = r->mtu,
		.priority = wag_addr_is_v4(&r->dst) ? 0 : PRIORITY_V6,
		.table = RT_TABLE_MAIN,
		.protocol = NODE_ROUTE_PROTO,
		.type = RTN_UNICAST,
	};
}

static bool same(const struct nl_route *a, const struct nl_route *b)
{
	return a->ifindex == b->ifindex && a->mtu == b->mtu && a->priority == b->priority &&
	       a->type == b->type && wag_addr_equal(&a->gw, &b->gw) &&
	       wag_addr_equal(&a->src, &b->src);
}

static void note_failure(struct node_route_result *ret, const struct nl_route *r, int err)
{
	char dst[WAG_ADDR_TEXT], via[WAG_ADDR_TEXT];
	bool has_via = !wag_addr_is_zero(&r->gw);

	if (ret->failed++)
		return;
	snprintf(ret->error, sizeof(ret->error), "%s/%u%s%s: %s%s", wag_addr_format(&r->dst, dst),
		 r->bits, has_via ? " via " : "", has_via ? wag_addr_format(&r->gw, via) : "",
		 err == -EEXIST ? "a route that is not Waggle's is there" : strerror(-err),
		 err == -EEXIST ? ": remove it, and this one is made" : "");
}

enum state { MISSING, OTHER, RIGHT };

/* What each wanted one needs; what nobody wants is moved to the front of p. */
static size_t match(const struct nl_route *want, size_t n, uint8_t *states, struct present *p)
{
	size_t stale = 0;

	for (size_t i = 0; i < p->n; i++) {
		const struct nl_route have = p->list[i];
		const struct nl_route *w =
			n ? bsearch(&have, want, n, sizeof(*want), by_prefix) : NULL;
		uint8_t *state = w ? &states[w - want] : NULL;

		if (w && *state == MISSING && have.priority == w->priority)
			*state = same(&have, w) ? RIGHT : OTHER;
		else
			p->list[stale++] = have;
	}
	return stale;
}

int node_routes_apply(struct nl *nl, const struct node_route *want, size_t n,
		      struct node_route_result *ret)
{
	_cleanup_(present_done) struct present present = { 0 };
	_cleanup_free_ struct nl_route *wanted = calloc(n + 1, sizeof(*wanted));
	_cleanup_free_ uint8_t *states = calloc(n + 1, 1);
	struct node_route_result result = { 0 };
	size_t stale;
	int r = wanted && states ? nl_route_list(nl, on_route, &present) : -ENOMEM;

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		wanted[i] = wire_form(&want[i]);
	if (n)
		qsort(wanted, n, sizeof(*wanted), by_prefix);
	stale = match(wanted, n, states, &present);
	for (size_t i = 0; i < n; i++) {
		if (states[i] != RIGHT) {
			r = nl_route_put(nl, &wanted[i], states[i] == OTHER);
			result.changed++;
			if (r < 0)
				note_failure(&result, &wanted[i], r);
		}
	}
	for (size_t i = 0; i < stale; i++) {
		r = nl_route_drop(nl, &present.list[i]);
		result.changed++;
		if (r < 0 && r != -ESRCH)
			note_failure(&result, &present.list[i], r);
	}
	result.present = n - (result.failed < n ? result.failed : n);
	*ret = result;
	return 0;
}
