/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Included before the sources of bpf/: what they call is counted where it is called. */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "counted.h"

__u64 counted[COUNTED_KINDS];

#define COUNTED(KIND, CALL) (counted[KIND]++, CALL)

#define bpf_map_lookup_elem(...) COUNTED(COUNTED_LOOKUP, bpf_map_lookup_elem(__VA_ARGS__))
#define bpf_map_lookup_percpu_elem(...)                                                            \
	COUNTED(COUNTED_LOOKUP, bpf_map_lookup_percpu_elem(__VA_ARGS__))

#define bpf_map_update_elem(...) COUNTED(COUNTED_CHANGE, bpf_map_update_elem(__VA_ARGS__))
#define bpf_map_delete_elem(...) COUNTED(COUNTED_CHANGE, bpf_map_delete_elem(__VA_ARGS__))

#define bpf_csum_diff(...) COUNTED(COUNTED_OTHER, bpf_csum_diff(__VA_ARGS__))
#define bpf_fib_lookup(...) COUNTED(COUNTED_OTHER, bpf_fib_lookup(__VA_ARGS__))
#define bpf_get_hash_recalc(...) COUNTED(COUNTED_OTHER, bpf_get_hash_recalc(__VA_ARGS__))
#define bpf_get_prandom_u32(...) COUNTED(COUNTED_OTHER, bpf_get_prandom_u32(__VA_ARGS__))
#define bpf_get_smp_processor_id(...) COUNTED(COUNTED_OTHER, bpf_get_smp_processor_id(__VA_ARGS__))
#define bpf_jiffies64(...) COUNTED(COUNTED_OTHER, bpf_jiffies64(__VA_ARGS__))
#define bpf_ktime_get_coarse_ns(...) COUNTED(COUNTED_OTHER, bpf_ktime_get_coarse_ns(__VA_ARGS__))
#define bpf_ktime_get_ns(...) COUNTED(COUNTED_OTHER, bpf_ktime_get_ns(__VA_ARGS__))
#define bpf_l4_csum_replace(...) COUNTED(COUNTED_OTHER, bpf_l4_csum_replace(__VA_ARGS__))
#define bpf_redirect(...) COUNTED(COUNTED_OTHER, bpf_redirect(__VA_ARGS__))
#define bpf_redirect_neigh(...) COUNTED(COUNTED_OTHER, bpf_redirect_neigh(__VA_ARGS__))
#define bpf_redirect_peer(...) COUNTED(COUNTED_OTHER, bpf_redirect_peer(__VA_ARGS__))
#define bpf_ringbuf_reserve(...) COUNTED(COUNTED_OTHER, bpf_ringbuf_reserve(__VA_ARGS__))
#define bpf_ringbuf_submit(...) COUNTED(COUNTED_OTHER, bpf_ringbuf_submit(__VA_ARGS__))
#define bpf_sk_lookup_udp(...) COUNTED(COUNTED_OTHER, bpf_sk_lookup_udp(__VA_ARGS__))
#define bpf_sk_release(...) COUNTED(COUNTED_OTHER, bpf_sk_release(__VA_ARGS__))
#define bpf_skb_load_bytes(...) COUNTED(COUNTED_OTHER, bpf_skb_load_bytes(__VA_ARGS__))
#define bpf_skb_store_bytes(...) COUNTED(COUNTED_OTHER, bpf_skb_store_bytes(__VA_ARGS__))
#define bpf_skc_lookup_tcp(...) COUNTED(COUNTED_OTHER, bpf_skc_lookup_tcp(__VA_ARGS__))
#define bpf_spin_lock(...) COUNTED(COUNTED_OTHER, bpf_spin_lock(__VA_ARGS__))
#define bpf_spin_unlock(...) COUNTED(COUNTED_OTHER, bpf_spin_unlock(__VA_ARGS__))
