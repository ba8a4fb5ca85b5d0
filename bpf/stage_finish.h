/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The one exit: counters, the event, and the refusal a drop may carry. */
#pragma once

#include "maps.h"
#include "packet.h"
#include "refuse.h"

static __always_inline __u8 event_ct(const struct wag_pkt *pkt)
{
	if (pkt->flags & PKT_RELATED)
		return WAG_EVENT_CT_RELATED;
	if (pkt->flags & PKT_NEW)
		return WAG_EVENT_CT_NEW;
	if (pkt->flags & PKT_REPLY)
		return WAG_EVENT_CT_REPLY;
	return pkt->flags & PKT_TRACKED ? WAG_EVENT_CT_ESTABLISHED : WAG_EVENT_CT_NONE;
}

static __noinline int emit_packet(struct __sk_buff *skb, struct wag_scratch *scratch, bool drop)
{
	const struct wag_pkt *pkt = &scratch->pkt;
	struct wag_event *e = bpf_ringbuf_reserve(&wag_events, sizeof(*e), 0);

	if (!e) {
		count_map_error(WAG_MAP_EVENTS, -ENOSPC);
		return 0;
	}
	e->time_ns = bpf_ktime_get_ns();
	e->type = drop ? WAG_EVENT_DROP : WAG_EVENT_TRACE;
	e->point = pkt->point;
	e->reason = pkt->reason;
	e->ct = event_ct(pkt);
	e->next = pkt->next;
	e->tcp_flags = pkt->tcp_flags;
	e->icmp_type = pkt->icmp_type;
	e->icmp_code = pkt->icmp_code;
	e->flags = (pkt->flags & PKT_NAT ? WAG_EVENT_F_XLAT : 0) |
		   (pkt->flags & PKT_REPLY ? WAG_EVENT_F_REPLY : 0) |
		   (pkt->flags & PKT_V6 ? WAG_EVENT_F_IPV6 : 0) |
		   (pkt->flags & PKT_REFUSED ? WAG_EVENT_F_REFUSED : 0) |
		   (pkt->flags & PKT_FIRST_REPLY ? WAG_EVENT_F_FIRST_REPLY : 0) |
		   (pkt->flags & PKT_AUDIT ? WAG_EVENT_F_AUDIT : 0);
	e->len = skb->len;
	e->ifindex = skb->ifindex;
	e->svc_index = pkt->svc_index;
	e->svc_id = pkt->svc_id;
	e->line = pkt->line;
	e->ep_id = 0;
	e->epoch = scratch->epoch;
	e->policy[0] = scratch->judged[0];
	e->policy[1] = scratch->judged[1];
	e->orig = pkt->tuple;
	e->xlat = pkt->flags & (PKT_NAT | PKT_DSR) ? pkt->xlat : (struct wag_tuple){};
	e->cookie = 0;
	e->cgroup_id = 0;
	/* No wakeup: thousands of ns (docs/architecture.md); the reader polls. */
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	return 0;
}

#define PKT_TOLD (PKT_NEW | PKT_FIRST_REPLY | PKT_AUDIT)

static __noinline int finish(struct __sk_buff *skb, struct wag_scratch *scratch, int verdict)
{
	struct wag_pkt *pkt = &scratch->pkt;
	bool drop = verdict == DROP;

	if (cfg.dry_run && cfg.events == WAG_EVENTS_DRY)
		emit_packet(skb, scratch, drop);
	if (cfg.dry_run || pkt->flags & PKT_HELD)
		return verdict;
	count_packet(pkt->point, drop ? pkt->reason : WAG_DROP_FORWARDED, skb->len);
	if (cfg.events && (drop || pkt->flags & PKT_TOLD || scratch->trace))
		emit_packet(skb, scratch, drop);
	if (drop && pkt->flags & PKT_REFUSED)
		return refuse(skb, scratch);
	return verdict;
}

/* Nearly always there is nothing to tell. */
static __always_inline int stage_finish(struct __sk_buff *skb, struct wag_scratch *scratch,
					int verdict)
{
	struct wag_pkt *pkt = &scratch->pkt;

	if (cfg.dry_run || verdict == DROP || scratch->trace || pkt->flags & (PKT_TOLD | PKT_HELD))
		return finish(skb, scratch, verdict);
	count_packet(pkt->point, WAG_DROP_FORWARDED, skb->len);
	return verdict;
}
