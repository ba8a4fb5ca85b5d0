// SPDX-License-Identifier: Apache-2.0
/*
 * What a load-time setting changes: dry runs, no node address, no events, the stack forwards; and
 * the trace switch.
 */
#include <string.h>

#include "cases.h"

static int sends(struct world *w, enum hook hook, const struct spec *s, struct frame *ret_out)
{
	struct frame in;

	frame_build(&in, s, w->v6);
	return world_run(w, hook, &in, ret_out);
}

static __u64 all_counted(struct world *w)
{
	__u64 sum = 0;

	for (int point = 0; point < WAG_POINTS; point++) {
		struct stats stats;

		world_stats(w, point, &stats);
		for (int reason = 0; reason < WAG_REASON_COUNT; reason++)
			sum += stats.packets[reason];
	}
	return sum;
}

static void no_trace_left(struct world *w)
{
	world_drain(w);
	expect(!w->n_events, "%u events", w->n_events);
	expect(!world_ct_count(w) && !world_ct_used(w), "%u conntrack entries", world_ct_count(w));
	expect(!all_counted(w), "%llu packets counted", all_counted(w));
}

/* The verdict and the translated bytes, and nothing else. */
static void dry_run(struct world *w)
{
	const struct spec in[] = {
		{ POD_A, VIP, 4000, 80, IPPROTO_TCP, F_SYN },
		{ POD_A, VIP, 4000, 80, IPPROTO_UDP, .id = 5, .more = true, .payload = 16 },
		{ POD_A, POD_B, 4000, 80, IPPROTO_UDP },
		{ POD_A, VIP2, 4000, 80, IPPROTO_TCP, F_SYN },
		{ POD_A, POD_B, 4000, 80, IPPROTO_UDP, .id = 5, .frag = 2 },
	};
	const int verdicts[] = { V_PASS, V_PASS, V_PASS, V_DROP, V_DROP };
	struct spec left = {
		POD_A, POD_B, 4000, 8080, IPPROTO_TCP, F_SYN, .ttl = 63, .into = POD_B
	};
	struct frame out, want;
	int v;

	services_tcp(w);
	world_service(w, 4, VIP2, 80, IPPROTO_TCP, WAG_SVC_CLUSTER_IP);
	world_backends(w, 4, IPPROTO_TCP, NULL, 0);
	world_runtime(w, true, false);
	for (size_t i = 0; i < sizeof(in) / sizeof(in[0]); i++) {
		v = sends(w, FROM_POD, &in[i], &out);
		expect(v == verdicts[i], "packet %zu: verdict %d, not %d", i, v, verdicts[i]);
		if (i)
			continue;
		frame_build(&want, &left, w->v6);
		expect(out.len == want.len && !memcmp(out.data, want.data, want.len),
		       "the packet is not translated");
	}
	for (enum hook hook = TO_POD; hook <= TO_NET; hook++)
		sends(w, hook, &in[0], &out);
	no_trace_left(w);
}

/* Hairpin and masquerade need an address to take. */
static void no_node_address(struct world *w)
{
	const struct backend self = { POD_A, 8080 }, far = { REMOTE, 8080 };
	const struct spec hairpin = { POD_A, VIP, 4000, 80, IPPROTO_TCP, F_SYN };
	const struct spec outside = { OUTSIDE, NODE, 4000, 30080, IPPROTO_TCP, F_SYN };
	struct stats stats;
	struct frame out;

	world_service(w, 1, VIP, 80, IPPROTO_TCP, WAG_SVC_CLUSTER_IP);
	world_backends(w, 1, IPPROTO_TCP, &self, 1);
	world_service(w, 2, ANYBODY, 30080, IPPROTO_TCP, WAG_SVC_NODE_PORT);
	world_backends(w, 2, IPPROTO_TCP, &far, 1);
	expect(sends(w, FROM_POD, &hairpin, &out) == V_DROP, "the hairpin went on");
	expect(sends(w, FROM_NET, &outside, &out) == V_DROP, "the NodePort went on");
	world_stats(w, WAG_POINT_FROM_POD, &stats);
	expect(stats.packets[WAG_DROP_SNAT_EXHAUSTED] == 1, "the hairpin is not counted");
	world_stats(w, WAG_POINT_FROM_NET, &stats);
	expect(stats.packets[WAG_DROP_SNAT_EXHAUSTED] == 1, "the NodePort is not counted");
	world_drain(w);
	expect(!w->n_events, "%u events with events off", w->n_events);
}

