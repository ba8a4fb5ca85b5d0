// SPDX-License-Identifier: Apache-2.0
#include <inttypes.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include <waggle/addr.h>
#include "agent/compile_policy.h"
#include "policy_lookup.h"
#include "policy_world.h"

#define SETS 20000  /* takes 2 s; */
#define BUDGET_S 15 /* with sanitizers it would take a minute: as many as there is time for */
#define LOCAL_PODS 4 /* p0, p3, p6, p9: of node n0 */

struct setup {
	struct model *m;
	struct policy_compiler *c;
	struct policy_world w;
	char refused[512]; /* the last one told */
	unsigned told;
};

static void changed(const struct object *obj, bool gone, void *ctx)
{
	struct setup *s = ctx;

	assert_int_equal(policy_compiler_change(s->c, obj, gone), 0);
}

static void refused(const char *ns, const char *name, const char *why, bool old, void *ctx)
{
	struct setup *s = ctx;

	s->told++;
	snprintf(s->refused, sizeof(s->refused), "%s/%s: %s%s", ns, name, why, old ? " (old)" : "");
}

static void count(const char *ns, const char *name, const char *why, bool old, void *ctx)
{
	++*(unsigned *)ctx;
}

static unsigned n_refused(const struct setup *s)
{
	struct policy_stats stats;
	unsigned n = 0;

	policy_compiler_visit_refused(s->c, count, &n);
	policy_compiler_stats(s->c, &stats);
	assert_int_equal(stats.refused, n);
	return n;
}

static void local_pods(struct setup *s)
{
	for (uint32_t i = 0; i < LOCAL_PODS; i++) {
		struct wag_addr addrs[2];
		struct policy_endpoint ep = { .ep_id = i + 1, .ns = "red", .addrs = addrs,
					      .n_addrs = 2 };
		char name[16], text[64];

		snprintf(name, sizeof(name), "p%u", i * 3);
		if (i * 3 % 2)
			ep.ns = (const char *[]){ "red", "green", "blue" }[i * 3 % 3];
		ep.pod = name;
		snprintf(text, sizeof(text), "10.244.0.%u", i + 2);
		assert_int_equal(wag_addr_parse(text, &addrs[0]), 0);
		snprintf(text, sizeof(text), "fd00:10:244::%x", i + 2);
		assert_int_equal(wag_addr_parse(text, &addrs[1]), 0);
		assert_int_equal(policy_compiler_endpoint(s->c, &ep), 0);
	}
}

static struct setup *begin(uint64_t seed, const struct policy_limits *limits)
{
	struct setup *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	assert_int_equal(model_new(&s->m), 0);
	assert_int_equal(policy_compiler_new(&s->c, limits), 0);
	model_on_change(s->m, changed, s);
	policy_world_init(&s->w, s->m, seed);
	local_pods(s);
	return s;
}

static void end(struct setup *s)
{
	model_on_change(s->m, NULL, NULL);
	policy_compiler_free(s->c);
	policy_world_done(&s->w);
	model_free(s->m);
	free(s);
}

static int run(struct setup *s)
{
	s->refused[0] = 0;
	s->told = 0;
	return policy_compiler_run(s->c, refused, s);
}

static uint32_t ask(struct setup *s, uint32_t ep, enum policy_dir dir, const char *peer,
		    uint8_t proto, uint16_t port)
{
	struct wag_addr addr;

	assert_int_equal(wag_addr_parse(peer, &addr), 0);
	return policy_lookup(s->c, ep, dir, &addr, proto, port, NULL);
}

/* ---- against the oracle ---- */

static const struct {
	const char *name;
	uint8_t proto;
} protos[] = { { "TCP", IPPROTO_TCP }, { "TCP", IPPROTO_TCP }, { "UDP", IPPROTO_UDP },
	       { "SCTP", IPPROTO_SCTP }, { "ICMP", IPPROTO_ICMP } };

static bool same_rule(struct setup *s, uint32_t verdict, const struct oracle_answer *a)
{
	struct wag_rule_name name;

	if (!a->name) /* by NetworkPolicies or by nobody */
		return true;
	return policy_compiler_rule(s->c, WAG_VERDICT_RULE(verdict), &name) == 0 && !name.ns[0] &&
	       strcmp(name.name, a->name) == 0 && name.index == a->rule;
}

