// SPDX-License-Identifier: Apache-2.0
/*
 * Random policy sets, compiled by the agent's compiler into the programs' maps: what becomes of
 * packets is what a brute-force evaluator of Kubernetes' semantics says (policy_oracle.h).
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <inttypes.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <waggle/addr.h>
#include "agent/compile_policy.h"
#include "cases.h"
#include "selftests/unit/policy_world.h"

#define SETS 1000
#define SETS_OF_ONE_WORLD 100
#define PROBES 12
#define LOCAL_PODS 4 /* p0, p3, p6, p9 of policy_world.c are node n0's */

struct random_world {
	struct world *w;
	struct model *m;
	struct policy_compiler *c;
	struct policy_world pw;
	__u32 epoch;
	__u16 sport;
};

static void changed(const struct object *obj, bool gone, void *ctx)
{
	policy_compiler_change(ctx, obj, gone);
}

static void own_addr(char *text, size_t size, unsigned i, bool v6)
{
	snprintf(text, size, v6 ? "fd00:10:244:0::%x" : "10.244.0.%u", i + 2);
}

static void add_local(struct random_world *r, unsigned i)
{
	struct wag_pod pod = { .ifindex = world_ifindex(FROM_POD), .ep_id = i + 1 };
	const char *const namespaces[] = { "red", "green", "blue" };
	struct policy_endpoint ep = { .ep_id = i + 1, .n_addrs = 2 };
	struct wag_addr addrs[2];
	char name[16], text[64];

	snprintf(name, sizeof(name), "p%u", i * 3);
	ep.ns = namespaces[i * 3 % 3 * (i * 3 % 2)];
	ep.pod = name;
	ep.addrs = addrs;
	for (int v6 = 0; v6 < 2; v6++) {
		own_addr(text, sizeof(text), i, v6);
		wag_addr_parse(text, &addrs[v6]);
		bpf_map_update_elem(r->w->pods, &addrs[v6], &pod, BPF_ANY);
	}
	policy_compiler_endpoint(r->c, &ep);
}

/* ---- tables -> maps ---- */

struct applying {
	int fd;
	size_t key_size, value_size;
	struct deltamap *table;
	unsigned n;
	unsigned char keys[4096][24], values[4096][24];
	bool given[4096];
};

static int note(const void *key, const void *desired, const void *actual, void *ctx)
{
	struct applying *a = ctx;

	if (a->n == 4096)
		return 1;
	memcpy(a->keys[a->n], key, a->key_size);
	if (desired)
		memcpy(a->values[a->n], desired, a->value_size);
	a->given[a->n++] = desired;
	return 0;
}

static void apply_one(struct applying *a, unsigned i)
{
	if (a->given[i]) {
		expect(!bpf_map_update_elem(a->fd, a->keys[i], a->values[i], BPF_ANY),
		       "a table's entry");
		deltamap_set_actual(a->table, a->keys[i], a->values[i]);
	} else {
		bpf_map_delete_elem(a->fd, a->keys[i]);
		deltamap_unset_actual(a->table, a->keys[i]);
	}
}

static void apply(struct random_world *r)
{
	const struct {
		int fd;
		size_t key, value;
	} maps[POLICY_TABLES] = {
		[POLICY_IPCACHE] = { r->w->ipcache, sizeof(struct wag_ipcache_key),
				     sizeof(struct wag_ipcache) },
		[POLICY_POD] = { r->w->policy, sizeof(struct wag_policy_key),
				 sizeof(struct wag_policy) },
		[POLICY_RULE] = { r->w->rule, sizeof(struct wag_rule_key), sizeof(__u32) },
		[POLICY_PORT] = { r->w->port_rule, sizeof(struct wag_port_key), sizeof(__u32) },
		[POLICY_PORT_EXACT] = { r->w->port_exact, sizeof(struct wag_port_key),
					sizeof(__u32) },
	};
	static struct applying a;
	struct wag_runtime runtime = { .policy_epoch = r->epoch += 4 }; /* generation 0 */
	__u32 zero = 0;

	for (int t = 0; t < POLICY_TABLES; t++) {
		a.fd = maps[t].fd;
		a.key_size = maps[t].key;
		a.value_size = maps[t].value;
		a.table = policy_compiler_table(r->c, t);
		a.n = 0;
		expect(deltamap_visit_pending(a.table, note, &a) == 0, "too many changes");
		for (unsigned i = 0; i < a.n; i++)
			apply_one(&a, i);
	}
	bpf_map_update_elem(r->w->runtime, &zero, &runtime, BPF_ANY);
}

/* ---- packets ---- */

static void packet(struct frame *f, const struct wag_addr *s, const struct wag_addr *d,
		   __u8 proto, __u16 sport, __u16 dport)
{
	const struct spec as = { POD_A, POD_B, sport, dport, proto, F_SYN, .payload = 11 };
	bool v6 = !wag_addr_is_v4(s);

	frame_build(f, &as, v6);
	if (v6) {
		struct ipv6hdr *ip6 = (void *)(f->data + ETH_HLEN);

		memcpy(&ip6->saddr, s, sizeof(*s));
		memcpy(&ip6->daddr, d, sizeof(*d));
	} else {
		struct iphdr *ip = (void *)(f->data + ETH_HLEN);

		ip->saddr = s->w[3];
		ip->daddr = d->w[3];
		ip->check = 0;
		ip->check = csum_of(ip, sizeof(*ip), 0);
	}
}

