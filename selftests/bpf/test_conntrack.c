// SPDX-License-Identifier: Apache-2.0
/* The conntrack table when it is full, when flows expire, and after a great many operations. */
#include <bpf/bpf.h>
#include <endian.h>
#include <string.h>
#include <stdlib.h>
#include <errno.h>

#include "cases.h"

#define TINY 64
#define LIMIT (TINY - TINY / 64) /* as full as the programs let it become */

/* A flow number n of a pod; each has a port of its own. */
static struct spec flow(unsigned n, __u8 flags, bool direct)
{
	struct spec s = { POD_A, direct ? POD_B : VIP, 1000 + n, direct ? 8080 : 80, IPPROTO_TCP,
			  flags };

	return s;
}

static struct spec reply(unsigned n, __u8 flags)
{
	struct spec s = { POD_B, POD_A, 8080, 1000 + n, IPPROTO_TCP, flags };

	return s;
}

static int sends(struct world *w, struct spec s)
{
	struct frame in, out;

	frame_build(&in, &s, w->v6);
	return world_run(w, FROM_POD, &in, &out);
}

static void in_step(struct world *w)
{
	expect(world_ct_used(w) == world_ct_count(w), "%u entries used, %u there", world_ct_used(w),
	       world_ct_count(w));
}

/* SYN, SYN-ACK, ACK. */
static void handshake(struct world *w, unsigned n, bool direct)
{
	int v[3];

	v[0] = sends(w, flow(n, F_SYN, direct));
	v[1] = sends(w, reply(n, F_SYN | F_ACK));
	v[2] = sends(w, flow(n, F_ACK, direct));
	expect(v[0] == V_REDIRECT && v[1] == V_REDIRECT && v[2] == V_REDIRECT,
	       "flow %u: verdicts %d %d %d", n, v[0], v[1], v[2]);
}

static bool known(struct world *w, unsigned n, bool direct)
{
	struct spec s = flow(n, 0, direct);
	struct wag_ct ct;

	return world_ct_get(w, &s, false, &ct);
}

static __u64 drops(struct world *w, enum wag_reason reason)
{
	struct stats stats;

	world_stats(w, WAG_POINT_FROM_POD, &stats);
	return stats.packets[reason];
}

/* A flood of handshakes that never end must not harm those that have. */
static void flood(struct world *w)
{
	unsigned live = 20;

	services_tcp(w);
	for (unsigned n = 0; n < live; n++)
		handshake(w, n, false);
	for (unsigned n = 0; n < 2000; n++)
		expect(sends(w, flow(100 + n, F_SYN, false)) == V_REDIRECT, "SYN %u is dropped", n);
	for (unsigned n = 0; n < live; n++)
		expect(known(w, n, false), "live flow %u has gone", n);
	handshake(w, 90, false);
	expect(world_ct_count(w) <= LIMIT, "%u entries", world_ct_count(w));
	expect(!drops(w, WAG_DROP_CT_FULL), "%llu drops", drops(w, WAG_DROP_CT_FULL));
	in_step(w);
}

static void all_live(struct world *w)
{
	unsigned n;

	services_tcp(w);
	for (n = 0; n < LIMIT / 2; n++)
		handshake(w, n, false);
	expect(sends(w, flow(500, F_SYN, false)) == V_DROP, "a flow has room where there is none");
	expect(drops(w, WAG_DROP_CT_FULL) == 1, "%llu drops", drops(w, WAG_DROP_CT_FULL));
	expect(world_map_errors(w, WAG_MAP_CT_RING, ENOSPC) == 1, "the map's error is not counted");
	world_drain(w);
	expect(w->n_events && w->events[w->n_events < EVENTS_KEPT ? w->n_events - 1 : 0].type,
	       "no event");
	while (n--)
		expect(known(w, n, false), "live flow %u has gone", n);
	/* What is not translated goes on, unknown. */
	handshake(w, 600, true);
	handshake(w, 601, true);
	expect(drops(w, WAG_DROP_CT_FULL) == 1, "an untranslated flow is dropped");
	in_step(w);
	/* The first ones expire: there is room again. */
	world_age(w, 41 * SEC_NS);
	handshake(w, 501, false);
	in_step(w);
}

