// SPDX-License-Identifier: Apache-2.0
/* Whatever the kernel might answer: the walk over a datagram and every reader of a message. */
#include <stdint.h>
#include <string.h>

#include "common/netlink_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int read_all(const struct nlmsghdr *h, void *ctx)
{
	struct nl_link link;
	struct nl_route route;
	struct nl_neigh neigh;
	struct nl_tunnel tunnel;
	struct nl_qdisc qdisc;
	struct nl_socket sock;
	struct nl_addr addr;

	if (nl_parse_link(h, &link) == 0 && strlen(link.name) >= sizeof(link.name))
		__builtin_trap();
	(void)nl_parse_addr(h, &addr);
	(void)nl_parse_socket(h, &sock);
	if (nl_parse_tunnel(h, &tunnel) == 0 && !memchr(tunnel.kind, 0, sizeof(tunnel.kind)))
		__builtin_trap();
	(void)nl_parse_route(h, &route);
	(void)nl_parse_neigh(h, &neigh);
	if (nl_parse_qdisc(h, &qdisc) == 0 && !memchr(qdisc.kind, 0, sizeof(qdisc.kind)))
		__builtin_trap();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* The socket's buffer is aligned, and exactly as long as the datagram to the sanitizer. */
	uint8_t *copy = __builtin_malloc(size ? size : 1);
	bool intr = false;
	uint32_t seq = 0;
	int code = 0;

	if (!copy)
		return 0;
	memcpy(copy, data, size);
	/* Most inputs should get past the sequence number. */
	if (size >= sizeof(struct nlmsghdr))
		seq = ((struct nlmsghdr *)copy)->nlmsg_seq;
	if (nl_walk(copy, size, seq, read_all, NULL, &intr, &code) == 1 && code > 0)
		__builtin_trap();
	__builtin_free(copy);
	return 0;
}
