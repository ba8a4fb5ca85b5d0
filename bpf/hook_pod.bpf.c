// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The host side of a pod's veth: wag_from_pod at its ingress, wag_to_pod at its egress. */
#include <asm-generic/errno-base.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"
#include "packet.h"
#include "scratch.h"
#include "stage_parse.h"
#include "stage_track.h"
#include "stage_service.h"
#include "stage_policy.h"
#include "stage_masquerade.h"
#include "stage_commit.h"
#include "stage_nat.h"
#include "stage_route.h"
#include "flow_cache.h"
#include "stage_pack.h"
#include "stage_limit.h"
#include "stage_finish.h"

/*
 * What belongs to no flow goes to the stack, but not with somebody else's source address, nor out
 * of the cluster with the pod's.
 */
static __noinline int untracked_from_pod(struct __sk_buff *skb, struct wag_scratch *s, int v)
{
	if (v != PASS || addr_is_zero(&s->pkt.tuple.saddr)) /* not IP */
		return v;
	if (!sender_is_pod(skb, s))
		return wag_drop(&s->pkt, WAG_DROP_SPOOFED_SOURCE);
	return masquerade_untracked(skb, s);
}

/* Where a packet goes that is like none of a moment ago. */
static __noinline int find_from_pod(struct __sk_buff *skb, struct wag_scratch *s)
{
	int v;

	if ((v = stage_track(skb, s)) != NEXT) /* a known flow brings its translation */
		return untracked_from_pod(skb, s, v);
	if ((v = stage_service(skb, s)) != NEXT) /* new flow only: frontend -> backend */
		return v;
	if ((v = stage_policy(skb, s)) != NEXT) /* new flow only: may it be? */
		return v;
	if ((v = stage_masquerade(skb, s)) != NEXT) /* new flow only: out of the cluster */
		return v;
	if ((v = stage_commit(skb, s)) != NEXT) /* new flow only: remember it */
		return v;
	if ((v = route_from_pod(skb, s)) != NEXT) /* another pod, another node, or the stack */
		return v;
	flow_cache_keep(skb, s);
	return NEXT;
}

SEC("tc")
int wag_from_pod(struct __sk_buff *skb)
{
	struct wag_scratch *s;
	int v;

	/* A link that takes a filter's place: what it has translated the filter lets by. */
	if ((skb->mark & WAG_MARK_MASK) == WAG_MARK_TRANSLATED ||
	    (skb->mark & WAG_MARK_MASK) == WAG_MARK_FROM_POD)
		return PASS;
	s = scratch_get(WAG_POINT_FROM_POD);
	if (!s)
		return DROP;
	if ((v = stage_parse(skb, &s->pkt)) != NEXT) { /* headers -> pkt.tuple and offsets */
		v = untracked_from_pod(skb, s, v);
		goto out;
	}
	if (!flow_cache_find(skb, s) && /* as a packet a moment ago went */
	    (v = find_from_pod(skb, s)) != NEXT)
		goto out;
	if ((v = stage_nat(skb, s)) != NEXT) /* addresses, ports, checksums */
		goto out;
	v = stage_pack(skb, s);
	/* To the tunnel's device it comes without a key: that is still to be set. */
	if (v == PASS && s->pkt.flags & PKT_NAT && !cfg.dry_run &&
	    (skb->mark & WAG_MARK_MASK) != WAG_MARK_TRANSLATED)
		skb_set_mark(skb, WAG_MARK_FROM_POD);
out:
	v = stage_limit(skb, s, v); /* a pod with a limit: when, or not at all */
	return stage_finish(skb, s, v); /* counters and event, only here */
}

SEC("tc")
int wag_to_pod(struct __sk_buff *skb)
{
	struct wag_scratch *s;
	int v;

	/* Translated where it came in: its tuple may be another flow's now. */
	if ((skb->mark & WAG_MARK_MASK) == WAG_MARK_TRANSLATED)
		return PASS;
	s = scratch_get(WAG_POINT_TO_POD);
	if (!s)
		return DROP;
	if ((v = stage_parse(skb, &s->pkt)) != NEXT)
		goto out;
	if ((v = stage_track(skb, s)) != NEXT)
		goto out;
	if ((v = stage_policy(skb, s)) != NEXT)
		goto out;
	if ((v = stage_commit(skb, s)) !=
	    NEXT) /* the node's or an outside client's flow to the pod */
		goto out;
	if ((v = stage_nat(skb, s)) != NEXT) /* a reply the stack brought */
		goto out;
	v = PASS;
out:
	return stage_finish(skb, s, v);
}

struct ct_record {
	struct wag_ct_key key;
	struct wag_ct ct;
};

#define CT_ADOPT_MAX 16

/*
 * Takes over conntrack entries of an older table: the agent runs it (BPF_PROG_TEST_RUN) with
 * ct_records as the packet's bytes. One writer for the ring, whoever fills the table.
 */
SEC("tc")
int wag_ct_adopt(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_ns();
	int taken = 0;

	for (__u32 i = 0; i < CT_ADOPT_MAX; i++) {
		struct ct_record record;
		long slot = -1;

		if (bpf_skb_load_bytes(skb, i * sizeof(record), &record, sizeof(record)) < 0)
			break;
		if (!record.key.proto)
			continue;
		if (record.ct.flags & WAG_CT_REWRITE_ORIG) {
			ct_account(1);
		} else {
			slot = ct_take_slot(now, 1);
			if (slot < 0) {
				count_map_error(WAG_MAP_CT_RING, -ENOSPC);
				continue;
			}
			record.ct.slot = slot;
		}
		if (bpf_map_update_elem(&wag_ct, &record.key, &record.ct, BPF_NOEXIST)) {
			ct_account(-1);
			continue;
		}
		if (slot >= 0)
			ct_fill_slot(slot, &record.key, now);
		taken++;
	}
	return taken;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
