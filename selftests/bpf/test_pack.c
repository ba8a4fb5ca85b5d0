// SPDX-License-Identifier: Apache-2.0
/*
 * Packed and unpacked without the tunnel's device: byte for byte what the device would make of it,
 * and what is left to the device goes there as it came.
 */
#include <bpf/bpf.h>
#include <endian.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <stdio.h>
#include <string.h>

#include "cases.h"

#define FITS 1450
#define OUTER 50
#define HEAD 0x08000000U
#define SPORT_MIN 40000
#define SPORT_MAX 50000
#define CE 3
#define SOON 3 /* packets that come while those put together are still on their way */

struct outer {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	__be32 head, vni;
} __attribute__((packed));

/* The peer, reached over IPv4, has the pods of both families. */
static void peer(struct world *w)
{
	struct wag_cidr cidr = { .tunnel = addr_of(PEER, false), .flags = WAG_CIDR_PODS,
				 .mtu = FITS };
	struct wag_node node = {};

	for (int v6 = 0; v6 < 2; v6++) {
		struct wag_addr remote = addr_of(REMOTE, v6);
		struct wag_cidr_key key = { .bits = v6 ? 48 : 96 + 24 };

		memcpy(key.addr, remote.w, sizeof(key.addr));
		bpf_map_update_elem(w->cidr, &key, &cidr, BPF_ANY);
	}
	bpf_map_update_elem(w->nodes, &cidr.tunnel, &node, BPF_ANY);
}

static void check_outer(const struct frame *out, __u32 inner_len, __u8 tos)
{
	__u32 src = addr_of(NODE, false).w[3], dst = addr_of(PEER, false).w[3];
	const struct outer *o = (const struct outer *)out->data;
	__u8 mac[6];

	mac_of(PEER, false, mac);
	expect(out->len == inner_len + OUTER, "%u bytes long, not %u", out->len,
	       inner_len + OUTER);
	expect(!memcmp(o->eth.h_dest, mac, 6), "outer MAC address");
	expect(o->eth.h_proto == htobe16(ETH_P_IP), "outer ethertype");
	expect(!csum_of(&o->ip, sizeof(o->ip), 0), "outer IP checksum");
	expect(*(const __u8 *)&o->ip == 0x45 && o->ip.tos == tos && o->ip.ttl == 64 &&
		       !o->ip.frag_off && o->ip.protocol == IPPROTO_UDP,
	       "outer IP header, tos %u", o->ip.tos);
	expect(be16toh(o->ip.tot_len) == out->len - ETH_HLEN, "outer IP length");
	expect(o->ip.saddr == src && o->ip.daddr == dst, "outer addresses");
	expect(be16toh(o->udp.dest) == TUNNEL_PORT && !o->udp.check, "UDP header");
	expect(be16toh(o->udp.source) >= SPORT_MIN && be16toh(o->udp.source) < SPORT_MAX,
	       "UDP source port %u", be16toh(o->udp.source));
	expect(be16toh(o->udp.len) == out->len - ETH_HLEN - 20, "UDP length");
	expect(o->head == htobe32(HEAD) && o->vni == htobe32(TUNNEL_VNI << 8), "VXLAN header");
}

static void same_bytes(const __u8 *got, const struct frame *want)
{
	for (__u32 i = 0; i < want->len; i++)
		if (!expect(got[i] == want->data[i], "byte %u is %02x, not %02x", i, got[i],
			    want->data[i]))
			return;
}

/* The same packet again and again: the first ways are long, the last ones are not. */
static void packs(struct world *w, __u8 tos)
{
	struct spec s = { POD_A, REMOTE, 4000, 8080, IPPROTO_UDP, .payload = 100 };
	struct frame in, out, want;
	__be16 sport = 0;

	peer(w);
	for (int i = 0; i < 64 && !test_failed(); i++) {
		const struct outer *o = (const struct outer *)out.data;

		s.ttl = 0;
		frame_build(&in, &s, w->v6);
		if (w->v6)
			in.data[FRAME_L3 + 1] = tos << 4;
		else
			in.data[FRAME_L3 + 1] = tos;
		s.ttl = 63;
		frame_build(&want, &s, w->v6);
		memcpy(want.data + FRAME_L3, in.data + FRAME_L3, 2);
		if (!w->v6 && tos) { /* the header's checksum has the mark */
			memset(want.data + FRAME_L3 + 10, 0, 2);
			*(__u16 *)(want.data + FRAME_L3 + 10) =
				csum_of(want.data + FRAME_L3, 20, 0);
			memset(in.data + FRAME_L3 + 10, 0, 2);
			*(__u16 *)(in.data + FRAME_L3 + 10) =
				csum_of(in.data + FRAME_L3, 20, 0);
		}
		expect(world_run(w, FROM_POD, &in, &out) == V_REDIRECT, "not sent on");
		check_outer(&out, in.len, tos);
		same_bytes(out.data + OUTER, &want);
		if (i)
			expect(o->udp.source == sport, "another source port");
		sport = o->udp.source;
	}
}

