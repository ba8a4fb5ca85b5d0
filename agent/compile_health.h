/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From one Service and its EndpointSlices to what this node tells load balancers about it, with
 * kube-proxy's semantics. Pure: no I/O, no clock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct compile_facts;
struct object;

enum { HEALTH_V4, HEALTH_V6, HEALTH_FAMILIES };

struct health_check {
	uint16_t port; /* healthCheckNodePort in host order; 0: nobody is to be told */
	struct {
		bool serves;	/* the Service has a cluster address of the family */
		uint32_t local; /* ready endpoints on this node, each address once */
	} family[HEALTH_FAMILIES];
};

/* slices: those labelled with this Service. 0 or -ENOMEM. */
int compile_health(const struct object *svc, const struct object *const *slices, size_t n_slices,
		   const struct compile_facts *facts, struct health_check *ret);
