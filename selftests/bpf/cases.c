// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <endian.h>
#include <net/if.h>
#include <string.h>

#include "cases.h"

static const enum wag_point points[] = {
	[FROM_POD] = WAG_POINT_FROM_POD,
	[TO_POD] = WAG_POINT_TO_POD,
	[FROM_NET] = WAG_POINT_FROM_NET,
	[TO_NET] = WAG_POINT_TO_NET,
	[FROM_TUNNEL] = WAG_POINT_FROM_TUNNEL,
	[TO_TUNNEL] = WAG_POINT_TO_TUNNEL,
};

static void compare(const struct frame *got, const struct frame *want)
{
	char hex[2][64] = {};

	for (__u32 i = 0; i < want->len && i < got->len; i++) {
		if (got->data[i] == want->data[i])
			continue;
		for (__u32 k = 0; k < 16 && i + k < want->len && i + k < got->len; k++) {
			sprintf(hex[0] + 2 * k, "%02x", got->data[i + k]);
			sprintf(hex[1] + 2 * k, "%02x", want->data[i + k]);
		}
		expect(false, "byte %u on is %s, not %s", i, hex[0], hex[1]);
		return;
	}
	expect(got->len == want->len, "%u bytes long, not %u", got->len, want->len);
}

/* The packet that must leave. */
static struct spec leaves_as(struct world *w, const struct step *step, const struct spec *in,
			     const struct frame *out)
{
	struct spec s = *in;
	__u32 at;

	s.src = step->src ? step->src : in->src;
	s.dst = step->dst ? step->dst : in->dst;
	s.dport = step->dport ? step->dport : in->dport;
	s.sport = step->sport ? step->sport : in->sport;
	s.into = step->into;
	s.macs_zero = step->macs_zero;
	s.ttl = (in->ttl ? in->ttl : 64) - step->hops;
	if (step->any_sport) {
		/* Of an echo, its identifier. */
		at = out->l4 + (in->proto == IPPROTO_ICMP ? 4 : 0);
		w->port = out->data[at] << 8 | out->data[at + 1];
		expect(w->port >= 32768 && w->port < 32768 + 28000, "source port %u was chosen",
		       w->port);
	}
	if (step->any_sport || step->chosen_sport)
		s.sport = w->port;
	return s;
}

static void check_stats(struct world *w, const struct step *step, const struct stats *before,
			__u32 len)
{
	struct stats after;

	world_stats(w, points[step->hook], &after);
	for (int reason = 0; reason < WAG_REASON_COUNT; reason++) {
		__u64 packets = reason == step->reason && !step->uncounted;

		expect(after.packets[reason] - before->packets[reason] == packets,
		       "reason %d counted %llu times", reason,
		       after.packets[reason] - before->packets[reason]);
		expect(after.bytes[reason] - before->bytes[reason] == packets * len,
		       "reason %d counted %llu bytes of %u", reason,
		       after.bytes[reason] - before->bytes[reason], len);
	}
}

static bool same_tuple(const struct wag_tuple *a, const struct wag_tuple *b)
{
	return !memcmp(a, b, sizeof(*a));
}

static __u32 step_ifindex(const struct step *step)
{
	return step->elsewhere ? if_nametoindex("wag_out") : world_ifindex(step->hook);
}

