/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the policies of this node's pods say of a flow, by the tables of abi_policy.h: which ruleset
 * a pod has, whose the other end's address is, what the ruleset says to it, and then to the port.
 * Asked once for a flow, and once more when the tables have changed: scratch->epoch.
 */
#pragma once

#include "maps.h"
#include "packet.h"

enum policy_dir { POLICY_INGRESS, POLICY_EGRESS };

static __always_inline bool is_node(const struct wag_addr *addr)
{
	return bpf_map_lookup_elem(&wag_node_addr, addr);
}

/* Who the peer is: its identity. other: its own policies, where it is a pod of this node. */
static __always_inline __u32 policy_identity(struct wag_scratch *scratch,
					     const struct wag_addr *peer,
					     const struct wag_policy *other)
{
	struct policy_ask *ask = &scratch->ask;
	struct wag_ipcache *known;
	__u32 identity;

	ask->unknown = 0;
	identity = other ? other->identity[!addr_is_v4(peer)] : 0;
	if (identity)
		return identity;
	ask->who.bits = 32 + 128;
	ask->who.gen = wag_policy_gen(scratch->epoch);
	for (int i = 0; i < 4; i++)
		ask->who.addr[i] = peer->w[i];
	known = bpf_map_lookup_elem(&wag_ipcache, &ask->who);
	ask->unknown = known && known->flags & WAG_IPCACHE_UNKNOWN;
	return known ? known->identity : 0;
}

static __always_inline __u32 policy_port(struct wag_scratch *scratch, __u32 profile)
{
	struct policy_ask *ask = &scratch->ask;
	__u32 *verdict;

	ask->at.bits = 96;
	ask->at.gen = wag_policy_gen(scratch->epoch);
	ask->at.profile = profile;
	ask->at.proto = bpf_htons(ask->proto);
	ask->at.port = ask->port;
	verdict = bpf_map_lookup_elem(&wag_port_exact, &ask->at);
	if (!verdict)
		verdict = bpf_map_lookup_elem(&wag_port, &ask->at);
	return verdict ? *verdict : WAG_VERDICT(WAG_VERDICT_ISOLATED, 0);
}

/* What the pod's ruleset of one direction says. */
static __always_inline __u32 policy_side(struct wag_scratch *scratch, const struct wag_policy *pod,
					 const struct wag_policy *other, enum policy_dir dir)
{
	struct policy_ask *ask = &scratch->ask;
	__u32 verdict = pod->verdict[dir], *found;

	ask->rule.gen = wag_policy_gen(scratch->epoch);
	ask->rule.ruleset = pod->ruleset[dir];
	ask->rule.identity = policy_identity(
		scratch, dir == POLICY_INGRESS ? &ask->client : &ask->server, other);
	if (ask->rule.identity) {
		found = bpf_map_lookup_elem(&wag_rule, &ask->rule);
		if (found)
			verdict = *found;
	}
	if (WAG_VERDICT_ACTION(verdict) == WAG_VERDICT_PORTS)
		verdict = policy_port(scratch, WAG_VERDICT_RULE(verdict));
	return verdict;
}

static __always_inline void policy_count(const struct policy_ask *ask, __u32 verdict)
{
	__u32 rule = WAG_VERDICT_RULE(verdict);
	struct wag_stat *stat = bpf_map_lookup_elem(&wag_rule_stat, &rule);

	if (stat && !cfg.dry_run) {
		stat->packets++;
		stat->bytes += ask->len;
	}
}

static __always_inline int policy_drop(struct wag_scratch *scratch, __u32 verdict)
{
	struct wag_pkt *pkt = &scratch->pkt;

	if (WAG_VERDICT_ACTION(verdict) == WAG_VERDICT_DENY)
		return wag_drop(pkt, WAG_DROP_POLICY_DENY);
	if (scratch->ask.unknown)
		return wag_drop(pkt, WAG_DROP_IDENTITY_UNKNOWN);
	return wag_drop(pkt, WAG_DROP_POLICY_DENIED);
}

