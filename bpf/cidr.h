/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What an address is that is not of this node. */
#pragma once

#include "maps.h"
#include "packet.h"

/* NULL: outside of the cluster. */
static __always_inline struct wag_cidr *cidr_find(struct wag_scratch *scratch,
						  const struct wag_addr *addr)
{
	struct wag_cidr_key *key = &scratch->cidr;

	key->bits = 128;
	for (int i = 0; i < 4; i++)
		key->addr[i] = addr->w[i];
	return bpf_map_lookup_elem(&wag_cidr, key);
}

/* Does what goes there go packed? What must (PKT_DSR) may also where the node's routes lead. */
static __always_inline bool cidr_is_packed(const struct wag_cidr *cidr, bool must)
{
	return cidr && !addr_is_zero(&cidr->tunnel) && (must || !(cidr->flags & WAG_CIDR_DIRECT));
}
