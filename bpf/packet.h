/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the stages pass on: values and offsets, never packet pointers, so that a stage may change
 * the packet without another one holding a stale view of it.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <waggle/abi_event.h>
#include <waggle/abi_maps.h>
#include <waggle/abi_reason.h>

#define NSEC_PER_SEC 1000000000ULL

/* A stage returns NEXT, or the verdict that ends the journey. */
#define NEXT 0x100
/* Not ours, or done: let the stack, and other people's programs behind us, go on. */
#define PASS TC_ACT_UNSPEC
#define DROP TC_ACT_SHOT

enum pkt_flags {
	PKT_V6 = 1 << 0,
	PKT_FRAG_FIRST = 1 << 1, /* a fragment that has the L4 header */
	PKT_FRAG_LATER = 1 << 2, /* a fragment that has not */
	PKT_RELATED = 1 << 3,	 /* an ICMP error; tuple is that of the flow it belongs to */
	PKT_REPLY = 1 << 4,
	PKT_NEW = 1 << 5,
	PKT_TRACKED = 1 << 6,
	PKT_NAT = 1 << 7, /* xlat differs from tuple and is to be written */
	PKT_FIRST_REPLY = 1 << 8,
	PKT_REFUSED = 1 << 9,
	PKT_ALIAS = 1 << 10, /* a direct flow whose tuple a translated flow owns */
	PKT_SYN = 1 << 11,   /* TCP, SYN without ACK */
	PKT_NODE_PORT = 1 << 12,
	PKT_PLAIN = 1 << 13, /* TCP or UDP right behind a bare IP header: L4 at a constant offset */
	PKT_DSR = 1 << 14,   /* goes as it is to the node of xlat.daddr, which translates it */
	PKT_TO_POD = 1 << 15, /* and wag_scratch.to is the destination */
	PKT_HELD = 1 << 16,  /* a fragment that waits, or is put back: it is counted another time */
	PKT_PACK = 1 << 17,  /* to be packed here, for the node of wag_scratch.hop */
	PKT_UNANSWERED = 1 << 18, /* with PKT_TRACKED: began before there was a Service, perhaps */
	PKT_AUDIT = 1 << 19, /* policy would drop it, and only tells */
	PKT_JUDGED = 1 << 20, /* a new flow whose two ends were looked up */
};

struct wag_pkt {
	struct wag_tuple tuple; /* as it came */
	__u64 now; /* asked for where it is needed: pkt_clock() */
	__u32 flags;
	__u32 l4_off; /* from the start of the frame; L3 starts at ETH_HLEN */
	__u32 svc_index, svc_id;
	__u32 line;
	__be32 frag_id; /* of a fragment */
	__u8 point;
	__u8 reason;
	__u8 next;
	__u8 tcp_flags;
	__u8 icmp_type, icmp_code;
	__u16 mtu; /* what the answer to a packet too big says */
	struct wag_tuple xlat; /* as it leaves, with PKT_NAT; with PKT_DSR where to; else nothing */
};

/* Who asks for a Service. */
struct svc_client {
	struct wag_addr addr; /* zero: not known, and then nothing may depend on it */
	__u64 now;
	__u32 hash; /* of its flow: which entry of a lookup table it has */
	__u8 outside; /* neither the node nor a pod of it */
	__u8 direct; /* to be answered past us: it keeps its address */
	__u8 local;  /* with direct: the node that it reached has chosen this one */
	__u8 pad;
};

/* A backend, and the Service it was chosen for; svc_id 0: a hostPort's pod. */
struct svc_choice {
	struct wag_addr addr;
	__be16 port;
	__u16 pad;
	__u32 svc_index;
	__u32 svc_id;
	__u32 flags; /* of the frontend */
	__u32 masquerade; /* not 0: the client is known to it by an address of the node */
};

