// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/cleanup.h>

#include "compile_policy_internal.h"

static const size_t key_sizes[POLICY_TABLES] = {
	[POLICY_IPCACHE] = sizeof(struct wag_ipcache_key),
	[POLICY_POD] = sizeof(struct wag_policy_key),
	[POLICY_RULE] = sizeof(struct wag_rule_key),
	[POLICY_PORT] = sizeof(struct wag_port_key),
	[POLICY_PORT_EXACT] = sizeof(struct wag_port_key),
};

static const size_t value_sizes[POLICY_TABLES] = {
	[POLICY_IPCACHE] = sizeof(struct wag_ipcache),
	[POLICY_POD] = sizeof(struct wag_policy),
	[POLICY_RULE] = sizeof(uint32_t),
	[POLICY_PORT] = sizeof(uint32_t),
	[POLICY_PORT_EXACT] = sizeof(uint32_t),
};

int policy_compiler_new(struct policy_compiler **ret, const struct policy_limits *limits)
{
	_cleanup_(policy_compiler_freep) struct policy_compiler *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	if (limits)
		c->limits = *limits;
	for (int t = 0; t < POLICY_TABLES; t++) {
		r = deltamap_init(&c->tables[t], key_sizes[t], value_sizes[t]);
		if (r < 0)
			return r;
		if (!c->limits.entries[t])
			c->limits.entries[t] = SIZE_MAX;
	}
	if (!c->limits.identities)
		c->limits.identities = IDENTITIES_DEFAULT;
	r = deltamap_init(&c->names, sizeof(uint32_t), sizeof(struct wag_rule_name));
	if (r < 0)
		return r;
	c->profiles.table = &c->tables[POLICY_PORT];
	c->profiles.exact = &c->tables[POLICY_PORT_EXACT];
	*ret = TAKE_PTR(c);
	return 0;
}

struct deltamap *policy_compiler_table(struct policy_compiler *c, enum policy_table table)
{
	return &c->tables[table];
}

struct deltamap *policy_compiler_names(struct policy_compiler *c)
{
	return &c->names;
}

/* ---- rules and names in use ---- */

static struct wag_rule_name name_of(const struct pol *pol, enum policy_dir dir, uint16_t index)
{
	const struct policy *p = pol->policy;
	struct wag_rule_name name = { .tier = p->tier, .direction = dir, .index = index };

	snprintf(name.ns, sizeof(name.ns), "%s", pol->key);
	snprintf(name.name, sizeof(name.name), "%s", pol->name);
	if (index < p->n_rules[dir] && p->rules[dir][index].name)
		snprintf(name.rule, sizeof(name.rule), "%s", p->rules[dir][index].name);
	return name;
}

/*
 * Round and round, so that a number that was given back rests. Too many are told by
 * table_too_small().
 */
static uint32_t rule_number(struct policy_compiler *c)
{
	const void *taken;

	do
		c->next_rule = c->next_rule % (WAG_RULES_MAX - 1) + 1;
	while ((taken = deltamap_desired(&c->names, &c->next_rule)) &&
	       c->names.n_desired < WAG_RULES_MAX - 1);
	return taken ? WAG_RULES_MAX + ++c->rules_beyond : c->next_rule;
}

static int rule_ref_new(struct policy_compiler *c, struct pol *pol, enum policy_dir dir,
			uint16_t index, struct rule_ref **ret)
{
	struct wag_rule_name name = name_of(pol, dir, index);
	struct rule_ref *ref = calloc(1, sizeof(*ref));

	if (!ref)
		return -ENOMEM;
	ref->id = rule_number(c);
	*ret = ref;
	return deltamap_set_desired(&c->names, &ref->id, &name);
}

static void rule_ref_free(struct policy_compiler *c, struct rule_ref *ref)
{
	if (!ref)
		return;
	deltamap_unset_desired(&c->names, &ref->id);
	free(ref);
}

static int name_use(struct policy_compiler *c, const char *name)
{
	struct used_name *u;

	HASH_FIND_STR(c->used_names, name, u);
	if (!u) {
		u = calloc(1, sizeof(*u) + strlen(name) + 1);
		if (!u)
			return -ENOMEM;
		memcpy(u->name, name, strlen(name));
		HASH_ADD_STR(c->used_names, name, u);
		c->names_stale = true;
	}
	u->refs++;
	return 0;
}

