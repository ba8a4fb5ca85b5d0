// SPDX-License-Identifier: Apache-2.0
/* Which devices keep departure times: agent/node_qdisc.c. */
#include <linux/pkt_sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "agent/node_qdisc.h"

#define DEVICE 7
#define QUEUES_MAX 6

struct device {
	struct nl_qdisc qdiscs[QUEUES_MAX];
	bool paces;
};

static void test_devices(void **state)
{
	static const uint32_t ours = 0x80010000, by_default = 0;
	const struct device devices[] = {
		{ { { 0 } }, false },
		{ { { DEVICE, ours, TC_H_ROOT, "fq" } }, true },
		{ { { DEVICE, by_default, TC_H_ROOT, "fq" } }, true },
		{ { { DEVICE, ours, TC_H_ROOT, "fq_codel" } }, false },
		{ { { DEVICE, by_default, TC_H_ROOT, "noqueue" } }, false },
		/* Another device's. */
		{ { { DEVICE + 1, ours, TC_H_ROOT, "fq" } }, false },
		/* clsact stands beside the root, and is no queue. */
		{ { { DEVICE, 0xffff0000, TC_H_CLSACT, "clsact" },
		    { DEVICE, ours, TC_H_ROOT, "fq" } }, true },
		/* fq below something else is not all that sends. */
		{ { { DEVICE, ours, TC_H_ROOT, "htb" },
		    { DEVICE, 0x80020000, ours | 1, "fq" } }, false },
		{ { { DEVICE, by_default, TC_H_ROOT, "mq" },
		    { DEVICE, by_default, 1, "fq" },
		    { DEVICE, by_default, 2, "fq" } }, true },
		{ { { DEVICE, ours, TC_H_ROOT, "mq" },
		    { DEVICE, 0x80020000, ours | 1, "fq" },
		    { DEVICE, by_default, ours | 2, "fq_codel" } }, false },
		{ { { DEVICE, ours, TC_H_ROOT, "mq" } }, false },
		/* The queues of another device's mq. */
		{ { { DEVICE, by_default, TC_H_ROOT, "mq" },
		    { DEVICE, by_default, 1, "fq" },
		    { DEVICE + 1, by_default, 2, "pfifo_fast" } }, true },
	};

	for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++)
		assert_int_equal(qdiscs_pace(devices[i].qdiscs, QUEUES_MAX, DEVICE),
				 devices[i].paces);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_devices) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
