// SPDX-License-Identifier: Apache-2.0
/* Fragments before their first one: held, put back in order, and given up in time. */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cases.h"

#define ID 4711
#define LAST_MS 1000

/* Offsets in units of 8 bytes: 72 bytes a fragment (8 of them the UDP header). */
static void fragment(struct frame *f, const struct world *w, enum hook hook, unsigned number,
		     bool more)
{
	frame_build(f,
		    &(struct spec){ hook == FROM_POD ? POD_A : OUTSIDE,
				    hook == FROM_POD ? VIP : NODE, number ? 0 : 4000,
				    number ? 0 : 80, IPPROTO_UDP, .id = ID, .frag = number * 9,
				    .more = more,
				    .payload = number ? 72 : 64 },
		    w->v6);
}

static __u64 lost(struct world *w, enum wag_point point)
{
	struct stats stats;

	world_stats(w, point, &stats);
	return stats.packets[WAG_DROP_FRAG_NOT_FOUND];
}

static __u64 seen(struct world *w, enum wag_point point)
{
	struct stats stats;
	__u64 sum = 0;

	world_stats(w, point, &stats);
	for (int reason = 0; reason < WAG_REASON_COUNT; reason++)
		sum += stats.packets[reason];
	return sum;
}

static unsigned held(struct world *w)
{
	static struct wag_frag_hold h;
	unsigned n = 0;

	for (__u32 i = 0; i < WAG_FRAG_HOLD_SLOTS; i++)
		n += bpf_map_lookup_elem(w->frag_hold, &i, &h) == 0 &&
		     h.state == WAG_FRAG_FULL;
	return n;
}

/* As if all that is held had come so long ago. */
static void age(struct world *w, __u64 ns)
{
	static struct wag_frag_hold h;

	for (__u32 i = 0; i < WAG_FRAG_HOLD_SLOTS; i++) {
		if (bpf_map_lookup_elem(w->frag_hold, &i, &h))
			continue;
		h.time_ns -= h.state == WAG_FRAG_FULL ? ns : 0;
		bpf_map_update_elem(w->frag_hold, &i, &h, BPF_ANY);
	}
}

/* What comes in on the hook's device. */
static int listen_on(enum hook hook)
{
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL),
				  .sll_ifindex = (int)world_ifindex(hook) };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));

	expect(fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0, "a packet socket: %s",
	       strerror(errno));
	return fd;
}

static void expect_back(int fd, const struct frame *want, const char *what)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	struct sockaddr_ll from;
	socklen_t size = sizeof(from);
	__u8 got[FRAME_MAX];
	ssize_t n;

	do {
		if (poll(&p, 1, LAST_MS) != 1) {
			expect(false, "%s was not put back", what);
			return;
		}
		n = recvfrom(fd, got, sizeof(got), 0, (struct sockaddr *)&from, &size);
		/* The rest is the namespace's own: it goes the other way, or to a group. */
	} while (n > 0 && from.sll_pkttype != PACKET_HOST && from.sll_pkttype != PACKET_OTHERHOST);
	expect(n == want->len && !memcmp(got, want->data, want->len),
	       "%s came back as another frame of %zd bytes, not %u", what, n, want->len);
}

static void put_back(struct world *w, enum hook hook, enum wag_point point)
{
	struct frame first, second, third, out;
	int fd = listen_on(hook);

	fragment(&first, w, hook, 0, true);
	fragment(&second, w, hook, 1, true);
	fragment(&third, w, hook, 2, false);
	expect(world_run(w, hook, &third, &out) == V_DROP, "the third went on");
	expect(world_run(w, hook, &second, &out) == V_DROP, "the second went on");
	expect(held(w) == 2, "%u held, not 2", held(w));
	expect(seen(w, point) == 0, "%llu counted while they wait", seen(w, point));
	expect(world_run(w, hook, &first, &out) == V_REDIRECT, "nothing was put back");
	expect(out.len == second.len && !memcmp(out.data, second.data, out.len),
	       "the packet is not the last one that waited");
	expect_back(fd, &first, "the first fragment");
	expect_back(fd, &third, "the third fragment");
	expect(held(w) == 0, "%u still held", held(w));
	expect(seen(w, point) == 0, "%llu counted before they come again", seen(w, point));
	/* Put back, they meet the program again: now as if they had come in order. */
	expect(world_run(w, hook, &first, &out) != V_DROP && seen(w, point) == 1, "not the first");
	expect(world_run(w, hook, &third, &out) != V_DROP && seen(w, point) == 2, "not the third");
	expect(world_run(w, hook, &second, &out) != V_DROP && seen(w, point) == 3,
	       "not the second");
	expect(lost(w, point) == 0, "%llu lost", lost(w, point));
	close(fd);
}

