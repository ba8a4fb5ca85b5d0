/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Headers -> pkt->tuple and offsets. Sources: RFC 791, RFC 8200, RFC 792, RFC 4443. */
#pragma once

#include <linux/icmpv6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include "fragment.h"
#include "icmp.h"
#include "maps.h"
#include "packet.h"

#define IP_OFFSET_MASK 0x1fff
#define IP_MORE_FRAGMENTS 0x2000
#define IP_DONT_FRAGMENT 0x4000
#define IPV6_EXT_MAX 6 /* extension headers we walk; more is an invalid packet */

#ifndef NEXTHDR_HOP
#define NEXTHDR_HOP 0
#define NEXTHDR_ROUTING 43
#define NEXTHDR_FRAGMENT 44
#define NEXTHDR_AUTH 51
#define NEXTHDR_NONE 59
#define NEXTHDR_DEST 60
#endif

struct ipv6_frag {
	__u8 nexthdr;
	__u8 reserved;
	__be16 frag_off;
	__be32 id;
};

/* What a parsed L3 header says beyond the tuple. */
struct l3_info {
	__u32 l4_off;
	__be32 frag_id;
	__u32 flags; /* PKT_V6, PKT_FRAG_* */
};

static __always_inline int parse_ipv4(struct __sk_buff *skb, __u32 off, struct wag_tuple *t,
				      struct l3_info *info)
{
	struct iphdr ip;
	__u16 frag;

	if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)) < 0 || ip.ihl < 5 || ip.version != 4)
		return -1;
	frag = bpf_ntohs(ip.frag_off);
	if (frag & IP_OFFSET_MASK)
		info->flags |= PKT_FRAG_LATER;
	else if (frag & IP_MORE_FRAGMENTS)
		info->flags |= PKT_FRAG_FIRST;
	info->frag_id = bpf_htonl(bpf_ntohs(ip.id));
	info->l4_off = off + ip.ihl * 4;
	addr_from_v4(&t->saddr, ip.saddr);
	addr_from_v4(&t->daddr, ip.daddr);
	t->proto = ip.protocol;
	return 0;
}

static __always_inline int parse_ipv6(struct __sk_buff *skb, __u32 off, struct wag_tuple *t,
				      struct l3_info *info)
{
	struct ipv6hdr ip;
	__u8 next;

	if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)) < 0 || ip.version != 6)
		return -1;
	info->flags |= PKT_V6;
	__builtin_memcpy(&t->saddr, &ip.saddr, sizeof(t->saddr));
	__builtin_memcpy(&t->daddr, &ip.daddr, sizeof(t->daddr));
	next = ip.nexthdr;
	off += sizeof(ip);
	for (int i = 0; i < IPV6_EXT_MAX; i++) {
		struct ipv6_frag ext; /* every extension header is at least 8 bytes */

		if (next != NEXTHDR_HOP && next != NEXTHDR_ROUTING && next != NEXTHDR_FRAGMENT &&
		    next != NEXTHDR_DEST && next != NEXTHDR_AUTH) {
			info->l4_off = off;
			t->proto = next;
			return 0;
		}
		if (bpf_skb_load_bytes(skb, off, &ext, sizeof(ext)) < 0)
			return -1;
		if (next == NEXTHDR_FRAGMENT) {
			info->frag_id = ext.id;
			if (ext.frag_off & bpf_htons(0xfff8))
				info->flags |= PKT_FRAG_LATER;
			else if (ext.frag_off & bpf_htons(1))
				info->flags |= PKT_FRAG_FIRST;
			off += sizeof(ext);
		} else if (next == NEXTHDR_AUTH) {
			off += (ext.reserved + 2) * 4; /* the byte after nexthdr is the length */
		} else {
			off += (ext.reserved + 1) * 8;
		}
		next = ext.nexthdr;
		if (info->flags & PKT_FRAG_LATER) { /* what follows is payload */
			info->l4_off = off;
			t->proto = next;
			return 0;
		}
	}
	return -1;
}

enum icmp_kind {
	ICMP_IS_OTHER, /* neighbour discovery and the like */
	ICMP_IS_ERROR,
	ICMP_IS_REQUEST, /* their identifier is the port of who asks */
	ICMP_IS_REPLY,
};

