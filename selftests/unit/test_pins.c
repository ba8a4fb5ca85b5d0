// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <sys/stat.h>
#include <unistd.h>
#include <waggle/pins.h>

static void test_paths(void **state)
{
	char buf[64];

	assert_int_equal(pins_map_path(buf, sizeof(buf), "/p", "wag_ct"), 0);
	assert_string_equal(buf, "/p/maps/wag_ct");
	assert_int_equal(pins_prog_path(buf, sizeof(buf), "/p", "wag_to_pod"), 0);
	assert_string_equal(buf, "/p/progs/wag_to_pod");
	assert_int_equal(pins_tcx_path(buf, sizeof(buf), "/p", "eth0.100", 7, 1), 0);
	assert_string_equal(buf, "/p/links/eth0_100_7_egress");
	assert_int_equal(pins_tcx_path(buf, sizeof(buf), "/p", "wag1", 7, 0), 0);
	assert_string_equal(buf, "/p/links/wag1_7_ingress");
	assert_int_equal(pins_map_path(buf, 14, "/p", "wag_ct"), -ENAMETOOLONG);
	assert_int_equal(pins_map_path(buf, 15, "/p", "wag_ct"), 0);
}

static void test_plain_dirs(void **state)
{
	static const char *const plain[] = { "/", "/a", "/a//b/", "/...", "/a/.b/..c/d." };
	static const char *const others[] = { "", "a", "./a", "/.", "/..", "/a/.", "/a/..",
					      "/a/../", "/../a", "//./a" };

	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
		assert_true(pins_dir_is_plain(plain[i]));
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		assert_false(pins_dir_is_plain(others[i]));
}

static void test_mkdir_and_lock(void **state)
{
	char dir[] = "/tmp/waggle-pins-XXXXXX", path[64], deep[64];
	struct stat st;
	int fd, again;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/a", dir);
	snprintf(deep, sizeof(deep), "%s/a//b/c/", dir);
	assert_int_equal(pins_lock(path, 0), -ENOENT);
	assert_int_equal(pins_mkdir_p(deep, 0700), 0);
	assert_int_equal(pins_mkdir_p(deep, 0700), 0);
	assert_int_equal(stat(deep, &st), 0);
	assert_int_equal(pins_mkdir_p("", 0700), -EINVAL);
	assert_int_equal(pins_mkdir_p("/proc/version/x", 0700), -ENOTDIR);
	fd = pins_lock(path, 0);
	assert_true(fd >= 0);
	assert_int_equal(pins_lock(path, 0), -EWOULDBLOCK);
	assert_int_equal(pins_lock(path, 20), -EWOULDBLOCK);
	close(fd);
	again = pins_lock(path, 0);
	assert_true(again >= 0);
	close(again);
	assert_int_equal(rmdir(deep), 0);
	snprintf(deep, sizeof(deep), "%s/a/b", dir);
	assert_int_equal(rmdir(deep), 0);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_plain_dirs),
		cmocka_unit_test(test_mkdir_and_lock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
