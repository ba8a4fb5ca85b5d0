// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * BPF_PROG_TEST_RUN hands every repeat the same packet, which the program under test rewrites:
 * this one writes it anew, then goes on to the program by a tail call.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include "bench_frame.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile __u32 client_addr, more_addrs; /* host order */

__u32 next_flow, first_flow, flow_count, target_addr, syn, passed;
__u16 target_port;

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} target SEC(".maps");

SEC("tc")
int generate(struct __sk_buff *skb)
{
	struct frame *f = (void *)(long)skb->data;
	struct frame h = {};
	__u32 n = next_flow, flow;

	if ((void *)(f + 1) > (void *)(long)skb->data_end)
		return TC_ACT_SHOT;
	next_flow = n + 1 == flow_count ? 0 : n + 1;
	flow = first_flow + n;
	frame_write(&h, flow < FLOWS_PER_ADDR ? client_addr : more_addrs + flow / FLOWS_PER_ADDR,
		    FIRST_PORT + flow % FLOWS_PER_ADDR, target_addr, target_port, syn);
	*f = h;
	bpf_tail_call(skb, &target, 0);
	passed++;
	return TC_ACT_SHOT;
}

SEC("tc")
int empty(struct __sk_buff *skb)
{
	return TC_ACT_OK;
}
