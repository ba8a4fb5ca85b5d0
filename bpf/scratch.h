/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where a packet's working memory comes from. Not pinned: nothing in it is worth keeping. */
#pragma once

#include <stddef.h>
#include "maps.h"
#include "packet.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wag_scratch);
} wag_scratch SEC(".maps");

static __always_inline struct wag_scratch *scratch_find(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&wag_scratch, &zero);
}

/*
 * A wag_pkt for a packet met at point, clean but for xlat. NULL never happens, but the verifier
 * wants it asked.
 */
static __always_inline struct wag_scratch *scratch_get(enum wag_point point)
{
	struct wag_scratch *scratch = scratch_find();
	struct wag_runtime *runtime;
	__u32 zero = 0;

	if (!scratch)
		return NULL;
	runtime = bpf_map_lookup_elem(&wag_runtime, &zero);
	__builtin_memset(&scratch->pkt, 0, offsetof(struct wag_pkt, xlat));
	scratch->pkt.point = point;
	scratch->epoch = runtime ? runtime->policy_epoch : 0;
	scratch->trace = runtime && runtime->trace;
	scratch->judged[0] = scratch->judged[1] = 0;
	return scratch;
}
