/* SPDX-License-Identifier: Apache-2.0 */
/* The policies' maps, in words. */
#pragma once

#include <stdint.h>
#include "bpf_maps.h"

struct policy_rule_text {
	const char *tier, *direction;
	char policy[330]; /* NS/NAME or NAME */
	char rule[112];	  /* its name or number; "isolates" */
};

void policy_rule_text(const struct wag_rule_name *name, struct policy_rule_text *ret);

struct policies {
	struct pinned_map pods, policy, rule, port, port_exact, names;
	uint32_t gen;
};
#define POLICIES_NONE                                                                              \
	{                                                                                          \
		PINNED_MAP_NONE, PINNED_MAP_NONE, PINNED_MAP_NONE, PINNED_MAP_NONE,                \
		PINNED_MAP_NONE, PINNED_MAP_NONE, 0                                                \
	}

int policies_open(const struct cli *cli, struct policies *ret, struct wag_err *err);
void policies_done(struct policies *p);
/* A row: what is in force for one direction (0 ingress) of a pod of this node. */
json_t *policies_of(struct policies *p, uint32_t ep_id, const struct wag_endpoint *ep, int dir);
/* "allowed by x/y, rule 0", "denied: no rule allows it; x/y isolates"; 0: nothing says so. */
void policies_verdict(struct policies *p, uint32_t verdict, char *buf, size_t size);
