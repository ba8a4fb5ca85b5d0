// SPDX-License-Identifier: Apache-2.0
/* The generations of the policies' tables: what is in force is whole, whatever fails meanwhile. */
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
#include "agent/dataplane_fake.h"
#include "agent/policy_apply.h"
#include "policy_world.h"

static const enum dp_table tables[POLICY_TABLES] = {
	[POLICY_IPCACHE] = DP_IPCACHE, [POLICY_POD] = DP_POLICY,
	[POLICY_RULE] = DP_RULE,       [POLICY_PORT] = DP_PORT,
	[POLICY_PORT_EXACT] = DP_PORT_EXACT,
};

static struct dataplane *dp;
static struct model *m;
static struct policy_world w;
static struct policy_apply a;

static void changed(const struct object *obj, bool gone, void *ctx)
{
	assert_int_equal(policy_apply_change(&a, obj, gone), 0);
}

static int replay(const struct object *obj, void *ctx)
{
	return policy_apply_change(&a, obj, false);
}

static void set_pods(void)
{
	struct wag_addr addrs[2];
	struct policy_endpoint eps[] = { { 1, "red", "p0", addrs, 1 },
					 { 2, "red", "p6", addrs + 1, 1 },
					 { 3, "", "", NULL, 0 } };

	assert_int_equal(wag_addr_parse("10.244.0.2", &addrs[0]), 0);
	assert_int_equal(wag_addr_parse("10.244.0.4", &addrs[1]), 0);
	assert_int_equal(policy_apply_endpoints(&a, eps, 3), 0);
}

/* As an agent that starts over what the one before has left. */
static void start(void)
{
	assert_int_equal(policy_apply_init(&a, dp), 0);
	for (int k = 0; k < MODEL_KINDS; k++)
		model_visit(m, k, replay, NULL);
	model_on_change(m, changed, NULL);
	set_pods();
}

static void stop(void)
{
	model_on_change(m, NULL, NULL);
	policy_apply_done(&a);
}

static int setup(void **state)
{
	assert_int_equal(dataplane_fake_new(NULL, &dp), 0);
	assert_int_equal(model_new(&m), 0);
	policy_world_init(&w, m, 77);
	start();
	return 0;
}

static int teardown(void **state)
{
	assert_false(dataplane_fake_hasty(dp));
	assert_false(dataplane_fake_impatient(dp));
	stop();
	policy_world_done(&w);
	model_free(m);
	dataplane_free(dp);
	return 0;
}

static int run(void)
{
	return policy_apply_run(&a, NULL, NULL);
}

struct of_gen {
	uint32_t gen;
	enum policy_table t;
	const struct deltamap *want;
	size_t n;
	uint64_t sum; /* of what is there, whatever its order */
};

static uint64_t hash(const unsigned char *p, size_t n, uint64_t h)
{
	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * 0x100000001b3ULL;
	return h;
}

static int visit(const void *key, const void *value, void *ctx)
{
	struct of_gen *o = ctx;
	size_t ks = dataplane_key_size(tables[o->t]);
	size_t vs = dataplane_value_size(tables[o->t]);
	unsigned char k[64];
	uint32_t gen;

	memcpy(k, key, ks);
	memcpy(&gen, k + dataplane_gen_offset(tables[o->t]), sizeof(gen));
	if (gen != o->gen)
		return 0;
	memset(k + dataplane_gen_offset(tables[o->t]), 0, sizeof(gen));
	if (o->want) {
		assert_non_null(deltamap_desired(o->want, k));
		assert_memory_equal(deltamap_desired(o->want, k), value, vs);
	}
	o->n++;
	o->sum += hash(value, vs, hash(k, ks, 0xcbf29ce484222325ULL));
	return 0;
}

/* What packets are judged by is exactly what the compiler says. */
static void in_force_is_right(void)
{
	uint32_t epoch;

	assert_int_equal(dataplane_policy_epoch(dp, &epoch), 0);
	assert_int_equal(epoch, a.epoch);
	for (int t = 0; t < POLICY_TABLES; t++) {
		struct of_gen o = { wag_policy_gen(epoch), t,
				    policy_compiler_table(a.compiler, t) };

		dataplane_visit(dp, tables[t], visit, &o);
		assert_int_equal(o.n, o.want->n_desired);
	}
}

