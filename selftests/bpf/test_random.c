// SPDX-License-Identifier: Apache-2.0
/* Thousands of random and broken packets: a legal verdict each, and each counted once. */
#include <endian.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"

#define PACKETS 6000
#define SEED 20261121

static unsigned seed;

static unsigned pick(unsigned n)
{
	return rand_r(&seed) % n;
}

static void random_spec(struct spec *s, const struct frame *quoted)
{
	const __u8 protos[] = { IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP, IPPROTO_ICMP, 47 };
	const __u16 ports[] = { 80, 8080, 30080, 4000, 4001, 0 };

	memset(s, 0, sizeof(*s));
	s->src = 1 + pick(UNROUTED);
	s->dst = 1 + pick(MULTICAST);
	s->sport = ports[pick(6)];
	s->dport = ports[pick(6)];
	s->proto = protos[pick(5)];
	s->flags = rand_r(&seed);
	s->payload = pick(10) ? pick(64) : pick(1400);
	s->ttl = pick(20) ? 64 : 1;
	s->options = pick(6) ? 0 : pick(8);
	s->id = pick(8);
	if (!pick(8)) {
		s->frag = pick(3);
		s->more = pick(2);
	}
	if (s->proto == IPPROTO_ICMP) {
		s->icmp_type = pick(2) ? pick(13) : rand_r(&seed);
		if (pick(2)) {
			s->quote = quoted->data + FRAME_L3;
			s->quote_len = quoted->len - FRAME_L3 > 200 ? 200 : quoted->len - FRAME_L3;
		}
	}
}

/* Bytes change, or the end goes; the kernel itself takes no packet without its IP header. */
static void mutate(struct frame *f)
{
	__u32 least = FRAME_L3 + 40;

	if (!pick(3) && f->len > least)
		f->len = least + pick(f->len - least);
	for (unsigned n = pick(4); n; n--)
		f->data[12 + pick(f->len - 12 > 100 ? 100 : f->len - 12)] = rand_r(&seed);
}

static bool is_loopback(const struct frame *f)
{
	const __u8 *l3 = f->data + FRAME_L3;
	const __u8 one[16] = { [15] = 1 };

	if (f->data[12] == 0x08)
		return l3[12] == 127 || l3[16] == 127;
	/* In IPv6 a v4-mapped address is an IPv4 one to the programs. */
	return !memcmp(l3 + 8, one, 16) || !memcmp(l3 + 24, one, 16);
}

static __u64 counted(struct world *w, enum hook hook)
{
	const enum wag_point points[] = { WAG_POINT_FROM_POD, WAG_POINT_TO_POD, WAG_POINT_FROM_NET,
					  WAG_POINT_TO_NET, WAG_POINT_FROM_TUNNEL,
					  WAG_POINT_TO_TUNNEL };
	struct stats stats;
	__u64 sum = 0;

	world_stats(w, points[hook], &stats);
	for (int reason = 0; reason < WAG_REASON_COUNT; reason++)
		sum += stats.packets[reason];
	return sum;
}

static void services(struct world *w)
{
	const struct backend backends[] = { { POD_A, 8080 },
					    { POD_B, 8080 },
					    { REMOTE, 8080 },
					    { NODE, 8080 },
					    { UNROUTED, 8080 } };

	services_tcp(w);
	world_backends(w, 1, IPPROTO_TCP, backends, 5);
	world_backends(w, 2, IPPROTO_UDP, backends, 5);
	world_service(w, 4, VIP2, 80, IPPROTO_TCP, WAG_SVC_CLUSTER_IP);
	world_backends(w, 4, IPPROTO_TCP, NULL, 0);
	world_service(w, 5, VIP2, 80, IPPROTO_UDP, WAG_SVC_CLUSTER_IP);
	world_backends(w, 5, IPPROTO_UDP, NULL, 0);
	world_service(w, 6, ANYBODY, 30080, IPPROTO_TCP, WAG_SVC_NODE_PORT);
	world_backends(w, 6, IPPROTO_TCP, backends, 5);
}

static void one_hook(struct world *w, enum hook hook)
{
	unsigned run = 0, refused = 0;
	__u64 before = counted(w, hook);
	struct frame quoted = {}, in, out;
	struct spec s;
	__u64 sum;
	int v;

	services(w);
	frame_build(&quoted, &(struct spec){ POD_A, POD_B, 4000, 8080, IPPROTO_TCP }, w->v6);
	for (unsigned i = 0; i < PACKETS; i++) {
		bool broken = pick(2);

		random_spec(&s, &quoted);
		frame_build(&in, &s, w->v6);
		quoted = in;
		if (broken)
			mutate(&in);
		v = world_run(w, hook, &in, &out);
		if (v == -1000 - EINVAL && in.len < FRAME_L3 + 40) {
			refused++; /* by the kernel: IPv6 without its header */
			continue;
		}
		run++;
		sum = counted(w, hook) - before;
		before += sum;
		/* A fragment may wait or be put back, or find that others have waited in vain. */
		if (s.frag || s.more || broken)
			expect(sum <= 1 + WAG_FRAG_HOLD_WAYS, "packet %u: %llu counted", i, sum);
		else if (hook != TO_NET || !is_loopback(&in))
			expect(sum == 1, "packet %u: counted %llu times", i, sum);
		expect(v == V_PASS || v == V_DROP || v == V_REDIRECT, "packet %u: verdict %d", i,
		       v);
		if (!broken && v == V_REDIRECT && !s.frag && !s.more && !s.options &&
		    !(s.proto == IPPROTO_ICMP && w->v6 && s.quote)) {
			const char *wrong;

			/* A refusal of UDP and SCTP is longer by its own headers. */
			if (out.data[FRAME_L3 + (w->v6 ? 6 : 9)] !=
			    in.data[FRAME_L3 + (w->v6 ? 6 : 9)])
				out.l4 = FRAME_L3 + (w->v6 ? 40 : 20);
			wrong = frame_wrong(&out, w->v6);
			expect(!wrong, "packet %u: wrong %s", i, wrong);
		}
		if (i % 200 == 0)
			world_drain(w);
	}
	expect(run + refused == PACKETS && before > PACKETS * 9ULL / 10, "%u run, %llu counted",
	       run, before);
	expect(refused < PACKETS / 10, "the kernel refused %u packets", refused);
	expect(world_ct_used(w) == world_ct_count(w), "%u entries used, %u there", world_ct_used(w),
	       world_ct_count(w));
}

void random_hook(struct world *w, enum hook hook, const char *name, void (*setup)(struct world *))
{
	for (int v6 = 0; v6 < 2; v6++) {
		test_begin();
		seed = SEED + hook * 2 + v6;
		world_reset(w, v6);
		if (setup)
			setup(w);
		one_hook(w, hook);
		test_end("random: %d packets %s, %s", PACKETS, name, v6 ? "IPv6" : "IPv4");
	}
}

void suite_random(struct world *w)
{
	const char *const names[] = { "from a pod", "to a pod", "from the network",
				      "to the network" };

	for (enum hook hook = FROM_POD; hook <= TO_NET; hook++)
		random_hook(w, hook, names[hook], NULL);
}
