/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pinned table that tells the CNI plugin, while no agent runs, in which namespaces some policy
 * selects pods (wag_policy_ns, wag_runtime.policies).
 */
#pragma once

#include "model.h"
#include "policy_apply.h"
#include "sync_table.h"

struct policy_sync {
	struct sync_table table;
	struct policy_apply apply; /* what the datapath judges by */
	bool stale; /* desired is behind the model */
	bool waits; /* for the list of all Pods */
	int err; /* positive errno of what stays pending; 0: nothing */
};

int policy_sync_init(struct policy_sync *p, struct dataplane *dp); /* 0 or -errno */
void policy_sync_done(struct policy_sync *p);
/*
 * Takes the namespaces' dirty marks. Nothing is written before every kind of the model that could
 * name a namespace is synced. 0, or -errno: to be called again.
 */
int policy_sync_run(struct policy_sync *p, struct model *m);
/* The table tells all of the cluster. */
bool policy_sync_ready(const struct policy_sync *p);
