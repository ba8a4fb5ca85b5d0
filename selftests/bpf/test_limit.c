// SPDX-License-Identifier: Apache-2.0
/*
 * A pod's bandwidth: the bucket's size, its refill, and the drop that says so; departure times
 * where fq sends, how far ahead they may be, and how they come to the device.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "cases.h"
#include "hook_limit.skel.h"
#include "hook_pod.skel.h"

#define PACKET 1000 /* bytes, about */
/* As in stage_limit.h. */
#define QUEUE 0x4000U
#define QUEUE_SHIFT 17
#define QUEUE_MASK 0x3fffU

static int run(struct world *w, int prog, const struct frame *in)
{
	struct __sk_buff ctx = { .ifindex = world_ifindex(FROM_POD) };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in->data, .data_size_in = in->len,
		    .ctx_in = &ctx, .ctx_size_in = sizeof(ctx));

	return bpf_prog_test_run_opts(prog, &opts) < 0 ? -1000 - errno : (int)opts.retval;
}

static void set_limit(int map, __u32 direction, __u64 rate, __u64 burst)
{
	struct wag_limit_key key = { world_ifindex(FROM_POD), direction };
	struct wag_limit value = { .bytes_per_s = rate, .burst_bytes = burst };

	expect(!bpf_map_update_elem(map, &key, &value, BPF_ANY), "wag_limit: %s", strerror(errno));
}

static void one_side(struct world *w, struct hook_limit *l, bool egress)
{
	int prog = bpf_program__fd(egress ? l->progs.wag_limit_egress :
					    l->progs.wag_limit_ingress);
	int map = bpf_map__fd(l->maps.wag_limit);
	__u32 direction = egress ? WAG_LIMIT_EGRESS : WAG_LIMIT_INGRESS;
	enum wag_point point = egress ? WAG_POINT_FROM_POD : WAG_POINT_TO_POD;
	const struct timespec refill = { .tv_nsec = 220000000 };
	struct stats before, after;
	struct wag_limit_key own = { world_ifindex(FROM_POD), direction };
	unsigned passed = 0;
	struct frame f;

	frame_build(&f, &(struct spec){ POD_A, POD_B, 4000, 80, IPPROTO_UDP,
					.payload = PACKET - 42 - 20 * w->v6 }, w->v6);
	bpf_map_delete_elem(map, &own);
	/* Nobody's limit: the other direction's is none of ours. */
	set_limit(map, !direction, 1, 1);
	for (int i = 0; i < 50; i++)
		expect(run(w, prog, &f) == V_PASS, "without a limit, packet %d was stopped", i);
	/* Ten packets a second: a burst of four, and the one that empties the bucket. */
	set_limit(map, direction, 10 * PACKET, 4 * PACKET);
	world_drain(w);
	world_stats(w, point, &before);
	for (int i = 0; i < 10; i++)
		passed += run(w, prog, &f) == V_PASS;
	world_stats(w, point, &after);
	expect(passed == 5, "%u of a burst passed, not 5", passed);
	expect(after.packets[WAG_DROP_BANDWIDTH] - before.packets[WAG_DROP_BANDWIDTH] == 5 &&
		       after.packets[0] == before.packets[0],
	       "%llu counted as too much, not 5",
	       after.packets[WAG_DROP_BANDWIDTH] - before.packets[WAG_DROP_BANDWIDTH]);
	world_drain(w);
	expect(w->n_events == 5 && w->events[0].type == WAG_EVENT_DROP &&
		       w->events[0].reason == WAG_DROP_BANDWIDTH && w->events[0].point == point &&
		       w->events[0].orig.dport == htobe16(80),
	       "%u events", w->n_events);
	/* Two more tenths of a second, two more packets. */
	nanosleep(&refill, NULL);
	passed = 0;
	for (int i = 0; i < 10; i++)
		passed += run(w, prog, &f) == V_PASS;
	expect(passed >= 1 && passed <= 4, "%u passed after 0.2 s", passed);
}

static void set_pacing(struct world *w, bool on)
{
	const struct wag_runtime runtime = { .pacing = on, .nodes = 1 };
	__u32 zero = 0;

	expect(!bpf_map_update_elem(w->runtime, &zero, &runtime, BPF_ANY), "wag_runtime");
}

static struct wag_limit get_limit(int map)
{
	struct wag_limit_key own = { world_ifindex(FROM_POD), WAG_LIMIT_EGRESS };
	struct wag_limit value = { 0 };

	expect(!bpf_map_lookup_elem(map, &own, &value), "wag_limit: %s", strerror(errno));
	return value;
}

/* n datagrams from pod A, as wag_limit_egress has marked them; how many went on. */
static unsigned send_marked(struct world *w, enum who dst, __u32 queue, unsigned n)
{
	struct __sk_buff ctx = { .ifindex = world_ifindex(FROM_POD) };
	unsigned passed = 0;
	struct frame f;

	frame_build(&f, &(struct spec){ POD_A, dst, 4000, 80, IPPROTO_UDP,
					.payload = PACKET - 42 - 20 * w->v6 }, w->v6);
	while (n--)
		passed += world_run_queued(w, FROM_POD, &f, queue, &ctx) == V_REDIRECT;
	return passed;
}

