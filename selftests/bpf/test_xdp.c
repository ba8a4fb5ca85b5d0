// SPDX-License-Identifier: Apache-2.0
/*
 * Packets turned round before the stack: what wag_xdp_net makes of a known flow's packet is byte
 * for byte what wag_from_net makes of it, and everything else passes as it came.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"
#include "hook_xdp.skel.h"

#define WARM_PACKETS 64 /* only one in 16 asks until asking has paid */
#define TRIES 50	/* an entry lives for 32 ticks of a clock that goes on meanwhile */

static int run_xdp(struct hook_xdp *xdp, const struct frame *in, struct frame *ret_out, __u32 dev)
{
	struct xdp_md ctx = { .data_end = in->len, .ingress_ifindex = dev };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in->data, .data_size_in = in->len,
		    .data_out = ret_out->data, .data_size_out = sizeof(ret_out->data),
		    .ctx_in = &ctx, .ctx_size_in = sizeof(ctx), .repeat = 1);

	if (bpf_prog_test_run_opts(bpf_program__fd(xdp->progs.wag_xdp_net), &opts) < 0)
		return -1000 - errno;
	ret_out->len = opts.data_size_out;
	return opts.retval;
}

static void to_remote_udp(struct world *w)
{
	to_remote(w);
	one_service(w, ANYBODY, IPPROTO_UDP, 3, REMOTE);
}

static void gone(struct world *w)
{
	world_backend_gone(w, 3, IPPROTO_UDP, REMOTE, 8080);
}

/* By device: where the flow's packets go out is, or is not, one of ours. */
static const struct xdp_case {
	const char *name;
	struct spec first, in; /* what opens the flow, and what is tried */
	enum hook by;
	bool taken; /* does the way out take packets from here? */
	int verdict;
	void (*before)(struct world *w);
} cases[] = {
	{ "TCP to another node's pod", T(OUTSIDE, 4000, NODE, 30080, F_SYN),
	  T(OUTSIDE, 4000, NODE, 30080, F_ACK), FROM_NET, true, XDP_REDIRECT, NULL },
	{ "UDP to another node's pod", U(OUTSIDE, 4000, NODE, 30080),
	  U(OUTSIDE, 4000, NODE, 30080), FROM_NET, true, XDP_REDIRECT, NULL },
	{ "UDP without a checksum", { OUTSIDE, NODE, 4000, 30080, IPPROTO_UDP, .no_check = true,
	    .payload = 8 }, { OUTSIDE, NODE, 4000, 30080, IPPROTO_UDP, .no_check = true,
	    .payload = 8 }, FROM_NET, true, XDP_REDIRECT, NULL },
	{ "its backend is gone", U(OUTSIDE, 4000, NODE, 30080), U(OUTSIDE, 4000, NODE, 30080),
	  FROM_NET, true, XDP_PASS, gone },
	{ "the way out takes nothing from XDP", T(OUTSIDE, 4000, NODE, 30080, F_SYN),
	  T(OUTSIDE, 4000, NODE, 30080, F_ACK), FROM_NET, false, XDP_PASS, NULL },
	{ "an end", T(OUTSIDE, 4000, NODE, 30080, F_SYN),
	  T(OUTSIDE, 4000, NODE, 30080, F_FIN | F_ACK), FROM_NET, true, XDP_PASS, NULL },
	{ "the last hop", T(OUTSIDE, 4000, NODE, 30080, F_SYN),
	  { OUTSIDE, NODE, 4000, 30080, IPPROTO_TCP, F_ACK, .payload = 11, .ttl = 1 }, FROM_NET,
	  true, XDP_PASS, NULL },
	{ "longer than any before", T(OUTSIDE, 4000, NODE, 30080, F_SYN),
	  { OUTSIDE, NODE, 4000, 30080, IPPROTO_TCP, F_ACK, .payload = 600 }, FROM_NET, true,
	  XDP_PASS, NULL },
	{ "another flow", T(OUTSIDE, 4000, NODE, 30080, F_SYN),
	  T(OUTSIDE, 4001, NODE, 30080, F_ACK), FROM_NET, true, XDP_PASS, NULL },
	{ "a fragment", U(OUTSIDE, 4000, NODE, 30080),
	  { OUTSIDE, NODE, 4000, 30080, IPPROTO_UDP, .id = 3, .more = true, .payload = 16 },
	  FROM_NET, true, XDP_PASS, NULL },
	{ "to a pod of this node", T(OUTSIDE, 4000, POD_A, 8080, F_SYN),
	  T(OUTSIDE, 4000, POD_A, 8080, F_ACK), FROM_NET, true, XDP_PASS, NULL },
};

