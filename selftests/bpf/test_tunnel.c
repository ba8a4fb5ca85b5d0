// SPDX-License-Identifier: Apache-2.0
/* Between nodes by tunnel: who is packed for whom, and whom we believe. A world with a tunnel. */
#include <bpf/bpf.h>
#include <endian.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "cases.h"

#define FITS 1450
#define PACKED .verdict = V_REDIRECT, .hops = 1, .packed = PEER
#define PACKED_HERE .verdict = V_PASS, .packed = PEER
#define ALL_BITS 128
#define PEER_PODS(V6) ((V6) ? 48 : 96 + 24)

/* The peer has REMOTE, and what is around it. */
static void peer(struct world *w)
{
	world_cidr_mtu(w, REMOTE, PEER_PODS(w->v6), WAG_CIDR_PODS, PEER, FITS);
	world_cidr_mtu(w, PEER, ALL_BITS, WAG_CIDR_NODE, PEER, FITS);
	world_node(w, PEER);
	world_node(w, PEER2);
}

static void peer_by_route(struct world *w)
{
	world_cidr_mtu(w, REMOTE, PEER_PODS(w->v6), WAG_CIDR_PODS, NOBODY, 0);
	world_node(w, PEER);
}

static void remote_backend(struct world *w)
{
	peer(w);
	to_remote(w);
}

static void local_backend(struct world *w)
{
	peer(w);
	one_service(w, ANYBODY, IPPROTO_TCP, 1, POD_B);
	one_service(w, VIP, IPPROTO_TCP, 2, NODE);
}

static void b_pending(struct world *w)
{
	peer(w);
	world_pod_flags(w, POD_B, WAG_POD_PENDING);
}

