/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where the packet goes next: a pod of this node, another machine, or the node's stack. Decided
 * before the packet is translated, so that what cannot go on is answered for as its sender made it;
 * the verdict waits in wag_scratch. The stack answers where it can: for a packet that keeps its
 * source address, and that is not the stack's own.
 */
#pragma once

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stddef.h>
#include "checksum.h"
#include "cidr.h"
#include "maps.h"
#include "packet.h"
#include "tunnel.h"

#define IFINDEX_LO 1 /* in every network namespace */
#ifndef AF_INET
#define AF_INET 2
#define AF_INET6 10
#endif

/*
 * Decrements the TTL as a router does. Returns false if it is used up: then the stack must see the
 * packet, to answer with "time exceeded".
 */
static __always_inline bool frame_ttl(void *data, void *end, bool v6)
{
	struct ipv6hdr *ip6 = data + ETH_HLEN;
	struct iphdr *ip = data + ETH_HLEN;
	__u32 check;

	if (v6) {
		if ((void *)(ip6 + 1) > end || ip6->hop_limit <= 1)
			return false;
		ip6->hop_limit--;
		return true;
	}
	if ((void *)(ip + 1) > end || ip->ttl <= 1)
		return false;
	ip->ttl--; /* the high byte of its 16-bit word in network order */
	check = ip->check + bpf_htons(0x0100); /* RFC 1141 */
	ip->check = check + (check >= 0xffff);
	return true;
}

static __always_inline bool route_ttl(struct __sk_buff *skb, bool v6)
{
	return frame_ttl((void *)(long)skb->data, (void *)(long)skb->data_end, v6);
}

/* By words: the compiler, who does not know how a frame is aligned, would go by bytes. */
static __always_inline int frame_macs(void *data, void *end, const struct eth_macs *macs)
{
	const __u32 *from = (const __u32 *)macs;
	__u32 *to = data;

	if (data + ETH_HLEN > end)
		return -1;
	to[0] = from[0];
	to[1] = from[1];
	to[2] = from[2];
	return 0;
}

static __always_inline int route_macs(struct __sk_buff *skb, const struct eth_macs *macs)
{
	return frame_macs((void *)(long)skb->data, (void *)(long)skb->data_end, macs);
}

_Static_assert(offsetof(struct wag_pod, mac) % 4 == 0 &&
	       offsetof(struct wag_pod, host_mac) == offsetof(struct wag_pod, mac) + ETH_ALEN,
	       "struct eth_macs");

static __always_inline const struct eth_macs *pod_macs(const struct wag_pod *pod)
{
	return (const struct eth_macs *)pod->mac;
}

/* What the flow's next packets may do without asking: flow_cache.h. */
static __always_inline void route_remember(struct wag_scratch *scratch, enum hop_kind kind,
					   __u32 ifindex, __u32 max_len, const __u8 *dst,
					   const __u8 *src)
{
	struct route_hop *hop = &scratch->hop;

	hop->kind = kind;
	hop->ifindex = ifindex;
	scratch->hop_max_len = max_len;
	__builtin_memcpy(hop->macs.dst, dst, ETH_ALEN);
	__builtin_memcpy(hop->macs.src, src, ETH_ALEN);
}

/* The packet goes on by this verdict, as soon as it is translated. */
static __always_inline int route_by(struct wag_scratch *scratch, enum wag_next next, int verdict)
{
	scratch->pkt.next = next;
	scratch->verdict = verdict;
	return NEXT;
}

static __always_inline int route_to_stack(struct wag_scratch *scratch)
{
	return route_by(scratch, WAG_NEXT_STACK, PASS);
}

static __always_inline bool source_changes(const struct wag_pkt *pkt)
{
	return pkt->flags & PKT_NAT && !addr_equal(&pkt->xlat.saddr, &pkt->tuple.saddr);
}

/* Its journey ends here, and the sender is told so: by the stack, or by us (refuse.h). */
static __always_inline int route_ends(struct wag_scratch *scratch, enum wag_reason why, __u32 line)
{
	struct wag_pkt *pkt = &scratch->pkt;

	/* The address a PKT_DSR has is the stack's own: it would take the packet for its own. */
	if (!source_changes(pkt) && !point_to_net(pkt) && !(pkt->flags & PKT_DSR))
		return route_to_stack(scratch);
	if (why == WAG_DROP_TTL_EXCEEDED && pkt->point == WAG_POINT_FROM_POD) {
		pkt->flags &= ~PKT_NAT; /* wherever it goes to, the stack sees that it is over */
		return route_to_stack(scratch);
	}
	pkt->flags |= PKT_REFUSED;
	return drop_at(pkt, why, line);
}

