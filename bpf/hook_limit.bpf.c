// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Bandwidth of a pod: a token bucket on the host side of its veth, ahead of the other programs
 * there. Only on pods that have a limit, so that no other pays for it. Directions as the pod sees
 * them: what it sends comes in on the host side.
 */
#include <asm-generic/errno-base.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"
#include "packet.h"
#include "scratch.h"
#include "stage_parse.h"
#include "stage_track.h"
#include "stage_finish.h"

/*
 * The bucket as a time: when what was let through will be over at the rate. It may lie a burst in
 * the past (a full bucket); where it lies in the future, the bucket is empty. A packet is let
 * through as soon as it is not, however large: segments of 64 KB come in one.
 */
static __always_inline bool limit_allows(struct wag_limit *l, __u32 len, __u64 now)
{
	__u64 next, burst_ns, cost_ns;
	bool ok;

	if (!l->bytes_per_s)
		return true;
	burst_ns = l->burst_bytes * NSEC_PER_SEC / l->bytes_per_s;
	cost_ns = len * NSEC_PER_SEC / l->bytes_per_s;
	bpf_spin_lock(&l->lock);
	next = l->next_ns;
	if (next + burst_ns < now)
		next = now - burst_ns;
	ok = next <= now;
	if (ok)
		l->next_ns = next + cost_ns;
	bpf_spin_unlock(&l->lock);
	return ok;
}

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

SEC("tc")
int wag_limit_egress(struct __sk_buff *skb)
{
	return limit(skb, WAG_LIMIT_EGRESS, WAG_POINT_FROM_POD);
}

SEC("tc")
int wag_limit_ingress(struct __sk_buff *skb)
{
	return limit(skb, WAG_LIMIT_INGRESS, WAG_POINT_TO_POD);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
