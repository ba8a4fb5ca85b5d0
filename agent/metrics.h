/* SPDX-License-Identifier: Apache-2.0 */
/* Prometheus text (exposition format 0.0.4) and what the agent has to say in it. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "dataplane_bpf.h"
#include "endpoint_watch.h"
#include "flow.h"
#include "histogram.h"
#include "ipam_node.h"
#include "model.h"
#include "policy_sync.h"
#include "node_net.h"
#include "service_health.h"
#include "source.h"
#include "stale_sock.h"
#include "sync.h"

struct text {
	char *data; /* NUL-terminated once anything was written */
	size_t len, room;
	int err; /* -ENOMEM: incomplete */
};

void text_done(struct text *t);
void text_add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "# HELP" and "# TYPE" of a family. */
void metric_family(struct text *t, const char *name, const char *type, const char *help);
/* Label values: backslash, quote and newline escaped; n pairs of name, value. */
void metric_labels(struct text *t, const char *name, const char *const *pairs, size_t n);
void metric_simple(struct text *t, const char *name, const char *type, const char *help,
		   uint64_t value);
void metric_histogram(struct text *t, const char *name, const char *help,
		      const struct histogram *h);
void sync_histogram(const struct sync_stats *s, struct histogram *ret);
void metric_u64(struct text *t, uint64_t value); /* ends the line */
void metric_double(struct text *t, double value);

/* What is running; any but dp may be NULL. */
struct agent_view {
	struct dataplane *dp;
	struct sync *sync;
	const struct policy_sync *policies;
	struct endpoint_watch *endpoints;
	struct node_net *net;
	struct source *source;
	struct ipam_node *ipam;
	struct model *model;
	struct flow_server *flow;
	const struct service_health *service_health;
	const struct stale_sock *stale;
	const struct proxy_health *proxy_health;
	const struct histogram *programming;
	const char *node_name;
	bool swept; /* the first complete sync is over */
};

/* metrics_kube_proxy.c */
void metrics_kube_proxy(struct text *t, const struct agent_view *v, const struct sync_stats *sync);
void metrics_collect(struct text *t, const struct agent_view *view);
/* True if ready; lines of what is not otherwise. */
bool readiness_collect(struct text *t, const struct agent_view *view);
