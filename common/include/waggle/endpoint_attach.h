/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pinned maps and programs: what makes a pod's interface a Waggle endpoint while no agent runs.
 * The CNI plugin does it for a new pod, the agent for every record when the pins were lost.
 *
 * Each returns 0 or -errno with the text in err; -EAGAIN: nothing is pinned (the agent has not run
 * since boot), it is pinned by another version, or the pin dir stays locked.
 */
#pragma once

#include <stdint.h>
#include <waggle/abi_maps.h>
#include <waggle/err.h>
#include <waggle/netlink.h>
#include <waggle/record.h>

/* What the agent pinned of the node. */
int endpoint_meta(const char *pin_dir, struct wag_meta *ret, struct wag_err *err);
/* -EAGAIN unless everything is pinned that endpoint_attach() needs. */
int endpoint_ready(const char *pin_dir, struct wag_err *err);
/*
 * Map entries and programs of rec->ifindex; takes the flock of the pin dir, so the caller must not
 * hold it. flags: of wag_pod, beside those that follow from the record. Doing it again is fine.
 */
int endpoint_attach(const char *pin_dir, struct nl *nl, const struct record *rec, uint32_t flags,
		    struct wag_err *err);
/* Takes back whatever endpoint_attach() left, complete or not. Empty pin dir: 0. */
int endpoint_detach(const char *pin_dir, const struct record *rec, struct wag_err *err);
/* -ESTALE: entries or programs differ from the record; err names the first difference. */
int endpoint_check(const char *pin_dir, const struct record *rec, struct wag_err *err);
