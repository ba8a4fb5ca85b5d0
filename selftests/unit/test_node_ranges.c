// SPDX-License-Identifier: Apache-2.0
/* The node's ranges on disk, and what the store says of their use. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <unistd.h>
#include <waggle/addr.h>
#include <waggle/node_ranges.h>

static char dir[64];

static int make_dir(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/waggle-ranges-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
	return system(cmd);
}

static void test_subnets(void **state)
{
	static const struct {
		const char *cidr;
		int r;
		uint64_t size;
	} cases[] = {
		{ "10.0.3.0/24", 0, 253 },	/* no network, gateway, broadcast */
		{ "10.0.3.0/30", 0, 1 },
		{ "10.0.3.0/31", -EINVAL, 0 },
		{ "10.0.3.0", -EINVAL, 0 },
		{ "10.0.0.0/8", 0, (1 << 24) - 3 },
		{ "10.0.0.0/7", -EINVAL, 0 },
		{ "10.0.3.1/24", -EINVAL, 0 },	/* host bits */
		{ "fd00::/120", 0, 254 },
		{ "fd00::1/120", -EINVAL, 0 },
		{ "fd00:3::/64", 0, UINT64_MAX - 2 },
		{ "fd00::/127", -EINVAL, 0 },
		{ "", -EINVAL, 0 },
		{ "10.0.3/24", -EINVAL, 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ipam_range range, back;
		char key[IPAM_RANGE_KEY];

		assert_int_equal(ipam_range_parse(cases[i].cidr, &range), cases[i].r);
		if (cases[i].r < 0)
			continue;
		assert_int_equal(ipam_range_size(&range), cases[i].size);
		ipam_range_key(&range, key);
		assert_int_equal(ipam_range_from_key(key, &back), 0);
		assert_true(wag_addr_equal(&range.subnet, &back.subnet) && range.bits == back.bits);
		assert_string_equal(node_range_text(&range, key), cases[i].cidr);
	}
}