static const struct one_case cases[] = {
	{ "pod to a pod of another node and back",
	  0,
	  peer,
	  { { FROM_POD, T(POD_A, 4000, REMOTE, 8080, F_SYN), PACKED, NEW, .entries = 1 },
	    { FROM_TUNNEL, T(REMOTE, 8080, POD_A, 4000, F_SYN | F_ACK), TO(POD_A), FIRST_REPLY,
	      .entries = 1 },
	    { FROM_POD, T(POD_A, 4000, REMOTE, 8080, F_ACK), PACKED, .entries = 1 },
	    { FROM_TUNNEL, T(REMOTE, 8080, POD_A, 4000, F_ACK), TO(POD_A), .entries = 1 } } },
	{ "pod of another node to a pod and back",
	  0,
	  peer,
	  { { FROM_TUNNEL, U(REMOTE, 4000, POD_A, 53), TO(POD_A), NEW, .entries = 1 },
	    { FROM_POD, U(POD_A, 53, REMOTE, 4000), PACKED, FIRST_REPLY, .entries = 1 } } },
	{ "pod to another node itself",
	  0,
	  peer,
	  { { FROM_POD, T(POD_A, 4000, PEER, 10250, F_SYN), PACKED, NEW, .entries = 1 },
	    { FROM_TUNNEL, T(PEER, 10250, POD_A, 4000, F_SYN | F_ACK), TO(POD_A), FIRST_REPLY,
	      .entries = 1 } } },
	{ "pod to a Service on another node and back",
	  0,
	  remote_backend,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), PACKED, .dst = REMOTE, .dport = 8080, NEW,
	      .entries = 2 },
	    { FROM_TUNNEL, T(REMOTE, 8080, POD_A, 4000, F_SYN | F_ACK), TO(POD_A), .src = VIP,
	      .sport = 80, FIRST_REPLY, .entries = 2 } } },
	{ "NodePort from outside to another node's pod: there and back by the tunnel",
	  0,
	  remote_backend,
	  { { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), PACKED, .src = NODE, .dst = REMOTE,
	      .dport = 8080, NEW, .entries = 2 },
	    { FROM_TUNNEL, T(REMOTE, 8080, NODE, 4000, F_SYN | F_ACK), ON, .src = NODE,
	      .sport = 30080, .dst = OUTSIDE, FIRST_REPLY, .entries = 2 } } },
	{ "NodePort from another node's pod to one of ours",
	  0,
	  local_backend,
	  { { FROM_TUNNEL, T(REMOTE, 4000, NODE, 30080, F_SYN), TO(POD_B), .src = NODE,
	      .dst = POD_B, .dport = 8080, NEW, .entries = 2 },
	    { FROM_POD, T(POD_B, 8080, NODE, 4000, F_SYN | F_ACK), PACKED, .src = NODE,
	      .sport = 30080, .dst = REMOTE, FIRST_REPLY, .entries = 2 } } },
	{ "NodePort from another node's pod to another node's pod",
	  0,
	  remote_backend,
	  { { FROM_TUNNEL, T(REMOTE, 4000, NODE, 30080, F_SYN), PACKED, .src = NODE, .dst = REMOTE,
	      .dport = 8080, NEW, .entries = 2 },
	    { FROM_TUNNEL, T(REMOTE, 8080, NODE, 4000, F_SYN | F_ACK), PACKED, .src = NODE,
	      .sport = 30080, .dst = REMOTE, FIRST_REPLY, .entries = 2 } } },
	{ "another node's pod to the node itself, and back",
	  0,
	  peer,
	  { { FROM_TUNNEL, T(REMOTE, 4000, NODE, 22, F_SYN), .verdict = V_PASS },
	    { TO_TUNNEL, T(NODE, 22, REMOTE, 4000, F_SYN | F_ACK), PACKED_HERE } } },
	{ "a Service's backend in the node's namespace, from another node's pod",
	  0,
	  local_backend,
	  { { FROM_TUNNEL, T(REMOTE, 4000, VIP, 80, F_SYN), .verdict = V_PASS, .dst = NODE,
	      .dport = 8080, NEW, .entries = 2 },
	    { TO_TUNNEL, T(NODE, 8080, REMOTE, 4000, F_SYN | F_ACK), PACKED_HERE, .src = VIP,
	      .sport = 80, FIRST_REPLY, .entries = 2 } } },
	{ "the node to a Service on another node",
	  0,
	  remote_backend,
	  { { TO_NET, T(NODE, 4000, VIP, 80, F_SYN), .verdict = V_REDIRECT, .packed = PEER,
	      .dst = REMOTE, .dport = 8080, NEW, .entries = 2 },
	    { FROM_TUNNEL, T(REMOTE, 8080, NODE, 4000, F_SYN | F_ACK), .verdict = V_PASS,
	      .src = VIP, .sport = 80, FIRST_REPLY, .entries = 2 } } },
	{ "what the stack forwards is packed too",
	  0,
	  peer,
	  { { TO_TUNNEL,
	      { POD_A, REMOTE, 4000, 53, IPPROTO_UDP, .id = 7, .more = true, .payload = 64 },
	      PACKED_HERE,
	      .ingress = 5 },
	    { TO_TUNNEL,
	      { POD_A, REMOTE, 0, 0, IPPROTO_UDP, .id = 7, .frag = 9, .payload = 64 },
	      PACKED_HERE,
	      .ingress = 5 } } },
	{ "what has its key already is not looked at",
	  0,
	  peer,
	  { { TO_TUNNEL, T(POD_A, 4000, UNROUTED, 8080, F_SYN), .verdict = V_PASS,
	      .mark = WAG_MARK_TRANSLATED | 5, .uncounted = true } } },
	{ "routed into the tunnel, but no node has it",
	  0,
	  peer,
	  { { TO_TUNNEL, T(NODE, 4000, UNROUTED, 80, F_SYN), .verdict = V_DROP,
	      .reason = WAG_DROP_NO_TUNNEL_ENDPOINT },
	    { TO_TUNNEL, T(POD_A, 4000, UNROUTED, 80, F_SYN), .verdict = V_DROP,
	      .reason = WAG_DROP_NO_TUNNEL_ENDPOINT, .ingress = 5 } } },
	{ "routed into the tunnel to a node that is reached without",
	  0,
	  peer_by_route,
	  { { TO_TUNNEL, T(NODE, 4000, REMOTE, 80, F_SYN), .verdict = V_DROP,
	      .reason = WAG_DROP_NO_TUNNEL_ENDPOINT },
	    { FROM_POD, T(POD_A, 4000, REMOTE, 8080, F_SYN), ON, NEW, .entries = 1 } } },
	{ "ARP and multicast at the tunnel device are the stack's",
	  0,
	  peer,
	  { { TO_TUNNEL, { NODE, REMOTE, .ether = 0x0806 }, .verdict = V_PASS },
	    { TO_TUNNEL, U(NODE, 5353, MULTICAST, 5353), .verdict = V_PASS },
	    { FROM_TUNNEL, { REMOTE, NODE, .ether = 0x0806 }, .verdict = V_PASS } } },
	{ "too big for the tunnel, used up: the stack answers",
	  0,
	  peer,
	  { { FROM_POD,
	      { POD_A, REMOTE, 4000, 8080, IPPROTO_UDP, .payload = FITS - 27 },
	      .verdict = V_PASS,
	      NEW,
	      .entries = 1 },
	    { FROM_POD,
	      { POD_A, REMOTE, 4000, 8080, IPPROTO_UDP, .payload = FITS - 48 },
	      PACKED,
	      .entries = 1 },
	    { FROM_POD,
	      { POD_A, REMOTE, 4000, 8080, IPPROTO_UDP, .payload = 9, .ttl = 1 },
	      .verdict = V_PASS,
	      .entries = 1 },
	    { FROM_TUNNEL,
	      { REMOTE, POD_A, 4000, 8080, IPPROTO_UDP, .payload = 9, .ttl = 1 },
	      .verdict = V_PASS,
	      NEW,
	      .entries = 2 } } },
	{ "too big for the tunnel, where the source would change: we answer",
	  0,
	  remote_backend,
	  { { FROM_NET,
	      { OUTSIDE, NODE, 4000, 30080, IPPROTO_TCP, F_SYN, .payload = FITS - 39 },
	      .verdict = V_REDIRECT,
	      .reason = WAG_DROP_FRAG_NEEDED,
	      .entries = 2 } } },
	{ "through the tunnel nobody sends as a pod of ours, or as the node",
	  0,
	  peer,
	  { { FROM_TUNNEL, T(POD_A, 4000, POD_B, 80, F_SYN), .verdict = V_DROP,
	      .reason = WAG_DROP_SPOOFED_SOURCE },
	    { FROM_TUNNEL, T(NODE, 4000, POD_B, 80, F_SYN), .verdict = V_DROP,
	      .reason = WAG_DROP_SPOOFED_SOURCE } } },
	{ "through the tunnel to a pod that waits",
	  0,
	  b_pending,
	  { { FROM_TUNNEL, T(REMOTE, 4000, POD_B, 80, F_SYN), .verdict = V_DROP,
	      .reason = WAG_DROP_POLICY_PENDING } } },
	{ "the tunnel's own packets pass the device below",
	  0,
	  peer,
	  { { FROM_NET, U(PEER, 4000, NODE, TUNNEL_PORT), .verdict = V_PASS },
	    { FROM_NET, U(PEER, 4000, POD_A, TUNNEL_PORT), TO(POD_A), NEW, .entries = 1 } } },
};

