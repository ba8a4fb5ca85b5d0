// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#define HASH_NONFATAL_OOM 1 /* an element that was not added has no table */
#include <uthash.h>
#include <waggle/abi_policy.h>
#include <waggle/cleanup.h>

#include "compile_ports.h"

/* One run of ports of a protocol that get the same. proto 0: every protocol without ports. */
struct segment {
	uint16_t proto;
	uint16_t first, last;
	uint16_t pad;
	uint32_t verdict;
};

struct profile {
	UT_hash_handle hh, hh_id;
	uint32_t id;
	unsigned refs;
	size_t n;
	struct segment segments[];
};

/* ---- the profiles' entries ---- */

static int put_entry(struct profile_set *s, uint32_t id, const struct segment *seg, unsigned bits,
		     uint16_t port, bool add)
{
	struct deltamap *table = bits == 96 ? s->exact : s->table;
	struct wag_port_key key = { .bits = bits, .profile = id };

	if (bits > 64)
		key.proto = htons(seg->proto);
	if (bits > 80)
		key.port = htons(port);
	if (add)
		return deltamap_set_desired(table, &key, &seg->verdict);
	deltamap_unset_desired(table, &key);
	return 0;
}

/* A run of ports as the fewest prefixes. */
static int put_range(struct profile_set *s, uint32_t id, const struct segment *seg, bool add)
{
	uint32_t at = seg->first, end = (uint32_t)seg->last + 1;
	int r = 0;

	while (at < end && r == 0) {
		unsigned low = at ? __builtin_ctz(at) : 16;

		while ((1U << low) > end - at)
			low--;
		r = put_entry(s, id, seg, 96 - low, at, add);
		at += 1U << low;
	}
	return r;
}

/* What the ports of a protocol get that have no entry of their own: what most of them get. */
static uint32_t background(const struct segment *first, const struct segment *end)
{
	const struct segment *longest = first;

	for (const struct segment *seg = first; seg < end; seg++)
		if (seg->last - seg->first > longest->last - longest->first)
			longest = seg;
	return longest->verdict;
}

/* The fewer entries, the sooner a packet has walked down to its own. */
static int put_protocol(struct profile_set *s, const struct profile *p, const struct segment *first,
			const struct segment *end, bool add)
{
	struct segment back = { .proto = first->proto, .verdict = background(first, end) };
	int r = 0;

	if (back.verdict != p->segments->verdict)
		r = put_entry(s, p->id, &back, 80, 0, add);
	for (const struct segment *seg = first; seg < end && r == 0; seg++)
		if (seg->verdict != back.verdict)
			r = put_range(s, p->id, seg, add);
	return r;
}

/* The first segment is everything else's; those of one protocol stand together. */
static int put_entries(struct profile_set *s, const struct profile *p, bool add)
{
	const struct segment *end = p->segments + p->n, *next;
	int r = put_entry(s, p->id, p->segments, 64, 0, add);

	for (const struct segment *seg = p->segments + 1; seg < end && r == 0; seg = next) {
		next = seg;
		while (next < end && next->proto == seg->proto)
			next++;
		r = put_protocol(s, p, seg, next, add);
	}
	return r;
}

static void profile_free(struct profile_set *s, struct profile *p)
{
	put_entries(s, p, false);
	if (s->n_free < s->cap_free)
		s->free_ids[s->n_free++] = p->id;
	HASH_DELETE(hh, s->profiles, p);
	HASH_DELETE(hh_id, s->by_id, p);
	s->n--;
	free(p);
}

void ports_put(struct profile_set *s, uint32_t verdict)
{
	uint32_t id = WAG_VERDICT_RULE(verdict);
	struct profile *p;

	if (WAG_VERDICT_ACTION(verdict) != WAG_VERDICT_PORTS || !id)
		return;
	HASH_FIND(hh_id, s->by_id, &id, sizeof(id), p);
	if (p && --p->refs == 0)
		profile_free(s, p);
}

static int take_id(struct profile_set *s, uint32_t *ret)
{
	uint32_t *bigger;

	if (s->n_free) {
		*ret = s->free_ids[--s->n_free];
		return 0;
	}
	/* Room for every id to come back: giving one back cannot fail. */
	if (s->next_id + 1 >= s->cap_free) {
		bigger = reallocarray(s->free_ids, s->cap_free * 2 + 64, sizeof(*bigger));
		if (!bigger)
			return -ENOMEM;
		s->free_ids = bigger;
		s->cap_free = s->cap_free * 2 + 64;
	}
	*ret = ++s->next_id;
	return 0;
}

static int profile_get(struct profile_set *s, const struct segment *segments, size_t n,
		       struct profile **ret)
{
	size_t size = n * sizeof(*segments);
	struct profile *p;
	int r;

