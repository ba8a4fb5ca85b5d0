// SPDX-License-Identifier: Apache-2.0
/* Where packets go: from pod to pod, to other machines and back; and who may send at all. */
#include "cases.h"

#define SPOOFED .verdict = V_DROP, .reason = WAG_DROP_SPOOFED_SOURCE
#define PENDING .verdict = V_DROP, .reason = WAG_DROP_POLICY_PENDING

static void b_pending(struct world *w)
{
	services_tcp(w);
	one_service(w, ANYBODY, IPPROTO_TCP, 5, POD_B);
	world_pod_flags(w, POD_B, WAG_POD_PENDING);
}

static void b_not_pending(struct world *w)
{
	world_pod_flags(w, POD_B, 0);
}

static void b_pending_again(struct world *w)
{
	world_pod_flags(w, POD_B, WAG_POD_PENDING);
}

static void b_by_egress(struct world *w)
{
	world_pod_flags(w, POD_B, WAG_POD_NO_PEER);
}

static void b_chained(struct world *w)
{
	services_tcp(w);
	world_pod_flags(w, POD_B, WAG_POD_CHAINED);
}

static void node_port_to_b(struct world *w)
{
	one_service(w, ANYBODY, IPPROTO_TCP, 1, POD_B);
}

static void b_narrow(struct world *w)
{
	services_tcp(w);
	one_service(w, ANYBODY, IPPROTO_TCP, 5, POD_B);
	world_pod_mtu(w, POD_B, 1300);
}

#define V4_TCP 40
#define BIG(S, SP, D, DP, LEN)                                                                     \
	{                                                                                          \
		S, D, SP, DP, IPPROTO_TCP, F_ACK, .payload = LEN - V4_TCP                          \
	}

