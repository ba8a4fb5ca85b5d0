// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The node's devices before the stack: the packets of known flows that only pass through the node
 * (a NodePort or load balancer whose backend is on another machine, and its replies) turn round
 * here. What they come to was found by wag_from_net and stands in the flow cache; whatever is not
 * found there is its to see.
 */
#include <asm-generic/errno-base.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"
#include "packet.h"
#include "scratch.h"
#include "stage_parse.h"
#include "stage_nat.h"
#include "flow_cache.h"
#include "stage_finish.h"

/* Is this a flow that we send on, by a device that takes packets from here? */
static __always_inline bool may_turn(const struct xdp_md *ctx, const struct wag_scratch *s,
				     const struct wag_cached *c, const struct route_hop *hop)
{
	__u32 out = hop->ifindex, len = ctx->data_end - ctx->data - ETH_HLEN;

	return bpf_jiffies64() < c->until && c->flags & PKT_NAT && hop->kind == HOP_DEVICE &&
	       (!c->max_len || len <= c->max_len) && !s->trace &&
	       (out == ctx->ingress_ifindex || bpf_map_lookup_elem(&wag_xdp_dev, &out));
}

SEC("xdp")
int wag_xdp_net(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct wag_scratch *s = scratch_get(WAG_POINT_FROM_NET); /* as wag_from_net left it */
	const struct ethhdr *eth = data;
	const struct route_hop *hop;
	struct wag_cached *c;
	struct wag_pkt *pkt;
	__u32 cpu, at;
	bool v6;

	if (!s || (void *)(eth + 1) > end)
		return XDP_PASS;
	pkt = &s->pkt;
	if (!parse_plain(pkt, data, end, eth->h_proto) || !flow_cacheable(pkt) ||
	    !flow_cache_pays(&s->luck))
		return XDP_PASS;
	cpu = bpf_get_smp_processor_id();
	c = flow_cache_entry(pkt, ctx->ingress_ifindex, cpu, &at);
	hop = c ? flow_cache_hop(c, cpu) : NULL;
	if (!hop || !may_turn(ctx, s, c, hop) || !flow_cache_xlat(pkt, at) || flow_moved(c, pkt))
		return XDP_PASS;
	flow_cache_paid(&s->luck);
	v6 = pkt->flags & PKT_V6;
	if (!frame_ttl(data, end, v6)) /* the stack says so to its sender */
		return XDP_PASS;
	if (frame_macs(data, end, &hop->macs) ||
	    (v6 ? nat_frame(data, end, pkt, true) : nat_frame(data, end, pkt, false)))
		return XDP_ABORTED; /* never: its headers were read */
	count_packet(WAG_POINT_XDP, WAG_DROP_FORWARDED, end - data);
	return hop->ifindex == ctx->ingress_ifindex ? XDP_TX : bpf_redirect(hop->ifindex, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