/* The two ends of a flow as policies see them: the real client and the real backend. */
struct policy_ask {
	struct wag_addr client, server;
	__u32 ep[2]; /* by direction, 0 ingress: the pod of this node that is judged; 0: none */
	__be16 port;
	__u16 proto;
	__u32 len; /* of the packet */
	struct wag_ipcache_key who;
	struct wag_port_key at;
	struct wag_rule_key rule;
	__u32 unknown; /* nobody is known to have the peer's address, and somebody should */
};

/* How a flow's packets leave, as far as the next ones need not ask again. */
enum hop_kind {
	HOP_NONE,   /* ask again */
	HOP_PEER,   /* into the pod behind ifindex, past its host side */
	HOP_DEVICE, /* out of ifindex with these MACs */
	HOP_TUNNEL, /* packed for that node; out of ifindex with these MACs, or (0) by the device */
};

/* How an Ethernet header begins. */
struct eth_macs {
	__u8 dst[ETH_ALEN], src[ETH_ALEN];
} __attribute__((aligned(4)));

struct route_hop {
	__u32 kind; /* enum hop_kind */
	__u32 ifindex;
	struct eth_macs macs;
	__u32 pad;
	struct wag_addr tunnel;
};

/* Does asking the flow cache pay? */
struct cache_luck {
	__u32 credit;
	__u32 skipped;
};

/*
 * One packet's working memory, per CPU: the stack (512 bytes along a whole call chain) does not
 * hold it. TC programs are not interrupted by one another on a CPU.
 */
struct wag_scratch {
	/* First what every packet asks for: few lines of the processor's cache. */
	__u32 epoch; /* of the policies that this packet is judged by */
	__u32 trace; /* somebody asks for an event of each packet */
	__u32 judged[2]; /* by direction: what policies said; 0: they were not asked */
	int verdict; /* that stage_route found, for when the packet is translated */
	__u32 cache_ask; /* flow_cache.h */
	struct cache_luck luck; /* the one thing that outlives a packet */
	struct wag_pkt pkt;
	struct wag_ct_key key, pair;
	struct wag_ct ct, frontend;
	struct svc_client client;
	struct svc_choice choice;
	struct wag_tuple outer, outer_new, inner, inner_new; /* ICMP errors */
	__u8 quoted[128];				     /* refusals */
	struct wag_pod to;    /* of a new flow, with PKT_TO_POD */
	struct policy_ask ask;
	__u32 sender_ifindex; /* of a new flow: of the pod that sends it, 0: no pod */
	__u32 len;	      /* of the packet for the next link's MTU */
	__u32 frag_back; /* where the packet came in; while others are put back: they */
	struct route_hop hop;
	__u32 hop_max_len; /* longer packets of the flow ask again */
	struct bpf_fib_lookup fib;
	struct bpf_sock_tuple sock;
	struct bpf_redir_neigh neigh;
	struct bpf_tunnel_key tunnel;
	struct wag_cidr_key cidr;
};

/* Ends the journey with a counted, explained drop. */
#define wag_drop(pkt, why) drop_at((pkt), (why), __LINE__)

static __always_inline int drop_at(struct wag_pkt *pkt, enum wag_reason why, __u32 line)
{
	pkt->reason = why;
	pkt->line = line;
	return DROP;
}

/* Conntrack needs no better than a tick: the coarse clock costs a fifth of the exact one. */
static __always_inline void pkt_clock(struct wag_pkt *pkt)
{
	if (!pkt->now)
		pkt->now = cfg.has_coarse_clock ? bpf_ktime_get_coarse_ns() : bpf_ktime_get_ns();
}

static __always_inline bool addr_equal(const struct wag_addr *a, const struct wag_addr *b)
{
	return a->d[0] == b->d[0] && a->d[1] == b->d[1];
}

static __always_inline bool addr_is_zero(const struct wag_addr *a)
{
	return !(a->d[0] | a->d[1]);
}

static __always_inline bool addr_is_v4(const struct wag_addr *a)
{
	return a->d[0] == 0 && a->w[2] == bpf_htonl(WAG_V4MAPPED_W2);
}