	HASH_FIND(hh, s->profiles, segments, size, p);
	if (p) {
		p->refs++;
		*ret = p;
		return 0;
	}
	p = calloc(1, sizeof(*p) + size);
	if (!p)
		return -ENOMEM;
	r = take_id(s, &p->id);
	if (r < 0) {
		free(p);
		return r;
	}
	p->refs = 1;
	p->n = n;
	memcpy(p->segments, segments, size);
	HASH_ADD_KEYPTR(hh, s->profiles, p->segments, size, p);
	HASH_ADD(hh_id, s->by_id, id, sizeof(p->id), p);
	s->n++;
	r = put_entries(s, p, true);
	if (r < 0)
		profile_free(s, p);
	else
		*ret = p;
	return r;
}

void profile_set_done(struct profile_set *s)
{
	struct profile *p, *tmp;

	HASH_ITER(hh, s->profiles, p, tmp) {
		HASH_DELETE(hh, s->profiles, p);
		HASH_DELETE(hh_id, s->by_id, p);
		free(p);
	}
	free(s->free_ids);
}

/* ---- painting ---- */

/* The ports of one protocol, cut where any rule begins or ends. */
struct axis {
	uint16_t proto;
	uint32_t *cuts; /* where each segment begins; the last one ends at 65536 */
	uint32_t *verdicts; /* 0: not decided */
	uint32_t *next;	    /* the next segment that the tier has not passed over */
	size_t n;
};

typedef int (*range_fn)(uint32_t first, uint32_t last, void *ctx);

static int named_ranges(const struct policy_port *port, uint16_t proto,
			const struct port_names *names, range_fn fn, void *ctx)
{
	size_t at = 0;
	int r = 0;

	while (at + 3 < names->len && r == 0) {
		uint8_t p = names->data[at];
		const char *name = names->data + at + 3;
		uint16_t number;

		memcpy(&number, names->data + at + 1, sizeof(number));
		if (p == proto && (!port->proto || port->proto == proto) &&
		    strcmp(name, port->name) == 0)
			r = fn(number, number, ctx);
		at += 3 + strlen(name) + 1;
	}
	return r;
}

/* Every run of the protocol's ports that the rule is for. */
static int rule_ranges(const struct policy_rule *rule, uint16_t proto,
		       const struct port_names *names, range_fn fn, void *ctx)
{
	int r = 0;

	if (rule->any_port)
		return fn(0, 65535, ctx);
	for (size_t i = 0; i < rule->n_ports && r == 0 && proto; i++) {
		const struct policy_port *port = &rule->ports[i];

		if (port->name)
			r = named_ranges(port, proto, names, fn, ctx);
		else if (port->proto == proto)
			r = fn(port->first, port->last, ctx);
	}
	return r;
}

struct cuts {
	uint32_t *list;
	size_t n, cap;
};

