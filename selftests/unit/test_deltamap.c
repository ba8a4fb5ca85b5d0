// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <waggle/abi_maps.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include <waggle/deltamap.h>
#include <waggle/hash.h>

struct counts {
	unsigned inserts, replaces, deletes, same;
	uint32_t keys[8];
	unsigned n;
};

static int count(const void *key, const void *desired, const void *actual, void *ctx)
{
	struct counts *c = ctx;

	if (!actual)
		c->inserts++;
	else if (!desired)
		c->deletes++;
	else if (memcmp(desired, actual, sizeof(uint64_t)) != 0)
		c->replaces++;
	else
		c->same++;
	if (c->n < 8)
		memcpy(&c->keys[c->n++], key, sizeof(uint32_t));
	return 0;
}

static struct counts pending(struct deltamap *m)
{
	struct counts c = { 0 };

	assert_int_equal(deltamap_visit_pending(m, count, &c), 0);
	assert_int_equal(c.inserts + c.replaces + c.deletes, deltamap_pending(m));
	assert_int_equal(c.same, 0);
	return c;
}

static void test_each_kind_of_change(void **state)
{
	static const struct {
		int desired, actual; /* 0: not set */
		unsigned inserts, replaces, deletes;
	} cases[] = {
		{ 0, 0, 0, 0, 0 }, { 1, 0, 1, 0, 0 }, { 0, 1, 0, 0, 1 },
		{ 1, 1, 0, 0, 0 }, { 1, 2, 0, 1, 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t desired = cases[i].desired, actual = cases[i].actual;
		struct deltamap m;
		uint32_t key = 7;
		struct counts c;

		assert_int_equal(deltamap_init(&m, sizeof(key), sizeof(desired)), 0);
		if (desired)
			assert_int_equal(deltamap_set_desired(&m, &key, &desired), 0);
		if (actual)
			assert_int_equal(deltamap_set_actual(&m, &key, &actual), 0);
		c = pending(&m);
		assert_int_equal(c.inserts, cases[i].inserts);
		assert_int_equal(c.replaces, cases[i].replaces);
		assert_int_equal(c.deletes, cases[i].deletes);
		deltamap_done(&m);
	}
}

static void test_changes_that_cancel_out(void **state)
{
	uint64_t one = 1, two = 2;
	uint32_t key = 1;
	struct deltamap m;

	assert_int_equal(deltamap_init(&m, sizeof(key), sizeof(one)), 0);
	assert_int_equal(deltamap_set_desired(&m, &key, &one), 0);
	assert_int_equal(deltamap_set_actual(&m, &key, &one), 0);
	assert_int_equal(deltamap_set_desired(&m, &key, &two), 0);
	assert_int_equal(deltamap_pending(&m), 1);
	deltamap_unset_desired(&m, &key);
	assert_int_equal(deltamap_set_desired(&m, &key, &one), 0);
	assert_int_equal(deltamap_pending(&m), 0);
	assert_int_equal(pending(&m).n, 0);
	deltamap_unset_actual(&m, &key);
	deltamap_unset_desired(&m, &key);
	deltamap_unset_desired(&m, &key);
	assert_int_equal(deltamap_pending(&m), 0);
	assert_null(deltamap_desired(&m, &key));
	deltamap_done(&m);
}

static void test_order_is_kept(void **state)
{
	uint64_t value = 1;
	struct deltamap m;
	struct counts c;

	assert_int_equal(deltamap_init(&m, sizeof(uint32_t), sizeof(value)), 0);
	for (uint32_t key = 5; key > 0; key--)
		assert_int_equal(deltamap_set_desired(&m, &key, &value), 0);
	c = pending(&m);
	assert_int_equal(c.n, 5);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(c.keys[i], 5 - i);
	deltamap_done(&m);
}

#define KEYS 300

/* Against two plain arrays. */
static void test_random(void **state)
{
	uint64_t desired[KEYS] = { 0 }, actual[KEYS] = { 0 };
	struct deltamap m;
	unsigned seed = 1;

	assert_int_equal(deltamap_init(&m, sizeof(uint32_t), sizeof(uint64_t)), 0);
	for (unsigned step = 0; step < 60000; step++) {
		uint32_t key = rand_r(&seed) % KEYS;
		bool side = rand_r(&seed) % 2;
		uint64_t value = rand_r(&seed) % 4, *ref = side ? &desired[key] : &actual[key];
		const uint64_t *found;

		if (value && side)
			assert_int_equal(deltamap_set_desired(&m, &key, &value), 0);
		else if (value)
			assert_int_equal(deltamap_set_actual(&m, &key, &value), 0);
		else if (side)
			deltamap_unset_desired(&m, &key);
		else
			deltamap_unset_actual(&m, &key);
		*ref = value;
		key = rand_r(&seed) % KEYS;
		found = deltamap_desired(&m, &key);
		assert_int_equal(found ? *found : 0, desired[key]);
		found = deltamap_actual(&m, &key);
		assert_int_equal(found ? *found : 0, actual[key]);
		if (step % 100 == 0) {
			unsigned want = 0;

			for (unsigned i = 0; i < KEYS; i++)
				want += desired[i] != actual[i];
			assert_int_equal(deltamap_pending(&m), want);
			(void)pending(&m);
		}
	}
	deltamap_done(&m);
}

/* Keys of a cluster differ in few bits, and not in the lowest: still no bucket is deep. */
static void fullest_bucket(const void *key, size_t size, void *moving, uint8_t *counts, unsigned n,
			   unsigned *ret)
{
	memset(counts, 0, n);
	*ret = 0;
	for (unsigned i = 0; i < n; i++) {
		uint32_t big = htonl(i);
		unsigned at;

		memcpy((char *)moving + 1, (char *)&big + 1, 3);
		at = ++counts[wag_hash(key, size) & (n - 1)];
		*ret = at > *ret ? at : *ret;
	}
}

static void test_addresses_spread(void **state)
{
	enum { N = 1 << 17, DEEP = 12 };
	_cleanup_free_ uint8_t *counts = malloc(N);
	struct wag_svc_key svc = { .proto = 6 };
	struct wag_addr addr;
	unsigned deepest;

	wag_addr_parse("10.0.0.0", &addr);
	fullest_bucket(&addr, sizeof(addr), &addr.b[12], counts, N, &deepest);
	assert_in_range(deepest, 4, DEEP);
	wag_addr_parse("fd00::", &addr);
	fullest_bucket(&addr, sizeof(addr), &addr.b[12], counts, N, &deepest);
	assert_in_range(deepest, 4, DEEP);
	wag_addr_parse("fd00::", &addr);
	fullest_bucket(&addr, sizeof(addr), &addr.b[4], counts, N, &deepest);
	assert_in_range(deepest, 4, DEEP);
	wag_addr_parse("10.96.0.0", &svc.addr);
	fullest_bucket(&svc, sizeof(svc), &svc.addr.b[12], counts, N, &deepest);
	assert_in_range(deepest, 4, DEEP);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_kind_of_change),
		cmocka_unit_test(test_changes_that_cancel_out),
		cmocka_unit_test(test_order_is_kept),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_addresses_spread),
	};

	return cmocka_run_group_tests_name("deltamap", tests, NULL, NULL);
}
