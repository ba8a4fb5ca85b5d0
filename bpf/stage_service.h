/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A new flow to a Service gets its backend, one to a hostPort its pod: pkt->xlat's destination. */
#pragma once

#include "maps.h"
#include "packet.h"
#include "service.h"
#include "stage_track.h"

/* The node itself is one client, whichever of its addresses a packet has. */
static __always_inline void client_of(const struct wag_pkt *pkt, struct svc_client *client)
{
	client->now = pkt->now;
	client->outside = point_from_net(pkt);
	if (!point_to_net(pkt) || !node_addr_of(pkt->flags & PKT_V6, &client->addr))
		client->addr = pkt->tuple.saddr;
}

static __always_inline int stage_service(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct svc_choice *choice = &scratch->choice;
	struct wag_pkt *pkt = &scratch->pkt;
	const struct wag_tuple *t = &pkt->tuple;
	struct svc_frontend front;
	enum svc_result result;

	if ((pkt->flags & (PKT_TRACKED | PKT_UNANSWERED)) == PKT_TRACKED || !tuple_has_ports(t))
		return NEXT;
	svc_lookup(&front, &t->daddr, t->dport, t->proto, false);
	/* Not asked for every packet of the node's own connections. */
	if (front.of_node && (t->proto != IPPROTO_TCP || pkt->flags & PKT_SYN))
		hostport_lookup(&front, &t->daddr, t->dport, t->proto);
	if (!front.svc && !front.hostport)
		return NEXT;
	client_of(pkt, &scratch->client);
	result = svc_select(&front, &scratch->client, t->proto, choice);
	if (result == SVC_NONE)
		return NEXT;
	pkt->svc_index = choice->svc_index;
	pkt->svc_id = choice->svc_id;
	switch (result) {
	case SVC_NO_BACKEND:
		pkt->flags |= PKT_REFUSED;
		return wag_drop(pkt, WAG_DROP_NO_BACKEND);
	case SVC_NO_LOCAL: /* silently, as kube-proxy: a load balancer's check goes elsewhere */
		return wag_drop(pkt, WAG_DROP_NO_LOCAL_BACKEND);
	case SVC_DENIED:
		return wag_drop(pkt, WAG_DROP_SOURCE_RANGE);
	case SVC_MISMATCH:
		return wag_drop(pkt, WAG_DROP_SLOT_MISMATCH);
	default:
		break;
	}
	if (pkt->flags & PKT_TRACKED)
		track_forget(scratch);
	pkt->xlat.saddr = t->saddr;
	pkt->xlat.sport = t->sport;
	pkt->xlat.daddr = choice->addr;
	pkt->xlat.dport = choice->port;
	pkt->flags |= PKT_NAT;
	if (choice->flags & WAG_SVC_NODE_PORT)
		pkt->flags |= PKT_NODE_PORT;
	return NEXT;
}
