// SPDX-License-Identifier: Apache-2.0
/* ICMP errors find their flow, and quote what the other side knows. */
#include <endian.h>
#include <string.h>

#include "cases.h"

/* An error about a packet of the flow POD_A:4000 -> VIP:80 (POD_B:8080). */
struct error_case {
	const char *name;
	enum hook hook;
	enum who from;	  /* who complains */
	bool about_reply; /* else about a packet of the original direction */
	__u16 quote;	  /* bytes of L4 quoted; 0: all */
	__u8 type4, code4, type6, code6;
	int verdict;
	enum who out_from;
	enum who into;
	bool untouched;
	__u8 options; /* of the quoted packet */
};

static const struct error_case errors[] = {
	{ "the backend's pod, to the client", FROM_POD, POD_B, false, 0, 3, 3, 1, 4, V_REDIRECT,
	  VIP, POD_A },
	{ "a router on the way, 8 bytes quoted", FROM_NET, ROUTER, false, 8, 3, 4, 2, 0, V_REDIRECT,
	  ROUTER, POD_A },
	{ "through the stack to the client's pod", TO_POD, ROUTER, false, 8, 11, 0, 3, 0, V_PASS,
	  ROUTER, NOBODY },
	{ "quoted IP options or extension headers", FROM_POD, POD_B, false, 8, 3, 3, 1, 4,
	  V_REDIRECT, VIP, POD_A, .options = 2 },
	{ "the client's pod, to the backend", FROM_POD, POD_A, true, 0, 3, 3, 1, 4, V_REDIRECT,
	  POD_A, POD_B },
	{ "the client's pod, to the backend, 8 bytes quoted", FROM_POD, POD_A, true, 8, 3, 3, 1, 4,
	  V_REDIRECT, POD_A, POD_B },
	{ "too little is quoted", FROM_POD, POD_B, false, 3, 3, 3, 1, 4, V_PASS, POD_B, NOBODY,
	  .untouched = true },
	{ "a router behind a pod's interface", FROM_POD, ROUTER, false, 8, 3, 4, 2, 0, V_DROP,
	  ROUTER, NOBODY, .untouched = true },
	{ "a question, not an error", FROM_POD, POD_B, false, 0, 42, 0, 144, 0, V_PASS, POD_B,
	  NOBODY, .untouched = true },
};

static void build(struct frame *f, struct frame *quoted, const struct error_case *e, __u8 proto,
		  bool out, bool v6)
{
	/* What the complaining side has seen, and what the other side had sent. */
	const struct spec seen[2][2] = {
		{ { POD_A, POD_B, 4000, 8080 }, { POD_A, VIP, 4000, 80 } },
		{ { VIP, POD_A, 80, 4000 }, { POD_B, POD_A, 8080, 4000 } },
	};
	struct spec inner = seen[e->about_reply][out], outer = { .proto = IPPROTO_ICMP };
	struct frame before;
	__u32 l4;

	inner.proto = proto;
	inner.payload = 24;
	inner.options = e->options;
	frame_build(quoted, &inner, v6);
	if (out) { /* the quoted L4 checksum stays: nobody looks at it */
		inner = seen[e->about_reply][0];
		inner.proto = proto;
		inner.payload = 24;
		inner.options = e->options;
		frame_build(&before, &inner, v6);
		memcpy(quoted->data + quoted->l4 + 4, before.data + quoted->l4 + 4,
		       quoted->len - quoted->l4 - 4);
	}
	l4 = e->quote ? e->quote : quoted->len - quoted->l4;
	outer.src = out ? e->out_from : e->from;
	outer.dst = e->about_reply ? (out ? POD_B : VIP) : POD_A;
	outer.icmp_type = v6 ? e->type6 : e->type4;
	outer.icmp_code = v6 ? e->code6 : e->code4;
	outer.quote = quoted->data + FRAME_L3;
	outer.quote_len = quoted->l4 - FRAME_L3 + l4;
	if (out) {
		outer.into = e->into;
		outer.ttl = e->into ? 63 : 64;
	}
	frame_build(f, &outer, v6);
}

static void error_one(struct world *w, const struct error_case *e, __u8 proto)
{
	const struct spec syn = { POD_A, VIP, 4000, 80, proto, F_SYN };
	struct frame in, out, want, quoted;
	const char *wrong;
	int verdict;

	frame_build(&in, &syn, w->v6);
	verdict = world_run(w, FROM_POD, &in, &out);
	expect(verdict == V_REDIRECT && world_ct_count(w) == 2, "the flow: verdict %d", verdict);
	build(&in, &quoted, e, proto, false, w->v6);
	verdict = world_run(w, e->hook, &in, &out);
	if (e->untouched)
		want = in;
	else
		build(&want, &quoted, e, proto, true, w->v6);
	expect(verdict == e->verdict, "verdict %d", verdict);
	expect(out.len == want.len, "%u bytes long, not %u", out.len, want.len);
	for (__u32 i = 0; i < want.len && !test_failed(); i++)
		expect(out.data[i] == want.data[i], "byte %u is %02x, not %02x", i, out.data[i],
		       want.data[i]);
	wrong = frame_wrong(&out, w->v6);
	expect(!wrong, "wrong %s", wrong);
	expect(world_ct_count(w) == 2, "an error is no flow: %u entries", world_ct_count(w));
}

static void unrelated(struct world *w)
{
	const struct spec other = { OUTSIDE, POD_C, 1, 2, IPPROTO_TCP };
	struct spec s = { POD_B, POD_A, .proto = IPPROTO_ICMP, .icmp_type = w->v6 ? 1 : 3 };
	struct frame in, out, quoted;
	int verdict;

	frame_build(&quoted, &other, w->v6);
	s.quote = quoted.data + FRAME_L3;
	s.quote_len = quoted.len - FRAME_L3;
	frame_build(&in, &s, w->v6);
	for (enum hook hook = FROM_POD; hook <= TO_NET; hook++) {
		verdict = world_run(w, hook, &in, &out);
		expect(verdict == V_PASS, "hook %d: verdict %d", hook, verdict);
		expect(out.len == in.len && !memcmp(out.data, in.data, in.len), "hook %d wrote",
		       hook);
	}
	expect(!world_ct_count(w), "an error is no flow");
}

void suite_icmp(struct world *w)
{
	const struct {
		__u8 proto;
		const char *name;
	} protos[] = { { IPPROTO_TCP, "TCP" }, { IPPROTO_UDP, "UDP" }, { IPPROTO_SCTP, "SCTP" } };

	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]) * 6; i++) {
		const struct error_case *e = &errors[i / 6];
		bool v6 = i % 2;

		test_begin();
		world_reset(w, v6);
		services_tcp(w);
		error_one(w, e, protos[i / 2 % 3].proto);
		test_end("ICMP error: %s, %s, %s", e->name, protos[i / 2 % 3].name,
			 v6 ? "IPv6" : "IPv4");
	}
	for (int v6 = 0; v6 < 2; v6++) {
		test_begin();
		world_reset(w, v6);
		unrelated(w);
		test_end("ICMP error: of a flow nobody knows, %s", v6 ? "IPv6" : "IPv4");
	}
}
