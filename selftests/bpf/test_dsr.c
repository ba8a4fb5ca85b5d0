// SPDX-License-Identifier: Apache-2.0
/*
 * DSR (docs/services.md): the first node packs a client's packet as it is, the endpoint's node
 * translates it and answers. A world with a tunnel, which is one of the two or the other.
 */
#include <bpf/bpf.h>
#include <endian.h>
#include <stdio.h>
#include <string.h>

#include "cases.h"

#define FITS 1450
#define SERVICE 1
#define SVC_ID 1001
#define FIRST_SLOT 16
#define PEER_PODS(V6) ((V6) ? 48 : 96 + 24)
#define ALL_BITS 128
#define PACKED .verdict = V_REDIRECT, .hops = 1, .packed = PEER
#define SLOTS_FLAGS (WAG_SLOTS_HEAD | WAG_SLOTS_DSR)
#define UPT(S, SP, D, DP, TTL)                                           \
	{                                                                \
		S, D, SP, DP, IPPROTO_UDP, .ttl = TTL, .payload = 9      \
	}

/* NodePort 30080 and VIP:80 -> local:8080, if any, and remote:8080, if any. */
static void service(struct world *w, __u8 proto, enum who local, enum who remote)
{
	const struct backend both[] = { { local, 8080 }, { remote, 8080 } };
	const __u16 sets[] = { WAG_BACKEND_LOCAL | WAG_BACKEND_CLUSTER, WAG_BACKEND_CLUSTER };
	struct wag_svc_state state = { .svc_id = SVC_ID };
	struct wag_slot_head head = { .cluster_first = 1, .svc_id = SVC_ID };
	__u32 index = SERVICE, at = FIRST_SLOT;

	world_service(w, SERVICE, ANYBODY, 30080, proto, WAG_SVC_NODE_PORT);
	world_service(w, SERVICE, VIP, 80, proto, WAG_SVC_LOAD_BALANCER);
	for (int i = 0; i < 2; i++) {
		struct wag_slot slot = { .addr = addr_of(both[i].who, w->v6),
					 .port = htobe16(both[i].port),
					 .flags = sets[i],
					 .svc_id = SVC_ID };
		struct wag_backend_key key = { .addr = slot.addr, .svc_id = SVC_ID,
					       .port = slot.port, .proto = proto };
		struct wag_backend value = { .flags = sets[i] };

		if (!both[i].who)
			continue;
		at++;
		bpf_map_update_elem(w->slot, &at, &slot, BPF_ANY);
		bpf_map_update_elem(w->backend, &key, &value, BPF_ANY);
		head.local_count += i == 0;
		head.cluster_count++;
	}
	state.slots = WAG_SLOTS(FIRST_SLOT, at - FIRST_SLOT ? at - FIRST_SLOT + 1 : 0,
				SLOTS_FLAGS | (at > FIRST_SLOT ? WAG_SLOTS_ANY : 0));
	at = FIRST_SLOT;
	bpf_map_update_elem(w->slot, &at, &head, BPF_ANY);
	bpf_map_update_elem(w->svc_state, &index, &state, BPF_ANY);
}

/* PEER has REMOTE and what is around it; the way there. */
static void peer(struct world *w, __u32 flags, enum who tunnel)
{
	__u32 mtu = tunnel ? FITS : 0;

	world_cidr_mtu(w, REMOTE, PEER_PODS(w->v6), WAG_CIDR_PODS | flags, tunnel, mtu);
	world_cidr_mtu(w, PEER, ALL_BITS, WAG_CIDR_NODE | flags, tunnel, mtu);
	world_node(w, PEER);
	world_node(w, PEER2);
}

static void far_tcp(struct world *w)
{
	peer(w, 0, PEER);
	service(w, IPPROTO_TCP, NOBODY, REMOTE);
}

static void far_udp(struct world *w)
{
	peer(w, 0, PEER);
	service(w, IPPROTO_UDP, NOBODY, REMOTE);
}

static void far_host(struct world *w)
{
	peer(w, 0, PEER);
	service(w, IPPROTO_TCP, NOBODY, PEER);
}

static void near_tcp(struct world *w)
{
	peer(w, 0, PEER);
	service(w, IPPROTO_TCP, POD_B, NOBODY);
}

