// SPDX-License-Identifier: Apache-2.0
#include <stdlib.h>
#include <string.h>

#include "kube_arena.h"

#define CHUNK (16 << 10)
#define ALIGN 16

struct kube_chunk {
	struct kube_chunk *next;
	size_t room;
	char bytes[] __attribute__((aligned(ALIGN)));
};

static bool add_chunk(struct kube_arena *a, size_t size)
{
	size_t room = a->room ? a->room * 2 : CHUNK - sizeof(struct kube_chunk);
	struct kube_chunk *chunk;

	if (room < size)
		room = size;
	if (room > a->max - a->total)
		room = a->max - a->total;
	if (room < size)
		return false;
	chunk = malloc(sizeof(*chunk) + room);
	if (!chunk)
		return false;
	chunk->next = a->chunks;
	chunk->room = room;
	a->chunks = chunk;
	a->total += room;
	a->room = room;
	a->used = 0;
	return true;
}

void *kube_arena_get(struct kube_arena *a, size_t size)
{
	void *at;

	if (size > a->max)
		return NULL;
	size = size ? (size + ALIGN - 1) & ~(size_t)(ALIGN - 1) : ALIGN;
	if (size > a->room - a->used && !add_chunk(a, size))
		return NULL;
	at = a->chunks->bytes + a->used;
	a->used += size;
	return at;
}

void *kube_arena_zalloc(struct kube_arena *a, size_t n, size_t size)
{
	size_t all;
	void *at;

	if (__builtin_mul_overflow(n, size, &all))
		return NULL;
	at = kube_arena_get(a, all);
	return at ? memset(at, 0, all) : NULL;
}

void kube_arena_reset(struct kube_arena *a)
{
	while (a->chunks && a->chunks->next) {
		struct kube_chunk *last = a->chunks;

		a->chunks = last->next;
		a->total -= last->room;
		free(last);
	}
	a->used = 0;
	a->room = a->chunks ? a->chunks->room : 0;
	if (a->room > CHUNK)
		kube_arena_done(a);
}

void kube_arena_done(struct kube_arena *a)
{
	while (a->chunks) {
		struct kube_chunk *next = a->chunks->next;

		free(a->chunks);
		a->chunks = next;
	}
	a->used = a->room = a->total = 0;
}
