// SPDX-License-Identifier: Apache-2.0
/*
 * How many helpers a packet calls. Policies cost an established packet none: it makes the same
 * calls with them and without. A new flow pays for each end that policies select, whatever their
 * number. The programs are those of the agent, compiled so that they count (counted/).
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <waggle/abi_policy.h>

#include "counted/counted.h"
#include "policy_tables.h"
#include "hook_net.skel.h"
#include "hook_pod.skel.h"

#define RULESET 1
#define PROFILE 5
#define IDENTITY 3
#define MANY 10000
#define WARM_PACKETS 64 /* of which only one in 16 asks the flow cache until it has paid */
#define PACKETS 256 /* so many that the flow cache has the flow for some of them */
/* wag_policy, wag_rule, wag_port_exact, and the rule's counter in wag_rule_stat */
#define LOOKUPS_OF_AN_END 4

#define ALLOW WAG_VERDICT(WAG_VERDICT_ALLOW, 7)
#define ISOLATED WAG_VERDICT(WAG_VERDICT_ISOLATED, 7)

#define SPEC(S, SP, D, DP, FLAGS) { S, D, SP, DP, IPPROTO_TCP, FLAGS, .payload = 11 }

enum policies { NONE, ONE_RULE, MANY_RULES, POLICIES };

struct calls {
	__u64 n[COUNTED_KINDS];
};

struct way {
	enum hook hook;
	struct spec first, later;
	int verdict;
	bool cached; /* the flow cache knows it by heart */
};

static const struct flow {
	const char *name;
	unsigned ends; /* that are pods of this node: only of two it is known without wag_ipcache */
	struct way there, back;
} flows[] = {
	{ "pod to pod", 2,
	  { FROM_POD, SPEC(POD_A, 4000, POD_B, 8080, F_SYN), SPEC(POD_A, 4000, POD_B, 8080, F_ACK),
	    V_REDIRECT, true },
	  { FROM_POD, SPEC(POD_B, 8080, POD_A, 4000, F_SYN | F_ACK),
	    SPEC(POD_B, 8080, POD_A, 4000, F_ACK), V_REDIRECT, true } },
	{ "pod to a Service's pod", 2,
	  { FROM_POD, SPEC(POD_A, 4000, VIP, 80, F_SYN), SPEC(POD_A, 4000, VIP, 80, F_ACK),
	    V_REDIRECT, true },
	  { FROM_POD, SPEC(POD_B, 8080, POD_A, 4000, F_SYN | F_ACK),
	    SPEC(POD_B, 8080, POD_A, 4000, F_ACK), V_REDIRECT, true } },
	{ "from the net to a pod", 1,
	  { FROM_NET, SPEC(REMOTE, 4000, POD_B, 8080, F_SYN),
	    SPEC(REMOTE, 4000, POD_B, 8080, F_ACK), V_REDIRECT, true },
	  { FROM_POD, SPEC(POD_B, 8080, REMOTE, 4000, F_SYN | F_ACK),
	    SPEC(POD_B, 8080, REMOTE, 4000, F_ACK), V_REDIRECT } },
	{ "the stack to a pod", 1,
	  { TO_POD, SPEC(REMOTE, 4000, POD_B, 8080, F_SYN), SPEC(REMOTE, 4000, POD_B, 8080, F_ACK),
	    V_PASS },
	  { FROM_POD, SPEC(POD_B, 8080, REMOTE, 4000, F_SYN | F_ACK),
	    SPEC(POD_B, 8080, REMOTE, 4000, F_ACK), V_REDIRECT } },
};

/* What a flow's packets have called. */
struct costs {
	struct calls first, there, back;
};

static struct calls called(struct world *w)
{
	struct calls c;

	for (int k = 0; k < COUNTED_KINDS; k++)
		c.n[k] = w->pod->bss->counted[k] + w->net->bss->counted[k];
	return c;
}

static struct calls sent(struct world *w, const struct way *way, const struct spec *spec)
{
	struct calls before = called(w), after;
	struct frame in, out;
	int v;

	frame_build(&in, spec, w->v6);
	v = world_run(w, way->hook, &in, &out);
	after = called(w);
	expect(v == way->verdict, "verdict %d", v);
	for (int k = 0; k < COUNTED_KINDS; k++)
		after.n[k] -= before.n[k];
	return after;
}

static void fill(struct world *w)
{
	const __u32 allow = ALLOW;

	for (__u32 i = 0; i < MANY; i++) {
		struct wag_rule_key rule = { .ruleset = RULESET, .identity = IDENTITY + 1 + i };
		struct wag_port_key port = { .bits = 96, .profile = PROFILE,
					     .proto = htons(IPPROTO_TCP),
					     .port = htons(20000 + i) };
		struct wag_ipcache_key addr = { .bits = 160 };
		const struct wag_ipcache who = { rule.identity, 0 };

		addr.addr[0] = htonl(0x20010db8);
		addr.addr[3] = htonl(i);
		if (!expect(!bpf_map_update_elem(w->rule, &rule, &allow, BPF_ANY) &&
				    !bpf_map_update_elem(w->port_exact, &port, &allow, BPF_ANY) &&
				    !bpf_map_update_elem(w->ipcache, &addr, &who, BPF_ANY),
			    "rule %u", i))
			return;
	}
}

