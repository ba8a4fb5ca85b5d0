/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One resource kept in step with the API server: a paged list, then a watch from its
 * resourceVersion, and what to do when either breaks.
 *
 *          +--------------- 410, ERROR event, lost place ----------------+
 *          v                                                             |
 *   LIST --page--> LIST ... --last page--> WATCH --time is up--> WATCH --+
 *     ^ \                                    |
 *     |  +--- error ---> PAUSE <--- error ---+
 *     +-------------------/ \------------------> WATCH (from where it was)
 */
#pragma once

#include "kube_cluster.h"

struct kube_watch;

int kube_watch_new(struct kube_watch **ret, struct kube_cluster *cluster, enum model_kind kind);
/* Of a kind that is watched for one node only: from now on of all. It lists anew. */
void kube_watch_widen(struct kube_watch *w);
bool kube_watch_is_wide(const struct kube_watch *w); /* and the list is in the model */
void kube_watch_status(const struct kube_watch *w, struct source_kind_status *ret);
void kube_watch_free(struct kube_watch *w); /* NULL is fine */
