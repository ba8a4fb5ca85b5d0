/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is used of linux/icmp.h, which cannot be included: it leads to sys/socket.h, where the bpf
 * target counts as 32-bit and wants a gnu/stubs-32.h that only machines with the 32-bit C library
 * have.
 */
#pragma once

#include <linux/types.h>

#define ICMP_ECHOREPLY 0
#define ICMP_DEST_UNREACH 3
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
#define ICMP_TIMESTAMP 13
#define ICMP_TIMESTAMPREPLY 14
#define ICMP_INFO_REQUEST 15
#define ICMP_INFO_REPLY 16
#define ICMP_ADDRESS 17
#define ICMP_ADDRESSREPLY 18

/* Codes of ICMP_DEST_UNREACH. */
#define ICMP_HOST_UNREACH 1
#define ICMP_PORT_UNREACH 3
#define ICMP_FRAG_NEEDED 4

struct icmphdr {
	__u8 type, code;
	__sum16 checksum;
	union {
		struct {
			__be16 id, sequence;
		} echo;
		__be32 rest;
	} un;
};
