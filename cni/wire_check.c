// SPDX-License-Identifier: Apache-2.0
/* CHECK: every difference between what the record says and what stands, each named. */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "conf.h"
#include "wire.h"

void wire_differs(struct wire_diffs *d, const char *fmt, ...)
{
	size_t room = sizeof(d->text) - d->len;
	va_list ap;
	int n;

	n = snprintf(d->text + d->len, room, "%s", d->count++ ? "; " : "");
	if (n < 0 || (size_t)n >= room)
		return;
	va_start(ap, fmt);
	n += vsnprintf(d->text + d->len + n, room - n, fmt, ap);
	va_end(ap);
	if ((size_t)n < room)
		d->len += n;
	else
		d->text[d->len] = '\0';
}

/* One side of the pair, while its namespace is looked at. */
struct side {
	const struct record *rec;
	const struct conf_result *prev;
	struct wire_diffs *diffs;
	const char *where; /* for people */
	bool pod;
	uint32_t ifindex, mtu;
	unsigned addrs, neighs, routes; /* bit i: the record's address or route i was seen */
	unsigned defaults, gateways;	/* bit 0: IPv4, bit 1: IPv6 */
};

static int on_addr(const struct nl_addr *a, void *ctx)
{
	struct side *s = ctx;

	for (unsigned i = 0; i < s->rec->addr_count; i++)
		if (a->ifindex == s->ifindex && a->bits == wire_bits(&a->addr) &&
		    wag_addr_equal(&a->addr, &s->rec->addrs[i].addr))
			s->addrs |= 1U << i;
	return 0;
}

static bool is_gateway(const struct wag_addr *addr)
{
	struct wag_addr gw, any;

	wire_gateway(wag_addr_is_v4(addr), &gw, &any);
	return wag_addr_equal(addr, &gw);
}

/* IPv6 lowers it with the interface's, and that may be a later plugin's. */
static bool has_route_mtu(const struct side *s, const struct nl_route *route)
{
	return route->mtu == s->rec->route_mtu ||
	       (s->mtu < s->rec->route_mtu && route->mtu == s->mtu);
}

static int on_pod_route(const struct nl_route *route, void *ctx)
{
	struct side *s = ctx;

	if (route->ifindex != s->ifindex || !is_gateway(&route->gw) || !has_route_mtu(s, route))
		return 0;
	if (!route->bits)
		s->defaults |= wag_addr_is_v4(&route->dst) ? 1 : 2;
	for (unsigned i = 0; i < s->rec->route_count; i++)
		if (route->bits == s->rec->routes[i].bits &&
		    wag_addr_equal(&route->dst, &s->rec->routes[i].dst))
			s->routes |= 1U << i;
	return 0;
}

static int on_host_route(const struct nl_route *route, void *ctx)
{
	struct side *s = ctx;

	for (unsigned i = 0; i < s->rec->addr_count; i++)
		if (route->ifindex == s->ifindex && route->table == RT_TABLE_MAIN &&
		    route->bits == wire_bits(&route->dst) &&
		    wag_addr_equal(&route->dst, &s->rec->addrs[i].addr))
			s->routes |= 1U << i;
	return 0;
}

static int on_neigh(const struct nl_neigh *neigh, void *ctx)
{
	struct side *s = ctx;

	if (neigh->ifindex != s->ifindex || !neigh->permanent ||
	    memcmp(neigh->mac, s->pod ? s->rec->host_mac : s->rec->mac, 6) != 0)
		return 0;
	if (s->pod && is_gateway(&neigh->addr))
		s->gateways |= wag_addr_is_v4(&neigh->addr) ? 1 : 2;
	for (unsigned i = 0; !s->pod && i < s->rec->addr_count; i++)
		if (wag_addr_equal(&neigh->addr, &s->rec->addrs[i].addr))
			s->neighs |= 1U << i;
	return 0;
}

static void check_sysctls(const struct side *s)
{
	size_t count;
	const struct wire_sysctl *wanted = wire_sysctls(s->pod, &count);
	const char *ifname = s->pod ? s->rec->ifname : s->rec->host_ifname;

	for (size_t i = 0; i < count; i++) {
		char value[32] = "";

		if (!wire_has_family(s->rec, wanted[i].v4))
			continue;
		if (sysctl_get(value, sizeof(value), wanted[i].path, ifname) < 0)
			snprintf(value, sizeof(value), "missing");
		if (strcmp(value, wanted[i].value) != 0)
			wire_differs(s->diffs, "%s: sysctl %s of %s is %s, not %s", s->where,
				     strrchr(wanted[i].path, '/') + 1, ifname, value,
				     wanted[i].value);
	}
}

static void check_mtu(const struct side *s, const struct nl_link *link)
{
	const struct conf_iface *told = conf_result_iface(s->prev, link->name, s->pod);

	if (told && told->mtu) {
		if (link->mtu != told->mtu)
			wire_differs(s->diffs, "%s: %s has MTU %u, not %u as in prevResult",
				     s->where, link->name, link->mtu, told->mtu);
	} else if (s->rec->mtu && link->mtu != s->rec->mtu && !(s->rec->chained && !s->pod)) {
		wire_differs(s->diffs, "%s: %s has MTU %u, not %u", s->where, link->name, link->mtu,
			     s->rec->mtu);
	}
}

