/* SPDX-License-Identifier: Apache-2.0 */
/* Does fq send on the node's devices, so that a packet can be told when to leave? */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/netlink.h>

/* fq itself, or an mq over nothing but fq: then every queue of the device keeps departure times. */
bool qdiscs_pace(const struct nl_qdisc *list, size_t n, uint32_t ifindex);
