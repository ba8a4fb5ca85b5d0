// SPDX-License-Identifier: Apache-2.0
/* What policies' tables say, and that it holds for flows that live when they change. */
#include <bpf/bpf.h>
#include <string.h>
#include <waggle/abi_policy.h>
#include "cases.h"
#include "policy_tables.h"

#define DENIED .verdict = V_DROP, .reason = WAG_DROP_POLICY_DENIED
#define DENY .verdict = V_DROP, .reason = WAG_DROP_POLICY_DENY
#define UNKNOWN .verdict = V_DROP, .reason = WAG_DROP_IDENTITY_UNKNOWN

#define RULE 7
#define ALLOW WAG_VERDICT(WAG_VERDICT_ALLOW, RULE)
#define REFUSE WAG_VERDICT(WAG_VERDICT_DENY, RULE)
#define ISOLATED WAG_VERDICT(WAG_VERDICT_ISOLATED, RULE)
#define PORTS WAG_VERDICT(WAG_VERDICT_PORTS, 5) /* a profile */

/* ---- what each case begins with ---- */

static void b_lets_in_nobody(struct world *w)
{
	services_tcp(w);
	one_service(w, ANYBODY, IPPROTO_TCP, 5, POD_B);
	policy_epoch(w, 2);
	policy_pod(w, POD_B, INTO, 1, ISOLATED, 0);
}

static void a_reaches_nobody(struct world *w)
{
	services_tcp(w);
	policy_epoch(w, 2);
	policy_pod(w, POD_A, OUT_OF, 1, ISOLATED, 0);
}

static void b_lets_in_a(struct world *w)
{
	b_lets_in_nobody(w);
	policy_identity(w, POD_A, 3, 0);
	policy_rule(w, 1, 3, ALLOW);
}

static void b_lets_in_outside(struct world *w)
{
	b_lets_in_nobody(w);
	policy_identity(w, OUTSIDE, 3, 0);
	policy_rule(w, 1, 3, ALLOW);
}

static void a_is_refused(struct world *w)
{
	policy_epoch(w, 2);
	policy_pod(w, POD_B, INTO, 1, WAG_VERDICT(WAG_VERDICT_ALLOW, 0), 0);
	policy_identity(w, POD_A, 3, 0);
	policy_rule(w, 1, 3, REFUSE);
}

static void remote_is_unknown(struct world *w)
{
	b_lets_in_nobody(w);
	policy_identity(w, REMOTE, 0, WAG_IPCACHE_UNKNOWN);
}

static void b_has_ports(struct world *w)
{
	b_lets_in_nobody(w);
	policy_identity(w, POD_A, 3, 0);
	policy_rule(w, 1, 3, PORTS);
	policy_port(w, 5, 64, 0, 0, ISOLATED);
	policy_port(w, 5, 80, IPPROTO_TCP, 0, ISOLATED);
	policy_port(w, 5, 96, IPPROTO_TCP, 8080, ALLOW);
	policy_port(w, 5, 93, IPPROTO_TCP, 9000, ALLOW); /* 9000 to 9007 */
}

static void b_only_tells(struct world *w)
{
	services_tcp(w);
	policy_epoch(w, 2);
	policy_pod(w, POD_B, INTO, 1, ISOLATED, WAG_POLICY_AUDIT);
}

static void a_reaches_itself(struct world *w)
{
	policy_epoch(w, 2);
	policy_pod(w, POD_A, OUT_OF, 1, ISOLATED, 0);
	one_service(w, VIP, IPPROTO_TCP, 6, POD_A);
}

/* Only the other generation says so. */
static void the_other_one_denies(struct world *w)
{
	struct wag_policy_key key = { .ep_id = POD_B, .gen = 1 };
	struct wag_policy pod = { .ruleset = { 1 }, .verdict = { ISOLATED } };

	services_tcp(w);
	policy_epoch(w, 2);
	bpf_map_update_elem(w->policy, &key, &pod, BPF_ANY);
}

static void it_comes_in_force(struct world *w)
{
	policy_epoch(w, 5);
}

static void a_may_not_any_more(struct world *w)
{
	policy_rule(w, 1, 3, ISOLATED);
	policy_epoch(w, 4);
}

static void a_may_again(struct world *w)
{
	policy_rule(w, 1, 3, ALLOW);
	policy_epoch(w, 5);
}

#define SYN_TO_B T(POD_A, 4000, POD_B, 8080, F_SYN)

