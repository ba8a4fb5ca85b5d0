// SPDX-License-Identifier: Apache-2.0
/*
 * A Service without backends answers at once: a reset for TCP, "port unreachable" for the rest. And
 * what a router says, where the stack would say it to the wrong one.
 */
#include <endian.h>
#include <string.h>

#include "cases.h"

struct refusal {
	const char *name;
	unsigned family;
	enum hook hook;
	struct spec in;
	bool reset; /* else ICMP */
	bool none;  /* dropped without an answer */
	enum wag_reason why; /* 0: NO_BACKEND */
	__u8 types[2], codes[2]; /* by family */
	__u32 mtu;
	void (*setup)(struct world *w);
	__u8 entries;
};

static void to_narrow(struct world *w)
{
	services_tcp(w);
	world_pod_mtu(w, POD_B, 1300);
}

static const struct refusal refusals[] = {
	{ "TCP from a pod",
	  0,
	  FROM_POD,
	  { POD_A, VIP, 4000, 80, IPPROTO_TCP, F_SYN, .seq = 0x01020304 },
	  .reset = true },
	{ "TCP with data from a pod",
	  0,
	  FROM_POD,
	  { POD_A, VIP, 4000, 80, IPPROTO_TCP, F_SYN | F_FIN, .seq = 0xfffffff0, .payload = 31 },
	  .reset = true },
	{ "TCP in mid-connection",
	  0,
	  FROM_POD,
	  { POD_A, VIP, 4000, 80, IPPROTO_TCP, F_ACK, .seq = 7, .ack = 0xa0b0c0d0, .payload = 3 },
	  .reset = true },
	{ "TCP from outside to a NodePort",
	  0,
	  FROM_NET,
	  { OUTSIDE, NODE, 4000, 30080, IPPROTO_TCP, F_SYN, .seq = 9 },
	  .reset = true },
	{ "TCP from the node",
	  0,
	  TO_NET,
	  { NODE, VIP, 4000, 80, IPPROTO_TCP, F_SYN, .seq = 9 },
	  .reset = true },
	{ "UDP from a pod", 0, FROM_POD, { POD_A, VIP, 4000, 80, IPPROTO_UDP, .payload = 1000 } },
	{ "UDP without data from outside",
	  0,
	  FROM_NET,
	  { OUTSIDE, NODE, 4000, 30080, IPPROTO_UDP } },
	{ "UDP from the node", 0, TO_NET, { NODE, VIP, 4000, 80, IPPROTO_UDP, .payload = 33 } },
	{ "SCTP from a pod", 0, FROM_POD, { POD_A, VIP, 4000, 80, IPPROTO_SCTP, .payload = 20 } },
	{ "TCP behind IP options or an extension header",
	  0,
	  FROM_POD,
	  { POD_A, VIP, 4000, 80, IPPROTO_TCP, F_SYN, .options = 1, .payload = 4 } },
	{ "a reset is not answered",
	  0,
	  FROM_POD,
	  { POD_A, VIP, 4000, 80, IPPROTO_TCP, F_RST, .seq = 7 },
	  .none = true },
	{ "no route to the backend, TCP",
	  0,
	  FROM_NET,
	  { OUTSIDE, NODE, 4000, 30080, IPPROTO_TCP, F_SYN, .seq = 9 },
	  .why = WAG_DROP_FIB_FAILED,
	  .types = { 3, 1 },
	  .codes = { 1, 0 },
	  .setup = to_unrouted,
	  .entries = 2 },
	{ "no route to the backend, from the node",
	  0,
	  TO_NET,
	  { NODE, VIP, 4000, 80, IPPROTO_TCP, F_SYN, .seq = 9 },
	  .why = WAG_DROP_FIB_FAILED,
	  .types = { 3, 1 },
	  .codes = { 1, 0 },
	  .setup = to_unrouted,
	  .entries = 2 },
	{ "a used up TTL, where the source would change",
	  0,
	  FROM_NET,
	  { OUTSIDE, NODE, 4000, 30080, IPPROTO_TCP, F_SYN, .seq = 9, .ttl = 1 },
	  .why = WAG_DROP_TTL_EXCEEDED,
	  .types = { 11, 3 },
	  .setup = to_remote,
	  .entries = 2 },
	{ "too big, where the source would change",
	  0,
	  FROM_NET,
	  { OUTSIDE, NODE, 4000, 30080, IPPROTO_TCP, F_SYN, .seq = 9, .payload = 1600 },
	  .why = WAG_DROP_FRAG_NEEDED,
	  .types = { 3, 2 },
	  .codes = { 4, 0 },
	  .mtu = 1500,
	  .setup = to_remote,
	  .entries = 2 },
	{ "too big for the pod, from the node",
	  0,
	  TO_NET,
	  { NODE, VIP, 4000, 80, IPPROTO_TCP, F_SYN, .seq = 9, .payload = 1300 },
	  .why = WAG_DROP_FRAG_NEEDED,
	  .types = { 3, 2 },
	  .codes = { 4, 0 },
	  .mtu = 1300,
	  .setup = to_narrow,
	  .entries = 2 },
	{ "too big, from the node",
	  0,
	  TO_NET,
	  { NODE, VIP, 4000, 80, IPPROTO_TCP, F_SYN, .seq = 9, .payload = 1600 },
	  .why = WAG_DROP_FRAG_NEEDED,
	  .types = { 3, 2 },
	  .codes = { 4, 0 },
	  .mtu = 1500,
	  .setup = to_remote,
	  .entries = 2 },
};

