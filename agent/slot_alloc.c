// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "slot_alloc.h"

static int by_base(const void *a, const void *b)
{
	const struct slot_range *x = a, *y = b;

	return x->base < y->base ? -1 : x->base > y->base;
}

static int reserve(struct slot_range **list, size_t want, size_t *cap)
{
	struct slot_range *bigger;
	size_t n = *cap ? *cap : 32;

	while (n < want)
		n *= 2;
	if (n == *cap)
		return 0;
	bigger = realloc(*list, n * sizeof(**list));
	if (!bigger)
		return -ENOMEM;
	*list = bigger;
	*cap = n;
	return 0;
}

int slot_alloc_init(struct slot_alloc *a, uint32_t capacity, struct slot_range *taken, size_t n)
{
	uint32_t at = 0;

	memset(a, 0, sizeof(*a));
	a->capacity = capacity;
	a->n_given = n;
	if (reserve(&a->free, 2 * n + 3, &a->cap_free) < 0 ||
	    reserve(&a->quarantine, 2 * n + 3, &a->cap_quarantine) < 0) {
		slot_alloc_done(a);
		return -ENOMEM;
	}
	if (n)
		qsort(taken, n, sizeof(*taken), by_base);
	for (size_t i = 0; i < n; i++) {
		if (taken[i].base > at)
			a->free[a->n_free++] = (struct slot_range){ at, taken[i].base - at };
		at = taken[i].base + taken[i].len;
		a->used += taken[i].len;
	}
	if (at < capacity)
		a->free[a->n_free++] = (struct slot_range){ at, capacity - at };
	return 0;
}

void slot_alloc_done(struct slot_alloc *a)
{
	free(a->free);
	free(a->quarantine);
	memset(a, 0, sizeof(*a));
}

int slot_alloc_get(struct slot_alloc *a, uint32_t len, uint32_t *ret_base)
{
	size_t most = 2 * (a->n_given + a->n_quarantine) + 3, best = a->n_free;
	struct slot_range *r;

	if (reserve(&a->free, most, &a->cap_free) < 0 ||
	    reserve(&a->quarantine, most, &a->cap_quarantine) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < a->n_free; i++) {
		uint32_t have = a->free[i].len;

		if (have < len || (best < a->n_free && have >= a->free[best].len))
			continue;
		best = i;
		if (have == len)
			break;
	}
	if (best == a->n_free)
		return -ENOSPC;
	r = &a->free[best];
	*ret_base = r->base;
	r->base += len;
	r->len -= len;
	if (r->len == 0) {
		memmove(r, r + 1, (a->n_free - best - 1) * sizeof(*r));
		a->n_free--;
	}
	a->used += len;
	a->n_given++;
	return 0;
}

void slot_alloc_release(struct slot_alloc *a, uint32_t base, uint32_t len)
{
	a->quarantine[a->n_quarantine++] = (struct slot_range){ base, len };
	a->n_given--;
	a->used -= len;
	a->quarantined += len;
}

void slot_alloc_reclaim(struct slot_alloc *a)
{
	size_t kept = 0;

	if (a->n_quarantine == 0)
		return;
	memcpy(a->free + a->n_free, a->quarantine, a->n_quarantine * sizeof(*a->free));
	a->n_free += a->n_quarantine;
	a->n_quarantine = 0;
	a->quarantined = 0;
	qsort(a->free, a->n_free, sizeof(*a->free), by_base);
	for (size_t i = 1; i < a->n_free; i++) {
		if (a->free[kept].base + a->free[kept].len == a->free[i].base)
			a->free[kept].len += a->free[i].len;
		else
			a->free[++kept] = a->free[i];
	}
	a->n_free = kept + 1;
}