static uint64_t in_force_sum(void)
{
	uint64_t sum = 0;
	uint32_t epoch;

	assert_int_equal(dataplane_policy_epoch(dp, &epoch), 0);
	for (int t = 0; t < POLICY_TABLES; t++) {
		struct of_gen o = { wag_policy_gen(epoch), t };

		dataplane_visit(dp, tables[t], visit, &o);
		sum += o.sum * (t + 1);
	}
	return sum;
}

static const char deny[] = "{\"metadata\":{\"namespace\":\"red\",\"name\":\"deny\"},"
			   "\"spec\":{\"podSelector\":{}}}";

static void test_nothing_without_policies(void **state)
{
	assert_int_equal(run(), 0);
	assert_int_equal(dataplane_fake_ops(dp), 0);
	assert_int_equal(a.epoch, 0);
	assert_true(policy_apply_in_force(&a, 1, true));
	assert_false(policy_apply_in_force(&a, 9, true));
}

static void test_an_unchanged_run_does_nothing(void **state)
{
	uint64_t ops;

	policy_world_put(&w, MODEL_POLICY, deny);
	assert_int_equal(run(), 0);
	assert_int_equal(a.epoch, 1);
	in_force_is_right();
	ops = dataplane_fake_ops(dp);
	assert_int_equal(run(), 0);
	assert_int_equal(dataplane_fake_ops(dp), ops);
	assert_int_equal(a.epoch, 1);
}

/* Whatever fails, and after however many operations, what was in force is not touched. */
static void test_what_fails_changes_nothing(void **state)
{
	unsigned failed = 0;

	policy_world_put(&w, MODEL_POLICY, deny);
	assert_int_equal(run(), 0);
	for (unsigned i = 0; i < 400; i++) {
		uint64_t before;
		uint32_t epoch = a.epoch;

		policy_world_step(&w);
		before = in_force_sum();
		dataplane_fake_fail(dp, dataplane_fake_ops(dp) + i % 17, 1, ENOMEM);
		if (run() < 0) {
			failed++;
			assert_int_equal(a.err, ENOMEM);
			assert_int_equal(a.epoch, epoch);
			assert_true(in_force_sum() == before);
			dataplane_fake_fail(dp, 0, 0, 0);
			assert_int_equal(run(), 0);
		}
		in_force_is_right();
	}
	assert_true(failed > 50);
}

static void test_the_next_agent_goes_on(void **state)
{
	for (unsigned i = 0; i < 60; i++) {
		uint64_t before;

		policy_world_step(&w);
		assert_int_equal(run(), 0);
		before = in_force_sum();
		stop();
		policy_world_step(&w);
		start();
		assert_true(in_force_sum() == before);
		assert_int_equal(run(), 0);
		if (a.epoch)
			in_force_is_right();
	}
	assert_true(a.epoch > 30);
}

/* A pod counts from the run that knew it. */
static void test_in_force(void **state)
{
	policy_world_put(&w, MODEL_POLICY, deny);
	assert_false(policy_apply_in_force(&a, 1, true));
	dataplane_fake_fail_table(dp, DP_POLICY, E2BIG);
	assert_int_equal(run(), -E2BIG);
	assert_string_equal(a.err_map, "wag_policy");
	assert_false(policy_apply_in_force(&a, 1, true));
	dataplane_fake_fail_table(dp, DP_POLICY, 0);
	assert_int_equal(run(), 0);
	assert_true(policy_apply_in_force(&a, 1, true));
	assert_true(policy_apply_in_force(&a, 3, true)); /* it has no name */
	model_delete(m, MODEL_POD, "red", "p0");
	assert_int_equal(run(), 0);
	assert_false(policy_apply_in_force(&a, 1, true));
	assert_true(policy_apply_in_force(&a, 1, false));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_nothing_without_policies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_an_unchanged_run_does_nothing, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_what_fails_changes_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_next_agent_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(test_in_force, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
