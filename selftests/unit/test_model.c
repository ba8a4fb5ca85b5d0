// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "agent/addr_index.h"
#include "agent/object.h"

static struct object *make_service(const char *ns, const char *name, uint16_t port)
{
	struct object *obj = object_new(MODEL_SERVICE, ns, name);
	struct svc_port *p = array_grow(&obj->service.ports, &obj->service.n_ports, sizeof(*p));
	struct wag_addr *ip;

	p->name = strdup("http");
	p->proto = 6;
	p->port = port;
	ip = array_grow(&obj->service.cluster_ips, &obj->service.n_cluster_ips, sizeof(*ip));
	wag_addr_parse("10.96.0.7", ip);
	obj->resource_version = strdup("12");
	return obj;
}

static struct object *make_slice(const char *ns, const char *name, const char *svc, const char *ip,
				 const char *pod)
{
	struct object *obj = object_new(MODEL_SLICE, ns, name);
	struct slice_endpoint *ep;
	struct wag_addr *addr;

	obj->slice.service = svc ? strdup(svc) : NULL;
	for (int i = 0; i < 2; i++) {
		ep = array_grow(&obj->slice.endpoints, &obj->slice.n_endpoints, sizeof(*ep));
		ep->ready = true;
		ep->node_name = strdup("n1");
		ep->zone = i ? NULL : strdup("z");
		addr = array_grow(&ep->addrs, &ep->n_addrs, sizeof(*addr));
		wag_addr_parse(ip, addr);
		addr->b[15] += i;
		if (i == 0 && pod)
			ep->target_name = strdup(pod);
	}
	return obj;
}

static struct object *make_pod(const char *name, const char *ip, const char *phase)
{
	struct object *obj = object_new(MODEL_POD, "a", name);
	struct wag_addr *addr = array_grow(&obj->pod.addrs, &obj->pod.n_addrs, sizeof(*addr));

	wag_addr_parse(ip, addr);
	obj->pod.phase = strdup(phase);
	return obj;
}

static int collect(const char *ns, const char *name, void *ctx)
{
	char *text = ctx;

	sprintf(text + strlen(text), "%s/%s ", ns, name);
	return 0;
}

static const char *dirty(struct model *m)
{
	static char text[1024];

	text[0] = 0;
	model_take_dirty_services(m, collect, text);
	return text;
}

static int count(const struct object *obj, void *ctx)
{
	(*(int *)ctx)++;
	return 0;
}

static int refuse(const char *ns, const char *name, void *ctx)
{
	return -EAGAIN;
}

static void on_dirty(void *ctx)
{
	(*(int *)ctx)++;
}

static void test_dirty_marks(void **state)
{
	_cleanup_(model_freep) struct model *m = NULL;
	int told = 0, n = 0;

	assert_int_equal(model_new(&m), 0);
	model_on_dirty(m, on_dirty, &told);
	assert_int_equal(model_upsert(m, make_service("a", "web", 80)), 1);
	assert_int_equal(told, 1);
	assert_int_equal(model_upsert(m, make_slice("a", "web-1", "web", "10.0.0.1", "p")), 1);
	assert_int_equal(model_upsert(m, make_slice("a", "db-1", "db", "10.0.1.1", "q")), 1);
	assert_int_equal(told, 1);
	assert_int_equal(model_take_dirty_services(m, refuse, NULL), -EAGAIN);
	assert_string_equal(dirty(m), "a/web a/db ");
	assert_string_equal(dirty(m), "");
	/* the same again: nothing */
	assert_int_equal(model_upsert(m, make_service("a", "web", 80)), 0);
	assert_int_equal(model_upsert(m, make_slice("a", "web-1", "web", "10.0.0.1", "p")), 0);
	assert_string_equal(dirty(m), "");
	/* a slice that moves to another Service marks both */
	assert_int_equal(model_upsert(m, make_slice("a", "web-1", "db", "10.0.0.1", "p")), 1);
	assert_int_equal(told, 2);
	assert_string_equal(dirty(m), "a/web a/db ");
	model_visit_slices(m, "a", "db", count, &n);
	assert_int_equal(n, 2);
	assert_int_equal(model_delete(m, MODEL_SLICE, "a", "db-1"), 1);
	assert_int_equal(model_delete(m, MODEL_SLICE, "a", "db-1"), 0);
	assert_int_equal(model_delete(m, MODEL_SERVICE, "a", "web"), 1);
	assert_string_equal(dirty(m), "a/db a/web ");
	assert_false(model_take_dirty(m, MODEL_POD));
	model_upsert(m, make_pod("p", "10.0.0.1", "Running"));
	assert_true(model_take_dirty(m, MODEL_POD));
	assert_false(model_take_dirty(m, MODEL_POD));
}

