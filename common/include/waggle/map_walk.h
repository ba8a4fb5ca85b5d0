/* SPDX-License-Identifier: Apache-2.0 */
/* Every element of a BPF map. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct map_shape {
	size_t key_bytes;
	size_t value_bytes; /* per-CPU: of all possible CPUs, in steps of 8 bytes */
	uint32_t max_entries;
};

typedef int (*map_walk_fn)(const void *key, const void *value, void *ctx); /* not 0 stops */

/*
 * Returns 0 after the last one, what fn returned otherwise than 0, or -errno. What others put in or
 * take out meanwhile is met or not; where they take out much, some may be met twice.
 */
int map_walk(int fd, const struct map_shape *shape, map_walk_fn fn, void *ctx);
