// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "compile_policy_internal.h"

/* ---- what a ruleset says to one peer ---- */

static void patterns_drop(struct policy_compiler *c, struct ruleset *rs)
{
	struct pattern *p, *tmp;

	HASH_ITER(hh, rs->patterns, p, tmp) {
		ports_put(&c->profiles, p->verdict);
		HASH_DEL(rs->patterns, p);
		free(p);
	}
}

/* Which of its rules match, as the bits that begin the key of a pattern. */
static size_t match(const struct ruleset *rs, const struct identity *id, struct pattern *p,
		    struct port_match *ret)
{
	size_t n = 0;

	for (size_t i = 0; i < rs->n; i++) {
		const struct peer_set *set = rs->sets[i];

		if (!rs->matches[i].rule->any_peer &&
		    !(set && id && bits_test(&id->bits, set->bit)))
			continue;
		p->key[i / 8] |= 1 << i % 8;
		ret[n++] = rs->matches[i];
	}
	return n;
}

/* The verdict is the ruleset's: it holds the profile. */
static int judge(struct policy_compiler *c, struct ruleset *rs, const struct identity *id,
		 uint32_t *ret)
{
	static const struct port_names none;
	const struct port_names *names = rs->dir == POLICY_INGRESS ? &rs->names :
					 id			   ? &id->names :
								     &none;
	size_t names_len = rs->dir == POLICY_EGRESS ? names->len : 0, bytes = (rs->n + 7) / 8;
	_cleanup_free_ struct pattern *p = calloc(1, sizeof(*p) + bytes + names_len + 1);
	_cleanup_free_ struct port_match *m = calloc(rs->n + 1, sizeof(*m));
	struct pattern *known;
	size_t n;
	int r;

	if (!p || !m)
		return -ENOMEM;
	n = match(rs, id, p, m);
	p->key_len = bytes + names_len + 1;
	if (names_len)
		memcpy(p->key + bytes, names->data, names_len);
	HASH_FIND(hh, rs->patterns, p->key, p->key_len, known);
	if (known) {
		*ret = known->verdict;
		return 0;
	}
	r = ports_compile(&c->profiles, m, n, rs->isolates, names, &p->verdict);
	if (r < 0)
		return r;
	*ret = p->verdict;
	HASH_ADD_KEYPTR(hh, rs->patterns, p->key, p->key_len, p);
	p = NULL;
	return 0;
}

static int judge_identity(struct policy_compiler *c, struct ruleset *rs, const struct identity *id)
{
	struct wag_rule_key key = { .ruleset = rs->id, .identity = id->id };
	uint32_t verdict;
	int r = judge(c, rs, id, &verdict);

	if (r < 0)
		return r;
	if (verdict != rs->verdict)
		return deltamap_set_desired(&c->tables[POLICY_RULE], &key, &verdict);
	deltamap_unset_desired(&c->tables[POLICY_RULE], &key);
	return 0;
}

/* New identities for every ruleset, all of them for a new one. */
static int judge_all(struct policy_compiler *c)
{
	size_t n_ids = HASH_COUNT(c->identities);
	struct ruleset *rs, *rs_tmp;
	struct identity *id, *tmp;
	int r = 0;

	HASH_ITER(hh_all, c->all_rulesets, rs, rs_tmp) {
		/* Patterns of peers that are no more. */
		if (HASH_CNT(hh, rs->patterns) > 4 * n_ids + 256) {
			patterns_drop(c, rs);
			rs->fresh = true;
		}
		if (rs->fresh)
			r = r < 0 ? r : judge(c, rs, NULL, &rs->verdict);
		if (!rs->fresh && !c->ids_fresh)
			continue;
		HASH_ITER(hh, c->identities, id, tmp)
			if (r == 0 && id->refs && (rs->fresh || id->fresh))
				r = judge_identity(c, rs, id);
		if (r < 0)
			return r;
		rs->fresh = false;
	}
	HASH_ITER(hh, c->identities, id, tmp)
		id->fresh = false;
	c->ids_fresh = false;
	return 0;
}

void rulesets_forget(struct policy_compiler *c, uint32_t identity)
{
	struct wag_rule_key key = { .identity = identity };
	struct ruleset *rs, *tmp;

	HASH_ITER(hh_all, c->all_rulesets, rs, tmp) {
		key.ruleset = rs->id;
		deltamap_unset_desired(&c->tables[POLICY_RULE], &key);
	}
}

