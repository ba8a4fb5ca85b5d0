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

/* One line of the processor's cache, all that a packet touches which is not translated. */
struct wag_cached {
	struct wag_tuple tuple;
	__u64 until; /* in ticks */
	__u32 ifindex; /* where it came in: nobody else's packet is taken for one of the flow */
	__u32 epoch;   /* of the policies it was judged by */
	__u16 flags;   /* of wag_pkt */
	__u16 max_len; /* longer packets ask again; 0: none does */
	__u16 hop;     /* in wag_flow_hop */
	__u8 point;
	__u8 next;
};

/* The rest of those that are translated. */
struct wag_cached_xlat {
	struct wag_addr saddr, daddr;
	__be16 sport, dport;
	__u32 svc_index, svc_id;
	__u32 pad;
	__u64 device_until; /* stage_pack.h */
};

/* Where many flows go. It stays for as long as one of them is good: theirs is never later. */
struct wag_cached_hop {
	struct route_hop hop;
	__u64 until; /* in ticks */
};

_Static_assert(sizeof(struct wag_cached) == 64, "a line");
_Static_assert(sizeof(struct wag_cached) + sizeof(struct wag_cached_xlat) == WAG_FLOW_CACHE_BYTES,
	       "what the agent reckons with");
_Static_assert(WAG_FLOW_CACHE <= 0x10000 && WAG_FLOW_HOPS <= 0x10000, "hash_place()");

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

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct wag_cached_hop);
} wag_flow_hop SEC(".maps");

#define CACHED_FLAGS (PKT_TRACKED | PKT_REPLY | PKT_NAT | PKT_DSR | PKT_NODE_PORT)
_Static_assert(CACHED_FLAGS <= 0xffff, "wag_cached.flags");

static __always_inline bool flow_cacheable(const struct wag_pkt *pkt)
{
	return cfg.flow_cache_mask && !cfg.dry_run && pkt->flags & PKT_PLAIN &&
	       !(pkt->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST));
}

#define HASH_1 0x9e3779b97f4a7c15ULL
#define HASH_2 0xff51afd7ed558ccdULL
#define HASH_3 0xc4ceb9fe1a85ec53ULL

static __always_inline __u32 hash_fold(__u64 d)
{
	return d ^ d >> 32;
}

/*
 * Of which the upper half is good. A sum of products, which do not wait for one another: with it
 * begins the wait for memory.
 */
static __always_inline __u64 flow_cache_hash(const struct wag_tuple *t)
{
	return hash_fold(t->saddr.d[1]) * HASH_1 + hash_fold(t->daddr.d[1]) * HASH_2 +
	       *(const __u32 *)&t->sport * HASH_3; /* both ports */
}

/* Of this hash: two neighbours, and two more far from them; mask: 16 bits at most. */
static __always_inline __u32 hash_place(__u64 hash, int place, __u32 mask)
{
	return (hash >> (place & 2 ? 32 : 48) ^ (place & 1)) & mask;
}

/* Where a CPU's places for flows begin. */
static __always_inline __u32 flow_cache_base(__u32 cpu)
{
	return cpu * (cfg.flow_cache_mask + 1);
}

/* A tuple, or a hop: 40 bytes, without a branch for each word. */
static __always_inline bool five_words_equal(const void *one, const void *other)
{
	const __u64 *a = one, *b = other;

	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]));
}

_Static_assert(sizeof(struct wag_tuple) == 40 && sizeof(struct route_hop) == 40, "five words");

static __always_inline bool flow_cache_is(const struct wag_cached *c, const struct wag_pkt *pkt,
					  __u32 ifindex)
{
	return five_words_equal(&c->tuple, &pkt->tuple) && c->ifindex == ifindex &&
	       c->point == pkt->point;
}

static __always_inline bool flow_cache_pays(struct cache_luck *luck)
{
	return luck->credit || ++luck->skipped % FLOW_CACHE_PROBE == 0;
}

