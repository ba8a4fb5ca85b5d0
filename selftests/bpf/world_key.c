// SPDX-License-Identifier: Apache-2.0
/* The tunnel key that a program has set: it stands in the packet's working memory. */
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <stdlib.h>
#include <string.h>

#include "world.h"
/* They name struct wag_config. */
#include "hook_net.skel.h"
#include "hook_pod.skel.h"
#include "hook_tunnel.skel.h"

static int scratch_of(struct world *w, enum hook hook)
{
	switch (hook) {
	case FROM_NET:
	case TO_NET:
		return bpf_map__fd(w->net->maps.wag_scratch);
	case FROM_TUNNEL:
	case TO_TUNNEL:
		return bpf_map__fd(w->tunnel->maps.wag_scratch);
	default:
		return bpf_map__fd(w->pod->maps.wag_scratch);
	}
}

static size_t sizeof_scratch(struct world *w)
{
	return bpf_map__value_size(w->pod->maps.wag_scratch);
}

/* Where a packet's working memory holds the key, by its BTF. */
static __u32 key_offset(struct world *w)
{
	const struct btf *btf = bpf_object__btf(w->pod->obj);
	int id = bpf_map__btf_value_type_id(w->pod->maps.wag_scratch);
	const struct btf_type *t = btf__type_by_id(btf, id);
	const struct btf_member *m = btf_members(t);

	for (unsigned i = 0; i < btf_vlen(t); i++)
		if (!strcmp(btf__name_by_offset(btf, m[i].name_off), "tunnel"))
			return m[i].offset / 8;
	abort();
}

void world_tunnel_key(struct world *w, enum hook hook, struct bpf_tunnel_key *ret_key)
{
	size_t size = (sizeof_scratch(w) + 7) & ~7UL;
	int cpus = libbpf_num_possible_cpus();
	__u8 *each = calloc(cpus, size);
	__u32 zero = 0;

	memset(ret_key, 0, sizeof(*ret_key));
	if (each && !bpf_map_lookup_elem(scratch_of(w, hook), &zero, each))
		for (int cpu = 0; cpu < cpus && !ret_key->tunnel_id; cpu++)
			memcpy(ret_key, each + cpu * size + key_offset(w), sizeof(*ret_key));
	free(each);
}

void world_forget_key(struct world *w, enum hook hook)
{
	size_t size = (sizeof_scratch(w) + 7) & ~7UL;
	int cpus = libbpf_num_possible_cpus();
	__u8 *each = calloc(cpus, size);
	__u32 zero = 0;

	if (each && !bpf_map_lookup_elem(scratch_of(w, hook), &zero, each)) {
		for (int cpu = 0; cpu < cpus; cpu++)
			memset(each + cpu * size + key_offset(w), 0, sizeof(struct bpf_tunnel_key));
		bpf_map_update_elem(scratch_of(w, hook), &zero, each, BPF_ANY);
	}
	free(each);
}
