// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The one collect-metadata tunnel device: what other nodes sent packed at its ingress, what the
 * node itself (or its stack) sends to their pods at its egress. Pods' packets get their tunnel key
 * in wag_from_pod and are not seen by wag_to_tunnel's journey again.
 */
#include <asm-generic/errno-base.h>
#include <linux/bpf.h>
#include <linux/if_packet.h>
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

/* Only the cluster's nodes are believed; of a stranger's packet the event shows the outside. */
static __noinline int unpacked(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	struct bpf_tunnel_key *key = &scratch->tunnel;
	struct wag_pkt *pkt = &scratch->pkt;
	struct wag_tuple *t = &pkt->tuple;

	if ((skb->mark & WAG_MARK_MASK) == WAG_MARK_PUT_BACK) {
		skb_set_mark(skb, 0);
		return NEXT;
	}
	if (!bpf_skb_get_tunnel_key(skb, key, TUNNEL_KEY_SIZE, 0)) {
		addr_from_v4(&t->saddr, bpf_htonl(key->remote_ipv4));
	} else if (!bpf_skb_get_tunnel_key(skb, key, TUNNEL_KEY_SIZE, BPF_F_TUNINFO_IPV6)) {
		__builtin_memcpy(&t->saddr, key->remote_ipv6, sizeof(t->saddr));
	} else {
		return wag_drop(pkt, WAG_DROP_UNKNOWN_TUNNEL_SOURCE);
	}
	if (key->tunnel_id == cfg.tunnel_vni && bpf_map_lookup_elem(&wag_nodes, &t->saddr))
		return NEXT;
	pkt->flags |= addr_is_v4(&t->saddr) ? 0 : PKT_V6;
	node_source(pkt, &t->daddr);
	t->proto = IPPROTO_UDP;
	t->dport = cfg.tunnel_port;
	return wag_drop(pkt, WAG_DROP_UNKNOWN_TUNNEL_SOURCE);
}

/* Where a packet goes that is like none of a moment ago. */
static __noinline int find_from_tunnel(struct __sk_buff *skb, struct wag_scratch *s)
{
	int v;

	if ((v = stage_track(skb, s)) != NEXT)
		return v;
	if ((v = stage_service(skb, s)) != NEXT)
		return v;
	if ((v = stage_policy(skb, s)) != NEXT)
		return v;
	if ((v = stage_masquerade(skb, s)) != NEXT)
		return v;
	if ((v = stage_commit(skb, s)) != NEXT)
		return v;
	if ((v = route_from_net(skb, s)) != NEXT)
		return v;
	flow_cache_keep(skb, s);
	return NEXT;
}

SEC("tc")
int wag_from_tunnel(struct __sk_buff *skb)
{
	struct wag_scratch *s = scratch_get(WAG_POINT_FROM_TUNNEL);
	int v;

	if (!s)
		return DROP;
	if ((v = unpacked(skb, s)) != NEXT) /* who packed it? */
		goto out;
	if ((v = stage_parse(skb, &s->pkt)) != NEXT)
		goto out;
	if (!flow_cache_find(skb, s) && (v = find_from_tunnel(skb, s)) != NEXT)
		goto out;
	if ((v = stage_nat(skb, s)) != NEXT)
		goto out;
	v = stage_pack(skb, s);
out:
	/*
	 * The Ethernet address is the sender's pod's to fill, so the device took the packet for
	 * somebody else's. The stack would drop it, that of a pod behind bpf_redirect_peer() too:
	 * Linux 5.10 does not look again there.
	 */
	if (v != DROP)
		bpf_skb_change_type(skb, PACKET_HOST);
	return stage_finish(skb, s, v);
}

/* The node's own packets meet their Services here, as at any other device. */
static __always_inline int find_from_node(struct __sk_buff *skb, struct wag_scratch *s)
{
	int v;

	if ((v = stage_track(skb, s)) != NEXT)
		return v;
	if ((v = stage_service(skb, s)) != NEXT)
		return v;
	if ((v = stage_policy(skb, s)) != NEXT)
		return v;
	return stage_commit(skb, s);
}

SEC("tc")
int wag_to_tunnel(struct __sk_buff *skb)
{
	struct wag_scratch *s;
	int v;

	limit_pace(skb); /* the device takes the mapping, and leaves the time, to what it packs */
	if ((skb->mark & WAG_MARK_MASK) == WAG_MARK_TRANSLATED)
		return PASS; /* it has its key */
	s = scratch_get(WAG_POINT_TO_TUNNEL);
	if (!s)
		return DROP;
	if ((v = stage_parse(skb, &s->pkt)) == DROP)
		goto out;
	/* Forwarded packets met their hook where they came in. */
	if (v == NEXT && !skb->ingress_ifindex)
		v = find_from_node(skb, s);
	if (v == DROP)
		goto out;
	if ((v = route_to_tunnel(skb, s)) != NEXT)
		goto out;
	if ((v = stage_nat(skb, s)) != NEXT)
		goto out;
	v = stage_pack(skb, s);
out:
	return stage_finish(skb, s, v);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
