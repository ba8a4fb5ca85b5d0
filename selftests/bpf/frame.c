// SPDX-License-Identifier: Apache-2.0
#include <endian.h>
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <netinet/in.h>
#include <string.h>

#include "frame.h"

static const char *const v4_addrs[WHOS] = {
	[NOBODY] = "0.0.0.0",	  [POD_A] = "10.1.0.10",      [POD_B] = "10.1.0.11",
	[POD_C] = "10.1.0.12",	  [VIP] = "10.96.0.1",	      [VIP2] = "10.96.0.2",
	[NODE] = "172.16.0.1",	  [OUTSIDE] = "198.51.100.7", [REMOTE] = "10.1.9.9",
	[ROUTER] = "203.0.113.1", [UNROUTED] = "10.9.9.9",    [MULTICAST] = "224.0.0.251",
	[LOOPBACK] = "127.0.0.1", [ANYBODY] = "0.0.0.0",      [EGRESS] = "172.16.0.2",
	[LINK_LOCAL] = "169.254.169.254",
	[PEER] = "172.16.0.3",	  [PEER2] = "172.16.0.4",     [LINK] = "0.0.0.0",
};

static const char *const v6_addrs[WHOS] = {
	[NOBODY] = "::",	  [POD_A] = "fd00:1::a",
	[POD_B] = "fd00:1::b",	  [POD_C] = "fd00:1::c",
	[VIP] = "fd00:96::1",	  [VIP2] = "fd00:96::2",
	[NODE] = "fd00:172::1",	  [OUTSIDE] = "2001:db8::7",
	[REMOTE] = "fd00:1:9::9", [ROUTER] = "2001:db8:1::1",
	[UNROUTED] = "fd00:9::9", [MULTICAST] = "ff02::fb",
	[LOOPBACK] = "::1",	  [ANYBODY] = "::",
	[EGRESS] = "fd00:172::2", [LINK_LOCAL] = "fe80::99",
	[PEER] = "fd00:172::3",	  [PEER2] = "fd00:172::4",
	[LINK] = "fe80::a",
};

struct wag_addr addr_of(enum who who, bool v6)
{
	struct wag_addr addr = {};

	if (v6) {
		inet_pton(AF_INET6, v6_addrs[who], addr.b);
		return addr;
	}
	addr.w[2] = htobe32(WAG_V4MAPPED_W2);
	inet_pton(AF_INET, v4_addrs[who], &addr.w[3]);
	return addr;
}

void mac_of(enum who who, bool host_side, __u8 *ret_mac)
{
	const __u8 mac[6] = { 2, 0, 0, 0, host_side, who };

	memcpy(ret_mac, mac, sizeof(mac));
}

