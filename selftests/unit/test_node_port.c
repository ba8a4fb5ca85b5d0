// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <waggle/abi_config.h>
#include <waggle/addr.h>
#include "agent/node_port.h"

/* The node's main addresses are 172.31.0.1 and fd91::1. */
static void test_addresses(void **state)
{
	static const struct {
		const char *list, *addr;
		bool want;
	} cases[] = {
		{ NULL, "172.31.0.1", true },
		{ "", "fd91::1", true },
		{ "172.31.0.0/24", "172.31.0.9", true },
		{ "172.31.0.0/24", "172.31.1.9", false },
		{ "172.31.0.0/24", "fd91::9", true }, /* nothing said about the family */
		{ "10.0.0.0/8,fd91::/64", "fd91::9", true },
		{ "10.0.0.0/8,fd91::/64", "fd92::9", false },
		{ "10.0.0.0/8,fd91::/64", "10.9.9.9", true },
		{ "primary", "172.31.0.1", true },
		{ "primary", "172.31.0.2", false },
		{ "primary", "fd91::1", true },
		{ "primary", "fd91::2", false },
		{ "primary,10.0.0.0/8", "10.0.0.2", true },
		{ "0.0.0.0/0", "10.0.0.2", true },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct wag_addr addr, primary;

		assert_int_equal(wag_addr_parse(cases[i].addr, &addr), 0);
		wag_addr_parse(wag_addr_is_v4(&addr) ? "172.31.0.1" : "fd91::1", &primary);
		if (node_port_serves(cases[i].list, &addr, &primary) != cases[i].want)
			fail_msg("%s on %s", cases[i].list, cases[i].addr);
	}
}

static void test_loopback(void **state)
{
	assert_int_equal(node_port_loopback(NULL), WAG_LOOPBACK_V4 | WAG_LOOPBACK_V6);
	assert_int_equal(node_port_loopback("primary"), 0);
	assert_int_equal(node_port_loopback("127.0.0.0/8"), WAG_LOOPBACK_V4 | WAG_LOOPBACK_V6);
	assert_int_equal(node_port_loopback("10.0.0.0/8,fd91::/64"), 0);
	assert_int_equal(node_port_loopback("127.0.0.0/8,fd91::/64"), WAG_LOOPBACK_V4);
}

static void test_errors_name_the_item(void **state)
{
	struct wag_err err;

	assert_int_equal(node_port_check(NULL, &err), 0);
	assert_int_equal(node_port_check("primary,10.0.0.0/8", &err), 0);
	assert_true(node_port_check("10.0.0.0/8,eth0", &err) < 0);
	assert_string_equal(err.msg, "--nodeport-addresses '10.0.0.0/8,eth0': 'eth0' is neither a "
				     "CIDR nor 'primary'");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_loopback),
		cmocka_unit_test(test_errors_name_the_item),
	};

	return cmocka_run_group_tests_name("node_port", tests, NULL, NULL);
}
