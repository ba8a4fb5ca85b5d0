// SPDX-License-Identifier: Apache-2.0
/* Pods that talk to the world outside of the cluster, in a world that masquerades. */
#include <bpf/bpf.h>
#include "cases.h"

#define OUT ON, .src = EGRESS
#define GRE 47
#define UDPLITE 136
#define PING4(S, D, ID) { S, D, ID, .proto = IPPROTO_ICMP, .icmp_type = 8, .payload = 9 }
#define PONG4(S, D, ID) { S, D, 0, ID, .proto = IPPROTO_ICMP, .payload = 9 }
#define PING6(S, D, ID) { S, D, ID, .proto = IPPROTO_ICMP, .icmp_type = 128, .payload = 9 }
#define PONG6(S, D, ID) { S, D, 0, ID, .proto = IPPROTO_ICMP, .icmp_type = 129, .payload = 9 }
/* Without .quote, so that it is the stack's or nobody's: it belongs to no flow. */
#define ICMP(S, D, TYPE) { S, D, .proto = IPPROTO_ICMP, .icmp_type = TYPE, .payload = 20 }
#define ASKS(S, D, ID, TYPE) { S, D, ID, .proto = IPPROTO_ICMP, .icmp_type = TYPE, .payload = 12 }
#define TOLD(S, D, ID, TYPE) \
	{ S, D, 0, ID, .proto = IPPROTO_ICMP, .icmp_type = TYPE, .payload = 12 }
#define NOT_OUT .verdict = V_DROP, .reason = WAG_DROP_MASQUERADE_PROTO
#define P(S, D, PROTO) { S, D, .proto = PROTO, .payload = 20 }
#define ALL_BITS 128

static void service(struct world *w, enum who vip, __u32 index, enum who who)
{
	const struct backend b = { who, 8080 };

	world_service(w, index, vip, vip == ANYBODY ? 30080 : 80, IPPROTO_TCP,
		      vip == ANYBODY ? WAG_SVC_NODE_PORT : WAG_SVC_CLUSTER_IP);
	world_backends(w, index, IPPROTO_TCP, &b, 1);
}

static void device(struct world *w)
{
	world_device(w, EGRESS);
}

static void device_without_address(struct world *w)
{
	world_device(w, NOBODY);
}

static void external_backend(struct world *w)
{
	device(w);
	service(w, VIP, 1, OUTSIDE);
}

static void external_backends(struct world *w)
{
	external_backend(w);
	service(w, VIP2, 2, OUTSIDE);
}

static void no_masquerade(struct world *w)
{
	device(w);
	world_cidr(w, OUTSIDE, w->v6 ? 32 : 96 + 24, WAG_CIDR_NO_MASQUERADE, NOBODY);
}

static void everywhere_but(struct world *w)
{
	device(w);
	world_cidr(w, REMOTE, w->v6 ? 48 : 96 + 24, WAG_CIDR_PODS, ROUTER);
	world_cidr(w, OUTSIDE, ALL_BITS, WAG_CIDR_NODE, NOBODY);
}

static void remote_by_tunnel(struct world *w)
{
	device(w);
	service(w, ANYBODY, 1, REMOTE);
	world_cidr(w, REMOTE, ALL_BITS, WAG_CIDR_PODS, ROUTER);
}

static void remote_by_route(struct world *w)
{
	device(w);
	service(w, ANYBODY, 1, OUTSIDE);
}

static void nodes(struct world *w, bool known)
{
	const struct wag_runtime runtime = { .nodes = known };
	__u32 zero = 0;

	bpf_map_update_elem(w->runtime, &zero, &runtime, BPF_ANY);
}

static void nodes_unknown(struct world *w)
{
	nodes(w, false);
}

static void nodes_known(struct world *w)
{
	nodes(w, true);
}

static void before_nodes(struct world *w)
{
	external_backend(w);
	service(w, VIP2, 2, POD_A);
	service(w, ANYBODY, 3, OUTSIDE);
	world_cidr(w, REMOTE, ALL_BITS, WAG_CIDR_NO_MASQUERADE, NOBODY);
	nodes_unknown(w);
}

#define WAITS .verdict = V_DROP, .reason = WAG_DROP_NODES_PENDING

