/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent asks of the kernel beyond dataplane.h: opening, devices, what is in use. */
#pragma once

#include "dataplane.h"

struct dp_device {
	uint32_t ifindex;
	char name[16];
};

/* What the packets of the tunnel look like; all in host order. */
struct dp_tunnel {
	struct dp_device dev; /* ifindex 0: no tunnels */
	uint32_t vni;
	uint32_t head; /* first word of the header */
	uint16_t port, sport_min, sport_max; /* of UDP */
};

struct dataplane_options {
	const char *pin_dir, *state_dir;
	const char *cgroup; /* may be NULL with WAG_SOCKET_LB_OFF */
	const char *node_name;
	uint32_t attach; /* enum wag_attach; 0: the better one for each kind of device */
	uint32_t socket_lb;
	uint32_t acceleration; /* enum wag_acceleration */
	uint32_t ct_max, svc_max, slot_max;
	uint32_t mtu, route_mtu, routing; /* as in wag_meta */
	struct dp_tunnel tunnel;
	bool host_routing;	 /* packets are forwarded by the programs, not by the stack */
	bool masquerade_v4, masquerade_v6;
	bool policy_audit;    /* policies only tell what they would drop */
	bool allow_localhost; /* the node always reaches its pods */
	struct wag_addr node_v4, node_v6;
	uint32_t loopback_node_ports; /* WAG_LOOPBACK_* */
	const struct dp_device *devices;
	size_t n_devices;
	void (*note)(void *ctx, const char *msg); /* a line for the daemon's log; may be NULL */
	void *ctx;
};

/*
 * Loads the programs over the maps that are pinned (or makes them), and puts them in place of what
 * ran before. Traffic flows on throughout. The caller owns *ret.
 */
int dataplane_open(struct dataplane **ret, const struct dataplane_options *o, struct wag_err *err);
/* 0, or -EBUSY: another agent runs there (or another error). Changes nothing. */
int dataplane_in_use(const char *pin_dir, const char *state_dir, struct wag_err *err);
/* Detaches and unpins everything below pin_dir; needs no programs. */
int dataplane_cleanup(const char *pin_dir, const char *state_dir, struct wag_err *err);

/* Attached exactly to these node devices (and lo, without the socket path). */
int dataplane_set_devices(struct dataplane *dp, const struct dp_device *devices, size_t n,
			  struct wag_err *err);
/* Of wag_meta: what the CNI gives new pods. 0 or -errno. */
int dataplane_set_mtu(struct dataplane *dp, uint32_t mtu, uint32_t route_mtu);
int dataplane_set_synced(struct dataplane *dp, uint64_t now_ns);
/* wag_runtime.nodes: wag_cidr is complete. 0 or -errno. */
int dataplane_set_nodes(struct dataplane *dp);
/* wag_runtime.pacing: fq sends on every device. 0 or -errno. */
int dataplane_set_pacing(struct dataplane *dp, bool on);
/* enum wag_attach: how pods, and how the node's devices are attached */
uint32_t dataplane_attach_mode(const struct dataplane *dp);
uint32_t dataplane_attach_mode_net(const struct dataplane *dp);
/* Pods are born with clsact filters and may have TCX links later: endpoint_settle.h. */
bool dataplane_pods_settle(const struct dataplane *dp);
int dataplane_map_fd(const struct dataplane *dp, const char *name); /* borrowed; -ENOENT */
size_t dataplane_n_programs(const struct dataplane *dp);

/* Map operations by the agent since start. */
struct dp_ops {
	uint64_t updated, deleted, failed;
};
void dataplane_ops(const struct dataplane *dp, enum dp_table table, struct dp_ops *ret);
size_t dataplane_n_maps(const struct dataplane *dp);
const char *dataplane_map_name(const struct dataplane *dp, size_t i);
uint32_t dataplane_map_capacity(const struct dataplane *dp, size_t i); /* entries; 0: unknown */
size_t dataplane_n_cpus(void); /* values of one key of a per-CPU map */
