// SPDX-License-Identifier: Apache-2.0
/* Ports of the node that belong to one pod. */
#include <bpf/bpf.h>
#include "cases.h"

#define SCTP(S, SP, D, DP) { S, D, SP, DP, IPPROTO_SCTP, .payload = 10 }

static void everywhere(struct world *w)
{
	world_hostport(w, ANYBODY, 8000, IPPROTO_TCP, POD_B, 80);
	world_hostport(w, ANYBODY, 8000, IPPROTO_UDP, POD_B, 80);
	world_hostport(w, ANYBODY, 8000, IPPROTO_SCTP, POD_B, 80);
}

static void one_address(struct world *w)
{
	everywhere(w);
	world_hostport(w, EGRESS, 8000, IPPROTO_TCP, POD_C, 81);
}

static void only_one_address(struct world *w)
{
	world_hostport(w, EGRESS, 8000, IPPROTO_TCP, POD_C, 81);
}

static void beside_a_node_port(struct world *w)
{
	const struct backend b = { POD_A, 8080 };

	everywhere(w);
	world_hostport(w, ANYBODY, 30080, IPPROTO_TCP, POD_B, 80);
	world_service(w, 1, ANYBODY, 30080, IPPROTO_TCP, WAG_SVC_NODE_PORT);
	world_backends(w, 1, IPPROTO_TCP, &b, 1);
}

static void moved(struct world *w)
{
	world_hostport(w, ANYBODY, 8000, IPPROTO_TCP, POD_C, 80);
	world_hostport(w, ANYBODY, 8000, IPPROTO_UDP, POD_C, 80);
}

static const struct one_case cases[] = {
	{ "hostPort from outside keeps the client's address",
	  0,
	  everywhere,
	  { { FROM_NET, T(OUTSIDE, 4000, NODE, 8000, F_SYN), TO(POD_B), .dst = POD_B, .dport = 80,
	      NEW, .entries = 2 },
	    { FROM_POD, T(POD_B, 80, OUTSIDE, 4000, F_SYN | F_ACK), ON, .src = NODE,
	      .sport = 8000, FIRST_REPLY, .entries = 2 },
	    { FROM_NET, T(OUTSIDE, 4000, NODE, 8000, F_ACK), TO(POD_B), .dst = POD_B, .dport = 80,
	      .entries = 2 },
	    { FROM_NET, U(OUTSIDE, 4000, NODE, 8000), TO(POD_B), .dst = POD_B, .dport = 80, NEW,
	      .entries = 4 },
	    { FROM_NET, SCTP(OUTSIDE, 4000, EGRESS, 8000), TO(POD_B), .dst = POD_B, .dport = 80,
	      NEW, .entries = 6 } } },
	{ "hostPort from another pod, and from the pod itself",
	  0,
	  everywhere,
	  { { FROM_POD, T(POD_A, 4000, NODE, 8000, F_SYN), TO(POD_B), .dst = POD_B, .dport = 80,
	      NEW, .entries = 2 },
	    { FROM_POD, T(POD_B, 80, POD_A, 4000, F_SYN | F_ACK), TO(POD_A), .src = NODE,
	      .sport = 8000, FIRST_REPLY, .entries = 2 },
	    { FROM_POD, T(POD_B, 4000, EGRESS, 8000, F_SYN), TO(POD_B), .src = NODE, .dst = POD_B,
	      .dport = 80, NEW, .entries = 4 },
	    { FROM_POD, T(POD_B, 80, NODE, 4000, F_SYN | F_ACK), TO(POD_B), .src = EGRESS,
	      .sport = 8000, .dst = POD_B, FIRST_REPLY, .entries = 4 } } },
	{ "hostPort from the node",
	  0,
	  everywhere,
	  { { TO_NET, T(EGRESS, 4000, NODE, 8000, F_SYN), .verdict = V_REDIRECT, .into = POD_B,
	      .dst = POD_B, .dport = 80, NEW, .entries = 2 },
	    { FROM_POD, T(POD_B, 80, EGRESS, 4000, F_SYN | F_ACK), .verdict = V_PASS, .src = NODE,
	      .sport = 8000, FIRST_REPLY, .entries = 2 } } },
	{ "a hostPort of one address goes before one of all",
	  0,
	  one_address,
	  { { FROM_NET, T(OUTSIDE, 4000, EGRESS, 8000, F_SYN), TO(POD_C), .dst = POD_C, .dport = 81,
	      NEW, .entries = 2 },
	    { FROM_NET, T(OUTSIDE, 4000, NODE, 8000, F_SYN), TO(POD_B), .dst = POD_B, .dport = 80,
	      NEW, .entries = 4 } } },
	{ "a hostPort of one address is on no other",
	  0,
	  only_one_address,
	  { { FROM_NET, T(OUTSIDE, 4000, NODE, 8000, F_SYN), .verdict = V_PASS } } },
	{ "a NodePort goes before a hostPort",
	  0,
	  beside_a_node_port,
	  { { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), TO(POD_A), .src = NODE,
	      .dst = POD_A, .dport = 8080, NEW, .entries = 2 } } },
	{ "a hostPort is of the node's addresses and its protocol only",
	  0,
	  only_one_address,
	  { { FROM_NET, T(OUTSIDE, 4000, ROUTER, 8000, F_SYN), .verdict = V_PASS },
	    { FROM_NET, U(OUTSIDE, 4000, EGRESS, 8000), .verdict = V_PASS } } },
	{ "a connection that began before its hostPort is the node's",
	  0,
	  everywhere,
	  { { FROM_NET, T(OUTSIDE, 4000, NODE, 8000, F_ACK), .verdict = V_PASS } } },
	{ "a hostPort's pod is replaced: UDP moves, TCP with a SYN",
	  0,
	  everywhere,
	  { { FROM_NET, U(OUTSIDE, 4000, NODE, 8000), TO(POD_B), .dst = POD_B, .dport = 80, NEW,
	      .entries = 2 },
	    { FROM_NET, T(OUTSIDE, 4000, NODE, 8000, F_SYN), TO(POD_B), .dst = POD_B, .dport = 80,
	      NEW, .entries = 4 },
	    { FROM_NET, U(OUTSIDE, 4000, NODE, 8000), TO(POD_B), .dst = POD_B, .dport = 80,
	      .entries = 4 },
	    { FROM_NET, U(OUTSIDE, 4000, NODE, 8000), TO(POD_C), .dst = POD_C, .dport = 80, NEW,
	      .entries = 4, .before = moved },
	    { FROM_NET, T(OUTSIDE, 4000, NODE, 8000, F_ACK), TO(POD_B), .dst = POD_B, .dport = 80,
	      .entries = 4 },
	    { FROM_NET, T(OUTSIDE, 4000, NODE, 8000, F_SYN), TO(POD_C), .dst = POD_C, .dport = 80,
	      NEW, .entries = 4 } } },
};

void cases_hostport(struct world *w)
{
	run_cases(w, cases, sizeof(cases) / sizeof(cases[0]));
}
