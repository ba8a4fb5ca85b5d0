/* SPDX-License-Identifier: Apache-2.0 */
/* kube_split.h for application/vnd.kubernetes.protobuf: a list's items and a watch's events. */
#pragma once

#include <stdint.h>

#include "kube_split.h"

/*
 * A list stands as bytes within an Unknown within the body: "k8s\0" Unknown { 2: List { 1:
 * ListMeta, 2: item ... } }. One field after the other is looked at; only an item that has not
 * arrived whole is kept.
 */
struct kube_pb_split {
	size_t piece_max;
	struct kube_buf piece, meta; /* an item on its way; the ListMeta */
	unsigned phase, shift, tag;
	uint64_t value;	 /* a number on its way */
	size_t left;	 /* of the field at hand */
	size_t list_left;
	bool in_list, seen_list;
};

/* 0, what fn returned, -EBADMSG (no such encoding), -EMSGSIZE, -ENOMEM. */
int kube_pb_split_feed(struct kube_pb_split *s, const char *bytes, size_t n, kube_piece_fn fn,
		       void *ctx);
bool kube_pb_split_whole(const struct kube_pb_split *s); /* it ended where a list ends */
void kube_pb_split_done(struct kube_pb_split *s);	 /* ready for the next; piece_max stays */

/* A watch: each event behind its length, 4 bytes, big-endian. */
int kube_frames_feed(struct kube_buf *frame, const char *bytes, size_t n, size_t max,
		     kube_piece_fn fn, void *ctx);
