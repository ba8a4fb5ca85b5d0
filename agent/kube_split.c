// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kube_split.h"

#define ENVELOPE_MAX (1 << 20)
#define DEPTH_MAX 256

int kube_buf_add(struct kube_buf *buf, const char *bytes, size_t n, size_t max)
{
	size_t room = buf->room ? buf->room : 512;
	char *grown;

	if (n > max || buf->n > max - n)
		return -EMSGSIZE;
	while (room < buf->n + n)
		room *= 2;
	if (room != buf->room) {
		grown = realloc(buf->bytes, room);
		if (!grown)
			return -ENOMEM;
		buf->bytes = grown;
		buf->room = room;
	}
	memcpy(buf->bytes + buf->n, bytes, n);
	buf->n += n;
	return 0;
}

void kube_buf_done(struct kube_buf *buf)
{
	free(buf->bytes);
	*buf = (struct kube_buf){ 0 };
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Whether the envelope so far ends with the member name "items" and its colon. */
static bool at_items(const struct kube_buf *envelope)
{
	static const char name[] = "\"items\"";
	const char *at = envelope->bytes + envelope->n;
	size_t n = envelope->n;

	while (n > 0 && is_space(at[-1]))
		at--, n--;
	if (n == 0 || at[-1] != ':')
		return false;
	at--, n--;
	while (n > 0 && is_space(at[-1]))
		at--, n--;
	return n >= sizeof(name) - 1 &&
	       memcmp(at - (sizeof(name) - 1), name, sizeof(name) - 1) == 0;
}

static int emit(struct kube_split *s, kube_piece_fn fn, void *ctx)
{
	size_t n = s->item.n;

	while (n > 0 && is_space(s->item.bytes[n - 1]))
		n--;
	s->item.n = 0;
	return n ? fn(ctx, s->item.bytes, n) : 0;
}

/* Strings and nesting; returns the depth the character c itself belongs to. */
static unsigned track(struct kube_split *s, char c)
{
	if (s->in_string) {
		if (s->escaped)
			s->escaped = false;
		else if (c == '\\')
			s->escaped = true;
		else if (c == '"')
			s->in_string = false;
		return s->depth;
	}
	if (c == '"')
		s->in_string = true;
	else if (c == '{' || c == '[')
		return s->depth++;
	else if ((c == '}' || c == ']') && s->depth > 0)
		s->depth--;
	return s->depth;
}

static int feed_one(struct kube_split *s, char c, kube_piece_fn fn, void *ctx)
{
	bool was_string = s->in_string;
	unsigned at = track(s, c);
	int r;

	if (s->depth > DEPTH_MAX)
		return -EMSGSIZE;
	if (s->in_items && s->depth == 1 && !was_string && c == ']') {
		s->in_items = false;
		r = emit(s, fn, ctx);
		return r ? r : kube_buf_add(&s->envelope, "]", 1, ENVELOPE_MAX);
	}
	if (s->in_items) {
		if (at == 2 && !was_string && c == ',')
			return emit(s, fn, ctx);
		if (s->item.n == 0 && is_space(c))
			return 0;
		return kube_buf_add(&s->item, &c, 1, s->piece_max);
	}
	if (at == 1 && !was_string && c == '[' && at_items(&s->envelope))
		s->in_items = true;
	return kube_buf_add(&s->envelope, &c, 1, ENVELOPE_MAX);
}

int kube_split_feed(struct kube_split *s, const char *bytes, size_t n, kube_piece_fn fn, void *ctx)
{
	int r;

	for (size_t i = 0; i < n; i++) {
		r = feed_one(s, bytes[i], fn, ctx);
		if (r)
			return r;
	}
	return 0;
}

void kube_split_done(struct kube_split *s)
{
	kube_buf_done(&s->item);
	kube_buf_done(&s->envelope);
	s->depth = 0;
	s->in_string = s->escaped = s->in_items = false;
}

int kube_lines_feed(struct kube_buf *line, const char *bytes, size_t n, size_t max,
		    kube_piece_fn fn, void *ctx)
{
	const char *end;
	size_t len;
	int r;

	while ((end = memchr(bytes, '\n', n))) {
		len = end - bytes;
		r = kube_buf_add(line, bytes, len, max);
		if (r)
			return r;
		r = line->n ? fn(ctx, line->bytes, line->n) : 0;
		line->n = 0;
		/* One huge object must not keep its room for ever. */
		if (line->room > 1 << 20)
			kube_buf_done(line);
		if (r)
			return r;
		bytes = end + 1;
		n -= len + 1;
	}
	return kube_buf_add(line, bytes, n, max);
}
