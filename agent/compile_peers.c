// SPDX-License-Identifier: Apache-2.0
/* Selectors in use: which namespaces, pods and nodes they select. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/cleanup.h>

#include "compile_policy_internal.h"

int bits_set(struct bits *b, uint32_t i)
{
	if (i / 64 >= b->n) {
		uint32_t n = i / 64 + 1;
		uint64_t *bigger = reallocarray(b->words, n, sizeof(*bigger));

		if (!bigger)
			return -ENOMEM;
		memset(bigger + b->n, 0, (n - b->n) * sizeof(*bigger));
		b->words = bigger;
		b->n = n;
	}
	b->words[i / 64] |= 1ULL << i % 64;
	return 0;
}

int number_take(struct numbers *n, uint32_t *ret)
{
	uint32_t i = n->hint;
	int r;

	while (bits_test(&n->used, i))
		i++;
	r = bits_set(&n->used, i);
	if (r < 0)
		return r;
	n->hint = i + 1;
	*ret = i;
	return 0;
}

void number_give(struct numbers *n, uint32_t i)
{
	bits_clear(&n->used, i);
	if (i < n->hint)
		n->hint = i;
}

/* ---- namespaces ---- */

static bool ns_selected(const struct ns *ns, const struct selector *sel)
{
	const struct object *obj = ns->obj;

	return selector_matches(sel, obj ? obj->namespace.labels : NULL,
				obj ? obj->namespace.n_labels : 0, ns->name);
}

static int ns_judge(struct ns *ns, const struct ns_sel *sel)
{
	if (ns_selected(ns, sel->sel))
		return bits_set(&ns->sels, sel->index);
	bits_clear(&ns->sels, sel->index);
	return 0;
}

static int ns_judge_all(struct policy_compiler *c, struct ns *ns)
{
	struct ns_sel *sel, *tmp;
	int r = 0;

	HASH_ITER(hh, c->ns_sels, sel, tmp)
		if (r == 0)
			r = ns_judge(ns, sel);
	return r;
}

int ns_get(struct policy_compiler *c, const char *name, struct ns **ret)
{
	size_t len = strlen(name);
	struct ns *ns;
	int r;

	HASH_FIND(hh, c->namespaces, name, len, ns);
	if (!ns) {
		ns = calloc(1, sizeof(*ns) + len + 1);
		if (!ns)
			return -ENOMEM;
		memcpy(ns->name, name, len);
		r = ns_judge_all(c, ns);
		if (r < 0) {
			bits_done(&ns->sels);
			free(ns);
			return r;
		}
		HASH_ADD_KEYPTR(hh, c->namespaces, ns->name, len, ns);
	}
	*ret = ns;
	return 0;
}

void ns_put(struct policy_compiler *c, struct ns *ns)
{
	if (ns->obj || ns->pods)
		return;
	HASH_DEL(c->namespaces, ns);
	bits_done(&ns->sels);
	free(ns);
}

int ns_change(struct policy_compiler *c, const struct object *obj, bool gone)
{
	struct ns *ns;
	int r = ns_get(c, obj->name, &ns);

	if (r < 0)
		return r;
	ns->obj = gone ? NULL : obj;
	r = ns_judge_all(c, ns);
	for (struct subject *s = ns->pods; s; s = s->next)
		subject_queue(c, s, true);
	c->endpoints_stale = true;
	if (gone)
		ns_put(c, ns);
	return r;
}

int ns_sel_get(struct policy_compiler *c, struct policy *p, const struct selector *sel,
	       struct ns_sel **ret)
{
	_cleanup_free_ char *text = selector_text(sel);
	struct ns_sel *s;
	struct ns *ns, *tmp;
	int r;

	if (!text)
		return -ENOMEM;
	HASH_FIND_STR(c->ns_sels, text, s);
	if (s) {
		s->refs++;
		*ret = s;
		return 0;
	}
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	r = number_take(&c->ns_numbers, &s->index);
	if (r < 0) {
		free(s);
		return r;
	}
	s->refs = 1;
	s->sel = sel;
	s->policy = policy_ref(p);
	s->text = TAKE_PTR(text);
	HASH_ADD_KEYPTR(hh, c->ns_sels, s->text, strlen(s->text), s);
	HASH_ITER(hh, c->namespaces, ns, tmp)
		if (r == 0)
			r = ns_judge(ns, s);
	*ret = s;
	return r;
}

void ns_sel_put(struct policy_compiler *c, struct ns_sel *s)
{
	if (!s || --s->refs > 0)
		return;
	number_give(&c->ns_numbers, s->index);
	HASH_DEL(c->ns_sels, s);
	policy_unref(s->policy);
	free(s->text);
	free(s);
}

/* ---- peer sets ---- */

bool subject_in(const struct subject *s, const struct peer_set *set)
{
	const struct policy_rule *rule = set->rule;

	for (size_t i = 0; i < rule->n_peers; i++) {
		const struct policy_peer *peer = &rule->peers[i];

		if (peer->kind == PEER_NODES && !s->ns &&
		    selector_matches(&peer->obj, s->obj->node.labels, s->obj->node.n_labels, NULL))
			return true;
		if (peer->kind == PEER_PODS && s->ns &&
		    bits_test(&s->ns->sels, set->ns[i]->index) &&
		    selector_matches(&peer->obj, s->obj ? s->obj->pod.labels : NULL,
				     s->obj ? s->obj->pod.n_labels : 0, NULL))
			return true;
	}
	return false;
}

