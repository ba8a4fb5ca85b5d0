/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Only the first fragment of a datagram has ports. It leaves them in wag_frag, where the later ones
 * find them. One that comes before its first is held, byte by byte, in wag_frag_hold; when the
 * first one comes, it and all that wait for it are put back where they came in, in that order, and
 * then each finds its ports. docs/packet-walk.md "Fragments".
 */
#pragma once

#include <asm-generic/errno-base.h>
#include "maps.h"
#include "packet.h"
#include "scratch.h"

#define FRAG_PORTS_NS (60 * NSEC_PER_SEC) /* RFC 8200 4.5: a receiver waits so long */
#define FRAG_HOLD_NS NSEC_PER_SEC	  /* what is out of order for longer is lost */

/* What tells the fragments of one datagram from others: RFC 791 2.3, RFC 8200 4.5. */
static __always_inline void frag_key(const struct wag_pkt *pkt, struct wag_frag_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->saddr = pkt->tuple.saddr;
	key->daddr = pkt->tuple.daddr;
	key->id = pkt->frag_id;
	key->proto = pkt->flags & PKT_V6 ? 0 : pkt->tuple.proto;
}

static __always_inline bool frag_key_equal(const struct wag_frag_key *a,
					   const struct wag_frag_key *b)
{
	return a->id == b->id && addr_equal(&a->saddr, &b->saddr) &&
	       addr_equal(&a->daddr, &b->daddr) && a->proto == b->proto;
}

static __always_inline bool frag_ports(struct wag_pkt *pkt)
{
	struct wag_frag_key key;
	struct wag_frag *known;

	frag_key(pkt, &key);
	known = bpf_map_lookup_elem(&wag_frag, &key);
	if (!known || pkt->now > known->time_ns + FRAG_PORTS_NS)
		return false;
	pkt->tuple.sport = known->sport;
	pkt->tuple.dport = known->dport;
	pkt->tuple.proto = known->proto;
	return true;
}

/* The ways of one set follow each other; the first of them counts those that are taken. */
static __always_inline __u32 frag_set(const struct wag_frag_key *key)
{
	__u32 h = key->id ^ key->saddr.w[3] ^ key->daddr.w[3] ^ key->saddr.w[1] ^ key->daddr.w[1];

	h *= 0x9e3779b1;
	return (h >> 16) % WAG_FRAG_HOLD_SETS * WAG_FRAG_HOLD_WAYS;
}

static __always_inline void frag_free(struct wag_frag_hold *first, struct wag_frag_hold *h)
{
	bpf_spin_lock(&h->lock);
	h->state = WAG_FRAG_FREE;
	bpf_spin_unlock(&h->lock);
	__sync_fetch_and_add(&first->held, -1);
}

static __always_inline bool frag_expired(const struct wag_frag_hold *h, __u64 now)
{
	return now > h->time_ns + FRAG_HOLD_NS;
}

/*
 * The bounds one by one: merged into one comparison, as compilers do, Linux 5.10 loses the lower
 * one ("invalid access to map value, size=0").
 */
static __always_inline bool frag_len_fits(__u64 *len)
{
	asm volatile("" : "+r"(*len));
	if (*len > WAG_FRAG_HOLD_MAX)
		return false;
	asm volatile("" : "+r"(*len));
	return *len >= ETH_HLEN;
}