static void test_bad_files(void **state)
{
	static const struct {
		const char *text, *why;
	} cases[] = {
		{ "", "line 1" },
		{ "{\"mode\":\"kubernetes\",\"ranges\":[[\"10.0.3.0/24\"]", "line 1" },
		{ "{}", "ranges is missing" },
		{ "[]", "ranges is missing" },
		{ "{\"ranges\":[\"10.0.3.0/24\"]}", "a list of ranges is none" },
		{ "{\"ranges\":[[\"10.0.3.7/24\"]]}", "\"10.0.3.7/24\" is no range" },
		{ "{\"ranges\":[[7]]}", "no range" },
		{ "{\"ranges\":[],\"draining\":7}", "a list of ranges is none" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct node_ranges ranges;
		struct wag_err err = { 0 };

		assert_int_equal(node_ranges_parse(cases[i].text, strlen(cases[i].text), &ranges,
						   &err),
				 -EBADMSG);
		assert_non_null(strstr(err.msg, cases[i].why));
	}
}

static void test_written_and_read(void **state)
{
	struct node_ranges ranges = { .mode = "cluster-pool" }, back;
	struct ipam_range old;
	struct wag_err err = { 0 };
	char path[128], text[256] = "";
	FILE *f;

	assert_int_equal(node_ranges_read(dir, &back, &err), -ENOENT);
	assert_int_equal(node_ranges_write(dir, &ranges), 0);
	assert_int_equal(node_ranges_read(dir, &back, &err), 0);
	assert_int_equal(back.family[0].n + back.family[1].n + back.draining.n, 0);
	assert_int_equal(node_ranges_add(&ranges, "10.0.9.0/24"), 0);
	assert_int_equal(node_ranges_add(&ranges, "fd00::100/120"), 0);
	assert_int_equal(node_ranges_add(&ranges, "10.0.3.0/24"), 0);
	assert_int_equal(node_ranges_add(&ranges, "10.0.9.0/24"), 0);
	assert_int_equal(node_ranges_add(&ranges, "10.0.9.1/24"), -EINVAL);
	assert_int_equal(ipam_range_parse("10.1.0.0/16", &old), 0);
	assert_int_equal(node_range_add(&ranges.draining, &old), 0);
	assert_int_equal(node_ranges_write(dir, &ranges), 0);
	snprintf(path, sizeof(path), "%s/ipam/node.json", dir);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_true(fread(text, 1, sizeof(text) - 1, f) > 0);
	fclose(f);
	assert_string_equal(text, "{\"mode\":\"cluster-pool\",\"ranges\":[[\"10.0.9.0/24\","
				  "\"10.0.3.0/24\"],[\"fd00::100/120\"]],"
				  "\"draining\":[\"10.1.0.0/16\"]}\n");
	assert_int_equal(node_ranges_read(dir, &back, &err), 0);
	assert_true(node_ranges_equal(&back, &ranges));
	node_range_remove(&back.family[0], 0);
	assert_false(node_ranges_equal(&back, &ranges));
}

static void give(struct ipam *ipam, const struct ipam_range *range, const char *who, int n)
{
	const struct ipam_owner owner = { who, "eth0" };
	struct wag_addr addr;
	unsigned index;

	while (n--)
		assert_int_equal(ipam_allocate(ipam, range, 1, &owner, &addr, &index, NULL), 0);
}

static void test_usage(void **state)
{
	const struct ipam_owner a = { "a", "eth0" }, b = { "b", "eth0" };
	struct ipam_range range;
	struct ipam_usage u;
	struct wag_addr addr;
	struct ipam ipam;

	assert_int_equal(ipam_range_parse("10.0.7.0/24", &range), 0);
	assert_int_equal(ipam_usage(dir, &range, "boot", 0, &u), 0);
	assert_int_equal(u.capacity, 253);
	assert_int_equal(u.used + u.quarantined, 0);
	assert_int_equal(ipam_init(&ipam, dir, "boot", 1000), 0);
	give(&ipam, &range, "a", 3);
	give(&ipam, &range, "b", 2);
	assert_int_equal(ipam_release_all(&ipam, &a), 0);
	assert_int_equal(ipam_usage(dir, &range, "boot", 2000, &u), 0);
	assert_int_equal(u.used, 2);
	assert_int_equal(u.quarantined, 3);
	assert_int_equal(ipam_usage(dir, &range, "boot", 1000 + IPAM_QUARANTINE_MS, &u), 0);
	assert_int_equal(u.quarantined, 0);
	assert_int_equal(ipam_usage(dir, &range, "another boot", 2000, &u), 0);
	assert_int_equal(u.used + u.quarantined, 0);
	/* One address by name. */
	assert_int_equal(wag_addr_parse("10.0.7.5", &addr), 0);
	assert_int_equal(ipam_take(&ipam, &range, &addr, &a), -EEXIST);
	assert_int_equal(ipam_take(&ipam, &range, &addr, &b), 0);
	assert_int_equal(wag_addr_parse("10.0.7.1", &addr), 0);
	assert_int_equal(ipam_take(&ipam, &range, &addr, &a), -ERANGE);
	assert_int_equal(wag_addr_parse("10.0.8.9", &addr), 0);
	assert_int_equal(ipam_take(&ipam, &range, &addr, &a), -ERANGE);
	assert_int_equal(wag_addr_parse("10.0.7.9", &addr), 0);
	assert_int_equal(ipam_take(&ipam, &range, &addr, &a), 0);
	assert_int_equal(ipam_usage(dir, &range, "boot", 2000, &u), 0);
	assert_int_equal(u.used, 3);
	ipam_done(&ipam);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_subnets),
		cmocka_unit_test(test_bad_files),
		cmocka_unit_test_setup_teardown(test_written_and_read, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_usage, make_dir, remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
