/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Frontend -> backend, for packets and sockets alike. A Service's base and count are one word,
 * loaded once; every slot names its owner, so a slot range read across a change is noticed.
 */
#pragma once

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"
#include "packet.h"

enum svc_result {
	SVC_NONE,	/* not a Service */
	SVC_FOUND,	/* the choice is made */
	SVC_NO_BACKEND, /* svc_index and svc_id of the choice are set */
	SVC_MISMATCH,
};

/* The frontend of an address and port: its own, or a NodePort of the node's address. */
static __always_inline struct wag_svc *svc_lookup(const struct wag_addr *addr, __be16 port,
						  __u8 proto, bool local_addr)
{
	struct wag_svc_key key = { .addr = *addr, .port = port, .proto = proto };
	struct wag_svc *svc = bpf_map_lookup_elem(&wag_svc, &key);

	if (svc)
		return svc;
	if (!local_addr && !bpf_map_lookup_elem(&wag_node_addr, addr))
		return NULL;
	if (addr_is_v4(addr))
		addr_from_v4(&key.addr, 0);
	else
		key.addr.d[0] = key.addr.d[1] = 0;
	return bpf_map_lookup_elem(&wag_svc, &key);
}

static __always_inline enum svc_result svc_select(const struct wag_svc *svc,
						  struct svc_choice *choice)
{
	__u32 index = svc->index;

	choice->flags = svc->flags;
	choice->svc_index = index;
	for (int i = 0; i < 2; i++) {
		struct wag_svc_state *state = bpf_map_lookup_elem(&wag_svc_state, &index);
		struct wag_slot *slot;
		__u64 slots;
		__u32 at;

		if (!state)
			return SVC_NONE;
		slots = *(volatile __u64 *)&state->slots;
		choice->svc_id = state->svc_id;
		if (!choice->svc_id)
			return SVC_NONE;
		if (!WAG_SLOTS_COUNT(slots))
			return SVC_NO_BACKEND;
		at = WAG_SLOTS_BASE(slots) + bpf_get_prandom_u32() % WAG_SLOTS_COUNT(slots);
		slot = bpf_map_lookup_elem(&wag_slot, &at);
		if (slot && slot->svc_id == choice->svc_id) {
			choice->addr = slot->addr;
			choice->port = slot->port;
			return SVC_FOUND;
		}
	}
	return SVC_MISMATCH;
}
