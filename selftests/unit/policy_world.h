/* SPDX-License-Identifier: Apache-2.0 */
/* A random cluster: its objects as JSON, and what they become in a model. */
#pragma once

#include <stdint.h>
#include "agent/model.h"
#include "policy_oracle.h"

struct policy_world {
	struct oracle o;
	struct model *model; /* borrowed */
	uint64_t seed;
};

void policy_world_init(struct policy_world *w, struct model *m, uint64_t seed);
void policy_world_done(struct policy_world *w);
/* One random change; always something. */
void policy_world_step(struct policy_world *w);
uint32_t policy_world_random(struct policy_world *w, uint32_t below);
/* An address somebody may have: of a pod, a node, the world, or nobody inside a pod range. */
const char *policy_world_address(struct policy_world *w, int family);
/* Put one object in (replacing what has its name) or take it out, by hand. */
void policy_world_put(struct policy_world *w, enum model_kind kind, const char *json);
