/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names for the flow exporter, from its own thread: local pods and Services straight from the
 * pinned maps, other nodes' pods from a snapshot of the model that the agent's thread renews.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "dataplane_bpf.h"
#include "flow.h"
#include "model.h"

struct names;

int names_new(struct names **ret, struct dataplane *dp); /* borrows dp; 0 or -errno */
void names_free(struct names *n);
void names_freep(struct names **n);
/* Agent's thread: takes what the model says now. 0 or -ENOMEM (the old snapshot stays). */
int names_renew(struct names *n, const struct model *model);
struct flow_resolver names_resolver(struct names *n);
/* Local pod interfaces in wag_endpoint. */
size_t endpoint_count(const struct dataplane *dp);
