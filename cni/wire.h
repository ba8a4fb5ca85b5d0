/* SPDX-License-Identifier: Apache-2.0 */
/* The veth and what stands on both its ends, by rtnetlink and sysctl. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/err.h>
#include <waggle/netlink.h>
#include <waggle/record.h>

#include "netns.h"

struct conf_result;

#define WIRE_GATEWAY_V4 "169.254.1.1"
#define WIRE_GATEWAY_V6 "fe80::1"

/* The pair, both ends down, the node's end ready to route. Fills rec->ifindex. */
int wire_create(struct nl *nl, const struct netns *ns, struct record *rec, struct wag_err *err);
/* The node's end goes up with its routes and neighbours. */
int wire_host(struct nl *nl, const struct record *rec, struct wag_err *err);
/* Pod's end: addresses, up, gateway, default routes. Enters and leaves the pod's namespace. */
int wire_pod(const struct netns *ns, const struct record *rec, struct wag_err *err);
/* Removes the pair by the name of the node's end. Nothing there: 0. */
int wire_remove(struct nl *nl, const struct record *rec, struct wag_err *err);

/* ---- what CHECK compares with ---- */

struct wire_sysctl {
	bool v4; /* wanted where the pod has this family */
	const char *value, *path;
};
const struct wire_sysctl *wire_sysctls(bool pod, size_t *ret_count);
unsigned wire_bits(const struct wag_addr *addr); /* of a route to it alone */
bool wire_has_family(const struct record *rec, bool v4);
void wire_gateway(bool v4, struct wag_addr *gw, struct wag_addr *any);

/* The differences CHECK found, one after the other; what does not fit is counted only. */
struct wire_diffs {
	unsigned count;
	size_t len;
	char text[8192];
};
void wire_differs(struct wire_diffs *d, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/*
 * Compares what stands with the record; the MTUs with prev where that tells them, for a later
 * plugin may have changed them. 0 also with differences.
 */
int wire_check(const struct netns *ns, const struct record *rec, const struct conf_result *prev,
	       struct wire_diffs *diffs, struct wag_err *err);
