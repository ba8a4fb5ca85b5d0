/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the pinned table says about policy in a namespace, for whoever makes a pod while nobody can
 * be asked: the CNI plugin without an agent, the agent before it is synced.
 */
#pragma once

#include <stdint.h>

/*
 * *ret_flags: WAG_POD_PENDING if some policy may select a pod of the namespace, else 0. While no
 * policy is known in the cluster, none can; a namespace that is not in the table may have any.
 * 0 or -errno; -ENOENT, -EPROTO: as pins_map_open().
 */
int policy_ns_flags(const char *pin_dir, const char *ns, uint32_t *ret_flags);