static const struct one_case cases[] = {
	{ "policy: nobody reaches a pod that is isolated, but its node",
	  0,
	  b_lets_in_nobody,
	  { { FROM_POD, SYN_TO_B, DENIED },
	    { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), DENIED },
	    { FROM_NET, T(REMOTE, 4000, POD_B, 80, F_SYN), DENIED },
	    { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), DENIED },
	    { TO_POD, T(OUTSIDE, 4000, POD_B, 80, F_SYN), DENIED },
	    { TO_POD, T(NODE, 4000, POD_B, 80, F_SYN), .verdict = V_PASS, NEW, .entries = 1 },
	    { FROM_POD, T(POD_B, 80, NODE, 4000, F_SYN | F_ACK), .verdict = V_PASS, FIRST_REPLY,
	      .entries = 1 },
	    { TO_NET, T(NODE, 4000, VIP, 80, F_SYN), .verdict = V_REDIRECT, .into = POD_B,
	      .dst = POD_B, .dport = 8080, NEW, .entries = 3 } } },
	{ "policy: a pod reaches nobody, and answers",
	  0,
	  a_reaches_nobody,
	  { { FROM_POD, SYN_TO_B, DENIED },
	    { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), DENIED },
	    { FROM_POD, T(POD_A, 4000, NODE, 10250, F_SYN), DENIED },
	    { FROM_POD, U(POD_A, 4000, OUTSIDE, 53), DENIED },
	    { FROM_POD, T(POD_B, 4000, POD_A, 80, F_SYN), TO(POD_A), NEW, .entries = 1 },
	    { FROM_POD, T(POD_A, 80, POD_B, 4000, F_SYN | F_ACK), TO(POD_B), FIRST_REPLY,
	      .entries = 1 } } },
	{ "policy: by identity",
	  0,
	  b_lets_in_a,
	  { { FROM_POD, SYN_TO_B, TO(POD_B), NEW, .entries = 1 },
	    { FROM_POD, T(POD_B, 8080, POD_A, 4000, F_SYN | F_ACK), TO(POD_A), FIRST_REPLY,
	      .entries = 1 },
	    { FROM_POD, T(POD_C, 4000, POD_B, 8080, F_SYN), DENIED, .entries = 1 } } },
	{ "policy: the client of a NodePort is who it is",
	  0,
	  b_lets_in_outside,
	  { { FROM_NET, T(OUTSIDE, 4000, NODE, 30080, F_SYN), TO(POD_B), .src = NODE,
	      .dst = POD_B, .dport = 8080, NEW, .entries = 2 },
	    { FROM_NET, T(REMOTE, 4000, NODE, 30080, F_SYN), DENIED, .entries = 2 } } },
	{ "policy: a rule that denies",
	  0,
	  a_is_refused,
	  { { FROM_POD, SYN_TO_B, DENY },
	    { FROM_POD, T(POD_C, 4000, POD_B, 8080, F_SYN), TO(POD_B), NEW, .entries = 1 } } },
	{ "policy: an address that nobody is known to have",
	  0,
	  remote_is_unknown,
	  { { FROM_NET, T(REMOTE, 4000, POD_B, 80, F_SYN), UNKNOWN },
	    { FROM_NET, T(OUTSIDE, 4000, POD_B, 80, F_SYN), DENIED } } },
	{ "policy: ports, of the backend",
	  0,
	  b_has_ports,
	  { { FROM_POD, SYN_TO_B, TO(POD_B), NEW, .entries = 1 },
	    { FROM_POD, T(POD_A, 4001, VIP, 80, F_SYN), TO(POD_B), .dst = POD_B, .dport = 8080,
	      NEW, .entries = 3 },
	    { FROM_POD, T(POD_A, 4000, POD_B, 8081, F_SYN), DENIED, .entries = 3 },
	    { FROM_POD, U(POD_A, 4000, POD_B, 8080), DENIED, .entries = 3 },
	    { FROM_POD, T(POD_A, 4000, POD_B, 9007, F_SYN), TO(POD_B), NEW, .entries = 4 },
	    { FROM_POD, T(POD_A, 4000, POD_B, 9008, F_SYN), DENIED, .entries = 4 },
	    { FROM_POD,
	      { POD_A, POD_B, .proto = 47, .payload = 20 },
	      DENIED,
	      .entries = 4 } } },
	{ "policy: a pod in audit mode",
	  0,
	  b_only_tells,
	  { { FROM_POD, SYN_TO_B, TO(POD_B), NEW, .entries = 1 } } },
	{ "policy: a pod reaches itself",
	  0,
	  a_reaches_itself,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), TO(POD_A), .src = NODE, .dst = POD_A,
	      .dport = 8080, NEW, .entries = 2 },
	    { FROM_POD, T(POD_A, 4000, POD_B, 80, F_SYN), DENIED, .entries = 2 } } },
	{ "policy: a generation counts once the epoch names it",
	  0,
	  the_other_one_denies,
	  { { FROM_POD, SYN_TO_B, TO(POD_B), NEW, .entries = 1 },
	    { FROM_POD, T(POD_C, 4000, POD_B, 8080, F_SYN), DENIED, .entries = 1,
	      .before = it_comes_in_force } } },
	{ "policy: a change bites on the next packet of a live flow, either way",
	  0,
	  b_lets_in_a,
	  { { FROM_POD, SYN_TO_B, TO(POD_B), NEW, .entries = 1 },
	    { FROM_POD, T(POD_B, 8080, POD_A, 4000, F_SYN | F_ACK), TO(POD_A), FIRST_REPLY,
	      .entries = 1 },
	    { FROM_POD, T(POD_A, 4000, POD_B, 8080, F_ACK), DENIED, .entries = 1,
	      .before = a_may_not_any_more },
	    { FROM_POD, T(POD_B, 8080, POD_A, 4000, F_ACK), DENIED, .entries = 1 },
	    { FROM_POD, T(POD_B, 8080, POD_A, 4000, F_ACK), TO(POD_A), .entries = 1,
	      .before = a_may_again },
	    { FROM_POD, T(POD_A, 4000, POD_B, 8080, F_ACK), TO(POD_B), .entries = 1 } } },
	{ "policy: and of one to a Service",
	  0,
	  b_lets_in_a,
	  { { FROM_POD, T(POD_A, 4000, VIP, 80, F_SYN), TO(POD_B), .dst = POD_B, .dport = 8080,
	      NEW, .entries = 2 },
	    { FROM_POD, T(POD_B, 8080, POD_A, 4000, F_SYN | F_ACK), TO(POD_A), .src = VIP,
	      .sport = 80, FIRST_REPLY, .entries = 2 },
	    { FROM_POD, T(POD_B, 8080, POD_A, 4000, F_ACK), DENIED, .entries = 2,
	      .before = a_may_not_any_more },
	    { FROM_POD, T(POD_A, 4000, VIP, 80, F_ACK), DENIED, .entries = 2 },
	    { FROM_POD, T(POD_A, 4000, VIP, 80, F_ACK), TO(POD_B), .dst = POD_B, .dport = 8080,
	      .entries = 2, .before = a_may_again },
	    { FROM_POD, T(POD_B, 8080, POD_A, 4000, F_ACK), TO(POD_A), .src = VIP, .sport = 80,
	      .entries = 2 } } },
};

