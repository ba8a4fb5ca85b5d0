/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a new pod may send before the agent has looked at its policies. */
#pragma once

#include <stdbool.h>
#include <waggle/err.h>
#include <waggle/record.h>

#define POLICY_WAIT_MS 2000

/*
 * From the table the agent keeps pinned: may a policy select a pod of this namespace? synced: the
 * agent has seen the whole cluster since it started. ns empty: nobody told.
 */
int policy_pending(const char *pin_dir, const char *ns, bool synced, bool *ret,
		   struct wag_err *err);
/*
 * Waits until the agent has cleared WAG_POD_PENDING of the pod's addresses; its record must be
 * complete on disk, by it the agent knows. 0 also when no agent is alive: the flag stays until one
 * is. CNI_E_AGAIN after POLICY_WAIT_MS.
 */
int policy_wait(const char *pin_dir, const char *state_dir, const struct record *rec,
		struct wag_err *err);
/* The agent holds an OFD lock on a file of the state dir for its life, so the kernel knows. */
bool agent_alive(const char *state_dir);
