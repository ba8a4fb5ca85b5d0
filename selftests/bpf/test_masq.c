// SPDX-License-Identifier: Apache-2.0
/* Masquerade beside the node's own sockets, its ICMP errors, and when every port is taken. */
#include <bpf/bpf.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cases.h"

static void sockaddr_of(struct sockaddr_storage *ret, enum who who, __u16 port, bool v6)
{
	struct sockaddr_in6 *sin6 = (void *)ret;
	struct sockaddr_in *sin = (void *)ret;
	struct wag_addr addr = addr_of(who, v6);

	memset(ret, 0, sizeof(*ret));
	if (v6) {
		sin6->sin6_family = AF_INET6;
		sin6->sin6_port = htobe16(port);
		memcpy(&sin6->sin6_addr, &addr, sizeof(addr));
	} else {
		sin->sin_family = AF_INET;
		sin->sin_port = htobe16(port);
		sin->sin_addr.s_addr = addr.w[3];
	}
}

/* A socket of the node, bound, and connecting to where nobody answers. */
static int node_socket(int type, enum who local, __u16 port, enum who remote, __u16 remote_port,
		       bool v6)
{
	int fd = socket(v6 ? AF_INET6 : AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_storage addr;
	socklen_t len = v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);

	sockaddr_of(&addr, local, port, v6);
	if (fd < 0 || bind(fd, (void *)&addr, len) < 0)
		goto fail;
	if (remote) {
		sockaddr_of(&addr, remote, remote_port, v6);
		if (connect(fd, (void *)&addr, len) < 0 && errno != EINPROGRESS)
			goto fail;
	}
	return fd;
fail:
	expect(false, "the node's socket: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

struct socket_case {
	const char *name;
	int type;
	enum who local, remote;
	bool collides;
};

static const struct socket_case sockets[] = {
	{ "a connection of the node to the same server", SOCK_STREAM, EGRESS, OUTSIDE, true },
	{ "a connection of the node to another server", SOCK_STREAM, EGRESS, REMOTE, false },
	{ "a connection of the node from another address", SOCK_STREAM, NODE, OUTSIDE, false },
	{ "a connected UDP socket of the node", SOCK_DGRAM, EGRESS, OUTSIDE, true },
	{ "a UDP socket of the node that anybody may write to", SOCK_DGRAM, ANYBODY, NOBODY, true },
};

static void beside_socket(struct world *w, const struct socket_case *c)
{
	__u8 proto = c->type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP;
	const struct step out = {
		FROM_POD,
		{ POD_A, OUTSIDE, 45000, 7, proto, F_SYN },
		ON,
		.src = EGRESS,
		.any_sport = c->collides,
		.news = WAG_EVENT_CT_NEW,
		.entries = 2,
	};
	const struct step back = {
		FROM_NET,
		{ OUTSIDE, EGRESS, 7, 45000, proto, F_SYN | F_ACK },
		.to_chosen_port = c->collides,
		.verdict = V_REDIRECT,
		.dst = POD_A,
		.dport = 45000,
		.into = POD_A,
		.hops = 1,
		.news = WAG_EVENT_CT_REPLY,
		.entries = 2,
	};
	int fd = node_socket(c->type, c->local, 45000, c->remote, 7, w->v6);

	if (fd < 0)
		return;
	world_device(w, EGRESS);
	run_step(w, &out);
	expect(!c->collides || w->port != 45000, "the node's own port was taken");
	run_step(w, &back);
	close(fd);
}

/* A router on the way complains about what the node seems to have sent. */
static void error_about(struct world *w, __u8 proto, bool renumbered)
{
	const struct spec first = { POD_B, OUTSIDE, 4000, 0, proto, F_SYN, .payload = 24,
				    .icmp_type = w->v6 ? 128 : 8 };
	struct spec sent = first, seen, error = { ROUTER, EGRESS, .proto = IPPROTO_ICMP };
	struct frame in, out, want, left, quoted;
	__u32 port_at = proto == IPPROTO_ICMP ? 4 : 0, port_len = proto == IPPROTO_ICMP ? 2 : 4;
	const char *wrong;
	int v;

	sent.src = POD_A;
	world_device(w, EGRESS);
	if (renumbered) {
		frame_build(&in, &first, w->v6);
		v = world_run(w, FROM_POD, &in, &out);
		expect(v == V_REDIRECT, "the other pod's flow: verdict %d", v);
	}
	frame_build(&in, &sent, w->v6);
	v = world_run(w, FROM_POD, &in, &left);
	expect(v == V_REDIRECT, "the flow: verdict %d", v);
	expect(!!memcmp(left.data + left.l4 + port_at, in.data + in.l4 + port_at, 2) == renumbered,
	       "the port");

	error.icmp_type = w->v6 ? 3 : 11;
	error.quote = left.data + FRAME_L3;
	error.quote_len = left.l4 - FRAME_L3 + 8;
	seen = error;
	frame_build(&in, &error, w->v6);
	v = world_run(w, FROM_NET, &in, &out);
	expect(v == V_REDIRECT, "the error: verdict %d", v);

	/* The pod must see its own packet quoted; a quoted L4 checksum nobody looks at. */
	quoted = left;
	sent.ttl = 63; /* a hop of its way is behind it */
	frame_build(&want, &sent, w->v6);
	memcpy(quoted.data + FRAME_L3, want.data + FRAME_L3, want.l4 - FRAME_L3);
	memcpy(quoted.data + quoted.l4 + port_at, want.data + want.l4 + port_at, port_len);
	seen.quote = quoted.data + FRAME_L3;
	seen.dst = POD_A;
	seen.into = POD_A;
	seen.ttl = 63;
	frame_build(&want, &seen, w->v6);
	expect(out.len == want.len, "%u bytes long, not %u", out.len, want.len);
	for (__u32 i = 0; i < want.len && !test_failed(); i++)
		expect(out.data[i] == want.data[i], "byte %u is %02x, not %02x", i, out.data[i],
		       want.data[i]);
	wrong = frame_wrong(&out, w->v6);
	expect(!wrong, "wrong %s", wrong);
}

static void errors(struct world *w)
{
	const struct {
		__u8 proto;
		const char *name;
	} protos[] = { { IPPROTO_TCP, "TCP" },	 { IPPROTO_UDP, "UDP" },
		       { IPPROTO_SCTP, "SCTP" }, { IPPROTO_ICMP, "an echo" },
		       { 47, "GRE" } };

	for (size_t i = 0; i < sizeof(protos) / sizeof(protos[0]) * 4; i++) {
		__u8 proto = protos[i / 4].proto;
		bool renumbered = i & 2;

		if (renumbered && proto == 47)
			continue;
		test_begin();
		world_reset(w, i & 1);
		error_about(w, proto, renumbered);
		test_end("masquerade: ICMP error about %s%s, %s", protos[i / 4].name,
			 renumbered ? " with another port" : "", i & 1 ? "IPv6" : "IPv4");
	}
}

/* A pod's own ICMP error, about a flow that nobody knows any more. */
static void pods_error(struct world *w, enum who to, int want)
{
	const struct spec quoted = { to, POD_A, 53, 4000, IPPROTO_UDP, .payload = 8 };
	struct spec s = { POD_A, to, .proto = IPPROTO_ICMP, .icmp_type = w->v6 ? 1 : 3,
			  .icmp_code = w->v6 ? 4 : 3 };
	struct frame q, in, out;
	struct stats stats;
	int v;

	world_device(w, EGRESS);
	frame_build(&q, &quoted, w->v6);
	s.quote = q.data + FRAME_L3;
	s.quote_len = q.len - FRAME_L3;
	frame_build(&in, &s, w->v6);
	v = world_run(w, FROM_POD, &in, &out);
	expect(v == want, "verdict %d, not %d", v, want);
	world_stats(w, WAG_POINT_FROM_POD, &stats);
	expect(stats.packets[WAG_DROP_MASQUERADE_PROTO] == (want == V_DROP), "counted %llu times",
	       stats.packets[WAG_DROP_MASQUERADE_PROTO]);
}

static void error_to_outside(struct world *w)
{
	pods_error(w, OUTSIDE, V_DROP);
}

static void error_to_node(struct world *w)
{
	pods_error(w, NODE, V_PASS);
}

/* Every port of the range towards one server is another flow's. */
static void no_port(struct world *w)
{
	struct wag_tuple t = {
		.saddr = addr_of(EGRESS, w->v6),
		.daddr = addr_of(OUTSIDE, w->v6),
		.dport = htobe16(80),
		.proto = IPPROTO_TCP,
	};
	struct wag_ct ct = { .seen_ns = now_ns(), .flags = WAG_CT_REWRITE_REPLY };
	struct spec s = { POD_A, OUTSIDE, 40000, 80, IPPROTO_TCP, F_SYN };
	struct frame in, out;
	struct stats stats;
	struct wag_ct_key key;

	world_device(w, EGRESS);
	for (unsigned port = 32768; port < 32768 + 28000; port++) {
		t.sport = htobe16(port);
		key = ct_key(&t, NULL);
		bpf_map_update_elem(w->ct, &key, &ct, BPF_ANY);
	}
	frame_build(&in, &s, w->v6);
	expect(world_run(w, FROM_POD, &in, &out) == V_DROP, "not dropped");
	s.dport = 81;
	frame_build(&in, &s, w->v6);
	expect(world_run(w, FROM_POD, &in, &out) == V_REDIRECT, "another server's ports are free");
	world_stats(w, WAG_POINT_FROM_POD, &stats);
	expect(stats.packets[WAG_DROP_SNAT_EXHAUSTED] == 1, "counted %llu times",
	       stats.packets[WAG_DROP_SNAT_EXHAUSTED]);
}

/* With nine ports of ten taken, a flow still finds one. */
static void few_ports(struct world *w)
{
	struct wag_tuple t = {
		.saddr = addr_of(EGRESS, w->v6),
		.daddr = addr_of(OUTSIDE, w->v6),
		.dport = htobe16(80),
		.proto = IPPROTO_TCP,
	};
	struct wag_ct ct = { .seen_ns = now_ns(), .flags = WAG_CT_REWRITE_REPLY };
	unsigned found = 0, seed = 4711;
	struct frame in, out;
	struct wag_ct_key key;

	world_device(w, EGRESS);
	for (unsigned port = 32768; port < 32768 + 28000; port++) {
		t.sport = htobe16(port);
		key = ct_key(&t, NULL);
		if (rand_r(&seed) % 10)
			bpf_map_update_elem(w->ct, &key, &ct, BPF_ANY);
	}
	for (unsigned port = 2000; port < 2500; port++) {
		t.sport = htobe16(port);
		key = ct_key(&t, NULL);
		bpf_map_update_elem(w->ct, &key, &ct, BPF_ANY);
	}
	/* The port of their own is taken; 0.9^47 of them, 3 or 4, find no other. */
	for (unsigned i = 0; i < 500; i++) {
		struct spec s = { POD_A, OUTSIDE, 2000 + i, 80, IPPROTO_TCP, F_SYN };

		frame_build(&in, &s, w->v6);
		found += world_run(w, FROM_POD, &in, &out) == V_REDIRECT;
	}
	expect(found >= 485, "%u of 500 found a port", found);
}

static void run(struct world *w, const char *name, void (*test)(struct world *w))
{
	for (int v6 = 0; v6 < 2; v6++) {
		test_begin();
		world_reset(w, v6);
		test(w);
		test_end("masquerade: %s, %s", name, v6 ? "IPv6" : "IPv4");
	}
}

void suite_masquerade(void)
{
	struct wag_config cfg;
	struct world w;

	world_defaults(&cfg);
	cfg.masquerade_v4 = cfg.masquerade_v6 = 1;
	cfg.ct_entries = 65536;
	test_begin();
	if (!expect(world_open(&w, &cfg) == 0, "programs do not load")) {
		test_end("masquerade");
		return;
	}
	cases_masq(&w);
	for (size_t i = 0; i < sizeof(sockets) / sizeof(sockets[0]) * 2; i++) {
		test_begin();
		world_reset(&w, i % 2);
		beside_socket(&w, &sockets[i / 2]);
		test_end("masquerade: %s, %s", sockets[i / 2].name, i % 2 ? "IPv6" : "IPv4");
	}
	errors(&w);
	run(&w, "a pod's ICMP error of no flow to outside", error_to_outside);
	run(&w, "a pod's ICMP error of no flow to the node", error_to_node);
	run(&w, "no port is left", no_port);
	run(&w, "few ports are left", few_ports);
	suite_random(&w);
	world_close(&w);
}
