/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From one Service and its EndpointSlices to what the maps shall say about it, with kube-proxy's
 * semantics (docs/services.md). Pure: no I/O, no clock; the same objects give the same table byte
 * for byte.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/abi_maps.h>
#include "model.h"

/* What differs from node to node. */
struct compile_facts {
	const char *node_name; /* may be NULL: no endpoint is local */
	char zone[64];	       /* label topology.kubernetes.io/zone of the Node; "": none */
	enum lb_mode lb_mode;  /* of Services that do not say it themselves */
	bool tunnel;	       /* to other nodes: without one there is no DSR */
	enum lb_algorithm lb_algorithm; /* of Services that do not say it themselves */
};

struct svc_backend {
	struct wag_addr addr;
	__be16 port;
	uint16_t flags; /* WAG_BACKEND_*: which clients may get it */
	uint32_t pad;
};

struct svc_frontend {
	struct wag_svc_key key;
	uint32_t flags; /* WAG_SVC_* */
	uint32_t pad;
};

/* One port of the Service in one address family: what a state index stands for. */
struct svc_table_port {
	const char *name; /* "" when unnamed; inside the table's own block */
	uint8_t proto;
	uint8_t family;	    /* 4 or 6 */
	uint16_t node_port; /* host order, 0: none */
	uint32_t affinity_s;
	uint16_t slots_flags; /* WAG_SLOTS_* */
	/* It has endpoints, but none here for who only gets such: of clusterIPs, of the others. */
	bool no_local_internal, no_local_external;
	uint32_t n_frontends, n_backends, n_ranges;
	struct svc_frontend *frontends; /* in the order given by the Service, no key twice */
	struct svc_backend *backends;	/* sorted by svc_backend_compare(), no address twice */
	struct wag_src_range_key *ranges; /* svc_id 0; sorted, none twice */
};

struct svc_table {
	const char *type; /* "ClusterIP", "NodePort", "LoadBalancer"; static */
	const char *remark; /* in which point it is not as it was asked for; static; NULL: none */
	uint32_t n_ports;
	struct svc_table_port ports[];
};

/*
 * slices: the EndpointSlices labelled with this Service, any order. *ret is NULL for a Service that
 * is not ours to serve (headless, ExternalName, another proxy's). Returns 0 or -ENOMEM; the caller
 * frees *ret with free().
 */
int compile_service(const struct object *svc, const struct object *const *slices, size_t n_slices,
		    const struct compile_facts *facts, struct svc_table **ret);
int svc_backend_compare(const void *a, const void *b); /* as wag_slot_head says, then by address */
/* Whatever flags it has; NULL: not in list, which is sorted. */
const struct svc_backend *svc_backend_find(const struct svc_backend *list, size_t n,
					   const struct wag_addr *addr, __be16 port);
int svc_table_equal(const struct svc_table *a, const struct svc_table *b); /* either may be NULL */

/* ---- compile_slots.c: a port's range of slots ---- */

/* The head, of a port that has WAG_SLOTS_HEAD. */
void svc_slot_head(const struct svc_table_port *port, uint32_t svc_id, struct wag_slot_head *ret);
uint32_t svc_slots(const struct svc_table_port *port); /* how many it needs */
/* Writes as many. 0 or -ENOMEM. */
int svc_slots_write(const struct svc_table_port *port, uint32_t svc_id, struct wag_slot *slots);

/* ---- compile_maglev.c: the lookup table of one set (docs/services.md "Maglev") ---- */

/* A prime; 0: with fewer than two endpoints there is no table; UINT32_MAX: too many. */
uint32_t maglev_entries(uint32_t n_endpoints);
/* table: of so many entries, all of them 0. 0 or -ENOMEM. */
int maglev_fill(const struct svc_table_port *port, uint16_t set, struct wag_slot_entries *table,
		uint32_t entries);

/* ---- compile_endpoints.c: which endpoints of the slices a port gets on this node ---- */

struct endpoints_want {
	const struct object *const *slices;
	size_t n_slices;
	const struct svc_port *port;
	bool v6;
	bool uses_cluster, uses_local; /* which of the two sets anybody asks for */
	const struct compile_facts *facts;
};

/* How many the slices could give at most. */
size_t endpoints_max(const struct object *const *slices, size_t n_slices,
		     const struct svc_port *port, bool v6);
/* Fills list (with room for that many, sorted), returns 0 or -ENOMEM. *ret_any: some are usable. */
int endpoints_choose(const struct endpoints_want *want, struct svc_backend *list, uint32_t *ret_n,
		     bool *ret_any);
