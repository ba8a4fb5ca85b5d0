/* SPDX-License-Identifier: Apache-2.0 */
/* Building and reading rtnetlink messages; private to netlink*.c, their tests and their fuzzer. */
#pragma once

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <waggle/netlink.h>

/* A request under construction. A write past the end sets overflow; nl_call() then refuses it. */
struct nl_msg {
	union {
		struct nlmsghdr h;
		char buf[1024];
	};
	bool overflow;
};

void nl_msg_init(struct nl_msg *m, uint16_t type, uint16_t flags, const void *body, size_t size);
void nl_put(struct nl_msg *m, uint16_t type, const void *data, size_t size);
void nl_put_u32(struct nl_msg *m, uint16_t type, uint32_t v);
void nl_put_str(struct nl_msg *m, uint16_t type, const char *s);
struct rtattr *nl_nest(struct nl_msg *m, uint16_t type); /* NULL on overflow */
void nl_nest_end(struct nl_msg *m, struct rtattr *nest);
void nl_put_addr(struct nl_msg *m, uint16_t type, const struct wag_addr *addr);

/* Reading. Each returns 0, or -EBADMSG for anything malformed. */
int nl_parse_link(const struct nlmsghdr *h, struct nl_link *ret);
int nl_parse_route(const struct nlmsghdr *h, struct nl_route *ret);
int nl_parse_neigh(const struct nlmsghdr *h, struct nl_neigh *ret);
int nl_parse_qdisc(const struct nlmsghdr *h, struct nl_qdisc *ret);
/* Puts attributes of a type <= max into table; a repeated one: the last counts. */
int nl_attrs_index(const struct nlmsghdr *h, size_t body, const struct rtattr **table,
		   unsigned max);
uint32_t nl_attr_u32(const struct rtattr *rta); /* 0: none */
uint32_t nl_nested_u32(const struct rtattr *nest, unsigned type); /* 0: none */

int nl_parse_tunnel(const struct nlmsghdr *h, struct nl_tunnel *ret);
int nl_parse_socket(const struct nlmsghdr *h, struct nl_socket *ret);
int nl_parse_addr(const struct nlmsghdr *h, struct nl_addr *ret);

/*
 * Walks one datagram. Calls fn for each message of our sequence number that is data; returns 1 when
 * the answer is complete (*ret_errno: its 0 or -errno), 0 when more is to come, or -EBADMSG.
 * *intr is set when a dump was disturbed by a change.
 */
typedef int (*nl_msg_fn)(const struct nlmsghdr *h, void *ctx); /* below 0 ends the walk */
int nl_walk(const void *data, size_t size, uint32_t seq, nl_msg_fn fn, void *ctx, bool *intr,
	    int *ret_errno);

/* Sends a request and reads its whole answer; fn may be NULL. */
int nl_call(struct nl *nl, struct nl_msg *m, nl_msg_fn fn, void *ctx);

/* ---- lists: collected first, so that a disturbed dump is repeated and not half delivered ---- */
struct nl_list {
	char *items;
	size_t count, room, size; /* size: of an item, set by the caller */
};
void nl_list_done(struct nl_list *l);
int nl_list_add(struct nl_list *l, const void *item);
/* Sends a dump request, again when it was disturbed; fn calls nl_list_add(). */
int nl_list_dump(struct nl *nl, const struct nl_msg *request, nl_msg_fn fn, struct nl_list *l);
