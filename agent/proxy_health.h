/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether this node's service proxy keeps up with the cluster, as kube-proxy tells it: healthy, but
 * when something has waited too long to be applied. Pure: the caller brings the time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include "compile_health.h"

#define PROXY_HEALTH_LATE_MS 60000 /* twice kube-proxy's sync period */

struct proxy_health {
	bool queued;		 /* something waits to be applied */
	uint64_t queued_ms;	 /* since then, CLOCK_MONOTONIC */
	struct timespec updated; /* wall clock when all was applied last; 0: never */
};

void proxy_health_queued(struct proxy_health *h, uint64_t now_ms);
void proxy_health_applied(struct proxy_health *h, struct timespec wall);
bool proxy_health_ok(const struct proxy_health *h, uint64_t now_ms);

struct proxy_answer {
	int code; /* HTTP */
	char body[1024];
};

/* /healthz: 503 also where the node is about to go, so that load balancers drain it (KEP-3836). */
void proxy_health_healthz(const struct proxy_health *h, uint64_t now_ms, struct timespec wall,
			  bool node_eligible, struct proxy_answer *ret);
/* /livez: of the proxy alone. */
void proxy_health_livez(const struct proxy_health *h, uint64_t now_ms, struct timespec wall,
			struct proxy_answer *ret);
/* A healthCheckNodePort in one family. */
void proxy_health_service(const char *ns, const char *name, uint32_t local, bool proxy_ok,
			  struct proxy_answer *ret);