/* ---- rulesets ---- */

static void ruleset_put(struct policy_compiler *c, struct ruleset *rs)
{
	struct wag_rule_key key;
	struct identity *id, *tmp;

	if (!rs || --rs->refs > 0)
		return;
	key = (struct wag_rule_key){ .ruleset = rs->id };
	HASH_ITER(hh, c->identities, id, tmp) {
		key.identity = id->id;
		deltamap_unset_desired(&c->tables[POLICY_RULE], &key);
	}
	patterns_drop(c, rs);
	number_give(&c->ruleset_numbers, rs->id - 1);
	HASH_DELETE(hh, c->rulesets, rs);
	HASH_DELETE(hh_all, c->all_rulesets, rs);
	free(rs->matches);
	free(rs->sets);
	free((char *)rs->names.data);
	free(rs);
}

/* The policies that say something of a pod in one direction, in order of precedence. */
struct selection {
	struct pol **list;
	size_t n;
};

static bool says(const struct pol *pol, enum policy_dir dir)
{
	return pol->policy->n_rules[dir] || pol->policy->isolates[dir];
}

static int compare_pols(const void *a, const void *b)
{
	const struct pol *x = *(struct pol *const *)a, *y = *(struct pol *const *)b;
	int r = (int)x->policy->tier - (int)y->policy->tier;

	if (r == 0)
		r = (x->policy->priority > y->policy->priority) -
		    (x->policy->priority < y->policy->priority);
	if (r == 0)
		r = strcmp(x->key, y->key);
	return r ? r : strcmp(x->name, y->name);
}

static bool selects(const struct pol *pol, const struct subject *s)
{
	return pol->policy && bits_test(&s->ns->sels, pol->ns->index) &&
	       selector_matches(&pol->policy->pods, s->obj ? s->obj->pod.labels : NULL,
				s->obj ? s->obj->pod.n_labels : 0, NULL);
}

static int select_policies(struct policy_compiler *c, const struct subject *s,
			   struct selection *ret)
{
	struct pol *pol, *tmp;

	ret->list = calloc(HASH_COUNT(c->pols) + 1, sizeof(struct pol *));
	if (!ret->list)
		return -ENOMEM;
	HASH_ITER(hh, c->pols, pol, tmp)
		if (selects(pol, s))
			ret->list[ret->n++] = pol;
	if (ret->n)
		qsort(ret->list, ret->n, sizeof(struct pol *), compare_pols);
	return 0;
}

static size_t count_rules(const struct selection *sel, enum policy_dir dir)
{
	size_t n = 0;

	for (size_t i = 0; i < sel->n; i++)
		n += sel->list[i]->policy->n_rules[dir];
	return n;
}

static void fill_ruleset(struct ruleset *rs, const struct selection *sel)
{
	for (size_t i = 0; i < sel->n; i++) {
		struct pol *pol = sel->list[i];

		if (pol->policy->isolates[rs->dir] && !rs->isolates)
			rs->isolates = pol->isolates[rs->dir]->id;
		for (size_t k = 0; k < pol->policy->n_rules[rs->dir]; k++) {
			const struct crule *rule = &pol->rules[rs->dir][k];

			rs->matches[rs->n] = (struct port_match){
				.tier = pol->policy->tier,
				.rule = rule->rule,
				.id = rule->ref->id,
			};
			rs->sets[rs->n++] = rule->set;
		}
	}
}

/* key: direction, versions, names. */
static int ruleset_new(struct policy_compiler *c, enum policy_dir dir, const struct selection *sel,
		       const struct subject *s, const char *key, size_t len, struct ruleset **ret)
{
	size_t n = count_rules(sel, dir);
	struct ruleset *rs = calloc(1, sizeof(*rs) + len);
	int r = rs ? number_take(&c->ruleset_numbers, &rs->id) : -ENOMEM;

	if (r < 0) {
		free(rs);
		return r;
	}
	rs->id++; /* 0 is none */
	rs->refs = 1;
	rs->dir = dir;
	rs->fresh = true;
	rs->key_len = len;
	memcpy(rs->key, key, len);
	HASH_ADD_KEYPTR(hh, c->rulesets, rs->key, len, rs);
	HASH_ADD(hh_all, c->all_rulesets, id, sizeof(rs->id), rs);
	rs->matches = calloc(n + 1, sizeof(*rs->matches));
	rs->sets = calloc(n + 1, sizeof(struct peer_set *));
	rs->names.data = calloc(1, s->names.len + 1);
	if (!rs->matches || !rs->sets || !rs->names.data) {
		ruleset_put(c, rs);
		return -ENOMEM;
	}
	if (s->names.len)
		memcpy((char *)rs->names.data, s->names.data, s->names.len);
	rs->names.len = s->names.len;
	fill_ruleset(rs, sel);
	*ret = rs;
	return 0;
}

