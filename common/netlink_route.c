// SPDX-License-Identifier: Apache-2.0
/* Requests about routes and neighbours, and the watch over routes. */
#include <errno.h>
#include <linux/neighbour.h>
#include <string.h>
#include <unistd.h>

#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "netlink_wire.h"

static void route_init(struct nl_msg *m, uint16_t type, uint16_t flags, struct rtmsg *rt,
		       const struct wag_addr *dst, unsigned bits, uint32_t ifindex)
{
	rt->rtm_family = wag_addr_is_v4(dst) ? AF_INET : AF_INET6;
	rt->rtm_dst_len = bits;
	rt->rtm_table = RT_TABLE_MAIN;
	nl_msg_init(m, type, flags, rt, sizeof(*rt));
	if (bits)
		nl_put_addr(m, RTA_DST, dst);
	nl_put_u32(m, RTA_OIF, ifindex);
}

int nl_route_add(struct nl *nl, const struct wag_addr *dst, unsigned bits,
		 const struct wag_addr *gw, uint32_t ifindex, const struct wag_addr *src,
		 uint32_t mtu)
{
	/* onlink: the gateway is link-local and no route leads to it. */
	struct rtmsg rt = { .rtm_protocol = RTPROT_STATIC,
			    .rtm_type = RTN_UNICAST,
			    .rtm_scope = gw ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK,
			    .rtm_flags = gw ? RTNH_F_ONLINK : 0 };
	struct nl_msg m;

	route_init(&m, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &rt, dst, bits, ifindex);
	if (gw)
		nl_put_addr(&m, RTA_GATEWAY, gw);
	if (src)
		nl_put_addr(&m, RTA_PREFSRC, src);
	if (mtu) {
		struct rtattr *metrics = nl_nest(&m, RTA_METRICS);

		nl_put_u32(&m, RTAX_MTU, mtu);
		nl_nest_end(&m, metrics);
	}
	return nl_call(nl, &m, NULL, NULL);
}

int nl_route_del(struct nl *nl, const struct wag_addr *dst, unsigned bits, uint32_t ifindex)
{
	struct rtmsg rt = { .rtm_scope = RT_SCOPE_NOWHERE };
	struct nl_msg m;

	route_init(&m, RTM_DELROUTE, 0, &rt, dst, bits, ifindex);
	return nl_call(nl, &m, NULL, NULL);
}

static int route_put(struct nl *nl, const struct nl_route *r, bool replace, unsigned flags,
		     uint32_t priority)
{
	bool via = !wag_addr_is_zero(&r->gw);
	struct rtmsg rt = { .rtm_protocol = r->protocol,
			    .rtm_type = RTN_UNICAST,
			    .rtm_scope = via ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK,
			    .rtm_flags = flags };
	struct nl_msg m;

	route_init(&m, RTM_NEWROUTE, NLM_F_CREATE | (replace ? NLM_F_REPLACE : NLM_F_EXCL), &rt,
		   &r->dst, r->bits, r->ifindex);
	if (via)
		nl_put_addr(&m, RTA_GATEWAY, &r->gw);
	if (!wag_addr_is_zero(&r->src))
		nl_put_addr(&m, RTA_PREFSRC, &r->src);
	if (priority)
		nl_put_u32(&m, RTA_PRIORITY, priority);
	if (r->mtu) {
		struct rtattr *metrics = nl_nest(&m, RTA_METRICS);

		nl_put_u32(&m, RTAX_MTU, r->mtu);
		nl_nest_end(&m, metrics);
	}
	return nl_call(nl, &m, NULL, NULL);
}

int nl_route_put(struct nl *nl, const struct nl_route *r, bool replace)
{
	return route_put(nl, r, replace, 0, 0);
}

int nl_route_put_onlink(struct nl *nl, const struct nl_route *r, bool replace)
{
	return route_put(nl, r, replace, RTNH_F_ONLINK, r->priority);
}

