/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Writes pkt->xlat into the packet: addresses, ports, checksums. The only stage that knows both
 * families' layouts. */
#pragma once

#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stddef.h>
#include "checksum.h"
#include "icmp.h"
#include "packet.h"
#include "stage_parse.h"

struct sctphdr {
	__be16 source, dest;
	__be32 vtag;
	__le32 checksum;
};

/* Writes source and destination of one IP header at off; *l4_diff gains the pseudo-header's change.
 */
static __always_inline int nat_ip(struct __sk_buff *skb, __u32 off, bool v6,
				  const struct wag_tuple *from, const struct wag_tuple *to,
				  __u64 *diff)
{
	__be32 addrs[2] = { to->saddr.w[3], to->daddr.w[3] };
	__u64 sum = 0;
	__u16 check;

	sum = csum_replace_addr(sum, &from->saddr, &to->saddr);
	sum = csum_replace_addr(sum, &from->daddr, &to->daddr);
	*diff += sum;
	if (v6)
		return bpf_skb_store_bytes(skb, off + offsetof(struct ipv6hdr, saddr), &to->saddr,
					   2 * sizeof(struct wag_addr), 0);
	if (bpf_skb_load_bytes(skb, off + offsetof(struct iphdr, check), &check, sizeof(check)) < 0)
		return -1;
	check = csum_apply(check, sum);
	if (bpf_skb_store_bytes(skb, off + offsetof(struct iphdr, check), &check, sizeof(check), 0))
		return -1;
	return bpf_skb_store_bytes(skb, off + offsetof(struct iphdr, saddr), addrs, sizeof(addrs),
				   0);
}

static __always_inline enum wag_reason nat_sctp(struct __sk_buff *skb, struct wag_pkt *pkt,
						 __be32 old, __be32 new)
{
	__u32 off = pkt->l4_off + offsetof(struct sctphdr, checksum), crc, behind;

	if (old == new)
		return 0;
	/* The CRC covers the whole message, which a fragment does not hold. */
	if (pkt->flags & PKT_FRAG_FIRST || skb->len < pkt->l4_off + sizeof(struct sctphdr))
		return WAG_DROP_CSUM_ERROR;
	if (bpf_skb_load_bytes(skb, off, &crc, sizeof(crc)) < 0)
		return WAG_DROP_WRITE_ERROR;
	if (crc) { /* 0: left to the device */
		behind = skb->len - pkt->l4_off - 4;
		crc ^= crc32c_delta(old ^ new, behind & 0xffff);
		if (bpf_skb_store_bytes(skb, off, &crc, sizeof(crc), 0))
			return WAG_DROP_WRITE_ERROR;
	}
	return bpf_skb_store_bytes(skb, pkt->l4_off, &new, sizeof(new), 0) ? WAG_DROP_WRITE_ERROR :
									      0;
}

/* An ICMP query: the identifier stands on the side that has a port. */
static __always_inline enum wag_reason nat_echo(struct __sk_buff *skb, struct wag_pkt *pkt,
						 __u64 diff)
{
	__u32 off = pkt->l4_off + offsetof(struct icmphdr, checksum);
	__be16 old = pkt->tuple.sport | pkt->tuple.dport;
	__be16 new = pkt->xlat.sport | pkt->xlat.dport;

	if (pkt->flags & PKT_V6 &&
	    bpf_l4_csum_replace(skb, off, 0, csum_fold64(diff), BPF_F_PSEUDO_HDR))
		return WAG_DROP_WRITE_ERROR;
	if (old == new)
		return 0;
	if (bpf_l4_csum_replace(skb, off, old, new, sizeof(new)) ||
	    bpf_skb_store_bytes(skb, pkt->l4_off + offsetof(struct icmphdr, un.echo.id), &new,
				sizeof(new), 0))
		return WAG_DROP_WRITE_ERROR;
	return 0;
}

/* Returns 0 or the reason to drop. */
static __always_inline enum wag_reason nat_l4(struct __sk_buff *skb, struct wag_pkt *pkt,
					       __u64 diff)
{
	__be32 old = pkt->tuple.sport | (__u32)pkt->tuple.dport << 16;
	__be32 new = pkt->xlat.sport | (__u32)pkt->xlat.dport << 16;
	__u32 flags = 0, off;

	switch (pkt->tuple.proto) {
	case IPPROTO_TCP:
		off = offsetof(struct tcphdr, check);
		break;
	case IPPROTO_UDP:
		off = offsetof(struct udphdr, check);
		flags = BPF_F_MARK_MANGLED_0; /* 0 is "no checksum", RFC 768 */
		break;
	case IPPROTO_SCTP:
		return nat_sctp(skb, pkt, old, new);
	default:
		return pkt_is_icmp(pkt) ? nat_echo(skb, pkt, diff) : 0;
	}
	off += pkt->l4_off;
	if (bpf_l4_csum_replace(skb, off, 0, csum_fold64(diff), flags | BPF_F_PSEUDO_HDR))
		return WAG_DROP_WRITE_ERROR;
	if (old == new)
		return 0;
	if (bpf_l4_csum_replace(skb, off, old, new, flags | sizeof(new)) ||
	    bpf_skb_store_bytes(skb, pkt->l4_off, &new, sizeof(new), 0))
		return WAG_DROP_WRITE_ERROR;
	return 0;
}

