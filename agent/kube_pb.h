/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kube_parse.h for Kubernetes' protobuf encoding: bytes -> struct object. What comes out lies in
 * the arena and lives until that is reset. Pure: no I/O; hostile input gives an error.
 */
#pragma once

#include "kube_arena.h"
#include "kube_parse.h"

/*
 * One object without an envelope. 0; -EINVAL with err and ident set, like kube_parse_object();
 * -EBADMSG: it cannot be decoded; -EMSGSIZE: the arena's limit; -ENOMEM. What a NetworkPolicy says
 * is no part of the arena: object_drop() when done with *ret.
 */
int kube_pb_object(enum model_kind kind, const char *bytes, size_t n, struct kube_arena *arena,
		   const struct object **ret, struct kube_ident *ident, struct wag_err *err);

/* What every object has. The strings are "" where absent. */
struct kube_pb_meta {
	const char *ns, *name, *rv;
};

struct kube_pb_event {
	const char *type; /* "ADDED", ... */
	const char *bytes; /* of the object, without its envelope */
	size_t n;
};

/* 0, -EBADMSG, -EMSGSIZE, -ENOMEM. */
int kube_pb_event(const char *bytes, size_t n, struct kube_arena *arena, struct kube_pb_event *ret);
int kube_pb_meta(const char *bytes, size_t n, struct kube_arena *arena, struct kube_pb_meta *ret);
/* resourceVersion and continue token of a ListMeta; "" where absent. */
int kube_pb_list_meta(const char *bytes, size_t n, struct kube_arena *arena, const char **ret_rv,
		      const char **ret_next);
/* A Status without an envelope; and with one, as an error's body. False: it is none. */
bool kube_pb_status(const char *bytes, size_t n, struct kube_arena *arena, struct kube_status *ret);
bool kube_pb_status_body(const char *bytes, size_t n, struct kube_arena *arena,
			 struct kube_status *ret);