static __u32 sum_of(const void *data, size_t len, __u32 sum)
{
	const __u8 *p = data;

	for (size_t i = 0; i < len; i++) {
		sum += i % 2 ? p[i] : p[i] << 8;
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return sum;
}

/* In network byte order, as it stands in a header. */
__u16 csum_of(const void *data, size_t len, __u32 seed)
{
	__u32 sum = sum_of(data, len, seed);

	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htobe16(~sum & 0xffff);
}

__u32 crc32c_of(const void *data, size_t len)
{
	const __u8 *p = data;
	__u32 crc = ~0U;

	for (size_t i = 0; i < len; i++) {
		crc ^= p[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78U : 0);
	}
	return ~crc;
}

static __u32 pseudo_sum(const struct wag_addr *s, const struct wag_addr *d, bool v6, __u8 proto,
			__u32 len)
{
	__u32 sum = proto + len, skip = v6 ? 0 : 12;

	sum = sum_of(s->b + skip, 16 - skip, sum);
	return sum_of(d->b + skip, 16 - skip, sum);
}

static __u8 wire_proto(__u8 proto, bool v6)
{
	return proto == IPPROTO_ICMP && v6 ? IPPROTO_ICMPV6 : proto;
}

static void put(struct frame *f, const void *data, size_t len)
{
	memcpy(f->data + f->len, data, len);
	f->len += len;
}

static void put_payload(struct frame *f, __u32 len)
{
	for (__u32 i = 0; i < len; i++)
		f->data[f->len++] = i * 7 + 3;
}

static void put_ethernet(struct frame *f, const struct spec *s, bool v6)
{
	__be16 proto = htobe16(s->ether ? s->ether : v6 ? ETH_P_IPV6 : ETH_P_IP);
	__u8 macs[12], back[12];

	mac_of(NODE, false, macs);
	mac_of(OUTSIDE, false, macs + 6);
	if (s->into) {
		mac_of(s->into, false, macs);
		mac_of(s->into, true, macs + 6);
	}
	memcpy(back, macs + 6, 6);
	memcpy(back + 6, macs, 6);
	if (s->macs_zero)
		memset(macs, 0, sizeof(macs));
	put(f, s->macs_back ? back : macs, sizeof(macs));
	put(f, &proto, sizeof(proto));
}

static void put_ipv4(struct frame *f, const struct spec *s)
{
	struct wag_addr src = addr_of(s->src, false), dst = addr_of(s->dst, false);
	struct iphdr ip = { .version = 4, .ihl = 5 + s->options, .ttl = s->ttl ? s->ttl : 64 };

	ip.protocol = s->proto;
	ip.id = htobe16(s->id);
	ip.frag_off = htobe16(s->frag | (s->more ? 0x2000 : 0));
	ip.saddr = src.w[3];
	ip.daddr = dst.w[3];
	put(f, &ip, sizeof(ip));
	memset(f->data + f->len, 1, s->options * 4); /* "no operation" */
	f->len += s->options * 4;
}

static void put_ipv6(struct frame *f, const struct spec *s)
{
	bool frag = s->frag || s->more;
	__u8 proto = wire_proto(s->proto, true);
	struct wag_addr src = addr_of(s->src, true), dst = addr_of(s->dst, true);
	struct ipv6hdr ip = { .version = 6, .hop_limit = s->ttl ? s->ttl : 64 };

	ip.nexthdr = s->options ? IPPROTO_DSTOPTS : frag ? IPPROTO_FRAGMENT : proto;
	memcpy(&ip.saddr, &src, 16);
	memcpy(&ip.daddr, &dst, 16);
	put(f, &ip, sizeof(ip));
	for (int i = 0; i < s->options; i++) {
		__u8 ext[8] = { proto, 0, 1, 4 }; /* PadN */

		ext[0] = i + 1 < s->options ? IPPROTO_DSTOPTS : frag ? IPPROTO_FRAGMENT : proto;
		put(f, ext, sizeof(ext));
	}
	if (frag) {
		struct {
			__u8 next, reserved;
			__be16 off;
			__be32 id;
		} ext = { proto, 0, htobe16(s->frag << 3 | s->more), htobe32(s->id) };

		put(f, &ext, sizeof(ext));
	}
}

static void put_l4(struct frame *f, const struct spec *s)
{
	struct tcphdr tcp = { .source = htobe16(s->sport), .dest = htobe16(s->dport), .doff = 5 };
	struct udphdr udp = { .source = tcp.source, .dest = tcp.dest };
	__be32 sctp[3] = { (__u32)tcp.dest << 16 | tcp.source, htobe32(0x1234), 0 };
	struct icmphdr icmp = { .type = s->icmp_type, .code = s->icmp_code };

	if (s->frag) {
		put_payload(f, s->payload);
		return;
	}
	switch (s->proto) {
	case IPPROTO_TCP:
		tcp.seq = htobe32(s->seq);
		tcp.ack_seq = htobe32(s->ack);
		tcp.window = htobe16(s->window);
		((__u8 *)&tcp)[13] = s->flags;
		put(f, &tcp, sizeof(tcp));
		break;
	case IPPROTO_UDP:
		udp.len = htobe16(sizeof(udp) + s->payload);
		put(f, &udp, sizeof(udp));
		break;
	case IPPROTO_SCTP:
		put(f, sctp, sizeof(sctp));
		break;
	case IPPROTO_ICMP:
		icmp.un.gateway = htobe32(s->icmp_rest);
		if (!s->quote)
			icmp.un.echo.id = htobe16(s->sport ? s->sport : s->dport);
		put(f, &icmp, sizeof(icmp));
		put(f, s->quote, s->quote_len);
		break;
	}
	put_payload(f, s->payload);
}

/* Where the checksum of an L4 header is, or 0. */
static __u32 check_offset(__u8 proto)
{
	switch (proto) {
	case IPPROTO_TCP:
		return 16;
	case IPPROTO_UDP:
		return 6;
	case IPPROTO_SCTP:
		return 8;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return 2;
	}
	return 0;
}

static __u32 l4_seed(__u8 proto, const struct wag_addr *src, const struct wag_addr *dst, bool v6,
		     __u32 len)
{
	return proto == IPPROTO_ICMP ? 0 : pseudo_sum(src, dst, v6, proto, len);
}

static void fill_check(struct frame *f, const struct spec *s, bool v6)
{
	struct wag_addr src = addr_of(s->src, v6), dst = addr_of(s->dst, v6);
	__u8 proto = wire_proto(s->proto, v6), *l4 = f->data + f->l4;
	__u32 len = f->len - f->l4, crc;
	__u16 check;

	if (s->frag || s->no_check || !check_offset(proto))
		return;
	if (proto == IPPROTO_SCTP) {
		crc = htole32(crc32c_of(l4, len));
		memcpy(l4 + 8, &crc, sizeof(crc));
		return;
	}
	check = csum_of(l4, len, l4_seed(proto, &src, &dst, v6, len));
	if (proto == IPPROTO_UDP && !check)
		check = 0xffff;
	memcpy(l4 + check_offset(proto), &check, sizeof(check));
}

void frame_build(struct frame *f, const struct spec *s, bool v6)
{
	__u8 *l3 = f->data + FRAME_L3;
	__be16 field;

	memset(f, 0, sizeof(*f));
	put_ethernet(f, s, v6);
	if (v6)
		put_ipv6(f, s);
	else
		put_ipv4(f, s);
	f->l4 = f->len;
	put_l4(f, s);
	fill_check(f, s, v6);
	if (v6) {
		field = htobe16(f->len - FRAME_L3 - 40);
		memcpy(l3 + 4, &field, 2);
	} else {
		field = htobe16(f->len - FRAME_L3);
		memcpy(l3 + 2, &field, 2);
		field = csum_of(l3, f->l4 - FRAME_L3, 0);
		memcpy(l3 + 10, &field, 2);
	}
	if (s->first)
		l3[0] = s->first;
	if (s->cut && f->len > FRAME_L3 + s->cut)
		f->len = FRAME_L3 + s->cut;
}

const char *frame_wrong(const struct frame *f, bool v6)
{
	const __u8 *l3 = f->data + FRAME_L3, *l4 = f->data + f->l4;
	__u32 len = f->len - f->l4, crc, want;
	struct wag_addr src = {}, dst = {};
	__u8 proto = l3[v6 ? 6 : 9];
	__u8 zeroed[FRAME_MAX];

	if (v6) {
		memcpy(&src, l3 + 8, 16);
		memcpy(&dst, l3 + 24, 16);
		if (f->l4 != FRAME_L3 + 40)
			return NULL; /* the tests of extension headers compare bytes */
	} else {
		memcpy(&src.w[3], l3 + 12, 4);
		memcpy(&dst.w[3], l3 + 16, 4);
		if (csum_of(l3, (l3[0] & 15) * 4, 0))
			return "IP checksum";
		if ((l3[2] << 8 | l3[3]) != f->len - FRAME_L3)
			return "IP total length";
	}
	if (!check_offset(proto))
		return NULL;
	if (proto == IPPROTO_SCTP) {
		memcpy(zeroed, l4, len);
		memset(zeroed + 8, 0, 4);
		memcpy(&crc, l4 + 8, 4);
		want = htole32(crc32c_of(zeroed, len));
		return crc == want ? NULL : "SCTP CRC";
	}
	if (proto == IPPROTO_UDP && !l4[6] && !l4[7])
		return v6 ? "UDP checksum is 0" : NULL;
	return csum_of(l4, len, l4_seed(proto, &src, &dst, v6, len)) ? "L4 checksum" : NULL;
}
