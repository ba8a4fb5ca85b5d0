/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where the packet goes next: a pod of this node, the network, or the node's stack. */
#pragma once

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stddef.h>
#include "checksum.h"
#include "maps.h"
#include "packet.h"

#define IFINDEX_LO 1 /* in every network namespace */
#ifndef AF_INET
#define AF_INET 2
#define AF_INET6 10
#endif

/*
 * Decrements the TTL as a router does. Returns false if it is used up: then the stack must see the
 * packet, to answer with "time exceeded".
 */
static __always_inline bool route_ttl(struct __sk_buff *skb, bool v6)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip6 = data + ETH_HLEN;
	struct iphdr *ip = data + ETH_HLEN;

	if (v6) {
		if ((void *)(ip6 + 1) > end || ip6->hop_limit <= 1)
			return false;
		ip6->hop_limit--;
		return true;
	}
	if ((void *)(ip + 1) > end || ip->ttl <= 1)
		return false;
	ip->ttl--; /* the high byte of its 16-bit word in network order */
	ip->check = csum_apply(ip->check, (__u16)~bpf_htons(0x0100));
	return true;
}

static __always_inline int route_macs(struct __sk_buff *skb, const __u8 *dst, const __u8 *src)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end)
		return -1;
	__builtin_memcpy(eth->h_dest, dst, ETH_ALEN);
	__builtin_memcpy(eth->h_source, src, ETH_ALEN);
	return 0;
}

/* Straight into the pod, past the host side's egress hook: the sender's hook has judged both ends.
 */
static __always_inline int route_to_pod_peer(struct __sk_buff *skb, struct wag_pkt *pkt,
					     const struct wag_pod *pod)
{
	__u32 ifindex = pod->ifindex;

	if (!route_ttl(skb, pkt->flags & PKT_V6)) {
		pkt->next = WAG_NEXT_STACK;
		return PASS;
	}
	if (route_macs(skb, pod->mac, pod->host_mac))
		return wag_drop(pkt, WAG_DROP_WRITE_ERROR);
	pkt->next = WAG_NEXT_POD;
	return cfg.dry_run ? PASS : bpf_redirect_peer(ifindex, 0);
}

static __always_inline const struct wag_addr *route_dst(const struct wag_pkt *pkt)
{
	return pkt->flags & PKT_NAT ? &pkt->xlat.daddr : &pkt->tuple.daddr;
}

/* Out to another machine by the node's own routes. */
static __always_inline int route_to_net(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct bpf_fib_lookup *fib = &scratch->fib;
	struct wag_pkt *pkt = &scratch->pkt;
	long r;

	__builtin_memset(fib, 0, sizeof(*fib));
	fib->ifindex = skb->ifindex;
	fib->l4_protocol = pkt->tuple.proto;
	if (pkt->flags & PKT_V6) {
		fib->family = AF_INET6;
		__builtin_memcpy(fib->ipv6_src, &pkt->xlat.saddr, sizeof(fib->ipv6_src));
		__builtin_memcpy(fib->ipv6_dst, &pkt->xlat.daddr, sizeof(fib->ipv6_dst));
	} else {
		fib->family = AF_INET;
		fib->ipv4_src = pkt->xlat.saddr.w[3];
		fib->ipv4_dst = pkt->xlat.daddr.w[3];
	}
	/* As if forwarded from here: BPF_FIB_LOOKUP_OUTPUT would keep it on this device. */
	r = bpf_fib_lookup(skb, fib, sizeof(*fib), 0);
	if (r != BPF_FIB_LKUP_RET_SUCCESS && r != BPF_FIB_LKUP_RET_NO_NEIGH)
		return wag_drop(pkt, WAG_DROP_FIB_FAILED);
	pkt->next = WAG_NEXT_NET;
	/* The kernel's own neighbour entry for the route fills the L2 header. */
	return cfg.dry_run ? PASS : bpf_redirect_neigh(fib->ifindex, NULL, 0, 0);
}

/* From a pod: everything but another pod is the stack's to forward. */
static __always_inline int route_from_pod(struct __sk_buff *skb, struct wag_pkt *pkt)
{
	struct wag_pod *pod = bpf_map_lookup_elem(&wag_pods, route_dst(pkt));

	if (pod)
		return route_to_pod_peer(skb, pkt, pod);
	pkt->next = WAG_NEXT_STACK;
	return PASS;
}

/* To the node's own stack, as if it came from the node itself. */
static __always_inline int route_to_host(struct __sk_buff *skb, struct wag_pkt *pkt)
{
	const __u8 zero[ETH_ALEN] = {}; /* lo's own address */

	pkt->next = WAG_NEXT_HOST;
	if (route_macs(skb, zero, zero))
		return wag_drop(pkt, WAG_DROP_WRITE_ERROR);
	return cfg.dry_run ? PASS : bpf_redirect(IFINDEX_LO, BPF_F_INGRESS);
}

/* From outside: only what we translated is ours to route; the rest the stack forwards. */
static __always_inline int route_from_net(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct wag_pkt *pkt = &scratch->pkt;
	const struct wag_addr *dst = route_dst(pkt);
	struct wag_pod *pod;

	pkt->next = WAG_NEXT_STACK;
	if (!(pkt->flags & PKT_NAT))
		return PASS;
	pod = bpf_map_lookup_elem(&wag_pods, dst);
	if (pod)
		return route_to_pod_peer(skb, pkt, pod);
	if (bpf_map_lookup_elem(&wag_node_addr, dst)) {
		/* The node's own NodePort answers it from afar: the stack takes such a source from
		 * lo only. */
		if (bpf_map_lookup_elem(&wag_node_addr, &pkt->xlat.saddr))
			return route_to_host(skb, pkt);
		return PASS;
	}
	/* The source is ours now: the stack would call it a martian. */
	if (!route_ttl(skb, pkt->flags & PKT_V6))
		return PASS;
	return route_to_net(skb, scratch);
}

/* From the node itself, already routed by its stack for the address it knew. */
static __always_inline int route_to_net_local(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct wag_pkt *pkt = &scratch->pkt;
	const struct wag_addr *dst = route_dst(pkt);
	struct wag_pod *pod;
	__u32 mark;

	pkt->next = WAG_NEXT_NET;
	if (!(pkt->flags & PKT_NAT) || addr_equal(dst, &pkt->tuple.daddr))
		return PASS; /* the route stands */
	pod = bpf_map_lookup_elem(&wag_pods, dst);
	if (pod) {
		__u32 ifindex = pod->ifindex;

		if (route_macs(skb, pod->mac, pod->host_mac))
			return wag_drop(pkt, WAG_DROP_WRITE_ERROR);
		pkt->next = WAG_NEXT_POD;
		return cfg.dry_run ? PASS : bpf_redirect(ifindex, 0);
	}
	if (bpf_map_lookup_elem(&wag_node_addr, dst)) {
		pkt->next = WAG_NEXT_HOST;
		return skb->ifindex == IFINDEX_LO ? PASS : route_to_host(skb, pkt);
	}
	mark = (skb->mark & ~WAG_MARK_MASK) | WAG_MARK_TRANSLATED;
	/* Else the compiler stores one byte only: "invalid bpf_context access off=11 size=1". */
	asm volatile("" : "+r"(mark));
	skb->mark = mark;
	return route_to_net(skb, scratch);
}
