/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Remembers a new flow: one entry if it is not translated, two if it is (waggle/abi_maps.h). */
#pragma once

#include <asm-generic/errno.h>
#include "conntrack.h"
#include "packet.h"
#include "scratch.h"
#include "stage_track.h"

#define SNAT_TRIES 48
/* Ports tried when the client's own is taken; how many is a prime, so that any stride meets all. */
#define SNAT_PORT_MIN 32768
#define SNAT_PORTS 27997

/* The flow entry: under what the packet leaves as; rewrites replies if the flow is translated. */
static __always_inline void flow_entry(const struct wag_pkt *pkt, struct wag_ct_key *key,
				       struct wag_ct *ct)
{
	if (!(pkt->flags & PKT_NAT)) {
		ct->flags = ct_key_of(key, &pkt->tuple) ? WAG_CT_ORIG_HI : 0;
		if (pkt->flags & PKT_DSR) {
			ct->flags |= WAG_CT_DSR;
			ct->xsaddr = pkt->xlat.saddr;
			ct->xdaddr = pkt->xlat.daddr;
			ct->xsport = pkt->xlat.sport;
			ct->xdport = pkt->xlat.dport;
		}
		return;
	}
	ct->flags = ct_key_of(key, &pkt->xlat) ? WAG_CT_ORIG_HI : 0;
	ct->flags |= WAG_CT_REWRITE_REPLY;
	ct->xsaddr = pkt->tuple.daddr;
	ct->xdaddr = pkt->tuple.saddr;
	ct->xsport = pkt->tuple.dport;
	ct->xdport = pkt->tuple.sport;
	if (pkt->flags & PKT_ALIAS)
		ct->flags |= WAG_CT_ALIASED;
	if (pkt->flags & PKT_NODE_PORT)
		ct->flags |= WAG_CT_NODE_PORT;
	if (pkt->xlat.sport != pkt->tuple.sport || !addr_equal(&pkt->xlat.saddr, &pkt->tuple.saddr))
		ct->flags |= WAG_CT_SNAT;
}

/* Is the entry that stands under our key the one this very flow made a moment ago? */
static __always_inline bool same_flow(const struct wag_ct_key *key, const struct wag_ct *mine)
{
	struct wag_ct *ct = bpf_map_lookup_elem(&wag_ct, key);

	return ct && ct->xsport == mine->xsport && ct->xdport == mine->xdport &&
	       addr_equal(&ct->xsaddr, &mine->xsaddr) && addr_equal(&ct->xdaddr, &mine->xdaddr);
}

/* Another CPU was first with this very flow: the node it has chosen stands. */
static __always_inline void dsr_follow(struct wag_pkt *pkt, const struct wag_ct_key *key)
{
	struct wag_ct *ct = bpf_map_lookup_elem(&wag_ct, key);

	if (!ct || !(ct->flags & WAG_CT_DSR))
		return;
	pkt->xlat.daddr = ct->xdaddr;
	pkt->xlat.dport = ct->xdport;
}

/* A port of the source that can be rewritten: an ICMP request has its identifier for one. */
static __always_inline bool has_source_port(const struct wag_pkt *pkt)
{
	return tuple_has_ports(&pkt->tuple) || (pkt_is_icmp(pkt) && !pkt->tuple.dport);
}

/*
 * Where the search for a port begins, and its stride, follow from whom it is for: a client's
 * packets that race each other meet at one port, and clients do not get into each other's way.
 */
static __always_inline __u32 snat_hash(const struct wag_tuple *t)
{
	__u32 hash = t->saddr.w[3] ^ t->saddr.w[1] ^ t->daddr.w[3] * 3;

	hash = (hash ^ hash >> 15) * 0x9e3779b1U;
	hash ^= t->sport | (__u32)t->dport << 16;
	hash = (hash ^ hash >> 15) * 0x85ebca6bU;
	return hash ^ hash >> 13;
}

static __always_inline __be16 snat_port(__u32 hash, __u32 i)
{
	__u32 stride = 1 + (hash >> 16) % (SNAT_PORTS - 1);

	return bpf_htons(SNAT_PORT_MIN + (hash % SNAT_PORTS + i * stride) % SNAT_PORTS);
}

/*
 * Would the reply belong to a socket of the node itself? The device's network namespace is the
 * node's. Other protocols' sockets cannot be asked for: see node_claims.
 */
