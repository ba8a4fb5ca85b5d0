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
#include "agent/compile_service.h"
#include "agent/dataplane_fake.h"
#include "agent/sync.h"
#include "sync_fixture.h"
#include "sync_world.h"

static void set(const char *name, const struct world_port *ports, size_t n)
{
	assert_true(sync_set_service(sy, "ns", name, world_table(ports, n)) >= 0);
}

/* One port "p" of TCP behind vip:80 with backends 10.1.0.<digit>:8080 for each digit. */
static void set_simple(const char *name, unsigned vip, const char *digits)
{
	struct world_port port = { .name = "p", .vips = { vip }, .n_vips = 1 };

	for (; *digits; digits++)
		port.backends[port.n_backends++] = *digits - '0';
	set(name, &port, 1);
}

static const struct wag_svc *frontend(unsigned vip)
{
	struct wag_svc_key key = world_key(vip);

	return dataplane_fake_get(dp, DP_SVC, &key);
}

static uint64_t slots_of(unsigned vip)
{
	size_t n;

	assert_non_null(frontend(vip));
	return dataplane_svc_state(dp, &n)[frontend(vip)->index].slots;
}

static unsigned count_of(unsigned vip)
{
	return WAG_SLOTS_COUNT(slots_of(vip));
}

static void test_build_service_map_add_remove(void **state)
{
	set_simple("a", 1, "123");
	set_simple("b", 2, "4");
	assert_int_equal(run_ops(), 2 + 4 + 2);
	assert_int_equal(count_of(1), 3);
	assert_int_equal(count_of(2), 1);
	set("a", NULL, 0);
	assert_int_equal(run_ops(), 1 + 3 + 1);
	assert_null(frontend(1));
	assert_int_equal(count_of(2), 1);
	assert_int_equal(dataplane_fake_count(dp, DP_BACKEND), 1);
	assert_int_equal(dataplane_fake_count(dp, DP_SVC_NAME), 1);
}

static void test_no_change_no_operation(void **state)
{
	set_simple("a", 1, "123");
	run_ops();
	set_simple("a", 1, "123");
	assert_int_equal(run_ops(), 0);
	set_simple("a", 1, "12");
	set_simple("a", 1, "123");
	assert_int_equal(run_ops(), 0);
	assert_int_equal(sync_set_service(sy, "ns", "never", NULL), 0);
	assert_int_equal(run_ops(), 0);
}

static void test_one_endpoint_touches_one_service(void **state)
{
	uint64_t before;

	for (unsigned i = 1; i <= 9; i++) {
		char name[2] = { '0' + i };

		set_simple(name, i, "123");
	}
	run_ops();
	before = slots_of(2);
	set_simple("1", 1, "1234");
	assert_int_equal(run_ops(), 1);
	assert_int_equal(count_of(1), 4);
	assert_true(slots_of(2) == before);
	set_simple("1", 1, "234");
	assert_int_equal(run_ops(), 1);
	assert_int_equal(dataplane_fake_count(dp, DP_BACKEND), 27);
}

static void test_service_without_endpoints_keeps_its_frontends(void **state)
{
	set_simple("a", 1, "");
	assert_int_equal(run_ops(), 2);
	assert_int_equal(count_of(1), 0);
	set_simple("a", 1, "1");
	run_ops();
	assert_int_equal(count_of(1), 1);
	set_simple("a", 1, "");
	assert_int_equal(run_ops(), 1);
	assert_int_equal(count_of(1), 0);
	assert_int_equal(dataplane_fake_count(dp, DP_BACKEND), 0);
}

static void test_service_update_keeps_the_index(void **state)
{
	struct world_port port = { .name = "p", .vips = { 1 }, .n_vips = 1, .backends = { 1 },
				   .n_backends = 1 };
	uint32_t index;

	set("a", &port, 1);
	run_ops();
	index = frontend(1)->index;
	port.vips[port.n_vips++] = 2;
	port.node_port = 30000;
	set("a", &port, 1);
	assert_int_equal(run_ops(), 1 + 1); /* frontend, name */
	assert_int_equal(frontend(1)->index, index);
	assert_int_equal(frontend(2)->index, index);
	port.vips[0] = 3;
	set("a", &port, 1);
	assert_int_equal(run_ops(), 2);
	assert_null(frontend(1));
	assert_int_equal(frontend(3)->index, index);
}

