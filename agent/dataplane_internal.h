/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the dataplane_*.c files, split by what can fail:
 *   dataplane_bpf.c      tables and arrays; open and close
 *   dataplane_load.c     the objects, and which map each works on
 *   dataplane_pins.c     bpffs and what is pinned where
 *   dataplane_layout.c   two BTF layouts compared and converted
 *   dataplane_migrate.c  live entries of a pinned map of another layout or size
 *   dataplane_attach.c   devices, pods and the cgroup
 *   dataplane_xdp.c      XDP on the devices
 */
#pragma once

#include <bpf/libbpf.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/abi_config.h>
#include "dataplane_bpf.h"

#define DP_MAPS_MAX 48
#define DP_TCX_INGRESS 46 /* BPF_TCX_INGRESS, Linux 6.6; older headers lack it */
#define DP_TCX_EGRESS 47
#define DP_TCX_BEFORE (1U << 3) /* BPF_F_BEFORE */

struct dp_map {
	char name[16];
	int fd;	    /* the map the new programs use */
	int old_fd; /* pinned, of another layout or size: to be carried over; -1: none */
	bool fresh; /* made by this run or not yet under its own name: to be pinned */
};

struct dp_array {
	void *base; /* address space for all of it; what is mapped stands at its start */
	size_t n;   /* elements */
	size_t bytes, mapped;
	int fd;
};

/* A wait for the readers of one generation of the policies' tables. */
struct dp_grace {
	pthread_t thread;
	bool begun, threaded;
};

struct hook_pod;
struct hook_net;
struct hook_sock;
struct hook_tunnel;
struct hook_limit;
struct hook_xdp;

struct dataplane {
	char *pin_dir, *state_dir;
	int lock_fd, pin_lock_fd; /* one agent per state dir and per pin dir */
	int cgroup_fd;
	uint32_t attach, net_attach; /* enum wag_attach: of pods, of the node's devices */
	uint32_t socket_lb;
	uint32_t acceleration; /* enum wag_acceleration */
	struct hook_pod *pod;
	struct hook_net *net;
	struct hook_sock *sock; /* NULL with WAG_SOCKET_LB_OFF */
	struct hook_tunnel *tunnel; /* NULL without tunnels */
	struct hook_limit *limit;
	struct hook_xdp *xdp; /* NULL with WAG_ACCELERATION_DISABLED */
	struct dp_device tunnel_dev; /* ifindex 0: no tunnels */
	struct dp_map maps[DP_MAPS_MAX];
	size_t n_maps;
	void (*note)(void *ctx, const char *msg);
	void *note_ctx;
	struct dp_array states, slots;
	struct dp_ops ops[DP_TABLES];
	uint64_t errors[DP_TABLES][WAG_MAP_ERRNOS];
	struct dp_grace graces[WAG_POLICY_GENS];
	uint64_t bulk_ns;   /* when the first copy of an upgrade began */
	uint64_t window_ns; /* when new flows began to wait for it */
};

void dp_note(struct dataplane *dp, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
struct dp_map *dp_map_find(struct dataplane *dp, const char *name);
struct bpf_object *dp_object(const struct dataplane *dp, unsigned i); /* NULL: not loaded */
int dp_prog_fd(const struct dataplane *dp, const char *name);	      /* -ENOENT */
int dp_map_info(int fd, struct bpf_map_info *ret);

/* dataplane_load.c */
int dp_load(struct dataplane *dp, const struct dataplane_options *o, struct wag_err *err);
void dp_unload(struct dataplane *dp);

/* dataplane_pins.c */
#define DP_ASIDE "maps_new" /* below the pin dir: new maps of an upgrade under way */
int dp_ensure_bpffs(const char *pin_dir, struct wag_err *err);
int dp_check_abi(const char *pin_dir, struct wag_err *err);
int dp_path(char *buf, size_t size, const char *pin_dir, const char *sub, const char *name);
int dp_pin_maps(struct dataplane *dp, struct wag_err *err);	  /* fresh ones: final or aside */
int dp_pin_maps_final(struct dataplane *dp, struct wag_err *err); /* those aside: over the old */
int dp_pin_programs(struct dataplane *dp, struct wag_err *err);
void dp_remove_dir(const char *pin_dir, const char *sub);

/* dataplane_layout.c */
struct btf;
struct dp_copy {
	uint32_t from, to, size;
};
struct dp_plan {
	struct dp_copy *copies;
	size_t n;
};
bool dp_layout_equal(const struct btf *a, uint32_t a_id, const struct btf *b, uint32_t b_id);
/* How a value of type (a, a_id) becomes one of (b, b_id): members by name. Caller frees copies. */
int dp_plan_make(struct dp_plan *ret, const struct btf *a, uint32_t a_id, const struct btf *b,
		 uint32_t b_id);
void dp_plan_apply(const struct dp_plan *plan, const void *from, void *to, size_t to_size);

/* dataplane_meta.c */
int dp_write_meta(struct dataplane *dp, const struct dataplane_options *o, struct wag_err *err);

/* dataplane_migrate.c */
bool dp_needs_migration(const struct dataplane *dp);
int dp_migrate_before(struct dataplane *dp, struct wag_err *err); /* no lock held */
int dp_migrate_locked(struct dataplane *dp, struct wag_err *err); /* before the switch */
int dp_migrate_begin(struct dataplane *dp, struct wag_err *err);
int dp_migrate_after(struct dataplane *dp, struct wag_err *err); /* after the switch */

/* dataplane_attach.c */
int dp_probe_attach(struct dataplane *dp, uint32_t wanted, struct wag_err *err);
int dp_attach_cgroup(struct dataplane *dp, struct wag_err *err);
int dp_attach_pods(struct dataplane *dp, struct wag_err *err);
int dp_attach_tunnel(struct dataplane *dp, struct wag_err *err);
int dp_attach_devices(struct dataplane *dp, const struct dp_device *devices, size_t n,
		      struct wag_err *err);
/* We are nowhere else any more: links without a device, devices that are not the node's now. */
int dp_collect_devices(struct dataplane *dp, const struct dp_device *devices, size_t n,
		       struct wag_err *err);
uint32_t dp_link_ifindex(int fd); /* 0: none, or its device is gone */
int dp_detach_all(const char *pin_dir, struct wag_err *err);

/* dataplane_xdp.c: exactly these devices have the program, or none without acceleration */
int dp_attach_xdp(struct dataplane *dp, const struct dp_device *devices, size_t n,
		  struct wag_err *err);