static int add_cuts(uint32_t first, uint32_t last, void *ctx)
{
	struct cuts *c = ctx;

	if (c->n + 2 > c->cap) {
		size_t cap = c->cap ? c->cap * 2 : 32;
		uint32_t *bigger = reallocarray(c->list, cap, sizeof(*bigger));

		if (!bigger)
			return -ENOMEM;
		c->list = bigger;
		c->cap = cap;
	}
	c->list[c->n++] = first;
	c->list[c->n++] = last + 1;
	return 0;
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void axis_done(struct axis *a)
{
	free(a->cuts);
	free(a->verdicts);
	free(a->next);
}

static int axis_init(struct axis *a, uint16_t proto, const struct port_match *m, size_t n,
		     const struct port_names *names)
{
	struct cuts c = { 0 };
	int r = add_cuts(0, 65535, &c);

	*a = (struct axis){ .proto = proto };
	for (size_t i = 0; i < n && r == 0; i++)
		r = rule_ranges(m[i].rule, proto, names, add_cuts, &c);
	a->cuts = c.list;
	if (r < 0)
		return r;
	qsort(c.list, c.n, sizeof(*c.list), compare_u32);
	for (size_t i = 0; i < c.n && c.list[i] <= 65535; i++)
		if (!a->n || c.list[i] != a->cuts[a->n - 1])
			a->cuts[a->n++] = c.list[i];
	a->verdicts = calloc(a->n, sizeof(*a->verdicts));
	a->next = calloc(a->n + 1, sizeof(*a->next));
	return a->verdicts && a->next ? 0 : -ENOMEM;
}

static uint32_t axis_find(struct axis *a, uint32_t i)
{
	while (a->next[i] != i) {
		a->next[i] = a->next[a->next[i]];
		i = a->next[i];
	}
	return i;
}

static size_t axis_at(const struct axis *a, uint32_t port)
{
	size_t lo = 0, hi = a->n;

	while (lo + 1 < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (a->cuts[mid] <= port)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

struct brush {
	struct axis *axis;
	uint32_t verdict; /* 0: pass over */
};

/* Whoever comes first in a tier has the port. */
static int paint(uint32_t first, uint32_t last, void *ctx)
{
	struct brush *b = ctx;
	struct axis *a = b->axis;
	uint32_t i = axis_find(a, axis_at(a, first));

	while (i < a->n && a->cuts[i] <= last) {
		a->verdicts[i] = b->verdict;
		a->next[i] = i + 1;
		i = axis_find(a, i);
	}
	return 0;
}

static void paint_tier(struct axis *a, enum policy_tier tier, const struct port_match *m, size_t n,
		       const struct port_names *names)
{
	for (uint32_t i = 0; i <= a->n; i++)
		a->next[i] = i < a->n && a->verdicts[i] ? i + 1 : i;
	for (size_t i = 0; i < n; i++) {
		static const uint32_t actions[] = { [POLICY_ACCEPT] = WAG_VERDICT_ALLOW,
						    [POLICY_DENY] = WAG_VERDICT_DENY };
		enum policy_action action = m[i].rule->action;
		struct brush b = { .axis = a };

		if (m[i].tier != tier)
			continue;
		if (action != POLICY_PASS)
			b.verdict = WAG_VERDICT(actions[action], m[i].id);
		rule_ranges(m[i].rule, a->proto, names, paint, &b);
	}
}

static void paint_rest(struct axis *a, uint32_t verdict)
{
	for (size_t i = 0; i < a->n; i++)
		if (!a->verdicts[i])
			a->verdicts[i] = verdict;
}

static int axis_paint(struct axis *a, uint16_t proto, const struct port_match *m, size_t n,
		      uint32_t isolates, const struct port_names *names)
{
	int r = axis_init(a, proto, m, n, names);

	if (r < 0)
		return r;
	paint_tier(a, POLICY_ADMIN, m, n, names);
	if (isolates) {
		paint_tier(a, POLICY_NETWORK, m, n, names);
		paint_rest(a, WAG_VERDICT(WAG_VERDICT_ISOLATED, isolates));
	} else {
		paint_tier(a, POLICY_BASELINE, m, n, names);
		paint_rest(a, WAG_VERDICT(WAG_VERDICT_ALLOW, 0));
	}
	return 0;
}

/* ---- both together ---- */

static int add_segment(struct segment **list, size_t *n, size_t *cap, const struct segment *seg)
{
	if (*n == *cap) {
		size_t room = *cap ? *cap * 2 : 16;
		struct segment *bigger = reallocarray(*list, room, sizeof(*bigger));

		if (!bigger)
			return -ENOMEM;
		*list = bigger;
		*cap = room;
	}
	(*list)[(*n)++] = *seg;
	return 0;
}

/* Neighbours that get the same are one; nothing is said of a protocol that gets what all get. */
static int add_axis(const struct axis *a, uint32_t rest, struct segment **list, size_t *n,
		    size_t *cap)
{
	int r = 0;

	for (size_t i = 0; i < a->n && r == 0; i++) {
		struct segment seg = { .proto = a->proto,
				       .first = a->cuts[i],
				       .verdict = a->verdicts[i] };

		while (i + 1 < a->n && a->verdicts[i + 1] == seg.verdict)
			i++;
		seg.last = i + 1 < a->n ? a->cuts[i + 1] - 1 : 65535;
		if (seg.first == 0 && seg.last == 65535 && seg.verdict == rest)
			return 0;
		r = add_segment(list, n, cap, &seg);
	}
	return r;
}

int ports_compile(struct profile_set *s, const struct port_match *matches, size_t n,
		  uint32_t isolates, const struct port_names *names, uint32_t *ret)
{
	static const uint16_t protos[] = { 0, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP };
	_cleanup_free_ struct segment *list = NULL;
	size_t n_list = 0, cap = 0;
	struct segment rest = { .last = 65535 };
	struct profile *p = NULL;
	int r = 0;

	for (size_t i = 0; i < sizeof(protos) / sizeof(protos[0]) && r == 0; i++) {
		struct axis a;

		r = axis_paint(&a, protos[i], matches, n, isolates, names);
		if (r == 0 && !protos[i]) {
			rest.verdict = a.verdicts[0];
			r = add_segment(&list, &n_list, &cap, &rest);
		} else if (r == 0) {
			r = add_axis(&a, rest.verdict, &list, &n_list, &cap);
		}
		axis_done(&a);
	}
	if (r < 0)
		return r;
	if (n_list == 1) {
		*ret = rest.verdict;
		return 0;
	}
	r = profile_get(s, list, n_list, &p);
	if (r == 0)
		*ret = WAG_VERDICT(WAG_VERDICT_PORTS, p->id);
	return r;
}
