/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names as they were when an event happened, each kept once however many flows carry it: 4095
 * flows of a hundred pods hold a hundred names.
 */
#pragma once

#include <stdint.h>
#include "flow.h"

#define FLOW_NAME_LABELS 4

/* What is known of one end, one Service, or one interface. Reference counted, immutable. */
struct flow_name;
struct flow_names;

int flow_names_new(struct flow_names **ret);	/* 0 or -ENOMEM */
void flow_names_free(struct flow_names *names); /* every name must have been put */
void flow_names_freep(struct flow_names **names);

/* Each returns a reference the caller owns, or NULL when out of memory. */
struct flow_name *flow_names_endpoint(struct flow_names *names, const struct flow_endpoint *ep);
struct flow_name *flow_names_service(struct flow_names *names, const struct flow_service *svc);
struct flow_name *flow_names_text(struct flow_names *names, const char *text);
void flow_name_put(struct flow_name *name); /* NULL is fine */

size_t flow_names_count(const struct flow_names *names);

/* The parts of a name, in the order of this enum; "" where there is none. */
enum flow_name_part {
	FLOW_NAME_NS,
	FLOW_NAME_NAME, /* of a pod, a Service or an interface */
	FLOW_NAME_WORKLOAD,
	FLOW_NAME_WORKLOAD_KIND,
	FLOW_NAME_LABEL,
	FLOW_NAME_PARTS = FLOW_NAME_LABEL + FLOW_NAME_LABELS,
};

/* Lives as long as the name does; "" for NULL. */
const char *flow_name_part(const struct flow_name *name, unsigned part);
uint32_t flow_name_id(const struct flow_name *name);
uint32_t flow_name_identity(const struct flow_name *name);