static const struct one_case cases[] = {
	{ "TCP to outside and back",
	  0,
	  device,
	  { { FROM_POD, T(POD_A, 4000, OUTSIDE, 80, F_SYN), OUT, NEW, .entries = 2 },
	    { FROM_NET, T(OUTSIDE, 80, EGRESS, 4000, F_SYN | F_ACK), TO(POD_A), .dst = POD_A,
	      FIRST_REPLY, .entries = 2 },
	    { FROM_POD, T(POD_A, 4000, OUTSIDE, 80, F_ACK), OUT, .entries = 2 },
	    { FROM_NET, T(OUTSIDE, 80, EGRESS, 4000, F_FIN | F_ACK), TO(POD_A), .dst = POD_A,
	      .entries = 2 } } },
	{ "UDP to outside and back",
	  0,
	  device,
	  { { FROM_POD, U(POD_A, 4000, OUTSIDE, 53), OUT, NEW, .entries = 2 },
	    { FROM_NET, U(OUTSIDE, 53, EGRESS, 4000), TO(POD_A), .dst = POD_A, FIRST_REPLY,
	      .entries = 2 } } },
	{ "UDP without a checksum",
	  ONLY_V4,
	  device,
	  { { FROM_POD,
	      { POD_A, OUTSIDE, 4000, 53, IPPROTO_UDP, .no_check = true, .payload = 9 },
	      OUT,
	      NEW,
	      .entries = 2 } } },
	{ "SCTP to outside and back",
	  0,
	  device,
	  { { FROM_POD,
	      { POD_A, OUTSIDE, 4000, 7000, IPPROTO_SCTP, .payload = 20 },
	      OUT,
	      NEW,
	      .entries = 2 },
	    { FROM_POD,
	      { POD_B, OUTSIDE, 4000, 7000, IPPROTO_SCTP, .payload = 20 },
	      OUT,
	      .any_sport = true,
	      NEW,
	      .entries = 4 },
	    { FROM_NET,
	      { OUTSIDE, EGRESS, 7000, 0, IPPROTO_SCTP, .payload = 100 },
	      .to_chosen_port = true,
	      TO(POD_B),
	      .dst = POD_B,
	      .dport = 4000,
	      FIRST_REPLY,
	      .entries = 4 } } },
	{ "echo to outside, from two pods with one identifier",
	  ONLY_V4,
	  device,
	  { { FROM_POD, PING4(POD_A, OUTSIDE, 9), OUT, NEW, .entries = 2 },
	    { FROM_POD, PING4(POD_B, OUTSIDE, 9), OUT, .any_sport = true, NEW, .entries = 4 },
	    { FROM_NET, PONG4(OUTSIDE, EGRESS, 9), TO(POD_A), .dst = POD_A, FIRST_REPLY,
	      .entries = 4 },
	    { FROM_NET, PONG4(OUTSIDE, EGRESS, 1), .to_chosen_port = true, TO(POD_B), .dst = POD_B,
	      .dport = 9, FIRST_REPLY, .entries = 4 },
	    { FROM_POD, PING4(POD_B, OUTSIDE, 9), OUT, .chosen_sport = true, .entries = 4 } } },
	{ "echo to outside, from two pods with one identifier",
	  ONLY_V6,
	  device,
	  { { FROM_POD, PING6(POD_A, OUTSIDE, 9), OUT, NEW, .entries = 2 },
	    { FROM_POD, PING6(POD_B, OUTSIDE, 9), OUT, .any_sport = true, NEW, .entries = 4 },
	    { FROM_NET, PONG6(OUTSIDE, EGRESS, 9), TO(POD_A), .dst = POD_A, FIRST_REPLY,
	      .entries = 4 },
	    { FROM_NET, PONG6(OUTSIDE, EGRESS, 1), .to_chosen_port = true, TO(POD_B), .dst = POD_B,
	      .dport = 9, FIRST_REPLY, .entries = 4 },
	    { FROM_POD, PING6(POD_B, OUTSIDE, 9), OUT, .chosen_sport = true, .entries = 4 } } },
	{ "timestamp, information and address mask requests",
	  ONLY_V4,
	  device,
	  { { FROM_POD, ASKS(POD_A, OUTSIDE, 9, 13), OUT, NEW, .entries = 2 },
	    { FROM_NET, TOLD(OUTSIDE, EGRESS, 9, 14), TO(POD_A), .dst = POD_A, FIRST_REPLY,
	      .entries = 2 },
	    { FROM_POD, ASKS(POD_B, OUTSIDE, 9, 13), OUT, .any_sport = true, NEW, .entries = 4 },
	    { FROM_NET, TOLD(OUTSIDE, EGRESS, 1, 14), .to_chosen_port = true, TO(POD_B),
	      .dst = POD_B, .dport = 9, FIRST_REPLY, .entries = 4 },
	    { FROM_POD, ASKS(POD_A, OUTSIDE, 8, 17), OUT, NEW, .entries = 6 },
	    { FROM_NET, TOLD(OUTSIDE, EGRESS, 8, 18), TO(POD_A), .dst = POD_A, FIRST_REPLY,
	      .entries = 6 },
	    { FROM_POD, ASKS(POD_A, OUTSIDE, 7, 15), OUT, NEW, .entries = 8 },
	    { FROM_NET, TOLD(OUTSIDE, EGRESS, 7, 16), TO(POD_A), .dst = POD_A, FIRST_REPLY,
	      .entries = 8 } } },
	{ "ICMP that nobody could turn back does not leave with the pod's address",
	  ONLY_V4,
	  device,
	  { { FROM_POD, ICMP(POD_A, OUTSIDE, 42), NOT_OUT },
	    { FROM_POD, ICMP(POD_A, OUTSIDE, 5), NOT_OUT },
	    { FROM_POD, ICMP(POD_A, POD_B, 42), .verdict = V_PASS },
	    { FROM_POD, ICMP(POD_A, NODE, 42), .verdict = V_PASS },
	    { FROM_POD, ICMP(POD_A, REMOTE, 42), .verdict = V_PASS },
	    { FROM_NET, ICMP(OUTSIDE, EGRESS, 42), .verdict = V_PASS },
	    { TO_NET, ICMP(EGRESS, OUTSIDE, 42), .verdict = V_PASS } } },
	{ "ICMP that nobody could turn back does not leave with the pod's address",
	  ONLY_V6,
	  device,
	  { { FROM_POD, ICMP(POD_A, OUTSIDE, 139), NOT_OUT },
	    { FROM_POD, ICMP(POD_A, OUTSIDE, 135), NOT_OUT },
	    { FROM_POD, ICMP(POD_A, POD_B, 139), .verdict = V_PASS },
	    { FROM_POD, ICMP(POD_A, NODE, 135), .verdict = V_PASS },
	    { FROM_POD, ICMP(POD_A, LINK_LOCAL, 135), .verdict = V_PASS },
	    { FROM_POD, ICMP(LINK, LINK_LOCAL, 135), .verdict = V_PASS },
	    { FROM_POD, ICMP(POD_A, REMOTE, 139), .verdict = V_PASS },
	    { FROM_NET, ICMP(OUTSIDE, EGRESS, 139), .verdict = V_PASS } } },
	{ "nor where the cluster ends elsewhere",
	  0,
	  everywhere_but,
	  { { FROM_POD, ICMP(POD_A, OUTSIDE, 141), .verdict = V_PASS },
	    { FROM_POD, ICMP(POD_A, REMOTE, 141), .verdict = V_PASS } } },
	{ "before the nodes are known nothing new leaves with the node's address",
	  0,
	  before_nodes,
	  { { FROM_POD, T(POD_A, 4000, OUTSIDE, 80, F_SYN), WAITS },
	    { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), WAITS },
	    { FROM_NET, T(ROUTER, 4000, NODE, 30080, F_SYN), WAITS },
	    { FROM_POD, T(POD_A, 4000, POD_B, 80, F_SYN), TO(POD_B), NEW, .entries = 1 },
	    { FROM_POD, T(POD_A, 4001, VIP2, 80, F_SYN), TO(POD_A), .src = NODE, .dst = POD_A,
	      .dport = 8080, NEW, .entries = 3 },
	    { FROM_POD, T(POD_A, 4000, NODE, 22, F_SYN), .verdict = V_PASS, NEW, .entries = 4 },
	    { FROM_POD, T(POD_A, 4000, REMOTE, 80, F_SYN), ON, NEW, .entries = 5 },
	    { FROM_POD, T(POD_A, 4000, OUTSIDE, 80, F_SYN), OUT, NEW, .entries = 7,
	      .before = nodes_known },
	    { FROM_POD, T(POD_A, 4000, OUTSIDE, 80, F_ACK), OUT, .entries = 7,
	      .before = nodes_unknown } } },
	{ "two pods, one port, one server",
	  0,
	  device,
	  { { FROM_POD, T(POD_A, 4000, OUTSIDE, 80, F_SYN), OUT, NEW, .entries = 2 },
	    { FROM_POD, T(POD_B, 4000, OUTSIDE, 80, F_SYN), OUT, .any_sport = true, NEW,
	      .entries = 4 },
	    { FROM_NET, T(OUTSIDE, 80, EGRESS, 0, F_SYN | F_ACK), .to_chosen_port = true, TO(POD_B),
	      .dst = POD_B, .dport = 4000, FIRST_REPLY, .entries = 4 },
	    { FROM_NET, T(OUTSIDE, 80, EGRESS, 4000, F_SYN | F_ACK), TO(POD_A), .dst = POD_A,
	      FIRST_REPLY, .entries = 4 },
	    { FROM_POD, T(POD_B, 4000, OUTSIDE, 80, F_ACK), OUT, .chosen_sport = true,
	      .entries = 4 } } },
	{ "one port to two servers is kept",
	  0,
	  device,
	  { { FROM_POD, U(POD_A, 4000, OUTSIDE, 53), OUT, NEW, .entries = 2 },
	    { FROM_POD, U(POD_B, 4000, OUTSIDE, 54), OUT, NEW, .entries = 4 } } },
	{ "a Service whose backend is outside",
	  0,
	  external_backend,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), OUT, .dst = OUTSIDE, .dport = 8080, NEW,
	      .entries = 2 },
	    { FROM_NET, T(OUTSIDE, 8080, EGRESS, 4000, F_SYN | F_ACK), TO(POD_A), .src = VIP,
	      .sport = 80, .dst = POD_A, FIRST_REPLY, .entries = 2 },
	    { FROM_POD, T(POD_A, 4000, VIP, 80, F_ACK), OUT, .dst = OUTSIDE, .dport = 8080,
	      .entries = 2 } } },
	{ "two Services and the backend itself, outside, from one port",
	  0,
	  external_backends,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), OUT, .dst = OUTSIDE, .dport = 8080, NEW,
	      .entries = 2 },
	    { FROM_POD, T(POD_A, 4000, OUTSIDE, 8080, F_SYN), OUT, .any_sport = true, NEW,
	      .entries = 4 },
	    { FROM_NET, T(OUTSIDE, 8080, EGRESS, 0, F_SYN | F_ACK), .to_chosen_port = true,
	      TO(POD_A), .dst = POD_A, .dport = 4000, FIRST_REPLY, .entries = 4 },
	    { FROM_POD, T(POD_A, 4000, VIP2, 80, F_SYN), OUT, .dst = OUTSIDE, .dport = 8080,
	      .any_sport = true, NEW, .entries = 6 },
	    { FROM_NET, T(OUTSIDE, 8080, EGRESS, 0, F_SYN | F_ACK), .to_chosen_port = true,
	      TO(POD_A), .src = VIP2, .sport = 80, .dst = POD_A, .dport = 4000, FIRST_REPLY,
	      .entries = 6 } } },
	{ "what is said to be reached without",
	  0,
	  no_masquerade,
	  { { FROM_POD, T(POD_A, 4000, OUTSIDE, 80, F_SYN), ON, NEW, .entries = 1 } } },
	{ "other nodes and their pods",
	  0,
	  everywhere_but,
	  { { FROM_POD, T(POD_A, 4000, OUTSIDE, 80, F_SYN), ON, NEW, .entries = 1 },
	    { FROM_POD, T(POD_A, 4000, REMOTE, 80, F_SYN), ON, NEW, .entries = 2 } } },
	{ "the node and its pods",
	  0,
	  device,
	  { { FROM_POD, T(POD_A, 4000, NODE, 22, F_SYN), .verdict = V_PASS, NEW, .entries = 1 },
	    { FROM_POD, T(POD_A, 4000, POD_B, 80, F_SYN), TO(POD_B), NEW, .entries = 2 } } },
	{ "link-local: the metadata service is masqueraded, a neighbour is not",
	  ONLY_V4,
	  device,
	  { { FROM_POD, T(POD_A, 4000, LINK_LOCAL, 80, F_SYN), OUT, NEW, .entries = 2 } } },
	{ "link-local: the metadata service is masqueraded, a neighbour is not",
	  ONLY_V6,
	  device,
	  { { FROM_POD, T(POD_A, 4000, LINK_LOCAL, 80, F_SYN), .verdict = V_PASS, NEW,
	      .entries = 1 } } },
	{ "a device without an address of its own: the node's",
	  0,
	  device_without_address,
	  { { FROM_POD, T(POD_A, 4000, OUTSIDE, 80, F_SYN), ON, .src = NODE, NEW,
	      .entries = 2 } } },
	{ "a device that is not served, and no route",
	  0,
	  device,
	  { { FROM_POD, T(POD_A, 4000, REMOTE, 80, F_SYN), ON, NEW, .entries = 1 },
	    { FROM_POD, T(POD_A, 4000, UNROUTED, 80, F_SYN), .verdict = V_PASS, NEW,
	      .entries = 2 } } },
	{ "a protocol without ports: one pod per destination",
	  0,
	  device,
	  { { FROM_POD, P(POD_A, OUTSIDE, GRE), OUT, NEW, .entries = 2 },
	    { FROM_NET, P(OUTSIDE, EGRESS, GRE), TO(POD_A), .dst = POD_A, FIRST_REPLY,
	      .entries = 2 },
	    { FROM_POD, P(POD_B, OUTSIDE, GRE), .verdict = V_DROP,
	      .reason = WAG_DROP_MASQUERADE_PROTO, .entries = 2 },
	    { TO_NET, P(EGRESS, OUTSIDE, GRE), .verdict = V_DROP,
	      .reason = WAG_DROP_MASQUERADE_PROTO, .entries = 2 },
	    { FROM_POD, P(POD_A, OUTSIDE, GRE), OUT, .entries = 2 } } },
	{ "a protocol without ports that the node speaks itself",
	  0,
	  device,
	  { { TO_NET, P(EGRESS, OUTSIDE, GRE), .verdict = V_PASS, NEW, .entries = 1 },
	    { FROM_POD, P(POD_A, OUTSIDE, GRE), .verdict = V_DROP,
	      .reason = WAG_DROP_MASQUERADE_PROTO, .entries = 1 },
	    { FROM_NET, P(OUTSIDE, EGRESS, GRE), .verdict = V_PASS, FIRST_REPLY,
	      .entries = 1 } } },
	{ "a protocol with a checksum that is not corrected here",
	  0,
	  device,
	  { { FROM_POD, P(POD_A, OUTSIDE, UDPLITE), .verdict = V_DROP,
	      .reason = WAG_DROP_MASQUERADE_PROTO } } },
	{ "the node pings with the identifier that a pod will use",
	  ONLY_V4,
	  device,
	  { { TO_NET, PING4(EGRESS, OUTSIDE, 9), .verdict = V_PASS, NEW, .entries = 1 },
	    { FROM_POD, PING4(POD_A, OUTSIDE, 9), OUT, .any_sport = true, NEW, .entries = 3 },
	    { FROM_NET, PONG4(OUTSIDE, EGRESS, 9), .verdict = V_PASS, FIRST_REPLY,
	      .entries = 3 },
	    { FROM_NET, PONG4(OUTSIDE, EGRESS, 1), .to_chosen_port = true, TO(POD_A), .dst = POD_A,
	      .dport = 9, FIRST_REPLY, .entries = 3 } } },
	{ "the node pings with the identifier that a pod uses",
	  ONLY_V6,
	  device,
	  { { FROM_POD, PING6(POD_A, OUTSIDE, 9), OUT, NEW, .entries = 2 },
	    { TO_NET, PING6(EGRESS, OUTSIDE, 9), .verdict = V_PASS, .any_sport = true, NEW,
	      .entries = 4 },
	    { FROM_NET, PONG6(OUTSIDE, EGRESS, 9), TO(POD_A), .dst = POD_A, FIRST_REPLY,
	      .entries = 4 },
	    { FROM_NET, PONG6(OUTSIDE, EGRESS, 1), .to_chosen_port = true, .verdict = V_PASS,
	      .dport = 9, FIRST_REPLY, .entries = 4 } } },
	{ "the node opens a tuple that a pod's flow owns",
	  0,
	  device,
	  { { FROM_POD, T(POD_A, 4000, OUTSIDE, 80, F_SYN), OUT, NEW, .entries = 2 },
	    { TO_NET, T(EGRESS, 4000, OUTSIDE, 80, F_SYN), .verdict = V_PASS, .any_sport = true,
	      NEW, .entries = 4 },
	    { FROM_NET, T(OUTSIDE, 80, EGRESS, 0, F_SYN | F_ACK), .to_chosen_port = true,
	      .verdict = V_PASS, .dport = 4000, FIRST_REPLY, .entries = 4 },
	    { TO_NET, T(EGRESS, 4000, OUTSIDE, 80, F_ACK), .verdict = V_PASS, .chosen_sport = true,
	      .entries = 4 },
	    { FROM_NET, T(OUTSIDE, 80, EGRESS, 4000, F_SYN | F_ACK), TO(POD_A), .dst = POD_A,
	      FIRST_REPLY, .entries = 4 } } },
	{ "a NodePort's backend behind a tunnel: the node's address",
	  0,
	  remote_by_tunnel,
	  { { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), .verdict = V_REDIRECT, .hops = 1,
	      .src = NODE, .dst = REMOTE, .dport = 8080, NEW, .entries = 2 } } },
	{ "a NodePort's backend by a route: the device's address",
	  0,
	  remote_by_route,
	  { { FROM_NET, T(ROUTER, 4000, NODE, 30080, F_SYN), .verdict = V_REDIRECT, .hops = 1,
	      .src = EGRESS, .dst = OUTSIDE, .dport = 8080, NEW, .entries = 2 },
	    { FROM_NET, T(OUTSIDE, 8080, EGRESS, 4000, F_SYN | F_ACK),
	      .verdict = V_REDIRECT, .reason = WAG_DROP_FIB_FAILED, .entries = 2 } } },
	{ "fragments: later ones follow the first",
	  0,
	  device,
	  { { FROM_POD,
	      { POD_A, OUTSIDE, 4000, 53, IPPROTO_UDP, .id = 77, .more = true, .payload = 64 },
	      OUT,
	      NEW,
	      .entries = 2 },
	    { FROM_POD,
	      { POD_A, OUTSIDE, 0, 0, IPPROTO_UDP, .id = 77, .frag = 9, .payload = 64 },
	      OUT,
	      .entries = 2 },
	    { FROM_NET,
	      { OUTSIDE, EGRESS, 53, 4000, IPPROTO_UDP, .id = 78, .more = true, .payload = 64 },
	      TO(POD_A),
	      .dst = POD_A,
	      FIRST_REPLY,
	      .entries = 2 },
	    { FROM_NET,
	      { OUTSIDE, EGRESS, 0, 0, IPPROTO_UDP, .id = 78, .frag = 9, .payload = 3 },
	      TO(POD_A),
	      .dst = POD_A,
	      .entries = 2 } } },
	{ "a used up TTL reaches the stack as the pod sent it",
	  0,
	  external_backend,
	  { { FROM_POD,
	      { POD_A, OUTSIDE, 4000, 80, IPPROTO_TCP, F_SYN, .ttl = 1 },
	      .verdict = V_PASS,
	      NEW,
	      .entries = 2 },
	    { FROM_POD,
	      { POD_A, VIP, 4000, 80, IPPROTO_TCP, F_SYN, .ttl = 1 },
	      .verdict = V_PASS,
	      NEW,
	      .entries = 4 } } },
};

void cases_masq(struct world *w)
{
	run_cases(w, cases, sizeof(cases) / sizeof(cases[0]));
}
