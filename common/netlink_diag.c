// SPDX-License-Identifier: Apache-2.0
/* Sockets of other processes. */
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "netlink_wire.h"

#ifndef SOCK_DESTROY
#define SOCK_DESTROY 21
#endif

_Static_assert(sizeof(struct inet_diag_sockid) == sizeof(((struct nl_socket *)0)->id), "id");

int nl_parse_socket(const struct nlmsghdr *h, struct nl_socket *ret)
{
	const struct inet_diag_msg *msg = NLMSG_DATA(h);
	struct nl_socket s = { 0 };

	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*msg)) ||
	    (msg->idiag_family != AF_INET && msg->idiag_family != AF_INET6))
		return -EBADMSG;
	s.family = msg->idiag_family;
	s.peer_port = msg->id.idiag_dport;
	s.cookie = msg->id.idiag_cookie[0] | (uint64_t)msg->id.idiag_cookie[1] << 32;
	if (s.family == AF_INET)
		s.peer = wag_addr_from_v4(msg->id.idiag_dst[0]);
	else
		memcpy(&s.peer, msg->id.idiag_dst, sizeof(s.peer));
	memcpy(s.id, &msg->id, sizeof(s.id));
	*ret = s;
	return 0;
}

static int on_socket(const struct nlmsghdr *h, void *ctx)
{
	struct nl_socket s;
	int r;

	if (h->nlmsg_type != SOCK_DIAG_BY_FAMILY)
		return 0;
	r = nl_parse_socket(h, &s);
	return r < 0 ? r : nl_list_add(ctx, &s);
}

int nl_udp_list(struct nl *diag, nl_socket_fn fn, void *ctx)
{
	static const uint8_t families[2] = { AF_INET, AF_INET6 };
	int r = 0;

	for (int f = 0; f < 2 && r == 0; f++) {
		_cleanup_(nl_list_done) struct nl_list l = { .size = sizeof(struct nl_socket) };
		const struct inet_diag_req_v2 req = { .sdiag_family = families[f],
						      .sdiag_protocol = IPPROTO_UDP,
						      .idiag_states = 1 << TCP_ESTABLISHED };
		struct nl_msg m;

		nl_msg_init(&m, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &req, sizeof(req));
		r = nl_list_dump(diag, &m, on_socket, &l);
		if (r == -ENOENT) /* no IPv6 in this kernel */
			r = 0;
		for (size_t i = 0; r == 0 && i < l.count; i++)
			r = fn((const struct nl_socket *)l.items + i, ctx);
	}
	return r < 0 ? r : 0;
}

int nl_socket_destroy(struct nl *diag, const struct nl_socket *s)
{
	struct inet_diag_req_v2 req = { .sdiag_family = s->family,
					.sdiag_protocol = IPPROTO_UDP,
					.idiag_states = 1 << TCP_ESTABLISHED };
	struct nl_msg m;

	memcpy(&req.id, s->id, sizeof(req.id));
	nl_msg_init(&m, SOCK_DESTROY, 0, &req, sizeof(req));
	return nl_call(diag, &m, NULL, NULL);
}
