/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From one Service and its EndpointSlices to what the maps shall say about it, with kube-proxy's
 * semantics. Pure: no I/O, no clock; the same objects give the same table byte for byte.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <waggle/abi_maps.h>

struct object;

/* What differs from node to node. Strings may be NULL; the caller owns them. */
struct compile_facts {
	const char *node_name;
	const char *zone;
};

struct svc_backend {
	struct wag_addr addr;
	__be16 port;
	uint16_t flags; /* of wag_slot and wag_backend; none yet */
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
	uint32_t n_frontends, n_backends;
	struct svc_frontend *frontends; /* in the order given by the Service, no key twice */
	struct svc_backend *backends;	/* sorted by svc_backend_compare(), none twice */
};

struct svc_table {
	const char *type; /* "ClusterIP", "NodePort", "LoadBalancer"; static */
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
int svc_backend_compare(const void *a, const void *b); /* by address, then port */
int svc_table_equal(const struct svc_table *a, const struct svc_table *b); /* either may be NULL */
