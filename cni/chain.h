/* SPDX-License-Identifier: Apache-2.0 */
/* An interface that an earlier plugin of the list made: chainingMode. */
#pragma once

#include <waggle/err.h>
#include <waggle/netlink.h>
#include <waggle/record.h>

#include "netns.h"

/*
 * Finds the node's end of the container's rec->ifname, a veth, and fills in names, indices, MACs
 * and the MTU. Without addresses from prevResult it takes those of the interface.
 */
int chain_find(struct nl *nl, const struct netns *ns, struct record *rec, struct wag_err *err);
