/* SPDX-License-Identifier: Apache-2.0 */
/* Kubernetes objects as JSON trees -> struct object. Pure: no I/O; hostile input gives an error. */
#pragma once

#include <jansson.h>
#include <waggle/err.h>

#include "model.h"

/* Who an object in trouble is, as far as its tree tells; the strings live as long as the tree. */
struct kube_ident {
	const char *kind, *ns, *name; /* "" where unknown */
	const json_t *at;	      /* the value in question, for finding its line */
};

struct kube_sink {
	/* Takes ownership of obj. tree is what it was made of. Not 0 stops the walk. */
	int (*object)(void *ctx, struct object *obj, const json_t *tree);
	/* One object is unusable; the walk goes on. err names kind, namespace/name and field. */
	void (*bad)(void *ctx, const struct kube_ident *ident, const struct wag_err *err);
	void *ctx;
	const char *default_ns; /* for namespaced objects that name none; NULL: that is an error */
	bool manifests; /* nobody allocates clusterIPs and nodePorts: say so where they are missing
			 */
};

/*
 * Parses one object whose kind is known (the items of a typed list and watch events of one
 * resource). Returns 0 with *ret owned by the caller, or -EINVAL / -ENOMEM with err and ident set.
 */
int kube_parse_object(enum model_kind kind, const json_t *tree, const struct kube_sink *sink,
		      struct object **ret, struct kube_ident *ident, struct wag_err *err);

/*
 * Walks any object by its apiVersion and kind: the kinds of the model, Endpoints (each becomes
 * slices named NAME-endpoints-N), List and typed lists of them; other kinds are passed over.
 * Returns 0, what sink->object returned if not 0, or -ENOMEM.
 */
int kube_parse_any(const json_t *tree, const struct kube_sink *sink);

#define KUBE_LEGACY_SUFFIX "-endpoints-" /* of slices made of an Endpoints object */
#define KUBE_ORIGIN_LEGACY 1		 /* the origin of such a slice; else 0 */

/* A Status object: code, reason and message. Returns false if tree is none. */
struct kube_status {
	int code;
	int retry_after_s; /* 0: not said */
	char reason[64];
	char message[256];
};
bool kube_parse_status(const json_t *tree, struct kube_status *ret);

/* What the two annotations say, each may be NULL; anything else than dsr and snat says nothing. */
enum lb_mode kube_forwarding(const char *waggle, const char *cilium);
enum lb_algorithm kube_algorithm(const char *waggle, const char *cilium);
int kube_svc_type(const char *text, enum svc_type *ret); /* "": the default. 0 or -EINVAL */
/* An element of loadBalancerSourceRanges, around which the API allows space. 0 or -EINVAL. */
int kube_source_range(const char *text, struct source_range *ret);
bool kube_is_namespaced(enum model_kind kind);
const char *kube_kind_name(enum model_kind kind); /* "EndpointSlice" */
const char *kube_kind_api(enum model_kind kind);  /* "discovery.k8s.io/v1" */