static bool is_policy(unsigned reason)
{
	return reason == WAG_DROP_POLICY_DENIED || reason == WAG_DROP_POLICY_DENY ||
	       reason == WAG_DROP_IDENTITY_UNKNOWN;
}

static bool denied(const struct oracle_answer *a)
{
	return a->verdict != ORACLE_ALLOW;
}

/* What Kubernetes says of the whole flow: each end that is a pod of this node. */
static bool must_drop(struct random_world *r, bool from_pod, const char *src, const char *dst,
		      bool dst_local, const char *proto, int port)
{
	struct oracle_answer a;

	if (from_pod) {
		a = oracle_judge(&r->pw.o, 1, oracle_pod(&r->pw.o, src), dst, proto, port);
		if (denied(&a))
			return true;
	}
	if (!dst_local)
		return false;
	a = oracle_judge(&r->pw.o, 0, oracle_pod(&r->pw.o, dst), src, proto, port);
	return denied(&a);
}

static void probe(struct random_world *r, uint64_t seed, unsigned set)
{
	static const struct {
		const char *name;
		__u8 proto;
	} protos[] = { { "TCP", IPPROTO_TCP }, { "UDP", IPPROTO_UDP }, { "SCTP", IPPROTO_SCTP },
		       { "GRE", 47 } };
	bool v6 = policy_world_random(&r->pw, 2), from_pod = policy_world_random(&r->pw, 2);
	unsigned pod = policy_world_random(&r->pw, LOCAL_PODS), p = policy_world_random(&r->pw, 4);
	__u16 port = 73 + policy_world_random(&r->pw, 24);
	char own[64], other[64];
	struct wag_addr a, b;
	struct frame in, out;
	bool local, want, got;
	struct wag_node_addr node;
	struct wag_pod known;
	int v;

	own_addr(own, sizeof(own), pod, v6);
	snprintf(other, sizeof(other), "%s", policy_world_address(&r->pw, v6));
	wag_addr_parse(own, &a);
	wag_addr_parse(other, &b);
	local = !bpf_map_lookup_elem(r->w->pods, &b, &known);
	/* Itself is always reached; nobody sends as a pod or the node from the network. */
	if (wag_addr_equal(&a, &b) ||
	    (!from_pod && (local || !bpf_map_lookup_elem(r->w->node_addr, &b, &node))))
		return;
	want = from_pod ? must_drop(r, true, own, other, local, protos[p].name, port) :
			  must_drop(r, false, other, own, true, protos[p].name, port);
	packet(&in, from_pod ? &a : &b, from_pod ? &b : &a, protos[p].proto, ++r->sport, port);
	world_drain(r->w);
	v = world_run(r->w, from_pod ? FROM_POD : FROM_NET, &in, &out);
	world_drain(r->w);
	got = v == V_DROP && r->w->n_events && is_policy(r->w->events[0].reason);
	expect(got == want, "seed %" PRIu64 " set %u: %s %s %s %s %u: %s (reason %u)", seed, set,
	       own, from_pod ? "to" : "from", other, protos[p].name, port,
	       got ? "denied" : "let by", r->w->n_events ? r->w->events[0].reason : 0);
}

static void forget_flows(struct world *w)
{
	struct wag_ct_key key;

	while (!bpf_map_get_next_key(w->ct, NULL, &key))
		bpf_map_delete_elem(w->ct, &key);
}

static void one_world(struct world *w, uint64_t seed, unsigned *sets)
{
	struct random_world r = { .w = w };

	world_reset(w, false);
	if (!expect(model_new(&r.m) == 0 && policy_compiler_new(&r.c, NULL) == 0, "no memory"))
		return;
	model_on_change(r.m, changed, r.c);
	policy_world_init(&r.pw, r.m, seed);
	for (unsigned i = 0; i < LOCAL_PODS; i++)
		add_local(&r, i);
	for (unsigned s = 0; s < SETS_OF_ONE_WORLD && !test_failed(); s++, (*sets)++) {
		policy_world_step(&r.pw);
		expect(policy_compiler_run(r.c, NULL, NULL) == 0, "compiling");
		apply(&r);
		for (unsigned i = 0; i < PROBES && !test_failed(); i++) {
			probe(&r, seed, s);
			forget_flows(w); /* where there are no ports, the next may be a reply */
		}
	}
	model_on_change(r.m, NULL, NULL);
	policy_compiler_free(r.c);
	policy_world_done(&r.pw);
	model_free(r.m);
}

void suite_policy_random(struct world *w)
{
	const char *given = getenv("WAGGLE_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
	unsigned sets = 0;

	test_begin();
	while (sets < SETS && !test_failed())
		one_world(w, seed++, &sets);
	test_end("policy: %u random sets, packets against Kubernetes' semantics", sets);
}