static void test_affinity_alone(void **state)
{
	struct world_port port = { .name = "p", .vips = { 1 }, .n_vips = 1 };
	size_t n;

	set("a", &port, 1);
	run_ops();
	port.affinity_s = 10800;
	set("a", &port, 1);
	assert_int_equal(run_ops(), 0);
	assert_int_equal(dataplane_svc_state(dp, &n)[frontend(1)->index].affinity_s, 10800);
}

static void test_sets_and_ranges_alone(void **state)
{
	struct world_port port = { .name = "p", .vips = { 1 }, .n_vips = 1, .backends = { 1, 2, 3 },
				   .n_backends = 3 };
	struct world w = { .seed = 1 };
	struct sync_stats st;
	uint64_t ranges;
	uint32_t index;

	set("svc0", &port, 1);
	run_ops();
	index = frontend(1)->index;
	port.local = true; /* 1: cluster, 2: local, 3: both */
	set("svc0", &port, 1);
	assert_int_equal(run_ops(), 2); /* two backends have other flags */
	assert_int_equal(count_of(1), 1 + 3);
	port.n_ranges = 2;
	set("svc0", &port, 1);
	ranges = dataplane_fake_table_ops(dp, DP_SRC_RANGE);
	assert_int_equal(run_ops(), 2);
	port.n_ranges = 1;
	set("svc0", &port, 1);
	assert_int_equal(run_ops(), 1);
	assert_int_equal(dataplane_fake_table_ops(dp, DP_SRC_RANGE) - ranges, 3);
	set("svc0", &port, 1);
	assert_int_equal(run_ops(), 0);
	assert_int_equal(frontend(1)->index, index);
	w.services[0].n_ports = 1;
	w.services[0].ports[0] = port;
	world_check(&w, dp);
	sync_get_stats(sy, &st);
	assert_int_equal(st.backends, 3);
	assert_int_equal(st.slots_used, 4);
	port.n_backends = 0; /* endpoints elsewhere: the word says so */
	set("svc0", &port, 1);
	assert_int_equal(run_ops(), 3);
	assert_true(slots_of(1) == WAG_SLOTS(0, 0, WAG_SLOTS_ANY));
	set("svc0", NULL, 0);
	assert_int_equal(run_ops(), 3); /* frontend, range, name */
}

/* Behind the endpoints of a range stand tables, which are no backends. */
static void test_maglev_alone(void **state)
{
	struct world_port port = { .name = "p", .vips = { 1 }, .n_vips = 1, .backends = { 1, 2, 3 },
				   .n_backends = 3 }, other = port;
	struct sync_stats st;
	uint64_t others;

	other.vips[0] = 2;
	set("svc0", &port, 1);
	set("svc1", &other, 1);
	run_ops();
	others = slots_of(2);
	port.maglev = true;
	set("svc0", &port, 1);
	assert_int_equal(run_ops(), 0); /* slots only */
	assert_int_equal(count_of(1), 1 + 3 + 103);
	assert_true(WAG_SLOTS_FLAGS(slots_of(1)) & WAG_SLOTS_MAGLEV);
	set("svc0", &port, 1);
	assert_int_equal(run_ops(), 0);
	port.n_backends = 2;
	set("svc0", &port, 1);
	assert_int_equal(run_ops(), 1);
	assert_int_equal(count_of(1), 1 + 2 + 103);
	sync_get_stats(sy, &st);
	assert_int_equal(st.backends, 5);
	assert_int_equal(st.slots_used, 3 + 106);
	assert_int_equal(dataplane_fake_count(dp, DP_BACKEND), 5);
	assert_true(slots_of(2) == others);
	port.n_backends = 1; /* it needs no table */
	set("svc0", &port, 1);
	assert_int_equal(run_ops(), 1);
	assert_int_equal(count_of(1), 2);
	port.maglev = false;
	set("svc0", &port, 1);
	assert_int_equal(run_ops(), 0);
	assert_int_equal(count_of(1), 1);
}