static void name_unuse(struct policy_compiler *c, const char *name)
{
	struct used_name *u;

	HASH_FIND_STR(c->used_names, name, u);
	if (!u || --u->refs > 0)
		return;
	HASH_DEL(c->used_names, u);
	c->names_stale = true;
	free(u);
}

static int names_of(struct policy_compiler *c, const struct policy_rule *rule, bool use)
{
	int r = 0;

	for (size_t i = 0; i < rule->n_ports && r == 0; i++) {
		if (!rule->ports[i].name)
			continue;
		if (use)
			r = name_use(c, rule->ports[i].name);
		else
			name_unuse(c, rule->ports[i].name);
	}
	return r;
}

/* ---- policies ---- */

static void pol_remove(struct policy_compiler *c, struct pol *pol)
{
	struct policy *p = pol->policy;

	for (int d = 0; p && d < POLICY_DIRS; d++) {
		for (size_t i = 0; pol->rules[d] && i < p->n_rules[d]; i++) {
			struct crule *rule = &pol->rules[d][i];

			if (!rule->rule)
				continue;
			names_of(c, rule->rule, false);
			peer_set_put(c, rule->set);
			rule_ref_free(c, rule->ref);
		}
		free(pol->rules[d]);
		pol->rules[d] = NULL;
		rule_ref_free(c, pol->isolates[d]);
		pol->isolates[d] = NULL;
	}
	ns_sel_put(c, pol->ns);
	pol->ns = NULL;
	policy_unref(p);
	pol->policy = NULL;
	c->endpoints_stale = true;
}

static int pol_rules(struct policy_compiler *c, struct pol *pol, enum policy_dir d)
{
	struct policy *p = pol->policy;
	int r = 0;

	pol->rules[d] = calloc(p->n_rules[d] + 1, sizeof(struct crule));
	if (!pol->rules[d])
		return -ENOMEM;
	for (size_t i = 0; i < p->n_rules[d] && r == 0; i++) {
		struct crule *rule = &pol->rules[d][i];

		rule->rule = &p->rules[d][i];
		r = names_of(c, rule->rule, true);
		if (r == 0 && rule->rule->n_peers && !rule->rule->any_peer)
			r = peer_set_get(c, p, rule->rule, &rule->set);
		if (r == 0)
			r = rule_ref_new(c, pol, d, i < 0xffff ? i : 0xfffe, &rule->ref);
	}
	if (r == 0)
		r = rule_ref_new(c, pol, d, 0xffff, &pol->isolates[d]);
	return r;
}

int pol_install(struct policy_compiler *c, struct pol *pol, struct policy *p)
{
	int r;

	pol_remove(c, pol);
	pol->policy = policy_ref(p);
	if (!p)
		return 0;
	pol->version = ++c->next_version;
	r = ns_sel_get(c, p, &p->ns, &pol->ns);
	for (enum policy_dir d = POLICY_INGRESS; d < POLICY_DIRS && r == 0; d++)
		r = pol_rules(c, pol, d);
	return r;
}

static int pol_get(struct policy_compiler *c, const struct object *obj, struct pol **ret)
{
	size_t ns = strlen(obj->ns), len = ns + 1 + strlen(obj->name);
	struct pol *pol = calloc(1, sizeof(*pol) + len + 1), *known;

	if (!pol)
		return -ENOMEM;
	memcpy(pol->key, obj->ns, ns);
	memcpy(pol->key + ns + 1, obj->name, len - ns - 1);
	HASH_FIND(hh, c->pols, pol->key, len, known);
	if (known) {
		free(pol);
		*ret = known;
		return 0;
	}
	pol->name = pol->key + ns + 1;
	HASH_ADD_KEYPTR(hh, c->pols, pol->key, len, pol);
	*ret = pol;
	return 0;
}

