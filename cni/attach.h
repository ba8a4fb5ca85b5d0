/* SPDX-License-Identifier: Apache-2.0 */
/* The pinned maps and programs: what makes a veth a Waggle endpoint while no agent runs. */
#pragma once

#include <stdint.h>
#include <waggle/err.h>
#include <waggle/netlink.h>

#include "netns.h"
#include "record.h"

/* CNI_E_AGAIN when nothing is pinned: the agent has not run since boot. */
int attach_ready(const char *pin_dir, struct wag_err *err);
/* Map entries and programs of a veth whose ends are still down. */
int attach_add(const char *pin_dir, struct nl *nl, const struct record *rec, uint64_t netns_cookie,
	       struct wag_err *err);
/* Takes back whatever attach_add() left, complete or not. Empty pin dir: 0. */
int attach_remove(const char *pin_dir, const struct record *rec, struct wag_err *err);
/* Are the entries and the programs there? */
int attach_check(const char *pin_dir, const struct record *rec, struct wag_err *err);
/*
 * The cookie of the pod's namespace: from the socket option, or before Linux 5.14 from the BPF
 * programs (wag_netns_learn). 0: nobody could tell.
 */
uint64_t attach_netns_cookie(const char *pin_dir, const struct netns *ns);
