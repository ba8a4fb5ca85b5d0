// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "sync_fixture.h"

struct dataplane *dp;
struct sync *sy;
uint64_t now;

int sync_setup(void **state)
{
	now = 1000;
	assert_int_equal(dataplane_fake_new(NULL, &dp), 0);
	assert_int_equal(sync_new(dp, &sy), 0);
	assert_int_equal(sync_adopt(sy), 0);
	sync_sweep(sy);
	return 0;
}

int sync_teardown(void **state)
{
	sync_free(sy);
	dataplane_free(dp);
	return 0;
}

uint64_t run_ops(void)
{
	uint64_t before = dataplane_fake_ops(dp);

	assert_int_equal(sync_run(sy, now), 0);
	return dataplane_fake_ops(dp) - before;
}

void fresh(const struct dataplane_fake_sizes *sizes)
{
	sync_free(sy);
	dataplane_free(dp);
	assert_int_equal(dataplane_fake_new(sizes, &dp), 0);
	assert_int_equal(sync_new(dp, &sy), 0);
	assert_int_equal(sync_adopt(sy), 0);
	sync_sweep(sy);
}
