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
#include "agent/sync_table.h"

static struct dataplane *dp;
static struct sync_table t;

static struct wag_policy_ns_key key(const char *ns)
{
	struct wag_policy_ns_key k = { 0 };

	snprintf(k.ns, sizeof(k.ns), "%s", ns);
	return k;
}

/* names: separated by spaces, an upper-case one is selected. */
static void want(const char *names)
{
	struct deltamap fresh;
	char text[128], *save;

	snprintf(text, sizeof(text), "%s", names);
	deltamap_init(&fresh, sizeof(struct wag_policy_ns_key), sizeof(struct wag_policy_ns));
	for (char *n = strtok_r(text, " ", &save); n; n = strtok_r(NULL, " ", &save)) {
		struct wag_policy_ns_key k = key(n);
		struct wag_policy_ns v = { .flags = n[0] < 'a' ? WAG_POLICY_NS_SELECTS : 0 };

		assert_int_equal(deltamap_set_desired(&fresh, &k, &v), 0);
	}
	assert_int_equal(sync_table_replace(&t, &fresh), 0);
	deltamap_done(&fresh);
}

static bool has(const char *ns)
{
	struct wag_policy_ns_key k = key(ns);

	return dataplane_fake_get(dp, DP_POLICY_NS, &k);
}

static int setup(void **state)
{
	assert_int_equal(dataplane_fake_new(NULL, &dp), 0);
	return sync_table_init(&t, dp, DP_POLICY_NS);
}

static int teardown(void **state)
{
	sync_table_done(&t);
	dataplane_free(dp);
	return 0;
}

static void test_only_the_difference_is_written(void **state)
{
	t.swept = true;
	want("a b");
	assert_int_equal(sync_table_apply(&t), 0);
	assert_int_equal(dataplane_fake_ops(dp), 2);
	want("a b");
	assert_int_equal(sync_table_apply(&t), 0);
	assert_int_equal(dataplane_fake_ops(dp), 2);
	want("b c");
	assert_int_equal(sync_table_apply(&t), 0);
	assert_int_equal(dataplane_fake_ops(dp), 4);
	assert_true(!has("a") && has("b") && has("c"));
}

static void test_what_an_earlier_agent_left_stays_until_swept(void **state)
{
	want("old kept");
	assert_int_equal(sync_table_apply(&t), 0);
	sync_table_done(&t);
	assert_int_equal(sync_table_init(&t, dp, DP_POLICY_NS), 0);
	want("kept new");
	assert_int_equal(sync_table_apply(&t), 0);
	assert_true(has("old") && has("kept") && has("new"));
	assert_int_equal(sync_table_pending(&t), 1);
	t.swept = true;
	assert_int_equal(sync_table_apply(&t), 0);
	assert_false(has("old"));
	assert_int_equal(sync_table_pending(&t), 0);
}

static void test_a_failure_stays_pending(void **state)
{
	t.swept = true;
	want("a b c");
	dataplane_fake_fail(dp, 1, 1, ENOMEM);
	assert_int_equal(sync_table_apply(&t), -ENOMEM);
	assert_int_equal(sync_table_pending(&t), 2);
	assert_int_equal(sync_table_apply(&t), 0);
	assert_true(has("a") && has("b") && has("c"));
	want("");
	dataplane_fake_fail_table(dp, DP_POLICY_NS, EPERM);
	assert_int_equal(sync_table_apply(&t), -EPERM);
	dataplane_fake_fail_table(dp, DP_POLICY_NS, 0);
	assert_int_equal(sync_table_apply(&t), 0);
	assert_int_equal(dataplane_fake_count(dp, DP_POLICY_NS), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_only_the_difference_is_written, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_what_an_earlier_agent_left_stays_until_swept,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_failure_stays_pending, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
