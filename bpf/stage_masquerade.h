/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who leaves with an address of the node, and with which one: pkt->xlat's source. The port is
 * stage_commit's to find.
 */
#pragma once

#include "cidr.h"
#include "maps.h"
#include "packet.h"
#include "service.h"

#ifndef AF_INET
#define AF_INET 2
#define AF_INET6 10
#endif
#ifndef IPPROTO_DCCP
#define IPPROTO_DCCP 33
#endif
#ifndef IPPROTO_UDPLITE
#define IPPROTO_UDPLITE 136
#endif

enum masquerade {
	AS_ITSELF,
	AS_NODE,   /* the address the cluster knows the node by */
	AS_NODE_IF_ANY, /* to a pod here, which finds back either way */
	AS_DEVICE, /* the one of the device it leaves through */
};

static __always_inline bool node_source(const struct wag_pkt *pkt, struct wag_addr *addr)
{
	return node_addr_of(pkt->flags & PKT_V6, addr);
}

/* The served device that the node's routes choose; NULL: another one, or no route. */
static __always_inline struct wag_device *egress_device(struct __sk_buff *skb,
							struct wag_scratch *scratch)
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
	r = bpf_fib_lookup(skb, fib, sizeof(*fib), 0);
	if (r != BPF_FIB_LKUP_RET_SUCCESS && r != BPF_FIB_LKUP_RET_NO_NEIGH)
		return NULL;
	return bpf_map_lookup_elem(&wag_device, &fib->ifindex);
}

/* The device's address, else the node's. */
static __always_inline bool device_source(const struct wag_pkt *pkt,
					  const struct wag_device *device, struct wag_addr *addr)
{
	if (device) {
		*addr = pkt->flags & PKT_V6 ? device->v6 : device->v4;
		if (!addr_is_zero(addr))
			return true;
	}
	return node_source(pkt, addr);
}

/* fe80::/10 never leaves its link. 169.254.0.0/16 does in clouds: wag_cidr says if it may. */
static __always_inline bool is_link_local(const struct wag_addr *addr)
{
	return addr->b[0] == 0xfe && (addr->b[1] & 0xc0) == 0x80;
}

static __always_inline bool masquerades(const struct wag_pkt *pkt)
{
	return pkt->flags & PKT_V6 ? cfg.masquerade_v6 : cfg.masquerade_v4;
}

/*
 * Who must be masqueraded: a pod that reaches itself (it would drop a packet from its own address),
 * who asks for a Service where kube-proxy masquerades, a client from elsewhere whose backend is
 * elsewhere too (it would answer past us), and a pod that talks to the world outside of the
 * cluster. Not who reaches the node itself: its stack takes nothing from its own address.
 */
static __always_inline enum masquerade masquerade_as(struct wag_scratch *scratch)
{
	const struct wag_pkt *pkt = &scratch->pkt;
	const struct wag_addr *dst = &pkt->xlat.daddr;
	bool service = pkt->flags & PKT_NAT && scratch->choice.masquerade;
	bool from_pod = pkt->point == WAG_POINT_FROM_POD;
	struct wag_cidr *cidr;

	if (from_pod && addr_equal(dst, &pkt->tuple.saddr))
		return AS_NODE;
	if (bpf_map_lookup_elem(&wag_pods, dst))
		return service ? AS_NODE_IF_ANY : AS_ITSELF;
	if (bpf_map_lookup_elem(&wag_node_addr, dst))
		return AS_ITSELF;
	if (from_pod && !service && (!masquerades(pkt) || is_link_local(dst)))
		return AS_ITSELF;
	cidr = cidr_find(scratch, dst);
	if (from_pod && !service)
		return cidr ? AS_ITSELF : AS_DEVICE;
	return cidr_is_packed(cidr, false) ? AS_NODE : AS_DEVICE;
}

/* Until the other nodes are known, nobody can tell their pods from the world outside. */
static __always_inline bool nodes_known(void)
{
	__u32 zero = 0;
	struct wag_runtime *runtime = bpf_map_lookup_elem(&wag_runtime, &zero);

	return runtime && runtime->nodes;
}

/* Addresses are under a checksum that nobody here corrects. */
static __always_inline bool proto_forbids(__u8 proto)
{
	return proto == IPPROTO_UDPLITE || proto == IPPROTO_DCCP || proto == IPPROTO_AH;
}

static __noinline int masquerade(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct wag_device *device;
	struct wag_pkt *pkt;
	bool found;

	if (!scratch)
		return DROP;
	pkt = &scratch->pkt;
	if (!(pkt->flags & PKT_NAT))
		pkt->xlat = pkt->tuple;
	switch (masquerade_as(scratch)) {
	case AS_NODE:
		found = node_source(pkt, &pkt->xlat.saddr);
		break;
	case AS_NODE_IF_ANY:
		found = node_source(pkt, &scratch->client.addr);
		if (!found)
			return NEXT;
		pkt->xlat.saddr = scratch->client.addr;
		break;
	case AS_DEVICE:
		device = egress_device(skb, scratch);
		/* The reply must meet a program of ours, or the pod is better off as it is. */
		if (!device && pkt->point == WAG_POINT_FROM_POD)
			return NEXT;
		if (!nodes_known())
			return wag_drop(pkt, WAG_DROP_NODES_PENDING);
		found = device_source(pkt, device, &pkt->xlat.saddr);
		break;
	default:
		return NEXT;
	}
	if (!found)
		return wag_drop(pkt, WAG_DROP_SNAT_EXHAUSTED);
	if (proto_forbids(pkt->tuple.proto))
		return wag_drop(pkt, WAG_DROP_MASQUERADE_PROTO);
	pkt->flags |= PKT_NAT;
	return NEXT;
}

/*
 * What belongs to no flow, of the pod that sends here: nobody could turn an answer back, so it does
 * not leave where it would have to leave with an address of the node.
 */
static __always_inline int masquerade_untracked(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct wag_pkt *pkt = &scratch->pkt;
	int v;

	if (!masquerades(pkt))
		return PASS;
	if (pkt->flags & PKT_RELATED) { /* sender_is_pod() has read them */
		pkt->tuple.saddr = scratch->outer.saddr;
		pkt->tuple.daddr = scratch->outer.daddr;
	}
	pkt->flags &= ~PKT_NAT;
	v = masquerade(skb, scratch);
	if (v == NEXT)
		v = pkt->flags & PKT_NAT ? wag_drop(pkt, WAG_DROP_MASQUERADE_PROTO) : PASS;
	pkt->flags &= ~PKT_NAT;
	return v;
}

/*
 * The node's own packets have its address already. But who calls a Service's address that is the
 * node's own too, calls from that very address: nobody else would find back to this node by it.
 */
static __always_inline int node_masquerade(struct wag_scratch *scratch)
{
	struct wag_pkt *pkt = &scratch->pkt;

	if (pkt->flags & PKT_NAT && addr_equal(&pkt->tuple.saddr, &pkt->tuple.daddr) &&
	    node_source(pkt, &scratch->client.addr))
		pkt->xlat.saddr = scratch->client.addr;
	return NEXT;
}

static __always_inline int stage_masquerade(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	const struct wag_pkt *pkt = &scratch->pkt;

	if (pkt->flags & PKT_TRACKED)
		return NEXT;
	if (point_to_net(pkt))
		return node_masquerade(scratch);
	if (pkt->flags & PKT_NAT || (pkt->point == WAG_POINT_FROM_POD && masquerades(pkt)))
		return masquerade(skb, scratch);
	return NEXT;
}
