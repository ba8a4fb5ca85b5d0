/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Node objects -> how this node reaches the pods of the others: a pure function, no I/O and no
 * clock. One place decides what link a remote node has: link_choose() in compile_node.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/abi_maps.h>
#include "model.h"

struct node_prefix {
	struct wag_addr addr;
	unsigned bits; /* in the address's own family */
};

/* An address of one of our devices, with the prefix that is reached there without a router. */
struct node_subnet {
	struct node_prefix prefix;
	uint32_t ifindex;
	uint32_t mtu; /* of the device */
};

struct node_compile {
	const char *node_name; /* ours */
	/*
	 * native: neither; with --auto-direct-node-routes: direct; tunnel: tunnel; auto: both
	 */
	bool direct;	   /* nodes in our subnets get a route */
	bool tunnel;	   /* and the others (or all) the tunnel */
	bool quiet;	   /* nothing is said about nodes without either */
	unsigned underlay; /* the tunnel's outside: 4, 6; 0: 4 where both have it */
	uint32_t tunnel_ifindex; /* 0: there is none (yet) */
	uint32_t mtu;		 /* between nodes */
	struct wag_addr v4, v6;	 /* our main addresses; zero: none */
	const struct node_subnet *subnets;
	size_t n_subnets;
	/* No pod range may hold one of these: our own addresses, those of our routers. */
	const struct wag_addr *own, *routers;
	size_t n_own, n_routers;
	const struct node_prefix *no_masquerade;
	size_t n_no_masquerade;
};

struct node_cidr {
	struct wag_cidr_key key;
	struct wag_cidr value;
	uint32_t order; /* in which it was found: of equal keys the first counts */
};

struct node_route {
	struct wag_addr dst;
	unsigned bits; /* in dst's own family */
	uint32_t ifindex;
	struct wag_addr via, src; /* zero: none */
	uint32_t mtu;		  /* 0: the device's */
};

struct node_plan {
	struct node_cidr *cidrs; /* by key, each once; what wag_cidr should hold */
	size_t n_cidrs, cap_cidrs;
	struct wag_addr *nodes; /* what wag_nodes should hold; each once */
	size_t n_nodes, cap_nodes;
	struct node_route *routes;
	size_t n_routes, cap_routes;
	char **warnings;
	size_t n_warnings, cap_warnings;
	/* Remote nodes with pod ranges: each is counted once, by the worst of its families. */
	size_t n_direct, n_tunnel, n_unreachable;
};

/* Nodes in any order, ours among them. 0 and *ret, which the caller owns, or -ENOMEM. */
int compile_nodes(const struct node_compile *in, const struct object *const *nodes, size_t n,
		  struct node_plan **ret);
void node_plan_free(struct node_plan *plan);
void node_plan_freep(struct node_plan **plan);

/* The family tunnels are mostly built on, 4 or 6, and what they leave of an MTU. */
unsigned node_underlay_family(const struct node_compile *in);
uint32_t node_tunnel_mtu(uint32_t mtu, unsigned family);
