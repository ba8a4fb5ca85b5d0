// SPDX-License-Identifier: Apache-2.0
/* Which blocks a pool has, in which order they are tried, and what their Leases look like. */
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
#include "agent/ipam_pick.h"
#include "agent/kube_lease.h"
#include "agent/object.h"

static struct ipam_pool pool_of(const char *list, unsigned mask)
{
	struct ipam_pool pool;
	struct wag_err err = { 0 };

	assert_int_equal(ipam_pool_parse(&pool, strchr(list, ':'), list, mask, "flag", &err), 0);
	return pool;
}

static struct ipam_range range_of(const char *cidr)
{
	struct ipam_range range;

	assert_int_equal(ipam_range_parse(cidr, &range), 0);
	return range;
}

static void test_parse(void **state)
{
	static const struct {
		const char *list;
		unsigned mask;
		bool v6;
		uint64_t total;
		const char *error;
	} cases[] = {
		{ "10.0.0.0/8", 24, false, 65536, NULL },
		{ "10.5.0.0/20, 10.6.0.0/22", 24, false, 20, NULL },
		{ "10.5.0.0/24", 24, false, 1, NULL },
		{ "", 24, false, 0, NULL },
		{ "", 99, false, 0, NULL },
		{ "fd00::/104", 120, true, 65536, NULL },
		{ "fd00::/64", 96, true, 1ULL << 32, NULL },
		{ "fd00::/64", 97, true, 0, "more than 2^32 blocks" },
		{ "10.0.0.0/8", 31, false, 0, "mask-size: 31 is not in 8..30" },
		{ "10.0.0.0/25", 24, false, 0, "10.0.0.0/25 is smaller than one block of /24" },
		{ "10.0.0.1/8", 24, false, 0, "\"10.0.0.1/8\" is no IPv4 range" },
		{ "10.0.0.0", 24, false, 0, "\"10.0.0.0\" is no IPv4 range" },
		{ "fd00::/104", 24, false, 0, "is no IPv4 range: write it like 10.0.0.0/8" },
		{ "::/80", 104, true, 0, "\"::/80\" is no IPv6 range" },
		{ "::fffe:0:0/95", 104, true, 0, "is no IPv6 range" },
		{ "10.0.0.0/8", 120, true, 0, "is no IPv6 range: write it like fd00::/104" },
		{ "10.0.0.0/8,10.3.0.0/16", 24, false, 0, "10.3.0.0/16 overlaps another" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ipam_pool pool;
		struct wag_err err = { 0 };
		int r = ipam_pool_parse(&pool, cases[i].v6, cases[i].list, cases[i].mask,
					"cluster-pool-ipv4-cidr", &err);

		assert_int_equal(r, cases[i].error ? -EINVAL : 0);
		if (cases[i].error)
			assert_non_null(strstr(err.msg, cases[i].error));
		else
			assert_int_equal(pool.total, cases[i].total);
	}
}

static void test_blocks(void **state)
{
	static const struct {
		const char *list, *block;
		unsigned mask;
		uint64_t index;
	} cases[] = {
		{ "10.0.0.0/8", "10.0.0.0/24", 24, 0 },
		{ "10.0.0.0/8", "10.1.2.0/24", 24, 258 },
		{ "10.0.0.0/8", "10.255.255.0/24", 24, 65535 },
		{ "10.5.0.0/20,10.6.0.0/22", "10.5.15.0/24", 24, 15 },
		{ "10.5.0.0/20,10.6.0.0/22", "10.6.0.0/24", 24, 16 },
		{ "10.5.0.0/20,10.6.0.0/22", "10.6.3.0/24", 24, 19 },
		{ "10.5.0.0/24", "10.5.0.32/27", 27, 1 },
		{ "fd00::/104", "fd00::1:200/120", 120, 258 },
		{ "fd00:1::/48", "fd00:1:0:102::/64", 64, 258 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ipam_pool pool = pool_of(cases[i].list, cases[i].mask);
		struct ipam_range block;
		char text[IPAM_RANGE_KEY];

		ipam_pool_block(&pool, cases[i].index, &block);
		assert_string_equal(node_range_text(&block, text), cases[i].block);
		assert_true(ipam_pool_has(&pool, &block));
		assert_true(ipam_range_size(&block) > 0);
	}
}

/* A thousand nodes look at different places first, and each at the same one every time. */
static void test_candidates_spread(void **state)
{
	struct ipam_pool pool = pool_of("10.0.0.0/12", 24); /* 4096 blocks */
	static uint8_t seen[4096];
	unsigned distinct = 0;

	for (int i = 0; i < 1000; i++) {
		char name[32];
		uint64_t at;

		snprintf(name, sizeof(name), "worker-%d.example.org", i);
		at = ipam_pool_candidate(&pool, name, 0);
		assert_true(at < pool.total && at == ipam_pool_candidate(&pool, name, 0));
		distinct += !seen[at];
		seen[at] = 1;
	}
	/* Chance alone gives 4096 * (1 - e^(-1000/4096)) = 887. */
	assert_in_range(distinct, 850, 1000);
}

static void add_object(struct model *m, enum model_kind kind, const char *name, const char *addr)
{
	struct object *obj = object_new(kind, kind == MODEL_NODE ? "" : "t", name);
	struct wag_addr *at;

	assert_non_null(obj);
	if (kind == MODEL_NODE)
		at = array_grow(&obj->node.addrs, &obj->node.n_addrs, sizeof(*at));
	else
		at = array_grow(&obj->service.cluster_ips, &obj->service.n_cluster_ips,
				sizeof(*at));
	assert_int_equal(wag_addr_parse(addr, at), 0);
	assert_true(model_upsert(m, obj) >= 0);
}

static void add_pod_cidr(struct model *m, const char *name, const char *cidr)
{
	struct object *obj = object_new(MODEL_NODE, "", name);
	char **at;

	assert_non_null(obj);
	at = array_grow(&obj->node.pod_cidrs, &obj->node.n_pod_cidrs, sizeof(*at));
	*at = strdup(cidr);
	assert_int_equal(wag_addr_parse("10.5.0.7", array_grow(&obj->node.addrs,
							       &obj->node.n_addrs,
							       sizeof(struct wag_addr))),
			 0);
	assert_true(model_upsert(m, obj) >= 0);
}

static void test_pick(void **state)
{
	struct ipam_pool pool = pool_of("10.5.0.0/22", 24); /* 4 blocks */
	struct node_range_list mine = { 0 };
	struct ipam_taken taken = { 0 };
	struct model *m = NULL;
	struct ipam_pick pick = { &pool, NULL, "n1", &mine, &taken };
	struct ipam_range block, half = range_of("10.5.2.128/25");
	unsigned attempt = 0;

	assert_int_equal(model_new(&m), 0);
	pick.model = m;
	assert_int_equal(ipam_pick(&pick, &attempt, &block), 0);
	assert_true(ipam_pool_has(&pool, &block));
	/* Nothing usable by chance: the rest is looked through once it is known. */
	add_object(m, MODEL_NODE, "n1", "10.5.0.7");
	add_object(m, MODEL_SERVICE, "s", "10.5.1.9");
	ipam_taken_add(&taken, &half);
	attempt = IPAM_BLIND_TRIES;
	assert_int_equal(ipam_pick(&pick, &attempt, &block), -EAGAIN);
	taken.known = true;
	assert_int_equal(ipam_pick(&pick, &attempt, &block), 0);
	assert_true(node_range_has(&(struct node_range_list){ .at = { range_of("10.5.3.0/24") },
							      .n = 1 },
				   &block));
	/* What a Node has for its pods is taken too, unless it is our own. */
	add_pod_cidr(m, "n1", "10.5.3.0/24");
	assert_int_equal(ipam_pick(&pick, &attempt, &block), 0);
	add_pod_cidr(m, "n2", "10.5.2.0/23");
	assert_int_equal(ipam_pick(&pick, &attempt, &block), -ENOSPC);
	assert_true(model_delete(m, MODEL_NODE, "", "n2") >= 0);
	assert_int_equal(ipam_pick(&pick, &attempt, &block), 0);
	assert_int_equal(node_range_add(&mine, &block), 0);
	assert_int_equal(ipam_pick(&pick, &attempt, &block), -ENOSPC);
	free(taken.at);
	model_free(m);
}

static void test_lease(void **state)
{
	static const struct {
		const char *block, *name, *size;
	} cases[] = {
		{ "10.0.3.0/24", "waggle-ipam-10-0-3-0-24", "v4-24" },
		{ "fd00::/120", "waggle-ipam-fd00---120", "v6-120" },
		{ "fd00::1:200/120", "waggle-ipam-fd00--1-200-120", "v6-120" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct ipam_range block = range_of(cases[i].block);
		json_t *tree = kube_lease_make(&block, "n1", "uid-1", NULL), *meta;
		struct kube_lease lease;

		assert_non_null(tree);
		assert_int_equal(kube_lease_read(tree, &lease), 0);
		assert_string_equal(lease.name, cases[i].name);
		assert_string_equal(lease.holder, "n1");
		assert_string_equal(lease.owner_uid, "uid-1");
		assert_true(ipam_ranges_overlap(&lease.block, &block));
		meta = json_object_get(tree, "metadata");
		assert_string_equal(json_string_value(json_object_get(
					    json_object_get(meta, "labels"), KUBE_LEASE_IPAM)),
				    cases[i].size);
		/* The name is the lock: a Lease that says another block is none. */
		json_object_set_new(meta, "name", json_string("waggle-ipam-10-9-9-0-24"));
		assert_int_equal(kube_lease_read(tree, &lease), -EINVAL);
		json_decref(tree);
	}
	assert_int_equal(kube_lease_read(NULL, &(struct kube_lease){ 0 }), -EINVAL);
}

static void test_long_node_name(void **state)
{
	char a[254], b[254], la[64], lb[64];

	memset(a, 'x', 200);
	a[200] = 0;
	strcpy(b, a);
	b[199] = 'y';
	kube_lease_node(a, la);
	kube_lease_node(b, lb);
	assert_true(strlen(la) <= 63 && strcmp(la, lb) != 0);
	kube_lease_node("worker-1.example.org", la);
	assert_string_equal(la, "worker-1.example.org");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_blocks),
		cmocka_unit_test(test_candidates_spread),
		cmocka_unit_test(test_pick),
		cmocka_unit_test(test_lease),
		cmocka_unit_test(test_long_node_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
