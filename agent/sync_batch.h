/* SPDX-License-Identifier: Apache-2.0 */
/* One table's operations collected into packed arrays, each with the port it is for. */
#pragma once

#include "sync_internal.h"

struct batch;
typedef void (*batch_done_fn)(struct sync *s, const void *key, const void *value,
			      struct sync_port *owner, int err);

struct batch {
	struct sync *s;
	enum dp_table table;
	bool deletes;
	batch_done_fn done; /* told about each operation, err 0 or -errno; may be NULL */
	size_t key_size, value_size, n, max;
	unsigned char *keys, *values;
	struct sync_port **owners;
};

int sync_batch_init(struct batch *b, struct sync *s, enum dp_table table, bool deletes,
	       batch_done_fn done); /* 0 or -ENOMEM: sync_batch_done() in every case */
void sync_batch_add(struct batch *b, const void *key, const void *value, struct sync_port *owner);
/* An operation that fails does not hold up those behind it. */
void sync_batch_flush(struct batch *b);
void sync_batch_done(struct batch *b);