static void test_equality_sees_every_field(void **state)
{
	_cleanup_(object_freep) struct object *a = make_slice("a", "s", "w", "10.0.0.1", "p");
	_cleanup_(object_freep) struct object *b = make_slice("a", "s", "w", "10.0.0.1", "p");
	_cleanup_(object_freep) struct object *packed = object_pack(a);

	assert_true(object_equal(a, b));
	assert_true(object_equal(a, packed));
	b->slice.endpoints[1].ready = false;
	assert_false(object_equal(a, b));
	b->slice.endpoints[1].ready = true;
	b->slice.endpoints[1].zone = strdup("z");
	assert_false(object_equal(a, b));
	assert_string_equal(packed->slice.endpoints[1].node_name, "n1");
	assert_ptr_equal(packed->slice.endpoints[1].node_name,
			 packed->slice.endpoints[0].node_name);
	assert_null(packed->slice.endpoints[1].zone);
	assert_string_equal(packed->name, "s");
	free(b->slice.endpoints[1].zone);
	b->slice.endpoints[1].zone = NULL;
	b->slice.endpoints[1].hint_zones = strdup("z");
	assert_false(object_equal(a, b));
	a->slice.endpoints[1].hint_zones = strdup("z");
	assert_true(object_equal(a, b));
	b->slice.endpoints[1].hint_nodes = strdup("n1,n2");
	assert_false(object_equal(a, b));
	free(packed);
	packed = object_pack(b);
	assert_string_equal(packed->slice.endpoints[1].hint_nodes, "n1,n2");
	assert_true(object_equal(packed, b));
}

static void test_equality_of_services(void **state)
{
	_cleanup_(object_freep) struct object *a = make_service("a", "s", 80);
	_cleanup_(object_freep) struct object *b = make_service("a", "s", 80);
	_cleanup_(object_freep) struct object *packed = NULL;
	struct source_range *range;

	assert_true(object_equal(a, b));
	range = array_grow(&b->service.source_ranges, &b->service.n_source_ranges, sizeof(*range));
	wag_cidr_parse("10.0.0.0/8", &range->addr, &range->bits);
	assert_false(object_equal(a, b));
	packed = object_pack(b);
	assert_true(object_equal(packed, b));
	range->bits = 9;
	assert_false(object_equal(packed, b));
}

static void test_relist(void **state)
{
	_cleanup_(model_freep) struct model *m = NULL;

	assert_int_equal(model_new(&m), 0);
	model_upsert(m, make_service("a", "one", 80));
	model_upsert(m, make_service("a", "two", 80));
	dirty(m);
	model_relist_begin(m, MODEL_SERVICE);
	model_upsert(m, make_service("a", "one", 80));
	model_upsert(m, make_service("a", "three", 80));
	assert_int_equal(model_count(m, MODEL_SERVICE), 3); /* nothing goes before the end */
	model_relist_begin(m, MODEL_SERVICE);		    /* a list that had to start again */
	model_upsert(m, make_service("a", "three", 80));
	model_relist_end(m, MODEL_SERVICE);
	assert_int_equal(model_count(m, MODEL_SERVICE), 1);
	assert_string_equal(dirty(m), "a/three a/one a/two ");
	assert_non_null(model_get(m, MODEL_SERVICE, "a", "three"));
	assert_false(model_synced(m, MODEL_SERVICE));
	model_set_synced(m, MODEL_SERVICE);
	assert_true(model_synced(m, MODEL_SERVICE));
	model_relist_end(m, MODEL_SERVICE); /* without a begin: nothing */
	assert_int_equal(model_count(m, MODEL_SERVICE), 1);
}

