// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <waggle/cleanup.h>

#include "kube_pb.h"
#include "kube_stream.h"
#include "object.h"

#define PROTOBUF "application/vnd.kubernetes.protobuf"
#define ARENA_FACTOR 8 /* an object in memory beside its bytes */
#define LARGE (256 << 10)

/* The pieces' functions return what the caller's function did, or -errno with s->err filled. */

static int cannot(struct kube_stream *s, int code, const char *what)
{
	switch (code) {
	case -EMSGSIZE:
		return wag_err_set(s->err, code, "one object is larger than allowed");
	case -EBADMSG:
		return wag_err_set(s->err, code, "%s", what);
	default:
		return wag_err_set(s->err, code, "%s", strerror(-code));
	}
}

static enum kube_event_type event_type(const char *type)
{
	if (strcmp(type, "ADDED") == 0 || strcmp(type, "MODIFIED") == 0)
		return KUBE_PUT;
	if (strcmp(type, "DELETED") == 0)
		return KUBE_DELETED;
	return strcmp(type, "ERROR") == 0 ? KUBE_ERROR : KUBE_BOOKMARK;
}

/* What a large object was read with, many times its size, would stay with us. */
static void give_back(size_t piece)
{
	if (piece > LARGE)
		malloc_trim(0);
}

/* ---- JSON ---- */

static const char *text_of(const json_t *tree, const char *key)
{
	const char *text = json_string_value(json_object_get(tree, key));

	return text ? text : "";
}

static int json_put(struct kube_stream *s, const json_t *tree, const char *rv)
{
	static const struct kube_sink sink = { 0 };
	_cleanup_(object_freep) struct object *obj = NULL;
	struct kube_event event = { .type = KUBE_PUT, .rv = rv };
	struct kube_ident ident;
	int r;

	r = kube_parse_object(s->kind, tree, &sink, &obj, &ident, &event.err);
	if (r == -ENOMEM)
		return cannot(s, r, "");
	event.obj = obj;
	event.ns = ident.ns;
	event.name = ident.name;
	return s->fn(s->ctx, &event);
}

static int json_event(struct kube_stream *s, const json_t *tree)
{
	const char *type = json_string_value(json_object_get(tree, "type"));
	const json_t *object = json_object_get(tree, "object");
	const json_t *meta = json_object_get(object, "metadata");
	struct kube_event event = { .ns = text_of(meta, "namespace"),
				    .name = text_of(meta, "name"),
				    .rv = text_of(meta, "resourceVersion") };

	if (!type || !json_is_object(object))
		return cannot(s, -EBADMSG, "a line is no event");
	event.type = event_type(type);
	if (event.type == KUBE_PUT)
		return json_put(s, object, event.rv);
	if (event.type == KUBE_ERROR)
		kube_parse_status(object, &event.status);
	return s->fn(s->ctx, &event);
}

static int json_piece(void *ctx, const char *text, size_t n)
{
	struct kube_stream *s = ctx;
	json_error_t at;
	json_t *tree;
	int r;

	tree = json_loadb(text, n, 0, &at);
	if (!tree)
		return wag_err_set(s->err, -EBADMSG, "%s is no JSON: %s",
				   s->watch ? "a line" : "an item", at.text);
	r = s->watch ? json_event(s, tree) : json_put(s, tree, "");
	json_decref(tree);
	give_back(n);
	return r;
}

/* ---- protobuf ---- */

static int pb_put(struct kube_stream *s, const char *bytes, size_t n)
{
	struct kube_event event = { .type = KUBE_PUT, .rv = "" };
	struct kube_pb_meta meta;
	struct kube_ident ident;
	int r;

	r = kube_pb_object(s->kind, bytes, n, &s->arena, &event.obj, &ident, &event.err);
	if (r < 0 && r != -EINVAL)
		return cannot(s, r, s->watch ? "an event cannot be decoded"
					     : "an item cannot be decoded");
	event.ns = ident.ns;
	event.name = ident.name;
	if (r == 0 && event.obj->resource_version)
		event.rv = event.obj->resource_version;
	else if (r < 0 && kube_pb_meta(bytes, n, &s->arena, &meta) == 0)
		event.rv = meta.rv;
	r = s->fn(s->ctx, &event);
	object_drop(event.obj);
	return r;
}

static int pb_event(struct kube_stream *s, const char *bytes, size_t n)
{
	struct kube_event event = { 0 };
	struct kube_pb_event found;
	struct kube_pb_meta meta = { "", "", "" };
	int r;

	r = kube_pb_event(bytes, n, &s->arena, &found);
	if (r < 0)
		return cannot(s, r, "a frame is no event");
	event.type = event_type(found.type);
	if (event.type == KUBE_PUT)
		return pb_put(s, found.bytes, found.n);
	if (event.type == KUBE_ERROR)
		kube_pb_status(found.bytes, found.n, &s->arena, &event.status);
	else
		r = kube_pb_meta(found.bytes, found.n, &s->arena, &meta);
	if (r < 0)
		return cannot(s, r, "an event cannot be decoded");
	event.ns = meta.ns;
	event.name = meta.name;
	event.rv = meta.rv;
	return s->fn(s->ctx, &event);
}