/* A table filled with expired flows serves new ones; the hand takes the old ones out. */
static void expired(struct world *w)
{
	services_tcp(w);
	for (int round = 0; round < 20; round++) {
		for (unsigned n = 0; n < 15; n++)
			handshake(w, 100 * round + n, false);
		world_age(w, 41 * SEC_NS);
	}
	handshake(w, 5000, false);
	for (unsigned n = 0; n < 16; n++)
		handshake(w, 6000 + n, false);
	expect(!known(w, 0, false), "an expired flow is still there");
	in_step(w);
}

struct timeout {
	const char *name;
	__u8 proto;
	bool replied, closed;
	__u64 after_s; /* the flow's timeout */
};

static const struct timeout timeouts[] = {
	{ "TCP handshake", IPPROTO_TCP, false, false, 20 },
	{ "established TCP", IPPROTO_TCP, true, false, 40 },
	{ "closed TCP", IPPROTO_TCP, true, true, 10 },
	{ "UDP without reply", IPPROTO_UDP, false, false, 20 },
	{ "UDP with reply", IPPROTO_UDP, true, false, 30 },
	{ "SCTP", IPPROTO_SCTP, true, false, 20 },
};

/* Whether the hand takes the flow out once it is s seconds old. */
static bool outlived(struct world *w, const struct timeout *t, __u64 s)
{
	struct spec there = { POD_A, VIP, 4000, 80, t->proto, F_SYN };
	struct spec back = { POD_B, POD_A, 8080, 4000, t->proto, F_SYN | F_ACK };
	struct wag_ct ct;

	world_reset(w, w->v6);
	services_tcp(w);
	sends(w, there);
	if (t->replied) {
		sends(w, back);
		there.flags = F_ACK;
		sends(w, there);
	}
	if (t->closed) {
		there.flags = back.flags = F_FIN | F_ACK;
		sends(w, there);
		sends(w, back);
	}
	expect(world_ct_count(w) == 2, "%u entries", world_ct_count(w));
	world_age(w, s * SEC_NS);
	/* The hand goes round with 6 other flows, at 4 slots or more each. */
	for (unsigned n = 0; n < 18; n++)
		sends(w, flow(n, F_SYN, true));
	in_step(w);
	there.flags = 0;
	return !world_ct_get(w, &there, false, &ct);
}

static void timeout_one(struct world *w, const struct timeout *t)
{
	__u64 gone_s;

	expect(!outlived(w, t, t->after_s - 5), "gone after %llu s", t->after_s - 5);
	/* The hand looks at a flow first when its handshake would have ended. */
	gone_s = (t->after_s < 20 ? 20 : t->after_s) + 1;
	expect(outlived(w, t, gone_s), "still there after %llu s", gone_s);
}

/* Whatever happens, the clock's count is that of the table. */
static void many(struct world *w)
{
	const __u8 flags[] = { F_SYN, F_SYN,	     F_SYN, F_ACK,
			       F_ACK, F_FIN | F_ACK, F_RST, F_SYN | F_ACK };
	unsigned seed = 20240229;

	services_tcp(w);
	world_service(w, 4, VIP2, 80, IPPROTO_TCP, WAG_SVC_CLUSTER_IP);
	world_backends(w, 4, IPPROTO_TCP, &(struct backend){ POD_B, 8080 }, 1);
	for (unsigned i = 0; i < 100000 && !test_failed(); i++) {
		unsigned r = rand_r(&seed), n = rand_r(&seed) % 40;
		struct spec s = r & 1 ? flow(n, 0, r & 2) : reply(n, 0);

		if (r & 64 && s.dst == VIP)
			s.dst = VIP2;
		if ((r & 0x1c00) == 0x1c00)
			s.proto = IPPROTO_UDP;
		s.flags = flags[r >> 3 & 7];
		sends(w, s);
		if (i % 997 == 0)
			world_age(w, (r >> 8) % 30 * SEC_NS);
		if (i % 101 == 0)
			in_step(w);
	}
	in_step(w);
	expect(world_ct_count(w) <= LIMIT, "%u entries", world_ct_count(w));
}

