// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include <waggle/map_walk.h>

#define BATCH 4096U

struct walk {
	int fd;
	const struct map_shape *shape;
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
	char *keys = realloc(w->keys, room * w->shape->key_bytes), *values;

	if (!keys)
		return -ENOMEM;
	w->keys = keys;
	values = realloc(w->values, room * w->shape->value_bytes);
	if (!values)
		return -ENOMEM;
	w->values = values;
	w->room = room;
	return 0;
}

/* Maps that know no batches: tries before Linux 5.13. */
static int walk_by_key(struct walk *w)
{
	const void *last = NULL;
	int r = 0;

	/* A key deleted under our feet sends the walk back to the start: bound it. */
	for (uint64_t n = 0; r == 0 && n < 2ULL * w->shape->max_entries; n++) {
		r = bpfsys_map_next_key(w->fd, last, w->keys);
		if (r < 0)
			return r == -ENOENT ? 0 : r;
		last = w->keys;
		r = bpfsys_map_lookup(w->fd, w->keys, w->values);
		if (r == -ENOENT)
			r = 0;
		else if (r == 0)
			r = w->fn(w->keys, w->values, w->ctx);
	}
	return r;
}

static int walk_visit(const struct walk *w, uint32_t n)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < n; i++)
		r = w->fn(w->keys + i * w->shape->key_bytes, w->values + i * w->shape->value_bytes,
			  w->ctx);
	return r;
}

static int walk_by_batch(struct walk *w)
{
	/* Opaque to us: a bucket's number of 4 bytes, or of other maps the last key. */
	_cleanup_free_ char *cursor = calloc(1, w->shape->key_bytes + 4);
	bool first = true, last = false;
	int r = 0;

	if (!cursor)
		return -ENOMEM;
	while (r == 0 && !last) {
		uint32_t n = w->room;

		r = bpfsys_map_lookup_batch(w->fd, first ? NULL : cursor, cursor, w->keys,
					    w->values, &n);
		if (r == -ENOSPC) { /* a bucket larger than the batch */
			r = walk_grow(w, 2 * w->room);
			continue;
		}
		if (r < 0 && r != -ENOENT)
			return first ? walk_by_key(w) : r;
		last = r < 0;
		first = false;
		r = walk_visit(w, n);
	}
	return r;
}

int map_walk(int fd, const struct map_shape *shape, map_walk_fn fn, void *ctx)
{
	_cleanup_(walk_done) struct walk w = { .fd = fd, .shape = shape, .fn = fn, .ctx = ctx };
	int r = walk_grow(&w, shape->max_entries < BATCH ? shape->max_entries : BATCH);

	return r < 0 ? r : walk_by_batch(&w);
}