static void check_link(struct side *s, const struct nl_link *link)
{
	const struct record *rec = s->rec;

	if (strcmp(link->kind, "veth") != 0)
		wire_differs(s->diffs, "%s: %s is no veth", s->where, link->name);
	if (!(link->flags & IFF_UP))
		wire_differs(s->diffs, "%s: %s is down", s->where, link->name);
	if (memcmp(link->mac, s->pod ? rec->mac : rec->host_mac, 6) != 0)
		wire_differs(s->diffs, "%s: %s has another MAC address", s->where, link->name);
	check_mtu(s, link);
}

static int check_host(struct nl *nl, struct side *s)
{
	const struct record *rec = s->rec;
	char text[WAG_ADDR_TEXT];
	int r;

	if (rec->chained)
		return 0; /* its routes are another plugin's */
	r = nl_route_list(nl, on_host_route, s);
	if (r == 0)
		r = nl_neigh_list(nl, on_neigh, s);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < rec->addr_count; i++) {
		wag_addr_format(&rec->addrs[i].addr, text);
		if (!(s->routes & 1U << i))
			wire_differs(s->diffs, "%s: no route to %s over %s", s->where, text,
				     rec->host_ifname);
		if (!(s->neighs & 1U << i))
			wire_differs(s->diffs, "%s: no neighbour %s on %s", s->where, text,
				     rec->host_ifname);
	}
	check_sysctls(s);
	return 0;
}

static void check_gateways(const struct side *s)
{
	for (int f = 0; f < 2; f++) {
		if (!wire_has_family(s->rec, f == 0))
			continue;
		if (!(s->defaults & 1U << f))
			wire_differs(s->diffs, "%s: no default route via %s%s", s->where,
				     f ? WIRE_GATEWAY_V6 : WIRE_GATEWAY_V4,
				     s->rec->route_mtu ? " with the MTU it was given" : "");
		if (!(s->gateways & 1U << f))
			wire_differs(s->diffs, "%s: no neighbour %s", s->where,
				     f ? WIRE_GATEWAY_V6 : WIRE_GATEWAY_V4);
	}
}

static int check_pod(struct nl *nl, struct side *s)
{
	const struct record *rec = s->rec;
	char text[WAG_ADDR_TEXT];
	int r;

	if (rec->chained)
		return 0;
	r = nl_addr_list(nl, on_addr, s);
	if (r == 0)
		r = nl_route_list(nl, on_pod_route, s);
	if (r == 0)
		r = nl_neigh_list(nl, on_neigh, s);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < rec->addr_count; i++)
		if (!(s->addrs & 1U << i))
			wire_differs(s->diffs, "%s: %s has lost address %s", s->where, rec->ifname,
				     wag_addr_format(&rec->addrs[i].addr, text));
	for (unsigned i = 0; i < rec->route_count; i++)
		if (!(s->routes & 1U << i))
			wire_differs(s->diffs, "%s: no route to %s/%u", s->where,
				     wag_addr_format(&rec->routes[i].dst, text),
				     rec->routes[i].bits);
	check_gateways(s);
	check_sysctls(s);
	return 0;
}

/* In the side's namespace. */
static int check_side(struct side *s, uint32_t peer_ifindex, uint32_t *ret_peer)
{
	const char *name = s->pod ? s->rec->ifname : s->rec->host_ifname;
	_cleanup_(nl_freep) struct nl *nl = NULL;
	struct nl_link link;
	int r;

	r = nl_new(&nl);
	if (r < 0)
		return r;
	r = nl_link_get(nl, name, &link);
	if (r == -ENODEV) {
		wire_differs(s->diffs, "%s: no interface %s", s->where, name);
		return 0;
	}
	if (r < 0)
		return r;
	s->ifindex = link.ifindex;
	s->mtu = link.mtu;
	*ret_peer = link.peer_ifindex;
	check_link(s, &link);
	if (!s->pod && link.ifindex != s->rec->ifindex)
		wire_differs(s->diffs, "%s: %s is another interface than ADD made", s->where, name);
	if (s->pod && peer_ifindex && (link.peer_ifindex != s->rec->ifindex ||
				       link.ifindex != peer_ifindex))
		wire_differs(s->diffs, "%s: the other end of %s is not %s", s->where, name,
			     s->rec->host_ifname);
	return s->pod ? check_pod(nl, s) : check_host(nl, s);
}

int wire_check(const struct netns *ns, const struct record *rec, const struct conf_result *prev,
	       struct wire_diffs *diffs, struct wag_err *err)
{
	struct side host = { .rec = rec, .prev = prev, .diffs = diffs, .where = "node" };
	struct side pod = { .rec = rec, .prev = prev, .diffs = diffs, .where = "container",
			    .pod = true };
	uint32_t peer = 0, ignored = 0;
	int r, left;

	r = check_side(&host, 0, &peer);
	if (r == 0)
		r = netns_enter(ns);
	if (r < 0)
		return wag_err_set(err, CNI_E_KERNEL, "cannot look at the interfaces: %s",
				   strerror(-r));
	r = check_side(&pod, peer, &ignored);
	left = netns_leave(ns);
	if (r < 0 || left < 0)
		return wag_err_set(err, CNI_E_KERNEL, "cannot look at the container: %s",
				   strerror(r < 0 ? -r : -left));
	return 0;
}
