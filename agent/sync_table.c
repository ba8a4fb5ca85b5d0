// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/cleanup.h>
#include "sync_table.h"

static int adopt(const void *key, const void *value, void *ctx)
{
	struct sync_table *t = ctx;

	return deltamap_set_actual(&t->map, key, value);
}

int sync_table_init(struct sync_table *t, struct dataplane *dp, enum dp_table table)
{
	int r;

	*t = (struct sync_table){ .dp = dp, .table = table };
	r = deltamap_init(&t->map, dataplane_key_size(table), dataplane_value_size(table));
	if (r == 0)
		r = dataplane_visit(dp, table, adopt, t);
	if (r < 0)
		sync_table_done(t);
	return r;
}

void sync_table_done(struct sync_table *t)
{
	deltamap_done(&t->map);
	*t = (struct sync_table){ 0 };
}

/* Keys of one map that another one lacks, packed. */
struct missing {
	const struct deltamap *in;
	char *keys;
	size_t n, key_size;
};

static int collect_missing(const void *key, const void *desired, const void *actual, void *ctx)
{
	struct missing *m = ctx;

	if (desired && !deltamap_desired(m->in, key))
		memcpy(m->keys + m->n++ * m->key_size, key, m->key_size);
	return 0;
}

static int set_one(const void *key, const void *desired, const void *actual, void *ctx)
{
	struct sync_table *t = ctx;

	return desired ? deltamap_set_desired(&t->map, key, desired) : 0;
}

int sync_table_replace(struct sync_table *t, const struct deltamap *fresh)
{
	size_t ks = t->map.key_size;
	_cleanup_free_ char *keys = calloc(t->map.n_desired + 1, ks);
	struct missing gone = { .in = fresh, .keys = keys, .key_size = ks };
	int r;

	if (!keys)
		return -ENOMEM;
	r = deltamap_visit(fresh, set_one, t);
	if (r < 0)
		return r;
	deltamap_visit(&t->map, collect_missing, &gone);
	for (size_t i = 0; i < gone.n; i++)
		deltamap_unset_desired(&t->map, keys + i * ks);
	return 0;
}

struct changes {
	char *keys, *values, *gone;
	size_t n, n_gone, key_size, value_size;
};

static int collect_change(const void *key, const void *desired, const void *actual, void *ctx)
{
	struct changes *c = ctx;

	if (desired) {
		memcpy(c->keys + c->n * c->key_size, key, c->key_size);
		memcpy(c->values + c->n++ * c->value_size, desired, c->value_size);
	} else {
		memcpy(c->gone + c->n_gone++ * c->key_size, key, c->key_size);
	}
	return 0;
}

static int update(struct sync_table *t, const struct changes *c)
{
	size_t done = 0;
	int r = dataplane_update(t->dp, t->table, c->keys, c->values, c->n, &done);

	/* No memory to remember it: it is written again. */
	for (size_t i = 0; i < done; i++)
		(void)deltamap_set_actual(&t->map, c->keys + i * c->key_size,
					  c->values + i * c->value_size);
	return r;
}

static int delete(struct sync_table *t, const struct changes *c)
{
	size_t done = 0;
	int r = dataplane_delete(t->dp, t->table, c->gone, c->n_gone, &done);

	for (size_t i = 0; i < done; i++)
		deltamap_unset_actual(&t->map, c->gone + i * c->key_size);
	return r;
}

int sync_table_apply(struct sync_table *t)
{
	size_t n = deltamap_pending(&t->map), ks = t->map.key_size, vs = t->map.value_size;
	_cleanup_free_ char *keys = NULL, *values = NULL, *gone = NULL;
	struct changes c = { .key_size = ks, .value_size = vs };
	int r = 0, deleted = 0;

	if (n == 0)
		return 0;
	c.keys = keys = calloc(n, ks);
	c.values = values = calloc(n, vs);
	c.gone = gone = calloc(n, ks);
	if (!keys || !values || !gone)
		return -ENOMEM;
	deltamap_visit_pending(&t->map, collect_change, &c);
	if (c.n_gone && t->swept && t->room_first)
		deleted = delete(t, &c);
	if (c.n)
		r = update(t, &c);
	if (c.n_gone && t->swept && !t->room_first)
		deleted = delete(t, &c);
	return r < 0 ? r : deleted;
}

size_t sync_table_pending(const struct sync_table *t)
{
	return deltamap_pending(&t->map);
}
