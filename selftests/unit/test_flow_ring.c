// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <waggle/cleanup.h>
#include "hubble-like/flow_ring.h"

static struct flow_record named(struct flow_names *names, const char *pod, uint64_t time_ns)
{
	struct flow_endpoint ep = { .identity = 7 };
	struct flow_record rec = { .time_ns = time_ns };

	snprintf(ep.pod, sizeof(ep.pod), "%s", pod);
	strcpy(ep.ns, "ns");
	rec.source = flow_names_endpoint(names, &ep);
	return rec;
}

static void keeps_the_last(void **state)
{
	_cleanup_(flow_names_freep) struct flow_names *names = NULL;
	struct flow_ring *ring = NULL;

	assert_int_equal(flow_names_new(&names), 0);
	assert_int_equal(flow_ring_new(&ring, 3), 0);
	assert_int_equal(flow_ring_oldest(ring), flow_ring_next(ring));
	assert_null(flow_ring_get(ring, 0));
	for (uint64_t i = 0; i < 10; i++) {
		struct flow_record rec = named(names, i % 2 ? "odd" : "even", i);

		assert_int_equal(flow_ring_push(ring, &rec), i);
	}
	assert_int_equal(flow_ring_oldest(ring), 7);
	assert_int_equal(flow_ring_next(ring), 10);
	assert_null(flow_ring_get(ring, 6));
	assert_null(flow_ring_get(ring, 10));
	for (uint64_t i = 7; i < 10; i++) {
		const struct flow_record *rec = flow_ring_get(ring, i);

		assert_int_equal(rec->time_ns, i);
		assert_string_equal(flow_name_part(rec->source, FLOW_NAME_NAME),
				    i % 2 ? "odd" : "even");
		assert_int_equal(flow_name_identity(rec->source), 7);
	}
	assert_int_equal(flow_names_count(names), 2);
	flow_ring_free(ring);
	assert_int_equal(flow_names_count(names), 0);
}

static void names_are_kept_once(void **state)
{
	_cleanup_(flow_names_freep) struct flow_names *names = NULL;
	struct flow_endpoint ep = { .id = 1, .ns = "a", .pod = "b", .labels = { "k=v" } };
	struct flow_service svc = { .ns = "a", .name = "b" };
	struct flow_name *one, *two, *other, *service;

	assert_int_equal(flow_names_new(&names), 0);
	one = flow_names_endpoint(names, &ep);
	two = flow_names_endpoint(names, &ep);
	assert_ptr_equal(one, two);
	strcpy(ep.labels[1], "x=y");
	other = flow_names_endpoint(names, &ep);
	assert_ptr_not_equal(one, other);
	assert_string_equal(flow_name_part(other, FLOW_NAME_LABEL + 1), "x=y");
	service = flow_names_service(names, &svc);
	assert_ptr_not_equal(service, one);
	assert_string_equal(flow_name_part(NULL, FLOW_NAME_NS), "");
	flow_name_put(one);
	flow_name_put(two);
	flow_name_put(other);
	flow_name_put(service);
	flow_name_put(NULL);
	assert_int_equal(flow_names_count(names), 0);
}

static void refuses_bad_sizes(void **state)
{
	struct flow_ring *ring = NULL;

	assert_int_equal(flow_ring_new(&ring, 0), -EINVAL);
	assert_int_equal(flow_ring_new(&ring, (size_t)1 << 40), -EINVAL);
	assert_null(ring);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keeps_the_last),
		cmocka_unit_test(names_are_kept_once),
		cmocka_unit_test(refuses_bad_sizes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
