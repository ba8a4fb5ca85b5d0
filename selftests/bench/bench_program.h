/* SPDX-License-Identifier: Apache-2.0 */
/* Which maps bench_program writes: bench_program_fake.c or bench_program_bpf.c. */
#pragma once

#include "agent/dataplane.h"

int bench_dataplane_open(struct dataplane **ret, const char *pin_dir);
