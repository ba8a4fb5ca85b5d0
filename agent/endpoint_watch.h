/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pods that the CNI plugin makes while the agent runs, or made while it did not:
 *   - a pod that waits for its policy is let go once it is in force (WAG_POD_PENDING);
 *   - a pod whose map entries or programs were lost (an emptied bpffs) gets them anew, from its
 *     record on disk;
 *   - map entries of a pod whose interface has vanished and of which no record tells are removed.
 * What has a record is the plugin's to remove (DEL, GC).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <waggle/err.h>
#include <waggle/netlink.h>
#include "dataplane_bpf.h"

struct event_base;
struct endpoint_watch;

struct endpoint_watch_options {
	struct event_base *base;
	const struct dataplane *dp;
	struct nl *nl;
	const char *pin_dir, *state_dir; /* all borrowed */
	void (*changed)(void *ctx); /* records came or went; may be NULL */
	bool (*in_force)(void *ctx, uint32_t ep_id); /* the pod's policies: it may go on */
	void *ctx;
};

struct endpoint_watch_stats {
	uint64_t healed;   /* pods that got their entries and programs anew */
	uint64_t released; /* pods whose policy came to be known */
	uint64_t orphans;  /* pods that vanished without DEL, their entries removed */
};

/* Heals what is there before it returns; one pod's trouble is logged, and tried again. */
int endpoint_watch_new(struct endpoint_watch **ret, const struct endpoint_watch_options *options,
		       struct wag_err *err);
void endpoint_watch_free(struct endpoint_watch *w); /* NULL is fine */
/* Policies have come in force: whoever waits for no more goes on. */
void endpoint_watch_release(struct endpoint_watch *w);
/* Links have come or gone. */
void endpoint_watch_links(struct endpoint_watch *w);
void endpoint_watch_get_stats(const struct endpoint_watch *w, struct endpoint_watch_stats *ret);
