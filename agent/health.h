/* SPDX-License-Identifier: Apache-2.0 */
/* /healthz, /readyz and /metrics over HTTP on loopback or a unix socket. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <waggle/err.h>
#include "metrics.h"

struct event_base;
struct health;

/* addr: HOST:PORT, [V6]:PORT or unix:/path. view is borrowed and read at each request. */
int health_new(struct health **ret, struct event_base *base, const char *addr,
	       const struct agent_view *view, struct wag_err *err);
/* The same for /metrics alone, for a scraper on another machine; no HOST: all addresses. */
int health_new_metrics(struct health **ret, struct event_base *base, const char *addr,
		       const struct agent_view *view, struct wag_err *err);
void health_free(struct health *h);
void health_freep(struct health **h);
/* Splits HOST:PORT; 0 or -EINVAL. */
int health_addr_parse(const char *addr, char *host, size_t host_size, uint16_t *ret_port);