static void check_event(struct world *w, const struct step *step, const struct spec *in,
			const struct spec *out, __u32 len)
{
	bool nat = memcmp(&step->src, &(enum who){ 0 }, sizeof(step->src)) || step->dst ||
		   step->sport || step->dport || step->any_sport;
	const struct wag_event *e = &w->events[0];
	bool want = step->reason || step->news;
	struct wag_tuple t;

	world_drain(w);
	if (!expect(w->n_events == want, "%u events", w->n_events) || !want)
		return;
	expect(e->type == (step->reason ? WAG_EVENT_DROP : WAG_EVENT_TRACE), "event type %u",
	       e->type);
	expect(e->point == points[step->hook], "event point %u", e->point);
	expect(e->reason == step->reason, "event reason %u", e->reason);
	expect(!!e->line == !!step->reason, "event line %u", e->line);
	expect(!!(e->flags & WAG_EVENT_F_IPV6) == w->v6, "event flags 0x%x", e->flags);
	expect(e->len == len, "event length %u, not %u", e->len, len);
	expect(e->ifindex == step_ifindex(step), "event device %u", e->ifindex);
	if (step->reason)
		return;
	expect(e->ct == step->news, "event says conntrack %u, not %u", e->ct, step->news);
	expect(!!(e->flags & WAG_EVENT_F_FIRST_REPLY) == (step->news == WAG_EVENT_CT_REPLY),
	       "event flags 0x%x", e->flags);
	t = tuple_of(in, w->v6);
	expect(same_tuple(&e->orig, &t), "event's original tuple is wrong");
	t = tuple_of(out, w->v6);
	if (nat)
		expect(e->flags & WAG_EVENT_F_XLAT && same_tuple(&e->xlat, &t),
		       "event's translated tuple is wrong");
}

static void check_key(struct world *w, const struct step *step)
{
	struct wag_addr want = addr_of(step->packed, w->v6);
	struct bpf_tunnel_key key;
	bool same;

	world_tunnel_key(w, step->hook, &key);
	same = w->v6 ? !memcmp(key.remote_ipv6, &want, sizeof(want)) :
		       key.remote_ipv4 == be32toh(want.w[3]);
	expect(same && key.tunnel_id == TUNNEL_VNI, "packed for 0x%x, network %u",
	       w->v6 ? be32toh(key.remote_ipv6[3]) : key.remote_ipv4, key.tunnel_id);
}

void run_step(struct world *w, const struct step *step)
{
	struct __sk_buff ctx = { .ifindex = step_ifindex(step),
				 .ingress_ifindex = step->ingress,
				 .mark = step->mark };
	struct frame in, out, want;
	struct spec spec = step->in;
	struct stats before;
	struct spec left;
	int verdict;

	if (step->before)
		step->before(w);
	if (step->to_chosen_port)
		spec.dport = w->port;
	frame_build(&in, &spec, w->v6);
	world_drain(w);
	world_stats(w, points[step->hook], &before);
	verdict = world_run_ctx(w, step->hook, &in, &out, &ctx);
	if (!expect(verdict == step->verdict, "verdict %d, not %d", verdict, step->verdict))
		return;
	left = leaves_as(w, step, &spec, &out);
	frame_build(&want, &left, w->v6);
	check_stats(w, step, &before, in.len);
	check_event(w, step, &spec, &left, in.len);
	if (!step->reason)
		compare(&out, &want);
	if (step->packed)
		check_key(w, step);
	expect(world_ct_count(w) == step->entries, "%u conntrack entries, not %u",
	       world_ct_count(w), step->entries);
	expect(world_ct_used(w) == world_ct_count(w), "%u entries used, %u there", world_ct_used(w),
	       world_ct_count(w));
}

void run_cases(struct world *w, const struct one_case *cases, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		for (int v6 = 0; v6 < 2; v6++) {
			if (cases[i].family && cases[i].family != (v6 ? ONLY_V6 : ONLY_V4))
				continue;
			test_begin();
			world_reset(w, v6);
			if (cases[i].setup)
				cases[i].setup(w);
			for (int s = 0; s < STEPS_MAX && cases[i].steps[s].in.src; s++) {
				run_step(w, &cases[i].steps[s]);
				if (test_failed()) {
					test_end("%s, %s, packet %d", cases[i].name,
						 v6 ? "IPv6" : "IPv4", s + 1);
					break;
				}
			}
			if (!test_failed())
				test_end("%s, %s", cases[i].name, v6 ? "IPv6" : "IPv4");
		}
	}
}

void suite_cases(struct world *w)
{
	cases_parse(w);
	cases_flow(w);
	cases_hostport(w);
	cases_route(w);
	cases_policy(w);
}