/* A stranger's packet: dropped, and the event tells who packed it. */
static void stranger(struct world *w, enum who who, __u32 vni, bool plain)
{
	const struct spec s = { REMOTE, POD_A, 4000, 80, IPPROTO_TCP, F_SYN };
	struct wag_addr from = addr_of(who, w->v6);
	struct frame in, out;
	struct stats stats;
	int v;

	peer(w);
	w->packer = who;
	w->packer_vni = vni;
	w->plain = plain;
	frame_build(&in, &s, w->v6);
	v = world_run(w, FROM_TUNNEL, &in, &out);
	world_stats(w, WAG_POINT_FROM_TUNNEL, &stats);
	world_drain(w);
	expect(v == V_DROP, "verdict %d", v);
	expect(stats.packets[WAG_DROP_UNKNOWN_TUNNEL_SOURCE] == 1, "counted %llu times",
	       stats.packets[WAG_DROP_UNKNOWN_TUNNEL_SOURCE]);
	expect(w->n_events == 1 && w->events[0].reason == WAG_DROP_UNKNOWN_TUNNEL_SOURCE,
	       "%u events", w->n_events);
	if (!plain)
		expect(!memcmp(&w->events[0].orig.saddr, &from, sizeof(from)),
		       "the event names another sender");
	expect(!world_ct_count(w), "%u conntrack entries", world_ct_count(w));
}

static void strangers(struct world *w)
{
	const struct {
		const char *name;
		enum who who;
		__u32 vni;
		bool plain;
	} all[] = {
		{ "an address that is no node's", ROUTER, TUNNEL_VNI, false },
		{ "a node, but another network", PEER, TUNNEL_VNI + 1, false },
		{ "not packed at all", PEER, TUNNEL_VNI, true },
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		for (int v6 = 0; v6 < 2; v6++) {
			test_begin();
			world_reset(w, v6);
			stranger(w, all[i].who, all[i].vni, all[i].plain);
			test_end("tunnel: %s, %s", all[i].name, v6 ? "IPv6" : "IPv4");
		}
	}
}

void suite_tunnel(void)
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
		printf("FAIL bpf: tunnel: programs load: %s\n", strerror(-r));
		return;
	}
	run_cases(&w, cases, sizeof(cases) / sizeof(cases[0]));
	strangers(&w);
	random_hook(&w, FROM_TUNNEL, "from a tunnel", peer);
	random_hook(&w, TO_TUNNEL, "to a tunnel", peer);
	world_close(&w);
}
