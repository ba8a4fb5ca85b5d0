// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The packets of the bench. `generate` writes a whole TCP header for flow number next++ into every
 * live frame (their pages come back modified) and redirects it into the client pod's interface;
 * `at_backend` and `at_client` are the ends of the road: tc ingress of a pod's interface, which
 * sees a packet whether it came through the veth or by bpf_redirect_peer().
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define FLOWS_PER_ADDR 32768
#define FIRST_PORT 16384
#define CLIENT_SEQ 0x10000000
#define SERVER_SEQ 0x20000000

struct frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct tcphdr tcp;
} __attribute__((packed));

/* Set by the tool before loading. */
const volatile __u32 out_ifindex;
const volatile __u8 src_mac[ETH_ALEN], dst_mac[ETH_ALEN];
const volatile __u32 client_addr, more_addrs, target_addr; /* host order */
const volatile __u16 target_port;

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

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline __u32 sum_words(const void *p, int words)
{
	const __u16 *w = p;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < words; i++)
		sum += w[i];
	return sum;
}

static __always_inline void checksums(struct frame *f)
{
	f->ip.check = 0;
	f->ip.check = fold(sum_words(&f->ip, 10));
	f->tcp.check = 0;
	f->tcp.check = fold(sum_words(&f->ip.saddr, 4) + bpf_htons(IPPROTO_TCP) +
			    bpf_htons(sizeof(f->tcp)) + sum_words(&f->tcp, 10));
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	struct frame *f = (void *)(long)ctx->data;
	struct frame h = {};
	__u32 n = next_flow, flow;

	if ((void *)(f + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	next_flow = n + 1 == flow_count ? 0 : n + 1;
	flow = first_flow + n;

#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++) {
		h.eth.h_source[i] = src_mac[i];
		h.eth.h_dest[i] = dst_mac[i];
	}
	h.eth.h_proto = bpf_htons(ETH_P_IP);
	h.ip.version = 4;
	h.ip.ihl = 5;
	h.ip.tot_len = bpf_htons(sizeof(h.ip) + sizeof(h.tcp));
	h.ip.frag_off = bpf_htons(0x4000);
	h.ip.ttl = 64;
	h.ip.protocol = IPPROTO_TCP;
	h.ip.saddr = bpf_htonl(flow < FLOWS_PER_ADDR ? client_addr :
						       more_addrs + flow / FLOWS_PER_ADDR);
	h.ip.daddr = bpf_htonl(target_addr);
	h.tcp.source = bpf_htons(FIRST_PORT + flow % FLOWS_PER_ADDR);
	h.tcp.dest = bpf_htons(target_port);
	h.tcp.doff = 5;
	h.tcp.window = bpf_htons(65535);
	if (syn) {
		h.tcp.seq = bpf_htonl(CLIENT_SEQ);
		h.tcp.syn = 1;
	} else {
		h.tcp.seq = bpf_htonl(CLIENT_SEQ + 1);
		h.tcp.ack_seq = bpf_htonl(SERVER_SEQ + 1);
		h.tcp.ack = 1;
	}
	checksums(&h);
	*f = h;
	return bpf_redirect(out_ifindex, 0);
}

static __always_inline int answer(struct __sk_buff *skb, struct frame *f)
{
	struct frame h = *f;

#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++) {
		h.eth.h_source[i] = f->eth.h_dest[i];
		h.eth.h_dest[i] = f->eth.h_source[i];
	}
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
	return bpf_redirect(skb->ifindex, 0);
}

/* Only the bench's own packets have these sequence numbers; everything else passes. */
static __always_inline struct frame *ours(struct __sk_buff *skb, __u32 seq)
{
	struct frame *f = (void *)(long)skb->data;

	if ((void *)(f + 1) > (void *)(long)skb->data_end)
		return 0;
	if (f->eth.h_proto != bpf_htons(ETH_P_IP) || f->ip.protocol != IPPROTO_TCP ||
	    f->tcp.seq != bpf_htonl(seq + (seq == CLIENT_SEQ && !f->tcp.syn)))
		return 0;
	return f;
}

SEC("tc")
int at_backend(struct __sk_buff *skb)
{
	struct frame *f = ours(skb, CLIENT_SEQ);

	if (!f)
		return TC_ACT_OK;
	count(SEEN_BACKEND);
	return f->tcp.syn && reflect ? answer(skb, f) : TC_ACT_SHOT;
}

SEC("tc")
int at_client(struct __sk_buff *skb)
{
	if (!ours(skb, SERVER_SEQ))
		return TC_ACT_OK;
	count(SEEN_CLIENT);
	return TC_ACT_SHOT;
}

/* A veth takes redirected frames only while its other end has an XDP program (NAPI). */
SEC("xdp")
int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}
