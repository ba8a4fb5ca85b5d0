// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "agent/dataplane_fake.h"
#include "agent/policy_sync.h"

static struct dataplane *dp;
static struct model *m;
static struct policy_sync p;

static void add(enum model_kind kind, const char *ns, const char *name)
{
	struct object *obj = object_new(kind, ns, name);

	assert_non_null(obj);
	assert_true(model_upsert(m, obj) >= 0);
}

static void all_synced(void)
{
	for (int k = 0; k < MODEL_KINDS; k++)
		model_set_synced(m, k);
}

/* -1: not in the table */
static int flags(const char *ns)
{
	struct wag_policy_ns_key key = { 0 };
	const struct wag_policy_ns *v;

	snprintf(key.ns, sizeof(key.ns), "%s", ns);
	v = dataplane_fake_get(dp, DP_POLICY_NS, &key);
	return v ? (int)v->flags : -1;
}

static void start(void)
{
	assert_int_equal(model_new(&m), 0);
	assert_int_equal(policy_sync_init(&p, dp), 0);
}

static void stop(void)
{
	policy_sync_done(&p);
	model_free(m);
}

static int setup(void **state)
{
	assert_int_equal(dataplane_fake_new(NULL, &dp), 0);
	start();
	return 0;
}

static int teardown(void **state)
{
	stop();
	dataplane_free(dp);
	return 0;
}

static void test_nothing_is_told_before_all_is_known(void **state)
{
	add(MODEL_NAMESPACE, "", "a");
	add(MODEL_POLICY, "a", "deny");
	model_set_synced(m, MODEL_SERVICE);
	model_set_synced(m, MODEL_SLICE);
	model_set_synced(m, MODEL_NAMESPACE);
	assert_int_equal(policy_sync_run(&p, m), 0);
	assert_false(policy_sync_ready(&p));
	assert_int_equal(dataplane_fake_ops(dp), 0);
	model_set_synced(m, MODEL_POLICY);
	model_set_synced(m, MODEL_CLUSTER_POLICY);
	assert_int_equal(policy_sync_run(&p, m), 0);
	assert_true(policy_sync_ready(&p));
	assert_int_equal(flags("a"), WAG_POLICY_NS_SELECTS);
	assert_true(dataplane_fake_policies(dp));
}

static void test_a_namespace_is_known_by_what_stands_in_it(void **state)
{
	add(MODEL_NAMESPACE, "", "a");
	add(MODEL_POD, "b", "p");
	add(MODEL_SERVICE, "c", "s");
	add(MODEL_NODE, "", "n");
	all_synced();
	assert_int_equal(policy_sync_run(&p, m), 0);
	assert_true(flags("a") == 0 && flags("b") == 0 && flags("c") == 0);
	assert_int_equal(dataplane_fake_count(dp, DP_POLICY_NS), 3);
	assert_false(dataplane_fake_policies(dp));
	/* Its last object gone, it goes; one of two leaves it. */
	add(MODEL_POD, "b", "q");
	model_delete(m, MODEL_POD, "b", "p");
	assert_int_equal(policy_sync_run(&p, m), 0);
	assert_int_equal(flags("b"), 0);
	model_delete(m, MODEL_POD, "b", "q");
	assert_int_equal(policy_sync_run(&p, m), 0);
	assert_int_equal(flags("b"), -1);
}

static void test_policies_are_counted(void **state)
{
	uint64_t ops;

	add(MODEL_NAMESPACE, "", "a");
	all_synced();
	add(MODEL_POLICY, "a", "one");
	assert_int_equal(policy_sync_run(&p, m), 0);
	ops = dataplane_fake_ops(dp);
	add(MODEL_POLICY, "a", "two");
	assert_int_equal(policy_sync_run(&p, m), 0);
	model_delete(m, MODEL_POLICY, "a", "one");
	assert_int_equal(policy_sync_run(&p, m), 0);
	assert_int_equal(dataplane_fake_ops(dp), ops); /* nothing to tell */
	assert_int_equal(flags("a"), WAG_POLICY_NS_SELECTS);
	model_delete(m, MODEL_POLICY, "a", "two");
	assert_int_equal(policy_sync_run(&p, m), 0);
	assert_int_equal(flags("a"), 0);
	assert_false(dataplane_fake_policies(dp));
}

static void test_what_an_earlier_agent_told_stays_until_all_is_known(void **state)
{
	add(MODEL_POLICY, "gone", "deny");
	all_synced();
	assert_int_equal(policy_sync_run(&p, m), 0);
	stop();
	start();
	add(MODEL_NAMESPACE, "", "new");
	assert_int_equal(policy_sync_run(&p, m), 0);
	assert_int_equal(flags("gone"), WAG_POLICY_NS_SELECTS);
	assert_true(dataplane_fake_policies(dp));
	all_synced();
	assert_int_equal(policy_sync_run(&p, m), 0);
	assert_true(flags("gone") == -1 && flags("new") == 0);
	assert_false(dataplane_fake_policies(dp));
}

static void test_a_failed_store_is_tried_again(void **state)
{
	add(MODEL_POLICY, "a", "deny");
	all_synced();
	dataplane_fake_fail_table(dp, DP_POLICY_NS, ENOMEM);
	assert_int_equal(policy_sync_run(&p, m), -ENOMEM);
	assert_int_equal(p.err, ENOMEM);
	assert_false(policy_sync_ready(&p));
	dataplane_fake_fail_table(dp, DP_POLICY_NS, 0);
	assert_int_equal(policy_sync_run(&p, m), 0);
	assert_true(policy_sync_ready(&p));
	assert_int_equal(flags("a"), WAG_POLICY_NS_SELECTS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_nothing_is_told_before_all_is_known, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_a_namespace_is_known_by_what_stands_in_it,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_policies_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_what_an_earlier_agent_told_stays_until_all_is_known, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_failed_store_is_tried_again, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
