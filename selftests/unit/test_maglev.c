// SPDX-License-Identifier: Apache-2.0
/* Lookup tables: even, the same on every node, and few entries move with an endpoint. */
#include <arpa/inet.h>
#include <netinet/in.h>
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
#include "agent/compile_service.h"
#include "agent/model.h"

#define MAX_ENDPOINTS 6000

static struct svc_backend backends[MAX_ENDPOINTS];

/* 10.1.x.y:8080, one left out; a node has local_from.. of them itself. */
static struct svc_table_port make(uint32_t n, uint32_t without, uint32_t local_from)
{
	struct svc_table_port port = { .slots_flags = WAG_SLOTS_HEAD | WAG_SLOTS_MAGLEV,
				       .backends = backends };

	for (uint32_t i = 0; i < n; i++) {
		if (i == without)
			continue;
		backends[port.n_backends++] = (struct svc_backend){
			.addr = { .w = { 0, 0, htonl(WAG_V4MAPPED_W2), htonl(0x0a010001 + i) } },
			.port = htons(8080),
			.flags = WAG_BACKEND_CLUSTER | (i >= local_from ? WAG_BACKEND_LOCAL : 0),
		};
	}
	qsort(backends, port.n_backends, sizeof(*backends), svc_backend_compare);
	return port;
}

/* The last word of the address that each entry leads to; the caller frees it. */
static uint32_t *look_up(const struct svc_table_port *port, bool local, uint32_t *ret_entries)
{
	_cleanup_free_ struct wag_slot *slots = calloc(svc_slots(port), sizeof(*slots));
	const struct wag_slot_head *head = (const struct wag_slot_head *)slots;
	const struct wag_slot_entries *table;
	uint32_t *to, n;

	assert_non_null(slots);
	assert_int_equal(svc_slots_write(port, 7, slots), 0);
	for (uint32_t i = 0; i < svc_slots(port); i++)
		assert_int_equal(slots[i].svc_id, 7);
	n = local ? head->local_entries : head->cluster_entries;
	table = (const struct wag_slot_entries *)slots +
		(local ? head->local_table : head->cluster_table);
	to = calloc(n + 1, sizeof(*to));
	assert_non_null(to);
	for (uint32_t i = 0; i < n; i++) {
		uint16_t at = table[i / WAG_SLOT_ENTRIES].at[i % WAG_SLOT_ENTRIES];

		assert_in_range(at, 1, port->n_backends);
		assert_true(slots[at].flags & (local ? WAG_BACKEND_LOCAL : WAG_BACKEND_CLUSTER));
		to[i] = ntohl(slots[at].addr.w[3]) - 0x0a010001;
	}
	*ret_entries = n;
	return to;
}

static bool is_prime(uint32_t n)
{
	for (uint32_t i = 2; i * i <= n; i++)
		if (n % i == 0)
			return false;
	return n > 1;
}

static void test_sizes_are_primes_that_grow(void **state)
{
	uint32_t before = 0;

	assert_int_equal(maglev_entries(0), 0);
	assert_int_equal(maglev_entries(1), 0);
	for (uint32_t n = 2; n <= 5242; n++) {
		uint32_t entries = maglev_entries(n);

		assert_true(entries >= 100 * n && entries >= before);
		if (entries != before)
			assert_true(is_prime(entries));
		before = entries;
	}
	assert_int_equal(before, 524287);
	assert_int_equal(maglev_entries(5243), UINT32_MAX);
}

static void test_everybody_has_his_share(void **state)
{
	static const uint32_t sizes[] = { 2, 3, 10, 11, 100, 655 };

	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		uint32_t n = sizes[s], entries, *count = calloc(n, sizeof(*count));
		struct svc_table_port port = make(n, n, n);
		uint32_t *to = look_up(&port, false, &entries);

		for (uint32_t i = 0; i < entries; i++)
			count[to[i]]++;
		for (uint32_t i = 0; i < n; i++)
			assert_in_range(count[i], entries / n - entries / n / 100 - 1,
					entries / n + entries / n / 100 + 1);
		free(count);
		free(to);
	}
}

static void test_few_entries_of_others_move(void **state)
{
	/* Without one, their tables are as large. */
	static const uint32_t sizes[] = { 3, 10, 40, 100 };

	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		uint32_t n = sizes[s], gone = n / 2, entries, again, moved = 0, kept = 0;
		struct svc_table_port port = make(n, n, n);
		uint32_t *before = look_up(&port, false, &entries), *after;

		port = make(n, gone, n);
		after = look_up(&port, false, &again);
		assert_int_equal(entries, again);
		for (uint32_t i = 0; i < entries; i++) {
			assert_int_not_equal(after[i], gone);
			kept += before[i] != gone;
			moved += before[i] != gone && after[i] != before[i];
		}
		assert_true(moved * n < 2 * kept);
		free(before);
		free(after);
	}
}