/* What a failure is about. */
static void tell(struct setup *s, const char *own, const char *peer)
{
	json_dumpf(s->w.o.policies, stdout, 0);
	json_dumpf(s->w.o.cluster_policies, stdout, 0);
	json_dumpf(s->w.o.namespaces, stdout, 0);
	json_dumpf(oracle_pod(&s->w.o, own), stdout, 0);
	if (oracle_pod(&s->w.o, peer))
		json_dumpf(oracle_pod(&s->w.o, peer), stdout, 0);
	fputc('\n', stdout);
}

/* What wag_policy says of a local pod's identity, where it says one, is what wag_ipcache says. */
static void own_identities(struct setup *s, uint32_t ep)
{
	const struct wag_policy_key key = { .ep_id = ep + 1 };
	const struct wag_policy *pod =
		deltamap_desired(policy_compiler_table(s->c, POLICY_POD), &key);

	for (int v6 = 0; pod && v6 < 2; v6++) {
		struct wag_ipcache_key who = { .bits = 160 };
		const struct wag_ipcache *known;
		struct wag_addr addr;
		char own[64];

		snprintf(own, sizeof(own), v6 ? "fd00:10:244:0::%x" : "10.244.0.%u", ep + 2);
		assert_int_equal(wag_addr_parse(own, &addr), 0);
		memcpy(who.addr, addr.w, sizeof(who.addr));
		known = deltamap_desired(policy_compiler_table(s->c, POLICY_IPCACHE), &who);
		assert_non_null(known);
		assert_int_equal(pod->identity[v6], known->identity);
	}
}

static void probe(struct setup *s, uint64_t seed, unsigned step)
{
	int family = (int)policy_world_random(&s->w, 2), unknown;
	uint32_t ep = policy_world_random(&s->w, LOCAL_PODS), p = policy_world_random(&s->w, 5);
	enum policy_dir dir = policy_world_random(&s->w, 2);
	const char *peer = policy_world_address(&s->w, family);
	uint16_t port = 73 + (uint16_t)policy_world_random(&s->w, 24);
	struct oracle_answer a;
	char own[64];
	uint32_t verdict;
	struct wag_addr addr;

	snprintf(own, sizeof(own), family ? "fd00:10:244:0::%x" : "10.244.0.%u", ep + 2);
	if (policy_world_random(&s->w, 40) == 0)
		port = (uint16_t)policy_world_random(&s->w, 65536);
	assert_int_equal(wag_addr_parse(peer, &addr), 0);
	own_identities(s, ep);
	a = oracle_judge(&s->w.o, dir == POLICY_EGRESS, oracle_pod(&s->w.o, own), peer,
			 protos[p].name, port);
	verdict = policy_lookup(s->c, ep + 1, dir, &addr, protos[p].proto, port, &unknown);
	if ((int)WAG_VERDICT_ACTION(verdict) == (int)a.verdict && same_rule(s, verdict, &a) &&
	    (!unknown || !oracle_pod(&s->w.o, peer)))
		return;
	tell(s, own, peer);
	fail_msg("seed %" PRIu64 " step %u: %s %s %s %s %u: the tables say %u (rule %u), "
		 "Kubernetes says %u", seed, step, own, dir == POLICY_EGRESS ? "to" : "from", peer,
		 protos[p].name, port, WAG_VERDICT_ACTION(verdict), WAG_VERDICT_RULE(verdict),
		 a.verdict);
}

static bool in_time(time_t began)
{
	return time(NULL) - began < BUDGET_S;
}

/* WAGGLE_SEED: that one alone, to look at a failure again. */
static void test_random_sets(void **state)
{
	const char *given = getenv("WAGGLE_SEED");
	uint64_t first = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
	unsigned sets = 0, probes = 0;
	time_t began = time(NULL);

	printf("seeds from %" PRIu64 "\n", first);
	for (uint64_t seed = first; sets < SETS && in_time(began) && (!given || seed == first);
	     seed++) {
		struct setup *s = begin(seed, NULL);

		for (unsigned step = 0; step < 400; step++, sets++) {
			policy_world_step(&s->w);
			assert_int_equal(run(s), 0);
			assert_string_equal(s->refused, "");
			for (unsigned i = 0; i < 30; i++, probes++)
				probe(s, seed, step);
		}
		end(s);
	}
	printf("%u policy sets, %u probes\n", sets, probes);
}

