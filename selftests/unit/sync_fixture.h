/* SPDX-License-Identifier: Apache-2.0 */
/* What each test of sync begins with: a dataplane without a kernel, and a sync over it. */
#pragma once

#include <stdint.h>
#include "agent/dataplane_fake.h"
#include "agent/sync.h"

extern struct dataplane *dp;
extern struct sync *sy;
extern uint64_t now;
int sync_setup(void **state);
int sync_teardown(void **state);
void fresh(const struct dataplane_fake_sizes *sizes); /* another one, of these sizes */
uint64_t run_ops(void);				      /* operations of one run */