static const struct one_case cases[] = {
	{ "pod to another machine and back",
	  0,
	  NULL,
	  { { FROM_POD, T(POD_A, 4000, REMOTE, 8080, F_SYN), ON, NEW, .entries = 1 },
	    { FROM_NET, T(REMOTE, 8080, POD_A, 4000, F_SYN | F_ACK), TO(POD_A), FIRST_REPLY,
	      .entries = 1 },
	    { FROM_POD, T(POD_A, 4000, REMOTE, 8080, F_ACK), ON, .entries = 1 },
	    { FROM_NET, T(REMOTE, 8080, POD_A, 4000, F_ACK), TO(POD_A), .entries = 1 } } },
	{ "another machine to a pod and back",
	  0,
	  NULL,
	  { { FROM_NET, T(REMOTE, 4000, POD_A, 22, F_SYN), TO(POD_A), NEW, .entries = 1 },
	    { FROM_POD, T(POD_A, 22, REMOTE, 4000, F_SYN | F_ACK), ON, FIRST_REPLY, .entries = 1 },
	    { FROM_NET, T(REMOTE, 4000, POD_A, 22, F_ACK), TO(POD_A), .entries = 1 } } },
	{ "pod to a Service on another machine and back",
	  0,
	  to_remote,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), ON, .dst = REMOTE, .dport = 8080, NEW,
	      .entries = 2 },
	    { FROM_NET, T(REMOTE, 8080, POD_A, 4000, F_SYN | F_ACK), TO(POD_A), .src = VIP,
	      .sport = 80, FIRST_REPLY, .entries = 2 },
	    { FROM_POD, T(POD_A, 4000, VIP, 80, F_ACK), ON, .dst = REMOTE, .dport = 8080,
	      .entries = 2 } } },
	{ "too big, used up or unrouted: the stack answers",
	  0,
	  NULL,
	  { { FROM_POD,
	      { POD_A, REMOTE, 4000, 8080, IPPROTO_UDP, .payload = 1600 },
	      .verdict = V_PASS,
	      NEW,
	      .entries = 1 },
	    { FROM_POD,
	      { POD_A, REMOTE, 4000, 8080, IPPROTO_UDP, .payload = 9, .ttl = 1 },
	      .verdict = V_PASS,
	      .entries = 1 },
	    { FROM_POD, U(POD_A, 4000, UNROUTED, 53), .verdict = V_PASS, NEW, .entries = 2 },
	    { FROM_NET,
	      { REMOTE, POD_A, 4000, 53, IPPROTO_UDP, .payload = 9, .ttl = 1 },
	      .verdict = V_PASS,
	      NEW,
	      .entries = 3 } } },
	{ "through a Service too big or used up: the stack answers for the backend",
	  0,
	  to_remote,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), ON, .dst = REMOTE, .dport = 8080, NEW,
	      .entries = 2 },
	    { FROM_POD,
	      { POD_A, VIP, 4000, 80, IPPROTO_TCP, F_ACK, .payload = 1600 },
	      .verdict = V_PASS,
	      .dst = REMOTE,
	      .dport = 8080,
	      .entries = 2 },
	    { FROM_POD,
	      { POD_A, VIP, 4000, 80, IPPROTO_TCP, F_ACK, .ttl = 1 },
	      .verdict = V_PASS,
	      .dst = REMOTE,
	      .dport = 8080,
	      .entries = 2 } } },
	{ "longer than the pod's interface takes: the stack answers",
	  0,
	  b_narrow,
	  { { FROM_POD, T(POD_A, 4000, POD_B, 8080, F_SYN), TO(POD_B), NEW, .entries = 1 },
	    { FROM_POD, BIG(POD_A, 4000, POD_B, 8080, 1280), TO(POD_B), .entries = 1 },
	    { FROM_POD, BIG(POD_A, 4000, POD_B, 8080, 1301), .verdict = V_PASS, .entries = 1 },
	    { FROM_POD, BIG(POD_B, 8080, POD_A, 4000, 1400), TO(POD_A), FIRST_REPLY,
	      .entries = 1 },
	    { FROM_NET, T(REMOTE, 4000, POD_B, 80, F_SYN), TO(POD_B), NEW, .entries = 2 },
	    { FROM_NET, BIG(REMOTE, 4000, POD_B, 80, 1301), .verdict = V_PASS, .entries = 2 } } },
	{ "just as long as the pod's interface takes",
	  ONLY_V4,
	  b_narrow,
	  { { FROM_POD, BIG(POD_A, 4000, POD_B, 8080, 1300), TO(POD_B), NEW, .entries = 1 } } },
	{ "longer than the pod's interface takes, through a Service: the stack answers, or we do",
	  0,
	  b_narrow,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), TO(POD_B), .dst = POD_B, .dport = 8080, NEW,
	      .entries = 2 },
	    { FROM_POD, BIG(POD_A, 4000, VIP, 80, 1301), .verdict = V_PASS, .dst = POD_B,
	      .dport = 8080, .entries = 2 },
	    { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), TO(POD_B), .src = NODE,
	      .dst = POD_B, .dport = 8080, NEW, .entries = 4 },
	    { FROM_NET, BIG(OUTSIDE, 4000, NODE, 30080, 1301), .verdict = V_REDIRECT,
	      .reason = WAG_DROP_FRAG_NEEDED, .entries = 4 } } },
	{ "a pod that has something at its host side's egress",
	  0,
	  b_by_egress,
	  { { FROM_POD, T(POD_A, 4000, POD_B, 8080, F_SYN), TO(POD_B), NEW, .entries = 1 },
	    { TO_POD, T(POD_A, 4000, POD_B, 8080, F_SYN), .verdict = V_PASS, .entries = 1 } } },
	{ "a pod of another CNI plugin is behind the stack",
	  0,
	  b_chained,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), .verdict = V_PASS, .dst = POD_B,
	      .dport = 8080, NEW, .entries = 2 },
	    { TO_POD, T(POD_A, 4000, POD_B, 8080, F_SYN), .verdict = V_PASS, .entries = 2 },
	    { FROM_NET, T(REMOTE, 4000, POD_B, 8080, F_SYN), .verdict = V_PASS, NEW,
	      .entries = 3 } } },
	{ "a pod sends with its own address only",
	  0,
	  services_tcp,
	  { { FROM_POD, T(OUTSIDE, 4000, POD_B, 8080, F_SYN), SPOOFED },
	    { FROM_POD, T(NODE, 4000, VIP, 80, F_SYN), SPOOFED },
	    { FROM_POD, T(POD_A, 4000, POD_B, 8080, F_SYN), SPOOFED, .elsewhere = true },
	    { FROM_POD, { ROUTER, POD_B, .proto = 47, .payload = 20 }, SPOOFED },
	    { FROM_POD, { ROUTER, POD_B, .proto = IPPROTO_ICMP, .icmp_type = 200 }, SPOOFED },
	    { FROM_POD, { ROUTER, MULTICAST, 5353, 5353, IPPROTO_UDP }, SPOOFED } } },
	{ "nobody joins another pod's flow",
	  0,
	  services_tcp,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), TO(POD_B), .dst = POD_B, .dport = 8080, NEW,
	      .entries = 2 },
	    { FROM_POD, T(POD_A, 4000, VIP, 80, F_RST), SPOOFED, .elsewhere = true, .entries = 2 },
	    { FROM_POD, T(POD_B, 8080, POD_A, 4000, F_RST), SPOOFED, .elsewhere = true,
	      .entries = 2 },
	    { FROM_POD, T(VIP, 80, POD_A, 4000, F_RST), SPOOFED, .entries = 2 },
	    { FROM_NET, T(POD_A, 4000, POD_B, 8080, F_RST), SPOOFED, .entries = 2 },
	    { FROM_NET, T(POD_B, 8080, POD_A, 4000, F_RST), SPOOFED, .entries = 2 },
	    { FROM_POD, T(POD_B, 8080, POD_A, 4000, F_SYN | F_ACK), TO(POD_A), .src = VIP,
	      .sport = 80, FIRST_REPLY, .entries = 2 } } },
	{ "from the network nobody sends as a pod or the node",
	  0,
	  node_port_to_b,
	  { { FROM_NET, T(POD_A, 4000, POD_B, 8080, F_SYN), SPOOFED },
	    { FROM_NET, T(POD_A, 4000, NODE, 22, F_SYN), SPOOFED },
	    { FROM_NET, T(POD_A, 4000, NODE, 30080, F_SYN), SPOOFED },
	    { FROM_NET, T(NODE, 4000, POD_B, 8080, F_SYN), SPOOFED },
	    { FROM_NET, T(NODE, 4000, NODE, 30080, F_SYN), SPOOFED } } },
	{ "what stays on the link is the stack's",
	  0,
	  NULL,
	  { { FROM_POD, U(LINK, 546, NODE, 547), .verdict = V_PASS },
	    { FROM_POD, U(LINK, 68, MULTICAST, 67), .verdict = V_PASS },
	    { FROM_POD,
	      { LINK, NODE, .proto = IPPROTO_ICMP, .icmp_type = 135 },
	      .verdict = V_PASS } } },
	{ "to a link-local address",
	  ONLY_V6,
	  NULL,
	  { { FROM_POD, U(POD_A, 4000, LINK, 53), .verdict = V_PASS, NEW, .entries = 1 } } },
	{ "a pod whose policy is not known waits",
	  0,
	  b_pending,
	  { { FROM_POD, T(POD_A, 4000, POD_B, 8080, F_SYN), PENDING },
	    { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), PENDING },
	    { FROM_POD, T(POD_B, 4000, OUTSIDE, 80, F_SYN), PENDING },
	    { FROM_POD, T(POD_B, 4000, POD_A, 80, F_SYN), PENDING },
	    { FROM_POD, T(POD_B, 4000, VIP, 80, F_SYN), PENDING },
	    { FROM_NET, T(REMOTE, 4000, POD_B, 80, F_SYN), PENDING },
	    { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), PENDING },
	    { TO_POD, T(OUTSIDE, 4000, POD_B, 80, F_SYN), PENDING } } },
	{ "a pod whose policy is not known, and its own node",
	  0,
	  b_pending,
	  { { TO_POD, T(NODE, 4000, POD_B, 80, F_SYN), .verdict = V_PASS, NEW, .entries = 1 },
	    { FROM_POD, T(POD_B, 80, NODE, 4000, F_SYN | F_ACK), .verdict = V_PASS, FIRST_REPLY,
	      .entries = 1 },
	    { FROM_POD, T(POD_B, 4000, NODE, 10250, F_SYN), .verdict = V_PASS, NEW, .entries = 2 },
	    { TO_NET, T(NODE, 4000, VIP, 80, F_SYN), .verdict = V_REDIRECT, .into = POD_B,
	      .dst = POD_B, .dport = 8080, NEW, .entries = 4 } } },
	{ "flows that began before the pod had to wait go on",
	  0,
	  b_pending,
	  { { FROM_POD, T(POD_A, 4000, POD_B, 8080, F_SYN), TO(POD_B), NEW, .entries = 1,
	      .before = b_not_pending },
	    { FROM_POD, T(POD_B, 8080, POD_A, 4000, F_SYN | F_ACK), TO(POD_A), FIRST_REPLY,
	      .entries = 1, .before = b_pending_again },
	    { FROM_POD, T(POD_A, 4000, POD_B, 8080, F_ACK), TO(POD_B), .entries = 1 } } },
};

void cases_route(struct world *w)
{
	run_cases(w, cases, sizeof(cases) / sizeof(cases[0]));
}
