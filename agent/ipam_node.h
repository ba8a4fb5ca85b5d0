/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node's pod ranges: where they come from, what is written of them for the CNI plugin
 * (waggle/node_ranges.h), what other nodes are told, and how full they are.
 *
 *   kubernetes    the Node's own spec.podCIDRs
 *   cluster-pool  blocks the agent claims (kube_pool.h), another one when 80 % are in use
 */
#pragma once

#include <stdbool.h>
#include <waggle/ipam.h>

#include "source.h"

#define IPAM_FULL_PERCENT 80 /* another block, a Warning */
#define IPAM_CALM_PERCENT 70 /* below it, the next Warning is news again */

struct ipam_node;

struct ipam_node_options {
	const char *state_dir, *node_name;
	bool cluster_pool;
	bool without[2];	  /* IPv4, IPv6: pods have no addresses of the family */
	const char *ns;		  /* of the Leases */
	const char *pool_cidrs[2]; /* IPv4, IPv6; comma separated; NULL or empty: none */
	unsigned pool_masks[2];
	struct source_reporter reporter;
	/* 0: the default. For tests. */
	unsigned settle_ms; /* 500: from a change of the leases to the count */
	unsigned relist_ms, gc_delay_ms, gc_sweep_ms; /* kube_pool.h, kube_pool_gc.h */
};

struct ipam_node_stats {
	struct ipam_node_family {
		struct ipam_usage usage;
		size_t blocks;
	} family[2]; /* IPv4, IPv6 */
	size_t draining;
	uint64_t claimed, conflicts, errors; /* of the claiming of blocks */
};

/* base, model and source must outlive it; the options are copied. 0 or -errno with err filled. */
int ipam_node_new(struct ipam_node **ret, struct event_base *base, struct model *model,
		  struct source *source, const struct ipam_node_options *options,
		  struct wag_err *err);
void ipam_node_free(struct ipam_node *n); /* NULL is fine */
void ipam_node_poke(struct ipam_node *n);  /* the model may have changed */
void ipam_node_count(struct ipam_node *n); /* the leases may have changed */
void ipam_node_stats(const struct ipam_node *n, struct ipam_node_stats *ret);