static __always_inline void flow_cache_paid(struct cache_luck *luck)
{
	if (luck->credit < FLOW_CACHE_CREDIT)
		luck->credit += 2;
}

static __always_inline void flow_cache_cost(struct cache_luck *luck)
{
	if (luck->credit)
		luck->credit--;
}

/* at: its place, or the last one asked. */
static __always_inline struct wag_cached *
flow_cache_entry(const struct wag_pkt *pkt, __u32 ifindex, __u32 cpu, __u32 *at)
{
	__u64 hash = flow_cache_hash(&pkt->tuple);
	__u32 base = flow_cache_base(cpu);
	struct wag_cached *c;

#pragma unroll
	for (int place = 0; place < FLOW_CACHE_PLACES; place++) {
		*at = base + hash_place(hash, place, cfg.flow_cache_mask);
		c = bpf_map_lookup_elem(&wag_flow_cache, at);
		if (c && flow_cache_is(c, pkt, ifindex))
			return c;
	}
	return NULL;
}

static __always_inline bool flow_cache_xlat(struct wag_pkt *pkt, __u32 at)
{
	const struct wag_cached_xlat *x = bpf_map_lookup_elem(&wag_flow_xlat, &at);

	if (!x)
		return false;
	pkt->xlat.saddr = x->saddr;
	pkt->xlat.daddr = x->daddr;
	pkt->xlat.sport = x->sport;
	pkt->xlat.dport = x->dport;
	pkt->xlat.proto = pkt->tuple.proto;
	pkt->svc_index = x->svc_index;
	pkt->svc_id = x->svc_id;
	return true;
}

/* UDP leaves a backend that is gone with its next packet. */
static __always_inline bool flow_may_move(__u8 proto, __u32 flags)
{
	return proto == IPPROTO_UDP && flags & (PKT_NAT | PKT_DSR) && !(flags & PKT_REPLY);
}

static __noinline bool backend_is_gone(const struct wag_pkt *pkt)
{
	struct wag_backend_key key = {
		.addr = pkt->xlat.daddr,
		.svc_id = pkt->svc_id,
		.port = pkt->xlat.dport,
		.proto = IPPROTO_UDP,
	};

	return !bpf_map_lookup_elem(&wag_backend, &key);
}

/* pkt->xlat and svc_id are the flow's. */
static __always_inline bool flow_moved(const struct wag_cached *c, const struct wag_pkt *pkt)
{
	return flow_may_move(pkt->tuple.proto, c->flags) && pkt->svc_id && backend_is_gone(pkt);
}

static __always_inline const struct route_hop *flow_cache_hop(const struct wag_cached *c, __u32 cpu)
{
	__u32 at = cpu * WAG_FLOW_HOPS + c->hop;
	const struct wag_cached_hop *known = bpf_map_lookup_elem(&wag_flow_hop, &at);

	return known ? &known->hop : NULL;
}

static __always_inline bool flow_cache_take(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	__u32 cpu = bpf_get_smp_processor_id(), at;
	struct wag_pkt *pkt = &scratch->pkt;
	const struct route_hop *hop;
	struct wag_cached *c;

	c = flow_cache_entry(pkt, skb->ifindex, cpu, &at);
	if (!c || bpf_jiffies64() >= c->until || c->epoch != scratch->epoch)
		return false;
	hop = flow_cache_hop(c, cpu);
	if (!hop)
		return false;
	if (c->flags & (PKT_NAT | PKT_DSR) && (!flow_cache_xlat(pkt, at) || flow_moved(c, pkt)))
		return false;
	flow_cache_paid(&scratch->luck);
	if (!route_hop_take(skb, scratch, hop, c->max_len))
		return false;
	pkt->flags |= c->flags;
	pkt->next = c->next;
	return true;
}

/*
 * Like a packet of a moment ago? Then scratch->verdict is set, and pkt says what a trace wants to
 * know. Else the way is to be found, and kept by flow_cache_keep().
 */