static int pb_piece(void *ctx, const char *bytes, size_t n)
{
	struct kube_stream *s = ctx;
	int r = s->watch ? pb_event(s, bytes, n) : pb_put(s, bytes, n);

	kube_arena_reset(&s->arena);
	give_back(n);
	return r;
}

/* ---- both ---- */

bool kube_type_is_protobuf(const char *type)
{
	return type && strncmp(type, PROTOBUF, sizeof(PROTOBUF) - 1) == 0;
}

void kube_stream_init(struct kube_stream *s, enum model_kind kind, size_t piece_max)
{
	*s = (struct kube_stream){ .kind = kind, .piece_max = piece_max };
	s->json.piece_max = s->pb.piece_max = piece_max;
	s->arena.max = piece_max * ARENA_FACTOR;
}

void kube_stream_begin(struct kube_stream *s, bool watch)
{
	kube_split_done(&s->json);
	kube_pb_split_done(&s->pb);
	s->piece.n = 0;
	s->watch = watch;
	s->protobuf = false;
}

static int feed(struct kube_stream *s, const char *bytes, size_t n)
{
	if (s->watch && s->protobuf)
		return kube_frames_feed(&s->piece, bytes, n, s->piece_max, pb_piece, s);
	if (s->watch)
		return kube_lines_feed(&s->piece, bytes, n, s->piece_max, json_piece, s);
	if (s->protobuf)
		return kube_pb_split_feed(&s->pb, bytes, n, pb_piece, s);
	return kube_split_feed(&s->json, bytes, n, json_piece, s);
}

int kube_stream_feed(struct kube_stream *s, const char *type, const char *bytes, size_t n,
		     kube_event_fn fn, void *ctx, struct wag_err *err)
{
	int r;

	s->protobuf = kube_type_is_protobuf(type);
	s->fn = fn;
	s->ctx = ctx;
	s->err = err;
	err->code = 0;
	r = feed(s, bytes, n);
	if (r < 0 && !err->code)
		cannot(s, r, s->protobuf ? "the answer is no protobuf of Kubernetes" : "no JSON");
	return r;
}

static int set_end(struct kube_list_end *ret, const char *rv, const char *next, struct wag_err *err)
{
	if (strlen(rv) >= sizeof(ret->rv) || strlen(next) >= sizeof(ret->next))
		return wag_err_set(err, -EMSGSIZE, "its metadata is larger than allowed");
	snprintf(ret->rv, sizeof(ret->rv), "%s", rv);
	snprintf(ret->next, sizeof(ret->next), "%s", next);
	return 0;
}

static int no_list(struct wag_err *err)
{
	return wag_err_set(err, -EBADMSG, "the answer is no list");
}

static int pb_list_end(struct kube_stream *s, struct kube_list_end *ret, struct wag_err *err)
{
	const char *rv, *next;
	int r;

	if (!kube_pb_split_whole(&s->pb) ||
	    kube_pb_list_meta(s->pb.meta.bytes, s->pb.meta.n, &s->arena, &rv, &next) < 0)
		return no_list(err);
	r = set_end(ret, rv, next, err);
	kube_arena_reset(&s->arena);
	return r;
}

int kube_stream_list_end(struct kube_stream *s, struct kube_list_end *ret, struct wag_err *err)
{
	const struct kube_buf *envelope = &s->json.envelope;
	json_t *tree, *meta;
	int r;

	if (s->protobuf)
		return pb_list_end(s, ret, err);
	tree = envelope->n ? json_loadb(envelope->bytes, envelope->n, 0, NULL) : NULL;
	meta = json_object_get(tree, "metadata");
	r = json_is_object(meta) ? set_end(ret, text_of(meta, "resourceVersion"),
					   text_of(meta, "continue"), err)
				 : no_list(err);
	json_decref(tree);
	return r;
}

void kube_stream_done(struct kube_stream *s)
{
	kube_split_done(&s->json);
	kube_pb_split_done(&s->pb);
	kube_buf_done(&s->piece);
	kube_arena_done(&s->arena);
}

bool kube_status_read(const char *type, const char *bytes, size_t n, struct kube_status *ret)
{
	struct kube_arena arena = { .max = 1 << 20 };
	json_t *tree;
	bool found;

	if (kube_type_is_protobuf(type)) {
		found = kube_pb_status_body(bytes, n, &arena, ret);
		kube_arena_done(&arena);
		return found;
	}
	tree = n ? json_loadb(bytes, n, 0, NULL) : NULL;
	found = kube_parse_status(tree, ret);
	json_decref(tree);
	return found;
}
