// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "sync_batch.h"

void sync_batch_done(struct batch *b)
{
	free(b->keys);
	free(b->values);
	free(b->owners);
}

int sync_batch_init(struct batch *b, struct sync *s, enum dp_table table, bool deletes,
	       batch_done_fn done)
{
	size_t max = table == DP_SVC_NAME ? 512 : 4096;

	*b = (struct batch){
		.s = s,
		.table = table,
		.deletes = deletes,
		.done = done,
		.key_size = dataplane_key_size(table),
		.value_size = dataplane_value_size(table),
		.max = max,
	};
	b->keys = malloc(max * b->key_size);
	b->values = malloc(max * b->value_size);
	b->owners = malloc(max * sizeof(*b->owners));
	return b->keys && b->values && b->owners ? 0 : -ENOMEM;
}

static void batch_report(struct batch *b, size_t i, int err)
{
	struct sync_stats *st = &b->s->stats;

	if (b->deletes)
		(err ? st->failed_deletes : st->deletes)[b->table]++;
	else
		(err ? st->failed_updates : st->updates)[b->table]++;
	if (b->done)
		b->done(b->s, b->keys + i * b->key_size, b->values + i * b->value_size,
			b->owners[i], err);
}

void sync_batch_flush(struct batch *b)
{
	size_t at = 0;

	while (at < b->n) {
		const void *keys = b->keys + at * b->key_size;
		size_t n = 0;
		int r;

		if (b->deletes)
			r = dataplane_delete(b->s->dp, b->table, keys, b->n - at, &n);
		else
			r = dataplane_update(b->s->dp, b->table, keys,
					     b->values + at * b->value_size, b->n - at, &n);
		if (r == 0)
			n = b->n - at;
		for (size_t i = 0; i < n; i++)
			batch_report(b, at + i, 0);
		at += n;
		if (r < 0 && at < b->n)
			batch_report(b, at++, r);
	}
	b->n = 0;
}

void sync_batch_add(struct batch *b, const void *key, const void *value, struct sync_port *owner)
{
	memcpy(b->keys + b->n * b->key_size, key, b->key_size);
	if (value)
		memcpy(b->values + b->n * b->value_size, value, b->value_size);
	b->owners[b->n] = owner;
	if (++b->n == b->max)
		sync_batch_flush(b);
}