/* Of the packet as the next link sees it: the longest one it will be cut into. */
static __always_inline __u32 route_len(struct __sk_buff *skb, const struct wag_pkt *pkt)
{
	__u32 headers = pkt->l4_off - ETH_HLEN + sizeof(struct udphdr);
	__u32 segment = skb->gso_size;
	__u8 offset = 0;

	/* Read once: "dereference of modified ctx ptr". */
	asm volatile("" : "+r"(segment));
	if (!segment)
		return skb->len - ETH_HLEN;
	if (pkt->tuple.proto == IPPROTO_TCP &&
	    !bpf_skb_load_bytes(skb, pkt->l4_off + offsetof(struct tcphdr, ack_seq) + 4, &offset,
				1))
		headers += (offset >> 4) * 4 - sizeof(struct udphdr);
	return headers + segment;
}

/*
 * The stack forwards it. Where its hops are used up the stack says so, but not to a pod whose
 * packet seems to be the node's own: that packet it sees as the pod sent it.
 */
static __always_inline int route_by_stack(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip6 = data + ETH_HLEN;
	struct wag_pkt *pkt = &scratch->pkt;
	struct iphdr *ip = data + ETH_HLEN;

	if (pkt->point != WAG_POINT_FROM_POD || !source_changes(pkt))
		return route_to_stack(scratch);
	if (pkt->flags & PKT_V6 ? (void *)(ip6 + 1) <= end && ip6->hop_limit <= 1 :
				  (void *)(ip + 1) <= end && ip->ttl <= 1)
		pkt->flags &= ~PKT_NAT;
	return route_to_stack(scratch);
}

/* What wag_to_net, wag_to_tunnel and wag_to_pod need not look at. */
static __always_inline void route_mark(struct __sk_buff *skb)
{
	__u32 mark = (skb->mark & ~WAG_MARK_MASK) | WAG_MARK_TRANSLATED;

	/* Else the compiler stores one byte only: "invalid bpf_context access off=11 size=1". */
	asm volatile("" : "+r"(mark));
	skb->mark = mark;
}

/* The destination, if it is a pod of this node. */
static __always_inline const struct wag_pod *route_pod(struct wag_scratch *scratch)
{
	const struct wag_pkt *pkt = &scratch->pkt;

	if (pkt->flags & PKT_JUDGED)
		return pkt->flags & PKT_TO_POD ? &scratch->to : NULL;
	return bpf_map_lookup_elem(&wag_pods, pkt_dst(pkt));
}

/* A router's MTU for the answer; Linux 5.10 does not tell it: then the least, or in IPv4 none. */
static __always_inline int link_too_big(struct wag_scratch *scratch, __u32 mtu)
{
	struct wag_pkt *pkt = &scratch->pkt;

	pkt->mtu = mtu < scratch->len ? mtu : pkt->flags & PKT_V6 ? 1280 : 0;
	return route_ends(scratch, WAG_DROP_FRAG_NEEDED, __LINE__);
}

/* Past the stack nobody else would look. */
static __always_inline bool pod_too_narrow(struct __sk_buff *skb, struct wag_scratch *scratch,
					   __u32 mtu)
{
	scratch->len = route_len(skb, &scratch->pkt);
	return mtu && scratch->len > mtu;
}

/*
 * Straight into the pod, past the host side's egress hook: the sender's hook has judged both ends.
 * Not past it if something there must see the packet.
 */
static __always_inline int route_to_pod(struct __sk_buff *skb, struct wag_scratch *scratch,
					const struct wag_pod *pod)
{
	__u32 ifindex = pod->ifindex, flags = pod->flags, mtu = pod->mtu;
	struct wag_pkt *pkt = &scratch->pkt;

	/* What comes from outside with the node's address, the stack would call a martian. */
	if ((!cfg.host_routing || flags & WAG_POD_CHAINED) &&
	    !(point_from_net(pkt) && source_changes(pkt))) {
		if (pkt->flags & PKT_NAT && !cfg.dry_run)
			route_mark(skb);
		return route_by_stack(skb, scratch);
	}
	if (pod_too_narrow(skb, scratch, mtu))
		return link_too_big(scratch, mtu);
	if (!route_ttl(skb, pkt->flags & PKT_V6))
		return route_ends(scratch, WAG_DROP_TTL_EXCEEDED, __LINE__);
	if (route_macs(skb, pod_macs(pod)))
		return wag_drop(pkt, WAG_DROP_WRITE_ERROR);
	if (cfg.dry_run)
		return route_by(scratch, WAG_NEXT_POD, PASS);
	route_remember(scratch, flags & WAG_POD_NO_PEER ? HOP_DEVICE : HOP_PEER, ifindex,
		       mtu, pod->mac, pod->host_mac);
	return route_by(scratch, WAG_NEXT_POD, flags & WAG_POD_NO_PEER ?
						       bpf_redirect(ifindex, 0) :
						       bpf_redirect_peer(ifindex, 0));
}

