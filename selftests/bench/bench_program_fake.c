// SPDX-License-Identifier: Apache-2.0
#include "agent/dataplane_fake.h"
#include "bench_program.h"

int bench_dataplane_open(struct dataplane **ret, const char *pin_dir)
{
	struct dataplane_fake_sizes sizes = { .n_states = 65536, .n_slots = 524288 };

	for (int t = 0; t < DP_TABLES; t++)
		sizes.max[t] = 524288;
	return dataplane_fake_new(&sizes, ret);
}