/* Every port for a second frontend's flow to one backend is taken. */
static void no_port(struct world *w)
{
	struct spec first = { POD_A, VIP, 4000, 80, IPPROTO_TCP, F_SYN }, second = first;
	struct wag_tuple t = { .proto = IPPROTO_TCP };
	struct wag_ct ct = { .seen_ns = now_ns(), .flags = WAG_CT_REWRITE_REPLY };
	struct wag_ct_key key;

	second.dst = VIP2;
	services_tcp(w);
	world_service(w, 4, VIP2, 80, IPPROTO_TCP, WAG_SVC_CLUSTER_IP);
	world_backends(w, 4, IPPROTO_TCP, &(struct backend){ POD_B, 8080 }, 1);
	t.saddr = addr_of(POD_A, w->v6);
	t.daddr = addr_of(POD_B, w->v6);
	t.dport = htobe16(8080);
	for (unsigned port = 32768; port < 32768 + 28000; port++) {
		t.sport = htobe16(port);
		key = ct_key(&t, NULL);
		bpf_map_update_elem(w->ct, &key, &ct, BPF_ANY);
	}
	expect(sends(w, first) == V_REDIRECT, "the first flow");
	expect(sends(w, second) == V_DROP, "the second flow");
	expect(drops(w, WAG_DROP_SNAT_EXHAUSTED) == 1, "not counted");
	expect(world_ct_used(w) == 2, "%u entries counted", world_ct_used(w));
}

struct ct_test {
	const char *name;
	void (*run)(struct world *w);
};

/* One client port used again and again must not take slot after slot of the ring. */
static void reopened(struct world *w)
{
	services_tcp(w);
	for (unsigned n = 0; n < 500; n++) {
		handshake(w, 1, false);
		sends(w, flow(1, F_FIN | F_ACK, false));
		sends(w, reply(1, F_FIN | F_ACK));
	}
	expect(world_ct_count(w) == 2, "%u entries", world_ct_count(w));
	for (unsigned n = 0; n < 20; n++)
		handshake(w, 100 + n, false);
	expect(!drops(w, WAG_DROP_CT_FULL), "%llu drops", drops(w, WAG_DROP_CT_FULL));
	in_step(w);
}

/* Does the client see this reply come from the Service? */
static bool from_vip(struct world *w, struct spec s)
{
	struct wag_addr vip = addr_of(VIP, w->v6);
	struct frame in, out;
	const void *saddr;

	frame_build(&in, &s, w->v6);
	if (world_run(w, FROM_POD, &in, &out) != V_REDIRECT)
		return false;
	saddr = out.data + FRAME_L3 + (w->v6 ? 8 : 12);
	return memcmp(saddr, w->v6 ? (void *)&vip : (void *)&vip.w[3], w->v6 ? 16 : 4) == 0 &&
	       !frame_wrong(&out, w->v6);
}

/*
 * A segment out of the window is its receiver's to judge. With the backend's own address the client
 * would answer it with a reset, and end a connection that lives.
 */
static void out_of_window(struct world *w)
{
	static const __u8 flags[] = { F_ACK, F_RST, F_RST | F_ACK, F_SYN | F_ACK, F_ACK };

	services_tcp(w);
	handshake(w, 1, false);
	for (size_t i = 0; i < sizeof(flags); i++) {
		struct spec s = reply(1, flags[i]);

		s.seq = 0xdeadbeef - (__u32)i;
		s.ack = 0x12345678;
		s.payload = 10;
		expect(from_vip(w, s), "flags %#x: not from the Service", flags[i]);
	}
	/* Its ends took no notice: they go on, and pause for longer than a closed flow lives. */
	expect(sends(w, flow(1, F_ACK, false)) == V_REDIRECT, "the client");
	expect(from_vip(w, reply(1, F_ACK)), "the backend");
	world_age(w, 25 * SEC_NS);
	for (unsigned n = 0; n < 18; n++) /* the hand comes round */
		sends(w, flow(100 + n, F_SYN, true));
	expect(from_vip(w, reply(1, F_ACK)), "the backend, after a pause");
	in_step(w);
}

/* A connection that was reset is gone after a while, whoever still sends. */
static void reset_ends(struct world *w)
{
	services_tcp(w);
	handshake(w, 1, false);
	sends(w, reply(1, F_ACK));
	sends(w, flow(1, F_RST, false));
	world_age(w, 15 * SEC_NS);
	for (unsigned n = 0; n < 18; n++)
		sends(w, flow(100 + n, F_SYN, true));
	expect(!known(w, 1, false), "still there");
	in_step(w);
}

