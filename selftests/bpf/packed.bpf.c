// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * BPF_PROG_TEST_RUN hands out packets that came through no tunnel: this one gives them the key that
 * the tunnel device would have, then goes on to wag_from_tunnel by a tail call. And it has no word
 * for skb->queue_mapping: queued gives a packet its own, and goes on in the same way.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct bpf_tunnel_key key; /* local_*: who packed it */
__u64 flags;
__u32 plain; /* not 0: it came without */

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} target SEC(".maps");

__u32 queue;

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} queue_target SEC(".maps");

SEC("tc")
int queued(struct __sk_buff *skb)
{
	skb->queue_mapping = queue;
	bpf_tail_call(skb, &queue_target, 0);
	return TC_ACT_STOLEN;
}

SEC("tc")
int packed(struct __sk_buff *skb)
{
	struct bpf_tunnel_key k = key;

	if (!plain && bpf_skb_set_tunnel_key(skb, &k, sizeof(k), flags))
		return TC_ACT_STOLEN;
	bpf_tail_call(skb, &target, 0);
	return TC_ACT_STOLEN;
}