static int policy_change(struct policy_compiler *c, const struct object *obj, bool gone)
{
	struct pol *pol;
	int r = pol_get(c, obj, &pol);

	if (r < 0)
		return r;
	policy_unref(pol->wanted);
	pol->wanted = gone ? NULL : policy_ref(obj->policy);
	free(TAKE_PTR(pol->why));
	pol->queued = true;
	c->pols_queued = true;
	return 0;
}

/* ---- what the caller tells ---- */

static int subject_change(struct policy_compiler *c, const char *ns, const struct object *obj,
			  bool gone)
{
	struct subject *s;
	int r = subject_get(c, ns, obj->name, &s);

	if (r < 0)
		return r;
	s->obj = gone ? NULL : obj;
	subject_queue(c, s, true);
	return 0;
}

int policy_compiler_change(struct policy_compiler *c, const struct object *obj, bool gone)
{
	switch (obj->kind) {
	case MODEL_POLICY:
	case MODEL_CLUSTER_POLICY:
		return policy_change(c, obj, gone);
	case MODEL_NAMESPACE:
		return ns_change(c, obj, gone);
	case MODEL_NODE:
		c->regions.stale |= obj->node.n_pod_cidrs > 0;
		return subject_change(c, "", obj, gone);
	case MODEL_POD:
		return subject_change(c, obj->ns, obj, gone);
	default:
		return 0;
	}
}

int policy_compiler_endpoint(struct policy_compiler *c, const struct policy_endpoint *given)
{
	struct endpoint *ep;
	struct subject *s;
	int r;

	policy_compiler_endpoint_gone(c, given->ep_id);
	if (!given->ns[0] || !given->pod[0])
		return 0; /* no policy can select it */
	r = subject_get(c, given->ns, given->pod, &s);
	if (r < 0)
		return r;
	ep = calloc(1, sizeof(*ep));
	if (!ep)
		return -ENOMEM;
	ep->addrs = calloc(given->n_addrs + 1, sizeof(*ep->addrs));
	if (!ep->addrs) {
		free(ep);
		return -ENOMEM;
	}
	if (given->n_addrs)
		memcpy(ep->addrs, given->addrs, given->n_addrs * sizeof(*ep->addrs));
	ep->n_addrs = given->n_addrs;
	ep->ep_id = given->ep_id;
	ep->subject = s;
	s->ep = ep;
	HASH_ADD(hh, c->endpoints, ep_id, sizeof(ep->ep_id), ep);
	subject_queue(c, s, true);
	c->endpoints_stale = true;
	return 0;
}

void policy_compiler_endpoint_gone(struct policy_compiler *c, uint32_t ep_id)
{
	struct endpoint *ep;

	HASH_FIND(hh, c->endpoints, &ep_id, sizeof(ep_id), ep);
	if (!ep)
		return;
	/* Its pod may have a younger one already: a sandbox made anew. */
	if (ep->subject->ep == ep) {
		ep->subject->ep = NULL;
		subject_queue(c, ep->subject, true);
	}
	endpoint_done(c, ep);
}

/* ---- a run ---- */

static int install_queued(struct policy_compiler *c, const struct refusal *to)
{
	struct pol *pol, *tmp;
	const char *why;
	char buf[128];
	int r = 0;

	HASH_ITER(hh, c->pols, pol, tmp) {
		pol->installed = false;
		if (!pol->queued || r < 0)
			continue;
		pol->before = policy_ref(pol->policy);
		pol->refused = false;
		why = pol->wanted ? pol_hopeless(pol->wanted, buf, sizeof(buf)) : NULL;
		if (why) {
			r = pol_refuse(c, pol, why, to);
			continue;
		}
		r = pol_install(c, pol, pol->wanted);
		pol->installed = pol->wanted;
	}
	return r;
}

int policies_update(struct policy_compiler *c)
{
	int r = identities_update(c);

	if (r == 0)
		r = endpoints_update(c);
	if (r == 0)
		identities_sweep(c);
	return r;
}

