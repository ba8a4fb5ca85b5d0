/* SPDX-License-Identifier: Apache-2.0 */
/* Ethernet frames from a few words, with every checksum computed from scratch, for both families.
 */
#pragma once

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <waggle/abi_addr.h>

#define FRAME_MAX 3072
#define FRAME_L3 14

/* Everybody a packet may come from or go to. */
enum who {
	NOBODY,
	POD_A,
	POD_B,
	POD_C,
	VIP,
	VIP2,
	NODE,
	OUTSIDE,
	REMOTE,
	ROUTER,
	UNROUTED,
	MULTICAST,
	LOOPBACK,
	ANYBODY, /* the unspecified address: of NodePort frontends */
	EGRESS,	 /* the node's, on the device that leads outside */
	LINK_LOCAL,
	PEER,	 /* another node */
	PEER2,	 /* and the one that packed what comes in by the tunnel */
	LINK,	 /* IPv6: a link-local address; IPv4: 0.0.0.0 */
	WHOS,
};

#define F_FIN 0x01
#define F_SYN 0x02
#define F_RST 0x04
#define F_ACK 0x10

struct spec {
	enum who src, dst;
	__u16 sport, dport; /* host order; ICMP echo: sport is the identifier */
	__u8 proto;	    /* IPPROTO_*; IPPROTO_ICMP also stands for ICMPv6 */
	__u8 flags;	    /* TCP */
	__u8 ttl;	    /* 0: 64 */
	__u16 id;
	__u32 seq, ack;
	__u16 window;
	__u8 icmp_type, icmp_code;
	__u32 icmp_rest; /* of an error: its second word */
	__u16 payload; /* bytes behind the L4 header */
	__u8 options;  /* IPv4: words of IP options; IPv6: destination option headers */
	__u16 frag;    /* fragment offset, in units of 8 bytes */
	bool more;     /* more fragments */
	bool no_check; /* UDP without a checksum, SCTP with the CRC left to the device */
	__u16 cut;     /* keep so many bytes from L3 on */
	__u16 ether;   /* another ethertype */
	__u8 first;    /* another first byte of L3: version and header length */
	enum who into; /* destination and source MAC: of this pod */
	bool macs_zero, macs_back;
	const __u8 *quote; /* ICMP errors: what is quoted */
	__u16 quote_len;
};

struct frame {
	__u8 data[FRAME_MAX];
	__u32 len;
	__u32 l4; /* offset of the L4 header */
};

struct wag_addr addr_of(enum who who, bool v6);
void mac_of(enum who who, bool host_side, __u8 *ret_mac);
void frame_build(struct frame *f, const struct spec *s, bool v6);

/* What is wrong with a frame's lengths and checksums, all computed anew; NULL: nothing. */
const char *frame_wrong(const struct frame *f, bool v6);

__u16 csum_of(const void *data, size_t len, __u32 seed);
__u32 crc32c_of(const void *data, size_t len);
