/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Frontend -> backend, for packets and sockets alike. A Service's base and count are one word,
 * loaded once; every slot names its owner, so a slot range read across a change is noticed.
 */
#pragma once

#include <asm-generic/errno-base.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"
#include "packet.h"

enum svc_result {
	SVC_NONE,	/* not a Service */
	SVC_FOUND,	/* the choice is made */
	SVC_NO_BACKEND, /* svc_index and svc_id of the choice are set, here and below */
	SVC_NO_LOCAL,	/* it has backends, but none this client may get */
	SVC_DENIED,	/* loadBalancerSourceRanges */
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

/* The node's address of the packet's family; false if it has none. */
static __always_inline bool node_addr_of(bool v6, struct wag_addr *addr)
{
	/* Word by word: without the volatile the compiler would take cfg's zeros for its value. */
	const volatile struct wag_addr *node = v6 ? &cfg.node_v6 : &cfg.node_v4;

	addr->d[0] = node->d[0];
	addr->d[1] = node->d[1];
	return !addr_is_zero(addr);
}

/* Are NodePorts served on this address? *ret_of_node: it is one of the node's. */
static __always_inline bool serves_node_ports(const struct wag_addr *addr, bool loopback,
					      bool *ret_of_node)
{
	struct wag_node_addr *node;

	if (loopback) {
		*ret_of_node = true;
		return cfg.loopback_node_ports &
		       (addr_is_v4(addr) ? WAG_LOOPBACK_V4 : WAG_LOOPBACK_V6);
	}
	node = bpf_map_lookup_elem(&wag_node_addr, addr);
	*ret_of_node = node;
	return node && !(node->flags & WAG_NODE_ADDR_NO_NODE_PORT);
}

/* A Service: the address's own, or a NodePort of the node's address. */
static __always_inline void svc_lookup(struct svc_frontend *front, const struct wag_addr *addr,
				       __be16 port, __u8 proto, bool loopback)
{
	struct wag_svc_key key = { .addr = *addr, .port = port, .proto = proto };

	front->hostport = NULL;
	front->of_node = false;
	front->svc = bpf_map_lookup_elem(&wag_svc, &key);
	if (front->svc || !serves_node_ports(addr, loopback, &front->of_node))
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

static __always_inline bool svc_admits(__u32 svc_id, const struct wag_addr *client)
{
	struct wag_src_range_key key = { .bits = 32 + 128, .svc_id = svc_id };

	for (int i = 0; i < 4; i++)
		key.addr[i] = client->w[i];
	return bpf_map_lookup_elem(&wag_src_range, &key);
}

/* The client's backend of before, if it is in the set and was used a moment ago. */
static __always_inline bool affinity_recall(const struct svc_client *client,
					    struct wag_affinity_key *key, __u32 timeout_s,
					    __u32 set, __u8 proto, struct svc_choice *choice)
{
	struct wag_affinity *known;
	struct wag_backend_key wanted = { .svc_id = choice->svc_id, .proto = proto };
	struct wag_backend *backend;

	key->client = client->addr;
	key->svc_id = choice->svc_id;
	known = bpf_map_lookup_elem(&wag_affinity, key);
	/* Signed: the socket path's clock may be a tick ahead of the packet path's. */
	if (!known || (__s64)(client->now - known->used_ns) > (__s64)(timeout_s * NSEC_PER_SEC))
		return false;
	wanted.addr = known->addr;
	wanted.port = known->port;
	backend = bpf_map_lookup_elem(&wag_backend, &wanted);
	if (!backend || !(backend->flags & set))
		return false;
	choice->addr = wanted.addr;
	choice->port = wanted.port;
	if (!cfg.dry_run)
		known->used_ns = client->now;
	return true;
}

static __always_inline void affinity_remember(const struct svc_client *client,
					      const struct wag_affinity_key *key,
					      const struct svc_choice *choice)
{
	struct wag_affinity value = {
		.addr = choice->addr, .port = choice->port, .used_ns = client->now
	};
	long err;

	if (cfg.dry_run)
		return;
	err = bpf_map_update_elem(&wag_affinity, key, &value, BPF_ANY);
	if (err)
		count_map_error(WAG_MAP_AFFINITY, err);
}

/* The slot, from the head, that an entry of a lookup table names; 0: it is another Service's. */
static __always_inline __u32 svc_entry(__u32 table, __u32 entry, __u32 svc_id)
{
	__u32 at = table + entry / WAG_SLOT_ENTRIES;
	struct wag_slot_entries *entries = bpf_map_lookup_elem(&wag_slot, &at);

	entry %= WAG_SLOT_ENTRIES;
	/* clang takes it off the quotient above, and all verifiers: "unbounded memory access". */
	barrier_var(entry);
	if (!entries || entries->svc_id != svc_id || entry >= WAG_SLOT_ENTRIES)
		return 0;
	return entries->at[entry];
}

/*
 * A slot of the set (WAG_BACKEND_*) that a state's word leads to: its lookup table's for hash, else
 * any. 0, -ENOENT: the set is empty, -EAGAIN: the range is another Service's by now.
 */
static __always_inline int svc_pick(__u64 slots, __u32 set, __u32 hash, struct svc_choice *choice)
{
	__u32 at = WAG_SLOTS_BASE(slots), count = WAG_SLOTS_COUNT(slots);
	__u32 first = 0, entries = 0, table = 0;
	bool local = set == WAG_BACKEND_LOCAL;
	struct wag_slot_head *head;
	struct wag_slot *slot;

	if (WAG_SLOTS_FLAGS(slots) & WAG_SLOTS_HEAD) {
		head = bpf_map_lookup_elem(&wag_slot, &at);
		if (!head || head->svc_id != choice->svc_id)
			return -EAGAIN;
		first = local ? 1 : head->cluster_first;
		count = local ? head->local_count : head->cluster_count;
		entries = local ? head->local_entries : head->cluster_entries;
		table = at + (local ? head->local_table : head->cluster_table);
	}
	if (!count)
		return -ENOENT;
	if (!entries)
		at += first + bpf_get_prandom_u32() % count;
	else if ((first = svc_entry(table, hash % entries, choice->svc_id)))
		at += first;
	else
		return -EAGAIN;
	slot = bpf_map_lookup_elem(&wag_slot, &at);
	if (!slot || slot->svc_id != choice->svc_id)
		return -EAGAIN;
	choice->addr = slot->addr;
	choice->port = slot->port;
	return 0;
}

/* What the state says before any slot is looked at. SVC_FOUND: go on. */
static __always_inline enum svc_result svc_check(const struct svc_client *client, __u64 slots,
						 const struct svc_choice *choice)
{
	if (!choice->svc_id)
		return SVC_NONE;
	if (!WAG_SLOTS_COUNT(slots) && !(WAG_SLOTS_FLAGS(slots) & WAG_SLOTS_ANY))
		return SVC_NO_BACKEND;
	if (choice->flags & WAG_SVC_LOAD_BALANCER &&
	    WAG_SLOTS_FLAGS(slots) & WAG_SLOTS_SOURCE_RANGES &&
	    !svc_admits(choice->svc_id, &client->addr))
		return SVC_DENIED;
	return SVC_FOUND;
}

/*
 * The set (WAG_BACKEND_*) that the client gets a backend of, and choice->masquerade. Through a
 * clusterIP clients outside are masqueraded, for the backend may be anywhere; through an address
 * meant for outside everybody is, unless the policy keeps it on this node. Then it is the node's
 * own clients' short cut that leads anywhere.
 */
static __always_inline __u32 svc_set(const struct svc_client *client, __u64 slots,
				     struct svc_choice *choice)
{
	bool external = choice->flags & WAG_SVC_EXTERNAL;
	bool keep = external && WAG_SLOTS_FLAGS(slots) & WAG_SLOTS_EXTERNAL_LOCAL;
	bool local = external ? keep && client->outside :
				!!(WAG_SLOTS_FLAGS(slots) & WAG_SLOTS_INTERNAL_LOCAL);

	if (client->direct) {
		choice->masquerade = 0;
		return client->local ? WAG_BACKEND_LOCAL : WAG_BACKEND_CLUSTER;
	}
	choice->masquerade = !keep && (external || client->outside);
	return local ? WAG_BACKEND_LOCAL : WAG_BACKEND_CLUSTER;
}

/* A backend of the Service for this client. choice->flags and ->svc_index are set. */
static __always_inline enum svc_result svc_choose(const struct svc_client *client, __u8 proto,
						  struct svc_choice *choice)
{
	struct wag_affinity_key key = {};

	for (int i = 0; i < 2; i++) {
		struct wag_svc_state *state =
			bpf_map_lookup_elem(&wag_svc_state, &choice->svc_index);
		enum svc_result result;
		__u32 affinity_s, set;
		__u64 slots;
		int r;

		if (!state)
			return SVC_NONE;
		slots = *(volatile __u64 *)&state->slots;
		choice->svc_id = state->svc_id;
		affinity_s = state->affinity_s;
		if ((result = svc_check(client, slots, choice)) != SVC_FOUND)
			return result;
		set = svc_set(client, slots, choice);
		if (affinity_s &&
		    affinity_recall(client, &key, affinity_s, set, proto, choice))
			return SVC_FOUND;
		r = svc_pick(slots, set, client->hash, choice);
		if (r == -ENOENT)
			return SVC_NO_LOCAL;
		if (r)
			continue;
		if (affinity_s)
			affinity_remember(client, &key, choice);
		return SVC_FOUND;
	}
	return SVC_MISMATCH;
}

static __always_inline struct wag_svc_state *svc_state(const struct svc_frontend *front)
{
	__u32 index;

	if (!front->svc)
		return NULL;
	index = front->svc->index;
	return bpf_map_lookup_elem(&wag_svc_state, &index);
}

/* Does the choice depend on who the client is? */
static __always_inline bool svc_asks_client(const struct svc_frontend *front)
{
	struct wag_svc_state *state = svc_state(front);

	return state && (state->affinity_s ||
			 WAG_SLOTS_FLAGS(state->slots) & WAG_SLOTS_SOURCE_RANGES);
}

/* Are clients outside of the cluster answered by the endpoint's node? */
static __always_inline bool svc_is_dsr(const struct svc_frontend *front)
{
	struct wag_svc_state *state = svc_state(front);

	return state && front->svc->flags & WAG_SVC_EXTERNAL &&
	       WAG_SLOTS_FLAGS(state->slots) & WAG_SLOTS_DSR;
}

static __always_inline enum svc_result svc_select(const struct svc_frontend *front,
						  const struct svc_client *client, __u8 proto,
						  struct svc_choice *choice)
{
	const struct wag_hostport *hostport = front->hostport;

	if (hostport) {
		choice->addr = hostport->addr;
		choice->port = hostport->port;
		choice->svc_index = choice->svc_id = 0;
		choice->flags = WAG_SVC_NODE_PORT;
		choice->masquerade = 0;
		return SVC_FOUND;
	}
	if (!front->svc)
		return SVC_NONE;
	choice->svc_index = front->svc->index;
	choice->flags = front->svc->flags;
	return svc_choose(client, proto, choice);
}
