/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A known flow brings its translation; tracking comes before service selection, so that a live
 * connection keeps its backend while the endpoint list changes. stage_commit remembers a new flow.
 */
#pragma once

#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stddef.h>
#include "conntrack.h"
#include "maps.h"
#include "packet.h"
#include "policy.h"
#include "service.h"

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* While conntrack is being carried over, an unknown packet may belong to a known flow. */
static __always_inline bool ct_migrating(void)
{
	__u32 zero = 0;
	struct wag_runtime *runtime = bpf_map_lookup_elem(&wag_runtime, &zero);

	return runtime && runtime->migrating;
}

/*
 * Who sends on after its own reset did not mean it, or it was another's, out of the window. Each
 * of a translated flow's two entries sees one direction, as that of WAG_CT_DSR; of others it is no
 * matter.
 */
static __always_inline bool ct_reset_undone(const struct wag_pkt *pkt, __u32 flags)
{
	return flags & WAG_CT_RST &&
	       flags & (WAG_CT_REWRITE_ORIG | WAG_CT_REWRITE_REPLY | WAG_CT_DSR) &&
	       !(pkt->tcp_flags & (TCP_RST | TCP_FIN | TCP_SYN));
}

static __always_inline void ct_update(struct wag_pkt *pkt, struct wag_ct *ct, bool reply)
{
	__u32 flags = ct->flags, news = 0;

	if (reply)
		news = WAG_CT_SEEN_REPLY;
	if (pkt->tuple.proto == IPPROTO_TCP) {
		if (pkt->tcp_flags & TCP_FIN)
			news |= reply ? WAG_CT_FIN_REPLY : WAG_CT_FIN_ORIG;
		if (pkt->tcp_flags & TCP_RST)
			news |= WAG_CT_RST;
		if (!reply && (pkt->tcp_flags & (TCP_ACK | TCP_SYN)) == TCP_ACK)
			news |= WAG_CT_ASSURED;
	}
	if (reply && !(flags & WAG_CT_SEEN_REPLY))
		pkt->flags |= PKT_FIRST_REPLY;
	if (cfg.dry_run)
		return;
	if (ct_reset_undone(pkt, flags))
		ct->flags = (flags | news) & ~WAG_CT_RST;
	else if ((flags & news) != news)
		ct->flags = flags | news;
	if (pkt->now - ct->seen_ns > CT_SEEN_GRAIN_NS)
		ct->seen_ns = pkt->now;
}

/* Has the backend of a frontend entry left its Service, or a hostPort another pod? */
static __always_inline bool backend_gone(const struct wag_tuple *t, const struct wag_ct *ct)
{
	struct wag_backend_key key = {
		.addr = ct->xdaddr,
		.svc_id = ct->svc_id,
		.port = ct->xdport,
		.proto = t->proto,
	};

	if (ct->svc_id)
		return !bpf_map_lookup_elem(&wag_backend, &key);
	return ct->flags & WAG_CT_NODE_PORT && !hostport_is(t, &ct->xdaddr, ct->xdport);
}

/*
 * Is a known flow no longer the one this packet opens? A SYN for a closed connection is a new one
 * (the client uses its port again), and so is a SYN to a backend that is gone.
 */
static __always_inline bool ct_stale(struct wag_pkt *pkt, const struct wag_ct_key *key,
				     struct wag_ct_key *pair, const struct wag_ct *ct, bool reply)
{
	__u32 flags = ct->flags;
	struct wag_ct *other;

	/* Who packed it for us has chosen this node, whatever we chose for an earlier packet. */
	if (ct->flags & WAG_CT_DSR && pkt->point == WAG_POINT_FROM_TUNNEL && !reply)
		return true;
	/* The other entry may know more of the flow than this one: be generous. */
	flags |= key->proto == IPPROTO_TCP ? WAG_CT_ASSURED : WAG_CT_SEEN_REPLY;
	if (pkt->now > ct->seen_ns + ct_timeout_ns(flags, key->proto))
		return true;
	if (key->proto == IPPROTO_UDP && ct->flags & (WAG_CT_REWRITE_ORIG | WAG_CT_DSR) && !reply)
		return backend_gone(&pkt->tuple, ct);
	if (key->proto != IPPROTO_TCP)
		return false;
	if (!(pkt->flags & PKT_SYN) || pkt->flags & PKT_RELATED)
		return false;
	if (ct->flags & WAG_CT_DSR && !reply && backend_gone(&pkt->tuple, ct))
		return true;
	if (ct->flags & WAG_CT_REWRITE_ORIG && !reply) {
		ct_pair_key(pair, key->proto, ct);
		other = bpf_map_lookup_elem(&wag_ct, pair);
		if (other)
			flags |= other->flags;
		if (backend_gone(&pkt->tuple, ct))
			return true;
	}
	return flags & (WAG_CT_RST | WAG_CT_FIN_ORIG | WAG_CT_FIN_REPLY);
}

/* Of an ICMP error the tuple is its flow's: who sends it to whom, only the packet says. */
static __always_inline int error_ends(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct wag_tuple *outer = &scratch->outer;
	__be32 addrs[2];

	if (scratch->pkt.flags & PKT_V6)
		return bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, saddr),
					  &outer->saddr, 2 * sizeof(outer->saddr));
	if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, saddr), addrs,
			       sizeof(addrs)))
		return -1;
	addr_from_v4(&outer->saddr, addrs[0]);
	addr_from_v4(&outer->daddr, addrs[1]);
	return 0;
}

