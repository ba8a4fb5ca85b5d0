/* SPDX-License-Identifier: Apache-2.0 */
/*
 * On which of the node's addresses NodePorts are served: --nodeport-addresses, a comma-separated
 * list of CIDRs and of "primary", the node's main addresses. As in kube-proxy a family that the
 * list says nothing about is served on all of its addresses.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <waggle/abi_addr.h>
#include <waggle/err.h>

#define NODE_PORT_PRIMARY "primary"

int node_port_check(const char *list, struct wag_err *err); /* NULL or "": all */
uint32_t node_port_loopback(const char *list); /* WAG_LOOPBACK_*: served to the node itself */
/* primary: the node's main address of addr's family; zero: it has none. */
bool node_port_serves(const char *list, const struct wag_addr *addr,
		      const struct wag_addr *primary);