static void begin(struct world *w, bool v6, enum policies policies)
{
	const enum who everybody[] = { POD_A, POD_B, REMOTE };
	const struct backend b = { POD_B, 8080 };

	world_reset(w, v6);
	world_service(w, 1, VIP, 80, IPPROTO_TCP, WAG_SVC_CLUSTER_IP);
	world_backends(w, 1, IPPROTO_TCP, &b, 1);
	if (policies == NONE)
		return;
	policy_epoch(w, 2);
	policy_pod(w, POD_A, OUT_OF, RULESET, ISOLATED, 0);
	policy_pod(w, POD_B, INTO, RULESET, ISOLATED, 0);
	policy_pod_identity(w, POD_A, IDENTITY);
	policy_pod_identity(w, POD_B, IDENTITY);
	for (size_t i = 0; i < sizeof(everybody) / sizeof(everybody[0]); i++)
		policy_identity(w, everybody[i], IDENTITY, 0);
	policy_rule(w, RULESET, IDENTITY, WAG_VERDICT(WAG_VERDICT_PORTS, PROFILE));
	policy_port(w, PROFILE, 96, IPPROTO_TCP, 8080, ALLOW);
	if (policies == MANY_RULES)
		fill(w);
}

static __u64 all(const struct calls *c)
{
	__u64 sum = 0;

	for (int k = 0; k < COUNTED_KINDS; k++)
		sum += c->n[k];
	return sum;
}

static void keep_least(struct calls *least, struct calls c)
{
	if (!all(least) || all(&c) < all(least))
		*least = c;
}

/* Of the established packets those count that called least: by the flow cache, where it is. */
static struct costs measure(struct world *w, const struct flow *f)
{
	struct costs c = { 0 };

	c.first = sent(w, &f->there, &f->there.first);
	sent(w, &f->back, &f->back.first);
	for (int i = 0; i < WARM_PACKETS + PACKETS; i++) {
		struct calls there = sent(w, &f->there, &f->there.later);
		struct calls back = sent(w, &f->back, &f->back.later);

		if (i < WARM_PACKETS)
			continue;
		keep_least(&c.there, there);
		keep_least(&c.back, back);
	}
	return c;
}

static __u64 lookups_of(const struct flow *f)
{
	return f->ends * LOOKUPS_OF_AN_END + (f->ends == 1);
}

static void same(const char *what, const struct calls *with, const struct calls *without)
{
	static const char *const kinds[COUNTED_KINDS] = { "lookups", "changes", "other calls" };

	for (int k = 0; k < COUNTED_KINDS; k++)
		expect(with->n[k] == without->n[k], "%s: %llu %s, %llu without policies", what,
		       with->n[k], kinds[k], without->n[k]);
}

/* The tables change: the next packet is judged, those after it are not. */
static void after_a_change(struct world *w, const struct flow *f, const struct costs *c)
{
	__u64 lookups;

	policy_epoch(w, 4);
	lookups = sent(w, &f->there, &f->there.later).n[COUNTED_LOOKUP];
	expect(lookups >= c->there.n[COUNTED_LOOKUP] + lookups_of(f),
	       "%llu lookups of the first packet after a change", lookups);
	lookups = ~0ULL;
	for (int i = 0; i < PACKETS && lookups != c->there.n[COUNTED_LOOKUP]; i++)
		lookups = sent(w, &f->there, &f->there.later).n[COUNTED_LOOKUP];
	expect(lookups == c->there.n[COUNTED_LOOKUP], "%llu lookups long after a change", lookups);
}

static void run_flow(struct world *w, const struct flow *f, bool v6, bool cache)
{
	struct costs c[POLICIES];

	test_begin();
	for (int p = 0; p < POLICIES; p++) {
		begin(w, v6, p);
		c[p] = measure(w, f);
		expect(c[p].there.n[COUNTED_LOOKUP] > 0 && c[p].first.n[COUNTED_CHANGE] > 0,
		       "nothing is counted");
	}
	for (int p = ONE_RULE; p < POLICIES; p++) {
		same("there", &c[p].there, &c[NONE].there);
		if (!cache || f->back.cached)
			same("back", &c[p].back, &c[NONE].back);
		expect(c[p].first.n[COUNTED_LOOKUP] ==
			       c[NONE].first.n[COUNTED_LOOKUP] + lookups_of(f),
		       "a new flow makes %llu lookups, %llu without policies",
		       c[p].first.n[COUNTED_LOOKUP], c[NONE].first.n[COUNTED_LOOKUP]);
	}
	after_a_change(w, f, &c[MANY_RULES]);
	test_end("calls: %s, %s%s: as many with policies", f->name, v6 ? "IPv6" : "IPv4",
		 cache ? ", by the flow cache" : "");
	printf("lookups: %llu there, %llu back; a new flow %llu, with policies %llu\n",
	       c[NONE].there.n[COUNTED_LOOKUP], c[NONE].back.n[COUNTED_LOOKUP],
	       c[NONE].first.n[COUNTED_LOOKUP], c[MANY_RULES].first.n[COUNTED_LOOKUP]);
}

static void run_flows(struct world *w, bool cache)
{
	for (size_t i = 0; i < 2 * sizeof(flows) / sizeof(flows[0]); i++)
		if (!cache || flows[i / 2].there.cached)
			run_flow(w, &flows[i / 2], i % 2, cache);
}

/* The flow cache is a CPU's own. */
static int stay_here(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	return sched_setaffinity(0, sizeof(set), &set) < 0 ? -errno : 0;
}

int main(void)
{
	struct wag_config cfg;
	struct world w;
	int r = world_enter();

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (r == 0)
		r = stay_here();
	world_defaults(&cfg);
	for (int cache = 0; cache < 2 && r == 0; cache++) {
		cfg.flow_cache_mask = cache ? 1023 : 0;
		r = world_open(&w, &cfg);
		if (r < 0)
			break;
		run_flows(&w, cache);
		world_close(&w);
	}
	if (r < 0)
		printf("FAIL bpf: counted programs load: %s\n", strerror(-r));
	return r < 0 || tests_failed() ? 1 : 0;
}
