/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A pod's new flow to outside of the cluster leaves with the node's address: pkt->xlat's source. */
#pragma once

#include "maps.h"
#include "packet.h"

static __always_inline int stage_masquerade(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	if (scratch->pkt.flags & PKT_TRACKED)
		return NEXT;
	return NEXT;
}
