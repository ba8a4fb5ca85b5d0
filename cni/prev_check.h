/* SPDX-License-Identifier: Apache-2.0 */
/* CHECK: every difference between prevResult, if the runtime gave it, and what stands. */
#pragma once

#include <waggle/err.h>

#include "job.h"
#include "wire.h"

/* 0 also with differences. MTUs are wire_check()'s. */
int prev_check(const struct job *job, struct wire_diffs *diffs, struct wag_err *err);
