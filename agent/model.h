/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the cluster says: the objects of either source (API server or a folder of manifests), in
 * the few fields the dataplane needs. Sources write, compile_*.c reads; the model knows neither
 * BPF nor HTTP. Strings are interned or owned by the object; every list is owned by its object.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/abi_addr.h>

#include "policy.h"

enum model_kind {
	MODEL_SERVICE,
	MODEL_SLICE,
	MODEL_NODE,
	MODEL_NAMESPACE,
	MODEL_POD,
	MODEL_POLICY,	      /* NetworkPolicy */
	MODEL_CLUSTER_POLICY, /* ClusterNetworkPolicy: its kind may be missing in the cluster */
	MODEL_KINDS,
};

enum svc_type { SVC_CLUSTER_IP, SVC_NODE_PORT, SVC_LOAD_BALANCER, SVC_EXTERNAL_NAME };

struct svc_port {
	char *name;	    /* "" when unnamed */
	uint8_t proto;	    /* IPPROTO_TCP, _UDP, _SCTP */
	uint16_t port;	    /* host order */
	uint16_t node_port; /* 0: none */
};

struct lb_ingress {
	struct wag_addr addr;
	bool proxy; /* ipMode: Proxy */
};

struct source_range {
	struct wag_addr addr;
	unsigned bits; /* in the address's own family */
};

/* How answers to clients outside of the cluster go back (docs/services.md "DSR"). */
enum lb_mode { LB_MODE_DEFAULT, LB_MODE_SNAT, LB_MODE_DSR, LB_MODE_HYBRID };
/* Annotations of a Service, dsr or snat; of both the first one counts. */
#define MODEL_FORWARDING "service.waggle.io/forwarding-mode"
#define MODEL_FORWARDING_CILIUM "service.cilium.io/forwarding-mode"

/* How an endpoint is chosen (docs/services.md "Maglev"). */
enum lb_algorithm {
	LB_ALGORITHM_DEFAULT,
	LB_ALGORITHM_RANDOM,
	LB_ALGORITHM_MAGLEV,
	LB_ALGORITHM_UNKNOWN, /* the annotation says something else */
};
/* Annotations of a Service, random or maglev; of both the first one counts. */
#define MODEL_ALGORITHM "service.waggle.io/lb-algorithm"
#define MODEL_ALGORITHM_CILIUM "service.cilium.io/lb-algorithm"

struct service {
	enum svc_type type;
	enum lb_algorithm algorithm;
	enum lb_mode forwarding; /* LB_MODE_DEFAULT: as the agent is told */
	bool headless;
	bool publish_not_ready;
	bool external_local; /* externalTrafficPolicy: Local */
	bool internal_local; /* internalTrafficPolicy: Local */
	uint32_t affinity_s; /* sessionAffinity ClientIP timeout, 0: none */
	/* Has a label service.kubernetes.io/service-proxy-name or .../headless: not ours. */
	bool other_proxy;
	uint16_t health_check_node_port; /* host order; 0: none */
	char *uid; /* where there is such a port, for talking about it; may be NULL */
	struct wag_addr *cluster_ips;
	size_t n_cluster_ips;
	struct wag_addr *external_ips;
	size_t n_external_ips;
	struct lb_ingress *lb_ips;
	size_t n_lb_ips;
	struct source_range *source_ranges; /* spec.loadBalancerSourceRanges */
	size_t n_source_ranges;
	struct svc_port *ports;
	size_t n_ports;
};

struct slice_port {
	char *name; /* "" when unnamed */
	uint8_t proto;
	uint16_t port; /* host order; 0: null in the object (no port) */
};

struct slice_endpoint {
	struct wag_addr *addrs;
	size_t n_addrs;
	bool ready;   /* nil means true */
	bool serving; /* nil means ready */
	bool terminating;
	char *node_name;	       /* may be NULL */
	char *zone;		       /* may be NULL */
	char *target_ns, *target_name; /* targetRef of kind Pod; may be NULL */
	char *hint_zones, *hint_nodes; /* hints.forZones, .forNodes: "a,b"; NULL: none */
};

struct slice {
	char *service; /* label kubernetes.io/service-name; NULL: none */
	bool v6;       /* addressType IPv6 */
	bool fqdn;     /* addressType FQDN: ignored */
	bool other_proxy; /* as a Service's: ignored */
	struct slice_port *ports;
	size_t n_ports;
	struct slice_endpoint *endpoints;
	size_t n_endpoints;
	/*
	 * When the pod or Service changed that this slice was written for, ms since 1970; 0: not
	 * said, or taken. Of interest once: it makes no two slices different.
	 */
	int64_t trigger_ms;
};

struct label {
	char *key, *value;
};

#define MODEL_POD_CIDRS "waggle.io/pod-cidrs" /* annotation of a Node; comma separated */

#define MODEL_NODE_TAINT_DELETED "ToBeDeletedByClusterAutoscaler"
#define MODEL_SLICE_TRIGGER "endpoints.kubernetes.io/last-change-trigger-time" /* annotation */

struct node {
	struct wag_addr *addrs; /* InternalIP first, then ExternalIP */
	size_t n_addrs;
	size_t n_internal; /* of addrs: InternalIPs */
	/* The annotation waggle.io/pod-cidrs; without it spec.podCIDRs, or spec.podCIDR. */
	char **pod_cidrs;
	size_t n_pod_cidrs;
	char *published; /* the annotation's text; NULL: there is none */
	char *uid;	 /* may be NULL (manifests) */
	char *created;	 /* metadata.creationTimestamp, which sorts as text; may be NULL */
	char *zone;	 /* label topology.kubernetes.io/zone; may be NULL */
	bool leaving;	 /* being deleted, or about to be by the cluster autoscaler */
	struct label *labels;
	size_t n_labels;
};

