/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A new flow to a Service gets its backend, one to a hostPort its pod: pkt->xlat's destination. */
#pragma once

#include "cidr.h"
#include "maps.h"
#include "packet.h"
#include "service.h"
#include "stage_track.h"

/* The same on every node; of whole addresses, which flow_cache_hash() does not look at. */
static __always_inline __u32 flow_hash(const struct wag_tuple *t)
{
	__u64 hash = t->saddr.d[1] ^ t->saddr.d[0] * 0x9e3779b97f4a7c15ULL;

	hash = (hash ^ hash >> 32) * 0xff51afd7ed558ccdULL;
	hash ^= t->daddr.d[1] ^ t->daddr.d[0] * 0x9e3779b97f4a7c15ULL;
	hash = (hash ^ hash >> 32) * 0xff51afd7ed558ccdULL;
	hash ^= (__u64)t->sport << 32 ^ (__u64)t->dport << 8 ^ t->proto;
	hash = (hash ^ hash >> 32) * 0xc4ceb9fe1a85ec53ULL;
	return hash >> 32;
}

/* The node itself is one client, whichever of its addresses a packet has. */
static __always_inline void client_of(const struct wag_pkt *pkt, struct svc_client *client)
{
	client->now = pkt->now;
	client->outside = point_from_net(pkt);
	client->hash = flow_hash(&pkt->tuple);
	if (!point_to_net(pkt) || !node_addr_of(pkt->flags & PKT_V6, &client->addr))
		client->addr = pkt->tuple.saddr;
}

/*
 * Neither a pod nor a node: it does not mind which node answers. One of the cluster may have a way
 * of its own to the endpoint's node, where its packets are known by another address.
 */
static __always_inline bool client_is_foreign(struct wag_scratch *scratch)
{
	const struct wag_addr *addr = &scratch->pkt.tuple.saddr;
	const struct wag_cidr *cidr;

	if (bpf_map_lookup_elem(&wag_nodes, addr))
		return false;
	cidr = cidr_find(scratch, addr);
	return !cidr || !(cidr->flags & (WAG_CIDR_PODS | WAG_CIDR_NODE));
}

/* Is the chosen backend another node's, which a tunnel leads to? */
static __always_inline bool backend_is_far(struct wag_scratch *scratch)
{
	const struct wag_addr *addr = &scratch->choice.addr;

	return cfg.tunnel_ifindex && !bpf_map_lookup_elem(&wag_pods, addr) &&
	       !bpf_map_lookup_elem(&wag_node_addr, addr) &&
	       cidr_is_packed(cidr_find(scratch, addr), true);
}

/*
 * The node that a client reached may have packed its packet for us as it was (docs/services.md
 * "DSR"): then it is for a NodePort of that node, on any address it has. What is for one that the
 * cluster knows, and for no NodePort, the stack would only send back.
 */
static __always_inline int far_node_port(struct wag_scratch *scratch, struct svc_frontend *front)
{
	const struct wag_pkt *pkt = &scratch->pkt;
	const struct wag_tuple *t = &pkt->tuple;
	struct wag_svc_key key = { .port = t->dport, .proto = t->proto };

	if (pkt->point != WAG_POINT_FROM_TUNNEL || front->svc || front->of_node ||
	    bpf_map_lookup_elem(&wag_pods, &t->daddr) || !client_is_foreign(scratch))
		return NEXT;
	any_addr(&key.addr, &t->daddr);
	front->svc = bpf_map_lookup_elem(&wag_svc, &key);
	return front->svc || !bpf_map_lookup_elem(&wag_nodes, &t->daddr) ? NEXT : DROP;
}

/* Why the client gets no backend. */
static __always_inline int service_refused(struct wag_pkt *pkt, enum svc_result result)
{
	switch (result) {
	case SVC_NO_BACKEND:
		pkt->flags |= PKT_REFUSED;
		return wag_drop(pkt, WAG_DROP_NO_BACKEND);
	case SVC_NO_LOCAL: /* silently, as kube-proxy: a load balancer's check goes elsewhere */
		return wag_drop(pkt, WAG_DROP_NO_LOCAL_BACKEND);
	case SVC_DENIED:
		return wag_drop(pkt, WAG_DROP_SOURCE_RANGE);
	default:
		return wag_drop(pkt, WAG_DROP_SLOT_MISMATCH);
	}
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
	if (far_node_port(scratch, &front) == DROP)
		return wag_drop(pkt, WAG_DROP_NO_BACKEND);
	/* Not asked for every packet of the node's own connections. */
	if (front.of_node && (t->proto != IPPROTO_TCP || pkt->flags & PKT_SYN))
		hostport_lookup(&front, &t->daddr, t->dport, t->proto);
	if (!front.svc && !front.hostport)
		return NEXT;
	client_of(pkt, &scratch->client);
	scratch->client.direct = scratch->client.outside && svc_is_dsr(&front) &&
				 client_is_foreign(scratch);
	scratch->client.local = pkt->point == WAG_POINT_FROM_TUNNEL;
	result = svc_select(&front, &scratch->client, t->proto, choice);
	if (result == SVC_NONE)
		return NEXT;
	pkt->svc_index = choice->svc_index;
	pkt->svc_id = choice->svc_id;
	if (result != SVC_FOUND)
		return service_refused(pkt, result);
	if (pkt->flags & PKT_TRACKED)
		track_forget(scratch);
	pkt->xlat.saddr = t->saddr;
	pkt->xlat.sport = t->sport;
	pkt->xlat.daddr = choice->addr;
	pkt->xlat.dport = choice->port;
	pkt->xlat.proto = t->proto;
	if (scratch->client.direct && !scratch->client.local && backend_is_far(scratch)) {
		pkt->flags |= PKT_DSR;
		return NEXT;
	}
	pkt->flags |= PKT_NAT;
	if (choice->flags & WAG_SVC_NODE_PORT)
		pkt->flags |= PKT_NODE_PORT;
	return NEXT;
}