/* Where a quoted packet has its ports, or its identifier; other protocols have none. */
static __always_inline long nat_quoted_ports(struct __sk_buff *skb, const struct wag_pkt *pkt,
					     __u32 l4_off, __be32 new)
{
	if (tuple_has_ports(&pkt->tuple))
		return bpf_skb_store_bytes(skb, l4_off, &new, sizeof(new), 0);
	if (pkt_is_icmp(pkt))
		return bpf_skb_store_bytes(skb, l4_off + offsetof(struct icmphdr, un.echo.id), &new,
					   sizeof(__be16), 0);
	return 0;
}

/*
 * An ICMP error: the quoted packet is the flow's packet of the other direction, so it gets the
 * reverse of the translation; the error itself goes to where that packet came from.
 */
static __noinline int nat_icmp_error(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct wag_tuple *outer, *outer_new, *inner, *inner_new;
	struct l3_info info = {};
	__u64 diff = 0, inner_diff = 0;
	struct wag_pkt *pkt;
	__be32 old, new;
	__u32 off;
	bool v6;

	if (!scratch)
		return -1;
	pkt = &scratch->pkt;
	outer = &scratch->outer;
	outer_new = &scratch->outer_new;
	inner = &scratch->inner;
	inner_new = &scratch->inner_new;
	v6 = pkt->flags & PKT_V6;
	if ((v6 ? parse_ipv6(skb, ETH_HLEN, outer, &info) :
		  parse_ipv4(skb, ETH_HLEN, outer, &info)) < 0)
		return -1;
	*outer_new = *outer;
	outer_new->daddr = pkt->xlat.daddr;
	if (addr_equal(&outer->saddr, &pkt->tuple.saddr))
		outer_new->saddr = pkt->xlat.saddr;

	/* Where the quoted packet's ports are: behind its IP header and extension headers. */
	off = pkt->l4_off + sizeof(struct icmphdr);
	if ((v6 ? parse_ipv6(skb, off, inner, &info) : parse_ipv4(skb, off, inner, &info)) < 0)
		return -1;
	*inner = pkt->tuple;
	*inner_new = pkt->xlat;
	tuple_reverse(inner);
	tuple_reverse(inner_new);
	old = inner->sport | (__u32)inner->dport << 16;
	new = inner_new->sport | (__u32)inner_new->dport << 16;
	if (pkt_is_icmp(pkt)) {
		old = inner->sport | inner->dport;
		new = inner_new->sport | inner_new->dport;
	}
	if (nat_quoted_ports(skb, pkt, info.l4_off, new) ||
	    nat_ip(skb, off, v6, inner, inner_new, &inner_diff) ||
	    nat_ip(skb, ETH_HLEN, v6, outer, outer_new, &diff))
		return -1;
	/* IPv4: the quoted header's own checksum takes up its change, and no pseudo-header is
	 * summed. */
	diff = v6 ? diff + inner_diff : 0;
	diff = csum_replace32(diff, old, new);
	return bpf_l4_csum_replace(skb, pkt->l4_off + offsetof(struct icmphdr, checksum), 0,
				   csum_fold64(diff), v6 ? BPF_F_PSEUDO_HDR : 0);
}

/*
 * The L4 checksum of a plain packet at l4_off. One helper call for the addresses; what it did to
 * the field tells whether the field is a checksum, or the seed of one the device will finish
 * (CHECKSUM_PARTIAL), which ports are no part of. Returns -1 on error.
 */
static __always_inline int nat_plain_csum(struct __sk_buff *skb, struct wag_pkt *pkt, __u32 l4_off,
					  __u64 addr_diff, __u64 port_diff)
{
	bool udp = pkt->tuple.proto == IPPROTO_UDP;
	__u32 off = udp ? offsetof(struct udphdr, check) : offsetof(struct tcphdr, check);
	__u32 diff = csum_fold64(addr_diff);
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u16 *check = data + l4_off + off, before, expect;

	if ((void *)(check + 1) > end)
		return -1;
	before = *check;
	if (udp && !before)
		return 0; /* no checksum, RFC 768 */
	if (bpf_l4_csum_replace(skb, l4_off + off, 0, diff,
				BPF_F_PSEUDO_HDR | (udp ? BPF_F_MARK_MANGLED_0 : 0)))
		return -1;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	check = data + l4_off + off;
	if ((void *)(check + 1) > end)
		return -1;
	if (csum_fold16(diff) == 0 || csum_fold16(diff) == 0xffff)
		return 1; /* the addresses' sum is the same: nothing to tell by */
	expect = csum_apply(before, addr_diff);
	if (udp && !expect)
		expect = 0xffff;
	if (*check != expect)
		return 0;
	*check = csum_apply(*check, port_diff);
	if (udp && !*check)
		*check = 0xffff;
	return 0;
}

