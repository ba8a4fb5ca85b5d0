// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The packets of the bench. `generate` writes a whole TCP header for flow number next++ into every
 * live frame (their pages come back modified) and redirects it into the client pod's interface;
 * `at_backend` and `at_client` are the ends of the road: tc ingress of a pod's interface, which
 * sees a packet whether it came through the veth or by bpf_redirect_peer().
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "bench_frame.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Set by the tool before loading. */
const volatile __u32 out_ifindex;
const volatile __u8 src_mac[ETH_ALEN], dst_mac[ETH_ALEN];
const volatile __u32 client_addr, more_addrs, target_addr; /* host order */
const volatile __u16 target_port;
const volatile __u16 outer[OUTER_BYTES / 2]; /* what the client's link wants before a frame */
const volatile __u32 tunnel_at;		/* TUNNEL_*: at which end of the road frames are packed */

/* Set by the tool between runs. */
__u32 next_flow, first_flow, flow_count; /* next_flow counts from 0 and wraps at flow_count */
__u32 syn;				 /* 1: SYN, 0: ACK of an open connection */
__u32 reflect;				 /* 1: a backend answers a SYN with a SYN-ACK */

enum { SEEN_BACKEND, SEEN_CLIENT, SEEN_KINDS };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SEEN_KINDS);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

static __always_inline void count(__u32 kind)
{
	__u64 *n = bpf_map_lookup_elem(&seen, &kind);

	if (n)
		*n += 1;
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	struct frame *f = data + (tunnel_at == TUNNEL_AT_CLIENT ? OUTER_BYTES : 0);
	struct frame h = {};
	__u32 n = next_flow, flow;

	if ((void *)(f + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	if (tunnel_at == TUNNEL_AT_CLIENT) {
#pragma unroll
		for (int i = 0; i < OUTER_BYTES / 2; i++)
			((__u16 *)data)[i] = outer[i];
	}
	next_flow = n + 1 == flow_count ? 0 : n + 1;
	flow = first_flow + n;

#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++) {
		h.eth.h_source[i] = src_mac[i];
		h.eth.h_dest[i] = dst_mac[i];
	}
	frame_write(&h, flow < FLOWS_PER_ADDR ? client_addr : more_addrs + flow / FLOWS_PER_ADDR,
		    FIRST_PORT + flow % FLOWS_PER_ADDR, target_addr, target_port, syn);
	*f = h;
	return bpf_redirect(out_ifindex, 0);
}

static __always_inline void turn_eth(struct ethhdr *eth)
{
	struct ethhdr was = *eth;

#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++) {
		eth->h_source[i] = was.h_dest[i];
		eth->h_dest[i] = was.h_source[i];
	}
}

/* Back through the tunnel: the outer checksums (that of IPv4 alone) are the same. */
static __always_inline void turn_outer(struct outer *o)
{
	__u32 saddr = o->ip.saddr;

	turn_eth(&o->eth);
	o->ip.saddr = o->ip.daddr;
	o->ip.daddr = saddr;
}

/* A SYN becomes its SYN-ACK. */
static __always_inline void answer(struct frame *f)
{
	struct frame h = *f;

	turn_eth(&h.eth);
	h.ip.saddr = f->ip.daddr;
	h.ip.daddr = f->ip.saddr;
	h.ip.ttl = 64;
	h.tcp.source = f->tcp.dest;
	h.tcp.dest = f->tcp.source;
	h.tcp.seq = bpf_htonl(SERVER_SEQ);
	h.tcp.ack_seq = bpf_htonl(CLIENT_SEQ + 1);
	h.tcp.ack = 1;
	checksums(&h);
	*f = h;
}

/* Only the bench's own packets have these sequence numbers; everything else passes. */
static __always_inline struct frame *ours(__u32 data, __u32 end, __u32 seq, __u32 skip)
{
	struct frame *f = (void *)(long)data + skip;

	if ((void *)(f + 1) > (void *)(long)end)
		return 0;
	if (f->eth.h_proto != bpf_htons(ETH_P_IP) || f->ip.protocol != IPPROTO_TCP ||
	    f->tcp.seq != bpf_htonl(seq + (seq == CLIENT_SEQ && !f->tcp.syn)))
		return 0;
	return f;
}

SEC("tc")
int at_backend(struct __sk_buff *skb)
{
	struct frame *f = ours(skb->data, skb->data_end, CLIENT_SEQ,
			       tunnel_at == TUNNEL_AT_BACKEND ? OUTER_BYTES : 0);

	if (!f)
		return TC_ACT_UNSPEC; /* perhaps the other direction's */
	count(SEEN_BACKEND);
	if (!f->tcp.syn || !reflect)
		return TC_ACT_SHOT;
	if (tunnel_at == TUNNEL_AT_BACKEND)
		turn_outer((void *)f - OUTER_BYTES);
	answer(f);
	return bpf_redirect(skb->ifindex, 0);
}

SEC("tc")
int at_client(struct __sk_buff *skb)
{
	if (!ours(skb->data, skb->data_end, SERVER_SEQ,
		  tunnel_at == TUNNEL_AT_CLIENT ? OUTER_BYTES : 0))
		return TC_ACT_UNSPEC;
	count(SEEN_CLIENT);
	return TC_ACT_SHOT;
}

/* Both ends on one link, before it makes packets of what arrives. */
SEC("xdp")
int at_wire(struct xdp_md *ctx)
{
	struct frame *f = ours(ctx->data, ctx->data_end, CLIENT_SEQ, 0);

	if (!f) {
		if (!ours(ctx->data, ctx->data_end, SERVER_SEQ, 0))
			return XDP_PASS;
		count(SEEN_CLIENT);
		return XDP_DROP;
	}
	count(SEEN_BACKEND);
	if (!f->tcp.syn || !reflect)
		return XDP_DROP;
	answer(f);
	return XDP_TX;
}

/* A veth takes redirected frames only while its other end has an XDP program (NAPI). */
SEC("xdp")
int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}
