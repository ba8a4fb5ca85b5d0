/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The one packet of the bench: Ethernet, IPv4, TCP, no payload, valid checksums. */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define FLOWS_PER_ADDR 32768
#define FIRST_PORT 16384
#define CLIENT_SEQ 0x10000000
#define SERVER_SEQ 0x20000000

#define OUTER_BYTES 50 /* Ethernet, IPv4, UDP, VXLAN: what a tunnel puts before a frame */
enum { TUNNEL_NONE, TUNNEL_AT_CLIENT, TUNNEL_AT_BACKEND };

struct frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct tcphdr tcp;
} __attribute__((packed));

struct outer {
	struct ethhdr eth;
	struct iphdr ip;
	__u8 udp_and_vxlan[16];
} __attribute__((packed));

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

/* Host order. Leaves the MAC addresses alone. */
static __always_inline void frame_write(struct frame *h, __u32 saddr, __u16 sport, __u32 daddr,
					__u16 dport, bool syn)
{
	h->eth.h_proto = bpf_htons(ETH_P_IP);
	h->ip.version = 4;
	h->ip.ihl = 5;
	h->ip.tot_len = bpf_htons(sizeof(h->ip) + sizeof(h->tcp));
	h->ip.frag_off = bpf_htons(0x4000);
	h->ip.ttl = 64;
	h->ip.protocol = IPPROTO_TCP;
	h->ip.saddr = bpf_htonl(saddr);
	h->ip.daddr = bpf_htonl(daddr);
	h->tcp.source = bpf_htons(sport);
	h->tcp.dest = bpf_htons(dport);
	h->tcp.doff = 5;
	h->tcp.window = bpf_htons(65535);
	if (syn) {
		h->tcp.seq = bpf_htonl(CLIENT_SEQ);
		h->tcp.syn = 1;
	} else {
		h->tcp.seq = bpf_htonl(CLIENT_SEQ + 1);
		h->tcp.ack_seq = bpf_htonl(SERVER_SEQ + 1);
		h->tcp.ack = 1;
	}
	checksums(h);
}