/* Its first fragment has not come in time, or others needed the room. */
static __always_inline void frag_lost(const struct wag_frag_hold *h)
{
	struct wag_event *e;

	count_packet(h->point, WAG_DROP_FRAG_NOT_FOUND, h->len);
	if (!cfg.events)
		return;
	e = bpf_ringbuf_reserve(&wag_events, sizeof(*e), 0);
	if (!e) {
		count_map_error(WAG_MAP_EVENTS, -ENOSPC);
		return;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->time_ns = bpf_ktime_get_ns();
	e->type = WAG_EVENT_DROP;
	e->point = h->point;
	e->reason = WAG_DROP_FRAG_NOT_FOUND;
	e->flags = addr_is_v4(&h->key.saddr) ? 0 : WAG_EVENT_F_IPV6;
	e->len = h->len;
	e->ifindex = h->ifindex;
	e->line = __LINE__;
	e->orig.saddr = h->key.saddr;
	e->orig.daddr = h->key.daddr;
	e->orig.proto = h->proto;
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

/*
 * Takes one way for a frame that must wait: free, timed out, or (evict) somebody else's. It is the
 * caller's alone until it gets another state. Global, as what follows of it is in a loop: the
 * verifier looks at it once.
 */
__noinline int frag_take_way(__u32 at, __u64 now, int evict)
{
	__u32 set = at - at % WAG_FRAG_HOLD_WAYS, was;
	struct wag_frag_hold *first = bpf_map_lookup_elem(&wag_frag_hold, &set);
	struct wag_frag_hold *h = bpf_map_lookup_elem(&wag_frag_hold, &at);

	if (!first || !h)
		return 0;
	bpf_spin_lock(&h->lock);
	was = h->state;
	if (was == WAG_FRAG_FULL && !evict && !frag_expired(h, now))
		was = WAG_FRAG_BUSY;
	if (was != WAG_FRAG_BUSY)
		h->state = WAG_FRAG_BUSY;
	bpf_spin_unlock(&h->lock);
	if (was == WAG_FRAG_BUSY)
		return 0;
	if (was == WAG_FRAG_FULL)
		frag_lost(h);
	else
		__sync_fetch_and_add(&first->held, 1);
	return 1;
}

/* The way taken in the set; where all are in use this moment, one that is none. */
static __always_inline __u32 frag_take(__u32 set, __u64 now)
{
	__u32 at;

	for (__u32 i = 0; i < WAG_FRAG_HOLD_WAYS; i++)
		if (frag_take_way(set + i, now, 0))
			return set + i;
	at = set + bpf_get_prandom_u32() % WAG_FRAG_HOLD_WAYS;
	return frag_take_way(at, now, 1) ? at : WAG_FRAG_HOLD_SLOTS;
}

/* Is it still there? Then it is taken back. */
static __always_inline bool frag_take_back(__u32 set, struct wag_frag_hold *h, __u64 now,
					   const struct wag_frag_key *key)
{
	struct wag_frag_hold *first = bpf_map_lookup_elem(&wag_frag_hold, &set);
	bool mine;

	if (!first)
		return false;
	bpf_spin_lock(&h->lock);
	mine = h->state == WAG_FRAG_FULL && h->time_ns == now && frag_key_equal(&h->key, key);
	if (mine)
		h->state = WAG_FRAG_BUSY;
	bpf_spin_unlock(&h->lock);
	if (mine)
		frag_free(first, h);
	return mine;
}

/* Without room: on the node's devices it may be the node's own, and its stack's to put together. */
static __always_inline int frag_refuse(struct wag_pkt *pkt)
{
	return pkt->point == WAG_POINT_FROM_NET ? PASS : wag_drop(pkt, WAG_DROP_FRAG_NOT_FOUND);
}

/* A later fragment whose first one is unknown. NEXT: it has come just now. */
__noinline int frag_hold(struct __sk_buff *skb)
{
	__u32 zero = 0, set, at;
	__u64 len = skb->len;
	struct wag_scratch *s = bpf_map_lookup_elem(&wag_scratch, &zero);
	struct wag_frag_hold *h;
	struct wag_frag_key key;

	if (!s)
		return DROP;
	if (cfg.dry_run || !frag_len_fits(&len))
		return frag_refuse(&s->pkt);
	frag_key(&s->pkt, &key);
	set = frag_set(&key);
	at = frag_take(set, s->pkt.now);
	h = bpf_map_lookup_elem(&wag_frag_hold, &at);
	if (!h)
		return frag_refuse(&s->pkt);
	h->key = key;
	h->time_ns = s->pkt.now;
	h->ifindex = skb->ifindex;
	h->point = s->pkt.point;
	h->proto = s->pkt.tuple.proto;
	h->len = bpf_skb_load_bytes(skb, 0, h->frame, len) < 0 ? 0 : len;
	bpf_spin_lock(&h->lock);
	h->state = WAG_FRAG_FULL;
	bpf_spin_unlock(&h->lock);
	if (frag_ports(&s->pkt) && frag_take_back(set, h, s->pkt.now, &key))
		return NEXT;
	s->pkt.flags |= PKT_HELD;
	return DROP; /* the frame goes on, this packet does not */
}

/* Of this datagram: it is the caller's then, to be freed. */
static __always_inline bool frag_claim(struct wag_frag_hold *h, const struct wag_frag_key *key,
				       __u64 now)
{
	bool mine = false;

	if (h->state != WAG_FRAG_FULL)
		return false;
	bpf_spin_lock(&h->lock);
	if (h->state == WAG_FRAG_FULL)
		mine = frag_key_equal(&h->key, key) || frag_expired(h, now);
	if (mine)
		h->state = WAG_FRAG_BUSY;
	bpf_spin_unlock(&h->lock);
	return mine;
}

/*
 * If the frame of this way waits for the first fragment of scratch's packet: what skb is goes back
 * to where it came in, and skb becomes that frame. Global, as frag_take_way().
 */
__noinline int frag_swap(struct __sk_buff *skb, __u32 at)
{
	__u32 zero = 0, set = at - at % WAG_FRAG_HOLD_WAYS;
	struct wag_scratch *s = bpf_map_lookup_elem(&wag_scratch, &zero);
	struct wag_frag_hold *first = bpf_map_lookup_elem(&wag_frag_hold, &set);
	struct wag_frag_hold *h = bpf_map_lookup_elem(&wag_frag_hold, &at);
	struct wag_frag_key key;
	__u64 len;
	int r;

	if (!s || !first || !h)
		return 0;
	frag_key(&s->pkt, &key);
	if (!frag_claim(h, &key, s->pkt.now))
		return 0;
	len = h->len;
	if (frag_expired(h, s->pkt.now) || !frag_len_fits(&len)) {
		frag_lost(h);
		frag_free(first, h);
		return 0;
	}
	if (s->pkt.point == WAG_POINT_FROM_TUNNEL)
		skb_set_mark(skb, WAG_MARK_PUT_BACK);
	if (bpf_clone_redirect(skb, s->frag_back, BPF_F_INGRESS) < 0)
		count_packet(h->point, WAG_DROP_FRAG_NOT_FOUND, skb->len);
	s->frag_back = h->ifindex;
	r = bpf_skb_change_tail(skb, len, 0) < 0 ||
	    bpf_skb_store_bytes(skb, 0, h->frame, len, BPF_F_RECOMPUTE_CSUM) < 0;
	frag_free(first, h);
	return r ? -1 : 1;
}

/*
 * The first fragment has come. If others wait for it, a copy of it goes back to where it came in,
 * then each of them but the last, written over what the packet was; the last one is the packet.
 */
__noinline int frag_release(struct __sk_buff *skb)
{
	struct wag_frag_hold *first;
	struct wag_frag_key key;
	struct wag_scratch *s;
	__u32 zero = 0, set;
	int swapped = 0;

	s = bpf_map_lookup_elem(&wag_scratch, &zero);
	if (!s)
		return DROP;
	frag_key(&s->pkt, &key);
	set = frag_set(&key);
	first = bpf_map_lookup_elem(&wag_frag_hold, &set);
	if (!first || first->held == 0)
		return NEXT;
	s->frag_back = skb->ifindex;
	for (__u32 i = 0; i < WAG_FRAG_HOLD_WAYS; i++) {
		int r = frag_swap(skb, set + i);

		if (r < 0)
			return wag_drop(&s->pkt, WAG_DROP_WRITE_ERROR);
		swapped |= r;
	}
	if (!swapped)
		return NEXT;
	s->pkt.flags |= PKT_HELD;
	return bpf_redirect(s->frag_back, BPF_F_INGRESS);
}

static __always_inline bool frag_point_holds(const struct wag_pkt *pkt)
{
	return pkt->point == WAG_POINT_FROM_POD || pkt->point == WAG_POINT_FROM_NET ||
	       pkt->point == WAG_POINT_FROM_TUNNEL;
}

/* The first fragment of a datagram, its ports known. */
static __always_inline int frag_first(struct __sk_buff *skb, struct wag_pkt *pkt)
{
	struct wag_frag ports = {
		.sport = pkt->tuple.sport,
		.dport = pkt->tuple.dport,
		.proto = pkt->tuple.proto,
		.time_ns = pkt->now,
	};
	struct wag_frag_key key;
	long err;

	if (cfg.dry_run)
		return NEXT;
	frag_key(pkt, &key);
	err = bpf_map_update_elem(&wag_frag, &key, &ports, BPF_ANY);
	if (err)
		count_map_error(WAG_MAP_FRAG, err);
	return frag_point_holds(pkt) ? frag_release(skb) : NEXT;
}

/*
 * A later one. What leaves the node's stack leaves in order, or was put in order where it came in:
 * only there is it held.
 */
static __always_inline int frag_later(struct __sk_buff *skb, struct wag_pkt *pkt)
{
	if (frag_ports(pkt))
		return NEXT;
	return frag_point_holds(pkt) ? frag_hold(skb) : PASS;
}