/*
 * Two words that stand one after the other, to be stored at once: a load of both must not wait
 * until each of two stores has reached the cache.
 */
static __always_inline __u64 two_words(__u32 first, __u32 second)
{
	return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? (__u64)second << 32 | first :
							   (__u64)first << 32 | second;
}

static __always_inline void addr_from_v4(struct wag_addr *addr, __be32 v4)
{
	addr->d[0] = 0;
	addr->d[1] = two_words(bpf_htonl(WAG_V4MAPPED_W2), v4);
}

static __always_inline void addr_from_v6(struct wag_addr *addr, const struct in6_addr *v6)
{
	const __u32 *w = v6->in6_u.u6_addr32;

	addr->d[0] = two_words(w[0], w[1]);
	addr->d[1] = two_words(w[2], w[3]);
}

/* 127.0.0.0/8 and ::1. */
static __always_inline bool addr_is_loopback(const struct wag_addr *a)
{
	if (addr_is_v4(a))
		return a->b[12] == 127;
	return a->d[0] == 0 && a->w[2] == 0 && a->w[3] == bpf_htonl(1);
}

/* ::, 0.0.0.0 and fe80::/10: nobody forwards a packet from there. */
static __always_inline bool addr_is_link_scoped(const struct wag_addr *a)
{
	if (a->b[0] == 0xfe && (a->b[1] & 0xc0) == 0x80)
		return true;
	return addr_is_zero(a) || (addr_is_v4(a) && !a->w[3]);
}

/* Our part of the mark; other people's bits stay. */
static __always_inline void skb_set_mark(struct __sk_buff *skb, __u32 value)
{
	__u32 mark = (skb->mark & ~WAG_MARK_MASK) | value;

	/* Else the compiler stores one byte only: "invalid bpf_context access off=11 size=1". */
	asm volatile("" : "+r"(mark));
	skb->mark = mark;
}

static __always_inline void tuple_reverse(struct wag_tuple *t)
{
	struct wag_addr addr = t->saddr;
	__be16 port = t->sport;

	t->saddr = t->daddr;
	t->daddr = addr;
	t->sport = t->dport;
	t->dport = port;
}

/* The family's own ICMP; the other one is a protocol like any. */
static __always_inline bool pkt_is_icmp(const struct wag_pkt *pkt)
{
	return pkt->tuple.proto == (pkt->flags & PKT_V6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
}

static __always_inline bool tuple_has_ports(const struct wag_tuple *t)
{
	return t->proto == IPPROTO_TCP || t->proto == IPPROTO_UDP || t->proto == IPPROTO_SCTP;
}

/* Where the packet goes, and from whom, once it is translated (here or, with PKT_DSR, there). */
static __always_inline const struct wag_addr *pkt_dst(const struct wag_pkt *pkt)
{
	return pkt->flags & (PKT_NAT | PKT_DSR) ? &pkt->xlat.daddr : &pkt->tuple.daddr;
}

static __always_inline const struct wag_addr *pkt_src(const struct wag_pkt *pkt)
{
	return pkt->flags & PKT_NAT ? &pkt->xlat.saddr : &pkt->tuple.saddr;
}

/* Whether packets at this point come straight from their sender, untouched by us. */
static __always_inline bool point_is_source(const struct wag_pkt *pkt)
{
	return pkt->point == WAG_POINT_FROM_POD || pkt->point == WAG_POINT_TO_NET ||
	       pkt->point == WAG_POINT_TO_TUNNEL;
}

static __always_inline bool point_from_net(const struct wag_pkt *pkt)
{
	return pkt->point == WAG_POINT_FROM_NET || pkt->point == WAG_POINT_FROM_TUNNEL;
}

static __always_inline bool point_to_net(const struct wag_pkt *pkt)
{
	return pkt->point == WAG_POINT_TO_NET || pkt->point == WAG_POINT_TO_TUNNEL;
}

static __always_inline bool point_is_net(const struct wag_pkt *pkt)
{
	return point_from_net(pkt) || point_to_net(pkt);
}
