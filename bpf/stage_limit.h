/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Bandwidth of a pod. What it receives, and what it sends where no departure times are kept, meets
 * a token bucket. Where fq sends on every device of the node, a packet that leaves the node is
 * given the time it may leave at instead of being dropped; what stays on the node meets the bucket.
 *
 * The time travels in skb->queue_mapping, because the kernel clears skb->tstamp when a packet is
 * redirected to a device; there, ahead of fq, it becomes skb->tstamp. The kernel chooses its queue
 * behind that, and from a mapping of 0 as for any packet.
 */
#pragma once

#include "maps.h"
#include "packet.h"
#include "tunnel.h"

#define LIMIT_HORIZON_NS (2 * NSEC_PER_SEC) /* later ones are dropped: nobody waits for them */

/*
 * In skb->queue_mapping: the flag, which no queue's number reaches, and the time in units of 131
 * us, modulo 2.1 s: more than the horizon, so that it is known which one is meant.
 */
#define LIMIT_QUEUE 0x4000U
#define LIMIT_QUEUE_MASK 0x3fffU
#define LIMIT_QUEUE_SHIFT 17
#define LIMIT_QUEUE_AHEAD ((LIMIT_HORIZON_NS >> LIMIT_QUEUE_SHIFT) + 1)

static __always_inline void skb_set_queue(struct __sk_buff *skb, __u32 queue)
{
	/* Else the compiler may store one byte only: see skb_set_mark(). */
	asm volatile("" : "+r"(queue));
	skb->queue_mapping = queue;
}

/*
 * When the next packet may go: when what went before is over at the rate. That may lie a burst in
 * the past, and at most horizon_ns in the future: a later packet is not let through and costs
 * nothing. One that is let through may be as large as it likes: segments of 64 KB come in one.
 */
static __always_inline __u64 limit_take(struct wag_limit *l, __u64 *next_ns, __u32 len, __u64 now,
					__u64 horizon_ns)
{
	__u64 next, burst_ns, cost_ns;

	if (!l->bytes_per_s)
		return now;
	burst_ns = l->burst_bytes * NSEC_PER_SEC / l->bytes_per_s;
	cost_ns = len * NSEC_PER_SEC / l->bytes_per_s;
	bpf_spin_lock(&l->lock);
	next = *next_ns;
	if (next + burst_ns < now)
		next = now - burst_ns;
	if (next <= now + horizon_ns)
		*next_ns = next + cost_ns;
	bpf_spin_unlock(&l->lock);
	return next;
}

static __always_inline bool limit_allows(struct wag_limit *l, __u32 len, __u64 now)
{
	return limit_take(l, &l->next_ns, len, now, 0) <= now;
}

/* No fq is on the way to a pod of this node, nor to the node itself. */
static __always_inline bool limit_stays(const struct wag_pkt *pkt)
{
	return bpf_map_lookup_elem(&wag_pods, pkt_dst(pkt)) ||
	       bpf_map_lookup_elem(&wag_node_addr, pkt_dst(pkt));
}

/* As the pod sent it: what it is packed in costs it nothing. */
static __always_inline __u32 limit_len(struct __sk_buff *skb, const struct wag_pkt *pkt)
{
	return skb->len - (pkt->flags & PKT_PACK ? PACK_ROOM : 0);
}

static __noinline int limit_packet(struct __sk_buff *skb, struct wag_scratch *scratch, int v)
{
	struct wag_limit_key key = { .ifindex = skb->ifindex, .direction = WAG_LIMIT_EGRESS };
	__u64 now = bpf_ktime_get_ns(), at;
	struct wag_limit *l;
	__u32 len;

	if (!scratch)
		return DROP;
	skb_set_queue(skb, 0);
	len = limit_len(skb, &scratch->pkt);
	l = v == DROP ? NULL : bpf_map_lookup_elem(&wag_limit, &key);
	if (!l)
		return v;
	if (limit_stays(&scratch->pkt))
		return limit_allows(l, len, now) ? v :
						   wag_drop(&scratch->pkt, WAG_DROP_BANDWIDTH);
	at = limit_take(l, &l->departs_ns, len, now, LIMIT_HORIZON_NS);
	if (at > now + LIMIT_HORIZON_NS)
		return wag_drop(&scratch->pkt, WAG_DROP_BANDWIDTH);
	if (at > now)
		skb_set_queue(skb, LIMIT_QUEUE | (at >> LIMIT_QUEUE_SHIFT & LIMIT_QUEUE_MASK));
	return v;
}

/* v: what becomes of the packet. Only those that wag_limit_egress has marked pay for more. */
static __always_inline int stage_limit(struct __sk_buff *skb, struct wag_scratch *scratch, int v)
{
	if (!(skb->queue_mapping & LIMIT_QUEUE))
		return v;
	return limit_packet(skb, scratch, v);
}

/* At the device that sends, or that packs for it: fq holds the packet until its time has come. */
static __always_inline void limit_pace(struct __sk_buff *skb)
{
	__u32 queue = skb->queue_mapping;
	__u64 now, ahead, at;

	if (!(queue & LIMIT_QUEUE))
		return;
	skb_set_queue(skb, 0);
	now = bpf_ktime_get_ns() >> LIMIT_QUEUE_SHIFT;
	ahead = (queue - now) & LIMIT_QUEUE_MASK;
	if (ahead > LIMIT_QUEUE_AHEAD)
		return; /* it has come already */
	at = (now + ahead) << LIMIT_QUEUE_SHIFT;
	if (skb->tstamp < at)
		skb->tstamp = at;
}
