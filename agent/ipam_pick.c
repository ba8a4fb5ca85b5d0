// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>

#include "ipam_pick.h"

#define WINDOW_MIN 256
#define SCAN_MAX (1U << 20)

void ipam_taken_add(struct ipam_taken *taken, const struct ipam_range *block)
{
	struct ipam_range *at = reallocarray(taken->at, taken->n + 1, sizeof(*at));

	if (!at)
		return;
	taken->at = at;
	at[taken->n++] = *block;
}

static int holds_service(const struct object *obj, void *ctx)
{
	const struct ipam_range *block = ctx;

	for (size_t i = 0; i < obj->service.n_cluster_ips; i++)
		if (wag_addr_in_cidr(&obj->service.cluster_ips[i], &block->subnet, block->bits))
			return 1;
	return 0;
}

struct look {
	const struct ipam_range *block;
	const char *own_node;
};

/* A Node's address, or its pods': what another mode or a controller gave it is its own as well. */
static int holds_node(const struct object *obj, void *ctx)
{
	const struct look *look = ctx;

	for (size_t i = 0; i < obj->node.n_addrs; i++)
		if (wag_addr_in_cidr(&obj->node.addrs[i], &look->block->subnet, look->block->bits))
			return 1;
	if (strcmp(obj->name, look->own_node) == 0)
		return 0;
	for (size_t i = 0; i < obj->node.n_pod_cidrs; i++) {
		struct ipam_range range;

		if (wag_cidr_parse(obj->node.pod_cidrs[i], &range.subnet, &range.bits) == 0 &&
		    ipam_ranges_overlap(look->block, &range))
			return 1;
	}
	return 0;
}

static bool usable(const struct ipam_pick *pick, struct ipam_range *block)
{
	struct look look = { block, pick->node };

	for (size_t i = 0; i < pick->mine->n; i++)
		if (ipam_ranges_overlap(block, &pick->mine->at[i]))
			return false;
	for (size_t i = 0; i < pick->taken->n; i++)
		if (ipam_ranges_overlap(block, &pick->taken->at[i]))
			return false;
	return !model_visit(pick->model, MODEL_SERVICE, holds_service, block) &&
	       !model_visit(pick->model, MODEL_NODE, holds_node, &look);
}

/*
 * A pool may be far larger than the cluster (10.0.0.0/8) and reach into what others use: its
 * beginning is taken first, as much of it as leaves three blocks free for each in use.
 */
static uint64_t window(const struct ipam_pick *pick)
{
	uint64_t n = WINDOW_MIN;

	while (n < 4 * model_count(pick->model, MODEL_NODE))
		n *= 2;
	return n < pick->pool->total ? n : pick->pool->total;
}

int ipam_pick(const struct ipam_pick *pick, unsigned *attempt, struct ipam_range *ret)
{
	const struct ipam_pool *pool = pick->pool;
	struct ipam_pool head = *pool;
	struct ipam_range block;
	uint64_t start;

	head.total = window(pick);
	for (; *attempt < IPAM_BLIND_TRIES; ++*attempt) {
		ipam_pool_block(pool, ipam_pool_candidate(&head, pick->node, *attempt), &block);
		if (usable(pick, &block)) {
			*ret = block;
			return 0;
		}
	}
	if (!pick->taken->known)
		return -EAGAIN;
	start = ipam_pool_candidate(&head, pick->node, 0);
	for (uint64_t i = 0; i < pool->total && i < SCAN_MAX; i++) {
		ipam_pool_block(pool, (start + i) % pool->total, &block);
		if (usable(pick, &block)) {
			*ret = block;
			return 0;
		}
	}
	return -ENOSPC;
}