/* *ret NULL: everything is allowed. */
static int ruleset_get(struct policy_compiler *c, enum policy_dir dir, const struct selection *sel,
		       const struct subject *s, struct ruleset **ret)
{
	size_t names = dir == POLICY_INGRESS ? s->names.len : 0, len = 1;
	_cleanup_free_ char *key = calloc(1, 1 + sel->n * sizeof(uint32_t) + names);
	struct ruleset *rs;

	if (!key)
		return -ENOMEM;
	key[0] = (char)dir;
	for (size_t i = 0; i < sel->n; i++) {
		if (!says(sel->list[i], dir))
			continue;
		memcpy(key + len, &sel->list[i]->version, sizeof(uint32_t));
		len += sizeof(uint32_t);
	}
	*ret = NULL;
	if (len == 1)
		return 0;
	if (names)
		memcpy(key + len, s->names.data, names);
	len += names;
	HASH_FIND(hh, c->rulesets, key, len, rs);
	if (!rs)
		return ruleset_new(c, dir, sel, s, key, len, ret);
	rs->refs++;
	*ret = rs;
	return 0;
}

/* ---- endpoints ---- */

static int endpoint_rules(struct policy_compiler *c, struct endpoint *ep)
{
	struct selection sel = { 0 };
	int r = select_policies(c, ep->subject, &sel);

	for (enum policy_dir d = POLICY_INGRESS; d < POLICY_DIRS && r == 0; d++) {
		struct ruleset *rs = NULL;

		r = ruleset_get(c, d, &sel, ep->subject, &rs);
		if (r < 0)
			break;
		ruleset_put(c, ep->rulesets[d]);
		ep->rulesets[d] = rs;
	}
	free(sel.list);
	return r;
}

static bool audits(const struct subject *s)
{
	return (s->obj && s->obj->pod.audit) || (s->ns->obj && s->ns->obj->namespace.audit);
}

static int endpoint_publish(struct policy_compiler *c, const struct endpoint *ep)
{
	struct wag_policy_key key = { .ep_id = ep->ep_id };
	struct wag_policy value = { .flags = audits(ep->subject) ? WAG_POLICY_AUDIT : 0 };

	if (!ep->rulesets[POLICY_INGRESS] && !ep->rulesets[POLICY_EGRESS]) {
		deltamap_unset_desired(&c->tables[POLICY_POD], &key);
		return 0;
	}
	for (int d = 0; d < POLICY_DIRS; d++) {
		if (!ep->rulesets[d])
			continue;
		value.ruleset[d] = ep->rulesets[d]->id;
		value.verdict[d] = ep->rulesets[d]->verdict;
	}
	for (size_t i = 0; i < ep->n_addrs; i++)
		value.identity[!wag_addr_is_v4(&ep->addrs[i])] =
			(uint16_t)address_identity(c, &ep->addrs[i]);
	return deltamap_set_desired(&c->tables[POLICY_POD], &key, &value);
}

int endpoints_update(struct policy_compiler *c)
{
	struct endpoint *ep, *tmp;
	int r = 0;

	if (c->endpoints_stale) {
		HASH_ITER(hh, c->endpoints, ep, tmp)
			r = r < 0 ? r : endpoint_rules(c, ep);
	}
	if (r == 0)
		r = judge_all(c);
	HASH_ITER(hh, c->endpoints, ep, tmp)
		r = r < 0 ? r : endpoint_publish(c, ep);
	if (r == 0)
		c->endpoints_stale = false;
	return r;
}

void endpoint_done(struct policy_compiler *c, struct endpoint *ep)
{
	struct wag_policy_key key = { .ep_id = ep->ep_id };

	deltamap_unset_desired(&c->tables[POLICY_POD], &key);
	for (int d = 0; d < POLICY_DIRS; d++)
		ruleset_put(c, ep->rulesets[d]);
	HASH_DEL(c->endpoints, ep);
	free(ep->addrs);
	free(ep);
}