/* Nothing is left of what is gone: neither entries nor identities nor profiles. */
static void test_nothing_is_left(void **state)
{
	struct setup *s = begin(7, NULL);
	struct policy_stats stats;
	char name[16];

	for (unsigned i = 0; i < 300; i++) {
		policy_world_step(&s->w);
		assert_int_equal(run(s), 0);
	}
	for (int i = 0; i < 6; i++) {
		snprintf(name, sizeof(name), "np%d", i);
		for (int n = 0; n < 3; n++)
			model_delete(s->m, MODEL_POLICY,
				     (const char *[]){ "red", "green", "blue" }[n], name);
		snprintf(name, sizeof(name), "cnp%d", i);
		model_delete(s->m, MODEL_CLUSTER_POLICY, "", name);
	}
	assert_int_equal(run(s), 0);
	policy_compiler_stats(s->c, &stats);
	assert_int_equal(stats.policies, 0);
	assert_int_equal(stats.identities, 0);
	assert_int_equal(stats.rulesets, 0);
	assert_int_equal(stats.profiles, 0);
	assert_int_equal(policy_compiler_table(s->c, POLICY_RULE)->n_desired, 0);
	assert_int_equal(policy_compiler_table(s->c, POLICY_PORT)->n_desired, 0);
	assert_int_equal(policy_compiler_table(s->c, POLICY_PORT_EXACT)->n_desired, 0);
	assert_int_equal(policy_compiler_table(s->c, POLICY_POD)->n_desired, 0);
	end(s);
}

/* ---- one by one ---- */

static const char deny_red[] = "{\"metadata\":{\"namespace\":\"red\",\"name\":\"deny\"},"
			       "\"spec\":{\"podSelector\":{}}}";

static void test_who_decided_has_a_name(void **state)
{
	struct setup *s = begin(1, NULL);
	struct wag_rule_name name;
	uint32_t v;

	policy_world_put(&s->w, MODEL_POLICY, deny_red);
	assert_int_equal(run(s), 0);
	v = ask(s, 1, POLICY_INGRESS, "8.8.8.8", IPPROTO_TCP, 80);
	assert_int_equal(WAG_VERDICT_ACTION(v), WAG_VERDICT_ISOLATED);
	assert_int_equal(policy_compiler_rule(s->c, WAG_VERDICT_RULE(v), &name), 0);
	assert_string_equal(name.ns, "red");
	assert_string_equal(name.name, "deny");
	assert_int_equal(name.index, 0xffff);
	v = ask(s, 1, POLICY_EGRESS, "8.8.8.8", IPPROTO_TCP, 80);
	assert_int_equal(v, WAG_VERDICT(WAG_VERDICT_ALLOW, 0));
	end(s);
}

/* Every odd port: no two neighbours get the same, and no policy is bigger for its size. */
static char *many_ports(int n)
{
	char *text = malloc(200 + (size_t)n * 16), *at = text;

	at += sprintf(at, "{\"metadata\":{\"namespace\":\"red\",\"name\":\"many\"},\"spec\":"
			  "{\"podSelector\":{},\"ingress\":[{\"ports\":[");
	for (int i = 0; i < n; i++)
		at += sprintf(at, "%s{\"port\":%d}", i ? "," : "", i % 32768 * 2 + 1);
	sprintf(at, "]}]}}");
	return text;
}

/* The port, and what every other one gets: a packet has little to walk through. */
static void test_ports_take_few_entries(void **state)
{
	static const struct {
		const char *ports;
		size_t exact, prefixes;
	} cases[] = {
		{ "{\"port\":80}", 1, 1 },
		{ "{\"port\":80},{\"port\":81},{\"port\":443,\"protocol\":\"UDP\"}", 1, 2 },
		{ "{\"port\":8000,\"endPort\":8007}", 0, 2 },
		{ "{\"port\":1,\"endPort\":65535}", 1, 2 }, /* all but port 0 */
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct setup *s = begin(2, NULL);
		char text[512];

		snprintf(text, sizeof(text),
			 "{\"apiVersion\":\"networking.k8s.io/v1\",\"kind\":\"NetworkPolicy\","
			 "\"metadata\":{\"name\":\"few\",\"namespace\":\"red\"},\"spec\":"
			 "{\"podSelector\":{},\"ingress\":[{\"ports\":[%s]}]}}", cases[i].ports);
		policy_world_put(&s->w, MODEL_POLICY, text);
		assert_int_equal(run(s), 0);
		assert_int_equal(policy_compiler_table(s->c, POLICY_PORT_EXACT)->n_desired,
				 cases[i].exact);
		assert_int_equal(policy_compiler_table(s->c, POLICY_PORT)->n_desired,
				 cases[i].prefixes);
		end(s);
	}
}

