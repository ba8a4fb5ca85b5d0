/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The conntrack table and its ageing, which needs no agent (docs/maps.md "Conntrack").
 *
 * Every flow entry stands in one slot of a ring. Each insert moves a hand over a few slots, retires
 * the expired flows it meets and takes a free slot for the new one, so the table cleans itself as
 * fast as it is filled. When the table is nearly full, half-open flows (no handshake, no reply)
 * give way, the oldest the hand meets first; a live flow never does.
 */
#pragma once

#include "maps.h"
#include "packet.h"

#define CT_HAND_STEP 4	  /* slots claimed and looked at in one go */
#define CT_HAND_STEPS 128 /* steps of one insert, at most */
#define CT_HAND_WALK 16	  /* after so many in vain the hand leaps: the living stand in a row here */
#define CT_RECHECK_NS (30 * NSEC_PER_SEC)
#define CT_SEEN_GRAIN_NS (1ULL << 29) /* about 0.5 s: no store for younger news */

#define CT_HALF_OPEN_BIT 1ULL /* in wag_ct_slot.check_ns: was half-open when last looked at */

/* Canonical order of the two ends. Returns true if the source is the hi end. */
static __always_inline bool ct_key_set(struct wag_ct_key *key, const struct wag_addr *s,
				       const struct wag_addr *d, __be16 sport, __be16 dport,
				       __u8 proto)
{
	bool hi;

	if (s->d[1] != d->d[1])
		hi = s->d[1] > d->d[1];
	else if (s->d[0] != d->d[0])
		hi = s->d[0] > d->d[0];
	else
		hi = sport > dport;
	key->lo = hi ? *d : *s;
	key->hi = hi ? *s : *d;
	key->lo_port = hi ? dport : sport;
	key->hi_port = hi ? sport : dport;
	key->proto = proto;
	key->alias = 0;
	key->pad = 0;
	return hi;
}

static __always_inline bool ct_key_of(struct wag_ct_key *key, const struct wag_tuple *t)
{
	return ct_key_set(key, &t->saddr, &t->daddr, t->sport, t->dport, t->proto);
}

/* The key of the other entry of a translated flow. */
static __always_inline void ct_pair_key(struct wag_ct_key *pair, __u8 proto,
					const struct wag_ct *ct)
{
	ct_key_set(pair, &ct->xsaddr, &ct->xdaddr, ct->xsport, ct->xdport, proto);
	pair->alias = !!(ct->flags & WAG_CT_ALIASED);
}

static __always_inline bool ct_closing(__u32 flags)
{
	return flags & WAG_CT_RST || (flags & (WAG_CT_FIN_ORIG | WAG_CT_FIN_REPLY)) ==
					     (WAG_CT_FIN_ORIG | WAG_CT_FIN_REPLY);
}

static __always_inline bool ct_half_open(__u32 flags, __u8 proto)
{
	return !(flags & (proto == IPPROTO_TCP ? WAG_CT_ASSURED : WAG_CT_SEEN_REPLY));
}

/* How long a flow lives after its last packet; flags are those of both its entries. */
static __always_inline __u64 ct_timeout_ns(__u32 flags, __u8 proto)
{
	if (proto == IPPROTO_TCP) {
		if (ct_closing(flags))
			return cfg.tcp_closing_ns;
		/* The other side's end is not seen here. */
		if (flags & WAG_CT_DSR && flags & WAG_CT_FIN_ORIG)
			return cfg.tcp_syn_ns;
		return flags & WAG_CT_ASSURED ? cfg.tcp_established_ns : cfg.tcp_syn_ns;
	}
	if (proto == IPPROTO_UDP)
		return flags & (WAG_CT_SEEN_REPLY | WAG_CT_DSR) ? cfg.udp_stream_ns : cfg.udp_ns;
	return cfg.other_ns;
}

/* Removes a flow by any of its entries; pair is scratch. Returns how many entries went. */
static __always_inline int ct_remove(const struct wag_ct_key *key, const struct wag_ct *ct,
				     struct wag_ct_key *pair)
{
	int gone = 0;

	if (ct->flags & (WAG_CT_REWRITE_ORIG | WAG_CT_REWRITE_REPLY)) {
		ct_pair_key(pair, key->proto, ct);
		gone += !bpf_map_delete_elem(&wag_ct, pair);
	}
	gone += !bpf_map_delete_elem(&wag_ct, key);
	return gone;
}

static __always_inline void ct_account(int delta)
{
	struct wag_ct_clock *clock;
	__u32 zero = 0;

	if (!delta)
		return;
	clock = bpf_map_lookup_elem(&wag_ct_clock, &zero);
	if (!clock)
		return;
	bpf_spin_lock(&clock->lock);
	clock->used += delta;
	bpf_spin_unlock(&clock->lock);
}

/*
 * Looks at the flow of one ring slot. Returns how many entries it removed (then the slot is free),
 * or 0: the flow lives on. With pressure, a half-open flow is removed too.
 *
 * This and ct_take_slot are global functions, so that the verifier looks at each once and not once
 * for every turn of the hand; before Linux 5.12 such functions take scalars only.
 */
