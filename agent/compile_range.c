// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "compile_range.h"

#define CLAIMS_MAX 256 /* of one node: its object may be written by whoever owns the node */

/* ---- prefixes ---- */

struct cidr_range cidr_range_of(const struct wag_addr *addr, unsigned own_bits)
{
	return cidr_range_cut(addr, own_bits + (wag_addr_is_v4(addr) ? 96 : 0));
}

struct cidr_range cidr_range_cut(const struct wag_addr *addr, unsigned bits)
{
	struct cidr_range r = { .bits = bits };

	for (unsigned i = 0; i < r.bits / 8; i++)
		r.net.b[i] = addr->b[i];
	if (r.bits % 8)
		r.net.b[r.bits / 8] = addr->b[r.bits / 8] & (0xff00 >> r.bits % 8);
	return r;
}

static bool same_start(const struct wag_addr *a, const struct wag_addr *b, unsigned bits)
{
	unsigned rest = bits % 8;

	if (memcmp(a->b, b->b, bits / 8) != 0)
		return false;
	return !rest || ((a->b[bits / 8] ^ b->b[bits / 8]) & (0xff00 >> rest) & 0xff) == 0;
}

bool cidr_range_has(const struct cidr_range *outer, const struct wag_addr *addr)
{
	return same_start(&outer->net, addr, outer->bits);
}

bool cidr_ranges_overlap(const struct cidr_range *a, const struct cidr_range *b)
{
	return same_start(&a->net, &b->net, a->bits < b->bits ? a->bits : b->bits);
}

int cidr_range_compare(const struct cidr_range *a, const struct cidr_range *b)
{
	int r = memcmp(a->net.b, b->net.b, sizeof(a->net.b));

	return r ? r : (a->bits > b->bits) - (a->bits < b->bits);
}

const char *cidr_range_format(const struct cidr_range *r, char *buf, size_t size)
{
	bool v4 = wag_addr_is_v4(&r->net) && r->bits >= 96;
	char text[WAG_ADDR_TEXT];

	snprintf(buf, size, "%s/%u", wag_addr_format(&r->net, text), r->bits - (v4 ? 96 : 0));
	return buf;
}

bool cidr_range_special(const struct cidr_range *r)
{
	static const struct cidr_range special[] = {
		{ { { .b = { [10] = 0xff, [11] = 0xff } } }, 104 },		/* 0.0.0.0/8 */
		{ { { .b = { [10] = 0xff, [11] = 0xff, [12] = 127 } } }, 104 }, /* loopback */
		{ { { .b = { [10] = 0xff, [11] = 0xff, 169, 254 } } }, 112 },	/* link-local */
		{ { { .b = { [10] = 0xff, [11] = 0xff, 224 } } }, 99 }, /* multicast, reserved */
		{ { { .b = { 0 } } }, 88 },		/* ::/96, ::1, and IPv4 as a whole */
		{ { { .b = { 0xfe, 0x80 } } }, 10 },
		{ { { .b = { 0xff } } }, 8 },
	};

	if (r->bits >= 96 && wag_addr_is_v4(&r->net)) {
		for (size_t i = 0; i < 4; i++)
			if (cidr_ranges_overlap(r, &special[i]))
				return true;
		return false;
	}
	for (size_t i = 4; i < sizeof(special) / sizeof(special[0]); i++)
		if (cidr_ranges_overlap(r, &special[i]))
			return true;
	return false;
}

/* ---- lists ---- */

void *node_list_add(void *list, size_t size, size_t *n, size_t *cap)
{
	void **array = list;

	if (*n == *cap) {
		size_t room = *cap ? *cap * 2 : 16;
		void *bigger = reallocarray(*array, room, size);

		if (!bigger)
			return NULL;
		*array = bigger;
		*cap = room;
	}
	return memset((char *)*array + (*n)++ * size, 0, size);
}

int node_plan_warn(struct node_plan *plan, const char *fmt, ...)
{
	char *text, **at;
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (r < 0)
		return -ENOMEM;
	at = node_list_add(&plan->warnings, sizeof(*at), &plan->n_warnings, &plan->cap_warnings);
	if (!at) {
		free(text);
		return -ENOMEM;
	}
	*at = text;
	return 0;
}

size_t node_internal(const struct object *node)
{
	return node->node.n_internal ? node->node.n_internal : node->node.n_addrs;
}

/* ---- claims ---- */

static int compare_addrs(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct wag_addr));
}

struct addr_set {
	struct wag_addr *list; /* sorted */
	size_t n;
};

/* Whatever a packet between nodes is addressed to, and what we need ourselves. */
static int guarded_addrs(struct addr_set *ret, const struct node_compile *in,
			 const struct object *const *nodes, size_t n)
{
	size_t room = in->n_own + in->n_routers + 1;

	for (size_t i = 0; i < n; i++)
		room += nodes[i] ? node_internal(nodes[i]) : 0;
	ret->list = calloc(room, sizeof(*ret->list));
	if (!ret->list)
		return -ENOMEM;
	for (size_t i = 0; i < in->n_own; i++)
		ret->list[ret->n++] = in->own[i];
	for (size_t i = 0; i < in->n_routers; i++)
		ret->list[ret->n++] = in->routers[i];
	for (size_t i = 0; i < n; i++)
		for (size_t a = 0; nodes[i] && a < node_internal(nodes[i]); a++)
			ret->list[ret->n++] = nodes[i]->node.addrs[a];
	qsort(ret->list, ret->n, sizeof(*ret->list), compare_addrs);
	return 0;
}