static void settle(struct policy_compiler *c)
{
	struct pol *pol, *tmp;

	c->pols_queued = false;
	c->n_refused = 0;
	HASH_ITER(hh, c->pols, pol, tmp) {
		policy_unref(pol->before);
		pol->before = NULL;
		pol->queued = pol->installed = false;
		c->n_refused += pol->refused;
		if (!pol->refused)
			free(TAKE_PTR(pol->why));
		if (pol->wanted || pol->policy)
			continue;
		HASH_DEL(c->pols, pol);
		free(pol->why);
		free(pol);
	}
}

int policy_compiler_run(struct policy_compiler *c, policy_refused_fn refused, void *ctx)
{
	const struct refusal to = { refused, ctx };
	int r = 0;

	policy_compiler_wants_pods(c);
	if (c->pols_queued) {
		pols_queue_refused(c);
		r = install_queued(c, &to);
	}
	if (r == 0)
		r = policies_update(c);
	if (r == 0)
		r = pols_make_fit(c, &to);
	if (r < 0)
		return r;
	if (c->pols_queued)
		settle(c);
	c->full = table_too_small(c);
	return c->full ? -E2BIG : 0;
}

/* ---- what there is to know ---- */

void policy_compiler_visit_refused(const struct policy_compiler *c, policy_refused_fn fn, void *ctx)
{
	struct pol *pol, *tmp;

	HASH_ITER(hh, c->pols, pol, tmp)
		if (pol->refused && pol->why)
			fn(pol->key, pol->name, pol->why, pol->policy, ctx);
}

bool policy_compiler_full(const struct policy_compiler *c)
{
	return c->full;
}

bool policy_compiler_has_some(const struct policy_compiler *c)
{
	return c->pols;
}

bool policy_compiler_knows(const struct policy_compiler *c, uint32_t ep_id)
{
	struct endpoint *ep;

	HASH_FIND(hh, c->endpoints, &ep_id, sizeof(ep_id), ep);
	return ep && ep->subject->obj;
}

int policy_compiler_rule(const struct policy_compiler *c, uint32_t rule, struct wag_rule_name *ret)
{
	const struct wag_rule_name *name = deltamap_desired(&c->names, &rule);

	if (!name)
		return -ENOENT;
	*ret = *name;
	return 0;
}

static bool selects(const struct pol *pol, const struct ns *ns, const char *name)
{
	const struct policy *p = pol->wanted;

	if (p && p->unreadable)
		p = pol->policy;
	return p && selector_matches(&p->ns, ns && ns->obj ? ns->obj->namespace.labels : NULL,
				     ns && ns->obj ? ns->obj->namespace.n_labels : 0, name);
}

bool policy_compiler_selects(const struct policy_compiler *c, const char *name)
{
	struct pol *pol, *tmp;
	struct ns *ns;

	HASH_FIND_STR(c->namespaces, name, ns);
	HASH_ITER(hh, c->pols, pol, tmp)
		if (selects(pol, ns, name))
			return true;
	return false;
}

void policy_compiler_stats(const struct policy_compiler *c, struct policy_stats *ret)
{
	*ret = (struct policy_stats){
		.policies = HASH_COUNT(c->pols),
		.refused = c->n_refused,
		.identities = HASH_COUNT(c->identities),
		.rulesets = HASH_CNT(hh_all, c->all_rulesets),
		.profiles = c->profiles.n,
		.cidrs = c->regions.n,
		.pods = HASH_COUNT(c->subjects),
	};
}

void policy_compiler_free(struct policy_compiler *c)
{
	struct endpoint *ep, *ep_tmp;
	struct pol *pol, *tmp;

	if (!c)
		return;
	HASH_ITER(hh, c->endpoints, ep, ep_tmp)
		endpoint_done(c, ep);
	HASH_ITER(hh, c->pols, pol, tmp) {
		pol_remove(c, pol);
		policy_unref(pol->wanted);
		policy_unref(pol->before);
		HASH_DEL(c->pols, pol);
		free(pol->why);
		free(pol);
	}
	regions_done(c);
	identities_done(c);
	profile_set_done(&c->profiles);
	for (int t = 0; t < POLICY_TABLES; t++)
		deltamap_done(&c->tables[t]);
	deltamap_done(&c->names);
	free(c);
}

void policy_compiler_freep(struct policy_compiler **c)
{
	policy_compiler_free(*c);
}
