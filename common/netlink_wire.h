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

/* Reading. Each returns 0, or -EBADMSG for anything malformed. */
int nl_parse_link(const struct nlmsghdr *h, struct nl_link *ret);

struct nl_addr {
	uint32_t ifindex;
	struct wag_addr addr;
	unsigned bits;
};
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
