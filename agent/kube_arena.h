/* SPDX-License-Identifier: Apache-2.0 */
/* Memory for reading one object: taken piece by piece, given back at once, never beyond a limit. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct kube_arena {
	size_t max; /* bytes in all; set before use */
	struct kube_chunk *chunks;
	size_t used, room; /* of the first chunk */
	size_t total;
};

/* Aligned for anything, not zeroed. NULL: no memory, or beyond max. */
void *kube_arena_get(struct kube_arena *a, size_t size);
void *kube_arena_zalloc(struct kube_arena *a, size_t n, size_t size);
void kube_arena_reset(struct kube_arena *a); /* a little stays for the next object */
void kube_arena_done(struct kube_arena *a);
