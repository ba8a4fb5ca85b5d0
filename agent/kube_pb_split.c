// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "kube_pb_split.h"

#define META_MAX (1 << 20)
#define KEEP_ROOM (1 << 20) /* one huge object must not keep its room for ever */
#define FIELD_LIST 2	    /* of Unknown: raw */
#define FIELD_META 1	    /* of any List */
#define FIELD_ITEM 2

enum { /* what the next byte belongs to; MAGIC is where a zeroed one begins */
	MAGIC,
	TAG,
	NUMBER, /* a field that is a number: of no interest */
	LENGTH,
	SKIP,
	META,
	ITEM,
};

/* One more byte of a number: 1: it is whole, 0: more to come, -EBADMSG. */
static int take_number(struct kube_pb_split *s, unsigned char byte)
{
	if (s->shift > 63 || (s->shift == 63 && byte > 1))
		return -EBADMSG;
	s->value |= (uint64_t)(byte & 0x7f) << s->shift;
	s->shift += 7;
	return !(byte & 0x80);
}

static void expect(struct kube_pb_split *s, unsigned phase, size_t left)
{
	s->phase = phase;
	s->left = left;
	s->value = 0;
	s->shift = 0;
}

static int begin_field(struct kube_pb_split *s)
{
	if (s->value > UINT32_MAX || s->value >> 3 == 0)
		return -EBADMSG;
	s->tag = s->value >> 3;
	switch (s->value & 7) {
	case 0:
		expect(s, NUMBER, 0);
		return 0;
	case 1:
		expect(s, SKIP, 8);
		return 0;
	case 2:
		expect(s, LENGTH, 0);
		return 0;
	case 5:
		expect(s, SKIP, 4);
		return 0;
	default:
		return -EBADMSG;
	}
}

static int begin_bytes(struct kube_pb_split *s)
{
	uint64_t n = s->value;

	if (n > SIZE_MAX / 2 || (s->in_list && n > s->list_left))
		return -EBADMSG;
	if (!s->in_list && s->tag == FIELD_LIST && !s->seen_list) {
		s->in_list = s->seen_list = true;
		s->list_left = n;
		expect(s, TAG, 0);
	} else if (s->in_list && s->tag == FIELD_META) {
		s->meta.n = 0;
		expect(s, META, n);
	} else if (s->in_list && s->tag == FIELD_ITEM) {
		s->piece.n = 0;
		if (n > s->piece_max)
			return -EMSGSIZE;
		expect(s, ITEM, n);
	} else {
		expect(s, SKIP, n);
	}
	return 0;
}

static int feed_number(struct kube_pb_split *s, unsigned char byte)
{
	int r;

	if (s->phase == MAGIC) {
		if (byte != (unsigned char)"k8s"[s->left])
			return -EBADMSG;
		if (++s->left == sizeof("k8s"))
			expect(s, TAG, 0);
		return 0;
	}
	r = take_number(s, byte);
	if (r <= 0)
		return r;
	if (s->phase == TAG)
		return begin_field(s);
	if (s->phase == LENGTH)
		return begin_bytes(s);
	expect(s, TAG, 0);
	return 0;
}

/* n bytes of the field at hand, of which no more than that are left. */
static int feed_bytes(struct kube_pb_split *s, const char *bytes, size_t n, kube_piece_fn fn,
		      void *ctx)
{
	int r = 0;

	s->left -= n;
	if (s->phase == META) {
		r = kube_buf_add(&s->meta, bytes, n, META_MAX);
	} else if (s->phase == ITEM && s->left == 0 && s->piece.n == 0) {
		r = fn(ctx, bytes, n);
	} else if (s->phase == ITEM) {
		r = kube_buf_add(&s->piece, bytes, n, s->piece_max);
		if (r == 0 && s->left == 0)
			r = fn(ctx, s->piece.bytes, s->piece.n);
	}
	if (s->left)
		return r;
	if (s->piece.room > KEEP_ROOM)
		kube_buf_done(&s->piece);
	expect(s, TAG, 0);
	return r;
}

/* Nothing is between a field that ends and its list that ends with it. */
static void leave_list(struct kube_pb_split *s)
{
	if (s->in_list && s->list_left == 0 && s->phase == TAG && s->shift == 0)
		s->in_list = false;
}

int kube_pb_split_feed(struct kube_pb_split *s, const char *bytes, size_t n, kube_piece_fn fn,
		       void *ctx)
{
	while (n > 0 || (s->phase >= SKIP && s->left == 0)) {
		bool numbers = s->phase < SKIP, in_list = s->in_list;
		size_t some = numbers ? 1 : s->left < n ? s->left : n;
		int r;

		if (in_list && some > s->list_left)
			return -EBADMSG;
		if (in_list)
			s->list_left -= some;
		r = numbers ? feed_number(s, *bytes) : feed_bytes(s, bytes, some, fn, ctx);
		if (r)
			return r;
		bytes += some;
		n -= some;
		leave_list(s);
	}
	return 0;
}

bool kube_pb_split_whole(const struct kube_pb_split *s)
{
	return s->seen_list && !s->in_list && s->phase == TAG && s->shift == 0;
}

void kube_pb_split_done(struct kube_pb_split *s)
{
	size_t piece_max = s->piece_max;

	kube_buf_done(&s->piece);
	kube_buf_done(&s->meta);
	*s = (struct kube_pb_split){ .piece_max = piece_max };
}

/* How much of a frame, with its length before it, is still missing; SIZE_MAX: too much. */
static size_t missing(const struct kube_buf *frame, size_t max)
{
	uint32_t len;

	if (frame->n < sizeof(len))
		return sizeof(len) - frame->n;
	memcpy(&len, frame->bytes, sizeof(len));
	len = ntohl(len);
	return len > max ? SIZE_MAX : sizeof(len) + len - frame->n;
}

int kube_frames_feed(struct kube_buf *frame, const char *bytes, size_t n, size_t max,
		     kube_piece_fn fn, void *ctx)
{
	const size_t head = sizeof(uint32_t);

	for (;;) {
		size_t want = missing(frame, max), some = want < n ? want : n;
		int r;

		if (want == SIZE_MAX)
			return -EMSGSIZE;
		if (want == 0) {
			r = fn(ctx, frame->bytes + head, frame->n - head);
			frame->n = 0;
			if (frame->room > KEEP_ROOM)
				kube_buf_done(frame);
			if (r)
				return r;
			continue;
		}
		if (n == 0)
			return 0;
		r = kube_buf_add(frame, bytes, some, head + max);
		if (r)
			return r;
		bytes += some;
		n -= some;
	}
}