static void put_outer(struct frame *f, const struct frame *inner, enum who from)
{
	struct outer o = { .eth.h_proto = htobe16(ETH_P_IP),
			   .ip = { .version = 4, .ihl = 5, .ttl = 9, .protocol = IPPROTO_UDP },
			   .head = htobe32(HEAD),
			   .vni = htobe32(TUNNEL_VNI << 8) };

	o.ip.tot_len = htobe16(inner->len + OUTER - ETH_HLEN);
	o.ip.saddr = addr_of(from, false).w[3];
	o.ip.daddr = addr_of(NODE, false).w[3];
	o.ip.check = csum_of(&o.ip, sizeof(o.ip), 0);
	o.udp.source = htobe16(SPORT_MIN);
	o.udp.dest = htobe16(TUNNEL_PORT);
	o.udp.len = htobe16(inner->len + OUTER - ETH_HLEN - 20);
	*f = (struct frame){ .len = inner->len + OUTER };
	memcpy(f->data, &o, sizeof(o));
	memcpy(f->data + OUTER, inner->data, inner->len);
}

static int comes_packed(struct world *w, const struct spec *s, __u32 gso, struct frame *ret_out)
{
	struct __sk_buff ctx = { .ifindex = world_ifindex(FROM_NET), .gso_size = gso };
	struct frame inner, in;

	frame_build(&inner, s, w->v6);
	put_outer(&in, &inner, PEER);
	return world_run_ctx(w, FROM_NET, &in, ret_out, &ctx);
}

static __u64 counted(struct world *w, enum wag_point point)
{
	struct stats stats;

	world_stats(w, point, &stats);
	return stats.packets[WAG_DROP_FORWARDED];
}

static void unpacks(struct world *w)
{
	struct spec s = { REMOTE, POD_A, 4000, 53, IPPROTO_UDP, .payload = 100 };
	struct frame out, want;

	peer(w);
	for (int i = 0; i < 64 && !test_failed(); i++) {
		s.into = NOBODY;
		s.ttl = 0;
		expect(comes_packed(w, &s, 0, &out) == V_REDIRECT, "not handed on");
		s.into = POD_A;
		s.ttl = 63;
		frame_build(&want, &s, w->v6);
		expect(out.len == want.len, "%u bytes long, not %u", out.len, want.len);
		same_bytes(out.data, &want);
	}
	expect(counted(w, WAG_POINT_FROM_TUNNEL) == 64, "counted %llu times",
	       counted(w, WAG_POINT_FROM_TUNNEL));
	expect(world_ct_count(w) == 1, "%u conntrack entries", world_ct_count(w));
}

/* What the kernel has put together goes by the device, and what comes right behind it too. */
static void waits(struct world *w)
{
	struct spec s = { REMOTE, POD_A, 4000, 80, IPPROTO_TCP, F_ACK, .payload = 1400 };
	struct frame out;

	peer(w);
	expect(comes_packed(w, &s, 0, &out) == V_REDIRECT, "one alone waits");
	expect(comes_packed(w, &s, 700, &out) == V_PASS, "several in one do not wait");
	for (int i = 0; i < SOON; i++)
		expect(comes_packed(w, &s, 0, &out) == V_PASS, "one overtakes those before it");
	s.sport = 4001;
	expect(comes_packed(w, &s, 0, &out) == V_REDIRECT, "another flow waits");
}

static void chained(struct world *w)
{
	world_pod_flags(w, POD_A, WAG_POD_CHAINED);
}

/* A byte that is otherwise, at this offset. */
static const struct left {
	const char *name;
	struct spec inner;
	int at;
	__u8 byte;
	enum who from;
	void (*setup)(struct world *w);
} left[] = {
	{ "another network's number", U(REMOTE, 1, POD_A, 53), 14 + 20 + 8 + 6, 9, PEER, NULL },
	{ "another header", U(REMOTE, 1, POD_A, 53), 14 + 20 + 8, 0x0c, PEER, NULL },
	{ "an outer checksum", U(REMOTE, 1, POD_A, 53), 14 + 20 + 6, 1, PEER, NULL },
	{ "congestion on the way", U(REMOTE, 1, POD_A, 53), 14 + 1, CE, PEER, NULL },
	{ "another family inside", U(REMOTE, 1, POD_A, 53), OUTER + 12, 0x86, PEER, NULL },
	{ "no node's", U(REMOTE, 1, POD_A, 53), -1, 0, ROUTER, NULL },
	{ "the last hop", { REMOTE, POD_A, 1, 53, IPPROTO_UDP, .ttl = 1 }, -1, 0, PEER, NULL },
	{ "a fragment", { REMOTE, POD_A, 1, 53, IPPROTO_UDP, .id = 5, .more = true, .payload = 64 },
	  -1, 0, PEER, NULL },
	{ "an echo", { REMOTE, POD_A, 77, 0, IPPROTO_ICMP, .icmp_type = 8, .payload = 8 }, -1, 0,
	  PEER, NULL },
	{ "for the node", U(REMOTE, 1, NODE, 53), -1, 0, PEER, NULL },
	{ "for a pod of another plugin's", U(REMOTE, 1, POD_A, 53), -1, 0, PEER, chained },
	{ "cut", { REMOTE, POD_A, 1, 53, IPPROTO_UDP, .payload = 64, .cut = 24 }, -1, 0, PEER,
	  NULL },
};

