/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the sync*.c files:
 *   sync.c        the interface: what is desired, what is pending, when to run
 *   sync_plan.c   which ports, slot ranges and frontends each changed Service gets; memory only
 *   sync_apply.c  the map operations, in their safe order
 *   sync_adopt.c  the state an earlier agent left
 *   sync_range.c  loadBalancerSourceRanges
 *   sync_batch.c  many operations on one table
 *
 * What is actual stands in three places: backends and slots in the mmapped arrays themselves (found
 * through a sync_port), frontends and source ranges in deltamaps, and what is no longer wanted in
 * the trash lists.
 */
#pragma once

#define HASH_NONFATAL_OOM 1 /* an element that was not added has no table */
#include <uthash.h>
#include <utlist.h>
#include <waggle/deltamap.h>
#include "compile_service.h"
#include "slot_alloc.h"
#include "sync.h"

enum { /* after enum dp_table */
	SYNC_MAP_STATE = DP_TABLES,
	SYNC_MAP_SLOT,
	SYNC_MAP_NONE, /* out of memory */
};

/* A state index in use. Belongs to a Service, or is doomed: freed once no frontend leads to it. */
struct sync_port {
	struct sync_port *next;
	struct sync_svc *svc;		   /* NULL: doomed */
	const struct svc_table_port *want; /* during a run */
	uint32_t index, svc_id;
	uint32_t base, new_base;
	uint32_t n_frontends; /* actual ones */
	uint16_t count;	      /* published slots, a head among them; the range it owns */
	uint16_t new_count;   /* during a run: the range taken at new_base */
	uint16_t n_backends;  /* of those slots; without a count they count for nothing */
	uint16_t slots_flags; /* WAG_SLOTS_* of the published word */
	uint16_t node_port;
	uint8_t proto, family;
	/* Of svc->table, or before a plan of svc->old: those the deltamap has as desired. */
	const struct wag_src_range_key *ranges;
	uint32_t n_ranges;
	char type[16];
	bool published; /* the state is valid: frontends may lead here */
	bool name_ok;	/* wag_svc_name is written */
	bool repair;	/* adopted with slots or backends that are not to be trusted */
	bool failed;	/* during a run: a backend could not be added */
	char name[];
};

struct sync_svc {
	UT_hash_handle hh;
	struct svc_table *table; /* desired; NULL: gone */
	struct svc_table *old;	 /* the one whose frontends are still claimed */
	struct sync_port *ports;
	bool planned; /* table's frontends are claimed */
	bool dirty;
	bool waiting; /* for a frontend that another Service has */
	uint8_t err_map;
	int err; /* positive errno of what stays pending */
	struct sync_svc *prev, *next; /* of those waiting */
	const char *name;
	char ns[]; /* ns, 0, name, 0: the hash key */
};

struct sync_trash {
	struct wag_backend_key key;
	uint32_t index; /* of the port it belonged to; it may have come back */
};

struct sync {
	struct dataplane *dp;
	struct wag_svc_state *states;
	struct wag_slot *slots;
	size_t n_states, n_slots;
	struct slot_alloc alloc;
	struct sync_port **ports; /* by state index */
	uint32_t *free_indices, n_free_indices;	/* a stack */
	uint32_t *old_indices, n_old_indices;	/* quarantined */
	uint32_t *dead_indices, n_dead_indices;	/* wag_svc_name still to be deleted */
	uint32_t next_index, next_svc_id;

	struct sync_svc *svcs;
	struct sync_svc **dirty;
	size_t n_dirty, cap_dirty;
	struct sync_svc *waiters;
	struct sync_port **changing; /* during a run */
	size_t n_changing, cap_changing;
	struct sync_port *doomed;
	struct sync_trash *trash;
	size_t n_trash, cap_trash;
	struct deltamap frontends; /* wag_svc_key -> wag_svc */
	struct deltamap ranges;	   /* wag_src_range_key -> wag_src_range */
	struct deltamap node_addrs;
	bool swept;
	bool recycled; /* elements of wag_svc were freed since the last grace */

	size_t n_err;
	int left_err; /* something that no Service owns could not be deleted */
	uint8_t left_map;
	uint64_t retry_at_ms;
	uint32_t backoff_ms;
	bool freed; /* this run made room in some map */

	struct sync_stats stats;
	sync_conflict_fn on_conflict;
	void *conflict_ctx;
	sync_gone_fn on_gone;
	void *gone_ctx;
};

/* sync.c */
struct sync_svc *sync_svc_get(struct sync *s, const char *ns, const char *name); /* NULL: OOM */
int sync_mark_dirty(struct sync *s, struct sync_svc *svc);
void sync_stop_waiting(struct sync *s, struct sync_svc *svc); /* also where it does not wait */
void sync_fail(struct sync *s, struct sync_svc *svc, unsigned map, int err); /* err negative */
void sync_grace(struct sync *s);
int sync_reserve(void *list, size_t size, size_t want, size_t *cap);
/* A port with an index; not yet in any list. NULL: OOM. */
struct sync_port *sync_port_new(const char *name, uint8_t proto, uint8_t family);
/* sync_plan.c */
int sync_plan(struct sync *s);
void sync_doom(struct sync *s, struct sync_port *p);
/* sync_apply.c */
int sync_apply(struct sync *s);
int sync_apply_node_addrs(struct sync *s);
struct sync_port *sync_port_by_id(const struct sync *s, uint32_t svc_id); /* O(ports); or NULL */
/* sync_range.c: claimed by a plan, in before the state says they are asked, gone after it. */
void sync_release_ranges(struct sync *s, struct sync_port *p);
int sync_claim_ranges(struct sync *s, struct sync_port *p);
int sync_apply_ranges(struct sync *s, bool deletes);
/* A published backend; NULL: it is none. */
const struct wag_slot *sync_port_slot(const struct sync *s, const struct sync_port *p,
				      const struct wag_addr *addr, __be16 port);

/* Backends begin behind the head, if the range has one. */
static inline uint32_t sync_port_first(const struct sync_port *p)
{
	return p->base + (p->count && p->slots_flags & WAG_SLOTS_HEAD ? 1 : 0);
}

static inline uint32_t sync_port_backends(const struct sync_port *p)
{
	return p->count ? p->n_backends : 0;
}

/* State words: one store each, in program order; the slots they name are written before. */
static inline void sync_store_slots(struct wag_svc_state *st, uint64_t slots)
{
	__atomic_store_n(&st->slots, slots, __ATOMIC_RELEASE);
}

static inline void sync_store_u32(__u32 *p, uint32_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELEASE);
}

/* State 0 is nobody's: it keeps what must outlive the agent. */
static inline void sync_store_marks(struct sync *s)
{
	__atomic_store_n(&s->states[0].pad[0], (uint64_t)s->next_svc_id, __ATOMIC_RELEASE);
	__atomic_store_n(&s->states[0].pad[1], (uint64_t)s->next_index, __ATOMIC_RELEASE);
}
