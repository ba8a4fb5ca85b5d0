/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tunnels between nodes: VXLAN (RFC 7348) and Geneve (RFC 8926) have headers of the same size. The
 * one collect-metadata device can pack and unpack everything; stage_pack.h does what is plain.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <stddef.h>
#include "packet.h"

struct tunnel_header {
	__be32 head; /* wag_config.tunnel_head */
	__be32 vni;  /* in the upper three bytes */
};

/* What stands before the inner packet's IP header. */
struct packed {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	struct tunnel_header tunnel;
	struct ethhdr inner;
} __attribute__((packed));

#define PACK_ROOM (sizeof(struct packed) - ETH_HLEN)

/* How bpf_tunnel_key looked in Linux 5.10, which takes no other length. */
#define TUNNEL_KEY_SIZE offsetof(struct bpf_tunnel_key, local_ipv4)

/* To be packed by the device for that node. Returns 0 or a negative error. */
static __always_inline int tunnel_set_key(struct __sk_buff *skb, struct wag_scratch *scratch,
					  const struct wag_addr *node)
{
	struct bpf_tunnel_key *key = &scratch->tunnel;

	__builtin_memset(key, 0, sizeof(*key));
	key->tunnel_id = cfg.tunnel_vni;
	if (addr_is_v4(node)) {
		key->remote_ipv4 = bpf_ntohl(node->w[3]);
		/* IPv4 needs no checksum around one that the packet has (RFC 7348, 5). */
		return bpf_skb_set_tunnel_key(skb, key, TUNNEL_KEY_SIZE, BPF_F_ZERO_CSUM_TX);
	}
	__builtin_memcpy(key->remote_ipv6, node, sizeof(key->remote_ipv6));
	return bpf_skb_set_tunnel_key(skb, key, TUNNEL_KEY_SIZE, BPF_F_TUNINFO_IPV6);
}

/* By the device to the node of scratch->hop; a verdict. */
static __always_inline int tunnel_by_device(struct __sk_buff *skb, struct wag_scratch *scratch)
{
	if (tunnel_set_key(skb, scratch, &scratch->hop.tunnel))
		return wag_drop(&scratch->pkt, WAG_DROP_NO_TUNNEL_ENDPOINT);
	return bpf_redirect(cfg.tunnel_ifindex, 0);
}
