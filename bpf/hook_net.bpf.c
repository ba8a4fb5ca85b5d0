// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The node's devices: NodePorts from outside at their ingress, the node's own clients (where the
 * socket path does not serve them) at their egress. Without the socket path also on lo.
 */
#include <asm-generic/errno-base.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"
#include "packet.h"
#include "scratch.h"
#include "stage_parse.h"
#include "stage_track.h"
#include "stage_service.h"
#include "stage_policy.h"
#include "stage_masquerade.h"
#include "stage_commit.h"
#include "stage_nat.h"
#include "stage_route.h"
#include "flow_cache.h"
#include "stage_pack.h"
#include "stage_limit.h"
#include "stage_finish.h"

/* Where a packet goes that is like none of a moment ago. */
static __noinline int find_from_net(struct __sk_buff *skb, struct wag_scratch *s)
{
	int v;

	if ((v = stage_track(skb, s)) != NEXT)
		return v;
	if ((v = stage_service(skb, s)) != NEXT)
		return v;
	if ((v = stage_policy(skb, s)) != NEXT)
		return v;
	if ((v = stage_masquerade(skb, s)) != NEXT)
		return v;
	if ((v = stage_commit(skb, s)) != NEXT)
		return v;
	if ((v = route_from_net(skb, s)) != NEXT)
		return v;
	flow_cache_keep(skb, s);
	return NEXT;
}

SEC("tc")
int wag_from_net(struct __sk_buff *skb)
{
	struct wag_scratch *s;
	int v;

	if (skb->ifindex == IFINDEX_LO)
		return PASS; /* what arrives on lo has left through it */
	s = scratch_get(WAG_POINT_FROM_NET);
	if (!s)
		return DROP;
	if ((v = stage_parse(skb, &s->pkt)) != NEXT)
		goto out;
	if ((v = stage_unpack(skb, s)) != NEXT) /* wag_from_tunnel sees what is in it */
		goto out;
	if (!flow_cache_find(skb, s) && (v = find_from_net(skb, s)) != NEXT)
		goto out;
	if ((v = stage_nat(skb, s)) != NEXT)
		goto out;
	v = stage_pack(skb, s);
out:
	if (v == PASS && s->pkt.point == WAG_POINT_FROM_TUNNEL && !(s->pkt.flags & PKT_NAT))
		return unpacked_to_stack(skb); /* wag_from_tunnel counts it */
	return stage_finish(skb, s, v);
}

/* What the node itself sends. */
static __noinline int from_node(struct __sk_buff *skb)
{
	struct wag_scratch *s = scratch_get(WAG_POINT_TO_NET);
	int v;

	if (!s)
		return DROP;
	if ((v = stage_parse(skb, &s->pkt)) != NEXT)
		goto out;
	if (addr_is_loopback(&s->pkt.tuple.saddr) || addr_is_loopback(&s->pkt.tuple.daddr))
		return PASS; /* cannot leave the node, so no pod could answer it */
	if ((v = stage_track(skb, s)) != NEXT)
		goto out;
	if ((v = stage_service(skb, s)) != NEXT)
		goto out;
	if ((v = stage_policy(skb, s)) != NEXT)
		goto out;
	if ((v = stage_masquerade(skb, s)) != NEXT)
		goto out;
	if ((v = stage_commit(skb, s)) != NEXT)
		goto out;
	if ((v = route_from_node(skb, s)) != NEXT)
		goto out;
	if ((v = stage_nat(skb, s)) != NEXT)
		goto out;
	v = stage_pack(skb, s);
out:
	return stage_finish(skb, s, v);
}

SEC("tc")
int wag_to_net(struct __sk_buff *skb)
{
	limit_pace(skb);
	/* Forwarded packets met their hook where they came in. */
	if (skb->ingress_ifindex || (skb->mark & WAG_MARK_MASK) == WAG_MARK_TRANSLATED)
		return PASS;
	return from_node(skb);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