/* Ten packets a second and a burst of four, where fq sends. */
static void paced(struct world *w, struct hook_limit *l)
{
	int prog = bpf_program__fd(l->progs.wag_limit_egress);
	int map = bpf_map__fd(w->pod->maps.wag_limit);
	struct wag_limit value;
	struct stats stats;
	struct frame f;
	unsigned n;
	__u64 now;

	frame_build(&f, &(struct spec){ POD_A, OUTSIDE, 4000, 80, IPPROTO_UDP, .payload = 900 },
		    w->v6);
	set_limit(map, WAG_LIMIT_EGRESS, 10 * PACKET, 4 * PACKET);
	set_pacing(w, true);
	for (int i = 0; i < 30; i++)
		expect(run(w, prog, &f) == V_PASS, "stopped before it is known where it goes");
	value = get_limit(map);
	expect(!value.next_ns && !value.departs_ns, "counted before it is known where it goes");

	/* Of what leaves the node two seconds' worth may wait beside the burst. */
	n = send_marked(w, OUTSIDE, QUEUE, 40);
	now = now_ns();
	value = get_limit(map);
	expect(n == 25, "%u went on, not 25", n);
	expect(value.departs_ns > now + 19 * SEC_NS / 10 &&
		       value.departs_ns < now + 22 * SEC_NS / 10,
	       "the next one departs in %lld ms", (long long)(value.departs_ns - now) / 1000000);
	world_stats(w, WAG_POINT_FROM_POD, &stats);
	expect(stats.packets[WAG_DROP_BANDWIDTH] == 15, "%llu counted as too much",
	       stats.packets[WAG_DROP_BANDWIDTH]);
	world_drain(w);
	expect(w->n_events && w->events[w->n_events - 1].reason == WAG_DROP_BANDWIDTH, "no event");

	/* That does not keep it from what is on the node, which has a bucket. */
	n = send_marked(w, POD_B, QUEUE, 10);
	expect(n == 5, "%u of a burst to a pod passed, not 5", n);
	expect(get_limit(map).departs_ns == value.departs_ns, "counted with what leaves");

	/* Nor does it pay that has no mark, and a queue's number is none. */
	n = send_marked(w, OUTSIDE, 0, 20) + send_marked(w, OUTSIDE, 4000, 20);
	expect(n == 40 && get_limit(map).departs_ns == value.departs_ns, "%u of 40 passed", n);
	set_pacing(w, false);
}

/* What a device's egress hook makes of a departure time. */
static void departs(struct world *w, enum hook hook)
{
	const struct {
		long ahead_ms;
		bool marked;
		__u64 own_ms; /* the packet has one already */
		long want_ms; /* -1: none */
	} times[] = { { 500, true, 0, 500 },  { 1990, true, 0, 1990 }, { 1, true, 0, 1 },
		      { -100, true, 0, -1 },  { 500, false, 0, -1 },   { 500, true, 800, 800 },
		      { 500, true, 200, 500 } };
	struct __sk_buff ctx = { .ifindex = world_ifindex(hook), .ingress_ifindex = 1,
				 .mark = WAG_MARK_TRANSLATED };
	struct frame f;

	frame_build(&f, &(struct spec){ NODE, OUTSIDE, 4000, 80, IPPROTO_UDP, .payload = 900 },
		    w->v6);
	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
		__u64 now = now_ns(), at = now + times[i].ahead_ms * 1000000;
		__u64 want = now + times[i].want_ms * 1000000;
		__u32 queue = at >> QUEUE_SHIFT & QUEUE_MASK;
		int v;

		ctx.tstamp = times[i].own_ms ? now + times[i].own_ms * 1000000 : 0;
		v = world_run_queued(w, hook, &f, times[i].marked ? QUEUE | queue : queue >> 4,
				     &ctx);
		expect(v == V_PASS, "verdict %d", v);
		if (times[i].want_ms < 0)
			expect(!w->tstamp, "%zu: a time of %llu", i, w->tstamp);
		else
			expect(w->tstamp <= want && w->tstamp + (1U << QUEUE_SHIFT) > want,
			       "%zu: it leaves %lld us off", i,
			       (long long)(w->tstamp - want) / 1000);
	}
}

static void pacing(struct world *w, struct hook_limit *l)
{
	for (int v6 = 0; v6 < 2; v6++) {
		test_begin();
		world_reset(w, v6);
		paced(w, l);
		test_end("bandwidth: departure times, %s", v6 ? "IPv6" : "IPv4");
		for (int i = 0; i < 2; i++) {
			test_begin();
			world_reset(w, v6);
			departs(w, i ? TO_TUNNEL : TO_NET);
			test_end("bandwidth: it departs at the %s, %s", i ? "tunnel" : "device",
				 v6 ? "IPv6" : "IPv4");
		}
	}
}

void suite_limit(struct world *w)
{
	struct hook_limit *l = hook_limit__open();

	test_begin();
	if (!expect(l != NULL, "hook_limit: %s", strerror(errno)))
		goto out;
	memcpy((void *)&l->rodata->cfg, &w->cfg, sizeof(w->cfg));
	if (!expect(world_share_maps(w, l->obj) == 0 && hook_limit__load(l) == 0,
		    "hook_limit does not load: %s", strerror(errno)))
		goto out;
	for (int i = 0; i < 4; i++) {
		world_reset(w, i & 1);
		one_side(w, l, i & 2);
		test_end("bandwidth: what a pod %s, %s", i & 2 ? "sends" : "receives",
			 i & 1 ? "IPv6" : "IPv4");
		test_begin();
	}
	pacing(w, l);
	hook_limit__destroy(l);
	return;
out:
	test_end("bandwidth");
	hook_limit__destroy(l);
}
