/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names for the flow exporter, from its own thread: local pods and Services straight from the
 * pinned maps, other nodes' pods from the model.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "dataplane_bpf.h"
#include "flow.h"
#include "model.h"

struct names;

/* Borrows both; 0 or -ENOMEM. */
int names_new(struct names **ret, const struct dataplane *dp, struct model *model);
void names_free(struct names *n);
void names_freep(struct names **n);
struct flow_resolver names_resolver(struct names *n);
/* Local pod interfaces in wag_endpoint. */
size_t endpoint_count(const struct dataplane *dp);
