/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * May this new flow be? Both ends that are pods of this node are judged here, once: a packet handed
 * straight into a pod meets no other hook. A known flow was judged when it began; stage_track asks
 * who sends it, and has it judged again when policies have changed.
 */
#pragma once

#include "maps.h"
#include "packet.h"
#include "policy.h"

/* Does the source address belong to who sends here? PASS: not a packet that is ever forwarded. */
static __always_inline int policy_sender(struct __sk_buff *skb, struct wag_pkt *pkt,
					 const struct wag_pod *from)
{
	if (pkt->point == WAG_POINT_FROM_POD) {
		if (from && from->ifindex == skb->ifindex)
			return NEXT;
		if (addr_is_link_scoped(&pkt->tuple.saddr))
			return PASS;
		return wag_drop(pkt, WAG_DROP_SPOOFED_SOURCE);
	}
	return from ? wag_drop(pkt, WAG_DROP_SPOOFED_SOURCE) : NEXT;
}

/* What a pod's policy is may not be known yet: only its own node talks to it then (probes). */
static __always_inline bool policy_pending(const struct wag_pod *pod, const struct wag_addr *other)
{
	return pod && pod->flags & WAG_POD_PENDING && !is_node(other);
}

/* What policies say, where there are any. from, to: the ends that are pods of this node. */
static __always_inline int policy_new(struct __sk_buff *skb, struct wag_scratch *scratch,
				      const struct wag_pod *from, const struct wag_pod *to)
{
	const struct wag_pkt *pkt = &scratch->pkt;
	struct policy_ask *ask = &scratch->ask;

	if (!scratch->epoch || !(from || to))
		return NEXT;
	ask->ep[POLICY_EGRESS] = from ? from->ep_id : 0;
	ask->ep[POLICY_INGRESS] = to ? to->ep_id : 0;
	ask->client = pkt->tuple.saddr;
	ask->server = *pkt_dst(pkt);
	ask->port = pkt->flags & PKT_NAT ? pkt->xlat.dport : pkt->tuple.dport;
	ask->proto = pkt->tuple.proto;
	ask->len = skb->len;
	return policy_judge(scratch);
}

static __always_inline int stage_policy(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct wag_pod *from = NULL, *to;
	struct wag_pkt *pkt = &scratch->pkt;
	int v;

	if (pkt->flags & PKT_TRACKED)
		return NEXT;
	scratch->sender_ifindex = 0;
	if (point_to_net(pkt) && !(pkt->flags & PKT_NAT))
		return NEXT; /* the node's own, and no Service's */
	if (pkt->point == WAG_POINT_FROM_POD || point_from_net(pkt)) {
		from = bpf_map_lookup_elem(&wag_pods, &pkt->tuple.saddr);
		if ((v = policy_sender(skb, pkt, from)) != NEXT)
			return v;
		if (from)
			scratch->sender_ifindex = from->ifindex;
	}
	to = bpf_map_lookup_elem(&wag_pods, pkt_dst(pkt));
	pkt->flags |= PKT_JUDGED;
	if (to) {
		scratch->to = *to;
		pkt->flags |= PKT_TO_POD;
	}
	/* The stack, which this packet goes past, would call it a martian. */
	if (point_from_net(pkt) && pkt->flags & (PKT_NAT | PKT_DSR | PKT_TO_POD) &&
	    is_node(&pkt->tuple.saddr))
		return wag_drop(pkt, WAG_DROP_SPOOFED_SOURCE);
	if (policy_pending(from, pkt_dst(pkt)) || policy_pending(to, &pkt->tuple.saddr))
		return wag_drop(pkt, WAG_DROP_POLICY_PENDING);
	return policy_new(skb, scratch, from, to);
}
