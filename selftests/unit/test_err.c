// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <waggle/err.h>

static void test_set(void **state)
{
	struct wag_err err = { 0 };

	assert_int_equal(wag_err_set(&err, -ENOENT, "no %s at line %d", "port", 7), -ENOENT);
	assert_int_equal(err.code, -ENOENT);
	assert_string_equal(err.msg, "no port at line 7");
	assert_int_equal(wag_err_set(NULL, -EINVAL, "nobody listens"), -EINVAL);
}

static void test_prefix(void **state)
{
	struct wag_err err = { 0 };

	wag_err_set(&err, -EIO, "broken");
	assert_int_equal(wag_err_prefix(&err, "%s:%d: ", "a.yaml", 3), -EIO);
	assert_string_equal(err.msg, "a.yaml:3: broken");
	assert_int_equal(wag_err_prefix(NULL, "x"), 0);
}

static void test_long_text_is_cut_not_spilt(void **state)
{
	struct wag_err err = { 0 };
	char text[2048];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	wag_err_set(&err, -EIO, "%s", text);
	assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
	wag_err_prefix(&err, "%s", "front: ");
	assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
	assert_memory_equal(err.msg, "front: x", 8);
	wag_err_prefix(&err, "%s", text);
	assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set),
		cmocka_unit_test(test_prefix),
		cmocka_unit_test(test_long_text_is_cut_not_spilt),
	};

	return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
