/* SPDX-License-Identifier: Apache-2.0 */
/* The other nodes, as the maps and the kernel's routes know them: without names. */
#pragma once

#include "cli.h"

/*
 * An array of {link: "direct"|"tunnel"|"network", to, device, mtu, addresses: [...],
 * podCIDRs: [...]}, one element for each way packets take: "to" is the next hop, or the tunnel's
 * other end; "network" is whatever routes the node has. 0, or -errno with err filled.
 */
int nodes_read(const struct cli *cli, json_t **ret, struct wag_err *err);
json_t *node_way(const json_t *node); /* "tunnel to 10.0.0.2 by waggle_vxlan" */
