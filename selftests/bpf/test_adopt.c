// SPDX-License-Identifier: Apache-2.0
/* Conntrack entries of an older table, taken over by wag_ct_adopt. */
#include <bpf/bpf.h>
#include <endian.h>
#include <string.h>

#include "cases.h"

#define RECORDS 16

struct record {
	struct wag_ct_key key;
	struct wag_ct ct;
};

static unsigned read_table(struct world *w, struct record *ret_records, unsigned max)
{
	struct wag_ct_key key, *prev = NULL;
	unsigned n = 0;

	while (n < max && !bpf_map_get_next_key(w->ct, prev, &key)) {
		ret_records[n].key = key;
		bpf_map_lookup_elem(w->ct, &key, &ret_records[n].ct);
		prev = &key;
		n++;
	}
	return n;
}

static int adopt(struct world *w, const struct record *records, unsigned n)
{
	struct frame in = {}, out;
	struct __sk_buff ctx = {};

	memcpy(in.data, records, n * sizeof(*records));
	in.len = n * sizeof(*records);
	return world_run_ctx(w, ADOPT, &in, &out, &ctx);
}

static int sends(struct world *w, const struct spec *s, struct frame *ret_out)
{
	struct frame in;

	frame_build(&in, s, w->v6);
	return world_run(w, FROM_POD, &in, ret_out);
}

static unsigned ring_slots(struct world *w)
{
	struct wag_ct_slot slot;
	unsigned n = 0;

	for (__u32 i = 0; i < w->cfg.ct_entries; i++)
		n += !bpf_map_lookup_elem(w->ct_ring, &i, &slot) && slot.key.proto;
	return n;
}

static void adopt_all(struct world *w)
{
	struct spec there = { POD_A, VIP, 0, 80, IPPROTO_TCP, F_SYN };
	struct spec direct = { POD_A, POD_B, 0, 22, IPPROTO_TCP, F_SYN };
	struct record before[RECORDS + 1], after[RECORDS + 1];
	struct frame first, again;
	unsigned n;

	services_tcp(w);
	for (unsigned i = 0; i < 6; i++) {
		there.sport = 4000 + i;
		expect(sends(w, &there, &first) == V_REDIRECT, "flow %u", i);
	}
	for (unsigned i = 0; i < 4; i++) {
		direct.sport = 5000 + i;
		expect(sends(w, &direct, &again) == V_REDIRECT, "direct flow %u", i);
	}
	n = read_table(w, before, RECORDS + 1);
	expect(n == RECORDS, "%u entries before", n);
	world_reset(w, w->v6); /* an empty table, and the Service has gone */
	expect(adopt(w, before, n) == RECORDS, "not all taken");
	n = read_table(w, after, RECORDS + 1);
	expect(n == RECORDS, "%u entries after", n);
	for (unsigned i = 0; i < RECORDS; i++) {
		struct wag_ct ct = {};

		before[i].ct.slot = 0; /* the ring's own matter */
		bpf_map_lookup_elem(w->ct, &before[i].key, &ct);
		ct.slot = 0;
		expect(!memcmp(&ct, &before[i].ct, sizeof(ct)), "entry %u differs", i);
	}
	expect(world_ct_used(w) == RECORDS, "%u entries counted", world_ct_used(w));
	expect(ring_slots(w) == 10, "%u slots of the ring hold flows", ring_slots(w));
	there.flags = F_ACK;
	expect(sends(w, &there, &again) == V_REDIRECT, "the adopted flow has ended");
	expect(world_ct_used(w) == RECORDS, "the adopted flow was not known");
}

static void no_exist(struct world *w)
{
	struct spec s = { POD_A, VIP, 4000, 80, IPPROTO_TCP, F_SYN };
	struct record records[RECORDS];
	struct frame out;
	struct wag_ct ct;
	unsigned n;

	services_tcp(w);
	sends(w, &s, &out);
	n = read_table(w, records, RECORDS);
	expect(n == 2, "%u entries", n);
	for (unsigned i = 0; i < n; i++)
		records[i].ct.svc_id = 4711;
	expect(adopt(w, records, n) == 0, "an entry was written over");
	expect(world_ct_get(w, &s, false, &ct) && ct.svc_id == 1001, "an entry was written over");
	expect(world_ct_used(w) == 2, "%u entries counted", world_ct_used(w));
}

static void gaps(struct world *w)
{
	struct spec s = { POD_A, POD_B, 4000, 80, IPPROTO_TCP, F_SYN };
	struct record records[RECORDS] = {}, one;
	struct frame out;

	sends(w, &s, &out);
	expect(read_table(w, &one, 1) == 1, "no entry");
	world_reset(w, w->v6);
	records[7] = one; /* the others have no protocol */
	expect(adopt(w, records, RECORDS) == 1, "not one taken");
	expect(world_ct_count(w) == 1 && world_ct_used(w) == 1, "%u entries, %u counted",
	       world_ct_count(w), world_ct_used(w));
}

/* Entries whose flow ended long ago leave the way they would have. */
static void ages(struct world *w)
{
	struct spec s = { POD_A, VIP, 4000, 80, IPPROTO_TCP, F_SYN };
	struct record records[RECORDS];
	struct frame out;
	struct wag_ct ct;
	unsigned n;

	services_tcp(w);
	sends(w, &s, &out);
	n = read_table(w, records, RECORDS);
	world_reset(w, w->v6);
	services_tcp(w);
	for (unsigned i = 0; i < n; i++)
		records[i].ct.seen_ns = 1;
	expect(adopt(w, records, n) == 2, "not taken");
	for (unsigned i = 0; i < w->cfg.ct_entries / 4; i++) {
		struct spec other = { POD_A, POD_B, 1000 + i, 81, IPPROTO_UDP };

		sends(w, &other, &out);
	}
	expect(!world_ct_get(w, &s, false, &ct), "the old flow is still there");
	expect(world_ct_used(w) == world_ct_count(w), "%u entries, %u counted", world_ct_count(w),
	       world_ct_used(w));
}

void suite_adopt(struct world *w)
{
	const struct {
		const char *name;
		void (*run)(struct world *w);
	} tests[] = {
		{ "records are carried over whole", adopt_all },
		{ "an entry that is there stays", no_exist },
		{ "empty records are skipped", gaps },
		{ "adopted flows age", ages },
	};

	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]) * 2; i++) {
		test_begin();
		world_reset(w, i % 2);
		tests[i / 2].run(w);
		test_end("adopt: %s, %s", tests[i / 2].name, i % 2 ? "IPv6" : "IPv4");
	}
}
