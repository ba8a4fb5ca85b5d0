// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "compile_policy_internal.h"

/* A CIDR of a rule, or an exception of one, begins here. */
struct cidr_mark {
	struct policy_cidr cidr;
	struct peer_set *set; /* NULL: a node's pods, or nothing but a border */
	uint32_t peer;
	bool except, pods;
};

struct mark_list {
	struct cidr_mark *list;
	size_t n, cap;
};

static int add_mark(struct mark_list *m, const struct cidr_mark *mark)
{
	if (m->n == m->cap) {
		size_t cap = m->cap ? m->cap * 2 : 64;
		struct cidr_mark *bigger = reallocarray(m->list, cap, sizeof(*bigger));

		if (!bigger)
			return -ENOMEM;
		m->list = bigger;
		m->cap = cap;
	}
	m->list[m->n++] = *mark;
	return 0;
}

static int mark_set(struct mark_list *m, struct peer_set *set)
{
	const struct policy_rule *rule = set->rule;
	int r = 0;

	for (uint32_t i = 0; i < rule->n_peers && r == 0; i++) {
		const struct policy_peer *peer = &rule->peers[i];
		struct cidr_mark mark = { .cidr = peer->cidr, .set = set, .peer = i };

		if (peer->kind != PEER_CIDR)
			continue;
		r = add_mark(m, &mark);
		mark.except = true;
		for (size_t e = 0; e < peer->n_excepts && r == 0; e++) {
			mark.cidr = peer->excepts[e];
			r = add_mark(m, &mark);
		}
	}
	return r;
}

static int mark_node(struct mark_list *m, const struct object *node)
{
	int r = 0;

	for (size_t i = 0; i < node->node.n_pod_cidrs && r == 0; i++) {
		struct cidr_mark mark = { .pods = true };
		unsigned bits;

		if (wag_cidr_parse(node->node.pod_cidrs[i], &mark.cidr.addr, &bits) < 0)
			continue;
		mark.cidr.bits = bits + (wag_addr_is_v4(&mark.cidr.addr) ? 96 : 0);
		r = add_mark(m, &mark);
	}
	return r;
}

static bool is_v4(const struct policy_cidr *c)
{
	return c->bits >= 96 && wag_addr_is_v4(&c->addr);
}

static bool cidr_has(const struct policy_cidr *outer, const struct wag_addr *addr)
{
	unsigned whole = outer->bits / 8, rest = outer->bits % 8;

	if (memcmp(outer->addr.b, addr->b, whole) != 0)
		return false;
	return !rest ||
	       ((outer->addr.b[whole] ^ addr->b[whole]) & (0xff00 >> rest) & 0xff) == 0;
}

static int compare_cidrs(const struct policy_cidr *a, const struct policy_cidr *b)
{
	int r = memcmp(a->addr.b, b->addr.b, sizeof(a->addr.b));

	return r ? r : (a->bits > b->bits) - (a->bits < b->bits);
}

static int compare_marks(const void *a, const void *b)
{
	const struct cidr_mark *x = a, *y = b;

	return compare_cidrs(&x->cidr, &y->cidr);
}

static int collect(struct policy_compiler *c, struct mark_list *m)
{
	/* What is written ::/0 is not for IPv4. */
	struct cidr_mark v4 = { .cidr = { .addr = { .b = { [10] = 0xff, [11] = 0xff } },
					  .bits = 96 } };
	struct peer_set *set, *set_tmp;
	struct subject *node, *node_tmp;
	int r = 0;

	HASH_ITER(hh, c->sets, set, set_tmp)
		if (set->cidrs && r == 0)
			r = mark_set(m, set);
	if (m->n && r == 0)
		r = add_mark(m, &v4);
	/* Without the Pods nobody is unknown. */
	HASH_ITER(hh, c->nodes, node, node_tmp)
		if (node->obj && c->wants_pods && r == 0)
			r = mark_node(m, node->obj);
	return r;
}

/* Sorted marks -> regions, each inside its parent. */
static int cut(struct regions *regions, const struct mark_list *m)
{
	uint32_t open = 0; /* index + 1 of the innermost region that may hold the next one */

	regions->list = calloc(m->n + 1, sizeof(*regions->list));
	if (!regions->list)
		return -ENOMEM;
	for (size_t i = 0; i < m->n; i++) {
		struct region *last = regions->n ? &regions->list[regions->n - 1] : NULL;

		if (!last || compare_cidrs(&last->cidr, &m->list[i].cidr) != 0) {
			while (open && !cidr_has(&regions->list[open - 1].cidr,
						 &m->list[i].cidr.addr))
				open = regions->list[open - 1].parent;
			last = &regions->list[regions->n++];
			last->cidr = m->list[i].cidr;
			last->parent = open;
			last->first_mark = i;
			open = regions->n;
		}
		last->n_marks++;
		last->pods |= m->list[i].pods;
	}
	return 0;
}

struct chain {
	struct cidr_mark **excepts;
	size_t n, cap;
};

