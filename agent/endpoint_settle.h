/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pods are born with clsact filters, because a TCX link takes the kernel longer than all the rest
 * of an ADD (docs/adr/0007). A filter costs each packet a tenth more than a link: pods that have
 * lived for a while get what they send through a link, one pod after the other, while the CNI
 * plugin is quiet, and in a thread. The link is pinned under the name it has with --attach=tcx.
 */
#pragma once

#include <stdint.h>
#include <waggle/err.h>
#include "dataplane_bpf.h"

struct event_base;
struct endpoint_settle;

struct endpoint_settle_options {
	struct event_base *base;
	const struct dataplane *dp;
	const char *pin_dir, *state_dir; /* all borrowed */
};

/* *ret stays NULL where pods are attached as they shall be at once (--attach, no TCX). */
int endpoint_settle_new(struct endpoint_settle **ret, const struct endpoint_settle_options *options,
			struct wag_err *err);
void endpoint_settle_free(struct endpoint_settle *s); /* NULL is fine */
/* Records of pods came or went. NULL is fine. */
void endpoint_settle_changed(struct endpoint_settle *s);
