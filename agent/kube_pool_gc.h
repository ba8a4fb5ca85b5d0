/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frees the blocks of Nodes that are gone. The cluster's own garbage collector does so too, from
 * the Leases' ownerReferences; this is for where it does not run, or was not running.
 *
 * A Lease is deleted only after the API server itself has said that there is no Node of its
 * holder's name, and only in the state in which it was read: a node that came back in between has
 * written it anew.
 */
#pragma once

#include "kube_cluster.h"

struct kube_pool_gc;

struct kube_pool_gc_options {
	const char *ns; /* of the Leases */
	/* 0: the default. For tests. */
	unsigned delay_ms; /* 5000: from the Node's end to the look, and up to a minute more */
	unsigned sweep_ms; /* 3600000: between looks at all Leases; the first after a twentieth */
};

/* 0 or -ENOMEM; cluster must outlive it. */
int kube_pool_gc_new(struct kube_pool_gc **ret, struct kube_cluster *cluster,
		     const struct kube_pool_gc_options *options);
void kube_pool_gc_free(struct kube_pool_gc *gc); /* NULL is fine */
void kube_pool_gc_poke(struct kube_pool_gc *gc); /* the Nodes of the model may have changed */
