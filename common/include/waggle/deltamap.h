/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of which we know what it should hold (desired) and what it holds (actual), and which
 * therefore knows what is left to do. Keys and values have fixed sizes and are compared as bytes,
 * so padding must be zero. Changes that cancel out leave nothing pending; asking what is pending
 * costs O(pending).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct deltamap {
	size_t key_size, value_size, entry_size;
	unsigned char *entries; /* each: state byte, key, desired value, actual value */
	uint32_t n_entries, cap_entries;
	uint32_t *table; /* open addressing; entry number + 1, 0: never used */
	uint32_t mask, n_used; /* n_used counts removed marks too */
	uint32_t *free_list, n_free, cap_free;
	uint32_t *queue, n_queue, cap_queue; /* entries that may be pending */
	size_t n_desired, n_actual, n_pending;
};

int deltamap_init(struct deltamap *m, size_t key_size, size_t value_size); /* 0 or -ENOMEM */
void deltamap_done(struct deltamap *m);

/* 0 or -ENOMEM, and then nothing has changed. Unsetting what is not there is nothing. */
int deltamap_set_desired(struct deltamap *m, const void *key, const void *value);
int deltamap_set_actual(struct deltamap *m, const void *key, const void *value);
void deltamap_unset_desired(struct deltamap *m, const void *key);
void deltamap_unset_actual(struct deltamap *m, const void *key);
/* NULL if not set; valid until the next set or unset. */
const void *deltamap_desired(const struct deltamap *m, const void *key);
const void *deltamap_actual(const struct deltamap *m, const void *key);

static inline size_t deltamap_pending(const struct deltamap *m)
{
	return m->n_pending;
}

/*
 * Calls fn for every key whose two sides differ, in the order they began to; desired NULL means
 * delete, actual NULL means insert. fn must not change the map; it returns not 0 to stop the walk.
 */
typedef int (*deltamap_fn)(const void *key, const void *desired, const void *actual, void *ctx);
int deltamap_visit_pending(struct deltamap *m, deltamap_fn fn, void *ctx);
/* Every key, in no particular order. */
int deltamap_visit(const struct deltamap *m, deltamap_fn fn, void *ctx);
