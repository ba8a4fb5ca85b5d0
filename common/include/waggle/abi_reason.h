/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Verdicts, observation points and drop reasons. One row a reason: our name, the number Hubble's
 * flow.proto (DropReason) gives the same fact, and the words a person reads. Every reason has a
 * counter (wag_stats), and a packet test in selftests/bpf that produces it.
 */
#pragma once

/* Where a packet or a system call met us. */
enum wag_point {
	WAG_POINT_NONE,
	WAG_POINT_FROM_POD,
	WAG_POINT_TO_POD,
	WAG_POINT_FROM_NET,
	WAG_POINT_TO_NET,
	WAG_POINT_XDP,
	WAG_POINT_CONNECT,
	WAG_POINT_SENDMSG,
	WAG_POINT_RECVMSG,
	WAG_POINT_GETPEER,
	WAG_POINT_FROM_TUNNEL, /* ingress of the tunnel device: unpacked */
	WAG_POINT_TO_TUNNEL,   /* its egress: about to be packed */
	WAG_POINTS = 16,
};

/*
 * X(NAME, hubble_number, "text")
 * 0 is "not a drop": forwarded packets are counted under it.
 */
#define WAG_REASONS(X)                                                                         \
	X(FORWARDED, 0, "Forwarded")                                                           \
	X(INVALID_PACKET, 134, "Invalid packet")                                               \
	X(TRUNCATED_L4, 135, "CT: Truncated or invalid header")                                \
	X(IPV6_EXT_HEADER, 156, "Invalid IPv6 extension header")                               \
	X(FRAG_NOT_FOUND, 175, "First logical datagram fragment not found")                    \
	X(NO_BACKEND, 158, "Service backend not found")                                        \
	X(SLOT_MISMATCH, 5, "Service slot belongs to another Service")                         \
	X(NO_LOCAL_BACKEND, 6, "No backend of the Service on this node")                       \
	X(SOURCE_RANGE, 177, "Denied by LB src range check")                                   \
	X(CT_FULL, 155, "CT: Map insertion failed")                                            \
	X(CT_MIGRATING, 163, "CT: entry is being carried over")                                \
	X(SNAT_EXHAUSTED, 167, "No mapping for NAT masquerade")                                \
	X(WRITE_ERROR, 141, "Error writing to packet")                                         \
	X(CSUM_ERROR, 154, "Error while correcting L4 checksum")                               \
	X(FIB_FAILED, 169, "FIB lookup failed")                                                \
	X(SPOOFED_SOURCE, 132, "Invalid source ip")                                            \
	X(POLICY_PENDING, 165, "No configuration available to perform policy decision")        \
	X(POLICY_DENIED, 133, "Policy denied")                                                 \
	X(POLICY_DENY, 181, "Policy denied by denylist")                                       \
	X(IDENTITY_UNKNOWN, 171, "Invalid identity")                                           \
	X(UNKNOWN_TUNNEL_SOURCE, 172, "Unknown sender")                                        \
	X(NO_TUNNEL_ENDPOINT, 160, "No tunnel/encapsulation endpoint")                         \
	X(MASQUERADE_PROTO, 168, "Unsupported protocol for NAT masquerade")                    \
	X(BANDWIDTH, 162, "Reached EDT rate-limiting drop horizon")                            \
	X(FRAG_NEEDED, 157, "Packet too big for its path")                                     \
	X(TTL_EXCEEDED, 196, "TTL exceeded")                                                   \
	X(NODES_PENDING, 202, "Host datapath not ready")

enum wag_reason {
#define WAG_REASON_ENUM(name, hubble, text) WAG_DROP_##name,
	WAG_REASONS(WAG_REASON_ENUM)
#undef WAG_REASON_ENUM
	WAG_REASON_COUNT,
};

#define WAG_REASONS_MAX 64
#define WAG_STAT_INDEX(point, reason) ((point) * WAG_REASONS_MAX + (reason))
_Static_assert(WAG_REASON_COUNT <= WAG_REASONS_MAX, "wag_stats is too small");
