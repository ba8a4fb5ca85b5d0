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

/* What an address and port stand for: a Service, a pod's hostPort, or (both NULL) themselves. */
struct svc_frontend {
	struct wag_svc *svc;
	struct wag_hostport *hostport;
	bool of_node; /* an address of the node, and no Service's frontend */
};

static __always_inline void any_addr(struct wag_addr *any, const struct wag_addr *addr)
{
	if (addr_is_v4(addr))
		addr_from_v4(any, 0);
	else
		any->d[0] = any->d[1] = 0;
}

/* A Service: the address's own, or a NodePort of the node's address. */
static __always_inline void svc_lookup(struct svc_frontend *front, const struct wag_addr *addr,
				       __be16 port, __u8 proto, bool local_addr)
{
	struct wag_svc_key key = { .addr = *addr, .port = port, .proto = proto };

	front->hostport = NULL;
	front->of_node = false;
	front->svc = bpf_map_lookup_elem(&wag_svc, &key);
	if (front->svc || (!local_addr && !bpf_map_lookup_elem(&wag_node_addr, addr)))
		return;
	any_addr(&key.addr, addr);
	front->svc = bpf_map_lookup_elem(&wag_svc, &key);
	front->of_node = !front->svc;
}

/* A pod's port on the node: on this address only, else on every one. */
static __always_inline void hostport_lookup(struct svc_frontend *front,
					    const struct wag_addr *addr, __be16 port, __u8 proto)
{
	struct wag_svc_key key = { .addr = *addr, .port = port, .proto = proto };

	front->hostport = bpf_map_lookup_elem(&wag_hostport, &key);
	if (front->hostport)
		return;
	any_addr(&key.addr, addr);
	front->hostport = bpf_map_lookup_elem(&wag_hostport, &key);
}

/* Does the hostPort a packet was sent to still belong to this pod? */
static __always_inline bool hostport_is(const struct wag_tuple *t, const struct wag_addr *addr,
					__be16 port)
{
	struct svc_frontend front;

	hostport_lookup(&front, &t->daddr, t->dport, t->proto);
	return front.hostport && front.hostport->port == port &&
	       addr_equal(&front.hostport->addr, addr);
}

static __always_inline enum svc_result svc_select(const struct svc_frontend *front,
						  struct svc_choice *choice)
{
	const struct wag_hostport *hostport = front->hostport;
	const struct wag_svc *svc = front->svc;
	__u32 index;

	if (hostport) {
		choice->addr = hostport->addr;
		choice->port = hostport->port;
		choice->svc_index = choice->svc_id = 0;
		choice->flags = WAG_SVC_NODE_PORT;
		return SVC_FOUND;
	}
	if (!svc)
		return SVC_NONE;
	index = svc->index;
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