/* To the node's own stack, as if it came from the node itself. */
static __always_inline int route_to_host(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	const struct eth_macs zero = {}; /* lo's own address */

	if (route_macs(skb, &zero))
		return wag_drop(&scratch->pkt, WAG_DROP_WRITE_ERROR);
	return route_by(scratch, WAG_NEXT_HOST,
			cfg.dry_run ? PASS : bpf_redirect(IFINDEX_LO, BPF_F_INGRESS));
}

/*
 * A pod's own packets are routed by its address even where they leave with the node's, as the
 * kernel does it; what is sent on in somebody's place, and replies, by the address they leave with.
 */
static __always_inline void link_fib(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct bpf_fib_lookup *fib = &scratch->fib;
	const struct wag_pkt *pkt = &scratch->pkt;
	const struct wag_addr *src, *dst = pkt_dst(pkt);

	src = pkt->point == WAG_POINT_FROM_POD && !(pkt->flags & PKT_REPLY) ? &pkt->tuple.saddr :
										 pkt_src(pkt);
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->ifindex = skb->ifindex;
	fib->l4_protocol = pkt->tuple.proto;
	fib->tot_len = scratch->len;
	if (pkt->flags & PKT_V6) {
		fib->family = AF_INET6;
		__builtin_memcpy(fib->ipv6_src, src, sizeof(fib->ipv6_src));
		__builtin_memcpy(fib->ipv6_dst, dst, sizeof(fib->ipv6_dst));
	} else {
		fib->family = AF_INET;
		fib->ipv4_src = src->w[3];
		fib->ipv4_dst = dst->w[3];
	}
}

/* Where no route leads, or one that is not for us to follow. */
static __always_inline int link_none(struct wag_scratch *scratch, long why)
{
	bool no_way = why == BPF_FIB_LKUP_RET_BLACKHOLE || why == BPF_FIB_LKUP_RET_UNREACHABLE ||
		      why == BPF_FIB_LKUP_RET_PROHIBIT;

	/* The stack takes the node's own source address from a pod's interface, and no other. */
	if (no_way || scratch->pkt.point != WAG_POINT_FROM_POD)
		return route_ends(scratch, WAG_DROP_FIB_FAILED, __LINE__);
	return route_to_stack(scratch);
}

static __always_inline bool may_be_cut(struct __sk_buff *skb, const struct wag_pkt *pkt)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;

	return !(pkt->flags & PKT_V6) && (void *)(ip + 1) <= end &&
	       !(ip->frag_off & bpf_htons(IP_DONT_FRAGMENT));
}

/*
 * By the node's routes, and by its stack. Of a packet too big that has the node's address by then
 * the stack would tell the node.
 */
static __always_inline int link_by_stack(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct bpf_fib_lookup *fib = &scratch->fib;
	struct wag_pkt *pkt = &scratch->pkt;

	if (pkt->point == WAG_POINT_FROM_POD && source_changes(pkt) && !may_be_cut(skb, pkt)) {
		scratch->len = route_len(skb, pkt);
		link_fib(skb, scratch);
		if (bpf_fib_lookup(skb, fib, sizeof(*fib), 0) == BPF_FIB_LKUP_RET_FRAG_NEEDED)
			return link_too_big(scratch, fib->mtu_result);
	}
	return route_by_stack(skb, scratch);
}

/* Out of the device that the lookup found; the next hop's neighbour entry fills the L2 header. */
static __always_inline int link_neigh(struct wag_scratch *scratch)
{
	struct bpf_redir_neigh *neigh = &scratch->neigh;
	struct bpf_fib_lookup *fib = &scratch->fib;

	neigh->nh_family = fib->family; /* the next hop's, which may be the other one */
	__builtin_memcpy(neigh->ipv6_nh, fib->ipv6_dst, sizeof(neigh->ipv6_nh));
	return bpf_redirect_neigh(fib->ifindex, neigh, sizeof(*neigh), 0);
}

