// SPDX-License-Identifier: Apache-2.0
/* A pod's bandwidth: the bucket's size, its refill, and the drop that says so. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "cases.h"
#include "hook_limit.skel.h"
#include "hook_pod.skel.h"

#define PACKET 1000 /* bytes, about */

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
	hook_limit__destroy(l);
	return;
out:
	test_end("bandwidth");
	hook_limit__destroy(l);
}
