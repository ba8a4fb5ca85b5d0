/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Every map, in dataflow order. Keys, values and who writes what: waggle/abi_maps.h. The sizes
 * here are defaults; the agent sets its own before load.
 */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <waggle/abi_config.h>
#include <waggle/abi_event.h>
#include <waggle/abi_maps.h>
#include <waggle/abi_reason.h>

const volatile struct wag_config cfg = {};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wag_meta);
} wag_meta SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__uint(map_flags, BPF_F_MMAPABLE); /* its writers share it field by field */
	__type(value, struct wag_runtime);
} wag_runtime SEC(".maps");

/* Who lives here. */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct wag_addr);
	__type(value, struct wag_pod);
} wag_pods SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2048);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct wag_endpoint);
} wag_endpoint SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct wag_addr);
	__type(value, struct wag_node_addr);
} wag_node_addr SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct wag_netns);
} wag_netns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
} wag_netns_learn SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct wag_policy_ns_key);
	__type(value, struct wag_policy_ns);
} wag_policy_ns SEC(".maps");

/* Policy. */

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, WAG_IPCACHE_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct wag_ipcache_key);
	__type(value, struct wag_ipcache);
} wag_ipcache SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, WAG_POLICY_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct wag_policy_key);
	__type(value, struct wag_policy);
} wag_policy SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, WAG_RULE_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct wag_rule_key);
	__type(value, __u32);
} wag_rule SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, WAG_PORT_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct wag_port_key);
	__type(value, __u32);
} wag_port SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, WAG_PORT_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct wag_port_key);
	__type(value, __u32);
} wag_port_exact SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, WAG_RULES_MAX);
	__type(key, __u32);
	__type(value, struct wag_stat);
} wag_rule_stat SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, WAG_RULES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct wag_rule_name);
} wag_rule_name SEC(".maps");

/* What is beyond the node. */

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct wag_cidr_key);
	__type(value, struct wag_cidr);
} wag_cidr SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct wag_addr);
	__type(value, struct wag_node);
} wag_nodes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct wag_device);
} wag_device SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u32);
} wag_xdp_dev SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct wag_limit_key);
	__type(value, struct wag_limit);
} wag_limit SEC(".maps");

/* Services. */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct wag_svc_key);
	__type(value, struct wag_svc);
} wag_svc SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct wag_svc_state);
} wag_svc_state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct wag_slot);
} wag_slot SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct wag_backend_key);
	__type(value, struct wag_backend);
} wag_backend SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct wag_src_range_key);
	__type(value, struct wag_src_range);
} wag_src_range SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct wag_affinity_key);
	__type(value, struct wag_affinity);
} wag_affinity SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct wag_svc_name);
} wag_svc_name SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct wag_svc_key);
	__type(value, struct wag_hostport);
} wag_hostport SEC(".maps");

/* Flows. */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__type(key, struct wag_ct_key);
	__type(value, struct wag_ct);
} wag_ct SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 262144);
	__type(key, __u32);
	__type(value, struct wag_ct_slot);
} wag_ct_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wag_ct_clock);
} wag_ct_clock SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct wag_sock_key);
	__type(value, struct wag_sock);
} wag_sock SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct wag_frag_key);
	__type(value, struct wag_frag);
} wag_frag SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WAG_FRAG_HOLD_SLOTS);
	__type(key, __u32);
	__type(value, struct wag_frag_hold);
} wag_frag_hold SEC(".maps");

/* What happened. */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, WAG_POINTS * WAG_REASONS_MAX);
	__type(key, __u32);
	__type(value, struct wag_stat);
} wag_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, WAG_MAP_IDS * WAG_MAP_ERRNOS);
	__type(key, __u32);
	__type(value, __u64);
} wag_map_errors SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} wag_events SEC(".maps");

/* Counts a failed map operation by its errno; err is what the helper returned. */
static __always_inline void count_map_error(enum wag_map_id map, long err)
{
	__u32 no = err < 0 ? (__u32)-err : 0;
	__u32 key = WAG_MAP_ERROR_INDEX(map, no < WAG_MAP_ERRNOS ? no : 0);
	__u64 *count = bpf_map_lookup_elem(&wag_map_errors, &key);

	if (count)
		(*count)++;
}

/* Counts a packet, or a system call, where it met us; reason 0: forwarded. */
static __always_inline void count_packet(__u32 point, __u32 reason, __u32 bytes)
{
	__u32 key = WAG_STAT_INDEX(point, reason);
	struct wag_stat *stat = bpf_map_lookup_elem(&wag_stats, &key);

	if (stat) {
		stat->packets++;
		stat->bytes += bytes;
	}
}
