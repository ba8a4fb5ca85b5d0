// SPDX-License-Identifier: Apache-2.0
/* The address store, with the clock in the test's hand. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <sys/wait.h>
#include <unistd.h>
#include <waggle/addr.h>
#include <waggle/ipam.h>

static char dir[64];

static int make_dir(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/waggle-ipam-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
	return system(cmd);
}

static struct ipam_range range_of(const char *subnet, uint64_t last)
{
	struct ipam_range range = { .first = 1, .last = last, .gateway = 1 };

	assert_int_equal(wag_cidr_parse(subnet, &range.subnet, &range.bits), 0);
	return range;
}

static int take(const struct ipam_range *range, const char *boot, int64_t now, const char *who,
		char text[WAG_ADDR_TEXT], struct wag_err *err)
{
	const struct ipam_owner owner = { who, "eth0" };
	struct wag_addr addr;
	struct ipam ipam;
	unsigned index;
	int r;

	assert_int_equal(ipam_init(&ipam, dir, boot, now), 0);
	r = ipam_allocate(&ipam, range, 1, &owner, &addr, &index, err);
	ipam_done(&ipam);
	text[0] = '\0';
	if (r == 0)
		wag_addr_format(&addr, text);
	return r;
}

static void give(const struct ipam_range *range, const char *boot, int64_t now, const char *who,
		 const char *text)
{
	const struct ipam_owner owner = { who, "eth0" };
	char key[IPAM_RANGE_KEY];
	struct wag_addr addr;
	struct ipam ipam;

	ipam_range_key(range, key);
	assert_int_equal(wag_addr_parse(text, &addr), 0);
	assert_int_equal(ipam_init(&ipam, dir, boot, now), 0);
	assert_int_equal(ipam_release(&ipam, key, &addr, &owner), 0);
	ipam_done(&ipam);
}

static void test_skips_network_gateway_and_broadcast(void **state)
{
	struct ipam_range range = range_of("10.1.0.0/29", 6);
	struct wag_err err = { 0 };
	char text[WAG_ADDR_TEXT];

	for (int i = 2; i <= 6; i++) {
		char want[32];

		snprintf(want, sizeof(want), "10.1.0.%d", i);
		assert_int_equal(take(&range, "b1", 0, "c", text, &err), 0);
		assert_string_equal(text, want);
	}
	assert_int_equal(take(&range, "b1", 0, "c", text, &err), -EADDRNOTAVAIL);
	assert_non_null(strstr(err.msg, "10.1.0.0/29"));
	assert_non_null(strstr(err.msg, "all 5 are taken, 0 of them wait"));
}

static void test_back_of_the_queue_and_quarantine(void **state)
{
	struct ipam_range range = range_of("10.2.0.0/29", 6);
	struct wag_err err = { 0 };
	char text[WAG_ADDR_TEXT];

	assert_int_equal(take(&range, "b1", 1000, "a", text, &err), 0);
	assert_int_equal(take(&range, "b1", 1000, "b", text, &err), 0);
	give(&range, "b1", 2000, "b", "10.2.0.3");
	give(&range, "b1", 3000, "a", "10.2.0.2");
	/* Long after, the never used ones still go first. */
	for (int i = 4; i <= 6; i++)
		assert_int_equal(take(&range, "b1", 900000 + i, "n", text, &err), 0);
	assert_string_equal(text, "10.2.0.6");
	assert_int_equal(take(&range, "b1", 900010, "n", text, &err), 0);
	assert_string_equal(text, "10.2.0.3");
	assert_int_equal(take(&range, "b1", 900010, "n", text, &err), 0);
	assert_string_equal(text, "10.2.0.2");
	give(&range, "b1", 901000, "n", "10.2.0.2");
	assert_int_equal(take(&range, "b1", 930999, "n", text, &err), -EADDRNOTAVAIL);
	assert_non_null(strstr(err.msg, "1 of them wait"));
	assert_int_equal(take(&range, "b1", 931000, "n", text, &err), 0);
	assert_string_equal(text, "10.2.0.2");
}

static void test_release_needs_the_owner(void **state)
{
	struct ipam_range range = range_of("10.3.0.0/30", 2);
	struct wag_err err = { 0 };
	char text[WAG_ADDR_TEXT];

	assert_int_equal(take(&range, "b1", 0, "a", text, &err), 0);
	give(&range, "b1", 0, "other", "10.3.0.2");
	assert_int_equal(take(&range, "b1", 60000, "b", text, &err), -EADDRNOTAVAIL);
	give(&range, "b1", 60000, "a", "10.3.0.2");
	give(&range, "b1", 99999, "a", "10.3.0.2"); /* twice: the first time counts */
	assert_int_equal(take(&range, "b1", 90000, "b", text, &err), 0);
}

static void test_another_boot_takes_back(void **state)
{
	struct ipam_range range = range_of("10.4.0.0/29", 6);
	struct wag_err err = { 0 };
	char text[WAG_ADDR_TEXT];

	for (int i = 2; i <= 6; i++)
		assert_int_equal(take(&range, "b1", 500, "c", text, &err), 0);
	for (int i = 2; i <= 6; i++)
		assert_int_equal(take(&range, "b2", 10, "d", text, &err), 0);
	assert_int_equal(take(&range, "b2", 10, "d", text, &err), -EADDRNOTAVAIL);
}