/* A container's port that has a name. */
struct pod_port {
	char *name;
	uint8_t proto;
	uint16_t port; /* host order */
};

struct pod {
	char *node_name; /* may be NULL */
	bool host_network;
	char *phase; /* may be NULL */
	struct wag_addr *addrs;
	size_t n_addrs;
	struct label *labels;
	size_t n_labels;
	struct pod_port *ports;
	size_t n_ports;
	bool audit; /* annotation MODEL_AUDIT is "true" */
};

struct namespace
{
	struct label *labels;
	size_t n_labels;
	bool audit;
};

#define MODEL_AUDIT "waggle.io/policy-audit" /* of pods and namespaces */

/* One object of any kind. Made by the parsers, given to the model, which then owns it. */
struct object {
	enum model_kind kind;
	char *ns; /* "" for cluster-scoped kinds */
	char *name;
	char *resource_version; /* may be NULL (manifests) */
	uint64_t origin;	/* source's own mark: which file, which list generation */
	bool packed;		/* one allocation: the model's own form, see object.h */
	union {
		struct service service;
		struct slice slice;
		struct node node;
		struct namespace namespace;
		struct pod pod;
		struct policy *policy; /* a reference; MODEL_POLICY and MODEL_CLUSTER_POLICY */
	};
};

struct object *object_new(enum model_kind kind, const char *ns, const char *name); /* NULL: OOM */
void object_free(struct object *obj);
void object_freep(struct object **obj);

struct model;

int model_new(struct model **ret); /* 0 or -ENOMEM; caller owns *ret */
void model_free(struct model *m);
void model_freep(struct model **m);

/*
 * Replaces an object of the same kind, namespace and name. Returns 1 if anything the dataplane
 * reads changed, 0 if not, -errno. obj stays the caller's.
 */
int model_put(struct model *m, const struct object *obj);
/* The same, but takes ownership of obj in every case. */
static inline int model_upsert(struct model *m, struct object *obj)
{
	int r = model_put(m, obj);

	object_free(obj);
	return r;
}

int model_delete(struct model *m, enum model_kind kind, const char *ns, const char *name);
/* A relist: everything of the kind that is not upserted between begin and end is deleted at end. */
void model_relist_begin(struct model *m, enum model_kind kind);
void model_relist_end(struct model *m, enum model_kind kind);
/* During a relist: the object is there, though it cannot be read; it stays as it is. */
void model_keep(struct model *m, enum model_kind kind, const char *ns, const char *name);
/* Called by a source once its first complete list of the kind is in. */
void model_set_synced(struct model *m, enum model_kind kind);
bool model_synced(const struct model *m, enum model_kind kind);

const struct object *model_get(const struct model *m, enum model_kind kind, const char *ns,
			       const char *name);
size_t model_count(const struct model *m, enum model_kind kind);
typedef int (*model_visit_fn)(const struct object *obj, void *ctx); /* not 0 stops the walk */
int model_visit(const struct model *m, enum model_kind kind, model_visit_fn fn, void *ctx);
/* The slices whose service label is ns/service; O(their number). */
int model_visit_slices(const struct model *m, const char *ns, const char *service,
		       model_visit_fn fn, void *ctx);

/*
 * Dirty marks: the ns/name of every Service touched by itself or by a slice since the last call,
 * each once. model_take_dirty_services() calls fn for each and clears them; a fn that returns not
 * 0 stops the walk, and the mark it was called for stays with those not yet seen. The
 * other kinds have one mark each.
 */
typedef int (*model_dirty_fn)(const char *ns, const char *name, void *ctx);
int model_take_dirty_services(struct model *m, model_dirty_fn fn, void *ctx);
bool model_take_dirty(struct model *m, enum model_kind kind);
/* Marks every Service: something outside of the model that they are compiled with has changed. */
int model_touch_services(struct model *m); /* 0 or -ENOMEM */
/* Another number whenever an object of the kind came, changed or went; 0: none ever did. */
uint64_t model_changes(const struct model *m, enum model_kind kind);
/* Namespaces: one came or went, or has its first policy, or has lost its last. */
bool model_take_dirty_namespaces(struct model *m);
/* Every namespace that has a Namespace object or any object in it, and how many policies. */
typedef int (*model_ns_fn)(const char *ns, size_t n_policies, void *ctx); /* not 0 stops */
int model_visit_namespaces(const struct model *m, model_ns_fn fn, void *ctx);
/*
 * fn is called (from the thread that changes the model) when the model turns from clean to dirty,
 * and once more when a kind becomes synced: an empty cluster has to be applied too.
 */
/*
 * fn is called, from the thread that changes the model, with every object that comes (gone: false)
 * and with every one that goes; one that changes goes and comes. It may look at obj only.
 */
typedef void (*model_change_fn)(const struct object *obj, bool gone, void *ctx);
void model_on_change(struct model *m, model_change_fn fn, void *ctx);
void model_on_dirty(struct model *m, void (*fn)(void *ctx), void *ctx);

/* Address -> "ns/pod" of a Pod or of an endpoint's targetRef; NULL if unknown. */
const struct object *model_pod_by_addr(const struct model *m, const struct wag_addr *addr);
/* 0: a pod's; 1: a node's (ns is empty); -ENOENT. The one call that any thread may make. */
int model_name_by_addr(struct model *m, const struct wag_addr *addr, char *ns, size_t ns_size,
		       char *name, size_t name_size);