/* The addresses and ports of a plain frame, and the IP header's checksum. */
static __always_inline int nat_plain_write(void *data, void *end, const struct wag_pkt *pkt,
					   const bool v6, __u64 addr_diff)
{
	const __u32 l4_off = ETH_HLEN + (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	__be32 *ports = data + l4_off;

	if ((void *)(ports + 1) > end)
		return -1;
	*ports = pkt->xlat.sport | (__u32)pkt->xlat.dport << 16;
	if (v6) {
		struct ipv6hdr *ip6 = data + ETH_HLEN;

		__builtin_memcpy(&ip6->saddr, &pkt->xlat.saddr, sizeof(ip6->saddr));
		__builtin_memcpy(&ip6->daddr, &pkt->xlat.daddr, sizeof(ip6->daddr));
	} else {
		struct iphdr *ip = data + ETH_HLEN;

		ip->check = csum_apply(ip->check, addr_diff);
		ip->saddr = pkt->xlat.saddr.w[3];
		ip->daddr = pkt->xlat.daddr.w[3];
	}
	return 0;
}

static __always_inline __u64 nat_addr_diff(const struct wag_pkt *pkt)
{
	__u64 diff = csum_replace_addr(0, &pkt->tuple.saddr, &pkt->xlat.saddr);

	return csum_replace_addr(diff, &pkt->tuple.daddr, &pkt->xlat.daddr);
}

/* Everything at constant offsets, in packet memory. */
static __always_inline int nat_plain(struct __sk_buff *skb, struct wag_pkt *pkt, const bool v6)
{
	const __u32 l4_off = ETH_HLEN + (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	__be32 old = pkt->tuple.sport | (__u32)pkt->tuple.dport << 16;
	__be32 new = pkt->xlat.sport | (__u32)pkt->xlat.dport << 16;
	__u64 addr_diff = nat_addr_diff(pkt), port_diff = csum_replace32(0, old, new);
	int r;

	r = nat_plain_csum(skb, pkt, l4_off, addr_diff, port_diff);
	if (r < 0)
		return -1;
	if (r > 0 && old != new &&
	    bpf_l4_csum_replace(skb, l4_off + (pkt->tuple.proto == IPPROTO_UDP ?
						       offsetof(struct udphdr, check) :
						       offsetof(struct tcphdr, check)),
				old, new,
				sizeof(new) | (pkt->tuple.proto == IPPROTO_UDP ?
						       BPF_F_MARK_MANGLED_0 : 0)))
		return -1;
	return nat_plain_write((void *)(long)skb->data, (void *)(long)skb->data_end, pkt, v6,
			       addr_diff);
}

/* A frame whose checksum is whole, as it came off the wire. */
static __always_inline int nat_frame(void *data, void *end, const struct wag_pkt *pkt,
				     const bool v6)
{
	const __u32 l4_off = ETH_HLEN + (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	bool udp = pkt->tuple.proto == IPPROTO_UDP;
	__be32 old = pkt->tuple.sport | (__u32)pkt->tuple.dport << 16;
	__be32 new = pkt->xlat.sport | (__u32)pkt->xlat.dport << 16;
	__u64 diff = nat_addr_diff(pkt);
	__u16 *check = data + l4_off + (udp ? offsetof(struct udphdr, check) :
					      offsetof(struct tcphdr, check));

	if ((void *)(check + 1) > end)
		return -1;
	if (!udp || *check) { /* a UDP checksum of 0: none, RFC 768 */
		*check = csum_apply(*check, csum_replace32(diff, old, new));
		if (udp && !*check)
			*check = 0xffff;
	}
	return nat_plain_write(data, end, pkt, v6, diff);
}

static __noinline int translate(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct wag_pkt *pkt = &scratch->pkt;
	enum wag_reason why;
	__u64 diff = 0;

	if (pkt->flags & PKT_PLAIN)
		return (pkt->flags & PKT_V6 ? nat_plain(skb, pkt, true)
					    : nat_plain(skb, pkt, false))
			       ? wag_drop(pkt, WAG_DROP_CSUM_ERROR)
			       : NEXT;
	if (pkt->flags & PKT_RELATED)
		return nat_icmp_error(skb, scratch) ? wag_drop(pkt, WAG_DROP_WRITE_ERROR) : NEXT;
	if (nat_ip(skb, ETH_HLEN, pkt->flags & PKT_V6, &pkt->tuple, &pkt->xlat, &diff))
		return wag_drop(pkt, WAG_DROP_WRITE_ERROR);
	if (pkt->flags & PKT_FRAG_LATER)
		return NEXT;
	why = nat_l4(skb, pkt, diff);
	return why ? wag_drop(pkt, why) : NEXT;
}

static __always_inline int stage_nat(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	return scratch->pkt.flags & PKT_NAT ? translate(skb, scratch) : NEXT;
}