static void near_udp(struct world *w)
{
	peer(w, 0, PEER);
	service(w, IPPROTO_UDP, POD_B, NOBODY);
}

static void near_host(struct world *w)
{
	peer(w, 0, PEER);
	service(w, IPPROTO_TCP, NODE, NOBODY);
}

static void both_tcp(struct world *w)
{
	peer(w, 0, PEER);
	service(w, IPPROTO_TCP, POD_B, REMOTE);
}

static void none_tcp(struct world *w)
{
	peer(w, 0, PEER);
	service(w, IPPROTO_TCP, NOBODY, NOBODY);
}

static void direct(struct world *w)
{
	peer(w, WAG_CIDR_DIRECT, PEER);
	service(w, IPPROTO_TCP, NOBODY, REMOTE);
}

static void untunnelled(struct world *w)
{
	peer(w, 0, NOBODY);
	service(w, IPPROTO_TCP, NOBODY, REMOTE);
}

static void peer_gone(struct world *w)
{
	const struct wag_addr addr = addr_of(REMOTE, w->v6);
	struct wag_cidr_key key = { .bits = PEER_PODS(w->v6) };

	memcpy(key.addr, addr.w, sizeof(key.addr));
	bpf_map_delete_elem(w->cidr, &key);
}

static void remote_gone(struct world *w)
{
	world_backend_gone(w, SERVICE, IPPROTO_UDP, REMOTE, 8080);
	service(w, IPPROTO_UDP, POD_B, NOBODY);
}

static void remote_gone_tcp(struct world *w)
{
	world_backend_gone(w, SERVICE, IPPROTO_TCP, REMOTE, 8080);
	service(w, IPPROTO_TCP, POD_B, NOBODY);
}

static void now_near(struct world *w)
{
	service(w, IPPROTO_TCP, POD_B, REMOTE);
}

/* Longer than a closed flow lives, or an unanswered one; not as long as one that is neither. */
static void a_while(struct world *w)
{
	world_age(w, w->cfg.tcp_closing_ns + SEC_NS);
}

static void a_long_while(struct world *w)
{
	world_age(w, w->cfg.udp_ns + SEC_NS);
}

