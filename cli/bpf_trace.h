/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One packet through the agent's own programs, loaded once more with cfg.dry_run over its pinned
 * maps: nothing leaves, nothing is remembered, counted or told.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <waggle/abi_event.h>
#include "cli.h"

struct bpf_trace {
	struct wag_tuple tuple;
	uint32_t ifindex; /* where it comes in */
	bool from_pod;	  /* at a pod's interface; else at a device of the node */
};

/* *ret: what the datapath would tell of it. 0 or -errno with err filled. */
int bpf_trace_run(const struct cli *cli, const struct bpf_trace *t, struct wag_event *ret,
		  struct wag_err *err);