struct seen_conflict {
	unsigned n;
	char loser[16], holder[16];
};

static void on_conflict(const char *ns, const char *name, const struct wag_svc_key *key,
			const char *holder_ns, const char *holder, void *ctx)
{
	struct seen_conflict *seen = ctx;

	seen->n++;
	snprintf(seen->loser, sizeof(seen->loser), "%s", name);
	snprintf(seen->holder, sizeof(seen->holder), "%s", holder);
}

static void test_conflict_first_wins_other_takes_over(void **state)
{
	struct seen_conflict seen = { 0 };
	struct sync_stats st;
	uint32_t index;

	sync_on_conflict(sy, on_conflict, &seen);
	set_simple("b", 1, "2");
	set_simple("a", 1, "1");
	run_ops();
	assert_int_equal(seen.n, 1);
	assert_string_equal(seen.loser, "b");
	assert_string_equal(seen.holder, "a");
	index = frontend(1)->index;
	set_simple("c", 1, "3");
	run_ops();
	assert_int_equal(seen.n, 2);
	assert_int_equal(frontend(1)->index, index);
	sync_get_stats(sy, &st);
	assert_int_equal(st.conflicts, 2);
	set("a", NULL, 0);
	run_ops();
	assert_int_not_equal(frontend(1)->index, index);
	assert_int_equal(dataplane_fake_count(dp, DP_SVC), 1);
	sync_get_stats(sy, &st);
	assert_int_equal(st.conflicts, 1);
	set("b", NULL, 0);
	set("c", NULL, 0);
	run_ops();
	sync_get_stats(sy, &st);
	assert_int_equal(st.conflicts, 0);
	assert_int_equal(dataplane_fake_count(dp, DP_SVC), 0);
	assert_false(dataplane_fake_recycled(dp));
}

static void test_frontend_moves_in_one_run(void **state)
{
	set_simple("a", 1, "1");
	set_simple("b", 2, "2");
	run_ops();
	set_simple("a", 2, "1");
	set_simple("b", 1, "2");
	run_ops();
	assert_int_equal(count_of(1), 1);
	assert_int_not_equal(frontend(1)->index, frontend(2)->index);
	assert_int_equal(sync_pending(sy), 0);
	assert_false(dataplane_fake_recycled(dp));
}

struct seen_pending {
	unsigned n;
	char name[16], map[16];
	int err;
};

static void on_pending(const char *ns, const char *name, const char *map, int err, void *ctx)
{
	struct seen_pending *seen = ctx;

	if (!*name)
		return;
	seen->n++;
	seen->err = err;
	snprintf(seen->name, sizeof(seen->name), "%s", name);
	snprintf(seen->map, sizeof(seen->map), "%s", map);
}

static void test_failures_stay_pending_and_are_retried(void **state)
{
	static const struct world_port ports[] = {
		{ .name = "p", .vips = { 1 }, .n_vips = 1, .backends = { 1, 2 }, .n_backends = 2,
		  .n_ranges = 2 },
		{ .name = "p", .vips = { 2 }, .n_vips = 1, .backends = { 3, 4 }, .n_backends = 2,
		  .n_ranges = 1 },
	};

	for (int t = 0; t <= DP_SRC_RANGE; t++) {
		struct seen_pending seen = { 0 };

		set("a", &ports[0], 1);
		set("b", &ports[1], 1);
		dataplane_fake_fail_table(dp, t, EBUSY);
		run_ops();
		sync_visit_pending(sy, on_pending, &seen);
		assert_int_equal(seen.n, 2);
		assert_int_equal(seen.err, EBUSY);
		assert_string_equal(seen.map, dataplane_table_name(t));
		assert_true(sync_retry_ms(sy, now) > 0);
		assert_int_equal(run_ops(), 0);
		dataplane_fake_fail_table(dp, t, 0);
		now += sync_retry_ms(sy, now);
		run_ops();
		assert_int_equal(sync_pending(sy), 0);
		assert_int_equal(sync_retry_ms(sy, now), -1);
		assert_int_equal(count_of(1), 2);
		assert_int_equal(dataplane_fake_count(dp, DP_BACKEND), 4);

		set("a", NULL, 0);
		set("b", NULL, 0);
		dataplane_fake_fail_table(dp, t, EBUSY);
		run_ops();
		assert_int_equal(sync_pending(sy), 1);
		dataplane_fake_fail_table(dp, t, 0);
		for (int i = 0; i < 3; i++) {
			now += 10000;
			run_ops();
		}
		assert_int_equal(sync_pending(sy), 0);
		for (int i = 0; i < DP_TABLES; i++)
			assert_int_equal(dataplane_fake_count(dp, i), 0);
	}
}