/* The first address in the range, or NULL. */
static const struct wag_addr *covered(const struct addr_set *set, const struct cidr_range *r)
{
	size_t lo = 0, hi = set->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (compare_addrs(&set->list[mid], &r->net) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < set->n && cidr_range_has(r, &set->list[lo]) ? &set->list[lo] : NULL;
}

/* 1: refused, and said. */
static int refuse(const struct node_claim *c, const struct addr_set *guarded,
		  struct node_plan *plan)
{
	const struct wag_addr *inside;
	char text[WAG_ADDR_TEXT + 4], addr[WAG_ADDR_TEXT];
	int r;

	if (c->rank == 0)
		return 0; /* our own are not routed anywhere */
	cidr_range_format(&c->range, text, sizeof(text));
	if (cidr_range_special(&c->range)) {
		r = node_plan_warn(plan, "node %s: pod CIDR %s is refused: no pod can have these "
				   "addresses", c->node->name, text);
		return r < 0 ? r : 1;
	}
	inside = covered(guarded, &c->range);
	if (!inside)
		return 0;
	r = node_plan_warn(plan, "node %s: pod CIDR %s is refused: it covers %s, an address of a "
			   "node or a router", c->node->name, text, wag_addr_format(inside, addr));
	return r < 0 ? r : 1;
}

static int add_node(struct node_claims *c, size_t *cap, const struct object *node, size_t rank,
		    const struct addr_set *guarded, struct node_plan *plan)
{
	size_t n = node->node.n_pod_cidrs;

	if (n > CLAIMS_MAX && node_plan_warn(plan, "node %s has %zu pod CIDRs: only the first %d "
					     "count", node->name, n, CLAIMS_MAX) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < n && i < CLAIMS_MAX; i++) {
		struct node_claim *claim;
		struct wag_addr addr;
		unsigned bits;
		int r;

		if (wag_cidr_parse(node->node.pod_cidrs[i], &addr, &bits) < 0)
			continue; /* the parser has refused the object */
		claim = node_list_add(&c->list, sizeof(*claim), &c->n, cap);
		if (!claim)
			return -ENOMEM;
		*claim = (struct node_claim){ cidr_range_of(&addr, bits), node, rank, false };
		r = refuse(claim, guarded, plan);
		if (r < 0)
			return r;
		c->n -= r == 1;
	}
	return 0;
}

/* Parents first, and of the same range the oldest. */
static int compare_claims(const void *a, const void *b)
{
	const struct node_claim *x = a, *y = b;
	int r = cidr_range_compare(&x->range, &y->range);

	return r ? r : (x->rank > y->rank) - (x->rank < y->rank);
}

static int compare_ranks(const void *a, const void *b)
{
	const struct node_claim *const *x = a, *const *y = b;

	return ((*x)->rank > (*y)->rank) - ((*x)->rank < (*y)->rank);
}

/* One against those that are older: few, for only ranges that overlap at all are here. */
static int judge(struct node_claim *c, struct node_claim *const *older, size_t n,
		 struct node_plan *plan)
{
	char mine[WAG_ADDR_TEXT + 4], theirs[WAG_ADDR_TEXT + 4];

	for (size_t i = 0; i < n; i++) {
		if (older[i]->refused || older[i]->rank == c->rank ||
		    !cidr_ranges_overlap(&older[i]->range, &c->range))
			continue;
		c->refused = true;
		return node_plan_warn(
			plan, "node %s: pod CIDR %s is refused: node %s, which is %s, has %s and "
			"keeps it", c->node->name,
			cidr_range_format(&c->range, mine, sizeof(mine)), older[i]->node->name,
			older[i]->rank ? "older" : "this one",
			cidr_range_format(&older[i]->range, theirs, sizeof(theirs)));
	}
	return 0;
}

/* Ranges are either apart or one inside the other, so neighbours in order tell who overlaps. */
static size_t find_overlaps(struct node_claims *c, struct node_claim **ret)
{
	struct node_claim *outer = NULL;
	size_t n = 0;

	for (size_t i = 0; i < c->n; i++) {
		struct node_claim *x = &c->list[i];

		if (outer && cidr_range_has(&outer->range, &x->range.net)) {
			if (n == 0 || ret[n - 1] < outer)
				ret[n++] = outer;
			ret[n++] = x;
		} else {
			outer = x;
		}
	}
	return n;
}

static int settle(struct node_claims *c, struct node_plan *plan)
{
	_cleanup_free_ struct node_claim **overlaps = calloc(c->n + 1, sizeof(*overlaps));
	size_t n;
	int r = 0;

	if (!overlaps)
		return -ENOMEM;
	if (c->n)
		qsort(c->list, c->n, sizeof(*c->list), compare_claims);
	n = find_overlaps(c, overlaps);
	if (n)
		qsort(overlaps, n, sizeof(*overlaps), compare_ranks);
	for (size_t i = 0; i < n && r == 0; i++)
		r = judge(overlaps[i], overlaps, i, plan);
	return r;
}

int node_claims_make(struct node_claims *ret, const struct node_compile *in,
		     const struct object *const *nodes, size_t n, struct node_plan *plan)
{
	struct node_claims c = { 0 };
	struct addr_set guarded = { 0 };
	size_t cap = 0;
	int r = guarded_addrs(&guarded, in, nodes, n);

	for (size_t i = 0; i < n && r == 0; i++)
		if (nodes[i])
			r = add_node(&c, &cap, nodes[i], i, &guarded, plan);
	if (r == 0)
		r = settle(&c, plan);
	free(guarded.list);
	if (r < 0)
		node_claims_done(&c);
	else
		*ret = c;
	return r;
}

void node_claims_done(struct node_claims *c)
{
	free(c->list);
	*c = (struct node_claims){ 0 };
}