static __always_inline bool node_has_socket(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	const struct wag_tuple *t = &scratch->pkt.xlat;
	struct bpf_sock_tuple *reply = &scratch->sock;
	struct bpf_sock *sock;
	__u32 size;

	if (t->proto != IPPROTO_TCP && t->proto != IPPROTO_UDP)
		return false;
	if (scratch->pkt.flags & PKT_V6) {
		__builtin_memcpy(reply->ipv6.saddr, &t->daddr, sizeof(reply->ipv6.saddr));
		__builtin_memcpy(reply->ipv6.daddr, &t->saddr, sizeof(reply->ipv6.daddr));
		reply->ipv6.sport = t->dport;
		reply->ipv6.dport = t->sport;
		size = sizeof(reply->ipv6);
	} else {
		reply->ipv4.saddr = t->daddr.w[3];
		reply->ipv4.daddr = t->saddr.w[3];
		reply->ipv4.sport = t->dport;
		reply->ipv4.dport = t->sport;
		size = sizeof(reply->ipv4);
	}
	if (t->proto == IPPROTO_TCP)
		sock = bpf_skc_lookup_tcp(skb, reply, size, BPF_F_CURRENT_NETNS, 0);
	else
		sock = bpf_sk_lookup_udp(skb, reply, size, BPF_F_CURRENT_NETNS, 0);
	if (!sock)
		return false;
	bpf_sk_release(sock);
	return true;
}

/* May the packet's sender use the i-th port? Its own is its own, unless the address is not. */
static __always_inline bool port_free(struct __sk_buff *skb, struct wag_scratch *scratch, __u32 i)
{
	const struct wag_pkt *pkt = &scratch->pkt;

	if (!(pkt->flags & PKT_NAT))
		return true;
	if (!i) {
		if (pkt->flags & PKT_ALIAS)
			return false;
		if (addr_equal(&pkt->xlat.saddr, &pkt->tuple.saddr))
			return true;
	}
	return !node_has_socket(skb, scratch);
}

#define COMMIT_DONE 0
#define COMMIT_RACED 1 /* another CPU has just committed this very flow */
#define COMMIT_AGAIN 2 /* the port is taken */

/* One try of commit_flow. Global, so that the verifier walks it once (see ct_visit). */
__noinline long commit_try(struct __sk_buff *skb, __u32 i)
{
	struct wag_scratch *scratch = scratch_find();
	struct wag_pkt *pkt;
	long err;

	if (!scratch)
		return -EINVAL;
	pkt = &scratch->pkt;
	if (i)
		pkt->xlat.sport = snat_port(snat_hash(&pkt->tuple), i);
	if (port_free(skb, scratch, i)) {
		flow_entry(pkt, &scratch->key, &scratch->ct);
		err = bpf_map_update_elem(&wag_ct, &scratch->key, &scratch->ct, BPF_NOEXIST);
		if (err != -EEXIST)
			return err; /* COMMIT_DONE among them */
		if (pkt->flags & PKT_DSR)
			dsr_follow(pkt, &scratch->key);
		if (!(pkt->flags & PKT_NAT) || same_flow(&scratch->key, &scratch->ct))
			return COMMIT_RACED;
	}
	return has_source_port(pkt) ? COMMIT_AGAIN : -EPROTONOSUPPORT;
}

/*
 * Puts in the flow entry, first of the two, with NOEXIST: a reply tuple somebody else owns (the
 * same client port through another frontend to the same backend, another masqueraded pod, the node
 * itself) gives the flow another source port. Returns COMMIT_* or -errno; -EEXIST: no port was
 * free; -EPROTONOSUPPORT: the protocol has none.
 */
static __always_inline long commit_flow(struct __sk_buff *skb)
{
	for (__u32 i = 0; i < SNAT_TRIES; i++) {
		long r = commit_try(skb, i);

		if (r != COMMIT_AGAIN)
			return r;
	}
	return -EEXIST;
}

static __always_inline long commit_frontend(struct wag_pkt *pkt, struct wag_scratch *scratch)
{
	struct wag_ct *ct = &scratch->frontend, *theirs;
	struct wag_ct_key *key = &scratch->pair;
	bool hi = ct_key_of(key, &pkt->tuple);
	long err;

	key->alias = !!(pkt->flags & PKT_ALIAS);
	*ct = scratch->ct;
	ct->flags = (ct->flags & (WAG_CT_SNAT | WAG_CT_NODE_PORT)) | WAG_CT_REWRITE_ORIG |
		    (hi ? WAG_CT_ORIG_HI : 0);
	ct->reply_ifindex = 0; /* nobody sends from the frontend */
	ct->xsaddr = pkt->xlat.saddr;
	ct->xdaddr = pkt->xlat.daddr;
	ct->xsport = pkt->xlat.sport;
	ct->xdport = pkt->xlat.dport;
	err = bpf_map_update_elem(&wag_ct, key, ct, BPF_NOEXIST);
	if (err == -EEXIST && (theirs = bpf_map_lookup_elem(&wag_ct, key))) {
		/* Another CPU was first with this very flow: its choice stands. */
		pkt->xlat.saddr = theirs->xsaddr;
		pkt->xlat.daddr = theirs->xdaddr;
		pkt->xlat.sport = theirs->xsport;
		pkt->xlat.dport = theirs->xdport;
		pkt->flags &= ~(PKT_JUDGED | PKT_TO_POD);
	}
	return err;
}