static const struct one_case cases[] = {
	{ "first node: packed as it is, with one entry, again and again",
	  0,
	  far_tcp,
	  { { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), PACKED, NEW, .entries = 1 },
	    { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_ACK), PACKED, .entries = 1 },
	    { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_ACK), PACKED, .entries = 1 },
	    { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_FIN | F_ACK), PACKED, .entries = 1 },
	    { FROM_NET, T(OUTSIDE, 4001, VIP, 80, F_SYN), PACKED, NEW, .entries = 2 } } },
	{ "first node: a client that has ended may still be answered for a while",
	  0,
	  far_tcp,
	  { { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), PACKED, NEW, .entries = 1 },
	    { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_FIN | F_ACK), PACKED, .entries = 1 },
	    { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_ACK), PACKED, .entries = 1,
	      .before = a_while },
	    { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), PACKED, NEW, .entries = 1 } } },
	{ "first node: datagrams stay with their node while they come",
	  0,
	  far_udp,
	  { { FROM_NET, U(OUTSIDE, 4000, NODE, 30080), PACKED, NEW, .entries = 1 },
	    { FROM_NET, U(OUTSIDE, 4000, NODE, 30080), PACKED, .entries = 1,
	      .before = a_long_while },
	    { FROM_NET, U(OUTSIDE, 4000, NODE, 30080), PACKED, .entries = 1 } } },
	{ "first node: datagrams leave a backend that is gone",
	  0,
	  far_udp,
	  { { FROM_NET, U(OUTSIDE, 4000, NODE, 30080), PACKED, NEW, .entries = 1 },
	    { FROM_NET, U(OUTSIDE, 4000, NODE, 30080), PACKED, .entries = 1 },
	    { FROM_NET, U(OUTSIDE, 4000, NODE, 30080), TO(POD_B), .dst = POD_B, .dport = 8080, NEW,
	      .entries = 2, .before = remote_gone } } },
	{ "first node: a connection stays, a new one on its port leaves a backend that is gone",
	  0,
	  far_tcp,
	  { { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), PACKED, NEW, .entries = 1 },
	    { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_ACK), PACKED, .entries = 1,
	      .before = remote_gone_tcp },
	    { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), TO(POD_B), .dst = POD_B,
	      .dport = 8080, NEW, .entries = 2 } } },
	{ "first node: a backend in another node's own namespace",
	  0,
	  far_host,
	  { { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), PACKED, NEW, .entries = 1 } } },
	{ "first node: a backend of its own is no other than under a Local policy",
	  0,
	  near_tcp,
	  { { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), TO(POD_B), .dst = POD_B,
	      .dport = 8080, NEW, .entries = 2 },
	    { FROM_POD, T(POD_B, 8080, OUTSIDE, 4000, F_SYN | F_ACK), ON, .src = NODE,
	      .sport = 30080, FIRST_REPLY, .entries = 2 } } },
	{ "first node: another node's pod is not outside",
	  0,
	  far_tcp,
	  { { FROM_NET, T(REMOTE, 4000, NODE, 30080, F_SYN), PACKED, .src = NODE, .dst = REMOTE,
	      .dport = 8080, NEW, .entries = 2 },
	    { FROM_NET, T(PEER, 4000, NODE, 30080, F_SYN), PACKED, .src = NODE, .dst = REMOTE,
	      .dport = 8080, .any_sport = true, NEW, .entries = 4 },
	    { FROM_NET, T(PEER2, 4001, NODE, 30080, F_SYN), PACKED, .src = NODE, .dst = REMOTE,
	      .dport = 8080, NEW, .entries = 6 } } },
	{ "first node: nobody calls as the node itself",
	  0,
	  far_tcp,
	  { { FROM_NET, T(NODE, 4000, VIP, 80, F_SYN), .verdict = V_DROP,
	      .reason = WAG_DROP_SPOOFED_SOURCE } } },
	{ "first node: no tunnel there, so the answer comes back",
	  0,
	  untunnelled,
	  { { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), ON, .src = NODE, .dst = REMOTE,
	      .dport = 8080, NEW, .entries = 2 } } },
	{ "a node that is reached directly gets packed what must be, and nothing else",
	  0,
	  direct,
	  { { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), PACKED, NEW, .entries = 1 },
	    { FROM_POD, T(POD_A, 4000, REMOTE, 8080, F_SYN), ON, NEW, .entries = 2 },
	    { FROM_NET, T(PEER2, 4000, NODE, 30080, F_SYN), ON, .src = NODE, .dst = REMOTE,
	      .dport = 8080, NEW, .entries = 4 },
	    { TO_TUNNEL, T(NODE, 4000, REMOTE, 80, F_SYN), .verdict = V_DROP,
	      .reason = WAG_DROP_NO_TUNNEL_ENDPOINT, .entries = 4 } } },
	{ "first node: the node of a connection is gone",
	  0,
	  far_tcp,
	  { { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), PACKED, NEW, .entries = 1 },
	    { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), .verdict = V_DROP,
	      .reason = WAG_DROP_NO_TUNNEL_ENDPOINT, .entries = 1, .before = peer_gone } } },
	{ "first node: too big and used up are answered here, not by the stack",
	  0,
	  far_udp,
	  { { FROM_NET,
	      { OUTSIDE, NODE, 4000, 30080, IPPROTO_UDP, .payload = FITS - 27 },
	      .verdict = V_REDIRECT,
	      .reason = WAG_DROP_FRAG_NEEDED,
	      .entries = 1 },
	    { FROM_NET,
	      { OUTSIDE, NODE, 4000, 30080, IPPROTO_UDP, .payload = FITS - 48 },
	      PACKED,
	      .entries = 1 },
	    { FROM_NET, UPT(OUTSIDE, 4000, NODE, 30080, 1), .verdict = V_REDIRECT,
	      .reason = WAG_DROP_TTL_EXCEEDED, .entries = 1 } } },
	{ "first node: fragments go the way of the first one",
	  0,
	  far_udp,
	  { { FROM_NET,
	      { OUTSIDE, NODE, 4000, 30080, IPPROTO_UDP, .id = 7, .more = true, .payload = 64 },
	      PACKED,
	      NEW,
	      .entries = 1 },
	    { FROM_NET,
	      { OUTSIDE, NODE, 0, 0, IPPROTO_UDP, .id = 7, .frag = 9, .payload = 64 },
	      PACKED,
	      .entries = 1 } } },
	{ "endpoint's node: another node's NodePort, and straight back",
	  0,
	  both_tcp,
	  { { FROM_TUNNEL, T(OUTSIDE, 4000, PEER, 30080, F_SYN), TO(POD_B), .dst = POD_B,
	      .dport = 8080, NEW, .entries = 2 },
	    { FROM_POD, T(POD_B, 8080, OUTSIDE, 4000, F_SYN | F_ACK), ON, .src = PEER,
	      .sport = 30080, FIRST_REPLY, .entries = 2 },
	    { FROM_TUNNEL, T(OUTSIDE, 4000, PEER, 30080, F_ACK), TO(POD_B), .dst = POD_B,
	      .dport = 8080, .entries = 2 } } },
	{ "endpoint's node: a NodePort on an address of the other node that nobody knows",
	  0,
	  both_tcp,
	  { { FROM_TUNNEL, T(OUTSIDE, 4000, EGRESS, 30080, F_SYN), TO(POD_B), .dst = POD_B,
	      .dport = 8080, NEW, .entries = 2 },
	    { FROM_POD, T(POD_B, 8080, OUTSIDE, 4000, F_SYN | F_ACK), ON, .src = EGRESS,
	      .sport = 30080, FIRST_REPLY, .entries = 2 },
	    { FROM_TUNNEL, T(REMOTE, 4000, UNROUTED, 30080, F_SYN), .verdict = V_PASS,
	      .entries = 2 },
	    { FROM_TUNNEL, T(OUTSIDE, 4001, POD_A, 30080, F_SYN), TO(POD_A), NEW,
	      .entries = 3 } } },
	{ "endpoint's node: a load balancer's address, and straight back",
	  0,
	  near_udp,
	  { { FROM_TUNNEL, U(OUTSIDE, 4000, VIP, 80), TO(POD_B), .dst = POD_B, .dport = 8080, NEW,
	      .entries = 2 },
	    { FROM_POD, U(POD_B, 8080, OUTSIDE, 4000), ON, .src = VIP, .sport = 80, FIRST_REPLY,
	      .entries = 2 } } },
	{ "endpoint's node: the node itself is the endpoint",
	  0,
	  near_host,
	  { { FROM_TUNNEL, T(OUTSIDE, 4000, PEER, 30080, F_SYN), .verdict = V_PASS, .dst = NODE,
	      .dport = 8080, NEW, .entries = 2 },
	    { TO_NET, T(NODE, 8080, OUTSIDE, 4000, F_SYN | F_ACK), .verdict = V_PASS, .src = PEER,
	      .sport = 30080, FIRST_REPLY, .entries = 2 } } },
	{ "endpoint's node without one: dropped, and never sent on",
	  0,
	  far_tcp,
	  { { FROM_TUNNEL, T(OUTSIDE, 4000, PEER, 30080, F_SYN), .verdict = V_DROP,
	      .reason = WAG_DROP_NO_LOCAL_BACKEND },
	    { FROM_TUNNEL, T(OUTSIDE, 4000, VIP, 80, F_SYN), .verdict = V_DROP,
	      .reason = WAG_DROP_NO_LOCAL_BACKEND } } },
	{ "endpoint's node: a Service that nobody knows here does not go back to the first one",
	  0,
	  near_tcp,
	  { { FROM_TUNNEL, T(OUTSIDE, 4000, PEER, 30081, F_SYN), .verdict = V_DROP,
	      .reason = WAG_DROP_NO_BACKEND } } },
	{ "endpoint's node: no endpoint anywhere is refused, to the client itself",
	  0,
	  none_tcp,
	  { { FROM_TUNNEL, T(OUTSIDE, 4000, PEER, 30080, F_SYN), .verdict = V_REDIRECT,
	      .reason = WAG_DROP_NO_BACKEND, .mark = 5 } } },
	{ "two nodes that send a flow to each other: who gets it packed serves it",
	  0,
	  far_tcp,
	  { { FROM_NET, T(OUTSIDE, 4000, VIP, 80, F_SYN), PACKED, NEW, .entries = 1 },
	    { FROM_TUNNEL, T(OUTSIDE, 4000, VIP, 80, F_ACK), TO(POD_B), .dst = POD_B,
	      .dport = 8080, NEW, .entries = 2, .before = now_near } } },
	{ "another node's pod to a NodePort here, by the tunnel: as ever",
	  0,
	  near_tcp,
	  { { FROM_TUNNEL, T(REMOTE, 4000, NODE, 30080, F_SYN), TO(POD_B), .src = NODE,
	      .dst = POD_B, .dport = 8080, NEW, .entries = 2 } } },
};

