// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A veth wakes up for packets that XDP sends it only while it has a program of its own. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("xdp")
int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}
