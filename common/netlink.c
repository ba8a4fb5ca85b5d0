// SPDX-License-Identifier: Apache-2.0
/* The socket, the messages, and the requests about links and addresses. */
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/veth.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "netlink_wire.h"

#define DEADLINE_S 5
#define DUMP_TRIES 8

struct nl {
	int fd;
	uint32_t seq;
	char buf[32768]; /* the kernel's dumps never fill more at once */
};

static int nl_open(struct nl **ret, int protocol)
{
	struct timeval limit = { .tv_sec = DEADLINE_S };
	_cleanup_(nl_freep) struct nl *nl = malloc(sizeof(*nl));

	if (!nl)
		return -ENOMEM;
	nl->seq = 0;
	nl->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
	if (nl->fd < 0)
		return -errno;
	if (setsockopt(nl->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0)
		return -errno;
	*ret = TAKE_PTR(nl);
	return 0;
}

int nl_new(struct nl **ret)
{
	return nl_open(ret, NETLINK_ROUTE);
}

int nl_new_diag(struct nl **ret)
{
	return nl_open(ret, NETLINK_SOCK_DIAG);
}

void nl_free(struct nl *nl)
{
	if (!nl)
		return;
	if (nl->fd >= 0)
		close(nl->fd);
	free(nl);
}

void nl_freep(struct nl **nl)
{
	nl_free(*nl);
}

/* ---- building ---- */

static void *msg_reserve(struct nl_msg *m, size_t size)
{
	size_t at = NLMSG_ALIGN(m->h.nlmsg_len), end = at + RTA_ALIGN(size);

	if (m->overflow || size > sizeof(m->buf) || end > sizeof(m->buf)) {
		m->overflow = true;
		return NULL;
	}
	memset(m->buf + at, 0, end - at);
	m->h.nlmsg_len = at + size;
	return m->buf + at;
}

void nl_msg_init(struct nl_msg *m, uint16_t type, uint16_t flags, const void *body, size_t size)
{
	void *p;

	m->overflow = false;
	memset(&m->h, 0, sizeof(m->h));
	m->h.nlmsg_len = NLMSG_HDRLEN;
	m->h.nlmsg_type = type;
	m->h.nlmsg_flags = NLM_F_REQUEST | flags;
	p = msg_reserve(m, size);
	if (p)
		memcpy(p, body, size);
}

void nl_put(struct nl_msg *m, uint16_t type, const void *data, size_t size)
{
	struct rtattr *rta = msg_reserve(m, RTA_LENGTH(size));

	if (!rta)
		return;
	rta->rta_type = type;
	rta->rta_len = RTA_LENGTH(size);
	if (size)
		memcpy(RTA_DATA(rta), data, size);
}

void nl_put_u32(struct nl_msg *m, uint16_t type, uint32_t v)
{
	nl_put(m, type, &v, sizeof(v));
}

void nl_put_str(struct nl_msg *m, uint16_t type, const char *s)
{
	nl_put(m, type, s, strlen(s) + 1);
}

struct rtattr *nl_nest(struct nl_msg *m, uint16_t type)
{
	struct rtattr *rta = msg_reserve(m, RTA_LENGTH(0));

	if (rta)
		rta->rta_type = type;
	return rta;
}

void nl_nest_end(struct nl_msg *m, struct rtattr *nest)
{
	if (nest)
		nest->rta_len = m->buf + m->h.nlmsg_len - (char *)nest;
}

/* ---- reading ---- */

int nl_attrs_index(const struct nlmsghdr *h, size_t body, const struct rtattr **table,
		       unsigned max)
{
	const char *p = (const char *)h;
	size_t at = NLMSG_LENGTH(body), end = h->nlmsg_len;

	memset(table, 0, (max + 1) * sizeof(*table));
	if (at > end)
		return -EBADMSG;
	for (at = NLMSG_ALIGN(at); at + sizeof(struct rtattr) <= end;) {
		const struct rtattr *rta = (const struct rtattr *)(p + at);
		unsigned type = rta->rta_type & NLA_TYPE_MASK;

		if (rta->rta_len < sizeof(*rta) || rta->rta_len > end - at)
			return -EBADMSG;
		if (type <= max)
			table[type] = rta;
		at += RTA_ALIGN(rta->rta_len);
	}
	return 0;
}

uint32_t nl_attr_u32(const struct rtattr *rta)
{
	uint32_t v = 0;

	if (rta && RTA_PAYLOAD(rta) >= sizeof(v))
		memcpy(&v, RTA_DATA(rta), sizeof(v));
	return v;
}

static void attr_str(const struct rtattr *rta, char *buf, size_t size)
{
	size_t n = rta ? RTA_PAYLOAD(rta) : 0;

	n = n < size ? n : size - 1;
	if (n)
		memcpy(buf, RTA_DATA(rta), n);
	buf[n] = '\0';
}

/* The last attribute of that type inside a nest, or NULL. */
static const struct rtattr *nested(const struct rtattr *nest, unsigned type)
{
	size_t left = nest ? RTA_PAYLOAD(nest) : 0;
	const char *p = nest ? RTA_DATA(nest) : NULL;
	const struct rtattr *found = NULL;

	while (left >= sizeof(struct rtattr)) {
		const struct rtattr *rta = (const struct rtattr *)p;

		if (rta->rta_len < sizeof(*rta) || rta->rta_len > left)
			break;
		if (rta->rta_type == type)
			found = rta;
		if (RTA_ALIGN(rta->rta_len) >= left)
			break;
		p += RTA_ALIGN(rta->rta_len);
		left -= RTA_ALIGN(rta->rta_len);
	}
	return found;
}

uint32_t nl_nested_u32(const struct rtattr *nest, unsigned type)
{
	return nl_attr_u32(nested(nest, type));
}

int nl_parse_link(const struct nlmsghdr *h, struct nl_link *ret)
{
	const struct rtattr *a[IFLA_LINKINFO + 1];
	const struct ifinfomsg *ifi = NLMSG_DATA(h);
	struct nl_link link = { 0 };
	int r;

	r = nl_attrs_index(h, sizeof(*ifi), a, IFLA_LINKINFO);
	if (r < 0)
		return r;
	if (ifi->ifi_index <= 0)
		return -EBADMSG;
	link.ifindex = ifi->ifi_index;
	link.flags = ifi->ifi_flags;
	link.type = ifi->ifi_type;
	link.mtu = nl_attr_u32(a[IFLA_MTU]);
	link.peer_ifindex = nl_attr_u32(a[IFLA_LINK]);
	attr_str(a[IFLA_IFNAME], link.name, sizeof(link.name));
	attr_str(nested(a[IFLA_LINKINFO], IFLA_INFO_KIND), link.kind, sizeof(link.kind));
	if (a[IFLA_ADDRESS] && RTA_PAYLOAD(a[IFLA_ADDRESS]) == sizeof(link.mac))
		memcpy(link.mac, RTA_DATA(a[IFLA_ADDRESS]), sizeof(link.mac));
	*ret = link;
	return 0;
}

int nl_parse_addr(const struct nlmsghdr *h, struct nl_addr *ret)
{
	const struct rtattr *a[IFA_LOCAL + 1], *addr;
	const struct ifaddrmsg *ifa = NLMSG_DATA(h);
	struct nl_addr out = { 0 };
	int r;

	r = nl_attrs_index(h, sizeof(*ifa), a, IFA_LOCAL);
	if (r < 0)
		return r;
	/* On a point-to-point link IFA_ADDRESS is the far end; only IFA_LOCAL is ours. */
	addr = a[IFA_LOCAL] ? a[IFA_LOCAL] : a[IFA_ADDRESS];
	if (!addr)
		return -EBADMSG;
	if (ifa->ifa_family == AF_INET && RTA_PAYLOAD(addr) == 4 && ifa->ifa_prefixlen <= 32) {
		__be32 v4;

		memcpy(&v4, RTA_DATA(addr), sizeof(v4));
		out.addr = wag_addr_from_v4(v4);
	} else if (ifa->ifa_family == AF_INET6 && RTA_PAYLOAD(addr) == 16 &&
		   ifa->ifa_prefixlen <= 128) {
		memcpy(out.addr.b, RTA_DATA(addr), sizeof(out.addr.b));
	} else {
		return -EBADMSG;
	}
	out.ifindex = ifa->ifa_index;
	out.bits = ifa->ifa_prefixlen;
	out.flags = ifa->ifa_flags;
	*ret = out;
	return 0;
}

int nl_walk(const void *data, size_t size, uint32_t seq, nl_msg_fn fn, void *ctx, bool *intr,
	    int *ret_errno)
{
	const char *p = data;

	for (size_t at = 0; at + sizeof(struct nlmsghdr) <= size;) {
		const struct nlmsghdr *h = (const struct nlmsghdr *)(p + at);
		int r;

		if (h->nlmsg_len < sizeof(*h) || h->nlmsg_len > size - at)
			return -EBADMSG;
		at += NLMSG_ALIGN(h->nlmsg_len);
		if (h->nlmsg_seq != seq || h->nlmsg_type == NLMSG_NOOP)
			continue;
		*intr = *intr || (h->nlmsg_flags & NLM_F_DUMP_INTR);
		if (h->nlmsg_type == NLMSG_ERROR || h->nlmsg_type == NLMSG_DONE) {
			int32_t code = 0;

			/* DONE carries a code only since Linux 4.17. */
			if (h->nlmsg_len >= NLMSG_LENGTH(sizeof(code)))
				memcpy(&code, NLMSG_DATA(h), sizeof(code));
			else if (h->nlmsg_type == NLMSG_ERROR)
				return -EBADMSG;
			if (code > 0 || code < -4095)
				return -EBADMSG;
			*ret_errno = code;
			return 1;
		}
		r = fn ? fn(h, ctx) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

static int64_t now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

int nl_call(struct nl *nl, struct nl_msg *m, nl_msg_fn fn, void *ctx)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	bool intr = false;
	int64_t end;
	ssize_t n;

	if (m->overflow)
		return -EMSGSIZE;
	m->h.nlmsg_seq = ++nl->seq;
	/* A single bit of NLM_F_DUMP means NLM_F_REPLACE or NLM_F_EXCL. */
	if ((m->h.nlmsg_flags & NLM_F_DUMP) != NLM_F_DUMP)
		m->h.nlmsg_flags |= NLM_F_ACK;
	do
		n = sendto(nl->fd, m->buf, m->h.nlmsg_len, 0, (void *)&kernel, sizeof(kernel));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	end = now_s() + DEADLINE_S;
	do {
		struct sockaddr_nl from;
		socklen_t from_len = sizeof(from);
		int r, code;

		n = recvfrom(nl->fd, nl->buf, sizeof(nl->buf), MSG_TRUNC, (void *)&from, &from_len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		if (from_len != sizeof(from) || from.nl_pid != 0)
			continue;
		if ((size_t)n > sizeof(nl->buf))
			return -EMSGSIZE;
		r = nl_walk(nl->buf, n, m->h.nlmsg_seq, fn, ctx, &intr, &code);
		if (r < 0)
			return r;
		if (r > 0)
			return code < 0 ? code : intr ? -EAGAIN : 0;
	} while (now_s() <= end);
	return -ETIMEDOUT;
}

/* ---- links ---- */

int nl_veth_add(struct nl *nl, const char *name, const char *peer_name, int peer_netns_fd,
		uint32_t mtu, const uint8_t mac[6], const uint8_t peer_mac[6])
{
	struct ifinfomsg ifi = { .ifi_family = AF_UNSPEC };
	struct rtattr *info, *data, *peer;
	struct nl_msg m;

	nl_msg_init(&m, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &ifi, sizeof(ifi));
	nl_put_str(&m, IFLA_IFNAME, name);
	nl_put_u32(&m, IFLA_MTU, mtu);
	nl_put(&m, IFLA_ADDRESS, mac, 6);
	info = nl_nest(&m, IFLA_LINKINFO);
	nl_put_str(&m, IFLA_INFO_KIND, "veth");
	data = nl_nest(&m, IFLA_INFO_DATA);
	/* The peer's attributes stand behind an ifinfomsg of its own. */
	peer = nl_nest(&m, VETH_INFO_PEER);
	if (msg_reserve(&m, sizeof(ifi))) {
		nl_put_str(&m, IFLA_IFNAME, peer_name);
		nl_put_u32(&m, IFLA_MTU, mtu);
		nl_put(&m, IFLA_ADDRESS, peer_mac, 6);
		nl_put_u32(&m, IFLA_NET_NS_FD, peer_netns_fd);
	}
	nl_nest_end(&m, peer);
	nl_nest_end(&m, data);
	nl_nest_end(&m, info);
	return nl_call(nl, &m, NULL, NULL);
}

static int on_link(const struct nlmsghdr *h, void *ctx)
{
	if (h->nlmsg_type != RTM_NEWLINK)
		return 0;
	return nl_parse_link(h, ctx);
}

static int link_get(struct nl *nl, const char *name, uint32_t ifindex, struct nl_link *ret)
{
	struct ifinfomsg ifi = { .ifi_family = AF_UNSPEC, .ifi_index = ifindex };
	struct nl_link link = { 0 };
	struct nl_msg m;
	int r;

	nl_msg_init(&m, RTM_GETLINK, 0, &ifi, sizeof(ifi));
	if (name)
		nl_put_str(&m, IFLA_IFNAME, name);
	nl_put_u32(&m, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	r = nl_call(nl, &m, on_link, &link);
	if (r < 0)
		return r;
	if (!link.ifindex)
		return -EBADMSG;
	*ret = link;
	return 0;
}

int nl_link_get(struct nl *nl, const char *name, struct nl_link *ret)
{
	if (!*name || strlen(name) >= IFNAMSIZ)
		return -EINVAL;
	return link_get(nl, name, 0, ret);
}

int nl_link_get_by_index(struct nl *nl, uint32_t ifindex, struct nl_link *ret)
{
	return ifindex ? link_get(nl, NULL, ifindex, ret) : -ENODEV;
}

int nl_link_del(struct nl *nl, uint32_t ifindex)
{
	struct ifinfomsg ifi = { .ifi_family = AF_UNSPEC, .ifi_index = ifindex };
	struct nl_msg m;

	if (!ifindex)
		return -ENODEV;
	nl_msg_init(&m, RTM_DELLINK, 0, &ifi, sizeof(ifi));
	return nl_call(nl, &m, NULL, NULL);
}

int nl_link_up(struct nl *nl, uint32_t ifindex)
{
	struct ifinfomsg ifi = { .ifi_family = AF_UNSPEC,
				 .ifi_index = ifindex,
				 .ifi_flags = IFF_UP,
				 .ifi_change = IFF_UP };
	struct nl_msg m;

	nl_msg_init(&m, RTM_NEWLINK, 0, &ifi, sizeof(ifi));
	return nl_call(nl, &m, NULL, NULL);
}

/* ---- lists ---- */

void nl_list_done(struct nl_list *l)
{
	free(l->items);
}

int nl_list_add(struct nl_list *l, const void *item)
{
	if (l->count == l->room) {
		size_t room = l->room ? l->room * 2 : 64;
		char *p = reallocarray(l->items, room, l->size);

		if (!p)
			return -ENOMEM;
		l->items = p;
		l->room = room;
	}
	memcpy(l->items + l->count++ * l->size, item, l->size);
	return 0;
}

static int on_link_item(const struct nlmsghdr *h, void *ctx)
{
	struct nl_link link;
	int r;

	if (h->nlmsg_type != RTM_NEWLINK)
		return 0;
	r = nl_parse_link(h, &link);
	return r < 0 ? r : nl_list_add(ctx, &link);
}

static int on_addr_item(const struct nlmsghdr *h, void *ctx)
{
	struct nl_addr addr;
	int r;

	if (h->nlmsg_type != RTM_NEWADDR)
		return 0;
	r = nl_parse_addr(h, &addr);
	/* A family we do not know is none of our business. */
	return r < 0 ? 0 : nl_list_add(ctx, &addr);
}

int nl_list_dump(struct nl *nl, const struct nl_msg *request, nl_msg_fn fn, struct nl_list *l)
{
	int r = -EAGAIN;

	for (int i = 0; i < DUMP_TRIES && r == -EAGAIN; i++) {
		struct nl_msg m = *request;

		l->count = 0;
		r = nl_call(nl, &m, fn, l);
	}
	return r;
}

int nl_link_list(struct nl *nl, nl_link_fn fn, void *ctx)
{
	_cleanup_(nl_list_done) struct nl_list l = { .size = sizeof(struct nl_link) };
	struct ifinfomsg ifi = { .ifi_family = AF_UNSPEC };
	struct nl_msg m;
	int r;

	nl_msg_init(&m, RTM_GETLINK, NLM_F_DUMP, &ifi, sizeof(ifi));
	nl_put_u32(&m, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	r = nl_list_dump(nl, &m, on_link_item, &l);
	for (size_t i = 0; r == 0 && i < l.count; i++)
		r = fn((const struct nl_link *)l.items + i, ctx);
	return r < 0 ? r : 0;
}

/* ---- addresses ---- */

void nl_put_addr(struct nl_msg *m, uint16_t type, const struct wag_addr *addr)
{
	if (wag_addr_is_v4(addr))
		nl_put(m, type, &addr->w[3], 4);
	else
		nl_put(m, type, addr->b, 16);
}

int nl_addr_add(struct nl *nl, uint32_t ifindex, const struct wag_addr *addr, unsigned bits)
{
	struct ifaddrmsg ifa = { .ifa_family = wag_addr_is_v4(addr) ? AF_INET : AF_INET6,
				 .ifa_prefixlen = bits,
				 .ifa_index = ifindex };
	struct nl_msg m;

	nl_msg_init(&m, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &ifa, sizeof(ifa));
	nl_put_addr(&m, IFA_LOCAL, addr);
	nl_put_addr(&m, IFA_ADDRESS, addr);
	if (!wag_addr_is_v4(addr))
		nl_put_u32(&m, IFA_FLAGS, IFA_F_NODAD);
	return nl_call(nl, &m, NULL, NULL);
}

int nl_addr_list(struct nl *nl, nl_addr_fn fn, void *ctx)
{
	_cleanup_(nl_list_done) struct nl_list l = { .size = sizeof(struct nl_addr) };
	struct ifaddrmsg ifa = { .ifa_family = AF_UNSPEC };
	struct nl_msg m;
	int r;

	nl_msg_init(&m, RTM_GETADDR, NLM_F_DUMP, &ifa, sizeof(ifa));
	r = nl_list_dump(nl, &m, on_addr_item, &l);
	for (size_t i = 0; r == 0 && i < l.count; i++)
		r = fn((const struct nl_addr *)l.items + i, ctx);
	return r < 0 ? r : 0;
}