/* Unanswered so far, what a flow was sent to becomes a Service: the next packet is translated. */
static void service_comes_later(struct world *w)
{
	static const __u8 protos[] = { IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP };

	for (size_t i = 0; i < sizeof(protos); i++) {
		struct spec s = { POD_A, VIP2, 4000, 80, protos[i], F_SYN };
		struct spec back = { POD_B, POD_A, 8080, 4000, protos[i], F_SYN | F_ACK };
		struct wag_ct ct;

		expect(sends(w, s) != V_DROP && world_ct_count(w) == 1, "%u: before", protos[i]);
		world_service(w, 4, VIP2, 80, protos[i], WAG_SVC_CLUSTER_IP);
		world_backends(w, 4, protos[i], &(struct backend){ POD_B, 8080 }, 1);
		expect(sends(w, s) == V_REDIRECT, "%u: not translated", protos[i]);
		expect(world_ct_get(w, &s, false, &ct) && ct.flags & WAG_CT_REWRITE_ORIG,
		       "%u: not remembered", protos[i]);
		expect(sends(w, back) == V_REDIRECT, "%u: the answer", protos[i]);
		expect(world_ct_count(w) == 2, "%u entries", world_ct_count(w));
		in_step(w);
		world_reset(w, w->v6);
	}
}

/* A flow that is answered stays what it is, whatever becomes of its addresses. */
static void answered_stays(struct world *w)
{
	struct spec s = { POD_A, POD_B, 4000, 80, IPPROTO_UDP, 0 };
	struct spec back = { POD_B, POD_A, 80, 4000, IPPROTO_UDP, 0 };
	struct wag_ct ct;

	expect(sends(w, s) == V_REDIRECT && sends(w, back) == V_REDIRECT, "before");
	world_service(w, 4, POD_B, 80, IPPROTO_UDP, WAG_SVC_EXTERNAL_IP);
	world_backends(w, 4, IPPROTO_UDP, &(struct backend){ POD_C, 8080 }, 1);
	expect(sends(w, s) == V_REDIRECT, "after");
	expect(world_ct_get(w, &s, false, &ct) && !(ct.flags & WAG_CT_REWRITE_ORIG), "translated");
	expect(world_ct_count(w) == 1, "%u entries", world_ct_count(w));
}

static const struct ct_test tests[] = {
	{ "a Service that comes later gets the flow", service_comes_later },
	{ "an answered flow stays direct", answered_stays },
	{ "segments out of the window come from the Service", out_of_window },
	{ "a reset flow ends", reset_ends },
	{ "a flood of SYNs evicts only its own", flood },
	{ "a table of live flows is full: a counted drop", all_live },
	{ "expired flows give way", expired },
	{ "one client port, reopened 500 times", reopened },
	{ "100,000 random packets, the count stays true", many },
};

static void run_tests(struct world *w, const struct ct_test *list, unsigned n)
{
	for (unsigned i = 0; i < n * 2; i++) {
		test_begin();
		world_reset(w, i % 2);
		list[i / 2].run(w);
		test_end("conntrack: %s, %s", list[i / 2].name, i % 2 ? "IPv6" : "IPv4");
	}
}

void suite_conntrack(void)
{
	const struct ct_test exhausted = { "no source port left", no_port };
	struct wag_config cfg;
	struct world w;

	world_defaults(&cfg);
	cfg.ct_entries = TINY;
	test_begin();
	if (!expect(world_open(&w, &cfg) == 0, "programs do not load")) {
		test_end("conntrack: a table of %d", TINY);
		return;
	}
	run_tests(&w, tests, sizeof(tests) / sizeof(tests[0]));
	for (size_t i = 0; i < sizeof(timeouts) / sizeof(timeouts[0]); i++) {
		test_begin();
		world_reset(&w, i % 2);
		timeout_one(&w, &timeouts[i]);
		test_end("conntrack: %s ends in its time", timeouts[i].name);
	}
	world_close(&w);
	cfg.ct_entries = 32768;
	test_begin();
	if (!expect(world_open(&w, &cfg) == 0, "programs do not load")) {
		test_end("conntrack: a table of 32768");
		return;
	}
	run_tests(&w, &exhausted, 1);
	world_close(&w);
}
