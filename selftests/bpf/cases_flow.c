// SPDX-License-Identifier: Apache-2.0
/* Flows through Services: who answers, what the client sees, what is remembered. */
#include <bpf/bpf.h>
#include "cases.h"

void one_service(struct world *w, enum who vip, __u8 proto, __u32 index, enum who who)
{
	const struct backend b = { who, 8080 };

	world_service(w, index, vip, vip == ANYBODY ? 30080 : 80, proto,
		      vip == ANYBODY ? WAG_SVC_NODE_PORT : WAG_SVC_CLUSTER_IP);
	world_backends(w, index, proto, &b, 1);
}

static void to_self(struct world *w)
{
	one_service(w, VIP, IPPROTO_TCP, 1, POD_A);
}

void to_remote(struct world *w)
{
	one_service(w, VIP, IPPROTO_TCP, 1, REMOTE);
	one_service(w, ANYBODY, IPPROTO_TCP, 2, REMOTE);
}

void to_unrouted(struct world *w)
{
	one_service(w, VIP, IPPROTO_TCP, 1, UNROUTED);
	one_service(w, ANYBODY, IPPROTO_TCP, 2, UNROUTED);
}

static void to_host(struct world *w)
{
	one_service(w, VIP, IPPROTO_TCP, 1, NODE);
	one_service(w, ANYBODY, IPPROTO_TCP, 2, NODE);
}

static void node_port(struct world *w)
{
	one_service(w, ANYBODY, IPPROTO_TCP, 1, POD_B);
	one_service(w, ANYBODY, IPPROTO_UDP, 2, POD_B);
}

/* One backend, which is here: the whole range is the local set too. */
static void local_node_port(struct world *w)
{
	struct wag_slot_head head = { .local_count = 1, .svc_id = 1001 };
	struct wag_svc_state state;
	__u32 index = 1, at;

	one_service(w, ANYBODY, IPPROTO_TCP, 1, POD_B);
	bpf_map_lookup_elem(w->svc_state, &index, &state);
	at = WAG_SLOTS_BASE(state.slots) - 1;
	bpf_map_update_elem(w->slot, &at, &head, BPF_ANY);
	state.slots = WAG_SLOTS(at, 2, WAG_SLOTS_HEAD | WAG_SLOTS_EXTERNAL_LOCAL);
	bpf_map_update_elem(w->svc_state, &index, &state, BPF_ANY);
}

static void two_vips(struct world *w)
{
	one_service(w, VIP, IPPROTO_TCP, 1, POD_B);
	one_service(w, VIP2, IPPROTO_TCP, 2, POD_B);
}

/* The slots change, wag_backend keeps the old one: a live connection's is still known. */
static void now_pod_c(struct world *w)
{
	const struct backend b = { POD_C, 8080 };

	world_backends(w, 1, IPPROTO_TCP, &b, 1);
	world_backends(w, 2, IPPROTO_UDP, &b, 1);
}

static void pod_b_gone(struct world *w)
{
	now_pod_c(w);
	world_backend_gone(w, 1, IPPROTO_TCP, POD_B, 8080);
	world_backend_gone(w, 2, IPPROTO_UDP, POD_B, 8080);
}

static void foreign_slot(struct world *w)
{
	const struct backend b = { POD_C, 8080 };
	const struct wag_svc_state other = { .slots = WAG_SLOTS(72, 1, 0), .svc_id = 7 };
	__u32 index = 1;

	services_tcp(w);
	world_backends(w, 9, IPPROTO_TCP, &b, 1);
	bpf_map_update_elem(w->svc_state, &index, &other, BPF_ANY);
}

static void freed_state(struct world *w)
{
	const struct wag_svc_state none = {};
	__u32 index = 1;

	services_tcp(w);
	bpf_map_update_elem(w->svc_state, &index, &none, BPF_ANY);
}

static void migrating(struct world *w)
{
	services_tcp(w);
	world_runtime(w, false, true);
}

static void migrated(struct world *w)
{
	world_runtime(w, false, false);
}

