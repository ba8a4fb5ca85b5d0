// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <waggle/abi_reason.h>
#include <waggle/addr.h>

static void test_parse_and_format(void **state)
{
	static const struct {
		const char *text;
		int r;
		bool v4;
	} cases[] = {
		{ "10.0.0.1", 0, true },   { "0.0.0.0", 0, true },  { "fd00::1", 0, false },
		{ "::", 0, false },	   { "", -EINVAL, false },  { "10.0.0", -EINVAL, false },
		{ "10.0.0.256", -EINVAL, false }, { "fd00::g", -EINVAL, false },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char text[WAG_ADDR_TEXT];
		struct wag_addr addr;

		assert_int_equal(wag_addr_parse(cases[i].text, &addr), cases[i].r);
		if (cases[i].r)
			continue;
		assert_int_equal(wag_addr_is_v4(&addr), cases[i].v4);
		assert_string_equal(wag_addr_format(&addr, text), cases[i].text);
	}
}

static void test_port(void **state)
{
	static const char *const bad[] = { "", "0", "00", "65536", "4294967376", "-1", "+80", " 80",
					   "80 ", "80x", "0x50", "http",
					   "18446744073709551696" };
	__u16 port = 7;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (wag_port_parse(bad[i], &port) != -EINVAL || port != 7)
			fail_msg("\"%s\" is taken as %d", bad[i], port);
	assert_int_equal(wag_port_parse("1", &port), 0);
	assert_int_equal(port, 1);
	assert_int_equal(wag_port_parse("65535", &port), 0);
	assert_int_equal(port, 65535);
	assert_int_equal(wag_port_parse("080", &port), 0);
	assert_int_equal(port, 80);
}

static void test_zero_is_not_any_v4(void **state)
{
	struct wag_addr v4, v6;

	assert_int_equal(wag_addr_parse("0.0.0.0", &v4), 0);
	assert_int_equal(wag_addr_parse("::", &v6), 0);
	assert_false(wag_addr_equal(&v4, &v6));
	assert_true(wag_addr_is_zero(&v6));
	assert_false(wag_addr_is_zero(&v4));
}

static void test_cidr(void **state)
{
	static const struct {
		const char *cidr, *addr;
		int r;
		bool in;
	} cases[] = {
		{ "10.244.0.0/24", "10.244.0.255", 0, true },
		{ "10.244.0.0/24", "10.244.1.0", 0, false },
		{ "10.244.0.0/25", "10.244.0.128", 0, false },
		{ "0.0.0.0/0", "203.0.113.9", 0, true },
		{ "0.0.0.0/0", "fd00::1", 0, false },
		{ "fd00::/8", "fdff::1", 0, true },
		{ "::/0", "10.0.0.1", 0, false },
		{ "10.0.0.7", "10.0.0.7", 0, true },
		{ "::ffff:10.0.0.0/104", "10.1.2.3", 0, true },
		{ "::ffff:10.0.0.0/104", "11.1.2.3", 0, false },
		{ "::ffff:0:0/64", NULL, -EINVAL, false },
		{ "10.0.0.0/33", NULL, -EINVAL, false },
		{ "10.0.0.0/", NULL, -EINVAL, false },
		{ "10.0.0.0/-1", NULL, -EINVAL, false },
		{ "fd00::/129", NULL, -EINVAL, false },
		{ "10.0.0.0/8x", NULL, -EINVAL, false },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct wag_addr net, addr;
		unsigned bits;

		assert_int_equal(wag_cidr_parse(cases[i].cidr, &net, &bits), cases[i].r);
		if (cases[i].r)
			continue;
		assert_int_equal(wag_addr_parse(cases[i].addr, &addr), 0);
		assert_int_equal(wag_addr_in_cidr(&addr, &net, bits), cases[i].in);
	}
}

static void test_port_format(void **state)
{
	struct wag_addr addr;
	char text[64];

	assert_int_equal(wag_addr_parse("10.0.0.1", &addr), 0);
	wag_addr_port_format(&addr, htons(80), text, sizeof(text));
	assert_string_equal(text, "10.0.0.1:80");
	assert_int_equal(wag_addr_parse("fd00::1", &addr), 0);
	wag_addr_port_format(&addr, htons(80), text, sizeof(text));
	assert_string_equal(text, "[fd00::1]:80");
}

static void test_every_reason_has_words(void **state)
{
	for (unsigned i = 0; i < WAG_REASON_COUNT; i++) {
		assert_non_null(wag_reason_text(i));
		assert_true(strlen(wag_reason_text(i)) > 3);
	}
	assert_int_equal(wag_reason_hubble(WAG_DROP_NO_BACKEND), 158);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse_and_format),
		cmocka_unit_test(test_port),
		cmocka_unit_test(test_zero_is_not_any_v4),
		cmocka_unit_test(test_cidr),
		cmocka_unit_test(test_port_format),
		cmocka_unit_test(test_every_reason_has_words),
	};

	return cmocka_run_group_tests_name("addr", tests, NULL, NULL);
}