static __always_inline enum icmp_kind icmp_kind(__u8 type, bool v6)
{
	if (v6) {
		if (type < 128)
			return ICMP_IS_ERROR;
		return type == ICMPV6_ECHO_REQUEST ? ICMP_IS_REQUEST :
		       type == ICMPV6_ECHO_REPLY   ? ICMP_IS_REPLY :
						     ICMP_IS_OTHER;
	}
	switch (type) {
	case ICMP_DEST_UNREACH:
	case ICMP_TIME_EXCEEDED:
	case ICMP_PARAMETERPROB:
		return ICMP_IS_ERROR;
	case ICMP_ECHO:
	case ICMP_TIMESTAMP:
	case ICMP_INFO_REQUEST:
	case ICMP_ADDRESS:
		return ICMP_IS_REQUEST;
	case ICMP_ECHOREPLY:
	case ICMP_TIMESTAMPREPLY:
	case ICMP_INFO_REPLY:
	case ICMP_ADDRESSREPLY:
		return ICMP_IS_REPLY;
	}
	return ICMP_IS_OTHER;
}

/* An ICMP error: the tuple becomes that of the flow's packets which travel the error's way. */
static __always_inline int parse_icmp_error(struct __sk_buff *skb, struct wag_pkt *pkt)
{
	struct wag_tuple inner = {};
	struct l3_info info = {};
	__u32 off = pkt->l4_off + sizeof(struct icmphdr);
	struct icmphdr icmp;
	__be16 ports[2];
	int r;

	r = pkt->flags & PKT_V6 ? parse_ipv6(skb, off, &inner, &info) :
				  parse_ipv4(skb, off, &inner, &info);
	if (r < 0 || info.flags & PKT_FRAG_LATER)
		return PASS;
	if (tuple_has_ports(&inner)) {
		if (bpf_skb_load_bytes(skb, info.l4_off, ports, sizeof(ports)) < 0)
			return PASS;
		inner.sport = ports[0];
		inner.dport = ports[1];
	} else if (inner.proto == pkt->tuple.proto) {
		if (bpf_skb_load_bytes(skb, info.l4_off, &icmp, sizeof(icmp)) < 0)
			return PASS;
		switch (icmp_kind(icmp.type, pkt->flags & PKT_V6)) {
		case ICMP_IS_REQUEST:
			inner.sport = icmp.un.echo.id;
			break;
		case ICMP_IS_REPLY:
			inner.dport = icmp.un.echo.id;
			break;
		default:
			return PASS;
		}
	}
	tuple_reverse(&inner);
	pkt->tuple = inner;
	pkt->flags |= PKT_RELATED;
	return NEXT;
}

static __noinline int parse_icmp(struct __sk_buff *skb, struct wag_pkt *pkt)
{
	struct icmphdr icmp; /* icmp6hdr has the same first 8 bytes */

	if (bpf_skb_load_bytes(skb, pkt->l4_off, &icmp, sizeof(icmp)) < 0)
		return wag_drop(pkt, WAG_DROP_TRUNCATED_L4);
	pkt->icmp_type = icmp.type;
	pkt->icmp_code = icmp.code;
	switch (icmp_kind(icmp.type, pkt->flags & PKT_V6)) {
	case ICMP_IS_REQUEST:
		pkt->tuple.sport = icmp.un.echo.id;
		return NEXT;
	case ICMP_IS_REPLY:
		pkt->tuple.dport = icmp.un.echo.id;
		return NEXT;
	case ICMP_IS_ERROR:
		return parse_icmp_error(skb, pkt);
	default:
		return PASS;
	}
}

static __always_inline int parse_l4(struct __sk_buff *skb, struct wag_pkt *pkt)
{
	__be16 ports[2];

	if (bpf_skb_load_bytes(skb, pkt->l4_off, ports, sizeof(ports)) < 0)
		return wag_drop(pkt, WAG_DROP_TRUNCATED_L4);
	pkt->tuple.sport = ports[0];
	pkt->tuple.dport = ports[1];
	if (pkt->tuple.proto == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, pkt->l4_off + 13, &pkt->tcp_flags, 1) < 0)
			return wag_drop(pkt, WAG_DROP_TRUNCATED_L4);
		if ((pkt->tcp_flags & 0x12) == 0x02)
			pkt->flags |= PKT_SYN;
	}
	return NEXT;
}

static __always_inline bool is_multicast(const struct wag_tuple *t, bool v6)
{
	if (v6)
		return t->daddr.b[0] == 0xff;
	return (t->daddr.b[12] & 0xf0) == 0xe0 || t->daddr.w[3] == 0xffffffff;
}

