// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <string.h>
#include <waggle/abi_policy.h>
#include "policy_tables.h"

static void put(int fd, const void *key, const void *value)
{
	expect(!bpf_map_update_elem(fd, key, value, BPF_ANY), "a map entry");
}

void policy_epoch(struct world *w, __u32 epoch)
{
	struct wag_runtime runtime;
	__u32 zero = 0;

	bpf_map_lookup_elem(w->runtime, &zero, &runtime);
	runtime.policy_epoch = epoch;
	put(w->runtime, &zero, &runtime);
}

void policy_pod(struct world *w, enum who who, int dir, __u32 ruleset, __u32 verdict, __u32 flags)
{
	for (__u32 gen = 0; gen < WAG_POLICY_GENS; gen++) {
		struct wag_policy_key key = { .ep_id = who, .gen = gen };
		struct wag_policy pod = { .flags = flags };

		pod.ruleset[dir] = ruleset;
		pod.verdict[dir] = verdict;
		put(w->policy, &key, &pod);
	}
}

void policy_pod_identity(struct world *w, enum who who, __u16 id)
{
	for (__u32 gen = 0; gen < WAG_POLICY_GENS; gen++) {
		struct wag_policy_key key = { .ep_id = who, .gen = gen };
		struct wag_policy pod;

		if (!expect(!bpf_map_lookup_elem(w->policy, &key, &pod), "a pod's policies"))
			return;
		pod.identity[w->v6] = id;
		put(w->policy, &key, &pod);
	}
}

void policy_identity(struct world *w, enum who who, __u32 id, __u32 flags)
{
	const struct wag_ipcache value = { id, flags };

	for (__u32 gen = 0; gen < WAG_POLICY_GENS; gen++) {
		struct wag_ipcache_key key = { .bits = 160, .gen = gen };
		struct wag_addr addr = addr_of(who, w->v6);

		memcpy(key.addr, addr.w, sizeof(key.addr));
		put(w->ipcache, &key, &value);
	}
}

void policy_rule(struct world *w, __u32 ruleset, __u32 id, __u32 verdict)
{
	for (__u32 gen = 0; gen < WAG_POLICY_GENS; gen++) {
		struct wag_rule_key key = { .ruleset = ruleset, .identity = id, .gen = gen };

		put(w->rule, &key, &verdict);
	}
}

void policy_port(struct world *w, __u32 profile, __u32 bits, __u8 proto, __u16 port, __u32 verdict)
{
	for (__u32 gen = 0; gen < WAG_POLICY_GENS; gen++) {
		struct wag_port_key key = { .bits = bits, .gen = gen, .profile = profile,
					    .proto = htons(proto), .port = htons(port) };

		put(bits == 96 ? w->port_exact : w->port_rule, &key, &verdict);
	}
}
