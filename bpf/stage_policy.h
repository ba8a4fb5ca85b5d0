/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* May this new flow be? A known one has been judged before: stage_track only asks who sends it. */
#pragma once

#include "maps.h"
#include "packet.h"

static __always_inline int stage_policy(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	if (scratch->pkt.flags & PKT_TRACKED)
		return NEXT;
	return NEXT;
}
