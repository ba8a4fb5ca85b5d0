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

#include "kube_http.h"
#include "source.h"

struct kube_watch;

/* What the watches of one source share. Outlives them. */
struct kube_cluster {
	struct event_base *base;
	struct model *model;
	struct kube_http *http;
	struct kube_config *cfg;
	struct kube_options options; /* defaults filled in; its strings are not used */
	size_t server; /* index into cfg->servers: the one in use */
	char *node_name;
};

int kube_watch_new(struct kube_watch **ret, struct kube_cluster *cluster, enum model_kind kind);
void kube_watch_status(const struct kube_watch *w, struct source_kind_status *ret);
void kube_watch_free(struct kube_watch *w); /* NULL is fine */