static const struct one_case cases[] = {
	{ "pod to ClusterIP and back, TCP",
	  0,
	  services_tcp,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), TO(POD_B), .dst = POD_B, .dport = 8080, NEW,
	      .entries = 2 },
	    { FROM_POD, T(POD_B, 8080, POD_A, 4000, F_SYN | F_ACK), TO(POD_A), .src = VIP,
	      .sport = 80, FIRST_REPLY, .entries = 2 },
	    { FROM_POD, T(POD_A, 4000, VIP, 80, F_ACK), TO(POD_B), .dst = POD_B, .dport = 8080,
	      .entries = 2 },
	    { FROM_POD, T(POD_B, 8080, POD_A, 4000, F_ACK), TO(POD_A), .src = VIP, .sport = 80,
	      .entries = 2 } } },
	{ "pod to ClusterIP and back, UDP",
	  0,
	  services_tcp,
	  { { FROM_POD, U(POD_A, 4000, VIP, 80), TO(POD_B), .dst = POD_B, .dport = 8080, NEW,
	      .entries = 2 },
	    { FROM_POD, U(POD_B, 8080, POD_A, 4000), TO(POD_A), .src = VIP, .sport = 80,
	      FIRST_REPLY, .entries = 2 } } },
	{ "pod to ClusterIP, UDP without a checksum",
	  ONLY_V4,
	  services_tcp,
	  { { FROM_POD,
	      { POD_A, VIP, 4000, 80, IPPROTO_UDP, .no_check = true, .payload = 9 },
	      TO(POD_B),
	      .dst = POD_B,
	      .dport = 8080,
	      NEW,
	      .entries = 2 } } },
	{ "pod to ClusterIP and back, SCTP: CRC32c",
	  0,
	  services_tcp,
	  { { FROM_POD,
	      { POD_A, VIP, 4000, 80, IPPROTO_SCTP, .payload = 16 },
	      TO(POD_B),
	      .dst = POD_B,
	      .dport = 8080,
	      NEW,
	      .entries = 2 },
	    { FROM_POD,
	      { POD_B, POD_A, 8080, 4000, IPPROTO_SCTP, .payload = 1400 },
	      TO(POD_A),
	      .src = VIP,
	      .sport = 80,
	      FIRST_REPLY,
	      .entries = 2 },
	    { FROM_POD,
	      { POD_A, VIP, 4000, 80, IPPROTO_SCTP, .payload = 333, .no_check = true },
	      TO(POD_B),
	      .dst = POD_B,
	      .dport = 8080,
	      .entries = 2 },
	    { FROM_POD,
	      { POD_A, VIP, 4000, 80, IPPROTO_SCTP },
	      TO(POD_B),
	      .dst = POD_B,
	      .dport = 8080,
	      .entries = 2 } } },
	{ "pod to pod",
	  0,
	  services_tcp,
	  { { FROM_POD, T(POD_A, 4000, POD_B, 8080, F_SYN), TO(POD_B), NEW, .entries = 1 },
	    { FROM_POD, T(POD_B, 8080, POD_A, 4000, F_SYN | F_ACK), TO(POD_A), FIRST_REPLY,
	      .entries = 1 } } },
	{ "pod to pod, echo",
	  ONLY_V4,
	  NULL,
	  { { FROM_POD,
	      { POD_A, POD_B, 9, .proto = IPPROTO_ICMP, .icmp_type = 8 },
	      TO(POD_B),
	      NEW,
	      .entries = 1 },
	    { FROM_POD,
	      { POD_B, POD_A, 0, 9, .proto = IPPROTO_ICMP },
	      TO(POD_A),
	      FIRST_REPLY,
	      .entries = 1 } } },
	{ "pod to pod, echo",
	  ONLY_V6,
	  NULL,
	  { { FROM_POD,
	      { POD_A, POD_B, 9, .proto = IPPROTO_ICMP, .icmp_type = 128 },
	      TO(POD_B),
	      NEW,
	      .entries = 1 },
	    { FROM_POD,
	      { POD_B, POD_A, 0, 9, .proto = IPPROTO_ICMP, .icmp_type = 129 },
	      TO(POD_A),
	      FIRST_REPLY,
	      .entries = 1 } } },
	{ "pod to outside, an unknown protocol",
	  0,
	  NULL,
	  { { FROM_POD,
	      { POD_A, OUTSIDE, .proto = 47, .payload = 20 },
	      .verdict = V_REDIRECT,
	      .hops = 1,
	      NEW,
	      .entries = 1 } } },
	{ "a used up TTL is the stack's to answer",
	  0,
	  services_tcp,
	  { { FROM_POD,
	      { POD_A, POD_B, 4000, 8080, IPPROTO_TCP, F_SYN, .ttl = 1 },
	      .verdict = V_PASS,
	      NEW,
	      .entries = 1 } } },
	{ "outside to a pod through the stack, and back",
	  0,
	  NULL,
	  { { TO_POD, T(OUTSIDE, 4000, POD_A, 22, F_SYN), .verdict = V_PASS, NEW, .entries = 1 },
	    { FROM_POD, T(POD_A, 22, OUTSIDE, 4000, F_SYN | F_ACK), .verdict = V_REDIRECT,
	      .hops = 1, FIRST_REPLY, .entries = 1 } } },
	{ "hairpin: a pod behind its own Service",
	  0,
	  to_self,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), TO(POD_A), .src = NODE, .dst = POD_A,
	      .dport = 8080, NEW, .entries = 2 },
	    { FROM_POD, T(POD_A, 8080, NODE, 4000, F_SYN | F_ACK), TO(POD_A), .src = VIP,
	      .sport = 80, .dst = POD_A, FIRST_REPLY, .entries = 2 } } },
	{ "NodePort from outside gets the node's address",
	  0,
	  node_port,
	  { { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), TO(POD_B), .src = NODE,
	      .dst = POD_B, .dport = 8080, NEW, .entries = 2 },
	    { FROM_POD, T(POD_B, 8080, NODE, 4000, F_SYN | F_ACK), .verdict = V_REDIRECT,
	      .hops = 1, .src = NODE, .sport = 30080, .dst = OUTSIDE, FIRST_REPLY, .entries = 2 },
	    { FROM_NET, U(OUTSIDE, 4000, NODE, 30080), TO(POD_B), .src = NODE, .dst = POD_B,
	      .dport = 8080, NEW, .entries = 4 } } },
	{ "NodePort from outside keeps the client's address under a Local policy",
	  0,
	  local_node_port,
	  { { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), TO(POD_B), .dst = POD_B,
	      .dport = 8080, NEW, .entries = 2 },
	    { FROM_POD, T(POD_B, 8080, OUTSIDE, 4000, F_SYN | F_ACK), .verdict = V_REDIRECT,
	      .hops = 1, .src = NODE, .sport = 30080, FIRST_REPLY, .entries = 2 } } },
	{ "NodePort from a pod",
	  0,
	  node_port,
	  { { FROM_POD, T(POD_A, 4000, NODE, 30080, F_SYN), TO(POD_B), .src = NODE, .dst = POD_B,
	      .dport = 8080, NEW, .entries = 2 },
	    { FROM_POD, T(POD_B, 8080, NODE, 4000, F_SYN | F_ACK), TO(POD_A), .src = NODE,
	      .sport = 30080, .dst = POD_A, FIRST_REPLY, .entries = 2 } } },
	{ "NodePort from outside to a backend in the node's namespace",
	  0,
	  to_host,
	  { { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), .verdict = V_PASS, .dport = 8080, NEW,
	      .entries = 2 },
	    { TO_NET, T(NODE, 8080, OUTSIDE, 4000, F_SYN | F_ACK), .verdict = V_PASS,
	      .sport = 30080, FIRST_REPLY, .entries = 2 } } },
	{ "NodePort from outside to another machine is masqueraded",
	  0,
	  to_remote,
	  { { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), .verdict = V_REDIRECT, .hops = 1,
	      .src = NODE, .dst = REMOTE, .dport = 8080, NEW, .entries = 2 },
	    { FROM_NET, T(REMOTE, 8080, NODE, 4000, F_SYN | F_ACK), .verdict = V_REDIRECT,
	      .hops = 1, .src = NODE, .sport = 30080, .dst = OUTSIDE, FIRST_REPLY,
	      .entries = 2 } } },
	{ "the node to ClusterIP and back",
	  0,
	  services_tcp,
	  { { TO_NET, T(NODE, 4000, VIP, 80, F_SYN), .verdict = V_REDIRECT, .into = POD_B,
	      .dst = POD_B, .dport = 8080, NEW, .entries = 2 },
	    { FROM_POD, T(POD_B, 8080, NODE, 4000, F_SYN | F_ACK), .verdict = V_PASS, .src = VIP,
	      .sport = 80, FIRST_REPLY, .entries = 2 } } },
	{ "the node to a backend in its own namespace",
	  0,
	  to_host,
	  { { TO_NET, T(NODE, 4000, VIP, 80, F_SYN), .verdict = V_REDIRECT, .macs_zero = true,
	      .dst = NODE, .dport = 8080, NEW, .entries = 2 } } },
	{ "the node to a backend on another machine",
	  0,
	  to_remote,
	  { { TO_NET, T(NODE, 4000, VIP, 80, F_SYN), .verdict = V_REDIRECT, .dst = REMOTE,
	      .dport = 8080, NEW, .entries = 2 } } },
	{ "other people's packets at the node's devices",
	  0,
	  services_tcp,
	  { { FROM_NET, T(OUTSIDE, 4000, NODE, 22, F_SYN), .verdict = V_PASS },
	    { FROM_NET, T(OUTSIDE, 4000, ROUTER, 22, F_SYN), .verdict = V_PASS },
	    { TO_NET, T(NODE, 22, OUTSIDE, 4000, F_ACK), .verdict = V_PASS } } },
	{ "two VIPs, one client port, one backend",
	  0,
	  two_vips,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), TO(POD_B), .dst = POD_B, .dport = 8080, NEW,
	      .entries = 2 },
	    { FROM_POD, T(POD_A, 4000, VIP2, 80, F_SYN), TO(POD_B), .dst = POD_B, .dport = 8080,
	      .any_sport = true, NEW, .entries = 4 },
	    { FROM_POD, T(POD_B, 8080, POD_A, 0, F_SYN | F_ACK), .to_chosen_port = true, TO(POD_A),
	      .src = VIP2, .sport = 80, .dport = 4000, FIRST_REPLY, .entries = 4 },
	    { FROM_POD, T(POD_B, 8080, POD_A, 4000, F_SYN | F_ACK), TO(POD_A), .src = VIP,
	      .sport = 80, FIRST_REPLY, .entries = 4 },
	    { FROM_POD, T(POD_A, 4000, VIP2, 80, F_ACK), TO(POD_B), .dst = POD_B, .dport = 8080,
	      .chosen_sport = true, .entries = 4 } } },
	{ "a direct flow whose tuple a translated one owns",
	  0,
	  services_tcp,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), TO(POD_B), .dst = POD_B, .dport = 8080, NEW,
	      .entries = 2 },
	    { FROM_POD, T(POD_A, 4000, POD_B, 8080, F_SYN), TO(POD_B), .any_sport = true, NEW,
	      .entries = 4 },
	    { FROM_POD, T(POD_B, 8080, POD_A, 0, F_SYN | F_ACK), .to_chosen_port = true, TO(POD_A),
	      .src = POD_B, .sport = 8080, .dport = 4000, FIRST_REPLY, .entries = 4 },
	    { FROM_POD, T(POD_A, 4000, POD_B, 8080, F_ACK), TO(POD_B), .chosen_sport = true,
	      .entries = 4 },
	    { FROM_POD, T(POD_B, 8080, POD_A, 4000, F_SYN | F_ACK), TO(POD_A), .src = VIP,
	      .sport = 80, FIRST_REPLY, .entries = 4 } } },
	{ "what the stack brings a pod after its translation is not looked at again",
	  0,
	  services_tcp,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), TO(POD_B), .dst = POD_B, .dport = 8080, NEW,
	      .entries = 2 },
	    { TO_POD, T(POD_B, 8080, POD_A, 4000, F_SYN | F_ACK), .verdict = V_PASS,
	      .mark = WAG_MARK_TRANSLATED, .uncounted = true, .entries = 2 },
	    { TO_POD, T(POD_B, 8080, POD_A, 4000, F_SYN | F_ACK), .verdict = V_PASS, .src = VIP,
	      .sport = 80, FIRST_REPLY, .entries = 2 } } },
	{ "a live connection keeps its backend",
	  0,
	  services_tcp,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), TO(POD_B), .dst = POD_B, .dport = 8080, NEW,
	      .entries = 2 },
	    { FROM_POD, T(POD_A, 4000, VIP, 80, F_ACK), TO(POD_B), .dst = POD_B, .dport = 8080,
	      .entries = 2, .before = now_pod_c },
	    { FROM_POD, T(POD_A, 4001, VIP, 80, F_SYN), TO(POD_C), .dst = POD_C, .dport = 8080, NEW,
	      .entries = 4 },
	    { FROM_POD, T(POD_A, 4000, VIP, 80, F_ACK), TO(POD_B), .dst = POD_B, .dport = 8080,
	      .entries = 4, .before = pod_b_gone },
	    { FROM_POD, T(POD_B, 8080, POD_A, 4000, F_ACK), TO(POD_A), .src = VIP, .sport = 80,
	      FIRST_REPLY, .entries = 4 } } },
	{ "a SYN to a backend that has left picks another",
	  0,
	  services_tcp,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), TO(POD_B), .dst = POD_B, .dport = 8080, NEW,
	      .entries = 2 },
	    { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), TO(POD_B), .dst = POD_B, .dport = 8080,
	      .entries = 2, .before = now_pod_c },
	    { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), TO(POD_C), .dst = POD_C, .dport = 8080, NEW,
	      .entries = 2, .before = pod_b_gone } } },
	{ "a SYN after FIN picks anew",
	  0,
	  services_tcp,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), TO(POD_B), .dst = POD_B, .dport = 8080, NEW,
	      .entries = 2 },
	    { FROM_POD, T(POD_A, 4000, VIP, 80, F_FIN | F_ACK), TO(POD_B), .dst = POD_B,
	      .dport = 8080, .entries = 2 },
	    { FROM_POD, T(POD_B, 8080, POD_A, 4000, F_FIN | F_ACK), TO(POD_A), .src = VIP,
	      .sport = 80, FIRST_REPLY, .entries = 2 },
	    { FROM_POD, T(POD_A, 4000, VIP, 80, F_ACK), TO(POD_B), .dst = POD_B, .dport = 8080,
	      .entries = 2, .before = now_pod_c },
	    { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), TO(POD_C), .dst = POD_C, .dport = 8080, NEW,
	      .entries = 2 } } },
	{ "a SYN after the backend's RST picks anew",
	  0,
	  services_tcp,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), TO(POD_B), .dst = POD_B, .dport = 8080, NEW,
	      .entries = 2 },
	    { FROM_POD, T(POD_B, 8080, POD_A, 4000, F_RST | F_ACK), TO(POD_A), .src = VIP,
	      .sport = 80, FIRST_REPLY, .entries = 2 },
	    { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), TO(POD_C), .dst = POD_C, .dport = 8080, NEW,
	      .entries = 2, .before = now_pod_c } } },
	{ "UDP moves when its backend has left",
	  0,
	  services_tcp,
	  { { FROM_POD, U(POD_A, 4000, VIP, 80), TO(POD_B), .dst = POD_B, .dport = 8080, NEW,
	      .entries = 2 },
	    { FROM_POD, U(POD_A, 4000, VIP, 80), TO(POD_B), .dst = POD_B, .dport = 8080,
	      .entries = 2, .before = now_pod_c },
	    { FROM_POD, U(POD_A, 4000, VIP, 80), TO(POD_C), .dst = POD_C, .dport = 8080, NEW,
	      .entries = 2, .before = pod_b_gone } } },
	{ "a slot of another Service",
	  0,
	  foreign_slot,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), .verdict = V_DROP,
	      .reason = WAG_DROP_SLOT_MISMATCH } } },
	{ "a frontend whose state is free is not a Service",
	  0,
	  freed_state,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), .verdict = V_PASS, NEW, .entries = 1 } } },
	{ "unknown flows wait while conntrack is carried over, new ones do not",
	  0,
	  migrating,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_ACK), .verdict = V_DROP,
	      .reason = WAG_DROP_CT_MIGRATING },
	    { FROM_POD, U(POD_A, 4000, VIP, 80), .verdict = V_DROP,
	      .reason = WAG_DROP_CT_MIGRATING },
	    { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), TO(POD_B), .dst = POD_B, .dport = 8080, NEW,
	      .entries = 2 },
	    { FROM_POD, T(POD_A, 4000, VIP, 80, F_ACK), TO(POD_B), .dst = POD_B, .dport = 8080,
	      .entries = 2 },
	    { FROM_POD, U(POD_A, 4000, VIP, 80), TO(POD_B), .dst = POD_B, .dport = 8080, NEW,
	      .entries = 4, .before = migrated } } },
};

void cases_flow(struct world *w)
{
	run_cases(w, cases, sizeof(cases) / sizeof(cases[0]));
}
