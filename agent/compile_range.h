/* SPDX-License-Identifier: Apache-2.0 */
/* Which pod range is whose: claims of Nodes checked, and conflicts decided. Pure. */
#pragma once

#include "compile_node.h"

/* A prefix as one of 128 bits. */
struct cidr_range {
	struct wag_addr net; /* bits beyond the prefix are zero */
	unsigned bits;	     /* of the 128 */
};

struct cidr_range cidr_range_of(const struct wag_addr *addr, unsigned own_bits);
struct cidr_range cidr_range_cut(const struct wag_addr *addr, unsigned bits); /* of the 128 */
bool cidr_range_has(const struct cidr_range *outer, const struct wag_addr *addr);
bool cidr_ranges_overlap(const struct cidr_range *a, const struct cidr_range *b);
const char *cidr_range_format(const struct cidr_range *r, char *buf, size_t size);
int cidr_range_compare(const struct cidr_range *a, const struct cidr_range *b); /* parents first */

struct node_claim {
	struct cidr_range range;
	const struct object *node;
	size_t rank; /* of the node by age; 0 is ours */
	bool refused;
};

struct node_claims {
	struct node_claim *list;
	size_t n;
};

/* nodes: by age, ours (may be NULL) first. What is refused gets a warning in plan. 0 or -ENOMEM. */
int node_claims_make(struct node_claims *ret, const struct node_compile *in,
		     const struct object *const *nodes, size_t n, struct node_plan *plan);
void node_claims_done(struct node_claims *c);
/* The node's InternalIPs; its other addresses if it has none. */
size_t node_internal(const struct object *node);
/* Loopback, link-local, multicast: nobody's pods, and no node's address. */
bool cidr_range_special(const struct cidr_range *r);
int node_plan_warn(struct node_plan *plan, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Room for one more element of a list that doubles; NULL: out of memory. */
void *node_list_add(void *list, size_t size, size_t *n, size_t *cap);