int nl_route_drop(struct nl *nl, const struct nl_route *r)
{
	struct rtmsg rt = { .rtm_scope = RT_SCOPE_NOWHERE, .rtm_protocol = r->protocol };
	struct nl_msg m;

	route_init(&m, RTM_DELROUTE, 0, &rt, &r->dst, r->bits, r->ifindex);
	if (r->priority)
		nl_put_u32(&m, RTA_PRIORITY, r->priority);
	return nl_call(nl, &m, NULL, NULL);
}

int nl_neigh_add(struct nl *nl, uint32_t ifindex, const struct wag_addr *addr, const uint8_t mac[6])
{
	struct ndmsg nd = { .ndm_family = wag_addr_is_v4(addr) ? AF_INET : AF_INET6,
			    .ndm_ifindex = ifindex,
			    .ndm_state = NUD_PERMANENT };
	struct nl_msg m;

	nl_msg_init(&m, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &nd, sizeof(nd));
	nl_put_addr(&m, NDA_DST, addr);
	nl_put(&m, NDA_LLADDR, mac, 6);
	return nl_call(nl, &m, NULL, NULL);
}

/* ---- lists ---- */

static int attr_addr(const struct rtattr *rta, int family, struct wag_addr *ret)
{
	size_t size = family == AF_INET ? 4 : 16;
	__be32 v4;

	if (RTA_PAYLOAD(rta) != size)
		return -EBADMSG;
	if (family == AF_INET) {
		memcpy(&v4, RTA_DATA(rta), sizeof(v4));
		*ret = wag_addr_from_v4(v4);
	} else {
		memcpy(ret->b, RTA_DATA(rta), sizeof(ret->b));
	}
	return 0;
}

int nl_parse_route(const struct nlmsghdr *h, struct nl_route *ret)
{
	const struct rtattr *a[RTA_TABLE + 1];
	const struct rtmsg *rt = NLMSG_DATA(h);
	struct nl_route out = { 0 };
	int r;

	r = nl_attrs_index(h, sizeof(*rt), a, RTA_TABLE);
	if (r < 0)
		return r;
	if ((rt->rtm_family != AF_INET && rt->rtm_family != AF_INET6) ||
	    rt->rtm_dst_len > (rt->rtm_family == AF_INET ? 32 : 128))
		return -EBADMSG;
	out.table = a[RTA_TABLE] ? nl_attr_u32(a[RTA_TABLE]) : rt->rtm_table;
	out.protocol = rt->rtm_protocol;
	out.type = rt->rtm_type;
	out.bits = rt->rtm_dst_len;
	out.ifindex = nl_attr_u32(a[RTA_OIF]);
	out.priority = nl_attr_u32(a[RTA_PRIORITY]);
	out.mtu = nl_nested_u32(a[RTA_METRICS], RTAX_MTU);
	if (rt->rtm_family == AF_INET)
		out.dst = wag_addr_from_v4(0);
	if (a[RTA_DST])
		r = attr_addr(a[RTA_DST], rt->rtm_family, &out.dst);
	if (r == 0 && a[RTA_GATEWAY])
		r = attr_addr(a[RTA_GATEWAY], rt->rtm_family, &out.gw);
	if (r == 0 && a[RTA_PREFSRC])
		r = attr_addr(a[RTA_PREFSRC], rt->rtm_family, &out.src);
	if (r < 0)
		return r;
	*ret = out;
	return 0;
}

static int on_route_item(const struct nlmsghdr *h, void *ctx)
{
	struct nl_route route;

	if (h->nlmsg_type != RTM_NEWROUTE || nl_parse_route(h, &route) < 0)
		return 0; /* a family we do not know is none of our business */
	return nl_list_add(ctx, &route);
}

