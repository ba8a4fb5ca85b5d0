/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events: what "kubectl describe" shows below an object. One request at a time, and never more than
 * an API server can be asked for: what waits gives way to newer words of the same reason about the
 * same object.
 */
#pragma once

#include "model.h"

struct kube_cluster;
struct kube_recorder;

/* Whom an Event is about. uid: NULL where unknown; "kubectl describe" does not find it then. */
struct kube_ref {
	enum model_kind kind;
	const char *ns, *name, *uid;
};

int kube_recorder_new(struct kube_recorder **ret, struct kube_cluster *cluster); /* or -ENOMEM */
void kube_recorder_free(struct kube_recorder *r); /* NULL is fine; what waits is not sent */
/* An Event of type Warning. cluster: NULL: there is nobody to tell. Failures are reported. */
void kube_warn(const struct kube_cluster *cluster, const struct kube_ref *about, const char *reason,
	       const char *fmt, ...) __attribute__((format(printf, 4, 5)));
