/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Addresses and flow tuples as they stand in every map key, map value and event.
 *
 * Every address is 128 bits in network byte order; an IPv4 address is held as its v4-mapped
 * IPv6 form ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). Only parsing and rewriting know the family.
 */
#pragma once

#include <linux/types.h>

struct wag_addr {
	union {
		__u8 b[16];
		__be32 w[4]; /* w[3] is the IPv4 address of a v4-mapped one */
		__u64 d[2];  /* for comparing and hashing only */
	};
};

#define WAG_V4MAPPED_W2 0x0000ffffU /* host order; w[2] of a v4-mapped address is its htonl() */

/*
 * A flow as one packet shows it. ICMP and ICMPv6 echo use the echo identifier as a port: sport of
 * a request, dport of a reply, the other port 0, so that a reply is the exact reverse of its
 * request. Other ICMP types have no ports.
 */
struct wag_tuple {
	struct wag_addr saddr;
	struct wag_addr daddr;
	__be16 sport;
	__be16 dport;
	__u8 proto; /* IPPROTO_* */
	__u8 pad[3];
};

_Static_assert(sizeof(struct wag_addr) == 16, "wag_addr");
_Static_assert(sizeof(struct wag_tuple) == 40, "wag_tuple");
