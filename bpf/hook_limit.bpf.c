// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The host side of the veth of a pod with a limit, ahead of the other programs there; no other pod
 * has them. Directions as the pod sees them: what it sends comes in on the host side.
 */
#include <asm-generic/errno-base.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"
#include "packet.h"
#include "scratch.h"
#include "stage_parse.h"
#include "stage_track.h"
#include "stage_limit.h"
#include "stage_finish.h"

static __always_inline int limit(struct __sk_buff *skb, __u32 direction, enum wag_point point)
{
	struct wag_limit_key key = { .ifindex = skb->ifindex, .direction = direction };
	struct wag_limit *l = bpf_map_lookup_elem(&wag_limit, &key);
	struct wag_scratch *s;

	if (!l || limit_allows(l, skb->len, bpf_ktime_get_ns()))
		return PASS;
	s = scratch_get(point);
	if (!s)
		return DROP;
	parse_plain(&s->pkt, (void *)(long)skb->data, (void *)(long)skb->data_end,
		    skb->protocol); /* for the event */
	return stage_finish(skb, s, wag_drop(&s->pkt, WAG_DROP_BANDWIDTH));
}

static __always_inline bool pacing(void)
{
	__u32 zero = 0;
	struct wag_runtime *runtime = bpf_map_lookup_elem(&wag_runtime, &zero);

	return runtime && runtime->pacing;
}

SEC("tc")
int wag_limit_egress(struct __sk_buff *skb)
{
	if (!pacing())
		return limit(skb, WAG_LIMIT_EGRESS, WAG_POINT_FROM_POD);
	skb_set_queue(skb, LIMIT_QUEUE); /* wag_from_pod sees where it goes: stage_limit() */
	return PASS;
}

SEC("tc")
int wag_limit_ingress(struct __sk_buff *skb)
{
	return limit(skb, WAG_LIMIT_INGRESS, WAG_POINT_TO_POD);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
