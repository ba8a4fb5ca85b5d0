/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent asks and tells about Nodes. Each is one request: see kube_write.h. */
#pragma once

#include "kube_write.h"

/* status 404 in the answer: there is none of this name. */
int kube_node_get(struct kube_cluster *cluster, const char *node, kube_answer_fn fn, void *ctx,
		  struct kube_write **at);
/* The annotation waggle.io/pod-cidrs; NULL removes it. Only of the Node with this uid. */
int kube_node_publish(struct kube_cluster *cluster, const char *node, const char *uid,
		      const char *cidrs, kube_answer_fn fn, void *ctx, struct kube_write **at);
