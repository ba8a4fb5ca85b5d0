/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tunnels without the tunnel's device: a packet for another node's pod is packed where it is and
 * leaves by the device below; a packed one for a pod of ours is unpacked where it arrives. The
 * outer packet then passes no IP stack, no socket and no second device. Whatever is not plain
 * (segmented by the hardware, another family outside than inside, congestion marks to carry over,
 * an outer checksum, a receiver that is no pod) goes by the device, which does the same.
 */
#pragma once

#include "checksum.h"
#include "flow_cache.h"
#include "stage_masquerade.h"
#include "stage_parse.h"
#include "tunnel.h"

#define PACK_TTL 64
#define PACK_ECN_MASK 3 /* RFC 3168; both bits set: congestion experienced */

#define PACK_FLAGS                                                                       \
	(BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |                    \
	 BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_NO_CSUM_RESET)

/* As the device chooses it, so that no two packets of a flow take different ways. */
static __always_inline __be16 pack_source_port(struct __sk_buff *skb)
{
	__u32 hash = bpf_get_hash_recalc(skb);

	hash ^= hash << 16;
	return bpf_htons(((__u64)hash * (cfg.tunnel_sport_max - cfg.tunnel_sport_min) >> 32) +
			 cfg.tunnel_sport_min);
}

static __always_inline struct iphdr pack_ip(__u32 len, __u8 tos, __be32 dst)
{
	struct iphdr ip = {
		.version = 4,
		.ihl = sizeof(ip) / 4,
		.tos = tos,
		.tot_len = bpf_htons(len),
		.id = bpf_get_prandom_u32(), /* a router on the way may cut it */
		.ttl = PACK_TTL,
		.protocol = IPPROTO_UDP,
		.saddr = cfg.node_v4.w[3],
		.daddr = dst,
	};
	__u64 sum = 0;

	for (unsigned i = 0; i < sizeof(ip) / sizeof(__be32); i++)
		sum += ((const __be32 *)&ip)[i];
	ip.check = ~csum_fold16(csum_fold64(sum));
	return ip;
}

/* The inner packet's congestion mark is the outer one's too (RFC 6040, 4.1). */
static __always_inline __u8 pack_tos(const void *l3, bool v6)
{
	return (v6 ? bpf_ntohs(*(const __be16 *)l3) >> 4 : ((const __u8 *)l3)[1]) & PACK_ECN_MASK;
}

static __noinline int pack(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const struct route_hop *hop = &scratch->hop;
	__be16 sport = pack_source_port(skb);
	struct packed *p;
	struct ethhdr inner;
	__u32 len;
	__u8 tos;

	if (data + ETH_HLEN + sizeof(struct iphdr) > end)
		return -1;
	inner = *(struct ethhdr *)data;
	tos = pack_tos(data + ETH_HLEN, scratch->pkt.flags & PKT_V6);
	if (bpf_skb_adjust_room(skb, PACK_ROOM, BPF_ADJ_ROOM_MAC, PACK_FLAGS))
		return -1;
	p = (void *)(long)skb->data;
	len = skb->len - ETH_HLEN;
	if ((void *)(p + 1) > (void *)(long)skb->data_end)
		return -1;
	__builtin_memcpy(p->eth.h_dest, hop->macs.dst, ETH_ALEN);
	__builtin_memcpy(p->eth.h_source, hop->macs.src, ETH_ALEN);
	p->eth.h_proto = bpf_htons(ETH_P_IP);
	p->ip = pack_ip(len, tos, hop->tunnel.w[3]);
	p->udp.source = sport;
	p->udp.dest = cfg.tunnel_port;
	p->udp.len = bpf_htons(len - sizeof(p->ip));
	p->udp.check = 0; /* IPv4 needs none around one that the packet has (RFC 7348, 5) */
	p->tunnel.head = cfg.tunnel_head;
	p->tunnel.vni = bpf_htonl(cfg.tunnel_vni << 8);
	p->inner = inner;
	return 0;
}

