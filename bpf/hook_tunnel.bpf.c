// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The one collect-metadata tunnel device: what other nodes sent packed at its ingress, what the
 * node itself (or its stack) sends to their pods at its egress. Pods' packets get their tunnel key
 * in wag_from_pod and are not seen by wag_to_tunnel's journey again.
 */
#include <asm-generic/errno-base.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"
#include "packet.h"
#include "scratch.h"
#include "stage_parse.h"
#include "stage_track.h"
#include "stage_service.h"
#include "stage_policy.h"
#include "stage_masquerade.h"
#include "stage_commit.h"
#include "stage_nat.h"
#include "stage_route.h"
#include "stage_finish.h"

SEC("tc")
int wag_from_tunnel(struct __sk_buff *skb)
{
	return PASS;
}

SEC("tc")
int wag_to_tunnel(struct __sk_buff *skb)
{
	return PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
