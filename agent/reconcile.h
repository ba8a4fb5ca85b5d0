/* SPDX-License-Identifier: Apache-2.0 */
/* One turn of model -> compile -> sync: what changed in the model reaches the maps. */
#pragma once

#include <stdint.h>
#include "compile_health.h"
#include "compile_service.h"
#include "model.h"
#include "sync.h"

/* Who is told what a turn comes to besides the maps; any of them may be NULL. */
struct reconcile_listener {
	/* A Service that cannot be programmed as it is (err: -ENAMETOOLONG). */
	void (*refused)(const char *ns, const char *name, int err, void *ctx);
	/* One that has a new remark: svc_table.remark. */
	void (*remarked)(const char *ns, const char *name, const char *remark, void *ctx);
	/* What load balancers are told of a Service that has changed; NULL: it is gone. */
	int (*checked)(const char *ns, const char *name, const struct health_check *check,
		       void *ctx);
	/* A change of endpoints, made at that time (ms since 1970), is in the maps now. */
	void (*programmed)(int64_t trigger_ms, void *ctx);
	void *ctx;
};

/*
 * Compiles the Services that are marked dirty and applies them; does nothing to Services before the
 * model has both Services and EndpointSlices complete, and removes leftovers of an earlier agent
 * the first time it has. facts->zone is kept as the Node has it. Returns 0, or -ENOMEM: the maps
 * are consistent, but marks may be lost, so the agent has to start anew.
 */
int reconcile_run(struct model *m, struct compile_facts *facts, struct sync *s, uint64_t now_ms,
		  const struct reconcile_listener *listener);