/* ---- what no table of steps shows ---- */

static int sends(struct world *w, const struct spec *s)
{
	struct frame in, out;

	frame_build(&in, s, w->v6);
	return world_run(w, FROM_POD, &in, &out);
}

static void cached_flow(struct world *w, bool v6)
{
	const struct spec syn = SYN_TO_B, ack = T(POD_A, 4000, POD_B, 8080, F_ACK);
	const struct spec back = T(POD_B, 8080, POD_A, 4000, F_SYN | F_ACK);

	test_begin();
	world_reset(w, v6);
	b_lets_in_a(w);
	sends(w, &syn);
	sends(w, &back);
	for (int i = 0; i < 64; i++)
		expect(sends(w, &ack) == V_REDIRECT, "a packet before the change");
	a_may_not_any_more(w);
	expect(sends(w, &ack) == V_DROP, "the next packet goes by the flow cache");
	test_end("policy: a change bites past the flow cache, %s", v6 ? "IPv6" : "IPv4");
}

static void events_and_counters(struct world *w, bool v6)
{
	const struct spec syn = SYN_TO_B, other = T(POD_C, 4000, POD_B, 8080, F_SYN);
	__u64 bytes = 0;

	test_begin();
	world_reset(w, v6);
	b_lets_in_a(w);
	bytes = world_rule_packets(w, RULE);
	sends(w, &syn);
	world_drain(w);
	expect(w->events[0].policy[INTO] == ALLOW, "an allowed flow says 0x%x",
	       w->events[0].policy[INTO]);
	expect(w->events[0].policy[OUT_OF] == 0 && w->events[0].epoch == 2,
	       "what is not judged has no rule");
	sends(w, &other);
	world_drain(w);
	expect(w->events[0].policy[INTO] == ISOLATED, "a denied flow says 0x%x",
	       w->events[0].policy[INTO]);
	expect(world_rule_packets(w, RULE) == bytes + 2, "rule 7 was not counted twice");
	b_only_tells(w);
	sends(w, &other);
	world_drain(w);
	expect(w->events[0].flags & WAG_EVENT_F_AUDIT && !w->events[0].reason,
	       "audit does not tell");
	test_end("policy: events name the rules, rules count, %s", v6 ? "IPv6" : "IPv4");
}

void cases_policy(struct world *w)
{
	struct wag_config strict;
	struct world s;

	run_cases(w, cases, sizeof(cases) / sizeof(cases[0]));
	for (int v6 = 0; v6 < 2; v6++) {
		cached_flow(w, v6);
		events_and_counters(w, v6);
	}
	/* Without the node's privilege. */
	strict = w->cfg;
	strict.policy = 0;
	test_begin();
	if (expect(world_open(&s, &strict) == 0, "a world that is strict")) {
		const struct step probe = { TO_POD, T(NODE, 4000, POD_B, 80, F_SYN), DENIED };

		world_reset(&s, false);
		b_lets_in_nobody(&s);
		run_step(&s, &probe);
		world_close(&s);
	}
	test_end("policy: its own node too, where that is asked for");
}
