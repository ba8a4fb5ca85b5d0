/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The health servers kube-proxy has: one for each healthCheckNodePort and family of the Service,
 * which tells a load balancer whether this node has ready endpoints, and the node's own /healthz
 * and /livez. On the agent's loop.
 */
#pragma once

#include "compile_health.h"
#include "model.h"
#include "proxy_health.h"
#include "source.h"

struct event_base;
struct service_health;

struct service_health_options {
	struct event_base *base;
	const struct proxy_health *proxy; /* borrowed, and read at each request */
	const struct model *model;	  /* borrowed: the node of this name is asked for */
	const char *node_name;
	/* Are NodePorts, and with them health checks, served on this address of the node? */
	bool (*serves)(const struct wag_addr *addr, void *ctx);
	/* A port of the Service cannot be had, and is tried again; text is for a person. */
	void (*failed)(const char *ns, const char *name, const char *text, void *ctx);
	void *ctx;
	struct source_reporter reporter;
};

int service_health_new(struct service_health **ret, const struct service_health_options *options);
void service_health_free(struct service_health *h); /* NULL is fine */
/* IP:PORT or [V6]:PORT of /healthz and /livez; an address of all zeros takes both families. */
int service_health_serve_node(struct service_health *h, const char *addr, struct wag_err *err);
/* What Service ns/name says from the next service_health_apply() on; NULL: it is gone. */
int service_health_set(struct service_health *h, const char *ns, const char *name,
		       const struct health_check *check);
/* Closes the ports that nobody wants any more, then opens those that are new. 0 or -ENOMEM. */
int service_health_apply(struct service_health *h);

struct service_health_stats {
	size_t listening, failed; /* ports of Services, by family */
	bool node_failed;	  /* --healthz-bind-address cannot be had */
	uint64_t healthz[2], livez[2]; /* answers: 200, 503 */
};

void service_health_get_stats(const struct service_health *h, struct service_health_stats *ret);
