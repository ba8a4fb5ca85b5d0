/* SPDX-License-Identifier: Apache-2.0 */
/* Text and family of a wag_addr, and text of what goes with it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <waggle/abi_addr.h>

#define WAG_ADDR_TEXT 46 /* INET6_ADDRSTRLEN */

/* Parses "10.0.0.1" or "fd00::1". Returns 0 or -EINVAL; *ret untouched on error. */
int wag_addr_parse(const char *text, struct wag_addr *ret);
/*
 * Parses "10.0.0.0/24" or an address (then *ret_bits is the family's full length). Bits count in
 * the address's own family (32 or 128), also where IPv4 is written as ::ffff:a.b.c.d/(96 + bits).
 */
int wag_cidr_parse(const char *text, struct wag_addr *ret, unsigned *ret_bits);
/* Writes the address into buf and returns buf. */
const char *wag_addr_format(const struct wag_addr *addr, char buf[WAG_ADDR_TEXT]);
/* "10.0.0.1:80" or "[fd00::1]:80"; port in network order. Returns buf. */
const char *wag_addr_port_format(const struct wag_addr *addr, __be16 port, char *buf, size_t size);
struct wag_addr wag_addr_from_v4(__be32 v4);
bool wag_addr_is_v4(const struct wag_addr *addr);
bool wag_addr_is_zero(const struct wag_addr *addr); /* all 128 bits zero */
bool wag_addr_equal(const struct wag_addr *a, const struct wag_addr *b);
bool wag_addr_in_cidr(const struct wag_addr *addr, const struct wag_addr *net, unsigned bits);

const char *wag_proto_name(__u8 proto);		  /* "TCP", "UDP", "SCTP", ...; "?" if unknown */
int wag_proto_parse(const char *text, __u8 *ret); /* any case; 0 or -EINVAL */
/* "1" to "65535" and nothing around it; host order. 0 or -EINVAL. */
int wag_port_parse(const char *text, __u16 *ret);
const char *wag_reason_text(unsigned reason);
unsigned wag_reason_hubble(unsigned reason);
const char *wag_point_name(unsigned point); /* "from-pod", ... */