/* By the node's own routes. */
static __always_inline int link_direct(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct bpf_fib_lookup *fib = &scratch->fib;
	struct wag_pkt *pkt = &scratch->pkt;
	long r;

	link_fib(skb, scratch);
	/* As if forwarded from here: BPF_FIB_LOOKUP_OUTPUT would keep it on this device. */
	r = bpf_fib_lookup(skb, fib, sizeof(*fib), 0);
	if (r == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return link_too_big(scratch, fib->mtu_result);
	if (r != BPF_FIB_LKUP_RET_SUCCESS && r != BPF_FIB_LKUP_RET_NO_NEIGH)
		return link_none(scratch, r);
	if (cfg.tunnel_ifindex && fib->ifindex == cfg.tunnel_ifindex)
		return route_to_stack(scratch); /* wag_to_tunnel says what is wrong */
	if (!point_to_net(pkt) && !route_ttl(skb, pkt->flags & PKT_V6))
		return route_ends(scratch, WAG_DROP_TTL_EXCEEDED, __LINE__);
	if (cfg.dry_run)
		return route_by(scratch, WAG_NEXT_NET, PASS);
	if (r == BPF_FIB_LKUP_RET_SUCCESS) /* and not what a neighbour is yet to answer */
		route_remember(scratch, HOP_DEVICE, fib->ifindex, scratch->len, fib->dmac,
			       fib->smac);
	route_mark(skb);
	return route_by(scratch, WAG_NEXT_NET, link_neigh(scratch));
}

/*
 * The way to the node itself: the device below the tunnel, where we pack ourselves. Without one,
 * or over IPv6 (whose outer checksum covers the whole packet), the tunnel's device does it.
 */
static __always_inline bool link_below(struct __sk_buff *skb, struct wag_scratch *scratch,
				       const struct wag_addr *node)
{
	struct bpf_fib_lookup *fib = &scratch->fib;

	if (!addr_is_v4(node) || !cfg.node_v4.w[3] || !cfg.tunnel_head || skb->gso_size)
		return false;
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->family = AF_INET;
	fib->ifindex = skb->ifindex;
	fib->l4_protocol = IPPROTO_UDP;
	fib->tot_len = scratch->len + PACK_ROOM;
	fib->ipv4_src = cfg.node_v4.w[3];
	fib->ipv4_dst = node->w[3];
	return bpf_fib_lookup(skb, fib, sizeof(*fib), 0) == BPF_FIB_LKUP_RET_SUCCESS &&
	       fib->family == AF_INET && fib->ifindex != cfg.tunnel_ifindex;
}

/* Packed to the node that has the destination. */
static __always_inline int link_tunnel(struct __sk_buff *skb, struct wag_scratch *scratch,
				       const struct wag_cidr *cidr)
{
	struct wag_pkt *pkt = &scratch->pkt;
	int v;

	if (scratch->len > cidr->mtu)
		return link_too_big(scratch, cidr->mtu);
	if (!point_to_net(pkt) && !route_ttl(skb, pkt->flags & PKT_V6))
		return route_ends(scratch, WAG_DROP_TTL_EXCEEDED, __LINE__);
	if (cfg.dry_run)
		return route_by(scratch, WAG_NEXT_TUNNEL, PASS);
	scratch->hop.tunnel = cidr->tunnel;
	if (link_below(skb, scratch, &scratch->hop.tunnel)) {
		route_remember(scratch, HOP_TUNNEL, scratch->fib.ifindex, cidr->mtu,
			       scratch->fib.dmac, scratch->fib.smac);
		pkt->flags |= PKT_PACK;
		v = link_neigh(scratch);
	} else {
		scratch->hop.kind = HOP_TUNNEL;
		scratch->hop.ifindex = 0;
		scratch->hop_max_len = cidr->mtu;
		v = tunnel_by_device(skb, scratch);
		if (v == DROP)
			return DROP;
	}
	route_mark(skb);
	return route_by(scratch, WAG_NEXT_TUNNEL, v);
}

/* To another machine: the one place where the link to it is chosen. */
static __always_inline int route_to_node(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct wag_pkt *pkt = &scratch->pkt;
	const struct wag_cidr *cidr = cfg.tunnel_ifindex ? cidr_find(scratch, pkt_dst(pkt)) : NULL;
	bool dsr = pkt->flags & PKT_DSR;

	scratch->len = route_len(skb, pkt);
	if (cidr_is_packed(cidr, dsr))
		return link_tunnel(skb, scratch, cidr);
	if (dsr)
		return wag_drop(pkt, WAG_DROP_NO_TUNNEL_ENDPOINT);
	return link_direct(skb, scratch);
}

static __noinline int route_hop_tunnel(struct __sk_buff *skb, struct wag_scratch *scratch,
				       const struct route_hop *hop)
{
	route_mark(skb);
	scratch->hop = *hop;
	if (!hop->ifindex || skb->gso_size)
		return tunnel_by_device(skb, scratch);
	scratch->pkt.flags |= PKT_PACK;
	return bpf_redirect(hop->ifindex, 0);
}

/* The way a packet of the same flow found. False: this one has to be looked at itself. */
static __always_inline bool route_hop_take(struct __sk_buff *skb, struct wag_scratch *scratch,
					   const struct route_hop *hop, __u32 max_len)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct wag_pkt *pkt = &scratch->pkt;

	if (max_len && skb->len - ETH_HLEN > max_len && route_len(skb, pkt) > max_len)
		return false;
	if (!frame_ttl(data, end, pkt->flags & PKT_V6))
		return false;
	if (hop->kind == HOP_TUNNEL)
		scratch->verdict = route_hop_tunnel(skb, scratch, hop);
	else if (frame_macs(data, end, &hop->macs))
		scratch->verdict = wag_drop(pkt, WAG_DROP_WRITE_ERROR);
	else if (hop->kind == HOP_PEER)
		scratch->verdict = bpf_redirect_peer(hop->ifindex, 0);
	else
		scratch->verdict = bpf_redirect(hop->ifindex, 0);
	return true;
}