static void test_lost_queue_is_found_again(void **state)
{
	struct ipam_range range = range_of("10.5.0.0/29", 6);
	struct wag_err err = { 0 };
	char text[WAG_ADDR_TEXT], path[128];

	for (int i = 2; i <= 6; i++)
		assert_int_equal(take(&range, "b1", 0, "c", text, &err), 0);
	give(&range, "b1", 0, "c", "10.5.0.4");
	snprintf(path, sizeof(path), "%s/ipam/10.5.0.0-29/queue", dir);
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(take(&range, "b1", 40000, "d", text, &err), 0);
	assert_string_equal(text, "10.5.0.4");
	/* Without a cursor, what is taken stays taken. */
	snprintf(path, sizeof(path), "%s/ipam/10.5.0.0-29/cursor", dir);
	assert_int_equal(truncate(path, 3), 0);
	assert_int_equal(take(&range, "b1", 40000, "d", text, &err), -EADDRNOTAVAIL);
}

static void test_release_all(void **state)
{
	struct ipam_range v4 = range_of("10.6.0.0/24", 254);
	struct ipam_range v6 = range_of("fd00:6::/64", UINT64_MAX - 1);
	const struct ipam_owner owner = { "killed", "eth0" };
	struct wag_err err = { 0 };
	char text[WAG_ADDR_TEXT], path[128];
	struct ipam ipam;
	FILE *f;

	assert_int_equal(take(&v4, "b1", 0, "killed", text, &err), 0);
	assert_int_equal(take(&v6, "b1", 0, "killed", text, &err), 0);
	assert_string_equal(text, "fd00:6::2");
	assert_int_equal(ipam_init(&ipam, dir, "b1", 7), 0);
	assert_int_equal(ipam_release_all(&ipam, &owner), 0);
	ipam_done(&ipam);
	snprintf(path, sizeof(path), "%s/ipam/fd00:6::-64/leases/fd00:6::2", dir);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_non_null(fgets(path, sizeof(path), f));
	assert_int_equal(strncmp(path, "released b1 7 killed", 20), 0);
	fclose(f);
}

static void test_long_queue_bounds_a_large_range(void **state)
{
	struct ipam_range range = range_of("fd00:7::/64", UINT64_MAX - 1);
	const struct ipam_owner owner = { "c", "eth0" };
	char key[IPAM_RANGE_KEY], text[WAG_ADDR_TEXT];
	struct wag_err err = { 0 };
	struct wag_addr addr;
	struct ipam ipam;
	unsigned index;

	ipam_range_key(&range, key);
	assert_int_equal(ipam_init(&ipam, dir, "b1", 0), 0);
	for (int i = 0; i < 3 * IPAM_QUEUE_LONG; i++) {
		ipam.now_ms = i * 1000;
		assert_int_equal(ipam_allocate(&ipam, &range, 1, &owner, &addr, &index, &err), 0);
		assert_int_equal(ipam_release(&ipam, key, &addr, &owner), 0);
	}
	ipam_done(&ipam);
	assert_int_equal(take(&range, "b1", 90000000, "d", text, &err), 0);
	assert_int_equal(wag_addr_parse(text, &addr), 0);
	assert_true(addr.b[8] == 0 && addr.b[13] == 0 && addr.b[14] <= 0x11);
}

static void test_second_range_when_first_is_full(void **state)
{
	struct ipam_range ranges[] = { range_of("10.8.0.0/30", 2), range_of("10.8.1.0/30", 2) };
	const struct ipam_owner owner = { "c", "eth0" };
	struct wag_err err = { 0 };
	struct wag_addr addr;
	struct ipam ipam;
	unsigned index;

	assert_int_equal(ipam_init(&ipam, dir, "b1", 0), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(ipam_allocate(&ipam, ranges, 2, &owner, &addr, &index, &err), 0);
		assert_int_equal(index, i);
	}
	assert_int_equal(ipam_allocate(&ipam, ranges, 2, &owner, &addr, &index, &err),
			 -EADDRNOTAVAIL);
	ipam_done(&ipam);
}

static void test_concurrent_takers_never_share(void **state)
{
	struct ipam_range range = range_of("10.9.0.0/24", 254);
	struct wag_err err = { 0 };
	char text[WAG_ADDR_TEXT];

	for (int p = 0; p < 8; p++) {
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid)
			continue;
		for (int i = 0; i < 20; i++)
			if (take(&range, "b1", 0, "c", text, &err) != 0)
				_exit(1);
		_exit(0);
	}
	for (int p = 0; p < 8; p++) {
		int status;

		assert_true(wait(&status) > 0);
		assert_int_equal(status, 0);
	}
	/* 160 takers, so the next is the 161st: no address was given twice. */
	assert_int_equal(take(&range, "b1", 0, "c", text, &err), 0);
	assert_string_equal(text, "10.9.0.162");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_skips_network_gateway_and_broadcast),
		cmocka_unit_test(test_back_of_the_queue_and_quarantine),
		cmocka_unit_test(test_release_needs_the_owner),
		cmocka_unit_test(test_another_boot_takes_back),
		cmocka_unit_test(test_lost_queue_is_found_again),
		cmocka_unit_test(test_release_all),
		cmocka_unit_test(test_long_queue_bounds_a_large_range),
		cmocka_unit_test(test_second_range_when_first_is_full),
		cmocka_unit_test(test_concurrent_takers_never_share),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
