/* SPDX-License-Identifier: Apache-2.0 */
/*
 * This node's ways to the others, kept as Node objects, settings and devices say: the tunnel's
 * device, the maps wag_cidr, wag_nodes and wag_device, and the kernel's routes. compile_node.c
 * decides; here it is applied, in an order in which a packet that can be sent can be answered.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/err.h>
#include <waggle/log.h>
#include "compile_node.h"
#include "config.h"
#include "dataplane_bpf.h"
#include "model.h"
#include "node_addr.h"

struct node_net;

/* A line for the daemon's log. */
typedef void (*node_net_report_fn)(void *ctx, enum wag_log_level level, const char *msg);

/* What fits between nodes, and through the tunnel (0: there is none). */
void node_net_mtu(const struct config *c, const struct node_facts *f, uint32_t *ret_mtu,
		  uint32_t *ret_tunnel_mtu);
/* The tunnel's device as c asks for it; ifindex 0 where it asks for none. 0 or -errno. */
int node_net_tunnel(struct dp_tunnel *ret, struct nl *nl, const struct config *c,
		    const struct node_facts *f, struct wag_err *err);
/* --cleanup: devices and routes. 0 or -errno. */
int node_net_cleanup(struct wag_err *err);

/* Takes over what the maps hold; borrows config and dp. The caller owns *ret. */
int node_net_new(struct node_net **ret, const struct config *config, struct dataplane *dp,
		 node_net_report_fn report, void *ctx, struct wag_err *err);
void node_net_free(struct node_net *n); /* leaves everything in place */

/* Copied. 0 or -ENOMEM, and then nothing has changed. */
int node_net_set_facts(struct node_net *n, const struct node_facts *f,
		       const struct dp_device *tunnel);
/* Beyond what settings name: of a file that may change. */
int node_net_set_no_masquerade(struct node_net *n, const struct node_prefix *list, size_t count);
void node_net_set_dirty(struct node_net *n); /* a Node has changed */
void node_net_check_routes(struct node_net *n); /* somebody has touched them */

/*
 * Applies what has changed and what failed before. Nothing is made or removed before the model has
 * every Node. 0 or -ENOMEM; other failures are kept and tried again.
 */
int node_net_run(struct node_net *n, const struct model *m, uint64_t now_ms);
int node_net_retry_ms(const struct node_net *n, uint64_t now_ms); /* -1: never */

struct node_net_stats {
	size_t direct, tunnel, unreachable; /* remote nodes */
	size_t routes, failed_routes;
	char error[512]; /* what does not succeed at the moment; "" when all is well */
};
void node_net_get_stats(const struct node_net *n, struct node_net_stats *ret);