/* Each node's range is in an order of its own: its own endpoints come first. */
static void test_nodes_agree(void **state)
{
	uint32_t entries, n = 0, own;
	struct svc_table_port port = make(20, 20, 20);
	uint32_t *one = look_up(&port, false, &entries), *other, *local;

	port = make(20, 20, 15);
	other = look_up(&port, false, &n);
	assert_int_equal(n, entries);
	assert_memory_equal(one, other, n * sizeof(*one));
	local = look_up(&port, true, &own);
	assert_int_equal(own, maglev_entries(5));
	for (uint32_t i = 0; i < own; i++)
		assert_in_range(local[i], 15, 19);
	free(one);
	free(other);
	free(local);
}

static void test_none_and_one(void **state)
{
	struct svc_table_port port = make(1, 1, 0);
	struct wag_slot_head head;
	struct wag_slot slots[2];

	assert_int_equal(svc_slots(&port), 2);
	assert_int_equal(svc_slots_write(&port, 7, slots), 0);
	memcpy(&head, slots, sizeof(head));
	assert_int_equal(head.local_entries + head.cluster_entries, 0);
	assert_int_equal(head.cluster_count, 1);
	port.n_backends = 0;
	port.slots_flags = 0;
	assert_int_equal(svc_slots(&port), 0);
}

/* What compile_service() makes of n endpoints. */
static struct svc_table *compile(uint32_t n, enum lb_algorithm told, enum lb_algorithm says)
{
	static struct slice_endpoint eps[MAX_ENDPOINTS];
	static struct wag_addr addrs[MAX_ENDPOINTS];
	const struct compile_facts facts = { .node_name = "n1", .lb_algorithm = told };
	struct wag_addr vip = { .w = { 0, 0, htonl(WAG_V4MAPPED_W2), htonl(0x0a600001) } };
	struct svc_port port = { .name = "", .proto = IPPROTO_TCP, .port = 80 };
	struct slice_port slice_port = { .name = "", .proto = IPPROTO_TCP, .port = 8080 };
	struct object svc = { .kind = MODEL_SERVICE, .service = {
		.algorithm = says, .cluster_ips = &vip, .n_cluster_ips = 1, .ports = &port,
		.n_ports = 1 } };
	struct object slice = { .kind = MODEL_SLICE, .slice = {
		.ports = &slice_port, .n_ports = 1, .endpoints = eps, .n_endpoints = n } };
	const struct object *slices[] = { &slice };
	struct svc_table *table = NULL;

	for (uint32_t i = 0; i < n; i++) {
		addrs[i] = vip;
		addrs[i].w[3] = htonl(0x0a010001 + i);
		eps[i] = (struct slice_endpoint){ .addrs = &addrs[i], .n_addrs = 1, .ready = true,
						  .serving = true };
	}
	assert_int_equal(compile_service(&svc, slices, 1, &facts, &table), 0);
	assert_non_null(table);
	return table;
}

static void test_who_chooses(void **state)
{
	static const struct {
		uint32_t n;
		enum lb_algorithm told, says;
		bool maglev;
		const char *remark;
	} rows[] = {
		{ 3, LB_ALGORITHM_RANDOM, LB_ALGORITHM_DEFAULT, false, NULL },
		{ 3, LB_ALGORITHM_MAGLEV, LB_ALGORITHM_DEFAULT, true, NULL },
		{ 3, LB_ALGORITHM_RANDOM, LB_ALGORITHM_MAGLEV, true, NULL },
		{ 3, LB_ALGORITHM_MAGLEV, LB_ALGORITHM_RANDOM, false, NULL },
		{ 3, LB_ALGORITHM_MAGLEV, LB_ALGORITHM_UNKNOWN, true, "neither random" },
		{ 3, LB_ALGORITHM_RANDOM, LB_ALGORITHM_UNKNOWN, false, "neither random" },
		{ 0, LB_ALGORITHM_MAGLEV, LB_ALGORITHM_DEFAULT, false, NULL },
		{ 5242, LB_ALGORITHM_MAGLEV, LB_ALGORITHM_DEFAULT, true, NULL },
		{ 5243, LB_ALGORITHM_MAGLEV, LB_ALGORITHM_DEFAULT, false, "too many endpoints" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct svc_table *t = compile(rows[i].n, rows[i].told, rows[i].says);

		assert_int_equal(!!(t->ports[0].slots_flags & WAG_SLOTS_MAGLEV), rows[i].maglev);
		assert_int_equal(!!(t->ports[0].slots_flags & WAG_SLOTS_HEAD), rows[i].maglev);
		assert_int_equal(!!t->remark, !!rows[i].remark);
		if (rows[i].remark)
			assert_non_null(strstr(t->remark, rows[i].remark));
		assert_true(svc_slots(&t->ports[0]) <= UINT16_MAX);
		free(t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes_are_primes_that_grow),
		cmocka_unit_test(test_everybody_has_his_share),
		cmocka_unit_test(test_few_entries_of_others_move),
		cmocka_unit_test(test_nodes_agree),
		cmocka_unit_test(test_none_and_one),
		cmocka_unit_test(test_who_chooses),
	};

	return cmocka_run_group_tests_name("maglev", tests, NULL, NULL);
}
