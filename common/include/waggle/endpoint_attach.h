/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pinned maps and programs: what makes a pod's interface a Waggle endpoint while no agent runs.
 * The CNI plugin does it for a new pod, the agent for every record when the pins were lost.
 *
 * Each returns 0 or -errno with the text in err; -EAGAIN: nothing is pinned (the agent has not run
 * since boot), it is pinned by another version, or the pin dir stays locked.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <waggle/abi_maps.h>
#include <waggle/err.h>
#include <waggle/netlink.h>
#include <waggle/record.h>

/* What the agent pinned of the node. */
int endpoint_meta(const char *pin_dir, struct wag_meta *ret, struct wag_err *err);
/* The same; -EAGAIN unless everything is pinned that endpoint_attach() needs. */
int endpoint_ready(const char *pin_dir, struct wag_meta *ret, struct wag_err *err);
/*
 * Map entries and programs of rec->ifindex, and its ports of the node; takes the flock of the pin
 * dir, so the caller must not hold it. flags: of wag_pod, beside those that follow from the record.
 * Doing it again is fine. -EADDRINUSE: another pod has such a port.
 */
int endpoint_attach(const char *pin_dir, struct nl *nl, const struct record *rec, uint32_t flags,
		    struct wag_err *err);
/* Takes back whatever endpoint_attach() left, complete or not. Empty pin dir: 0. */
int endpoint_detach(const char *pin_dir, const struct record *rec, struct wag_err *err);
/*
 * Calls differs with a text for each difference between the record and the pinned entries and
 * attached programs. 0 also with differences.
 */
typedef void (*endpoint_differs_fn)(void *ctx, const char *text);
int endpoint_check(const char *pin_dir, struct nl *nl, const struct record *rec,
		   endpoint_differs_fn differs, void *ctx, struct wag_err *err);

#define ENDPOINT_HOOKS 2
struct endpoint_hook {
	const char *prog; /* its pin */
	bool egress;	  /* of the host side: what the pod sends comes in */
};
extern const struct endpoint_hook endpoint_hooks[ENDPOINT_HOOKS];
