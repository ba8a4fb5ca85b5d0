/* SPDX-License-Identifier: Apache-2.0 */
/* The file by which a container runtime finds Waggle, in its folder of networks. */
#pragma once

#include <stdbool.h>
#include <waggle/err.h>

struct event_base;
struct cni_watch;

struct cni_conf_options {
	const char *dir;	     /* of the runtime; made if it is absent */
	const char *chaining_mode;   /* NULL, empty or "none": we are the network */
	const char *chaining_target; /* name of the network to add to; NULL or empty: the first */
	const char *pin_dir, *state_dir;
	bool exclusive; /* networks of others stand aside; never with chaining */
};

bool cni_conf_is_chained(const struct cni_conf_options *o);
/*
 * Brings the folder in order: our file in place in one step, then others out of the way. Returns 1
 * if anything changed, 0 if all was so, or -errno; -ENOENT: the network to add to is not there yet.
 */
int cni_conf_apply(const struct cni_conf_options *o, struct wag_err *err);

/*
 * Keeps the folder in order from cni_watch_begin() on, once the node's pod ranges are known:
 * whatever others do in it is followed. What cannot be done is logged, and tried again. The strings
 * of options are borrowed.
 */
int cni_watch_new(struct cni_watch **ret, struct event_base *base,
		  const struct cni_conf_options *options, struct wag_err *err);
void cni_watch_begin(struct cni_watch *w); /* NULL: no-op */
/* Ends it. restore: our file goes, the others get their names back; else all stays. NULL: no-op. */
void cni_watch_free(struct cni_watch *w, bool restore);
