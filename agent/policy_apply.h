/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policies' tables against what the maps hold. There are generations of each: the one that was
 * in force longest ago is brought up to date, then one store of wag_runtime.policy_epoch puts it in
 * force; a packet goes by one or the other. What cannot be written whole is not put in force.
 */
#pragma once

#include "compile_policy.h"
#include "sync_table.h"

struct policy_ep; /* a pod of this node */

struct policy_apply {
	struct dataplane *dp; /* borrowed */
	struct policy_compiler *compiler;
	struct sync_table gens[WAG_POLICY_GENS][POLICY_TABLES];
	struct sync_table names;
	struct policy_ep *eps;
	uint32_t epoch; /* in force */
	bool behind;   /* the compiler knows more than is in force */
	int err;	      /* positive errno of what keeps it behind; 0: nothing */
	const char *err_map;
	uint64_t flips;
};

int policy_apply_init(struct policy_apply *a, struct dataplane *dp); /* 0 or -errno */
void policy_apply_done(struct policy_apply *a);
/* As model_on_change(). 0 or -ENOMEM. */
int policy_apply_change(struct policy_apply *a, const struct object *obj, bool gone);
/* Exactly these are the pods of this node. 0 or -ENOMEM. */
int policy_apply_endpoints(struct policy_apply *a, const struct policy_endpoint *eps, size_t n);
/*
 * Compiles and puts in force. 0, or -errno: the old tables stay in force, and it is to be called
 * again.
 */
int policy_apply_run(struct policy_apply *a, policy_refused_fn refused, void *ctx);
/* All that is known of the pod's policies is in force; with_pod: its Pod must be known for that. */
bool policy_apply_in_force(const struct policy_apply *a, uint32_t ep_id, bool with_pod);