static __always_inline bool flow_cache_find(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	bool ask = flow_cacheable(&scratch->pkt) && flow_cache_pays(&scratch->luck);

	if (ask) {
		if (flow_cache_take(skb, scratch))
			return true;
		flow_cache_cost(&scratch->luck);
	}
	scratch->cache_ask = ask;
	scratch->pkt.svc_index = scratch->pkt.svc_id = 0;
	__builtin_memset(&scratch->hop, 0, sizeof(scratch->hop));
	return false;
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
	__u32 base = flow_cache_base(bpf_get_smp_processor_id());
	struct wag_cached *c;

	for (int place = 0; place < FLOW_CACHE_PLACES; place++) {
		*at = base + hash_place(hash, place, cfg.flow_cache_mask);
		c = bpf_map_lookup_elem(&wag_flow_cache, at);
		if (c && (now >= c->until || flow_cache_is(c, pkt, ifindex)))
			return c;
	}
	return NULL;
}

static __always_inline __u64 flow_hop_hash(const struct route_hop *hop)
{
	const __u64 *d = (const __u64 *)hop;

	return hash_fold(d[0]) * HASH_1 + hash_fold(d[1]) * HASH_2 +
	       hash_fold(d[2] ^ d[3] ^ d[4]) * HASH_3;
}

/* Where the hop stands from now on, for FLOW_CACHE_TICKS at least; -1: nowhere. */
static __always_inline int flow_hop_keep(const struct route_hop *hop, __u64 now)
{
	__u32 base = bpf_get_smp_processor_id() * WAG_FLOW_HOPS;
	__u64 hash = flow_hop_hash(hop);

	for (int place = 0; place < FLOW_CACHE_PLACES; place++) {
		__u32 i = hash_place(hash, place, WAG_FLOW_HOPS - 1), at = base + i;
		struct wag_cached_hop *known = bpf_map_lookup_elem(&wag_flow_hop, &at);

		if (!known || (now < known->until && !five_words_equal(&known->hop, hop)))
			continue;
		known->hop = *hop;
		known->until = now + FLOW_CACHE_TICKS;
		return i;
	}
	return -1;
}

static __always_inline void flow_cache_keep_xlat(const struct wag_pkt *pkt, __u32 at)
{
	struct wag_cached_xlat *x = bpf_map_lookup_elem(&wag_flow_xlat, &at);

	if (!x)
		return;
	x->saddr = pkt->xlat.saddr;
	x->daddr = pkt->xlat.daddr;
	x->sport = pkt->xlat.sport;
	x->dport = pkt->xlat.dport;
	x->svc_index = pkt->svc_index;
	x->svc_id = pkt->svc_id;
}

static __noinline int flow_cache_keep(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct wag_pkt *pkt = &scratch->pkt;
	__u64 now = bpf_jiffies64();
	struct wag_cached *c;
	__u32 at;
	int hop;

	if (!scratch->cache_ask || !(pkt->flags & PKT_TRACKED) || pkt->flags & PKT_FIRST_REPLY ||
	    scratch->hop.kind == HOP_NONE || flow_is_hostport(pkt))
		return 0;
	c = flow_cache_place(pkt, skb->ifindex, &at);
	hop = c ? flow_hop_keep(&scratch->hop, now) : -1;
	if (hop < 0)
		return 0;
	if (pkt->flags & (PKT_NAT | PKT_DSR))
		flow_cache_keep_xlat(pkt, at);
	c->tuple = pkt->tuple;
	c->until = now + FLOW_CACHE_TICKS;
	c->ifindex = skb->ifindex;
	c->epoch = scratch->epoch;
	c->flags = pkt->flags & CACHED_FLAGS;
	c->max_len = scratch->hop_max_len < 0xffff ? scratch->hop_max_len : 0xffff;
	c->hop = hop;
	c->point = pkt->point;
	c->next = pkt->next;
	return 0;
}
