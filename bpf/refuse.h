/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The answer to a packet that is dropped, sent as it came: not translated yet.
 *
 * For a Service without backends a reset for TCP (RFC 9293, 3.10.7.1), "port unreachable" for the
 * rest (RFC 792; RFC 4443, 3.1 code 4). Not ICMP for TCP: it may come back while connect() still
 * holds the socket, which then only notes a soft error and sends the SYN again a second later; a
 * reset waits in the socket's backlog.
 *
 * What a router answers (unreachable, time exceeded, too big: RFC 1812, 4.3 and 5.3; RFC 4443, 3)
 * is the stack's to say, but for packets that leave with another source address: it would tell the
 * wrong one.
 */
#pragma once

#include <linux/icmpv6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <stddef.h>
#include "checksum.h"
#include "cidr.h"
#include "icmp.h"
#include "maps.h"
#include "packet.h"

#define REFUSE_QUOTE_SIZE 128 /* of wag_scratch.quoted */
#define REFUSE_QUOTE_MAX 80   /* an IPv4 header with all options and a TCP header */

/*
 * Quotes the L4 header whole: a sender that leaves the checksum to the device does not let the
 * packet be cut before the checksum field.
 */
static __always_inline __u32 refuse_quote_len(const struct wag_pkt *pkt)
{
	__u8 proto = pkt->tuple.proto;
	__u32 l4 = proto == IPPROTO_TCP ? 20 : proto == IPPROTO_SCTP ? 12 : 8;

	return pkt->l4_off - ETH_HLEN + l4;
}

/* The IP header of the answer, over len bytes of proto. */
static __always_inline int refuse_ip(struct __sk_buff *skb, const struct wag_pkt *pkt, __u8 proto,
				     __u32 len)
{
	if (pkt->flags & PKT_V6) {
		struct ipv6hdr ip = { .version = 6, .nexthdr = proto, .hop_limit = 64 };

		ip.payload_len = bpf_htons(len);
		__builtin_memcpy(&ip.saddr, &pkt->tuple.daddr, sizeof(ip.saddr));
		__builtin_memcpy(&ip.daddr, &pkt->tuple.saddr, sizeof(ip.daddr));
		return bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0);
	} else {
		struct iphdr ip = { .version = 4, .ihl = 5, .ttl = 64, .protocol = proto };

		ip.tot_len = bpf_htons(sizeof(ip) + len);
		ip.saddr = pkt->tuple.daddr.w[3];
		ip.daddr = pkt->tuple.saddr.w[3];
		ip.check = ~csum_fold16(csum_fold64(
			(__u32)bpf_csum_diff(NULL, 0, (__be32 *)&ip, sizeof(ip), 0)));
		return bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0);
	}
}

/* What is told, but for the checksum. */
static __always_inline struct icmphdr refuse_words(const struct wag_pkt *pkt)
{
	bool v6 = pkt->flags & PKT_V6;
	struct icmphdr icmp = {};

	switch (pkt->reason) {
	case WAG_DROP_TTL_EXCEEDED:
		icmp.type = v6 ? ICMPV6_TIME_EXCEED : ICMP_TIME_EXCEEDED;
		break;
	case WAG_DROP_FRAG_NEEDED:
		icmp.type = v6 ? ICMPV6_PKT_TOOBIG : ICMP_DEST_UNREACH;
		icmp.code = v6 ? 0 : ICMP_FRAG_NEEDED;
		icmp.un.rest = bpf_htonl(pkt->mtu);
		break;
	case WAG_DROP_FIB_FAILED:
		icmp.type = v6 ? ICMPV6_DEST_UNREACH : ICMP_DEST_UNREACH;
		icmp.code = v6 ? ICMPV6_NOROUTE : ICMP_HOST_UNREACH;
		break;
	default:
		icmp.type = v6 ? ICMPV6_DEST_UNREACH : ICMP_DEST_UNREACH;
		icmp.code = v6 ? ICMPV6_PORT_UNREACH : ICMP_PORT_UNREACH;
	}
	return icmp;
}