static int add_except(struct chain *ch, struct cidr_mark *mark)
{
	if (ch->n == ch->cap) {
		size_t cap = ch->cap ? ch->cap * 2 : 32;
		struct cidr_mark **bigger = reallocarray(ch->excepts, cap, sizeof(*bigger));

		if (!bigger)
			return -ENOMEM;
		ch->excepts = bigger;
		ch->cap = cap;
	}
	ch->excepts[ch->n++] = mark;
	return 0;
}

static bool excepted(const struct chain *ch, const struct cidr_mark *mark)
{
	for (size_t i = 0; i < ch->n; i++)
		if (ch->excepts[i]->set == mark->set && ch->excepts[i]->peer == mark->peer)
			return true;
	return false;
}

static struct region *around(struct regions *regions, const struct region *r)
{
	struct region *up = r->parent ? &regions->list[r->parent - 1] : NULL;

	return up && is_v4(&up->cidr) == is_v4(&r->cidr) ? up : NULL;
}

/* Whatever begins here or around it, but for what is excepted here or around it. */
static int judge(struct regions *regions, struct region *r, struct chain *ch)
{
	int err = 0;

	ch->n = 0;
	for (struct region *at = r; at && err == 0; at = around(regions, at)) {
		struct cidr_mark *marks = regions->marks + at->first_mark;

		r->unknown |= at->pods;
		for (uint32_t i = 0; i < at->n_marks && err == 0; i++)
			if (marks[i].except)
				err = add_except(ch, &marks[i]);
	}
	for (struct region *at = r; at && err == 0; at = around(regions, at)) {
		struct cidr_mark *marks = regions->marks + at->first_mark;

		for (uint32_t i = 0; i < at->n_marks && err == 0; i++)
			if (marks[i].set && !marks[i].except && !excepted(ch, &marks[i]))
				err = bits_set(&r->bits, marks[i].set->bit);
	}
	return err;
}

static uint32_t id_of(const struct region *r)
{
	return r && r->id ? r->id->id : 0;
}

static struct wag_ipcache_key key_of(const struct region *r)
{
	struct wag_ipcache_key key = { .bits = 32 + r->cidr.bits };

	memcpy(key.addr, r->cidr.addr.w, sizeof(key.addr));
	return key;
}

/* What says the same as the prefix around it need not be said. */
static int publish(struct policy_compiler *c, const struct regions *regions)
{
	struct deltamap *table = &c->tables[POLICY_IPCACHE];
	int r = 0;

	for (size_t i = 0; i < regions->n && r == 0; i++) {
		const struct region *at = &regions->list[i];
		const struct region *up = at->parent ? &regions->list[at->parent - 1] : NULL;
		struct wag_ipcache value = { id_of(at), at->unknown ? WAG_IPCACHE_UNKNOWN : 0 };
		struct wag_ipcache_key key = key_of(at);

		if (at->cidr.bits == 128 && address_known(c, &at->cidr.addr))
			continue;
		if (value.identity == id_of(up) && at->unknown == (up && up->unknown))
			deltamap_unset_desired(table, &key);
		else
			r = deltamap_set_desired(table, &key, &value);
	}
	return r;
}

static void drop(struct policy_compiler *c, struct regions *regions, bool tables)
{
	for (size_t i = 0; i < regions->n; i++) {
		struct region *at = &regions->list[i];
		struct wag_ipcache_key key = key_of(at);

		if (tables && !(at->cidr.bits == 128 && address_known(c, &at->cidr.addr)))
			deltamap_unset_desired(&c->tables[POLICY_IPCACHE], &key);
		if (at->id)
			at->id->refs--;
		bits_done(&at->bits);
	}
	free(regions->list);
	free(regions->marks);
	*regions = (struct regions){ 0 };
}

int regions_update(struct policy_compiler *c)
{
	struct regions fresh = { 0 };
	struct mark_list m = { 0 };
	struct chain ch = { 0 };
	const struct port_names none = { 0 };
	int r = collect(c, &m);

	if (r == 0 && m.n)
		qsort(m.list, m.n, sizeof(*m.list), compare_marks);
	fresh.marks = m.list;
	if (r == 0)
		r = cut(&fresh, &m);
	for (size_t i = 0; i < fresh.n && r == 0; i++) {
		struct region *at = &fresh.list[i];

		r = judge(&fresh, at, &ch);
		if (r == 0)
			r = identity_get(c, &at->bits, NULL, &none, &at->id);
	}
	free(ch.excepts);
	if (r < 0) {
		drop(c, &fresh, false);
		return r;
	}
	drop(c, &c->regions, true);
	c->regions = fresh;
	return publish(c, &c->regions);
}

const struct region *region_find(const struct policy_compiler *c, const struct wag_addr *addr)
{
	struct policy_cidr host = { .addr = *addr, .bits = 128 };
	size_t lo = 0, hi = c->regions.n;
	const struct region *r;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (compare_cidrs(&c->regions.list[mid].cidr, &host) <= 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (r = lo ? &c->regions.list[lo - 1] : NULL; r && !cidr_has(&r->cidr, addr);)
		r = r->parent ? &c->regions.list[r->parent - 1] : NULL;
	return r;
}

void regions_done(struct policy_compiler *c)
{
	drop(c, &c->regions, false);
}