/* An error about an answer finds the node that sent it: it goes there as it is. */
static void error_to_frontend(struct world *w)
{
	const struct spec syn = { OUTSIDE, NODE, 4000, 30080, IPPROTO_TCP, F_SYN };
	const struct spec answer = { NODE, OUTSIDE, 30080, 4000, IPPROTO_TCP, F_ACK };
	struct frame in, out, want, quoted;
	struct bpf_tunnel_key key;
	struct spec error = { ROUTER, NODE, .proto = IPPROTO_ICMP };

	far_tcp(w);
	frame_build(&in, &syn, w->v6);
	world_run(w, FROM_NET, &in, &out);
	frame_build(&quoted, &answer, w->v6);
	error.icmp_type = w->v6 ? 2 : 3;
	error.icmp_code = w->v6 ? 0 : 4;
	error.icmp_rest = 1300;
	error.quote = quoted.data + FRAME_L3;
	error.quote_len = quoted.l4 - FRAME_L3 + 8;
	frame_build(&in, &error, w->v6);
	error.ttl = 63;
	frame_build(&want, &error, w->v6);
	expect(world_run(w, FROM_NET, &in, &out) == V_REDIRECT, "not sent on");
	expect(out.len == want.len && !memcmp(out.data, want.data, want.len), "changed");
	world_tunnel_key(w, FROM_NET, &key);
	expect(key.tunnel_id == TUNNEL_VNI, "not packed");
	expect(world_ct_count(w) == 1, "%u entries", world_ct_count(w));
}

