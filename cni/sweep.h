/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GC's second half: what belongs to no record. Whatever ADD makes is made after the record and goes
 * before it, so a thing without a record belongs to nobody, unless the runtime says that its
 * attachment lives (the state dir was lost).
 */
#pragma once

#include <waggle/err.h>

#include "job.h"

/* Is ep_id of an attachment the runtime listed? */
bool sweep_is_listed(const struct cni_conf *conf, uint32_t ep_id);
/* Veths, leases, map entries, pins and temporary files. 0, or the first error after trying all. */
int sweep(struct job *job, struct wag_err *err);
