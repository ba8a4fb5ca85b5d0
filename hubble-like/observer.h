/* SPDX-License-Identifier: Apache-2.0 */
/* Hubble's observer.Observer and grpc.health.v1.Health over a flow ring. One thread. */
#pragma once

#include <stdint.h>
#include "flow_ring.h"
#include "grpc.h"

#define OBSERVER_RATE_SECONDS 60

struct observer {
	struct flow_ring *ring; /* borrowed */
	const char *node_name;	/* borrowed */
	uint64_t boot_id;
	uint64_t started_ns; /* CLOCK_MONOTONIC */
	uint64_t seen;	     /* flows ever pushed */
	uint64_t lost_queue; /* flows that slow clients missed */
	unsigned streams;    /* GetFlows calls open */
	unsigned followers;  /* those that follow */
	struct {
		uint64_t time_ns, seen;
	} samples[OBSERVER_RATE_SECONDS]; /* once a second; the rate is over all of them */
	uint64_t n_samples;
};

void observer_init(struct observer *o, struct flow_ring *ring, const char *node_name);
void observer_tick(struct observer *o, uint64_t now_ns); /* CLOCK_MONOTONIC; any time */
double observer_rate(const struct observer *o, uint64_t now_ns);
struct grpc_handler observer_handler(struct observer *o); /* for grpc_conn_new() */
