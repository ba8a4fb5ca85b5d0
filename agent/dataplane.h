/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's only door to the kernel. dataplane_bpf*.c implements it over pinned maps,
 * dataplane_fake.c in memory for tests; which one is linked decides.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/abi_maps.h>
#include <waggle/err.h>

struct dataplane;

/* The hash tables sync.c and sync_table.c keep. Keys and values are the structs of abi_maps.h. */
enum dp_table {
	DP_SVC,	      /* wag_svc_key -> wag_svc */
	DP_SVC_NAME,  /* __u32 state index -> wag_svc_name */
	DP_BACKEND,   /* wag_backend_key -> wag_backend */
	DP_SRC_RANGE, /* wag_src_range_key -> wag_src_range */
	DP_NODE_ADDR, /* wag_addr -> wag_node_addr */
	DP_POLICY_NS, /* wag_policy_ns_key -> wag_policy_ns */
	DP_CIDR,      /* wag_cidr_key -> wag_cidr */
	DP_NODES,     /* wag_addr -> wag_node */
	DP_DEVICE,    /* __u32 ifindex -> wag_device */
	DP_IPCACHE,   /* wag_ipcache_key -> wag_ipcache */
	DP_POLICY,    /* wag_policy_key -> wag_policy */
	DP_RULE,      /* wag_rule_key -> __u32 verdict */
	DP_PORT,      /* wag_port_key -> __u32 verdict */
	DP_PORT_EXACT, /* the same, of single ports */
	DP_RULE_NAME, /* __u32 rule -> wag_rule_name */
	DP_TABLES,
};

/* Where the keys of one of policies' tables have their generation; 0: a table without. */
static inline size_t dataplane_gen_offset(enum dp_table table)
{
	switch (table) {
	case DP_IPCACHE:
		return offsetof(struct wag_ipcache_key, gen);
	case DP_POLICY:
		return offsetof(struct wag_policy_key, gen);
	case DP_RULE:
		return offsetof(struct wag_rule_key, gen);
	case DP_PORT:
	case DP_PORT_EXACT:
		return offsetof(struct wag_port_key, gen);
	default:
		return 0;
	}
}

const char *dataplane_table_name(enum dp_table table); /* "wag_svc" */
size_t dataplane_key_size(enum dp_table table);
size_t dataplane_value_size(enum dp_table table);

/*
 * n updates or deletes in one go (bpf batch calls where they pay), keys and values packed one after
 * another. Deleting what is not there is no error. On failure returns -errno, *ret_done (may be
 * NULL) says how many succeeded from the start, and the errno is counted for the table.
 */
int dataplane_update(struct dataplane *dp, enum dp_table table, const void *keys,
		     const void *values, size_t n, size_t *ret_done);
int dataplane_delete(struct dataplane *dp, enum dp_table table, const void *keys, size_t n,
		     size_t *ret_done);
typedef int (*dataplane_visit_fn)(const void *key, const void *value, void *ctx); /* not 0 stops */
int dataplane_visit(struct dataplane *dp, enum dp_table table, dataplane_visit_fn fn, void *ctx);

/*
 * The two mmapped arrays. Writers store wag_svc_state.slots with one aligned 8-byte store. Each
 * mapped page counts as the agent's memory, used or not: only the first elements are there, as many
 * as dataplane_reach() was asked for (0 or -errno, 0 elements: no matter).
 */
struct wag_svc_state *dataplane_svc_state(struct dataplane *dp, size_t *ret_n);
struct wag_slot *dataplane_slots(struct dataplane *dp, size_t *ret_n);
int dataplane_reach(struct dataplane *dp, size_t n_states, size_t n_slots);

/* wag_runtime.policies: some policy is known in the cluster. 0 or -errno. */
int dataplane_set_policies(struct dataplane *dp, bool on);
/* wag_runtime.policy_epoch: one store puts another generation of the policies' tables in force. */
int dataplane_set_policy_epoch(struct dataplane *dp, uint32_t epoch);
int dataplane_policy_epoch(struct dataplane *dp, uint32_t *ret);
/* A rule's number is another rule's now: it has judged nothing. 0 or -errno. */
int dataplane_reset_rule(struct dataplane *dp, uint32_t rule);

/* Returns once every BPF program that was running has finished (membarrier; else a 100 ms wait). */
void dataplane_grace(struct dataplane *dp);
/*
 * The same beside what else the caller does, for those who read one generation of the policies'
 * tables (gen < WAG_POLICY_GENS). end: returns once those that ran at begin have finished.
 */
void dataplane_grace_begin(struct dataplane *dp, uint32_t gen);
void dataplane_grace_end(struct dataplane *dp, uint32_t gen);

/* Failed map operations since start, by table and errno: visits those that are not 0. */
typedef void (*dataplane_error_fn)(const char *map, int err, uint64_t count, void *ctx);
void dataplane_visit_errors(struct dataplane *dp, dataplane_error_fn fn, void *ctx);

void dataplane_free(struct dataplane *dp);
void dataplane_freep(struct dataplane **dp);
