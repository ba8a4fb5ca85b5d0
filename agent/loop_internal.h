/* SPDX-License-Identifier: Apache-2.0 */
/* Between loop.c and loop_node.c: all that runs, and what both make happen. */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include "cni_conf.h"
#include "compile_service.h"
#include "config.h"
#include "dataplane_bpf.h"
#include "endpoint.h"
#include "endpoint_settle.h"
#include "endpoint_watch.h"
#include "flow.h"
#include "health.h"
#include "ipam_node.h"
#include "masquerade.h"
#include "metrics.h"
#include "model.h"
#include "node_addr.h"
#include "node_net.h"
#include "policy_sync.h"
#include "proxy_health.h"
#include "service_health.h"
#include "source.h"
#include "stale_sock.h"
#include "sync.h"

#define TRIM_DELAY_MS 200

struct loop {
	const struct config *config;
	struct event_base *base;
	struct event *sync_timer, *node_timer, *trim_timer, *monitor, *routes;
	struct event *sigterm, *sigint;
	struct nl *nl;
	int monitor_fd, routes_fd;
	struct node_facts facts;
	struct dp_tunnel tunnel;
	struct compile_facts compile_facts;
	struct node_net *net;
	struct masq_watch *masq; /* NULL: no --ip-masq-agent-config */
	struct dataplane *dp;
	struct model *model;
	struct sync *sync;
	struct policy_sync policies;
	struct endpoint_watch *endpoints;
	struct endpoint_settle *settle; /* may be NULL */
	struct source *source;
	struct ipam_node *ipam;
	struct names *names;
	struct flow_server *flow;
	struct health *health, *metrics;
	struct proxy_health proxy_health;
	struct histogram programming;
	int64_t started_ms; /* wall clock */
	struct service_health *service_health;
	struct stale_sock *stale; /* NULL: no socket path */
	struct cni_watch *cni;
	struct agent_view view;
	uint64_t last_run_ms, last_cpu_ms;
	bool sync_due, restart, told_to_end;
	bool endpoints_changed; /* pods came or went since policies were looked at */
};

/* loop.c */
void loop_start_timer(struct event *timer, uint64_t ms);
static inline void loop_free_event(struct event *e)
{
	if (e)
		event_free(e);
}
void loop_schedule_sync(struct loop *l);
uint64_t loop_now_ms(void);
void loop_report(void *ctx, enum wag_log_level level, const char *msg);

/* loop_policy.c */
void loop_policy_start(struct loop *l);
int loop_policy_run(struct loop *l); /* when to look again: milliseconds, or -1 for never */
bool loop_policy_in_force(void *ctx, uint32_t ep_id);

/* loop_node.c: the node's devices, addresses and routes, followed. */
void loop_log_devices(const struct node_facts *f, uint32_t socket_lb);
void loop_log_pacing(const struct node_facts *f);
int loop_node_events(struct loop *l, struct wag_err *err); /* before the first listing */
int loop_node_start(struct loop *l, struct wag_err *err);  /* the ways to other nodes */
void loop_node_stop(struct loop *l);
