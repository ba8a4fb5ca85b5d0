/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a new pod may send before the agent has looked at its policies. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <waggle/err.h>
#include <waggle/record.h>

#define POLICY_WAIT_MS 2000

/* WAG_POD_PENDING or 0, from the table the agent keeps pinned (waggle/policy_ns.h). */
int policy_flags(const char *pin_dir, const char *ns, uint32_t *ret, struct wag_err *err);
/*
 * Waits until the agent has cleared WAG_POD_PENDING of the pod's addresses; its record must be
 * complete on disk, by it the agent knows. 0 also when no agent is alive: the flag stays until one
 * is. CNI_E_AGAIN after POLICY_WAIT_MS.
 */
int policy_wait(const char *pin_dir, const char *state_dir, const struct record *rec,
		struct wag_err *err);
/* The agent holds an OFD lock on a file of the state dir for its life, so the kernel knows. */
bool agent_alive(const char *state_dir);