static void timed_out(struct world *w, enum hook hook, enum wag_point point)
{
	struct frame first, second, out;
	int v;

	fragment(&first, w, hook, 0, true);
	fragment(&second, w, hook, 1, false);
	expect(world_run(w, hook, &second, &out) == V_DROP, "it went on");
	age(w, 2 * SEC_NS);
	world_drain(w);
	v = world_run(w, hook, &first, &out);
	expect(v == (hook == FROM_POD ? V_REDIRECT : V_PASS), "verdict %d", v);
	expect(lost(w, point) == 1, "%llu lost, not 1", lost(w, point));
	expect(held(w) == 0, "still held");
	world_drain(w);
	expect(w->n_events && w->events[0].type == WAG_EVENT_DROP &&
		       w->events[0].reason == WAG_DROP_FRAG_NOT_FOUND &&
		       w->events[0].point == point && w->events[0].len == second.len &&
		       w->events[0].orig.proto == IPPROTO_UDP,
	       "no event that says so");
}

/* One more than a set has room for: somebody must go, and is counted; nothing else is lost. */
static void no_room(struct world *w, enum hook hook, enum wag_point point)
{
	struct frame f, out;

	for (unsigned i = 1; i <= WAG_FRAG_HOLD_WAYS + 1; i++) {
		fragment(&f, w, hook, i, true);
		expect(world_run(w, hook, &f, &out) == V_DROP, "fragment %u went on", i);
	}
	expect(held(w) == WAG_FRAG_HOLD_WAYS, "%u held", held(w));
	expect(lost(w, point) == 1, "%llu lost, not 1", lost(w, point));
	/* Later, the room is free again. */
	age(w, 2 * SEC_NS);
	fragment(&f, w, hook, 1, true);
	expect(world_run(w, hook, &f, &out) == V_DROP, "it went on");
	expect(lost(w, point) == 2 && held(w) == WAG_FRAG_HOLD_WAYS, "%llu lost, %u held",
	       lost(w, point), held(w));
}

static void another_datagram(struct world *w, enum hook hook, enum wag_point point)
{
	struct frame first, other, out;

	fragment(&other, w, hook, 1, false);
	expect(world_run(w, hook, &other, &out) == V_DROP, "it went on");
	frame_build(&first,
		    &(struct spec){ POD_A, VIP, 4000, 80, IPPROTO_UDP, .id = ID + 1, .more = true,
				    .payload = 64 },
		    w->v6);
	world_run(w, hook, &first, &out);
	expect(held(w) == 1 && seen(w, point) == 1, "%u held, %llu counted", held(w),
	       seen(w, point));
}

void suite_fragment(struct world *w)
{
	static const struct {
		const char *name;
		void (*fn)(struct world *w, enum hook hook, enum wag_point point);
	} tests[] = { { "put back when the first one comes", put_back },
		      { "given up after a second", timed_out },
		      { "more than there is room for", no_room },
		      { "another datagram's first one", another_datagram } };

	for (size_t t = 0; t < sizeof(tests) / sizeof(tests[0]); t++) {
		for (int i = 0; i < 4; i++) {
			enum hook hook = i & 2 ? FROM_NET : FROM_POD;

			test_begin();
			world_reset(w, i & 1);
			services_tcp(w);
			tests[t].fn(w, hook,
				    hook == FROM_POD ? WAG_POINT_FROM_POD : WAG_POINT_FROM_NET);
			test_end("fragments that wait: %s, %s, %s", tests[t].name,
				 hook == FROM_POD ? "from a pod" : "from the network",
				 i & 1 ? "IPv6" : "IPv4");
		}
	}
}