static __always_inline struct wag_policy *policy_of(const struct wag_scratch *scratch,
						    enum policy_dir dir)
{
	struct wag_policy_key key = { .ep_id = scratch->ask.ep[dir],
				      .gen = wag_policy_gen(scratch->epoch) };

	return key.ep_id ? bpf_map_lookup_elem(&wag_policy, &key) : NULL;
}

/* One end: NEXT, or a drop. */
static __always_inline int policy_end(struct wag_scratch *scratch, const struct wag_policy *pod,
				      const struct wag_policy *other, enum policy_dir dir)
{
	struct policy_ask *ask = &scratch->ask;
	__u32 verdict;

	if (!pod || !pod->ruleset[dir])
		return NEXT;
	verdict = policy_side(scratch, pod, other, dir);
	if (WAG_VERDICT_ACTION(verdict) != WAG_VERDICT_ALLOW && dir == POLICY_INGRESS &&
	    cfg.policy & WAG_POLICY_CFG_NODE && is_node(&ask->client))
		verdict = WAG_VERDICT(WAG_VERDICT_ALLOW, 0);
	scratch->judged[dir] = verdict;
	policy_count(ask, verdict);
	if (WAG_VERDICT_ACTION(verdict) == WAG_VERDICT_ALLOW)
		return NEXT;
	if (cfg.policy & WAG_POLICY_CFG_AUDIT || pod->flags & WAG_POLICY_AUDIT) {
		scratch->pkt.flags |= PKT_AUDIT;
		return NEXT;
	}
	return policy_drop(scratch, verdict);
}

/* Both ends of scratch->ask, each where it is a pod of this node. Nobody is kept from itself. */
static __noinline int policy_judge(struct wag_scratch *scratch)
{
	struct wag_policy *from, *to;
	int v;

	if (!scratch)
		return DROP;
	if (scratch->ask.ep[POLICY_INGRESS] == scratch->ask.ep[POLICY_EGRESS])
		return NEXT;
	from = policy_of(scratch, POLICY_EGRESS);
	to = policy_of(scratch, POLICY_INGRESS);
	v = policy_end(scratch, from, to, POLICY_EGRESS);
	return v == NEXT ? policy_end(scratch, to, from, POLICY_INGRESS) : v;
}

/* The flow of a conntrack entry, as its first packet was: the entry tells who began it. */
static __always_inline void policy_flow(struct wag_scratch *scratch, const struct wag_ct *ct)
{
	const struct wag_ct_key *key = &scratch->key;
	struct policy_ask *ask = &scratch->ask;
	bool hi = ct->flags & WAG_CT_ORIG_HI;

	ask->client = hi ? key->hi : key->lo;
	ask->server = hi ? key->lo : key->hi;
	ask->port = hi ? key->lo_port : key->hi_port;
	ask->proto = key->proto;
	if (ct->flags & WAG_CT_REWRITE_REPLY) {
		ask->client = ct->xdaddr;
	} else if (ct->flags & WAG_CT_REWRITE_ORIG) {
		ask->server = ct->xdaddr;
		ask->port = ct->xdport;
	}
}

/* A known flow under other tables than it was judged by. */
static __noinline int policy_again(struct __sk_buff *skb, struct wag_scratch *scratch,
				   struct wag_ct *ct)
{
	struct policy_ask *ask;
	struct wag_pod *pod;
	int v;

	if (!scratch || !ct)
		return DROP;
	ask = &scratch->ask;
	policy_flow(scratch, ct);
	ask->len = skb->len;
	pod = bpf_map_lookup_elem(&wag_pods, &ask->client);
	ask->ep[POLICY_EGRESS] = pod ? pod->ep_id : 0;
	pod = bpf_map_lookup_elem(&wag_pods, &ask->server);
	ask->ep[POLICY_INGRESS] = pod ? pod->ep_id : 0;
	v = policy_judge(scratch);
	if (v == NEXT && !cfg.dry_run)
		ct->policy_epoch = scratch->epoch;
	return v;
}
