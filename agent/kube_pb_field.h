/* SPDX-License-Identifier: Apache-2.0 */
/* kube_field.h for messages: typed reading, with errors that name the object and the field. */
#pragma once

#include "kube.pb-c.h"
#include "kube_arena.h"
#include "kube_field.h"

/* One object being read. What is read lies in the arena or is the message's own, which does too. */
struct pb_reader {
	struct reader to; /* for field_bad(); there is no sink */
	struct kube_arena *arena;
	const Kube__ObjectMeta *meta;
};

int pb_too_big(const struct pb_reader *rd); /* the arena has no more: -EMSGSIZE */
bool pb_is_utf8(const char *text);
bool pb_is(const char *text, const char *want); /* text may be NULL */

/* Every reader: 0 or -errno with rd->to.err filled. path is where the value stands. */
/* *ret is "" when absent. */
int pb_text(const struct pb_reader *rd, const char *text, const char *path, const char **ret);
/* The same, but NULL when absent or empty. */
int pb_opt(const struct pb_reader *rd, const char *text, const char *path, char **ret);
/* path is what stands before key. */
int pb_int(const struct pb_reader *rd, int32_t value, int min, int max, const char *path,
	   const char *key);
int pb_addr(const struct pb_reader *rd, const char *text, const char *path, struct wag_addr *ret);
/* index: of the element of path whose addresses they are; -1: they are path's own. */
int pb_addrs(const struct pb_reader *rd, char **list, size_t n, const char *path, int index,
	     struct wag_addr **ret, size_t *ret_n);
int pb_proto(const struct pb_reader *rd, const char *text, const char *path, uint8_t *ret);
/* NULL: there is none of this key. */
const char *pb_label(const struct pb_reader *rd, const char *key);
const char *pb_annotation(const struct pb_reader *rd, const char *key);
int pb_labels(const struct pb_reader *rd, struct label **ret, size_t *ret_n);
