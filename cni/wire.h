/* SPDX-License-Identifier: Apache-2.0 */
/* The veth and what stands on both its ends, by rtnetlink and sysctl. */
#pragma once

#include <stdint.h>
#include <waggle/err.h>
#include <waggle/netlink.h>
#include <waggle/record.h>

#include "netns.h"

#define WIRE_GATEWAY_V4 "169.254.1.1"
#define WIRE_GATEWAY_V6 "fe80::1"

/* The pair, both ends down, the node's end ready to route. Fills rec->ifindex. */
int wire_create(struct nl *nl, const struct netns *ns, struct record *rec, uint32_t mtu,
		struct wag_err *err);
/* The node's end goes up with its routes and neighbours. */
int wire_host(struct nl *nl, const struct record *rec, struct wag_err *err);
/* Pod's end: addresses, up, gateway, default routes. Enters and leaves the pod's namespace. */
int wire_pod(const struct netns *ns, const struct record *rec, struct wag_err *err);
/* Removes the pair by the name of the node's end. Nothing there: 0. */
int wire_remove(struct nl *nl, const struct record *rec, struct wag_err *err);
/* Compares what stands with the record. */
int wire_check(struct nl *nl, const struct netns *ns, const struct record *rec,
	       struct wag_err *err);