static void expect_name(struct model *m, const char *ip, const char *want)
{
	char ns[64], name[256], got[330] = "";
	struct wag_addr addr;

	wag_addr_parse(ip, &addr);
	if (model_name_by_addr(m, &addr, ns, sizeof(ns), name, sizeof(name)) == 0)
		snprintf(got, sizeof(got), "%s/%s", ns, name);
	assert_string_equal(got, want);
}

static void test_names_by_address(void **state)
{
	_cleanup_(model_freep) struct model *m = NULL;
	struct object *node = object_new(MODEL_NODE, "", "n1");
	struct wag_addr *addr;

	assert_int_equal(model_new(&m), 0);
	expect_name(m, "10.0.0.1", "");
	model_upsert(m, make_slice("a", "s1", "x", "10.0.0.1", "remote"));
	model_upsert(m, make_slice("a", "s2", "y", "10.0.0.1", "remote"));
	expect_name(m, "10.0.0.1", "a/remote");
	expect_name(m, "10.0.0.2", ""); /* an endpoint without targetRef */
	model_delete(m, MODEL_SLICE, "a", "s1");
	expect_name(m, "10.0.0.1", "a/remote");
	model_upsert(m, make_pod("local", "10.0.0.1", "Running"));
	expect_name(m, "10.0.0.1", "a/local");
	model_upsert(m, make_pod("local", "10.0.0.1", "Succeeded"));
	expect_name(m, "10.0.0.1", "a/remote");
	model_delete(m, MODEL_SLICE, "a", "s2");
	expect_name(m, "10.0.0.1", "");
	model_upsert(m, make_slice("a", "s3", "x", "172.31.0.1", "host-pod"));
	addr = array_grow(&node->node.addrs, &node->node.n_addrs, sizeof(*addr));
	wag_addr_parse("172.31.0.1", addr);
	model_upsert(m, node);
	expect_name(m, "172.31.0.1", ""); /* the node's own */
}

static void test_many_addresses(void **state)
{
	_cleanup_(model_freep) struct model *m = NULL;
	char name[32], ip[32], want[40];

	assert_int_equal(model_new(&m), 0);
	for (int i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), "p%d", i);
		snprintf(ip, sizeof(ip), "10.1.%d.%d", i / 250, i % 250);
		assert_int_equal(model_upsert(m, make_pod(name, ip, "Running")), 1);
	}
	for (int i = 0; i < 3000; i += 2) {
		snprintf(name, sizeof(name), "p%d", i);
		assert_int_equal(model_delete(m, MODEL_POD, "a", name), 1);
	}
	for (int i = 0; i < 3000; i++) {
		snprintf(ip, sizeof(ip), "10.1.%d.%d", i / 250, i % 250);
		snprintf(want, sizeof(want), "a/p%d", i);
		expect_name(m, ip, i % 2 ? want : "");
	}
}

/* A change of a slice walks the chains of its addresses: no chain is long. */
static void test_addresses_do_not_crowd(void **state)
{
	enum { N = 1 << 17, DEEP = 12 };
	_cleanup_free_ struct wag_addr *addrs = calloc(N, sizeof(*addrs));
	struct object node = { .kind = MODEL_NODE, .node = { .addrs = addrs, .n_addrs = N } };
	struct addr_index index = { 0 };
	unsigned deepest = 0;

	wag_addr_parse("10.128.0.0", &addrs[0]);
	for (uint32_t i = 0; i < N; i++) {
		addrs[i] = addrs[0];
		addrs[i].w[3] = htonl(ntohl(addrs[0].w[3]) + i);
	}
	assert_int_equal(addr_index_change(&index, &node, true), 0);
	for (uint32_t b = 0; b < index.n_buckets; b++) {
		unsigned depth = 0;

		for (uint32_t i = index.buckets[b]; i; i = index.claims[i - 1].next)
			depth++;
		deepest = depth > deepest ? depth : deepest;
	}
	assert_in_range(deepest, 2, DEEP);
	addr_index_done(&index);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dirty_marks),
		cmocka_unit_test(test_equality_sees_every_field),
		cmocka_unit_test(test_equality_of_services),
		cmocka_unit_test(test_relist),
		cmocka_unit_test(test_names_by_address),
		cmocka_unit_test(test_many_addresses),
		cmocka_unit_test(test_addresses_do_not_crowd),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