__noinline int ct_visit(__u32 index, __u64 now, __u32 pressure)
{
	struct wag_ct_slot *slot = bpf_map_lookup_elem(&wag_ct_ring, &index);
	struct wag_ct_key pair, *key;
	struct wag_ct *ct, *other;
	__u64 seen, timeout;
	__u32 flags;
	int gone;

	if (!slot)
		return 0;
	key = &slot->key; /* the slot is ours alone while the hand is on it */
	ct = bpf_map_lookup_elem(&wag_ct, key);
	if (!ct || ct->slot != index) { /* gone, or opened anew since and in another slot */
		key->proto = 0;
		return 0;
	}
	/* First, while little else is live: 5.10 allows 512 bytes of stack to all calls. */
	ct_pair_key(&pair, key->proto, ct);
	flags = ct->flags;
	seen = ct->seen_ns;
	if (flags & WAG_CT_REWRITE_REPLY) {
		other = bpf_map_lookup_elem(&wag_ct, &pair);
		if (other) {
			flags |= other->flags;
			if (other->seen_ns > seen)
				seen = other->seen_ns;
		}
	}
	timeout = ct_timeout_ns(flags, key->proto);
	if (seen + timeout <= now || (pressure && ct_half_open(flags, key->proto))) {
		gone = ct_remove(key, ct, &pair);
		key->proto = 0;
		return gone;
	}
	if (ct_half_open(flags, key->proto))
		slot->check_ns = (seen + timeout) | CT_HALF_OPEN_BIT;
	else
		slot->check_ns = (now + (timeout < CT_RECHECK_NS ? timeout : CT_RECHECK_NS)) &
				 ~CT_HALF_OPEN_BIT;
	return 0;
}

/*
 * One step of the hand: looks at CT_HAND_STEP slots. With deficit, half-open flows go until that
 * many entries are gone; with all, no flow is taken to be alive without a look. Returns entries
 * gone << 32 | index + 1 of a free slot (0: none).
 */
__noinline __u64 ct_step(__u64 now, __u32 hand, __u32 deficit, __u32 all)
{
	__u32 found = 0, gone = 0;

	for (__u32 i = 0; i < CT_HAND_STEP; i++) {
		__u32 index = (hand + i) & (cfg.ct_entries - 1);
		struct wag_ct_slot *slot = bpf_map_lookup_elem(&wag_ct_ring, &index);
		bool pressure = gone < deficit;

		if (!slot)
			break;
		if (slot->key.proto) {
			__u64 check = slot->check_ns;

			if (now < check && !all && !(pressure && check & CT_HALF_OPEN_BIT))
				continue;
			gone += ct_visit(index, now, pressure);
		}
		if (!slot->key.proto)
			found = index + 1;
	}
	return (__u64)gone << 32 | found;
}

#define CT_TURN_ENOUGH (1ULL << 63)

/*
 * The i-th turn of the hand for one flow, after `gone` entries went: moves it, and looks. Returns
 * what ct_step does, and CT_TURN_ENOUGH if there is room for the flow now.
 */
__noinline __u64 ct_turn(__u64 now, __u32 i, __u32 need, __u32 gone)
{
	__u32 zero = 0, hand, leap, room;
	struct wag_ct_clock *clock = bpf_map_lookup_elem(&wag_ct_clock, &zero);
	__u32 limit = cfg.ct_entries - cfg.ct_entries / 64 + gone;
	__u64 step;

	if (!clock)
		return 0;
	leap = i < CT_HAND_WALK ? 0 : bpf_get_prandom_u32() & ~(CT_HAND_STEP - 1);
	bpf_spin_lock(&clock->lock);
	hand = clock->hand + leap;
	clock->hand = hand + CT_HAND_STEP;
	room = clock->used + need;
	bpf_spin_unlock(&clock->lock);
	room = room > limit ? room - limit : 0;
	/* With room in the table, slots without a flow must be somewhere. */
	step = ct_step(now, hand, room, i >= CT_HAND_WALK && !room);
	return step | (step >> 32 >= room ? CT_TURN_ENOUGH : 0);
}

/*
 * Makes room for one flow of `need` entries and counts them. Returns the index of a ring slot that
 * is the caller's alone to fill, or -1 when everything the hand met is alive.
 */
__noinline long ct_take_slot(__u64 now, __u32 need)
{
	__u32 gone = 0, found = 0;
	bool enough = false;

	for (__u32 i = 0; i < CT_HAND_STEPS && !(found && enough); i++) {
		__u64 turn = ct_turn(now, i, need, gone);

		enough = turn >> 63;
		gone += turn << 1 >> 33;
		if ((__u32)turn)
			found = turn;
	}
	if (!enough)
		found = 0;
	ct_account((found ? need : 0) - gone);
	return (long)found - 1;
}

/* Gives a taken slot its flow; the hand looks at it from check_ns on. */
static __always_inline void ct_fill_slot(long index, const struct wag_ct_key *key, __u64 check_ns)
{
	__u32 at = index;
	struct wag_ct_slot *slot = bpf_map_lookup_elem(&wag_ct_ring, &at);

	if (!slot)
		return;
	slot->key = *key;
	slot->check_ns = check_ns | CT_HALF_OPEN_BIT;
}
