/* SPDX-License-Identifier: Apache-2.0 */
/* A pool of address blocks of one size: which there are, and in which order a node tries them. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <waggle/abi_addr.h>
#include <waggle/err.h>
#include <waggle/ipam.h>

#define IPAM_POOL_NETS 16

struct ipam_pool {
	bool v6;
	unsigned mask;	/* of a block, in bits of its own family */
	uint64_t total; /* blocks; 0: the family has no pool */
	size_t n_nets;
	struct ipam_pool_net {
		struct wag_addr addr;
		unsigned bits;
		uint64_t blocks;
	} nets[IPAM_POOL_NETS];
};

/*
 * list: CIDRs of one family, comma separated; empty or NULL: no pool. flag is named in errors.
 * 0 or -EINVAL with err filled.
 */
int ipam_pool_parse(struct ipam_pool *ret, bool v6, const char *list, unsigned mask,
		    const char *flag, struct wag_err *err);
/* index < total. */
void ipam_pool_block(const struct ipam_pool *pool, uint64_t index, struct ipam_range *ret);
/* Is this a block of the pool: of its size, and within it? */
bool ipam_pool_has(const struct ipam_pool *pool, const struct ipam_range *block);
/*
 * Where a node looks, attempt after attempt: the first is the same for a name at all times, so
 * that a node that comes back finds its old block, and differs between names, so that a thousand
 * nodes do not race for one.
 */
uint64_t ipam_pool_candidate(const struct ipam_pool *pool, const char *node, unsigned attempt);
bool ipam_ranges_overlap(const struct ipam_range *a, const struct ipam_range *b);
