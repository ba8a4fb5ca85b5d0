// SPDX-License-Identifier: Apache-2.0
/* A value of an older layout becomes one of a newer: agent/dataplane_layout.c. */
#include <bpf/btf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "agent/dataplane_internal.h"

struct member {
	const char *name;
	unsigned bytes, count; /* count 0: a number; else an array of that many */
};

/* Packed one after another: offsets are what the test says, not what a compiler would choose. */
static struct btf *make(const struct member *members, uint32_t *ret_id)
{
	struct btf *btf = btf__new_empty();
	uint32_t ids[8], size = 0, offset = 0;
	int index, number;

	assert_non_null(btf);
	index = btf__add_int(btf, "index", 4, 0);
	for (unsigned i = 0; members[i].name; i++) {
		number = btf__add_int(btf, "number", members[i].bytes, 0);
		ids[i] = (uint32_t)number;
		if (members[i].count)
			ids[i] = (uint32_t)btf__add_array(btf, index, number, members[i].count);
		size += members[i].bytes * (members[i].count ? members[i].count : 1);
	}
	*ret_id = (uint32_t)btf__add_struct(btf, "value", size);
	for (unsigned i = 0; members[i].name; i++) {
		assert_int_equal(btf__add_field(btf, members[i].name, (int)ids[i], offset * 8, 0),
				 0);
		offset += members[i].bytes * (members[i].count ? members[i].count : 1);
	}
	return btf;
}

static void test_equal(void **state)
{
	static const struct member base[] = { { "a", 4, 0 }, { "b", 8, 0 }, { NULL } };
	static const struct {
		struct member other[4];
		bool equal;
	} cases[] = {
		{ { { "a", 4, 0 }, { "b", 8, 0 } }, true },
		{ { { "a", 4, 0 }, { "c", 8, 0 } }, false },
		{ { { "b", 8, 0 }, { "a", 4, 0 } }, false },
		{ { { "a", 4, 0 } }, false },
		{ { { "a", 4, 0 }, { "b", 8, 0 }, { "c", 1, 0 } }, false },
		{ { { "a", 4, 0 }, { "b", 1, 8 } }, false },
	};
	uint32_t a_id, b_id;
	struct btf *a = make(base, &a_id);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct btf *b = make(cases[i].other, &b_id);

		assert_int_equal(dp_layout_equal(a, a_id, b, b_id), cases[i].equal);
		btf__free(b);
	}
	assert_false(dp_layout_equal(a, a_id, a, 9999));
	btf__free(a);
}

static void test_members_by_name(void **state)
{
	static const struct member old[] = {
		{ "seen", 8, 0 }, { "gone", 4, 0 }, { "flags", 2, 0 }, { "addr", 1, 4 }, { NULL },
	};
	static const struct member new[] = {
		{ "added", 8, 0 }, { "flags", 4, 0 }, { "addr", 1, 6 }, { "seen", 8, 0 }, { NULL },
	};
	struct __attribute__((packed)) {
		uint64_t seen;
		uint32_t gone;
		uint16_t flags;
		uint8_t addr[4];
	} from = { 0x1122334455667788, 7, 0xabcd, { 10, 0, 0, 1 } };
	struct __attribute__((packed)) {
		uint64_t added;
		uint32_t flags;
		uint8_t addr[6];
		uint64_t seen;
	} to;
	static const uint8_t addr[6] = { 10, 0, 0, 1, 0, 0 };
	uint32_t a_id, b_id;
	struct btf *a = make(old, &a_id), *b = make(new, &b_id);
	struct dp_plan plan = { 0 };

	assert_int_equal(dp_plan_make(&plan, a, a_id, b, b_id), 0);
	memset(&to, 0xff, sizeof(to));
	dp_plan_apply(&plan, &from, &to, sizeof(to));
	assert_int_equal(to.added, 0);
	assert_int_equal(to.flags, 0xabcd);
	assert_memory_equal(to.addr, addr, sizeof(addr));
	assert_true(to.seen == from.seen);
	free(plan.copies);
	btf__free(a);
	btf__free(b);
}

static void test_same_layout_is_one_copy(void **state)
{
	static const struct member members[] = { { "a", 4, 0 }, { "b", 8, 2 }, { NULL } };
	uint32_t a_id, b_id;
	struct btf *a = make(members, &a_id), *b = make(members, &b_id);
	struct dp_plan plan = { 0 };

	assert_int_equal(dp_plan_make(&plan, a, a_id, b, b_id), 0);
	assert_int_equal(plan.n, 1);
	assert_int_equal(plan.copies[0].size, 20);
	free(plan.copies);
	btf__free(a);
	btf__free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_equal),
		cmocka_unit_test(test_members_by_name),
		cmocka_unit_test(test_same_layout_is_one_copy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
