/* SPDX-License-Identifier: Apache-2.0 */
/* Typed reading of JSON members, with errors that name the object and the field. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <waggle/err.h>

#include "kube_parse.h"

/* One object being read: whom to name in an error, and where it goes. */
struct reader {
	const struct kube_sink *sink; /* NULL: for what an API server sends */
	struct kube_ident *ident;
	struct wag_err *err;
};

/* Names the object and fills rd->err; at is the value in question, NULL: the object. -EINVAL. */
int field_bad(const struct reader *rd, const json_t *at, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
int field_no_memory(const struct reader *rd);
/* NULL for an absent member and for null alike: the API writes either. */
const json_t *field_member(const json_t *tree, const char *key);
/*
 * Of manifests, which no API server has looked at: tree has no members but these (NULL ends them).
 * Whoever writes "fron" must not get a rule for everybody. 0 or -EINVAL with rd->err filled.
 */
int field_known(const struct reader *rd, const json_t *tree, const char *path,
		const char *const *keys);
/* Every reader: 0 or -errno with rd->err filled. path is what stands before key in an error. */
int field_typed(const struct reader *rd, const json_t *tree, const char *path, const char *key,
		json_type type, const json_t **ret);
/* *ret is "" when absent; the string belongs to the tree. */
int field_str(const struct reader *rd, const json_t *tree, const char *path, const char *key,
	      const char **ret);
int field_bool(const struct reader *rd, const json_t *tree, const char *path, const char *key,
	       bool fallback, bool *ret);
/* 0 in *ret when absent. */
int field_int(const struct reader *rd, const json_t *tree, const char *path, const char *key,
	      json_int_t min, json_int_t max, json_int_t *ret);
/* Which of n words text is; -1: none. */
int field_word(const char *text, const char *const *words, size_t n);
/* The member is one of n words; said: they, for people. */
int field_choice(const struct reader *rd, const json_t *tree, const char *path, const char *key,
		 const char *const *words, size_t n, const char *said, int *ret);
int field_copy(const struct reader *rd, const char *text, char **ret);
/* Like field_str, but *ret is the caller's own, NULL when absent or empty. */
int field_dup(const struct reader *rd, const json_t *tree, const char *path, const char *key,
	      char **ret);
int field_add_addr(const struct reader *rd, const json_t *value, const char *path,
		   struct wag_addr **addrs, size_t *n);
/* Appends to an array; the caller owns it also on error. */
int field_addrs(const struct reader *rd, const json_t *tree, const char *path, const char *key,
		struct wag_addr **addrs, size_t *n);
int field_proto(const struct reader *rd, const json_t *tree, const char *path, uint8_t *ret);
int field_labels(const struct reader *rd, const json_t *tree, struct label **labels, size_t *n);
int field_label(const struct reader *rd, const json_t *tree, const char *key, const char **ret);
int field_annotation(const struct reader *rd, const json_t *tree, const char *key,
		     const char **ret);

/* Another proxy's, or nobody's to serve: kube-proxy watches Services and slices without these. */
bool field_other_proxy(const json_t *tree);

/* "2026-01-02T03:04:05.678Z" as ms since 1970; 0 where it is no such time. */
int64_t field_time_ms(const char *text);

#define KUBE_NAME_MAX 253
#define KUBE_NS_MAX 63

/* Fills rd->ident; checks what makes an object one: a name, and a namespace where one belongs. */
int kube_read_ident(const struct reader *rd, const json_t *tree, bool namespaced);
/* Of a filled ident. meta is where to point at, or NULL. */
int kube_check_ident(const struct reader *rd, const json_t *meta, bool namespaced);
int kube_read_service(const struct reader *rd, const json_t *tree, struct object *obj);
/* The kinds of kube_parse_node.c. */
int kube_read_node(const struct reader *rd, const json_t *tree, struct object *obj);
int kube_read_pod(const struct reader *rd, const json_t *tree, struct object *obj);
int kube_read_namespace(const struct reader *rd, const json_t *tree, struct object *obj);
/*
 * A policy that cannot be read is an object too, and says that it cannot: what is in force of it
 * stays so. 0 then, with rd->err filled all the same.
 */
int kube_read_policy(const struct reader *rd, const json_t *tree, struct object *obj);
int kube_unreadable_policy(const struct reader *rd, const char *uid, struct object *obj);
/* What EndpointSlices and Endpoints share: a port, appended to slice, and a targetRef. */
int kube_read_port(const struct reader *rd, const json_t *tree, const char *path,
		   struct slice *slice);
int kube_read_target(const struct reader *rd, const json_t *tree, const char *path,
		     struct slice_endpoint *ep);
