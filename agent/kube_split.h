/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cuts answers of an API server into single objects while they arrive, so that neither a list
 * page nor its tree is ever whole in memory.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct kube_buf {
	char *bytes;
	size_t n, room;
};

/* 0, -ENOMEM, or -EMSGSIZE beyond max. */
int kube_buf_add(struct kube_buf *buf, const char *bytes, size_t n, size_t max);
void kube_buf_done(struct kube_buf *buf);

/* Not 0 stops the feeding, which returns it. */
typedef int (*kube_piece_fn)(void *ctx, const char *text, size_t n);

/* A list: the elements of the top object's "items" one by one, the rest as its envelope. */
struct kube_split {
	size_t piece_max;
	struct kube_buf item, envelope; /* the envelope has "items": [] */
	unsigned depth;
	bool in_string, escaped, in_items;
};

/* 0, what fn returned, -ENOMEM, -EMSGSIZE. */
int kube_split_feed(struct kube_split *s, const char *bytes, size_t n, kube_piece_fn fn, void *ctx);
void kube_split_done(struct kube_split *s); /* ready for the next list; piece_max stays */

/* A watch: one event per line. */
int kube_lines_feed(struct kube_buf *line, const char *bytes, size_t n, size_t max,
		    kube_piece_fn fn, void *ctx);
