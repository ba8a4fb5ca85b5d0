/* SPDX-License-Identifier: Apache-2.0 */
/* Which block of a pool this node should try to get next. Pure: what is known goes in. */
#pragma once

#include <stdbool.h>
#include <waggle/node_ranges.h>

#include "ipam_pool.h"
#include "model.h"

#define IPAM_BLIND_TRIES 8 /* conflicts before one asks which blocks are taken at all */

struct ipam_taken {
	struct ipam_range *at;
	size_t n;
	bool known; /* all of them */
};

struct ipam_pick {
	const struct ipam_pool *pool;
	const struct model *model; /* its Services and Nodes have addresses that are no pods' */
	const char *node;
	const struct node_range_list *mine;
	const struct ipam_taken *taken;
};

/* Short of memory it is not remembered: another conflict will say so again. */
void ipam_taken_add(struct ipam_taken *taken, const struct ipam_range *block);
/*
 * *attempt counts conflicts since the last success, and moves on over what is of no use. Returns
 * 0; -EAGAIN: the blind tries are over, taken has to be known first; -ENOSPC: none is free.
 */
int ipam_pick(const struct ipam_pick *pick, unsigned *attempt, struct ipam_range *ret);
