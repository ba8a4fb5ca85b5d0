/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the last packets of busy flows came to, for each CPU: a packet like one that was looked up a
 * moment ago goes the same way, past conntrack, routes and neighbours. What begins or ends a
 * connection takes the long way, and so does one packet of every flow in FLOW_CACHE_TICKS: it keeps
 * conntrack's times and the kernel's neighbour entry fresh, and sees what has changed.
 *
 * A flow has four places it may stand in. Where more flows are busy than the cache holds, asking it
 * only costs: each hit earns the right to ask again, each miss spends one, and who has none left
 * asks for one packet in FLOW_CACHE_PROBE.
 */
#pragma once

#include "maps.h"
#include "packet.h"
#include "stage_route.h"
#include "stage_track.h"

#define FLOW_CACHE_TICKS 32 /* of the kernel's clock, which is free to read: 32 to 320 ms */
#define FLOW_CACHE_PLACES 4
#define FLOW_CACHE_PROBE 16
#define FLOW_CACHE_CREDIT 4096

/* One line of the processor's cache tells whether it is the flow, the next where it goes. */
struct wag_cached {
	struct wag_tuple tuple;
	__u64 until; /* in ticks */
	__u32 ifindex; /* where it came in: nobody else's packet is taken for one of the flow */
	__u32 flags;   /* of wag_pkt */
	__u8 point;
	__u8 next;
	__u8 pad[2];
	__u32 epoch; /* of the policies it was judged by */

	struct route_hop hop;
	__u32 svc_index, svc_id;
	__be16 xsport, xdport;
	__u8 pad2[4];
	__u64 device_until; /* stage_pack.h */
};

/* The rest of those that are translated: whoever is not touches two lines only. */
struct wag_cached_xlat {
	struct wag_addr saddr, daddr;
};

_Static_assert(sizeof(struct wag_cached) == 128, "two lines of 64 bytes");
_Static_assert(sizeof(struct wag_cached) + sizeof(struct wag_cached_xlat) == WAG_FLOW_CACHE_BYTES,
	       "what the agent reckons with");

/*
 * WAG_FLOW_CACHE entries for each CPU, one after the other. Not a per-CPU array: that allots each
 * entry alone, so that most of them lie across lines; a mappable array begins on a page.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct wag_cached);
} wag_flow_cache SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct wag_cached_xlat);
} wag_flow_xlat SEC(".maps");

#define CACHED_FLAGS (PKT_TRACKED | PKT_REPLY | PKT_NAT | PKT_DSR | PKT_NODE_PORT)

static __always_inline bool flow_cacheable(const struct wag_pkt *pkt)
{
	return cfg.flow_cache_mask && !cfg.dry_run && pkt->flags & PKT_PLAIN &&
	       !(pkt->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST));
}

static __always_inline __u64 flow_cache_hash(const struct wag_tuple *t)
{
	__u64 hash = t->saddr.d[1] * 0x9e3779b97f4a7c15ULL ^ t->daddr.d[1];

	hash = (hash ^ (__u64)t->sport << 32 ^ t->dport) * 0xff51afd7ed558ccdULL;
	return (hash ^ hash >> 32) * 0xc4ceb9fe1a85ec53ULL; /* of which the upper half is good */
}

/* One of this CPU's places for a flow of that hash: two far apart, then the neighbour of each. */
static __always_inline __u32 flow_cache_at(__u64 hash, int place)
{
	__u32 at = (hash >> (place & 1 ? 32 : 48) ^ place >> 1) & cfg.flow_cache_mask;

	return at + bpf_get_smp_processor_id() * (cfg.flow_cache_mask + 1);
}

static __always_inline bool flow_cache_is(const struct wag_cached *c, const struct wag_pkt *pkt,
					  __u32 ifindex)
{
	const __u64 *a = (const __u64 *)&c->tuple, *b = (const __u64 *)&pkt->tuple;

	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4])) &&
	       c->ifindex == ifindex && c->point == pkt->point;
}

static __always_inline bool flow_cache_pays(struct cache_luck *luck)
{
	if (!luck->credit)
		return ++luck->skipped % FLOW_CACHE_PROBE == 0;
	luck->credit--;
	return true;
}

static __always_inline void flow_cache_paid(struct cache_luck *luck)
{
	if (luck->credit < FLOW_CACHE_CREDIT)
		luck->credit += 3;
}

/* at: its place, or the last one asked. */
static __always_inline struct wag_cached *flow_cache_entry(const struct wag_pkt *pkt,
							   __u32 ifindex, __u32 *at)
{
	__u64 hash = flow_cache_hash(&pkt->tuple);
	struct wag_cached *c;

	for (int place = 0; place < FLOW_CACHE_PLACES; place++) {
		*at = flow_cache_at(hash, place);
		c = bpf_map_lookup_elem(&wag_flow_cache, at);
		if (c && flow_cache_is(c, pkt, ifindex))
			return c;
	}
	return NULL;
}

