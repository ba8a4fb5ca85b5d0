/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Remembers a new flow: one entry if it is not translated, two if it is (waggle/abi_maps.h). */
#pragma once

#include <asm-generic/errno-base.h>
#include "conntrack.h"
#include "packet.h"
#include "stage_track.h"

#define SNAT_TRIES 16
/* Ports tried when the client's own is taken. */
#define SNAT_PORT_MIN 32768
#define SNAT_PORTS 28000

/* The flow entry: under what the packet leaves as; rewrites replies if the flow is translated. */
static __always_inline void flow_entry(const struct wag_pkt *pkt, struct wag_ct_key *key,
				       struct wag_ct *ct)
{
	if (!(pkt->flags & PKT_NAT)) {
		ct->flags = ct_key_of(key, &pkt->tuple) ? WAG_CT_ORIG_HI : 0;
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

#define COMMIT_DONE 0
#define COMMIT_RACED 1 /* another CPU has just committed this very flow */

/*
 * Puts in the flow entry, first of the two, with NOEXIST: a reply tuple somebody else owns (the
 * same client port through another frontend to the same backend) gives the flow another source
 * port. Returns COMMIT_* or -errno; -EEXIST: no port was free.
 */
static __always_inline long commit_flow(struct wag_pkt *pkt, struct wag_scratch *scratch)
{
	long err = -EEXIST;

	for (int i = 0; i < SNAT_TRIES; i++) {
		flow_entry(pkt, &scratch->key, &scratch->ct);
		if (i || !(pkt->flags & PKT_ALIAS)) {
			err = bpf_map_update_elem(&wag_ct, &scratch->key, &scratch->ct,
						  BPF_NOEXIST);
			if (!err)
				return COMMIT_DONE;
			if (err != -EEXIST)
				return err;
			if (!(pkt->flags & PKT_NAT) || same_flow(&scratch->key, &scratch->ct))
				return COMMIT_RACED;
		}
		pkt->xlat.sport = bpf_htons(SNAT_PORT_MIN + bpf_get_prandom_u32() % SNAT_PORTS);
	}
	return err;
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
	}
	return err;
}

/* A flow that is not translated can go on untracked; a translated one could not be answered. */
static __always_inline int commit_failed(struct wag_pkt *pkt, enum wag_map_id map, long err)
{
	count_map_error(map, err);
	if (!(pkt->flags & PKT_NAT))
		return NEXT;
	return err == -EEXIST ? wag_drop(pkt, WAG_DROP_SNAT_EXHAUSTED) :
				wag_drop(pkt, WAG_DROP_CT_FULL);
}

/* Room, flow entry, ring slot, frontend entry: in this order, so that the hand knows every entry.
 */
static __noinline int commit(struct wag_scratch *scratch)
{
	struct wag_pkt *pkt;
	struct wag_ct *ct;
	long slot, err;
	int need;

	if (!scratch)
		return DROP;
	pkt = &scratch->pkt;
	ct = &scratch->ct;
	need = pkt->flags & PKT_NAT ? 2 : 1;
	slot = ct_take_slot(pkt->now, need);
	if (slot < 0)
		return commit_failed(pkt, WAG_MAP_CT_RING, -ENOSPC);
	__builtin_memset(ct, 0, sizeof(*ct));
	ct->seen_ns = ct->created_ns = pkt->now;
	ct->svc_index = pkt->svc_index;
	ct->svc_id = pkt->svc_id;
	ct->slot = slot;
	err = commit_flow(pkt, scratch);
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

static __always_inline int stage_commit(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct wag_pkt *pkt = &scratch->pkt;

	if (pkt->flags & PKT_TRACKED)
		return NEXT;
	if (point_is_net(pkt) && !(pkt->flags & PKT_NAT))
		return PASS; /* neither a Service's nor a pod's */
	if (!(pkt->flags & PKT_SYN) && ct_migrating())
		return wag_drop(pkt, WAG_DROP_CT_MIGRATING);
	if (pkt->flags & PKT_ALIAS && !(pkt->flags & PKT_NAT)) {
		pkt->xlat = pkt->tuple;
		pkt->flags |= PKT_NAT;
	}
	pkt->flags |= PKT_NEW;
	pkt->xlat.proto = pkt->tuple.proto;
	return cfg.dry_run ? NEXT : commit(scratch);
}