static void setup(struct world *w)
{
	const __u8 protos[] = { IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP };

	for (int i = 0; i < 3; i++) {
		world_service(w, 1 + i, VIP, 80, protos[i], WAG_SVC_CLUSTER_IP);
		world_service(w, 4 + i, ANYBODY, 30080, protos[i], WAG_SVC_NODE_PORT);
		world_backends(w, 1 + i, protos[i], NULL, 0);
		world_backends(w, 4 + i, protos[i], NULL, 0);
	}
}

/* The answer as RFC 9293, RFC 792 and RFC 4443 want it; the quote is the packet's own bytes. */
static void answer(struct frame *f, const struct refusal *r, const struct frame *in, bool v6)
{
	struct spec s = {
		.src = r->why == WAG_DROP_TTL_EXCEEDED ? NODE : r->in.dst,
		.dst = r->in.src,
		.macs_back = true,
	};
	__u32 l4 = r->in.proto == IPPROTO_TCP ? 20 : r->in.proto == IPPROTO_UDP ? 8 : 12;

	if (r->reset) {
		s.proto = IPPROTO_TCP;
		s.sport = r->in.dport;
		s.dport = r->in.sport;
		s.flags = F_RST;
		if (r->in.flags & F_ACK) {
			s.seq = r->in.ack;
		} else {
			s.flags |= F_ACK;
			s.ack = r->in.seq + r->in.payload + !!(r->in.flags & F_SYN) +
				!!(r->in.flags & F_FIN);
		}
	} else {
		s.proto = IPPROTO_ICMP;
		s.icmp_type = r->why ? r->types[v6] : v6 ? 1 : 3;
		s.icmp_code = r->why ? r->codes[v6] : v6 ? 4 : 3;
		s.icmp_rest = r->mtu;
		s.quote = in->data + FRAME_L3;
		s.quote_len = in->l4 - FRAME_L3 + l4;
	}
	frame_build(f, &s, v6);
}

static void refuse_one(struct world *w, const struct refusal *r)
{
	const enum wag_point points[] = { WAG_POINT_FROM_POD, WAG_POINT_TO_POD, WAG_POINT_FROM_NET,
					  WAG_POINT_TO_NET };
	const enum wag_reason why = r->why ? r->why : WAG_DROP_NO_BACKEND;
	struct frame in, out, want;
	struct stats stats;
	const char *wrong;
	int verdict;

	frame_build(&in, &r->in, w->v6);
	verdict = world_run(w, r->hook, &in, &out);
	world_stats(w, points[r->hook], &stats);
	world_drain(w);
	expect(verdict == (r->none ? V_DROP : V_REDIRECT), "verdict %d", verdict);
	expect(stats.packets[why] == 1 && !stats.packets[WAG_DROP_FORWARDED],
	       "counted %llu times", stats.packets[why]);
	expect(w->n_events == 1 && w->events[0].type == WAG_EVENT_DROP &&
		       w->events[0].reason == why &&
		       w->events[0].flags & WAG_EVENT_F_REFUSED && w->events[0].svc_id >= 1001,
	       "%u events, of the first: reason %u", w->n_events, w->events[0].reason);
	expect(world_ct_count(w) == r->entries && world_ct_used(w) == r->entries,
	       "%u entries remembered", world_ct_count(w));
	if (r->none || test_failed())
		return;
	answer(&want, r, &in, w->v6);
	out.l4 = want.l4;
	expect(out.len == want.len, "%u bytes long, not %u", out.len, want.len);
	for (__u32 i = 0; i < want.len && !test_failed(); i++)
		expect(out.data[i] == want.data[i], "byte %u is %02x, not %02x", i, out.data[i],
		       want.data[i]);
	wrong = frame_wrong(&out, w->v6);
	expect(!wrong, "wrong %s", wrong);
}

void suite_refuse(struct world *w)
{
	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		for (int v6 = 0; v6 < 2; v6++) {
			test_begin();
			world_reset(w, v6);
			(refusals[i].setup ? refusals[i].setup : setup)(w);
			refuse_one(w, &refusals[i]);
			test_end("refused: %s, %s", refusals[i].name, v6 ? "IPv6" : "IPv4");
		}
	}
}
