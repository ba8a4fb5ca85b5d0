// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/deltamap.h>
#include <waggle/hash.h>

enum {
	USED = 1,
	DESIRED = 2,
	ACTUAL = 4,
	QUEUED = 8,
};

#define REMOVED UINT32_MAX /* table mark: keep probing */
#define NONE UINT32_MAX

static size_t align8(size_t size)
{
	return (size + 7) & ~(size_t)7;
}

static unsigned char *entry_at(const struct deltamap *m, uint32_t i)
{
	return m->entries + (size_t)i * m->entry_size;
}

static unsigned char *key_of(unsigned char *e)
{
	return e + 8;
}

static unsigned char *desired_of(const struct deltamap *m, unsigned char *e)
{
	return e + 8 + align8(m->key_size);
}

static unsigned char *actual_of(const struct deltamap *m, unsigned char *e)
{
	return e + 8 + align8(m->key_size) + align8(m->value_size);
}

static bool is_pending(const struct deltamap *m, unsigned char *e)
{
	unsigned sides = e[0] & (DESIRED | ACTUAL);

	if (sides == 0)
		return false;
	if (sides != (DESIRED | ACTUAL))
		return true;
	return memcmp(desired_of(m, e), actual_of(m, e), m->value_size) != 0;
}

/* Makes room for one more element; the array never shrinks. */
static int grow(uint32_t **array, uint32_t n, uint32_t *cap)
{
	uint32_t want = *cap ? *cap * 2 : 16;
	uint32_t *bigger;

	if (n < *cap)
		return 0;
	bigger = realloc(*array, want * sizeof(**array));
	if (!bigger)
		return -ENOMEM;
	*array = bigger;
	*cap = want;
	return 0;
}

static void table_put(uint32_t *table, uint32_t mask, uint32_t h, uint32_t i)
{
	uint32_t at = h & mask;

	while (table[at] != 0)
		at = (at + 1) & mask;
	table[at] = i + 1;
}

static int table_grow(struct deltamap *m)
{
	size_t live = m->n_entries - m->n_free;
	size_t size = 16;
	uint32_t *table;

	if (m->table && (m->n_used + 1) * 4ULL < ((uint64_t)m->mask + 1) * 3)
		return 0;
	while (size < live * 2 + 2)
		size *= 2;
	table = calloc(size, sizeof(*table));
	if (!table)
		return -ENOMEM;
	for (uint32_t i = 0; i < m->n_entries; i++)
		if (entry_at(m, i)[0] & USED)
			table_put(table, size - 1, wag_hash(key_of(entry_at(m, i)), m->key_size),
				  i);
	free(m->table);
	m->table = table;
	m->mask = size - 1;
	m->n_used = live;
	return 0;
}

static uint32_t find(const struct deltamap *m, const void *key, uint32_t *ret_at)
{
	uint32_t at;

	if (!m->table)
		return NONE;
	for (at = wag_hash(key, m->key_size) & m->mask; m->table[at]; at = (at + 1) & m->mask) {
		uint32_t i = m->table[at] - 1;

		if (m->table[at] == REMOVED)
			continue;
		if (memcmp(key_of(entry_at(m, i)), key, m->key_size) == 0) {
			if (ret_at)
				*ret_at = at;
			return i;
		}
	}
	return NONE;
}

static int entry_new(struct deltamap *m, const void *key, uint32_t *ret)
{
	unsigned char *e;
	uint32_t i;

	if (table_grow(m) < 0)
		return -ENOMEM;
	if (m->n_free) {
		i = m->free_list[--m->n_free];
	} else {
		if (m->n_entries == m->cap_entries) {
			uint32_t cap = m->cap_entries ? m->cap_entries + m->cap_entries / 2 : 16;
			unsigned char *entries = realloc(m->entries, cap * m->entry_size);

			if (!entries)
				return -ENOMEM;
			m->entries = entries;
			m->cap_entries = cap;
		}
		i = m->n_entries++;
	}
	e = entry_at(m, i);
	e[0] = USED;
	memcpy(key_of(e), key, m->key_size);
	table_put(m->table, m->mask, wag_hash(key, m->key_size), i);
	m->n_used++;
	*ret = i;
	return 0;
}

/* A queued entry stays until the queue is walked: its number must not be given out again. */
static void entry_free_if_unused(struct deltamap *m, uint32_t i)
{
	unsigned char *e = entry_at(m, i);
	uint32_t at;

	if (e[0] & (DESIRED | ACTUAL | QUEUED))
		return;
	if (find(m, key_of(e), &at) == i)
		m->table[at] = REMOVED;
	e[0] = 0;
	m->free_list[m->n_free++] = i;
}