/* Is the packet's source address one of the pod behind this interface? */
static __always_inline bool sender_is_pod(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	const struct wag_addr *addr = &scratch->pkt.tuple.saddr;
	struct wag_pod *pod;

	if (scratch->pkt.flags & PKT_RELATED) {
		if (error_ends(skb, scratch))
			return false;
		addr = &scratch->outer.saddr;
	}
	pod = bpf_map_lookup_elem(&wag_pods, addr);
	return (pod && pod->ifindex == skb->ifindex) || addr_is_link_scoped(addr);
}

/*
 * Who sends a packet of a known flow? The entry remembers the interface of a side that is a pod of
 * this node, so that it need not be looked up again; from the network that side never comes.
 */
static __always_inline int track_sender(struct __sk_buff *skb, struct wag_scratch *scratch,
					struct wag_ct *ct, bool reply)
{
	__u32 known = reply ? ct->reply_ifindex : ct->orig_ifindex;
	struct wag_pkt *pkt = &scratch->pkt;

	if (pkt->point == WAG_POINT_FROM_POD) {
		if (known == skb->ifindex && !(pkt->flags & PKT_RELATED))
			return NEXT;
		if (!sender_is_pod(skb, scratch))
			return wag_drop(pkt, WAG_DROP_SPOOFED_SOURCE);
		if (cfg.dry_run || pkt->flags & PKT_RELATED)
			return NEXT;
		if (reply)
			ct->reply_ifindex = skb->ifindex;
		else
			ct->orig_ifindex = skb->ifindex;
		return NEXT;
	}
	if (known && point_from_net(pkt) && !(pkt->flags & PKT_RELATED))
		return wag_drop(pkt, WAG_DROP_SPOOFED_SOURCE);
	return NEXT;
}

/* An ICMP error of a flow nobody knows is the stack's, if it is the sender's own. */
static __always_inline int track_unknown(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct wag_pkt *pkt = &scratch->pkt;

	if (!(pkt->flags & PKT_RELATED))
		return NEXT;
	if (pkt->point == WAG_POINT_FROM_POD && !sender_is_pod(skb, scratch))
		return wag_drop(pkt, WAG_DROP_SPOOFED_SOURCE);
	return PASS;
}

/*
 * Nobody has answered a flow that is no Service's: what it was sent to may have become one since.
 * A masqueraded flow's answers are noted elsewhere; it is asked for too.
 */
static __always_inline bool track_unanswered(const struct wag_pkt *pkt, const struct wag_ct *ct,
					     bool reply)
{
	return !reply && !ct->svc_id && !(ct->flags & (WAG_CT_SEEN_REPLY | WAG_CT_NODE_PORT)) &&
	       !(pkt->flags & PKT_RELATED) &&
	       (pkt->tuple.proto != IPPROTO_TCP || pkt->flags & PKT_SYN);
}

/* The flow begins anew with this packet. */
static __always_inline void track_forget(struct wag_scratch *scratch)
{
	struct wag_ct *ct = bpf_map_lookup_elem(&wag_ct, &scratch->key);

	if (ct && !cfg.dry_run)
		ct_account(-ct_remove(&scratch->key, ct, &scratch->pair));
	scratch->pkt.flags &= ~(PKT_TRACKED | PKT_UNANSWERED);
}

static __always_inline int stage_track(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct wag_ct_key *key = &scratch->key;
	struct wag_pkt *pkt = &scratch->pkt;
	bool hi, reply, rewrite;
	struct wag_ct *ct;
	int v;

	pkt_clock(pkt);
	hi = ct_key_of(key, &pkt->tuple);
	ct = bpf_map_lookup_elem(&wag_ct, key);
	if (ct && ct->flags & WAG_CT_REWRITE_REPLY && point_is_source(pkt) &&
	    hi == !!(ct->flags & WAG_CT_ORIG_HI)) {
		/* The sender talks to the backend itself from the port a translated flow uses. */
		key->alias = 1;
		pkt->flags |= PKT_ALIAS;
		ct = bpf_map_lookup_elem(&wag_ct, key);
	}
	if (!ct)
		return track_unknown(skb, scratch);
	reply = hi != !!(ct->flags & WAG_CT_ORIG_HI);
	rewrite = ct->flags & (reply ? WAG_CT_REWRITE_REPLY : WAG_CT_REWRITE_ORIG | WAG_CT_DSR);
	if ((v = track_sender(skb, scratch, ct, reply)) != NEXT)
		return v;
	if (!rewrite && (pkt->flags & PKT_RELATED || point_to_net(pkt)))
		return PASS; /* the pod's own hooks follow it */
	if (ct_stale(pkt, key, &scratch->pair, ct, reply)) {
		if (!cfg.dry_run)
			ct_account(-ct_remove(key, ct, &scratch->pair));
		return track_unknown(skb, scratch);
	}
	if (!(pkt->flags & PKT_RELATED)) {
		if (ct->policy_epoch != scratch->epoch &&
		    (v = policy_again(skb, scratch, ct)) != NEXT)
			return v;
		ct_update(pkt, ct, reply);
	}
	pkt->flags |= PKT_TRACKED | (reply ? PKT_REPLY : 0);
	if (track_unanswered(pkt, ct, reply))
		pkt->flags |= PKT_UNANSWERED;
	if (ct->flags & WAG_CT_NODE_PORT)
		pkt->flags |= PKT_NODE_PORT;
	pkt->svc_index = ct->svc_index;
	pkt->svc_id = ct->svc_id;
	if (!rewrite)
		return NEXT;
	pkt->xlat.saddr = ct->xsaddr;
	pkt->xlat.daddr = ct->xdaddr;
	pkt->xlat.sport = ct->xsport;
	pkt->xlat.dport = ct->xdport;
	pkt->xlat.proto = pkt->tuple.proto;
	pkt->flags |= ct->flags & WAG_CT_DSR ? PKT_DSR : PKT_NAT;
	return NEXT;
}