/* The verdict that waits, once the packet is as the next link wants it. */
static __always_inline int stage_pack(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	if (scratch->pkt.flags & PKT_PACK && pack(skb, scratch))
		scratch->verdict = tunnel_by_device(skb, scratch);
	return scratch->verdict;
}

/* Of another node's packet to this node's tunnel device: does the device know better? */
static __always_inline bool unpack_is_plain(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct wag_pkt *pkt = &scratch->pkt;
	const struct packed *p = data;
	const struct iphdr *ip = data + sizeof(*p);

	if ((void *)(ip + 1) > end || p->udp.check || p->tunnel.head != cfg.tunnel_head ||
	    p->tunnel.vni != bpf_htonl(cfg.tunnel_vni << 8) ||
	    p->inner.h_proto != bpf_htons(ETH_P_IP) ||
	    (p->ip.tos & PACK_ECN_MASK) == PACK_ECN_MASK || ip->ttl <= 1)
		return false;
	pkt->flags = 0;
	return parse_plain_ipv4(pkt, (void *)ip, end);
}

/*
 * Packets that the hardware or the kernel has put together go by the device, which hands them on a
 * moment later. Not to be overtaken, the rest of their flow goes there too for a while.
 */
static __always_inline bool unpack_waits(struct __sk_buff *skb, const struct wag_pkt *pkt)
{
	__u32 at = flow_cache_base(bpf_get_smp_processor_id()) +
		   hash_place(flow_cache_hash(&pkt->tuple), 0, cfg.flow_cache_mask);
	struct wag_cached_xlat *x = bpf_map_lookup_elem(&wag_flow_xlat, &at);

	if (!x)
		return false;
	if (skb->gso_size)
		x->device_until = bpf_jiffies64() + FLOW_CACHE_TICKS;
	return bpf_jiffies64() < x->device_until;
}

static __noinline bool unpack(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct wag_pkt *pkt = &scratch->pkt;
	const struct wag_pod *pod;

	if (!cfg.host_routing || pkt->flags & PKT_V6 ||
	    !bpf_map_lookup_elem(&wag_nodes, &pkt->tuple.saddr))
		return false;
	if (!unpack_is_plain(skb, scratch) || unpack_waits(skb, pkt) || skb->gso_size)
		return false;
	pod = bpf_map_lookup_elem(&wag_pods, &pkt->tuple.daddr);
	if (!pod || pod->flags & WAG_POD_CHAINED)
		return false;
	pkt->l4_off = ETH_HLEN + sizeof(struct iphdr);
	return !bpf_skb_adjust_room(skb, -(int)PACK_ROOM, BPF_ADJ_ROOM_MAC,
				    BPF_F_ADJ_ROOM_NO_CSUM_RESET);
}

/* Another node's packet to this node's tunnel device. */
static __always_inline bool is_packed(const struct wag_pkt *pkt)
{
	const volatile struct wag_addr *node = pkt->flags & PKT_V6 ? &cfg.node_v6 : &cfg.node_v4;

	return cfg.tunnel_ifindex && pkt->tuple.dport == cfg.tunnel_port &&
	       pkt->tuple.proto == IPPROTO_UDP && pkt->tuple.daddr.d[1] == node->d[1] &&
	       pkt->tuple.daddr.d[0] == node->d[0];
}

/* PASS: the device has it next. NEXT: go on, with what was in it if it was packed. */
static __always_inline int stage_unpack(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct wag_pkt *pkt = &scratch->pkt;

	if (!is_packed(pkt))
		return NEXT;
	scratch->outer = pkt->tuple;
	if (pkt->flags & PKT_PLAIN && unpack(skb, scratch)) {
		pkt->point = WAG_POINT_FROM_TUNNEL;
		return NEXT;
	}
	pkt->tuple = scratch->outer;
	return PASS;
}

/*
 * What was unpacked and is the stack's after all comes out of the tunnel's device, as what the
 * device has unpacked does: wag_from_tunnel sees it next.
 */
static __always_inline int unpacked_to_stack(struct __sk_buff *skb)
{
	skb_set_mark(skb, WAG_MARK_PUT_BACK);
	return bpf_redirect(cfg.tunnel_ifindex, BPF_F_INGRESS);
}