static void test_a_policy_that_does_not_fit_is_refused(void **state)
{
	struct policy_limits limits = { .entries = { [POLICY_PORT_EXACT] = 1000 } };
	struct setup *s = begin(2, &limits);
	char *big = many_ports(2000), *fits = many_ports(100), *huge = many_ports(100000);

	policy_world_put(&s->w, MODEL_POLICY, fits);
	assert_int_equal(run(s), 0);
	assert_string_equal(s->refused, "");
	policy_world_put(&s->w, MODEL_POLICY, big);
	policy_world_put(&s->w, MODEL_POLICY, deny_red);
	assert_int_equal(run(s), 0);
	assert_string_equal(s->refused, "red/many: with it, wag_port_exact would be full (old)");
	assert_int_equal(n_refused(s), 1);
	/* As it was before, and others are not touched by it. */
	assert_int_equal(WAG_VERDICT_ACTION(ask(s, 1, POLICY_INGRESS, "8.8.8.8", IPPROTO_TCP, 101)),
			 WAG_VERDICT_ALLOW);
	assert_int_equal(WAG_VERDICT_ACTION(ask(s, 1, POLICY_INGRESS, "8.8.8.8", IPPROTO_TCP, 301)),
			 WAG_VERDICT_ISOLATED);
	policy_world_put(&s->w, MODEL_POLICY, huge);
	assert_int_equal(run(s), 0);
	assert_non_null(strstr(s->refused, "it has 0 peers and 100000 ports"));
	policy_world_put(&s->w, MODEL_POLICY, fits);
	assert_int_equal(run(s), 0);
	assert_int_equal(n_refused(s), 0);
	free(big);
	free(fits);
	free(huge);
	end(s);
}

/* The same refusal is told once, however often it is tried again for others that went. */
static void test_a_refusal_is_told_once(void **state)
{
	struct policy_limits limits = { .entries = { [POLICY_PORT_EXACT] = 1000 } };
	struct setup *s = begin(6, &limits);
	char *big = many_ports(2000), *fits = many_ports(100), *bigger = many_ports(1999);

	policy_world_put(&s->w, MODEL_POLICY, deny_red);
	policy_world_put(&s->w, MODEL_POLICY, big);
	assert_int_equal(run(s), 0);
	assert_int_equal(s->told, 1);
	model_delete(s->m, MODEL_POLICY, "red", "deny");
	assert_int_equal(run(s), 0);
	assert_int_equal(s->told, 0);
	assert_int_equal(n_refused(s), 1);
	policy_world_put(&s->w, MODEL_POLICY, bigger);
	assert_int_equal(run(s), 0);
	assert_int_equal(s->told, 1);
	policy_world_put(&s->w, MODEL_POLICY, fits);
	assert_int_equal(run(s), 0);
	policy_world_put(&s->w, MODEL_POLICY, bigger);
	assert_int_equal(run(s), 0);
	assert_int_equal(s->told, 1);
	model_delete(s->m, MODEL_POLICY, "red", "many");
	assert_int_equal(run(s), 0);
	assert_int_equal(n_refused(s), 0);
	free(big);
	free(fits);
	free(bigger);
	end(s);
}

#define MANY_HEAD "{\"metadata\":{\"namespace\":\"red\",\"name\":\"many\"},\"spec\":"

