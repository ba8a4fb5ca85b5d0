/* SPDX-License-Identifier: Apache-2.0 */
/* One turn of model -> compile -> sync: what changed in the model reaches the maps. */
#pragma once

#include <stdint.h>
#include "compile_service.h"
#include "model.h"
#include "sync.h"

/* Told about a Service that cannot be programmed as it is (err: -ENAMETOOLONG). May be NULL. */
typedef void (*reconcile_refused_fn)(const char *ns, const char *name, int err, void *ctx);

/*
 * Compiles the Services that are marked dirty and applies them; does nothing to Services before the
 * model has both Services and EndpointSlices complete, and removes leftovers of an earlier agent
 * the first time it has. facts->zone is kept as the Node has it. Returns 0, or -ENOMEM: the maps
 * are consistent, but marks may be lost, so the agent has to start anew.
 */
int reconcile_run(struct model *m, struct compile_facts *facts, struct sync *s, uint64_t now_ms,
		  reconcile_refused_fn refused, void *ctx);