/* The entry says whose it is, and what it waits for. */
static void entry_says(struct world *w)
{
	const struct spec syn = { OUTSIDE, NODE, 4000, 30080, IPPROTO_TCP, F_SYN };
	const struct wag_addr remote = addr_of(REMOTE, w->v6);
	struct frame in, out;
	struct wag_ct ct;

	far_tcp(w);
	frame_build(&in, &syn, w->v6);
	world_run(w, FROM_NET, &in, &out);
	expect(world_ct_get(w, &syn, false, &ct), "no entry");
	expect(ct.flags & WAG_CT_DSR &&
		       !(ct.flags & (WAG_CT_REWRITE_ORIG | WAG_CT_REWRITE_REPLY)),
	       "flags 0x%x", ct.flags);
	expect(!memcmp(&ct.xdaddr, &remote, sizeof(remote)) && ct.xdport == htobe16(8080) &&
		       ct.svc_id == SVC_ID,
	       "another backend");
}

static void alone(struct world *w, const char *name, void (*run)(struct world *))
{
	for (int v6 = 0; v6 < 2; v6++) {
		test_begin();
		world_reset(w, v6);
		run(w);
		test_end("dsr: %s, %s", name, v6 ? "IPv6" : "IPv4");
	}
}

void suite_dsr(void)
{
	struct wag_config cfg;
	struct world w;
	int r;

	world_defaults(&cfg);
	cfg.tunnel_ifindex = world_ifindex(TO_TUNNEL);
	cfg.tunnel_vni = TUNNEL_VNI;
	cfg.tunnel_port = htobe16(TUNNEL_PORT);
	r = world_open(&w, &cfg);
	if (r < 0) {
		printf("FAIL bpf: dsr: programs load: %s\n", strerror(-r));
		return;
	}
	run_cases(&w, cases, sizeof(cases) / sizeof(cases[0]));
	alone(&w, "an ICMP error about an answer follows the flow", error_to_frontend);
	alone(&w, "the first node's entry", entry_says);
	random_hook(&w, FROM_NET, "with DSR", far_udp);
	random_hook(&w, FROM_TUNNEL, "by DSR", near_udp);
	world_close(&w);
}