static void test_one_bad_operation_hits_one_service(void **state)
{
	struct seen_pending seen = { 0 };

	set_simple("a", 1, "12");
	set_simple("b", 2, "34");
	set_simple("c", 3, "56");
	dataplane_fake_fail(dp, 3 + 2, 1, ENOMEM); /* b's first backend */
	run_ops();
	assert_int_equal(sync_pending(sy), 1);
	sync_visit_pending(sy, on_pending, &seen);
	assert_string_equal(seen.name, "b");
	assert_int_equal(count_of(1), 2);
	assert_int_equal(count_of(3), 2);
	assert_null(frontend(2));
	assert_int_equal(dataplane_fake_count(dp, DP_BACKEND), 4);
	now += 10000;
	run_ops();
	assert_int_equal(sync_pending(sy), 0);
	assert_int_equal(count_of(2), 2);
}

static void test_what_does_not_fit_is_named(void **state)
{
	static const struct {
		struct dataplane_fake_sizes sizes;
		const char *map;
		int err;
	} cases[] = {
		{ { .n_states = 3 }, "wag_svc_state", ENOSPC },
		{ { .n_slots = 5 }, "wag_slot", ENOSPC },
		{ { .max = { [DP_SVC] = 2 } }, "wag_svc", E2BIG },
		{ { .max = { [DP_SVC_NAME] = 2 } }, "wag_svc_name", E2BIG },
		{ { .max = { [DP_BACKEND] = 5 } }, "wag_backend", E2BIG },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct seen_pending seen = { 0 };

		fresh(&cases[i].sizes);
		set_simple("a", 1, "12");
		set_simple("b", 2, "34");
		set_simple("c", 3, "56");
		run_ops();
		assert_int_equal(sync_pending(sy), 1);
		sync_visit_pending(sy, on_pending, &seen);
		assert_string_equal(seen.name, "c");
		assert_string_equal(seen.map, cases[i].map);
		assert_int_equal(seen.err, cases[i].err);
		assert_int_equal(count_of(1), 2);
		assert_int_equal(count_of(2), 2);
		assert_null(frontend(3));
		set("a", NULL, 0); /* makes room */
		run_ops();
		while (sync_retry_ms(sy, now) == 0)
			run_ops();
		now += 10000;
		run_ops();
		assert_int_equal(sync_pending(sy), 0);
		assert_int_equal(count_of(3), 2);
		assert_false(dataplane_fake_recycled(dp));
	}
}

static void test_ranges_are_reused_only_after_a_grace(void **state)
{
	struct dataplane_fake_sizes sizes = { .n_slots = 32 };
	struct sync_stats st;
	uint64_t graces;

	fresh(&sizes);
	graces = dataplane_fake_graces(dp);
	for (int i = 0; i < 100; i++) {
		set_simple("a", 1, i % 2 ? "1234" : "12345");
		run_ops();
		assert_int_equal(count_of(1), i % 2 ? 4 : 5);
		assert_int_equal(sync_pending(sy), 0);
	}
	graces = dataplane_fake_graces(dp) - graces;
	assert_in_range(graces, 10, 60);
	sync_get_stats(sy, &st);
	assert_int_equal(st.slots_used, 4);
	assert_int_equal(st.backends, 4);
}