/* A flow that is not translated can go on untracked; a translated one could not be answered. */
static __always_inline int commit_failed(struct wag_pkt *pkt, enum wag_map_id map, long err)
{
	if (err == -EPROTONOSUPPORT)
		return wag_drop(pkt, WAG_DROP_MASQUERADE_PROTO);
	count_map_error(map, err);
	if (!(pkt->flags & (PKT_NAT | PKT_DSR)))
		return NEXT;
	return err == -EEXIST ? wag_drop(pkt, WAG_DROP_SNAT_EXHAUSTED) :
				wag_drop(pkt, WAG_DROP_CT_FULL);
}

/* Room, flow entry, ring slot, frontend entry: in this order, so that the hand knows every entry.
 */
static __noinline int commit(struct __sk_buff *skb, struct wag_scratch *scratch, long slot,
			     int need)
{
	struct wag_pkt *pkt;
	struct wag_ct *ct;
	long err;

	if (!scratch)
		return DROP;
	pkt = &scratch->pkt;
	ct = &scratch->ct;
	__builtin_memset(ct, 0, sizeof(*ct));
	ct->seen_ns = ct->created_ns = pkt->now;
	ct->svc_index = pkt->svc_index;
	ct->svc_id = pkt->svc_id;
	ct->slot = slot;
	ct->policy_epoch = scratch->epoch;
	ct->orig_ifindex = scratch->sender_ifindex;
	ct->reply_ifindex = pkt->flags & PKT_TO_POD ? scratch->to.ifindex : 0;
	err = commit_flow(skb);
	if (err) {
		ct_account(-need);
		return err == COMMIT_RACED ? NEXT : commit_failed(pkt, WAG_MAP_CT, err);
	}
	/* A short connection may be over by then. */
	ct_fill_slot(slot, &scratch->key,
		     pkt->now + (scratch->key.proto == IPPROTO_TCP ?
					 cfg.tcp_closing_ns :
					 ct_timeout_ns(0, scratch->key.proto)));
	if (need == 1)
		return NEXT;
	err = commit_frontend(pkt, scratch);
	if (!err)
		return NEXT;
	bpf_map_delete_elem(&wag_ct, &scratch->key);
	ct_account(-need);
	return err == -EEXIST ? NEXT : commit_failed(pkt, WAG_MAP_CT, err);
}

/*
 * The node's own flows are remembered where no socket can be asked for: no pod is masqueraded as
 * what is theirs already.
 */
static __always_inline bool node_claims(const struct wag_pkt *pkt)
{
	return pkt->point == WAG_POINT_TO_NET && pkt->tuple.proto != IPPROTO_TCP &&
	       pkt->tuple.proto != IPPROTO_UDP &&
	       (pkt->flags & PKT_V6 ? cfg.masquerade_v6 : cfg.masquerade_v4);
}

static __always_inline int stage_commit(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct wag_pkt *pkt = &scratch->pkt;
	long slot;
	int need;

	if (pkt->flags & PKT_TRACKED)
		return NEXT;
	if (point_is_net(pkt) && !(pkt->flags & (PKT_NAT | PKT_DSR | PKT_ALIAS | PKT_TO_POD)) &&
	    !node_claims(pkt))
		return PASS; /* neither a Service's nor a pod's */
	if (!(pkt->flags & PKT_SYN) && ct_migrating())
		return wag_drop(pkt, WAG_DROP_CT_MIGRATING);
	if (pkt->flags & PKT_ALIAS && !(pkt->flags & PKT_NAT)) {
		pkt->xlat = pkt->tuple;
		pkt->flags |= PKT_NAT;
	}
	pkt->flags |= PKT_NEW;
	if (cfg.dry_run)
		return NEXT;
	need = pkt->flags & PKT_NAT ? 2 : 1;
	/* From here, not from commit: 5.10 allows 512 bytes of stack to all calls. */
	slot = ct_take_slot(pkt->now, need);
	if (slot < 0)
		return commit_failed(pkt, WAG_MAP_CT_RING, -ENOSPC);
	return commit(skb, scratch, slot, need);
}
