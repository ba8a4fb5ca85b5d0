// SPDX-License-Identifier: Apache-2.0
/*
 * A packet like one of a moment ago asks nobody. Shown by taking conntrack's entries away under a
 * flow in mid-traffic: what goes on as before, and makes no entry, came from the cache.
 */
#include <bpf/bpf.h>
#include <net/if.h>
#include <string.h>

#include "cases.h"

#define WARM_PACKETS 64 /* only one in 16 asks until asking has paid */
#define SURE_NS 9000000 /* of the 17 ms less a tick that an entry is good for */
#define TRIES 200
#define MANY 24

/* What comes after the flow is known by heart, and what becomes of it. */
static const struct cache_case {
	const char *name;
	struct spec in;
	bool elsewhere;
	int verdict;
	unsigned entries; /* that it leaves in conntrack: 0: it asked nobody */
} cases[] = {
	{ "asks nobody", T(POD_A, 4000, VIP, 80, F_ACK), false, V_REDIRECT, 0 },
	{ "the reply asks nobody", T(POD_B, 8080, POD_A, 4000, F_ACK), false, V_REDIRECT, 0 },
	{ "an end is looked up", T(POD_A, 4000, VIP, 80, F_FIN | F_ACK), false, V_REDIRECT, 2 },
	{ "a reset is looked up", T(POD_A, 4000, VIP, 80, F_RST), false, V_REDIRECT, 2 },
	{ "a beginning is looked up", T(POD_A, 4000, VIP, 80, F_SYN), false, V_REDIRECT, 2 },
	{ "longer than the pod's interface takes: the stack's",
	  { POD_A, VIP, 4000, 80, IPPROTO_TCP, F_ACK, .payload = 1400 },
	  false,
	  V_PASS,
	  2 },
	{ "no hops left: the stack's",
	  { POD_A, VIP, 4000, 80, IPPROTO_TCP, F_ACK, .payload = 11, .ttl = 1 },
	  false,
	  V_PASS,
	  2 },
	{ "from another interface: nobody's", T(POD_A, 4000, VIP, 80, F_ACK), true, V_DROP, 0 },
};

static int sends(struct world *w, struct spec s, bool elsewhere, struct frame *out)
{
	struct __sk_buff ctx = { .ifindex = elsewhere ? if_nametoindex("wag_out") :
							world_ifindex(FROM_POD) };
	struct frame in;

	frame_build(&in, &s, w->v6);
	return world_run_ctx(w, FROM_POD, &in, out, &ctx);
}

static void warm(struct world *w)
{
	struct frame out;

	sends(w, (struct spec)T(POD_A, 4000, VIP, 80, F_SYN), false, &out);
	sends(w, (struct spec)T(POD_B, 8080, POD_A, 4000, F_SYN | F_ACK), false, &out);
	for (int i = 0; i < WARM_PACKETS; i++) {
		sends(w, (struct spec)T(POD_A, 4000, VIP, 80, F_ACK), false, &out);
		sends(w, (struct spec)T(POD_B, 8080, POD_A, 4000, F_ACK), false, &out);
	}
}

static void forget_conntrack(struct world *w)
{
	struct wag_ct_key key;

	while (!bpf_map_get_next_key(w->ct, NULL, &key))
		bpf_map_delete_elem(w->ct, &key);
}

/* Is this what the flow's packets looked like before it was forgotten? */
static void same_packet(const struct frame *a, const struct frame *b)
{
	expect(a->len == b->len && memcmp(a->data, b->data, a->len) == 0,
	       "the packet leaves otherwise than the one before");
}

/* False: too slow to be sure of anything. */
static bool run_case(struct world *w, const struct cache_case *c, bool v6)
{
	struct frame before, out;
	unsigned entries;
	__u64 begin;
	int v;

	world_reset(w, v6);
	services_tcp(w);
	world_pod_mtu(w, POD_B, 1300);
	begin = now_ns();
	warm(w);
	sends(w, c->in.flags == F_ACK ? c->in : (struct spec)T(POD_A, 4000, VIP, 80, F_ACK), false,
	      &before);
	forget_conntrack(w);
	v = sends(w, c->in, c->elsewhere, &out);
	entries = world_ct_count(w);
	if (now_ns() - begin > SURE_NS)
		return false;
	expect(v == c->verdict, "verdict %d", v);
	expect(entries == c->entries, "%u entries", entries);
	if (!c->entries && v == V_REDIRECT)
		same_packet(&before, &out);
	return true;
}

/*
 * Flows for a third of the places: were there one or two for each, some would find them
 * taken. They go to two pods, so that there are two hops to remember. False: too slow to be sure.
 */
static bool run_many(struct world *w, bool v6)
{
	static struct frame before[MANY];
	struct spec flows[MANY];
	struct frame out;
	__u64 begin;

	world_reset(w, v6);
	services_tcp(w);
	begin = now_ns();
	warm(w);
	for (unsigned i = 0; i < MANY; i++) {
		flows[i] = (struct spec)T(POD_A, 4001 + i, i % 2 ? POD_B : POD_C, 8080, F_SYN);
		sends(w, flows[i], false, &out);
		flows[i].flags = F_ACK;
		sends(w, flows[i], false, &before[i]);
	}
	forget_conntrack(w);
	for (unsigned i = 0; i < MANY; i++) {
		int v = sends(w, flows[i], false, &out);

		if (now_ns() - begin > SURE_NS)
			return false;
		expect(v == V_REDIRECT, "flow %u: verdict %d", i, v);
		same_packet(&before[i], &out);
	}
	expect(!world_ct_count(w), "%u entries", world_ct_count(w));
	return true;
}

void suite_flow_cache(struct world *w)
{
	for (size_t i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
		const struct cache_case *c = &cases[i / 2];
		int tries = 0;

		test_begin();
		while (tries < TRIES && !run_case(w, c, i % 2))
			tries++;
		expect(tries < TRIES, "never fast enough to tell");
		test_end("flow cache: %s, %s", c->name, i % 2 ? "IPv6" : "IPv4");
	}
	for (int v6 = 0; v6 < 2; v6++) {
		int tries = 0;

		test_begin();
		while (tries < TRIES && !run_many(w, v6))
			tries++;
		expect(tries < TRIES, "never fast enough to tell");
		test_end("flow cache: %u flows, each in one of its places, %s", MANY,
			 v6 ? "IPv6" : "IPv4");
	}
}
