/* SPDX-License-Identifier: Apache-2.0 */
/* Every element of a BPF map (libbpf). */
#pragma once

/* Other than 0 ends the walk. A per-CPU map: a value for each possible CPU, in steps of 8 bytes. */
typedef int (*map_walk_fn)(const void *key, const void *value, void *ctx);

/*
 * Returns 0 after the last one, what fn returned otherwise than 0, or -errno. What others put in or
 * take out meanwhile is met or not; where they take out much, some may be met twice.
 */
int map_walk(int fd, map_walk_fn fn, void *ctx);
