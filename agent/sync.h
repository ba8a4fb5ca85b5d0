/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Desired tables against what the maps hold: works out the difference and applies it in an order in
 * which no packet ever sees a half-written Service (docs/maps.md "Atomic service update"). Knows
 * maps, not Kubernetes. One thread.
 *
 *   sync_new -> sync_adopt -> { sync_set_service ... sync_run }* with one sync_sweep once every
 *   Service that should exist has been set.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/abi_maps.h>
#include "dataplane.h"

struct svc_table;
struct sync;

int sync_new(struct dataplane *dp, struct sync **ret); /* borrows dp; 0 or -errno */
void sync_free(struct sync *s); /* leaves the maps as they are */
void sync_freep(struct sync **s);

/*
 * Takes over what an earlier agent left in the maps, whatever moment it died at. Call once, first,
 * also on empty maps. Changes nothing in the maps.
 */
int sync_adopt(struct sync *s);
/* Everything that should exist has been set: from the next sync_run on the rest is removed. */
void sync_sweep(struct sync *s);
bool sync_swept(const struct sync *s);

/*
 * What Service ns/name should look like; takes ownership of table in every case, NULL: gone.
 * Returns 1 if that is a change, 0 if not, -ENOMEM, -ENAMETOOLONG.
 */
int sync_set_service(struct sync *s, const char *ns, const char *name, struct svc_table *table);
/* What it was set to last; NULL: nothing. */
const struct svc_table *sync_get_service(struct sync *s, const char *ns, const char *name);

struct sync_node_addr {
	struct wag_addr addr;
	struct wag_node_addr value;
};

/* The node's own addresses, all of them, applied by the next sync_run. 0 or -ENOMEM. */
int sync_set_node_addrs(struct sync *s, const struct sync_node_addr *addrs, size_t n);

/*
 * Applies what has changed and retries what failed and is due. Returns 0 or -ENOMEM; failed map
 * operations are not an error here but stay pending. now_ms: any monotonic clock.
 */
int sync_run(struct sync *s, uint64_t now_ms);
/* When to call sync_run again though nothing has changed: milliseconds, or -1 for never. */
int sync_retry_ms(const struct sync *s, uint64_t now_ms);

/* How many Services (and map leftovers) are not as desired. */
size_t sync_pending(const struct sync *s);
/* Each of them: err is a positive errno; ns and name are "" where no Service is hit. */
typedef void (*sync_pending_fn)(const char *ns, const char *name, const char *map, int err,
				void *ctx);
void sync_visit_pending(const struct sync *s, sync_pending_fn fn, void *ctx);

/* Two Services claim one frontend: who came first keeps it, the other waits for it. */
typedef void (*sync_conflict_fn)(const char *ns, const char *name,
				 const struct wag_svc_key *frontend, const char *holder_ns,
				 const char *holder_name, void *ctx);
void sync_on_conflict(struct sync *s, sync_conflict_fn fn, void *ctx);

/* This backend has left this Service, and the maps. */
typedef void (*sync_gone_fn)(const struct wag_backend_key *key, void *ctx);
void sync_on_backend_gone(struct sync *s, sync_gone_fn fn, void *ctx);

#define SYNC_BUCKETS 12 /* upper bounds 0.25 ms << i; the last has none */

struct sync_stats {
	size_t services, ports, backends, frontends, conflicts;
	size_t slots_used, slots_quarantined, slots_capacity;
	/* Service ports with endpoints, but none here for who only gets such. */
	size_t no_local_internal, no_local_external;
	uint64_t runs, run_ns; /* runs that had something to do, and their time */
	uint64_t buckets[SYNC_BUCKETS];
	uint64_t graces;
	uint64_t updates[DP_TABLES], deletes[DP_TABLES];
	uint64_t failed_updates[DP_TABLES], failed_deletes[DP_TABLES];
};

void sync_get_stats(const struct sync *s, struct sync_stats *ret);
