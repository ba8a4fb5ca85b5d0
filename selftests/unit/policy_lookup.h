/* SPDX-License-Identifier: Apache-2.0 */
/* The compiled tables read as the datapath reads them (bpf/stage_policy.h). */
#pragma once

#include <stdint.h>
#include <waggle/abi_addr.h>
#include "agent/compile_policy.h"

/* A verdict, WAG_VERDICT(). ret_unknown (may be NULL): nobody known has the address. */
uint32_t policy_lookup(struct policy_compiler *c, uint32_t ep_id, enum policy_dir dir,
		       const struct wag_addr *peer, uint8_t proto, uint16_t port, int *ret_unknown);