static __always_inline bool flow_cache_xlat(struct wag_pkt *pkt, const struct wag_cached *c,
					    __u32 at)
{
	const struct wag_cached_xlat *x = bpf_map_lookup_elem(&wag_flow_xlat, &at);

	if (!x)
		return false;
	pkt->xlat.saddr = x->saddr;
	pkt->xlat.daddr = x->daddr;
	pkt->xlat.sport = c->xsport;
	pkt->xlat.dport = c->xdport;
	return true;
}

/* UDP leaves a backend that is gone with its next packet. */
static __always_inline bool flow_may_move(__u8 proto, __u32 flags)
{
	return proto == IPPROTO_UDP && flags & (PKT_NAT | PKT_DSR) && !(flags & PKT_REPLY);
}

/* pkt->xlat is the flow's. */
static __always_inline bool flow_moved(const struct wag_cached *c, const struct wag_pkt *pkt)
{
	struct wag_backend_key key = {
		.addr = pkt->xlat.daddr,
		.svc_id = c->svc_id,
		.port = pkt->xlat.dport,
		.proto = IPPROTO_UDP,
	};

	return flow_may_move(pkt->tuple.proto, c->flags) && c->svc_id &&
	       !bpf_map_lookup_elem(&wag_backend, &key);
}

/*
 * Like a packet of a moment ago? Then scratch->verdict is set, and pkt says what a trace wants to
 * know. Else the way is to be found, and kept by flow_cache_keep().
 */
static __always_inline bool flow_cache_find(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct wag_pkt *pkt = &scratch->pkt;
	struct wag_cached *c;
	__u32 at;

	scratch->hop.kind = HOP_NONE;
	scratch->cache_ask = 0;
	if (!flow_cacheable(pkt) || !flow_cache_pays(&scratch->luck))
		return false;
	scratch->cache_ask = 1;
	c = flow_cache_entry(pkt, skb->ifindex, &at);
	if (!c || bpf_jiffies64() >= c->until || c->epoch != scratch->epoch)
		return false;
	if (c->flags & (PKT_NAT | PKT_DSR) && (!flow_cache_xlat(pkt, c, at) || flow_moved(c, pkt)))
		return false;
	flow_cache_paid(&scratch->luck);
	if (!route_hop_take(skb, scratch, &c->hop))
		return false;
	pkt->flags |= c->flags;
	pkt->svc_index = c->svc_index;
	pkt->svc_id = c->svc_id;
	pkt->next = c->next;
	return true;
}

/* A hostPort's pod has no entry in wag_backend to ask for: stage_track.h asks otherwise. */
static __always_inline bool flow_is_hostport(const struct wag_pkt *pkt)
{
	return flow_may_move(pkt->tuple.proto, pkt->flags) && !pkt->svc_id &&
	       pkt->flags & PKT_NODE_PORT;
}

/* Where the flow stands, or may: nobody who is still good is turned out. NULL: nowhere. */
static __always_inline struct wag_cached *flow_cache_place(const struct wag_pkt *pkt,
							   __u32 ifindex, __u32 *at)
{
	__u64 hash = flow_cache_hash(&pkt->tuple), now = bpf_jiffies64();
	struct wag_cached *c;

	for (int place = 0; place < FLOW_CACHE_PLACES; place++) {
		*at = flow_cache_at(hash, place);
		c = bpf_map_lookup_elem(&wag_flow_cache, at);
		if (c && (now >= c->until || flow_cache_is(c, pkt, ifindex)))
			return c;
	}
	return NULL;
}

static __always_inline void flow_cache_keep(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct wag_pkt *pkt = &scratch->pkt;
	struct wag_cached_xlat *x;
	struct wag_cached *c;
	__u32 at;

	if (!scratch->cache_ask || !(pkt->flags & PKT_TRACKED) || pkt->flags & PKT_FIRST_REPLY ||
	    scratch->hop.kind == HOP_NONE || flow_is_hostport(pkt))
		return;
	c = flow_cache_place(pkt, skb->ifindex, &at);
	if (!c)
		return;
	x = bpf_map_lookup_elem(&wag_flow_xlat, &at);
	if (!x)
		return;
	x->saddr = pkt->xlat.saddr;
	x->daddr = pkt->xlat.daddr;
	c->tuple = pkt->tuple;
	c->xsport = pkt->xlat.sport;
	c->xdport = pkt->xlat.dport;
	c->flags = pkt->flags & CACHED_FLAGS;
	c->until = bpf_jiffies64() + FLOW_CACHE_TICKS;
	c->epoch = scratch->epoch;
	c->ifindex = skb->ifindex;
	c->svc_index = pkt->svc_index;
	c->svc_id = pkt->svc_id;
	c->hop = scratch->hop;
	c->point = pkt->point;
	c->next = pkt->next;
}