static __always_inline int refuse_icmp(struct __sk_buff *skb, struct wag_scratch *scratch,
				       __u64 quote)
{
	const struct wag_pkt *pkt = &scratch->pkt;
	__u8 *quoted = scratch->quoted;
	bool v6 = pkt->flags & PKT_V6;
	__u32 off = ETH_HLEN + (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	struct icmphdr icmp = refuse_words(pkt);
	__u64 sum = 0;

	__builtin_memset(quoted, 0, REFUSE_QUOTE_SIZE);
	/* 1..128 in a form that 5.10's verifier follows too ("R4 invalid zero-sized read"). */
	quote = ((quote - 1) & (REFUSE_QUOTE_SIZE - 1)) + 1;
	if (bpf_skb_load_bytes(skb, off + sizeof(icmp), quoted, quote) < 0)
		return -1;
	sum += (__u32)bpf_csum_diff(NULL, 0, (__be32 *)quoted, REFUSE_QUOTE_SIZE, 0);
	sum += (__u32)bpf_csum_diff(NULL, 0, (__be32 *)&icmp, sizeof(icmp), 0);
	if (v6) {
		for (int i = 0; i < 4; i++)
			sum += (__u64)pkt->tuple.saddr.w[i] + pkt->tuple.daddr.w[i];
		sum += bpf_htonl(sizeof(icmp) + quote);
		sum += bpf_htonl(IPPROTO_ICMPV6);
	}
	icmp.checksum = ~csum_fold16(csum_fold64(sum));
	return bpf_skb_store_bytes(skb, off, &icmp, sizeof(icmp), 0);
}

/* Cut to the bare headers in place; a packet with IP options or extension headers gets ICMP. */
static __always_inline int refuse_tcp(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	const struct wag_pkt *pkt = &scratch->pkt;
	bool v6 = pkt->flags & PKT_V6;
	__u32 off = ETH_HLEN + (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	struct tcphdr in, out = { .rst = 1, .doff = sizeof(struct tcphdr) / 4 };
	__u64 sum = 0;

	if (pkt->l4_off != off || bpf_skb_load_bytes(skb, off, &in, sizeof(in)) < 0)
		return -1;
	out.source = in.dest;
	out.dest = in.source;
	if (in.ack) {
		out.seq = in.ack_seq;
	} else {
		__u32 len = skb->len - off - in.doff * 4 + in.syn + in.fin;

		out.ack = 1;
		out.ack_seq = bpf_htonl(bpf_ntohl(in.seq) + len);
	}
	for (int i = 0; i < 4; i++) /* the v4-mapped prefixes, 0xffff each, sum to nothing */
		sum += (__u64)pkt->tuple.saddr.w[i] + pkt->tuple.daddr.w[i];
	sum += bpf_htonl(sizeof(out)) + (__u64)bpf_htonl(IPPROTO_TCP);
	sum += (__u32)bpf_csum_diff(NULL, 0, (__be32 *)&out, sizeof(out), 0);
	out.check = ~csum_fold16(csum_fold64(sum));
	if (bpf_skb_change_tail(skb, off + sizeof(out), 0))
		return -1;
	if (bpf_skb_store_bytes(skb, off, &out, sizeof(out), 0))
		return -1;
	return refuse_ip(skb, pkt, IPPROTO_TCP, sizeof(out));
}

static __always_inline int refuse_other(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct wag_pkt *pkt = &scratch->pkt;
	__u32 quote = refuse_quote_len(pkt);
	__u32 room = pkt->flags & PKT_V6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);

	room += sizeof(struct icmphdr);
	if (quote > REFUSE_QUOTE_MAX || skb->len < ETH_HLEN + quote)
		return -1;
	if (bpf_skb_change_tail(skb, ETH_HLEN + quote, 0) ||
	    bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, 0))
		return -1;
	if (refuse_icmp(skb, scratch, quote))
		return -1;
	return refuse_ip(skb, pkt, pkt->flags & PKT_V6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP,
			 sizeof(struct icmphdr) + quote);
}

/* A router speaks for itself: traceroute wants to see it. */
static __always_inline void refuse_as_router(struct wag_pkt *pkt)
{
	const volatile struct wag_addr *node = pkt->flags & PKT_V6 ? &cfg.node_v6 : &cfg.node_v4;

	if (pkt->reason != WAG_DROP_TTL_EXCEEDED || !(node->d[0] | node->d[1]))
		return;
	pkt->tuple.daddr.d[0] = node->d[0];
	pkt->tuple.daddr.d[1] = node->d[1];
}

/*
 * To another node's pod it goes back packed. To a client outside of the cluster it goes from here,
 * by the stack, as what comes out of the tunnel's device and was judged.
 */
static __always_inline int refuse_by_tunnel(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	if (cidr_find(scratch, &scratch->pkt.tuple.saddr))
		return bpf_redirect(cfg.tunnel_ifindex, 0);
	skb_set_mark(skb, WAG_MARK_PUT_BACK);
	return bpf_redirect(cfg.tunnel_ifindex, BPF_F_INGRESS);
}

/* Turns the packet into its own refusal and sends it back. Returns a verdict, DROP if it cannot. */
static __noinline int refuse(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	__u8 macs[2 * ETH_ALEN], back[2 * ETH_ALEN];
	struct wag_pkt *pkt;

	if (!scratch)
		return DROP;
	pkt = &scratch->pkt;
	/* A reset is never answered (RFC 9293), an error neither, nor what has no header. */
	if (pkt->flags & (PKT_FRAG_LATER | PKT_RELATED) ||
	    (pkt->reason == WAG_DROP_NO_BACKEND && pkt->tcp_flags & TCP_RST) ||
	    pkt->point == WAG_POINT_TO_TUNNEL)
		return DROP;
	if (bpf_skb_load_bytes(skb, 0, macs, sizeof(macs)) < 0)
		return DROP;
	__builtin_memcpy(back, macs + ETH_ALEN, ETH_ALEN);
	__builtin_memcpy(back + ETH_ALEN, macs, ETH_ALEN);
	refuse_as_router(pkt);
	if ((pkt->tuple.proto != IPPROTO_TCP || pkt->reason != WAG_DROP_NO_BACKEND ||
	     refuse_tcp(skb, scratch)) &&
	    refuse_other(skb, scratch))
		return DROP;
	if (bpf_skb_store_bytes(skb, 0, back, sizeof(back), 0))
		return DROP;
	if (pkt->point == WAG_POINT_FROM_POD)
		return bpf_redirect_peer(skb->ifindex, 0);
	if (pkt->point == WAG_POINT_FROM_TUNNEL) /* it may have been unpacked before its device */
		return refuse_by_tunnel(skb, scratch);
	/* The node's own client is behind this device's ingress, an outside one behind its egress.
	 */
	return bpf_redirect(skb->ifindex, pkt->point == WAG_POINT_TO_NET ? BPF_F_INGRESS : 0);
}
