// SPDX-License-Identifier: Apache-2.0
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <waggle/cleanup.h>
#include <waggle/map_walk.h>

#define BATCH 4096U

struct walk {
	int fd;
	size_t key_bytes, value_bytes;
	uint32_t max_entries;
	map_walk_fn fn;
	void *ctx;
	uint32_t room; /* of keys and values */
	char *keys, *values;
};

static void walk_done(struct walk *w)
{
	free(w->keys);
	free(w->values);
}

static int walk_grow(struct walk *w, uint32_t room)
{
	char *keys = realloc(w->keys, room * w->key_bytes), *values;

	if (!keys)
		return -ENOMEM;
	w->keys = keys;
	values = realloc(w->values, room * w->value_bytes);
	if (!values)
		return -ENOMEM;
	w->values = values;
	w->room = room;
	return 0;
}

static int walk_init(struct walk *w)
{
	struct bpf_map_info info = {};
	uint32_t size = sizeof(info);

	if (bpf_obj_get_info_by_fd(w->fd, &info, &size) < 0)
		return -errno;
	w->key_bytes = info.key_size;
	w->value_bytes = info.value_size;
	if (info.type == BPF_MAP_TYPE_PERCPU_ARRAY || info.type == BPF_MAP_TYPE_PERCPU_HASH ||
	    info.type == BPF_MAP_TYPE_LRU_PERCPU_HASH)
		w->value_bytes = (info.value_size + 7UL) / 8 * 8 * libbpf_num_possible_cpus();
	w->max_entries = info.max_entries;
	return walk_grow(w, info.max_entries < BATCH ? info.max_entries : BATCH);
}

/* Maps that know no batches: tries before Linux 5.13. */
static int walk_by_key(struct walk *w)
{
	const void *last = NULL;
	int r = 0;

	/* A key deleted under our feet sends the walk back to the start: bound it. */
	for (uint64_t n = 0; r == 0 && n < 2ULL * w->max_entries; n++) {
		if (bpf_map_get_next_key(w->fd, last, w->keys) < 0)
			return errno == ENOENT ? 0 : -errno;
		last = w->keys;
		if (bpf_map_lookup_elem(w->fd, w->keys, w->values) == 0)
			r = w->fn(w->keys, w->values, w->ctx);
		else if (errno != ENOENT)
			r = -errno;
	}
	return r;
}

static int walk_visit(const struct walk *w, uint32_t n)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < n; i++)
		r = w->fn(w->keys + i * w->key_bytes, w->values + i * w->value_bytes, w->ctx);
	return r;
}

static int walk_by_batch(struct walk *w)
{
	/* Opaque to us: a bucket's number of 4 bytes, or of other maps the last key. */
	_cleanup_free_ char *cursor = calloc(1, w->key_bytes > 4 ? w->key_bytes : 4);
	bool first = true, last = false;
	int r = 0;

	if (!cursor)
		return -ENOMEM;
	while (r == 0 && !last) {
		uint32_t n = w->room;

		if (bpf_map_lookup_batch(w->fd, first ? NULL : cursor, cursor, w->keys, w->values,
					 &n, NULL) < 0) {
			if (errno == ENOSPC) { /* a bucket larger than the batch */
				r = walk_grow(w, 2 * w->room);
				continue;
			}
			if (errno != ENOENT)
				return first ? walk_by_key(w) : -errno;
			last = true;
		}
		first = false;
		r = walk_visit(w, n);
	}
	return r;
}

int map_walk(int fd, map_walk_fn fn, void *ctx)
{
	_cleanup_(walk_done) struct walk w = { .fd = fd, .fn = fn, .ctx = ctx };
	int r = walk_init(&w);

	return r < 0 ? r : walk_by_batch(&w);
}
