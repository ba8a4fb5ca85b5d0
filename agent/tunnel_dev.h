/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one device through which packets to other nodes are packed. It collects metadata: each packet
 * carries where to, so there is one for all nodes and both families.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <waggle/err.h>
#include <waggle/netlink.h>
#include "dataplane_bpf.h"

#define TUNNEL_VNI 1 /* one network: the number tells its packets from those of others */

struct tunnel_wish {
	bool geneve; /* else VXLAN */
	uint16_t port;
	uint32_t mtu; /* of what is packed */
};

/*
 * Makes the device, or keeps it untouched if it is as wished; one of its name with other
 * attributes is replaced. Its MTU follows. *ret says which it is.
 */
int tunnel_dev_ensure(struct dp_tunnel *ret, struct nl *nl, const struct tunnel_wish *wish,
		      struct wag_err *err);
/* Removes what tunnel_dev_ensure() ever made, but for the one of this ifindex (0: all). */
int tunnel_dev_remove(struct nl *nl, uint32_t keep_ifindex);
