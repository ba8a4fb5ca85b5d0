// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "agent/dataplane_fake.h"
#include "agent/sync.h"
#include "sync_fixture.h"
#include "sync_world.h"

/* Maps nobody in their right mind wrote: everything is put right, nothing crashes. */
static void test_adopts_garbage(void **state)
{
	for (unsigned seed = 1; seed <= 200; seed++) {
		struct dataplane_fake_sizes sizes = { .n_states = 32, .n_slots = 4096 };
		struct world w = { .seed = seed };

		sync_free(sy);
		dataplane_free(dp);
		assert_int_equal(dataplane_fake_new(&sizes, &dp), 0);
		world_scribble(&w, dp);
		assert_int_equal(sync_new(dp, &sy), 0);
		assert_int_equal(sync_adopt(sy), 0);
		world_change(&w, 6);
		world_apply(&w, sy);
		sync_sweep(sy);
		for (int i = 0; i < 4; i++, now += 10000)
			run_ops();
		world_check(&w, dp);
		assert_int_equal(sync_pending(sy), 0);
	}
}

static void fail_soon(struct world *w)
{
	uint64_t first = dataplane_fake_ops(dp) + world_random(w, 9);

	dataplane_fake_fail(dp, first, 1 + world_random(w, 3), EBUSY);
}

static void test_random_changes_keep_every_invariant(void **state)
{
	for (unsigned seed = 1; seed <= 60; seed++) {
		struct dataplane_fake_sizes sizes = { .n_states = 64, .n_slots = 8192 };
		struct world w = { .seed = seed };

		fresh(&sizes);
		world_watch(&w, dp);
		for (int step = 0; step < 40; step++, now += 10000) {
			world_change(&w, 1 + world_random(&w, 6));
			world_apply(&w, sy);
			if (world_random(&w, 4) == 0)
				fail_soon(&w);
			run_ops();
			dataplane_fake_fail(dp, 0, 0, 0);
			for (int i = 0; i < 3; i++) {
				now += 10000;
				run_ops();
			}
			assert_int_equal(sync_pending(sy), 0);
			world_check(&w, dp);
			assert_false(dataplane_fake_recycled(dp));
		}
	}
}

/* Up to two deaths in a row, each after any operation and between any two stores. */
static void recover(struct world *w, uint64_t op, unsigned stores)
{
	dataplane_fake_crash(dp, dataplane_fake_ops(dp) + op);
	(void)sync_run(sy, now);
	if (dataplane_fake_crashed(dp))
		dataplane_fake_revive(dp, stores);
	else
		dataplane_fake_crash(dp, UINT64_MAX);
	sync_free(sy);
	assert_int_equal(sync_new(dp, &sy), 0);
	assert_int_equal(sync_adopt(sy), 0);
	world_forget(w);
	world_apply(w, sy);
	if (world_random(w, 2))
		run_ops();
	sync_sweep(sy);
}

static void test_death_after_any_operation(void **state)
{
	struct dataplane_fake_sizes sizes = { .n_states = 64, .n_slots = 8192 };

	for (unsigned seed = 1; seed <= 40; seed++) {
		uint64_t n_ops = 1;

		for (uint64_t k = 0; k < n_ops; k++) {
			struct world w = { .seed = seed };

			fresh(&sizes);
			world_watch(&w, dp);
			world_change(&w, 10);
			world_apply(&w, sy);
			run_ops();
			world_change(&w, 6);
			world_apply(&w, sy);
			if (k == 0)
				n_ops = 80;
			w.seed += k * 7919;
			recover(&w, k, world_random(&w, 12));
			if (world_random(&w, 2))
				recover(&w, world_random(&w, 20), world_random(&w, 12));
			for (int i = 0; i < 3; i++, now += 10000)
				run_ops();
			assert_int_equal(sync_pending(sy), 0);
			world_check(&w, dp);
			assert_int_equal(run_ops(), 0);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, sync_setup, sync_teardown)
		T(test_adopts_garbage),
		T(test_random_changes_keep_every_invariant),
		T(test_death_after_any_operation),
#undef T
	};

	return cmocka_run_group_tests_name("sync_chaos", tests, NULL, NULL);
}
