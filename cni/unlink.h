/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a pod's interface. The kernel answers RTM_DELLINK only when all memory of the link is
 * free: RCU's time after it has gone for everybody. A child of ours takes that answer.
 */
#pragma once

#include <stdint.h>
#include <waggle/netlink.h>

/* Returns when nobody finds the link and its peer any more. 0 or -errno; -ENODEV: it was gone. */
int unlink_veth(struct nl *nl, uint32_t ifindex);