static int peer_set_fill(struct policy_compiler *c, struct peer_set *set)
{
	int r = 0;

	set->ns = calloc(set->rule->n_peers + 1, sizeof(struct ns_sel *));
	if (!set->ns)
		return -ENOMEM;
	for (size_t i = 0; i < set->rule->n_peers && r == 0; i++) {
		const struct policy_peer *peer = &set->rule->peers[i];

		set->labels |= peer->kind != PEER_CIDR;
		set->cidrs |= peer->kind == PEER_CIDR;
		if (peer->kind == PEER_PODS)
			r = ns_sel_get(c, set->policy, &peer->ns, &set->ns[i]);
	}
	return r;
}

int peer_set_get(struct policy_compiler *c, struct policy *p, const struct policy_rule *rule,
		 struct peer_set **ret)
{
	_cleanup_free_ char *text = policy_peers_text(rule);
	struct peer_set *set;
	int r;

	if (!text)
		return -ENOMEM;
	HASH_FIND_STR(c->sets, text, set);
	if (set) {
		set->refs++;
		*ret = set;
		return 0;
	}
	set = calloc(1, sizeof(*set));
	if (!set)
		return -ENOMEM;
	r = number_take(&c->set_numbers, &set->bit);
	if (r < 0) {
		free(set);
		return r;
	}
	set->refs = 1;
	set->fresh = true;
	set->rule = rule;
	set->policy = policy_ref(p);
	set->text = TAKE_PTR(text);
	HASH_ADD_KEYPTR(hh, c->sets, set->text, strlen(set->text), set);
	*ret = set;
	r = peer_set_fill(c, set);
	c->sets_fresh |= set->labels;
	c->regions.stale |= set->cidrs;
	return r;
}

static void forget_set(struct policy_compiler *c, struct subject *list, uint32_t bit)
{
	struct subject *s, *tmp;

	HASH_ITER(hh, list, s, tmp) {
		if (!bits_test(&s->bits, bit))
			continue;
		bits_clear(&s->bits, bit);
		subject_queue(c, s, false);
	}
}

void peer_set_put(struct policy_compiler *c, struct peer_set *set)
{
	if (!set || --set->refs > 0)
		return;
	HASH_DEL(c->sets, set);
	number_give(&c->set_numbers, set->bit);
	if (set->labels && !set->fresh) {
		forget_set(c, c->subjects, set->bit);
		forget_set(c, c->nodes, set->bit);
	}
	c->regions.stale |= set->cidrs;
	for (size_t i = 0; set->ns && i < set->rule->n_peers; i++)
		ns_sel_put(c, set->ns[i]);
	free(set->ns);
	policy_unref(set->policy);
	free(set->text);
	free(set);
}

static int judge_list(struct policy_compiler *c, struct subject *list, const struct peer_set *set)
{
	struct subject *s, *tmp;
	int r = 0;

	HASH_ITER(hh, list, s, tmp) {
		if (r < 0 || s->stale || !subject_in(s, set))
			continue;
		r = bits_set(&s->bits, set->bit);
		subject_queue(c, s, false);
	}
	return r;
}

int peer_sets_judge(struct policy_compiler *c)
{
	struct peer_set *set, *tmp;
	int r = 0;

	HASH_ITER(hh, c->sets, set, tmp) {
		if (!set->fresh)
			continue;
		if (r == 0 && set->labels)
			r = judge_list(c, c->subjects, set);
		if (r == 0 && set->labels)
			r = judge_list(c, c->nodes, set);
		set->fresh = r < 0;
	}
	c->sets_fresh = r < 0;
	return r;
}


/* ---- must all Pods be known? ---- */

static bool rule_wants_pods(const struct policy_rule *rule, enum policy_dir dir)
{
	for (size_t i = 0; i < rule->n_peers; i++)
		if (rule->peers[i].kind == PEER_PODS)
			return true;
	for (size_t i = 0; dir == POLICY_EGRESS && i < rule->n_ports; i++)
		if (rule->ports[i].name)
			return true;
	return false;
}

static bool policy_wants_pods(const struct policy *p)
{
	for (enum policy_dir d = POLICY_INGRESS; d < POLICY_DIRS; d++)
		for (size_t i = 0; i < p->n_rules[d]; i++)
			if (rule_wants_pods(&p->rules[d][i], d))
				return true;
	return false;
}

/* A pod of this node. */
static bool selects_some(const struct policy_compiler *c, const struct policy *p)
{
	struct endpoint *ep, *tmp;

	HASH_ITER(hh, c->endpoints, ep, tmp) {
		const struct subject *s = ep->subject;

		if (s->obj && ns_selected(s->ns, &p->ns) &&
		    selector_matches(&p->pods, s->obj->pod.labels, s->obj->pod.n_labels, NULL))
			return true;
	}
	return false;
}

bool policy_compiler_wants_pods(struct policy_compiler *c)
{
	struct pol *pol, *tmp;

	if (c->wants_pods)
		return true;
	HASH_ITER(hh, c->pols, pol, tmp)
		c->wants_pods |= !c->wants_pods && pol->wanted && policy_wants_pods(pol->wanted) &&
				 selects_some(c, pol->wanted);
	c->regions.stale |= c->wants_pods;
	return c->wants_pods;
}
