/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The body of a list's or a watch's answer, in whichever of its two languages the server speaks,
 * read as it arrives: one object after the other, never the whole.
 */
#pragma once

#include "kube_arena.h"
#include "kube_parse.h"
#include "kube_pb_split.h"

enum kube_event_type {
	KUBE_PUT, /* an item of a list; ADDED, MODIFIED */
	KUBE_DELETED,
	KUBE_BOOKMARK, /* and any type not known: its resourceVersion counts */
	KUBE_ERROR,
};

struct kube_event {
	enum kube_event_type type;
	const struct object *obj; /* KUBE_PUT; NULL: it cannot be read, err says why */
	const char *ns, *name, *rv; /* "" where unknown */
	struct kube_status status;  /* KUBE_ERROR */
	struct wag_err err;
};

/* The event and all it leads to live for the call. Not 0 stops the feeding, which returns it. */
typedef int (*kube_event_fn)(void *ctx, const struct kube_event *event);

struct kube_stream {
	enum model_kind kind;
	size_t piece_max; /* bytes of one object */
	bool watch, protobuf;
	struct kube_split json;
	struct kube_pb_split pb;
	struct kube_buf piece; /* of a watch */
	struct kube_arena arena;
	kube_event_fn fn;
	void *ctx;
	struct wag_err *err; /* during a feed */
};

void kube_stream_init(struct kube_stream *s, enum model_kind kind, size_t piece_max);
void kube_stream_begin(struct kube_stream *s, bool watch); /* another answer */
/* type: its Content-Type. 0, what fn returned, or -errno with err filled. */
int kube_stream_feed(struct kube_stream *s, const char *type, const char *bytes, size_t n,
		     kube_event_fn fn, void *ctx, struct wag_err *err);

struct kube_list_end {
	char rv[64];
	char next[4096]; /* the continue token; "": this was the last page */
};

/* Of a list whose body has ended. 0, or -errno with err filled. */
int kube_stream_list_end(struct kube_stream *s, struct kube_list_end *ret, struct wag_err *err);
void kube_stream_done(struct kube_stream *s);

#define KUBE_ACCEPT "application/vnd.kubernetes.protobuf, application/json"
#define KUBE_ACCEPT_JSON "application/json"
bool kube_type_is_protobuf(const char *type); /* NULL is fine */
/* The body of an error. False: it is no Status. */
bool kube_status_read(const char *type, const char *bytes, size_t n, struct kube_status *ret);