static void test_node_addrs(void **state)
{
	struct sync_node_addr addrs[3] = {
		{ .addr = world_key(1).addr, .value = { .ifindex = 2 } },
		{ .addr = world_key(2).addr, .value = { .ifindex = 3 } },
		{ .addr = world_key(3).addr, .value = { .ifindex = 3 } },
	};
	const struct wag_node_addr *found;

	assert_int_equal(sync_set_node_addrs(sy, addrs, 2), 0);
	assert_int_equal(run_ops(), 2);
	assert_int_equal(sync_set_node_addrs(sy, addrs, 2), 0);
	assert_int_equal(run_ops(), 0);
	addrs[1].value.ifindex = 9;
	assert_int_equal(sync_set_node_addrs(sy, addrs + 1, 2), 0);
	assert_int_equal(run_ops(), 3);
	found = dataplane_fake_get(dp, DP_NODE_ADDR, &addrs[1].addr);
	assert_int_equal(found->ifindex, 9);
	assert_null(dataplane_fake_get(dp, DP_NODE_ADDR, &addrs[0].addr));
	assert_int_equal(dataplane_fake_count(dp, DP_NODE_ADDR), 2);
}

static void test_names_too_long_are_refused(void **state)
{
	char name[80];

	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(sync_set_service(sy, "ns", name, world_table(NULL, 0)), -ENAMETOOLONG);
	assert_int_equal(run_ops(), 0);
}

static void restart(void)
{
	sync_free(sy);
	assert_int_equal(sync_new(dp, &sy), 0);
	assert_int_equal(sync_adopt(sy), 0);
}

static void test_restart_without_change(void **state)
{
	uint32_t index;

	set_simple("a", 1, "123");
	set_simple("b", 2, "");
	run_ops();
	index = frontend(1)->index;
	restart();
	assert_int_equal(run_ops(), 0);
	set_simple("a", 1, "123");
	set_simple("b", 2, "");
	sync_sweep(sy);
	assert_int_equal(run_ops(), 0);
	assert_int_equal(frontend(1)->index, index);
}

static void test_restart_deletes_nothing_before_the_sweep(void **state)
{
	set_simple("a", 1, "123");
	set_simple("b", 2, "45");
	run_ops();
	restart();
	set_simple("a", 1, "1");
	run_ops();
	assert_int_equal(count_of(1), 1);
	assert_int_equal(count_of(2), 2);
	assert_int_equal(dataplane_fake_count(dp, DP_BACKEND), 5);
	sync_sweep(sy);
	run_ops();
	assert_null(frontend(2));
	assert_int_equal(dataplane_fake_count(dp, DP_BACKEND), 1);
	assert_int_equal(dataplane_fake_count(dp, DP_SVC_NAME), 1);
}

static void test_svc_ids_are_never_used_twice(void **state)
{
	uint32_t last = 0;
	size_t n;

	for (int i = 0; i < 5; i++) {
		uint32_t id;

		set_simple("a", 1, "1");
		run_ops();
		id = dataplane_svc_state(dp, &n)[frontend(1)->index].svc_id;
		assert_true(id > last);
		last = id;
		set("a", NULL, 0);
		run_ops();
		restart();
		sync_sweep(sy);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, sync_setup, sync_teardown)
		T(test_build_service_map_add_remove),
		T(test_no_change_no_operation),
		T(test_one_endpoint_touches_one_service),
		T(test_service_without_endpoints_keeps_its_frontends),
		T(test_service_update_keeps_the_index),
		T(test_affinity_alone),
		T(test_sets_and_ranges_alone),
		T(test_maglev_alone),
		T(test_conflict_first_wins_other_takes_over),
		T(test_frontend_moves_in_one_run),
		T(test_failures_stay_pending_and_are_retried),
		T(test_one_bad_operation_hits_one_service),
		T(test_what_does_not_fit_is_named),
		T(test_ranges_are_reused_only_after_a_grace),
		T(test_node_addrs),
		T(test_names_too_long_are_refused),
		T(test_restart_without_change),
		T(test_restart_deletes_nothing_before_the_sweep),
		T(test_svc_ids_are_never_used_twice),
#undef T
	};

	return cmocka_run_group_tests_name("sync", tests, NULL, NULL);
}