static void leaves_alone(struct world *w, const struct left *l)
{
	struct frame inner, in, out;

	peer(w);
	if (l->setup)
		l->setup(w);
	frame_build(&inner, &l->inner, false);
	put_outer(&in, &inner, l->from);
	if (l->at >= 0)
		in.data[l->at] = l->byte;
	if (l->at == 14 + 1) {
		memset(in.data + 14 + 10, 0, 2);
		*(__u16 *)(in.data + 14 + 10) = csum_of(in.data + 14, 20, 0);
	}
	expect(world_run(w, FROM_NET, &in, &out) == V_PASS, "not left to the device");
	expect(out.len == in.len, "%u bytes long, not %u", out.len, in.len);
	same_bytes(out.data, &in);
	expect(!world_ct_count(w), "%u conntrack entries", world_ct_count(w));
	expect(counted(w, WAG_POINT_FROM_TUNNEL) == 0, "counted as unpacked");
}

/* Segments that the hardware cuts, and what is longer than the way, are no business of ours. */
static void left_out(struct world *w)
{
	struct spec s = { POD_A, REMOTE, 4000, 8080, IPPROTO_TCP, F_ACK, .payload = 1400 };
	struct __sk_buff ctx = { .ifindex = world_ifindex(FROM_POD), .gso_size = 700 };
	struct bpf_tunnel_key key;
	struct frame in, out;

	peer(w);
	frame_build(&in, &s, w->v6);
	for (int i = 0; i < 64 && !test_failed(); i++) {
		expect(world_run_ctx(w, FROM_POD, &in, &out, &ctx) == V_REDIRECT, "not sent on");
		expect(out.len == in.len, "packed here");
		world_tunnel_key(w, FROM_POD, &key);
		expect(key.remote_ipv4 == be32toh(addr_of(PEER, false).w[3]), "no tunnel key");
	}
}

static void family_tests(struct world *w, bool v6)
{
	const struct {
		const char *name;
		__u8 tos;
	} marks[] = { { "a packet", 0 }, { "a packet with a congestion mark", 2 } };

	for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
		test_begin();
		world_reset(w, v6);
		packs(w, marks[i].tos);
		test_end("pack: %s, %s", marks[i].name, v6 ? "IPv6" : "IPv4");
	}
	test_begin();
	world_reset(w, v6);
	left_out(w);
	test_end("pack: what the hardware cuts goes by the device, %s", v6 ? "IPv6" : "IPv4");
}

void suite_pack(void)
{
	struct wag_config cfg;
	struct world w;
	int r;

	world_defaults(&cfg);
	cfg.tunnel_ifindex = world_ifindex(TO_TUNNEL);
	cfg.tunnel_vni = TUNNEL_VNI;
	cfg.tunnel_port = htobe16(TUNNEL_PORT);
	cfg.tunnel_head = htobe32(HEAD);
	cfg.tunnel_sport_min = SPORT_MIN;
	cfg.tunnel_sport_max = SPORT_MAX;
	r = world_open(&w, &cfg);
	if (r < 0) {
		printf("FAIL bpf: pack: programs load: %s\n", strerror(-r));
		return;
	}
	family_tests(&w, false);
	family_tests(&w, true);
	test_begin();
	world_reset(&w, false);
	unpacks(&w);
	test_end("unpack: a packet for a pod");
	test_begin();
	world_reset(&w, false);
	waits(&w);
	test_end("unpack: nothing overtakes its flow");
	for (size_t i = 0; i < sizeof(left) / sizeof(left[0]); i++) {
		test_begin();
		world_reset(&w, false);
		leaves_alone(&w, &left[i]);
		test_end("unpack: left to the device: %s", left[i].name);
	}
	random_hook(&w, FROM_NET, "packed or not", peer);
	world_close(&w);
}
