/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ordered rules that all match one peer -> what each port gets. Equal answers share one profile,
 * whose entries stand in POLICY_PORT as prefixes, those of single ports in POLICY_PORT_EXACT. Pure.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <waggle/deltamap.h>

#include "policy.h"

/* Named ports of one pod, for each: protocol, port (host order, two bytes), name and 0. */
struct port_names {
	const char *data;
	size_t len;
};

struct port_match {
	enum policy_tier tier;
	const struct policy_rule *rule;
	uint32_t id; /* rule id */
};

struct profile;

struct profile_set {
	struct profile *profiles;
	struct profile *by_id; /* the same, by id */
	struct deltamap *table, *exact; /* borrowed */
	uint32_t next_id, *free_ids;
	size_t n_free, cap_free, n;
};

void profile_set_done(struct profile_set *s);
/*
 * matches in the order of precedence; isolates: rule id of the policy that denies what no rule of
 * POLICY_NETWORK accepts, 0: none. *ret: a verdict (WAG_VERDICT), which holds a reference if it
 * names a profile: ports_put(). 0 or -ENOMEM.
 */
int ports_compile(struct profile_set *s, const struct port_match *matches, size_t n,
		  uint32_t isolates, const struct port_names *names, uint32_t *ret);
void ports_put(struct profile_set *s, uint32_t verdict);
