/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A new flow to a Service gets its backend: pkt->xlat's destination, and its source where the reply
 * would not find its way back otherwise. */
#pragma once

#include "maps.h"
#include "packet.h"
#include "service.h"

/* The node's address of the packet's family; false if it has none. */
static __always_inline bool node_source(const struct wag_pkt *pkt, struct wag_addr *addr)
{
	/* Word by word: without the volatile the compiler would take cfg's zeros for its value. */
	const volatile struct wag_addr *node = pkt->flags & PKT_V6 ? &cfg.node_v6 : &cfg.node_v4;

	addr->d[0] = node->d[0];
	addr->d[1] = node->d[1];
	return !addr_is_zero(addr);
}

/*
 * Who must be masqueraded: a pod that reaches itself (it would drop a packet from its own address),
 * and a client from outside whose backend is on another machine (it would answer past us).
 */
static __always_inline bool needs_masquerade(const struct wag_pkt *pkt)
{
	if (addr_equal(&pkt->xlat.daddr, &pkt->tuple.saddr))
		return pkt->point == WAG_POINT_FROM_POD;
	return pkt->point == WAG_POINT_FROM_NET &&
	       !bpf_map_lookup_elem(&wag_pods, &pkt->xlat.daddr) &&
	       !bpf_map_lookup_elem(&wag_node_addr, &pkt->xlat.daddr);
}

static __always_inline int stage_service(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct svc_choice *choice = &scratch->choice;
	struct wag_pkt *pkt = &scratch->pkt;
	struct wag_svc *svc;

	if (pkt->flags & PKT_TRACKED || !tuple_has_ports(&pkt->tuple))
		return NEXT;
	svc = svc_lookup(&pkt->tuple.daddr, pkt->tuple.dport, pkt->tuple.proto, false);
	if (!svc)
		return NEXT;
	switch (svc_select(svc, choice)) {
	case SVC_NONE:
		return NEXT;
	case SVC_NO_BACKEND:
		pkt->svc_index = choice->svc_index;
		pkt->svc_id = choice->svc_id;
		pkt->flags |= PKT_REFUSED;
		return wag_drop(pkt, WAG_DROP_NO_BACKEND);
	case SVC_MISMATCH:
		return wag_drop(pkt, WAG_DROP_SLOT_MISMATCH);
	case SVC_FOUND:
		break;
	}
	pkt->svc_index = choice->svc_index;
	pkt->svc_id = choice->svc_id;
	pkt->xlat.saddr = pkt->tuple.saddr;
	pkt->xlat.sport = pkt->tuple.sport;
	pkt->xlat.daddr = choice->addr;
	pkt->xlat.dport = choice->port;
	pkt->flags |= PKT_NAT;
	if (choice->flags & WAG_SVC_NODE_PORT)
		pkt->flags |= PKT_NODE_PORT;
	if (needs_masquerade(pkt) && !node_source(pkt, &pkt->xlat.saddr))
		return wag_drop(pkt, WAG_DROP_SNAT_EXHAUSTED);
	return NEXT;
}
