/* SPDX-License-Identifier: Apache-2.0 */
/*
 * This node's blocks out of the cluster's pools, claimed by creating Leases (kube_lease.h). Nobody
 * hands them out: who creates the Lease of a block holds the block, until its Node is gone.
 *
 *   list own -> (put new owner) -> claim back what was lost -> verify -> claim what is needed
 *      ^                                                                      |
 *      +------- every few minutes, after an error, when the Node is another --+
 *
 * Verify: Leases of another block size have other names, so two of them could overlap when agents
 * of different settings meet. Each looks for those after creating its own, and gives it back when
 * there is one: of two, at least the later sees the other.
 */
#pragma once

#include <waggle/node_ranges.h>

#include "ipam_pool.h"
#include "kube_cluster.h"

struct kube_pool;

struct kube_pool_options {
	const char *ns;			 /* of the Leases */
	struct ipam_pool pools[2];	 /* IPv4, IPv6 */
	struct node_range_list trusted;	 /* held before the agent ended, by its own record */
	void (*changed)(void *ctx);	 /* kube_pool_blocks() says something new */
	void *ctx;
	unsigned relist_ms; /* 0: the default, 300000. For tests. */
};

struct kube_pool_stats {
	uint64_t claimed, conflicts, errors;
	char error[256]; /* not recovered from yet; "" when fine */
};

/* 0 or -ENOMEM; cluster must outlive it. Nothing is sent before the loop runs. */
int kube_pool_new(struct kube_pool **ret, struct kube_cluster *cluster,
		  const struct kube_pool_options *options);
void kube_pool_free(struct kube_pool *p); /* NULL is fine */
/* The blocks of both families; nobody else has a part of them. */
const struct node_range_list *kube_pool_blocks(const struct kube_pool *p);
/* So many blocks of the family are needed, if its pool has any. */
void kube_pool_need(struct kube_pool *p, int family, size_t n);
void kube_pool_poke(struct kube_pool *p); /* the Nodes of the model may have changed */
void kube_pool_stats(const struct kube_pool *p, struct kube_pool_stats *ret);