int nl_route_list(struct nl *nl, nl_route_fn fn, void *ctx)
{
	_cleanup_(nl_list_done) struct nl_list l = { .size = sizeof(struct nl_route) };
	struct rtmsg rt = { .rtm_family = AF_UNSPEC };
	struct nl_msg m;
	int r;

	nl_msg_init(&m, RTM_GETROUTE, NLM_F_DUMP, &rt, sizeof(rt));
	r = nl_list_dump(nl, &m, on_route_item, &l);
	for (size_t i = 0; r == 0 && i < l.count; i++)
		r = fn((const struct nl_route *)l.items + i, ctx);
	return r < 0 ? r : 0;
}

int nl_parse_neigh(const struct nlmsghdr *h, struct nl_neigh *ret)
{
	const struct rtattr *a[NDA_LLADDR + 1];
	const struct ndmsg *nd = NLMSG_DATA(h);
	struct nl_neigh out = { 0 };
	int r;

	r = nl_attrs_index(h, sizeof(*nd), a, NDA_LLADDR);
	if (r < 0)
		return r;
	if ((nd->ndm_family != AF_INET && nd->ndm_family != AF_INET6) || !a[NDA_DST])
		return -EBADMSG;
	out.ifindex = nd->ndm_ifindex;
	out.permanent = nd->ndm_state & NUD_PERMANENT;
	if (a[NDA_LLADDR] && RTA_PAYLOAD(a[NDA_LLADDR]) == sizeof(out.mac))
		memcpy(out.mac, RTA_DATA(a[NDA_LLADDR]), sizeof(out.mac));
	r = attr_addr(a[NDA_DST], nd->ndm_family, &out.addr);
	if (r < 0)
		return r;
	*ret = out;
	return 0;
}

static int on_neigh_item(const struct nlmsghdr *h, void *ctx)
{
	struct nl_neigh neigh;

	if (h->nlmsg_type != RTM_NEWNEIGH || nl_parse_neigh(h, &neigh) < 0)
		return 0;
	return nl_list_add(ctx, &neigh);
}

int nl_neigh_list(struct nl *nl, nl_neigh_fn fn, void *ctx)
{
	_cleanup_(nl_list_done) struct nl_list l = { .size = sizeof(struct nl_neigh) };
	struct ndmsg nd = { .ndm_family = AF_UNSPEC };
	struct nl_msg m;
	int r;

	nl_msg_init(&m, RTM_GETNEIGH, NLM_F_DUMP, &nd, sizeof(nd));
	r = nl_list_dump(nl, &m, on_neigh_item, &l);
	for (size_t i = 0; r == 0 && i < l.count; i++)
		r = fn((const struct nl_neigh *)l.items + i, ctx);
	return r < 0 ? r : 0;
}

/* ---- the watch ---- */

int nl_route_monitor_open(void)
{
	struct sockaddr_nl groups = { .nl_family = AF_NETLINK,
				      .nl_groups = RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE };
	_cleanup_close_ int fd = -1;

	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	if (fd < 0)
		return -errno;
	if (bind(fd, (void *)&groups, sizeof(groups)) < 0)
		return -errno;
	return TAKE_FD(fd);
}

/* One message a datagram: that is how the kernel tells of changes. */
static bool concerns(const struct nlmsghdr *h, size_t n, uint8_t protocol)
{
	const struct rtmsg *rt = NLMSG_DATA(h);

	if (n < NLMSG_LENGTH(sizeof(*rt)))
		return false;
	if (h->nlmsg_type == RTM_NEWROUTE)
		return h->nlmsg_flags & NLM_F_REPLACE;
	return h->nlmsg_type == RTM_DELROUTE && rt->rtm_protocol == protocol;
}

int nl_route_monitor_read(int fd, uint8_t protocol)
{
	union {
		struct nlmsghdr h;
		char buf[NLMSG_SPACE(sizeof(struct rtmsg))];
	} m;
	int changed = 0;

	for (;;) {
		ssize_t n = recv(fd, &m, sizeof(m), 0); /* the attributes are not read */

		if (n >= 0)
			changed |= concerns(&m.h, (size_t)n, protocol);
		else if (errno == EAGAIN)
			return changed;
		else if (errno != EINTR)
			return -errno;
	}
}
