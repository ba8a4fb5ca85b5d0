// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <time.h>
#include <waggle/abi_policy.h>
#include <waggle/addr.h>
#include "enrich.h"

#define IDENTITY_HOST 1
#define IDENTITY_WORLD 2
#define IFNAME_TTL_NS (5 * 1000000000ULL)

void enrich_init(struct enricher *e, struct flow_names *names, const struct flow_resolver *resolver)
{
	memset(e, 0, sizeof(*e));
	e->names = names;
	e->resolver = *resolver;
	enrich_set_clock(e);
}

static int64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

void enrich_set_clock(struct enricher *e)
{
	e->wall_offset_ns = clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_MONOTONIC);
}

static struct flow_name *endpoint(struct enricher *e, const struct wag_addr *addr)
{
	struct flow_endpoint ep = { 0 };

	if (wag_addr_is_zero(addr))
		return NULL;
	if (!e->resolver.endpoint || e->resolver.endpoint(e->resolver.ctx, addr, &ep) < 0) {
		memset(&ep, 0, sizeof(ep));
		ep.identity = IDENTITY_WORLD;
	}
	return flow_names_endpoint(e->names, &ep);
}

/* A connecting socket has no address yet: its pod's stands for it, or it is the node's own. */
static struct flow_name *socket_owner(struct enricher *e, const struct wag_event *event,
				      struct wag_addr *ret_addr)
{
	struct flow_endpoint ep = { 0 };

	if (event->point < WAG_POINT_CONNECT)
		return NULL;
	if (!event->ep_id)
		ep.identity = IDENTITY_HOST;
	else if (!e->resolver.endpoint_by_id ||
		 e->resolver.endpoint_by_id(e->resolver.ctx, event->ep_id, &ep) < 0)
		return NULL;
	*ret_addr = event->flags & WAG_EVENT_F_IPV6 ? ep.v6 : ep.v4;
	return flow_names_endpoint(e->names, &ep);
}

static struct flow_name *service(struct enricher *e, const struct wag_addr *addr, __be16 port,
				 uint8_t proto)
{
	struct flow_service svc = { 0 };

	if (!e->resolver.service ||
	    e->resolver.service(e->resolver.ctx, addr, port, proto, &svc) < 0)
		return NULL;
	return flow_names_service(e->names, &svc);
}

/* The Service the datapath chose is surer than the one the address names now. */
static struct flow_name *event_service(struct enricher *e, const struct wag_event *event,
				       const struct wag_addr *addr, __be16 port)
{
	struct flow_service svc = { 0 };

	if (event->svc_id && e->resolver.service_by_index &&
	    e->resolver.service_by_index(e->resolver.ctx, event->svc_index, event->svc_id, &svc) ==
		    0)
		return flow_names_service(e->names, &svc);
	return service(e, addr, port, event->orig.proto);
}

static struct flow_name *interface(struct enricher *e, const struct wag_event *event)
{
	unsigned slot = event->ifindex % ENRICH_IFNAMES;
	char name[IF_NAMESIZE];

	if (!event->ifindex || event->type == WAG_EVENT_SOCK)
		return NULL;
	if (e->ifnames[slot].ifindex != event->ifindex ||
	    e->ifnames[slot].until_ns < event->time_ns) {
		if (!if_indextoname(event->ifindex, name))
			name[0] = '\0';
		e->ifnames[slot].ifindex = event->ifindex;
		e->ifnames[slot].until_ns = event->time_ns + IFNAME_TTL_NS;
		memcpy(e->ifnames[slot].name, name, sizeof(name));
	}
	return flow_names_text(e->names, e->ifnames[slot].name);
}

/* A policy stands as the workload does: its kind, and the rule that decided. */
static struct flow_name *policy(struct enricher *e, uint32_t verdict)
{
	struct flow_endpoint ep = { 0 };
	struct flow_policy p = { 0 };

	if (!WAG_VERDICT_RULE(verdict) || !e->resolver.policy ||
	    e->resolver.policy(e->resolver.ctx, WAG_VERDICT_RULE(verdict), &p) < 0)
		return NULL;
	memcpy(ep.ns, p.ns, sizeof(ep.ns));
	memcpy(ep.pod, p.name, sizeof(ep.pod));
	memcpy(ep.workload, p.rule, sizeof(p.rule));
	strcpy(ep.workload_kind, p.ns[0] ? "NetworkPolicy" : "ClusterNetworkPolicy");
	return flow_names_endpoint(e->names, &ep);
}

static void fill(struct enricher *e, const struct wag_event *event, enum flow_record_kind kind,
		 struct flow_record *rec)
{
	const struct wag_tuple *t = &event->orig;
	bool reverse = event->flags & WAG_EVENT_F_REPLY;

	memset(rec, 0, sizeof(*rec));
	rec->kind = kind;
	rec->event = *event;
	rec->time_ns = event->time_ns + e->wall_offset_ns;
	rec->interface = interface(e, event);
	rec->source = endpoint(e, &event->orig.saddr);
	if (!rec->source)
		rec->source = socket_owner(e, event, &rec->event.orig.saddr);
	if (event->type == WAG_EVENT_SOCK || kind == FLOW_RECORD_POST)
		reverse = false;
	if (kind == FLOW_RECORD_POST)
		t = &event->xlat;
	rec->destination = endpoint(e, &t->daddr);
	for (int d = 0; d < 2; d++)
		rec->policy[d] = policy(e, event->policy[d]);

	if (reverse)
		rec->source_service = event_service(e, event, &t->saddr, t->sport);
	else if (kind != FLOW_RECORD_POST)
		rec->destination_service = event_service(e, event, &t->daddr, t->dport);
	else
		rec->destination_service = service(e, &t->daddr, t->dport, t->proto);
}

int enrich_event(struct enricher *e, const struct wag_event *event,
		 struct flow_record ret[ENRICH_RECORDS])
{
	bool translated = event->flags & WAG_EVENT_F_XLAT;
	int n = 0;

	if (event->type < WAG_EVENT_DROP || event->type > WAG_EVENT_SOCK ||
	    event->point >= WAG_POINTS)
		return -EINVAL;
	/* A reply's translation only undoes the request's: the way it came says it all. */
	if (event->type == WAG_EVENT_TRACE && event->flags & WAG_EVENT_F_REPLY)
		translated = false;
	/* In the order in which they were judged. */
	if (WAG_VERDICT_RULE(event->policy[1]))
		fill(e, event, FLOW_RECORD_EGRESS, &ret[n++]);
	if (WAG_VERDICT_RULE(event->policy[0]))
		fill(e, event, FLOW_RECORD_INGRESS, &ret[n++]);
	if (event->type == WAG_EVENT_DROP || !translated) {
		fill(e, event, event->type == WAG_EVENT_SOCK ? FLOW_RECORD_PRE : FLOW_RECORD_PACKET,
		     &ret[n++]);
		return n;
	}
	fill(e, event, FLOW_RECORD_PRE, &ret[n++]);
	fill(e, event, FLOW_RECORD_POST, &ret[n++]);
	return n;
}
