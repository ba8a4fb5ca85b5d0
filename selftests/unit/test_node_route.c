// SPDX-License-Identifier: Apache-2.0
/* Routes against the kernel's own tables, in a network namespace of the test's own. */
#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <unistd.h>
#include <waggle/addr.h>
#include <waggle/netlink.h>
#include "agent/node_route.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))

struct world {
	struct nl *nl;
	int home;
	uint32_t ifindex;
};

static void addr_of(const char *text, struct wag_addr *ret)
{
	assert_int_equal(wag_addr_parse(text, ret), 0);
}

static int set_up(void **state)
{
	static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 1 }, peer[6] = { 2, 0, 0, 0, 0, 2 };
	struct world *w = calloc(1, sizeof(*w));
	struct wag_addr addr;
	struct nl_link link;
	int here;

	*state = w;
	w->home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (unshare(CLONE_NEWNET) < 0)
		return 0; /* needs root: the tests skip */
	assert_int_equal(nl_new(&w->nl), 0);
	here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_int_equal(nl_veth_add(w->nl, "v0", "v1", here, 1500, mac, peer), 0);
	close(here);
	assert_int_equal(nl_link_get(w->nl, "v1", &link), 0);
	assert_int_equal(nl_link_up(w->nl, link.ifindex), 0);
	w->ifindex = link.peer_ifindex;
	assert_int_equal(nl_link_up(w->nl, w->ifindex), 0);
	addr_of("10.0.0.1", &addr);
	assert_int_equal(nl_addr_add(w->nl, w->ifindex, &addr, 24), 0);
	addr_of("fd00::1", &addr);
	assert_int_equal(nl_addr_add(w->nl, w->ifindex, &addr, 64), 0);
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	nl_free(w->nl);
	setns(w->home, CLONE_NEWNET);
	close(w->home);
	free(w);
	return 0;
}

/* "10.1.0.0/24 10.0.0.2 1400": prefix, next hop or "-", MTU */
static struct node_route route_of(const struct world *w, const char *text)
{
	char dst[64], via[64];
	struct node_route r = { .ifindex = w->ifindex };

	assert_int_equal(sscanf(text, "%63s %63s %u", dst, via, &r.mtu), 3);
	assert_int_equal(wag_cidr_parse(dst, &r.dst, &r.bits), 0);
	if (via[0] != '-')
		addr_of(via, &r.via);
	return r;
}

struct texts {
	char lines[16][128];
	size_t n;
};

static int collect(const struct nl_route *r, void *ctx)
{
	char dst[WAG_ADDR_TEXT], via[WAG_ADDR_TEXT];
	struct texts *t = ctx;

	if (r->protocol != NODE_ROUTE_PROTO || r->table != RT_TABLE_MAIN)
		return 0;
	snprintf(t->lines[t->n++], sizeof(t->lines[0]), "%s/%u %s %u",
		 wag_addr_format(&r->dst, dst), r->bits,
		 wag_addr_is_zero(&r->gw) ? "-" : wag_addr_format(&r->gw, via), r->mtu);
	return 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* Applies them and looks; returns how many operations that took. */
static size_t apply(const struct world *w, const char *const *want, size_t n, size_t failed,
		    struct node_route_result *result)
{
	struct node_route routes[8];
	struct texts have = { .n = 0 }, wanted = { .n = 0 };

	for (size_t i = 0; i < n; i++) {
		routes[i] = route_of(w, want[i]);
		strcpy(wanted.lines[wanted.n++], want[i]);
	}
	assert_int_equal(node_routes_apply(w->nl, routes, n, result), 0);
	assert_int_equal(result->failed, failed);
	if (failed)
		return result->changed;
	assert_int_equal(nl_route_list(w->nl, collect, &have), 0);
	qsort(have.lines, have.n, sizeof(have.lines[0]), by_text);
	qsort(wanted.lines, wanted.n, sizeof(wanted.lines[0]), by_text);
	assert_int_equal(have.n, wanted.n);
	for (size_t i = 0; i < have.n; i++)
		assert_string_equal(have.lines[i], wanted.lines[i]);
	return result->changed;
}

static void test_follows(void **state)
{
	static const char *const first[] = { "10.1.0.0/24 10.0.0.2 0", "10.2.0.0/24 - 1450",
					     "fd01::/64 fd00::2 0", "fd02::/64 - 1450" };
	static const char *const next[] = { "10.1.0.0/24 10.0.0.3 0", "10.2.0.0/24 - 1430",
					    "fd01::/64 - 0", "fd02::/64 fd00::3 1450",
					    "10.3.0.0/24 10.0.0.2 0" };
	struct node_route_result r;
	struct world *w = *state;

	if (!w->nl)
		skip();
	assert_int_equal(apply(w, first, N(first), 0, &r), 4);
	assert_int_equal(r.present, 4);
	assert_int_equal(apply(w, first, N(first), 0, &r), 0); /* nothing is touched */
	assert_int_equal(apply(w, next, N(next), 0, &r), 5);
	assert_int_equal(apply(w, next, N(next), 0, &r), 0);
	assert_int_equal(apply(w, next, 1, 0, &r), 4); /* the rest goes */
	assert_int_equal(apply(w, NULL, 0, 0, &r), 1);
}

/* A route of somebody else to the same prefix is left alone, and said. */
static void test_strangers(void **state)
{
	static const char *const want[] = { "10.1.0.0/24 10.0.0.2 0", "fd01::/64 fd00::2 0" };
	struct node_route_result r;
	struct world *w = *state;
	struct node_route route;
	struct nl_route foreign;

	if (!w->nl)
		skip();
	for (size_t i = 0; i < 2; i++) {
		route = route_of(w, want[i]);
		foreign = (struct nl_route){ .dst = route.dst, .bits = route.bits,
					     .ifindex = w->ifindex, .protocol = RTPROT_STATIC };
		assert_int_equal(nl_route_put(w->nl, &foreign, false), 0);
		apply(w, want, 2, 1, &r);
		assert_non_null(strstr(r.error, i ? "fd01::/64" : "10.1.0.0/24"));
		assert_non_null(strstr(r.error, "not Waggle's"));
		assert_int_equal(r.present, 1);
		assert_int_equal(nl_route_drop(w->nl, &foreign), 0); /* it was still there */
		apply(w, want, 2, 0, &r);
		apply(w, NULL, 0, 0, &r);
	}
}

static void test_no_way(void **state)
{
	static const char *const want[] = { "10.1.0.0/24 10.77.0.2 0", "10.2.0.0/24 10.0.0.2 0" };
	struct node_route_result r;
	struct world *w = *state;

	if (!w->nl)
		skip();
	apply(w, want, 2, 1, &r);
	assert_non_null(strstr(r.error, "10.1.0.0/24 via 10.77.0.2"));
	assert_int_equal(r.present, 1);
	apply(w, NULL, 0, 0, &r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_follows),
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_no_way),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