/* What is in force of it stays so; without that, nothing of it is. */
static void test_an_unreadable_policy_is_refused(void **state)
{
	struct setup *s = begin(7, NULL);
	char *fits = many_ports(100);
	static const char bad[] =
		MANY_HEAD "{\"podSelector\":{\"matchExpressions\":[{\"key\":\"a\","
			  "\"operator\":\"Near\"}]}}}";
	static const char why[] = "red/many: spec.podSelector.matchExpressions[0].operator: "
				  "\"Near\" is not In, NotIn, Exists or DoesNotExist";

	policy_world_put(&s->w, MODEL_POLICY, bad);
	assert_int_equal(run(s), 0);
	assert_string_equal(s->refused, why);
	assert_int_equal(n_refused(s), 1);
	assert_int_equal(WAG_VERDICT_ACTION(ask(s, 1, POLICY_INGRESS, "8.8.8.8", IPPROTO_TCP, 301)),
			 WAG_VERDICT_ALLOW);
	policy_world_put(&s->w, MODEL_POLICY, fits);
	assert_int_equal(run(s), 0);
	assert_int_equal(n_refused(s), 0);
	policy_world_put(&s->w, MODEL_POLICY, bad);
	assert_int_equal(run(s), 0);
	assert_int_equal(strncmp(s->refused, why, strlen(why)), 0);
	assert_string_equal(s->refused + strlen(why), " (old)");
	assert_true(policy_compiler_selects(s->c, "red"));
	assert_int_equal(WAG_VERDICT_ACTION(ask(s, 1, POLICY_INGRESS, "8.8.8.8", IPPROTO_TCP, 301)),
			 WAG_VERDICT_ISOLATED);
	model_delete(s->m, MODEL_POLICY, "red", "many");
	assert_int_equal(run(s), 0);
	assert_int_equal(n_refused(s), 0);
	assert_false(policy_compiler_selects(s->c, "red"));
	free(fits);
	end(s);
}

/* Hundreds at once that do not fit together: some are in force, and the tables are not overrun. */
static void test_many_that_do_not_fit(void **state)
{
	struct policy_limits limits = { .identities = 20 };
	struct setup *s = begin(5, &limits);
	struct policy_stats stats;
	char text[400];

	for (int i = 0; i < 300; i++) {
		snprintf(text, sizeof(text),
			 "{\"metadata\":{\"namespace\":\"red\",\"name\":\"m%d\"},\"spec\":"
			 "{\"podSelector\":{},\"ingress\":[{\"from\":[{\"ipBlock\":{\"cidr\":"
			 "\"198.51.%d.0/24\"}}]}]}}", i, i % 256);
		policy_world_put(&s->w, MODEL_POLICY, text);
	}
	assert_int_equal(run(s), 0);
	policy_compiler_stats(s->c, &stats);
	assert_true(stats.refused > 0 && stats.refused < 300);
	assert_true(stats.identities <= 20);
	end(s);
}

static void test_too_many_identities(void **state)
{
	struct policy_limits limits = { .identities = 1 };
	struct setup *s = begin(3, &limits);

	policy_world_put(&s->w, MODEL_POLICY, deny_red);
	assert_int_equal(run(s), 0);
	policy_world_put(&s->w, MODEL_POLICY,
			 "{\"metadata\":{\"namespace\":\"red\",\"name\":\"cidrs\"},\"spec\":"
			 "{\"podSelector\":{},\"ingress\":[{\"from\":[{\"ipBlock\":{\"cidr\":"
			 "\"192.0.2.0/24\"}}]},{\"from\":[{\"ipBlock\":{\"cidr\":"
			 "\"198.51.100.0/24\"}}]}]}}");
	assert_int_equal(run(s), 0);
	assert_string_equal(s->refused, "red/cidrs: with it, identities would be full");
	assert_int_equal(WAG_VERDICT_ACTION(ask(s, 1, POLICY_INGRESS, "192.0.2.1", IPPROTO_TCP, 1)),
			 WAG_VERDICT_ISOLATED);
	end(s);
}

