// SPDX-License-Identifier: Apache-2.0
/*
 * Plugins after this one may have added interfaces, addresses and routes. Then they are in
 * prevResult, and must be in the container just as ours must.
 */
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>

#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "prev_check.h"

/* What is found of prevResult in the container's namespace. */
struct look {
	const struct conf_result *prev;
	uint32_t ifindex[CONF_IFACES]; /* 0: not in this namespace */
	bool addrs[RECORD_ADDRS], routes[RECORD_ROUTES]; /* it is there */
	unsigned other_bits[RECORD_ADDRS]; /* there with another prefix length; 0: it is not */
};

static const struct conf_iface *iface_of(const struct conf_result *prev,
					 const struct conf_addr *addr)
{
	return addr->iface >= 0 && (unsigned)addr->iface < prev->iface_count
		       ? &prev->ifaces[addr->iface]
		       : NULL;
}

static void mac_compare(const struct conf_iface *iface, const uint8_t *mac,
			struct wire_diffs *diffs)
{
	uint8_t m[6] = { 0 };

	if (!iface->mac[0])
		return;
	sscanf(iface->mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", m, m + 1, m + 2, m + 3, m + 4, m + 5);
	if (memcmp(m, mac, sizeof(m)) != 0)
		wire_differs(diffs, "prevResult: MAC address %s is not that of %s", iface->mac,
			     iface->name);
}

/* Both ends are in it: an own result has them, another plugin's (chained) may leave one out. */
static void ifaces_compare(const struct job *job, struct wire_diffs *diffs)
{
	const struct conf_result *prev = &job->conf.prev;
	const struct record *rec = &job->rec;
	const struct conf_iface *pod = conf_result_iface(prev, rec->ifname, true);
	const struct conf_iface *host = conf_result_iface(prev, rec->host_ifname, false);
	bool whole = prev->iface_count && !rec->chained;

	if (whole && !pod)
		wire_differs(diffs, "prevResult: has no %s of the container", rec->ifname);
	if (whole && !host)
		wire_differs(diffs, "prevResult: has no %s of the node", rec->host_ifname);
	if (pod && strcmp(pod->sandbox, job->env.netns) != 0)
		wire_differs(diffs, "prevResult: %s is in %s, not in %s", pod->name, pod->sandbox,
			     job->env.netns);
	if (pod)
		mac_compare(pod, rec->mac, diffs);
	if (host)
		mac_compare(host, rec->host_mac, diffs);
}

static int on_link(const struct nl_link *link, void *ctx)
{
	struct look *look = ctx;

	for (unsigned i = 0; i < look->prev->iface_count; i++)
		if (look->prev->ifaces[i].sandbox[0] &&
		    strcmp(look->prev->ifaces[i].name, link->name) == 0)
			look->ifindex[i] = link->ifindex;
	return 0;
}

static int on_addr(const struct nl_addr *a, void *ctx)
{
	struct look *look = ctx;

	for (unsigned i = 0; i < look->prev->addr_count; i++) {
		const struct conf_addr *want = &look->prev->addrs[i];

		if (!wag_addr_equal(&a->addr, &want->addr) ||
		    (iface_of(look->prev, want) && look->ifindex[want->iface] != a->ifindex))
			continue;
		if (a->bits == want->bits)
			look->addrs[i] = true;
		else
			look->other_bits[i] = a->bits;
	}
	return 0;
}

static bool is_via(const struct nl_route *route, const struct wag_addr *gw)
{
	/* A route with several gateways has no device, one over the other family no gateway. */
	return wag_addr_is_zero(gw) || !route->ifindex ||
	       wag_addr_is_v4(gw) != wag_addr_is_v4(&route->dst) || wag_addr_equal(&route->gw, gw);
}

static int on_route(const struct nl_route *route, void *ctx)
{
	struct look *look = ctx;

	if (route->type != RTN_UNICAST)
		return 0;
	/* No table told: any; a later plugin may have moved it (source-based routing, a VRF). */
	for (unsigned i = 0; i < look->prev->route_count; i++) {
		const struct conf_route *want = &look->prev->routes[i];

		if (route->bits == want->to.bits &&
		    wag_addr_in_cidr(&want->to.dst, &route->dst, route->bits) &&
		    (!want->table || want->table == route->table) &&
		    (!want->priority || want->priority == route->priority) &&
		    is_via(route, &want->gw))
			look->routes[i] = true;
	}
	return 0;
}

/* In the container's namespace. */
static int pod_look(struct look *look)
{
	_cleanup_(nl_freep) struct nl *nl = NULL;
	int r;

	r = nl_new(&nl);
	if (r == 0)
		r = nl_link_list(nl, on_link, look);
	if (r == 0)
		r = nl_addr_list(nl, on_addr, look);
	return r ? r : nl_route_list(nl, on_route, look);
}

static void addrs_compare(const struct job *job, const struct look *look, struct wire_diffs *diffs)
{
	char text[WAG_ADDR_TEXT];

	for (unsigned i = 0; i < look->prev->addr_count; i++) {
		const struct conf_addr *want = &look->prev->addrs[i];
		const struct conf_iface *iface = iface_of(look->prev, want);
		const char *name = iface ? iface->name : "the container";

		/* Another sandbox than the container's namespace is not ours to look into. */
		if (look->addrs[i] || (iface && strcmp(iface->sandbox, job->env.netns) != 0))
			continue;
		wag_addr_format(&want->addr, text);
		if (look->other_bits[i])
			wire_differs(diffs, "prevResult: %s/%u has prefix length %u on %s", text,
				     want->bits, look->other_bits[i], name);
		else
			wire_differs(diffs, "prevResult: address %s/%u is not on %s", text,
				     want->bits, name);
	}
}

static void routes_compare(const struct look *look, struct wire_diffs *diffs)
{
	for (unsigned i = 0; i < look->prev->route_count; i++) {
		const struct conf_route *want = &look->prev->routes[i];
		char dst[WAG_ADDR_TEXT], gw[WAG_ADDR_TEXT], table[32] = "", metric[32] = "";
		bool via = !wag_addr_is_zero(&want->gw);

		if (look->routes[i])
			continue;
		if (want->table)
			snprintf(table, sizeof(table), " of table %u", want->table);
		if (want->priority)
			snprintf(metric, sizeof(metric), " with metric %u", want->priority);
		wire_differs(diffs, "prevResult: route %s/%u%s%s%s%s is not in the container",
			     wag_addr_format(&want->to.dst, dst), want->to.bits, via ? " via " : "",
			     via ? wag_addr_format(&want->gw, gw) : "", table, metric);
	}
}

int prev_check(const struct job *job, struct wire_diffs *diffs, struct wag_err *err)
{
	struct look look = { .prev = &job->conf.prev };
	int r, left;

	if (!job->conf.prev_result)
		return 0;
	ifaces_compare(job, diffs);
	r = netns_enter(&job->ns);
	if (r == 0) {
		r = pod_look(&look);
		left = netns_leave(&job->ns);
		r = r < 0 ? r : left;
	}
	if (r < 0)
		return wag_err_set(err, CNI_E_KERNEL, "cannot look at the container: %s",
				   strerror(-r));
	addrs_compare(job, &look, diffs);
	routes_compare(&look, diffs);
	return 0;
}
