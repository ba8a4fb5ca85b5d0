/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's routes to other nodes' pods, in the main table, told from everybody else's by their
 * protocol number. What is there is read each time, so there is no memory of it to be wrong.
 */
#pragma once

#include <stddef.h>
#include <waggle/netlink.h>
#include "compile_node.h"

#define NODE_ROUTE_PROTO 78 /* rtm_protocol: free in iproute2's rt_protos; docs/routing.md */

struct node_route_result {
	size_t present, changed, failed;
	char error[256]; /* of the first that failed */
};

/*
 * Makes our routes exactly want, which has each prefix once: what is right is not touched, what is
 * new or other is put before what is gone is removed, and nobody else's is changed. 0 or -errno if
 * the routes could not even be read; those that failed are counted in *ret.
 */
int node_routes_apply(struct nl *nl, const struct node_route *want, size_t n,
		      struct node_route_result *ret);