/* IPv4's "don't fragment"; IPv6 has no other kind. */
static void set_df(struct frame *f)
{
	__u16 sum;

	f->data[FRAME_L3 + 6] |= 0x40;
	memset(f->data + FRAME_L3 + 10, 0, 2);
	sum = csum_of(f->data + FRAME_L3, 20, 0);
	memcpy(f->data + FRAME_L3 + 10, &sum, 2);
}

/* The stack would tell the node that the pod's packet is too big; it may cut it, where it may. */
static void stack_forwards(struct world *w)
{
	struct spec s = { POD_A, OUTSIDE, 4000, 53, IPPROTO_UDP, .payload = 1600 };
	struct frame in, out;
	struct stats stats;

	world_device(w, EGRESS);
	frame_build(&in, &s, w->v6);
	if (!w->v6) {
		expect(world_run(w, FROM_POD, &in, &out) == V_PASS, "what may be cut is stopped");
		set_df(&in);
	}
	expect(world_run(w, FROM_POD, &in, &out) == V_REDIRECT, "what is too big goes on");
	world_stats(w, WAG_POINT_FROM_POD, &stats);
	expect(stats.packets[WAG_DROP_FRAG_NEEDED] == 1, "counted %llu times",
	       stats.packets[WAG_DROP_FRAG_NEEDED]);
	s.payload = 1400;
	expect(sends(w, FROM_POD, &s, &out) == V_PASS, "what fits is stopped");
}

/* An event per packet only while somebody asks. */
static void trace(struct world *w)
{
	struct spec s = { POD_A, VIP, 4000, 80, IPPROTO_TCP, F_SYN };
	struct frame out;

	services_tcp(w);
	sends(w, FROM_POD, &s, &out);
	s.flags = F_ACK;
	world_drain(w);
	expect(w->n_events == 1, "%u events of a new flow", w->n_events);
	for (int i = 0; i < 3; i++)
		sends(w, FROM_POD, &s, &out);
	world_drain(w);
	expect(!w->n_events, "%u events of a known flow", w->n_events);
	world_runtime(w, true, false);
	for (int i = 0; i < 3; i++)
		sends(w, FROM_POD, &s, &out);
	world_drain(w);
	expect(w->n_events == 3, "%u events while traced", w->n_events);
	expect(w->events[2].ct == WAG_EVENT_CT_ESTABLISHED && w->events[2].next == WAG_NEXT_POD &&
		       w->events[2].tcp_flags == F_ACK && w->events[2].svc_id == 1001 &&
		       w->events[2].svc_index == 1,
	       "the event says ct %u, next %u", w->events[2].ct, w->events[2].next);
}

static void run_both(struct world *w, const char *name, void (*run)(struct world *w))
{
	for (int v6 = 0; v6 < 2; v6++) {
		test_begin();
		world_reset(w, v6);
		run(w);
		test_end("config: %s, %s", name, v6 ? "IPv6" : "IPv4");
	}
}

static void run_with(const struct wag_config *cfg, const char *name, void (*run)(struct world *w))
{
	struct world w;

	test_begin();
	if (!expect(world_open(&w, cfg) == 0, "programs do not load")) {
		test_end("config: %s", name);
		return;
	}
	run_both(&w, name, run);
	world_close(&w);
}

void suite_config(struct world *w)
{
	struct wag_config cfg = w->cfg;

	run_both(w, "an event per packet while traced", trace);
	cfg.host_routing = 0;
	cfg.masquerade_v4 = cfg.masquerade_v6 = 1;
	run_with(&cfg, "too big, where the stack forwards", stack_forwards);
	cfg = w->cfg;
	cfg.dry_run = 1;
	run_with(&cfg, "a dry run leaves no trace", dry_run);
	cfg = w->cfg;
	memset(&cfg.node_v4, 0, sizeof(cfg.node_v4));
	memset(&cfg.node_v6, 0, sizeof(cfg.node_v6));
	cfg.events = 0;
	run_with(&cfg, "a node without addresses, events off", no_node_address);
}
