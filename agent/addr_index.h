/* SPDX-License-Identifier: Apache-2.0 */
/* Whose an address is, by the objects that say so. Not locked: the model's own. */
#pragma once

#include "model.h"

/* "This object says that it owns this address". Several may: the chain keeps them all. */
struct claim {
	const struct object *obj;
	uint32_t endpoint, addr; /* where in the object the address stands */
	uint32_t next;		 /* index + 1 of the next claim of the bucket or free list */
};

struct addr_index {
	struct claim *claims;
	uint32_t *buckets; /* index + 1 of the first claim */
	uint32_t n_buckets, n_alloc, free_head;
};

/*
 * obj's addresses come in, or leave; it must not change while they are in. 0 or -ENOMEM, and then
 * some may be in: take them out.
 */
int addr_index_change(struct addr_index *index, const struct object *obj, bool add);
void addr_index_done(struct addr_index *index);
const struct object *addr_index_pod(const struct addr_index *index, const struct wag_addr *addr);
/* As model_name_by_addr(); the strings belong to the objects. */
int addr_index_name(const struct addr_index *index, const struct wag_addr *addr, const char **ns,
		    const char **name);