/* Ports and flags of a plain packet; l4 and what is behind it up to end is packet memory. */
static __always_inline bool parse_plain_l4(struct wag_pkt *pkt, void *l4, void *end, __u8 proto)
{
	__u64 *rest = (__u64 *)&pkt->tuple.sport; /* ports, protocol */
	struct tcphdr *tcp = l4;

	if (l4 + sizeof(struct udphdr) > end)
		return false;
	if (proto == IPPROTO_TCP) {
		if ((void *)(tcp + 1) > end)
			return false;
		pkt->tcp_flags = ((__u8 *)l4)[13];
		if ((pkt->tcp_flags & 0x12) == 0x02)
			pkt->flags |= PKT_SYN;
	} else if (proto != IPPROTO_UDP) {
		return false;
	}
	*rest = two_words(*(__u32 *)l4, bpf_htonl((__u32)proto << 24));
	pkt->flags |= PKT_PLAIN;
	return true;
}

/* ip and what is behind it up to end is packet memory; there is a whole header. */
static __always_inline bool parse_plain_ipv4(struct wag_pkt *pkt, struct iphdr *ip, void *end)
{
	if (*(__u8 *)ip != 0x45 || ip->frag_off & bpf_htons(IP_OFFSET_MASK | IP_MORE_FRAGMENTS))
		return false;
	addr_from_v4(&pkt->tuple.saddr, ip->saddr);
	addr_from_v4(&pkt->tuple.daddr, ip->daddr);
	return parse_plain_l4(pkt, ip + 1, end, ip->protocol);
}

/*
 * What nearly every packet is, read straight from packet memory: a frame of this ethertype.
 * Returns false, with nothing changed but pkt->tuple, for whatever asks for a closer look.
 */
static __always_inline bool parse_plain(struct wag_pkt *pkt, void *data, void *end, __be16 proto)
{
	struct ipv6hdr *ip6 = data + ETH_HLEN;
	struct iphdr *ip = data + ETH_HLEN;

	if (proto == bpf_htons(ETH_P_IP)) {
		pkt->l4_off = ETH_HLEN + sizeof(*ip);
		return (void *)(ip + 1) <= end && parse_plain_ipv4(pkt, ip, end);
	}
	if (proto != bpf_htons(ETH_P_IPV6) || (void *)(ip6 + 1) > end ||
	    *(__u8 *)ip6 >> 4 != 6)
		return false;
	addr_from_v6(&pkt->tuple.saddr, &ip6->saddr);
	addr_from_v6(&pkt->tuple.daddr, &ip6->daddr);
	pkt->l4_off = ETH_HLEN + sizeof(*ip6);
	if (!parse_plain_l4(pkt, ip6 + 1, end, ip6->nexthdr))
		return false;
	pkt->flags |= PKT_V6;
	return true;
}

/* With options, extension headers, in fragments, ICMP, other protocols. */
static __noinline int parse_other(struct __sk_buff *skb, struct wag_pkt *pkt)
{
	struct l3_info info = {};
	int v;

	pkt_clock(pkt); /* of fragments */
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (parse_ipv4(skb, ETH_HLEN, &pkt->tuple, &info) < 0)
			return wag_drop(pkt, WAG_DROP_INVALID_PACKET);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (parse_ipv6(skb, ETH_HLEN, &pkt->tuple, &info) < 0) {
			pkt->flags |= PKT_V6;
			return wag_drop(pkt, WAG_DROP_IPV6_EXT_HEADER);
		}
	} else {
		return PASS; /* ARP and other non-IP */
	}
	pkt->flags |= info.flags;
	pkt->l4_off = info.l4_off;
	if (is_multicast(&pkt->tuple, pkt->flags & PKT_V6))
		return PASS;
	pkt->frag_id = info.frag_id;
	if (pkt->flags & PKT_FRAG_LATER)
		return frag_later(skb, pkt);
	if (pkt->tuple.proto == (pkt->flags & PKT_V6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		v = parse_icmp(skb, pkt);
	else if (tuple_has_ports(&pkt->tuple))
		v = parse_l4(skb, pkt);
	else
		v = NEXT;
	if (v == NEXT && pkt->flags & PKT_FRAG_FIRST)
		v = frag_first(skb, pkt);
	return v;
}

static __always_inline int stage_parse(struct __sk_buff *skb, struct wag_pkt *pkt)
{
	if (parse_plain(pkt, (void *)(long)skb->data, (void *)(long)skb->data_end, skb->protocol))
		return is_multicast(&pkt->tuple, pkt->flags & PKT_V6) ? PASS : NEXT;
	return parse_other(skb, pkt);
}