/* ::/0 is not for IPv4, and what no pod is known to have is said to be unknown. */
static void test_families_and_unknown(void **state)
{
	struct setup *s = begin(4, NULL);
	struct wag_addr addr;
	int unknown;

	policy_world_put(&s->w, MODEL_POLICY,
			 "{\"metadata\":{\"namespace\":\"red\",\"name\":\"six\"},\"spec\":"
			 "{\"podSelector\":{},\"ingress\":[{\"from\":[{\"ipBlock\":{\"cidr\":"
			 "\"::/0\"}}]}]}}");
	assert_int_equal(run(s), 0);
	assert_int_equal(WAG_VERDICT_ACTION(ask(s, 1, POLICY_INGRESS, "2001:db8::1", 6, 1)),
			 WAG_VERDICT_ALLOW);
	assert_int_equal(WAG_VERDICT_ACTION(ask(s, 1, POLICY_INGRESS, "192.0.2.1", 6, 1)),
			 WAG_VERDICT_ISOLATED);
	assert_int_equal(wag_addr_parse("10.244.1.200", &addr), 0);
	policy_lookup(s->c, 1, POLICY_INGRESS, &addr, 6, 1, &unknown);
	assert_false(unknown); /* while Pods need not be known */
	policy_world_put(&s->w, MODEL_POLICY,
			 "{\"metadata\":{\"namespace\":\"red\",\"name\":\"pods\"},\"spec\":"
			 "{\"podSelector\":{},\"ingress\":[{\"from\":[{\"podSelector\":{}}]}]}}");
	assert_int_equal(run(s), 0);
	assert_int_equal(WAG_VERDICT_ACTION(policy_lookup(s->c, 1, POLICY_INGRESS, &addr, 6, 1,
							  &unknown)), WAG_VERDICT_ISOLATED);
	assert_true(unknown);
	assert_int_equal(wag_addr_parse("10.244.0.3", &addr), 0);
	policy_lookup(s->c, 1, POLICY_INGRESS, &addr, 6, 1, &unknown);
	assert_false(unknown);
	end(s);
}

static void put_policy(struct setup *s, const char *ns, const char *pods, const char *spec)
{
	char text[512];

	snprintf(text, sizeof(text), "{\"metadata\":{\"namespace\":\"%s\",\"name\":\"p\"},\"spec\":"
		 "{\"podSelector\":{%s},%s}}", ns, pods, spec);
	policy_world_put(&s->w, MODEL_POLICY, text);
}

/* Only for a policy of a pod of this node that speaks of pods. */
static void test_when_all_pods_must_be_known(void **state)
{
	static const char nobody[] = "\"matchLabels\":{\"no\":\"body\"}";
	static const char from_pods[] = "\"ingress\":[{\"from\":[{\"podSelector\":{}}]}]";
	static const struct {
		const char *ns, *pods, *spec;
		bool wanted;
	} cases[] = {
		{ "red", "", "\"ingress\":[]", false },
		{ "red", "", "\"ingress\":[{\"ports\":[{\"port\":\"web\"}]}]", false },
		{ "red", "", "\"ingress\":[{\"from\":[{\"ipBlock\":{\"cidr\":\"10.0.0.0/8\"}}]}]",
		  false },
		{ "red", nobody, from_pods, false },
		{ "elsewhere", "", from_pods, false },
		{ "red", "", "\"egress\":[{\"ports\":[{\"port\":80}]}]", false },
		{ "red", "", "\"egress\":[{\"ports\":[{\"port\":\"web\"}]}]", true },
		{ "red", "", "\"egress\":[{\"to\":[{\"namespaceSelector\":{}}]}]", true },
		{ "red", "", from_pods, true },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct setup *s = begin(4, NULL);

		put_policy(s, cases[i].ns, cases[i].pods, cases[i].spec);
		if (policy_compiler_wants_pods(s->c) != cases[i].wanted)
			fail_msg("%s: %s: all Pods are %swanted", cases[i].ns, cases[i].spec,
				 cases[i].wanted ? "not " : "");
		end(s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_decided_has_a_name),
		cmocka_unit_test(test_ports_take_few_entries),
		cmocka_unit_test(test_a_policy_that_does_not_fit_is_refused),
		cmocka_unit_test(test_a_refusal_is_told_once),
		cmocka_unit_test(test_an_unreadable_policy_is_refused),
		cmocka_unit_test(test_many_that_do_not_fit),
		cmocka_unit_test(test_too_many_identities),
		cmocka_unit_test(test_families_and_unknown),
		cmocka_unit_test(test_when_all_pods_must_be_known),
		cmocka_unit_test(test_nothing_is_left),
		cmocka_unit_test(test_random_sets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