/* What wag_from_net makes of the packet once it knows the flow by heart. */
static void warm(struct world *w, const struct xdp_case *c, struct frame *ret_out)
{
	struct spec plain = c->in;
	struct frame in;

	if (c->in.flags & F_FIN)
		plain.flags = F_ACK;
	if (c->verdict == XDP_PASS && c->in.payload != c->first.payload)
		plain.payload = c->first.payload;
	plain.ttl = 0;
	plain.more = false;
	if (c->in.sport != c->first.sport)
		plain.sport = c->first.sport;
	frame_build(&in, &c->first, w->v6);
	world_run(w, c->by, &in, ret_out);
	frame_build(&in, &plain, w->v6);
	for (int i = 0; i < WARM_PACKETS; i++)
		world_run(w, c->by, &in, ret_out);
}

static void run_case(struct world *w, struct hook_xdp *xdp, const struct xdp_case *c, bool v6)
{
	__u32 out_dev = if_nametoindex("wag_out"), one = 1;
	struct frame by_stack, in, out;
	struct stats stats;
	int fd = bpf_map__fd(xdp->maps.wag_xdp_dev), v = -1;

	for (int try = 0; try < TRIES; try++) {
		world_reset(w, v6);
		to_remote_udp(w);
		if (c->taken)
			bpf_map_update_elem(fd, &out_dev, &one, BPF_ANY);
		else
			bpf_map_delete_elem(fd, &out_dev);
		warm(w, c, &by_stack);
		if (c->before)
			c->before(w);
		frame_build(&in, &c->in, v6);
		/* Asking pays only after some packets in vain. */
		for (int i = 0; i < 32; i++) {
			v = run_xdp(xdp, &in, &out, world_ifindex(FROM_NET));
			if (v != XDP_PASS)
				break;
		}
		if (v == c->verdict && (v != XDP_PASS || try > 2))
			break;
	}
	expect(v == c->verdict, "verdict %d, not %d", v, c->verdict);
	world_stats(w, WAG_POINT_XDP, &stats);
	if (c->verdict == XDP_PASS) {
		expect(out.len == in.len && !memcmp(out.data, in.data, in.len), "changed");
		expect(!stats.packets[WAG_DROP_FORWARDED], "counted");
		return;
	}
	expect(out.len == by_stack.len && !memcmp(out.data, by_stack.data, out.len),
	       "not what wag_from_net makes of it");
	expect(stats.packets[WAG_DROP_FORWARDED] == 1 &&
		       stats.bytes[WAG_DROP_FORWARDED] == in.len,
	       "counted %llu times", stats.packets[WAG_DROP_FORWARDED]);
}

void suite_xdp(struct world *w)
{
	struct hook_xdp *xdp = hook_xdp__open();
	int r = xdp ? 0 : -errno;

	if (r == 0) {
		memcpy((void *)&xdp->rodata->cfg, &w->cfg, sizeof(w->cfg));
		r = world_share_maps(w, xdp->obj);
	}
	if (r == 0)
		r = hook_xdp__load(xdp);
	/* The next hop is known: else each packet asks for it. */
	if (r == 0 && system("PATH=$PATH:/usr/sbin:/sbin\n"
			     "ip neigh add 10.1.9.9 lladdr 02:00:00:00:00:77 dev wag_out\n"
			     "ip neigh add fd00:1:9::9 lladdr 02:00:00:00:00:77 dev wag_out"))
		r = -EIO;
	if (r < 0) {
		printf("FAIL bpf: xdp: program loads: %s\n", strerror(-r));
		return;
	}
	for (size_t i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
		test_begin();
		run_case(w, xdp, &cases[i / 2], i % 2);
		test_end("xdp: %s, %s", cases[i / 2].name, i % 2 ? "IPv6" : "IPv4");
	}
	hook_xdp__destroy(xdp);
}
