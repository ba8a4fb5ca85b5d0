/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The one record of the wag_events ring buffer. Drops, new flows, their first reply and socket
 * translations are always written; one per packet only while wag_runtime.trace is set.
 */
#pragma once

#include <linux/types.h>
#include <waggle/abi_addr.h>
#include <waggle/abi_reason.h>

enum wag_event_type {
	WAG_EVENT_DROP = 1,  /* reason says why */
	WAG_EVENT_TRACE = 2, /* a forwarded packet; ct says which of its flow's packets */
	WAG_EVENT_SOCK = 3,  /* a socket's peer was translated: orig -> xlat */
};

enum wag_event_ct {
	WAG_EVENT_CT_NONE = 0,
	WAG_EVENT_CT_NEW = 1,
	WAG_EVENT_CT_ESTABLISHED = 2,
	WAG_EVENT_CT_REPLY = 3,
	WAG_EVENT_CT_RELATED = 4,
};

/* wag_event.flags */
#define WAG_EVENT_F_XLAT 1U  /* xlat is valid: what the packet left as */
#define WAG_EVENT_F_REPLY 2U /* the packet travels from the flow's responder to its originator */
#define WAG_EVENT_F_IPV6 4U
#define WAG_EVENT_F_REFUSED 8U	  /* a drop that was answered with an ICMP error */
#define WAG_EVENT_F_FIRST_REPLY 16U
#define WAG_EVENT_F_AUDIT 32U /* policy would have dropped it */

/* Where a forwarded packet went next. */
enum wag_next {
	WAG_NEXT_STACK = 0,
	WAG_NEXT_POD = 1,
	WAG_NEXT_NET = 2,
	WAG_NEXT_HOST = 3,
	WAG_NEXT_TUNNEL = 4,
};

struct wag_event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u8 type;     /* enum wag_event_type */
	__u8 point;    /* enum wag_point */
	__u8 reason;   /* enum wag_reason */
	__u8 ct;       /* enum wag_event_ct */
	__u8 next;     /* enum wag_next */
	__u8 tcp_flags; /* byte 13 of the TCP header, 0 otherwise */
	__u8 icmp_type, icmp_code;
	__u32 flags; /* WAG_EVENT_F_* */
	__u32 len;   /* bytes of the frame */
	__u32 ifindex;
	__u32 svc_index; /* valid when svc_id is not 0 */
	__u32 svc_id;
	__u32 line; /* drops: source line of the stage that dropped */
	__u32 ep_id; /* sockets: the pod the socket belongs to; 0: the node */
	__u32 epoch;	  /* under which policy is what it is (wag_runtime.policy_epoch) */
	__u32 policy[2];  /* by direction, 0 ingress: what was judged (WAG_VERDICT); 0: nothing */
	struct wag_tuple orig; /* as it came */
	struct wag_tuple xlat; /* as it left, with WAG_EVENT_F_XLAT */
	__u64 cookie;	 /* WAG_EVENT_SOCK: socket cookie */
	__u64 cgroup_id; /* WAG_EVENT_SOCK */
};

_Static_assert(sizeof(struct wag_event) == 152, "wag_event");