static __always_inline int route_from_pod(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	const struct wag_pod *pod = route_pod(scratch);

	if (pod)
		return route_to_pod(skb, scratch, pod);
	if (!cfg.host_routing || addr_is_link_scoped(pkt_dst(&scratch->pkt)))
		return link_by_stack(skb, scratch);
	return route_to_node(skb, scratch);
}

/* From outside: to a pod, or on to where we translated it to; the rest is the stack's. */
static __always_inline int route_from_net(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	const struct wag_pod *pod = route_pod(scratch);
	struct wag_pkt *pkt = &scratch->pkt;

	if (pod && !(pkt->flags & PKT_DSR))
		return route_to_pod(skb, scratch, pod);
	if (!(pkt->flags & (PKT_NAT | PKT_DSR)))
		return route_to_stack(scratch);
	if (pkt->flags & PKT_DSR || !bpf_map_lookup_elem(&wag_node_addr, &pkt->xlat.daddr))
		/* The source is ours now: the stack would call it a martian. */
		return route_to_node(skb, scratch);
	/* The node's own NodePort answers it from afar: the stack takes such a source from lo only.
	 */
	if (bpf_map_lookup_elem(&wag_node_addr, &pkt->xlat.saddr))
		return route_to_host(skb, scratch);
	return route_to_stack(scratch);
}

/* From the node itself, already routed by its stack for the address it knew. */
static __always_inline int route_from_node(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct wag_pkt *pkt = &scratch->pkt;
	const struct wag_pod *pod;

	if (!(pkt->flags & PKT_NAT) || addr_equal(&pkt->xlat.daddr, &pkt->tuple.daddr))
		return route_by(scratch, WAG_NEXT_NET, PASS); /* the route stands */
	pod = route_pod(scratch);
	if (pod) {
		__u32 ifindex = pod->ifindex, mtu = pod->mtu;

		if (pod_too_narrow(skb, scratch, mtu))
			return link_too_big(scratch, mtu);
		if (route_macs(skb, pod_macs(pod)))
			return wag_drop(pkt, WAG_DROP_WRITE_ERROR);
		return route_by(scratch, WAG_NEXT_POD,
				cfg.dry_run ? PASS : bpf_redirect(ifindex, 0));
	}
	if (!bpf_map_lookup_elem(&wag_node_addr, &pkt->xlat.daddr))
		return route_to_node(skb, scratch);
	if (skb->ifindex == IFINDEX_LO)
		return route_by(scratch, WAG_NEXT_HOST, PASS);
	return route_to_host(skb, scratch);
}

/* At the tunnel device's egress, where the node's routes led: to which node? */
static __always_inline int route_to_tunnel(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct wag_pkt *pkt = &scratch->pkt;
	const struct wag_addr *dst = pkt_dst(pkt);
	const struct wag_cidr *cidr;

	if (addr_is_zero(dst) || is_multicast(&pkt->tuple, pkt->flags & PKT_V6))
		return PASS; /* ARP, neighbour discovery: the device drops them, having no peers */
	if (pkt->flags & PKT_NAT && !addr_equal(dst, &pkt->tuple.daddr))
		return route_from_node(skb, scratch);
	cidr = cidr_find(scratch, dst);
	if (!cidr_is_packed(cidr, false) ||
	    (!cfg.dry_run && tunnel_set_key(skb, scratch, &cidr->tunnel)))
		return wag_drop(pkt, WAG_DROP_NO_TUNNEL_ENDPOINT);
	return route_by(scratch, WAG_NEXT_TUNNEL, PASS);
}
