/* SPDX-License-Identifier: Apache-2.0 */
/* The node's own addresses and the devices to the world outside, as rtnetlink tells. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/abi_maps.h>
#include <waggle/netlink.h>
#include "compile_node.h"
#include "dataplane_bpf.h"
#include "sync.h"

#define NODE_ROUTERS_MAX 8

/* What the datapath has to know of a served device. */
struct node_device {
	uint32_t ifindex;
	struct wag_device value;
};

struct node_facts {
	struct sync_node_addr *addrs; /* every address */
	size_t n_addrs;
	struct dp_device *devices; /* to be served */
	struct node_device *tables; /* of the same devices, in the same order */
	size_t n_devices;
	struct node_subnet *subnets; /* behind them */
	size_t n_subnets;
	struct wag_addr routers[NODE_ROUTERS_MAX]; /* of default routes */
	size_t n_routers;
	char headerless[128]; /* names of those that could not be: no Ethernet header */
	struct wag_addr v4, v6; /* the node's main ones; zero: none */
	uint32_t mtu;		/* the smallest of the devices'; 0: no device */
	bool paced; /* fq sends on all of them: packets can be given departure times */
};

/* wanted: comma-separated names, NULL or "": those with a global address or a default route. */
int node_facts_read(struct node_facts *ret, struct nl *nl, const char *wanted);
void node_facts_done(struct node_facts *f);
/* Marks the addresses on which NodePorts are not served; v4, v6: the node's main addresses. */
void node_facts_ports(struct node_facts *f, const char *nodeport_addresses,
		      const struct wag_addr *v4, const struct wag_addr *v6);
/* A name that automatic choice leaves alone: loopback, pods, container bridges. */
bool node_device_ignored(const char *name);
/* 127/8, ::1, link-local: no address others reach the node by. */
bool node_addr_is_global(const struct wag_addr *addr);
/* Is name one of a comma-separated list? */
bool node_device_listed(const char *list, const char *name);
/* Forwarding, and loopback that takes packets from the node's own addresses. */
int node_sysctls(struct wag_err *err);
/* This network namespace into wag_netns, so that the node's own sockets are served. */
int node_register_netns(struct dataplane *dp, struct wag_err *err);
