/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few bpf(2) calls the CNI binary makes, without libbpf, so that it stays small and static.
 * fds are owned by the caller and close-on-exec. Returns 0, an fd, or -errno.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

int bpfsys_obj_get(const char *path);
int bpfsys_obj_pin(int fd, const char *path);
int bpfsys_map_lookup(int fd, const void *key, void *value);
int bpfsys_map_update(int fd, const void *key, const void *value, uint64_t flags);
int bpfsys_map_delete(int fd, const void *key);
int bpfsys_map_next_key(int fd, const void *key, void *next); /* key NULL: first; -ENOENT: end */
/*
 * The next *n elements of a hash, or fewer; *n says how many. at: of the last call (NULL: the
 * beginning), and next where to go on: as long as a key, and 4 bytes at least. -ENOENT with the
 * last of them, -ENOSPC: *n is too small.
 */
int bpfsys_map_lookup_batch(int fd, const void *at, void *next, void *keys, void *values,
			    uint32_t *n);
/*
 * One aligned 32-bit store at offset of element 0 of an mmapable array: what others write beside it
 * stays.
 */
int bpfsys_array_store(int fd, size_t offset, uint32_t value);
/* Another version's map may have other sizes: look before a lookup writes past a buffer. */
int bpfsys_map_sizes(int fd, uint32_t *ret_key, uint32_t *ret_value);
/* TCX link (Linux 6.6), behind what is there or first: returns its fd. */
int bpfsys_tcx_attach(int prog_fd, uint32_t ifindex, int egress, int first);
/* Where a TCX link is and what it runs; ifindex 0: its device is gone. */
int bpfsys_tcx_info(int fd, uint32_t *ret_ifindex, uint32_t *ret_prog_id);
int bpfsys_prog_id(int fd, uint32_t *ret_id);