int deltamap_init(struct deltamap *m, size_t key_size, size_t value_size)
{
	memset(m, 0, sizeof(*m));
	m->key_size = key_size;
	m->value_size = value_size;
	m->entry_size = 8 + align8(key_size) + 2 * align8(value_size);
	return 0;
}

void deltamap_done(struct deltamap *m)
{
	free(m->entries);
	free(m->table);
	free(m->free_list);
	free(m->queue);
	memset(m, 0, sizeof(*m));
}

static int set_side(struct deltamap *m, unsigned side, const void *key, const void *value)
{
	uint32_t i = find(m, key, NULL);
	unsigned char *e;
	bool was;

	/* All memory that freeing and queueing will want is taken here, where it may fail. */
	if (i == NONE) {
		if (grow(&m->free_list, m->n_entries, &m->cap_free) < 0 ||
		    grow(&m->queue, m->n_entries, &m->cap_queue) < 0 || entry_new(m, key, &i) < 0)
			return -ENOMEM;
	}
	e = entry_at(m, i);
	was = is_pending(m, e);
	if (!(e[0] & side))
		*(side == DESIRED ? &m->n_desired : &m->n_actual) += 1;
	e[0] |= side;
	memcpy(side == DESIRED ? desired_of(m, e) : actual_of(m, e), value, m->value_size);
	m->n_pending += is_pending(m, e) - was;
	if (is_pending(m, e) && !(e[0] & QUEUED)) {
		e[0] |= QUEUED;
		m->queue[m->n_queue++] = i;
	}
	return 0;
}

static void unset_side(struct deltamap *m, unsigned side, const void *key)
{
	uint32_t i = find(m, key, NULL);
	unsigned char *e;
	bool was;

	if (i == NONE)
		return;
	e = entry_at(m, i);
	if (!(e[0] & side))
		return;
	was = is_pending(m, e);
	e[0] &= ~side;
	*(side == DESIRED ? &m->n_desired : &m->n_actual) -= 1;
	m->n_pending += is_pending(m, e) - was;
	if (is_pending(m, e) && !(e[0] & QUEUED)) {
		e[0] |= QUEUED;
		m->queue[m->n_queue++] = i;
	}
	entry_free_if_unused(m, i);
}

int deltamap_set_desired(struct deltamap *m, const void *key, const void *value)
{
	return set_side(m, DESIRED, key, value);
}

int deltamap_set_actual(struct deltamap *m, const void *key, const void *value)
{
	return set_side(m, ACTUAL, key, value);
}

void deltamap_unset_desired(struct deltamap *m, const void *key)
{
	unset_side(m, DESIRED, key);
}

void deltamap_unset_actual(struct deltamap *m, const void *key)
{
	unset_side(m, ACTUAL, key);
}

const void *deltamap_desired(const struct deltamap *m, const void *key)
{
	uint32_t i = find(m, key, NULL);

	if (i == NONE || !(entry_at(m, i)[0] & DESIRED))
		return NULL;
	return desired_of(m, entry_at(m, i));
}

const void *deltamap_actual(const struct deltamap *m, const void *key)
{
	uint32_t i = find(m, key, NULL);

	if (i == NONE || !(entry_at(m, i)[0] & ACTUAL))
		return NULL;
	return actual_of(m, entry_at(m, i));
}

static int visit_one(const struct deltamap *m, uint32_t i, deltamap_fn fn, void *ctx)
{
	unsigned char *e = entry_at(m, i);

	return fn(key_of(e), e[0] & DESIRED ? desired_of(m, e) : NULL,
		  e[0] & ACTUAL ? actual_of(m, e) : NULL, ctx);
}

int deltamap_visit_pending(struct deltamap *m, deltamap_fn fn, void *ctx)
{
	uint32_t kept = 0;
	int r = 0;

	for (uint32_t q = 0; q < m->n_queue; q++) {
		uint32_t i = m->queue[q];

		if (!is_pending(m, entry_at(m, i))) {
			entry_at(m, i)[0] &= ~QUEUED;
			entry_free_if_unused(m, i);
			continue;
		}
		m->queue[kept++] = i;
		if (r == 0)
			r = visit_one(m, i, fn, ctx);
	}
	m->n_queue = kept;
	return r;
}

int deltamap_visit(const struct deltamap *m, deltamap_fn fn, void *ctx)
{
	for (uint32_t i = 0; i < m->n_entries; i++) {
		int r;

		if (!(entry_at(m, i)[0] & (DESIRED | ACTUAL)))
			continue;
		r = visit_one(m, i, fn, ctx);
		if (r)
			return r;
	}
	return 0;
}
