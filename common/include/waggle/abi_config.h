/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Load-time constants of the BPF objects (.rodata): a false flag removes its branch at load. */
#pragma once

#include <linux/types.h>
#include <waggle/abi_addr.h>

#define WAG_FLOW_CACHE 16384 /* entries of wag_flow_cache and wag_flow_xlat for each CPU, at most */
#define WAG_FLOW_CACHE_BYTES 120 /* of one in both */
#define WAG_FLOW_HOPS 1024 /* entries of wag_flow_hop for each CPU */

#define WAG_LOOPBACK_V4 1U
#define WAG_LOOPBACK_V6 2U

#define WAG_EVENTS_DRY 2U /* of wag_config.events: of a trace, into a ring buffer of its own */
/* wag_config.policy */
#define WAG_POLICY_CFG_NODE 1U	/* the pod's own node always reaches it (probes) */
#define WAG_POLICY_CFG_AUDIT 2U /* what policies would drop is only told */

struct wag_config {
	struct wag_addr node_v4, node_v6; /* source address of hairpin and SNAT; zero: none */
	__u64 tcp_established_ns;	  /* timeouts by state */
	__u64 tcp_syn_ns;
	__u64 tcp_closing_ns;
	__u64 udp_ns;	       /* no reply yet */
	__u64 udp_stream_ns; /* replied */
	__u64 other_ns;
	__u32 ct_entries; /* max_entries of wag_ct and of wag_ct_ring */
	__u32 socket_lb;  /* enum wag_socket_lb */
	__u8 dry_run;	  /* trace and test: no side effects */
	__u8 has_set_retval; /* bpf_set_retval, Linux 5.18 */
	__u8 events;	  /* 0: no ring buffer writes at all; WAG_EVENTS_DRY: by a dry run too */
	__u8 has_coarse_clock; /* bpf_ktime_get_coarse_ns, Linux 5.11 */
	__u8 host_routing;     /* 1: packets are forwarded here; 0: by the node's stack */
	__u8 masquerade_v4, masquerade_v6; /* pods' packets to outside of the cluster */
	__u8 loopback_node_ports; /* served there to the node itself: WAG_LOOPBACK_* */
	__u32 tunnel_ifindex; /* the collect-metadata device; 0: no tunnels */
	__u32 tunnel_vni;
	__u32 flow_cache_mask; /* entries of wag_flow_cache for each CPU, less one; 0: none */
	__be16 tunnel_port; /* UDP, of what the device has packed */
	__u16 tunnel_sport_min, tunnel_sport_max; /* what its source ports are chosen from */
	__u8 policy; /* WAG_POLICY_CFG_* */
	__u8 pad2;
	__be32 tunnel_head; /* first word of its header (RFC 7348, 5; RFC 8926, 3.4) */
};
