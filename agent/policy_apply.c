// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#define HASH_NONFATAL_OOM 1 /* an element that was not added has no table */
#include <uthash.h>
#include <waggle/cleanup.h>

#include "policy_apply.h"

static const enum dp_table tables[POLICY_TABLES] = {
	[POLICY_IPCACHE] = DP_IPCACHE, [POLICY_POD] = DP_POLICY,
	[POLICY_RULE] = DP_RULE,       [POLICY_PORT] = DP_PORT,
	[POLICY_PORT_EXACT] = DP_PORT_EXACT,
};

static const struct policy_limits limits = {
	.entries = { [POLICY_IPCACHE] = WAG_IPCACHE_MAX / WAG_POLICY_GENS,
		     [POLICY_POD] = WAG_POLICY_MAX / WAG_POLICY_GENS,
		     [POLICY_RULE] = WAG_RULE_MAX / WAG_POLICY_GENS,
		     [POLICY_PORT] = WAG_PORT_MAX / WAG_POLICY_GENS,
		     [POLICY_PORT_EXACT] = WAG_PORT_MAX / WAG_POLICY_GENS },
};

struct policy_ep {
	UT_hash_handle hh;
	uint32_t ep_id;
	bool seen, in_force;
	size_t len;
	char what[]; /* ns, name and addresses: another one is another pod */
};

/* ---- begin ---- */

struct adopting {
	struct policy_apply *a;
	enum policy_table table;
};

static int adopt(const void *key, const void *value, void *ctx)
{
	const struct adopting *ad = ctx;
	uint32_t gen;

	memcpy(&gen, (const char *)key + dataplane_gen_offset(tables[ad->table]), sizeof(gen));
	if (gen >= WAG_POLICY_GENS)
		return 0; /* no agent's */
	return deltamap_set_actual(&ad->a->gens[gen][ad->table].map, key, value);
}

static int init_table(struct policy_apply *a, enum policy_table t)
{
	struct adopting ad = { a, t };
	int r = 0;

	for (int g = 0; g < WAG_POLICY_GENS && r == 0; g++) {
		a->gens[g][t] = (struct sync_table){ .dp = a->dp, .table = tables[t],
						     .swept = true, .room_first = true };
		r = deltamap_init(&a->gens[g][t].map, dataplane_key_size(tables[t]),
				  dataplane_value_size(tables[t]));
	}
	return r < 0 ? r : dataplane_visit(a->dp, tables[t], adopt, &ad);
}

int policy_apply_init(struct policy_apply *a, struct dataplane *dp)
{
	int r;

	*a = (struct policy_apply){ .dp = dp };
	r = policy_compiler_new(&a->compiler, &limits);
	if (r == 0)
		r = dataplane_policy_epoch(dp, &a->epoch);
	if (r == 0)
		r = sync_table_init(&a->names, dp, DP_RULE_NAME);
	for (int t = 0; t < POLICY_TABLES && r == 0; t++)
		r = init_table(a, t);
	/* What an earlier agent left in force is, until all is known. */
	a->behind = a->epoch != 0;
	for (uint32_t g = 0; a->behind && g < WAG_POLICY_GENS; g++)
		if (g != wag_policy_gen(a->epoch))
			dataplane_grace_begin(dp, g);
	if (r < 0)
		policy_apply_done(a);
	return r;
}

void policy_apply_done(struct policy_apply *a)
{
	struct policy_ep *ep, *tmp;

	HASH_ITER(hh, a->eps, ep, tmp) {
		HASH_DEL(a->eps, ep);
		free(ep);
	}
	for (int g = 0; g < WAG_POLICY_GENS; g++)
		for (int t = 0; t < POLICY_TABLES; t++)
			sync_table_done(&a->gens[g][t]);
	sync_table_done(&a->names);
	policy_compiler_free(a->compiler);
	*a = (struct policy_apply){ 0 };
}

int policy_apply_change(struct policy_apply *a, const struct object *obj, bool gone)
{
	return policy_compiler_change(a->compiler, obj, gone);
}

/* ---- pods of this node ---- */

static struct policy_ep *ep_new(const struct policy_endpoint *given)
{
	size_t ns = strlen(given->ns) + 1, pod = strlen(given->pod) + 1;
	size_t addrs = given->n_addrs * sizeof(*given->addrs);
	struct policy_ep *ep = calloc(1, sizeof(*ep) + ns + pod + addrs);

	if (!ep)
		return NULL;
	ep->ep_id = given->ep_id;
	ep->len = ns + pod + addrs;
	memcpy(ep->what, given->ns, ns);
	memcpy(ep->what + ns, given->pod, pod);
	if (addrs)
		memcpy(ep->what + ns + pod, given->addrs, addrs);
	return ep;
}

static int ep_set(struct policy_apply *a, const struct policy_endpoint *given)
{
	struct policy_ep *ep = ep_new(given), *known;
	int r;

	if (!ep)
		return -ENOMEM;
	HASH_FIND(hh, a->eps, &ep->ep_id, sizeof(ep->ep_id), known);
	if (known && known->len == ep->len && memcmp(known->what, ep->what, ep->len) == 0) {
		known->seen = true;
		free(ep);
		return 0;
	}
	if (known) {
		HASH_DEL(a->eps, known);
		free(known);
	}
	ep->seen = true;
	HASH_ADD(hh, a->eps, ep_id, sizeof(ep->ep_id), ep);
	r = policy_compiler_endpoint(a->compiler, given);
	return r;
}

int policy_apply_endpoints(struct policy_apply *a, const struct policy_endpoint *eps, size_t n)
{
	struct policy_ep *ep, *tmp;
	int r = 0;

	HASH_ITER(hh, a->eps, ep, tmp)
		ep->seen = false;
	for (size_t i = 0; i < n && r == 0; i++)
		r = ep_set(a, &eps[i]);
	if (r < 0)
		return r;
	HASH_ITER(hh, a->eps, ep, tmp) {
		if (ep->seen)
			continue;
		policy_compiler_endpoint_gone(a->compiler, ep->ep_id);
		HASH_DEL(a->eps, ep);
		free(ep);
	}
	return 0;
}

bool policy_apply_in_force(const struct policy_apply *a, uint32_t ep_id, bool with_pod)
{
	struct policy_ep *ep;

	HASH_FIND(hh, a->eps, &ep_id, sizeof(ep_id), ep);
	if (!ep || !ep->in_force)
		return false;
	/* Without a name no policy selects it. */
	if (!ep->what[0] || !ep->what[strlen(ep->what) + 1])
		return true;
	return !with_pod || policy_compiler_knows(a->compiler, ep_id);
}

/* ---- a run ---- */

struct handing {
	struct policy_apply *a;
	enum policy_table table;
	char *keys, *values; /* copies: the map must not change under the walk */
	bool *given;
	size_t n;
};

static int copy_change(const void *key, const void *desired, const void *actual, void *ctx)
{
	struct handing *h = ctx;
	const struct deltamap *m = &h->a->gens[0][h->table].map;

	memcpy(h->keys + h->n * m->key_size, key, m->key_size);
	h->given[h->n] = desired;
	if (desired)
		memcpy(h->values + h->n * m->value_size, desired, m->value_size);
	h->n++;
	return 0;
}

static int hand_one(struct handing *h, size_t i)
{
	struct deltamap *from = policy_compiler_table(h->a->compiler, h->table);
	char *key = h->keys + i * from->key_size, *value = h->values + i * from->value_size;
	int r = 0;

	for (uint32_t g = 0; g < WAG_POLICY_GENS && r == 0; g++) {
		struct deltamap *to = &h->a->gens[g][h->table].map;

		memcpy(key + dataplane_gen_offset(tables[h->table]), &g, sizeof(g));
		if (h->given[i])
			r = deltamap_set_desired(to, key, value);
		else
			deltamap_unset_desired(to, key);
	}
	memset(key + dataplane_gen_offset(tables[h->table]), 0, sizeof(uint32_t));
	if (r == 0 && h->given[i])
		r = deltamap_set_actual(from, key, value);
	else if (r == 0)
		deltamap_unset_actual(from, key);
	return r;
}

/* What the compiler has found since is what every generation should be. */
static int hand_over(struct policy_apply *a, enum policy_table table)
{
	struct deltamap *from = policy_compiler_table(a->compiler, table);
	size_t n = deltamap_pending(from);
	_cleanup_free_ char *keys = calloc(n + 1, from->key_size);
	_cleanup_free_ char *values = calloc(n + 1, from->value_size);
	_cleanup_free_ bool *given = calloc(n + 1, sizeof(*given));
	struct handing h = { a, table, keys, values, given, 0 };
	int r = 0;

	if (!keys || !values || !given)
		return -ENOMEM;
	deltamap_visit_pending(from, copy_change, &h);
	for (size_t i = 0; i < h.n && r == 0; i++)
		r = hand_one(&h, i);
	a->behind |= h.n > 0;
	return r;
}

static int reset_rule(const void *key, const void *desired, const void *actual, void *ctx)
{
	struct policy_apply *a = ctx;
	uint32_t rule;

	memcpy(&rule, key, sizeof(rule));
	return desired ? dataplane_reset_rule(a->dp, rule) : 0;
}

/* Names come before the rules that have them are in force, and go with the next change. */
static int apply_names(struct policy_apply *a)
{
	struct deltamap *names = policy_compiler_names(a->compiler);
	int r;

	if (!a->behind)
		return 0;
	r = sync_table_replace(&a->names, names);
	if (r == 0)
		r = deltamap_visit_pending(&a->names.map, reset_rule, a);
	a->names.swept = true;
	return r < 0 ? r : sync_table_apply(&a->names);
}

/* 0 is for "none ever". */
static uint32_t epoch_after(uint32_t epoch)
{
	do {
		epoch++;
	} while (!epoch || wag_policy_gen(epoch) >= WAG_POLICY_GENS);
	return epoch;
}

static int flip(struct policy_apply *a, uint32_t next)
{
	uint32_t before = wag_policy_gen(a->epoch);
	int r = dataplane_set_policy_epoch(a->dp, next);

	if (r < 0)
		return r;
	a->epoch = next;
	a->flips++;
	a->behind = false;
	/* Who still reads what was in force before will have left when it is to be written. */
	if (before < WAG_POLICY_GENS)
		dataplane_grace_begin(a->dp, before);
	return 0;
}

static int put_in_force(struct policy_apply *a)
{
	uint32_t next = epoch_after(a->epoch), g = wag_policy_gen(next);
	int r = 0;

	dataplane_grace_end(a->dp, g);
	for (int t = POLICY_TABLES - 1; t >= 0 && r == 0; t--) {
		r = sync_table_apply(&a->gens[g][t]);
		a->err_map = dataplane_table_name(tables[t]);
	}
	return r < 0 ? r : flip(a, next);
}

static int run(struct policy_apply *a, policy_refused_fn refused, void *ctx)
{
	int r;

	a->err_map = "memory";
	r = policy_compiler_run(a->compiler, refused, ctx);
	if (r < 0)
		return r;
	/* Before the first policy there is nothing to judge by. */
	if (!a->epoch && !policy_compiler_has_some(a->compiler))
		return 0;
	for (int t = 0; t < POLICY_TABLES && r == 0; t++)
		r = hand_over(a, t);
	if (r < 0 || !a->behind)
		return r;
	a->err_map = dataplane_table_name(DP_RULE_NAME);
	r = apply_names(a);
	return r < 0 ? r : put_in_force(a);
}

int policy_apply_run(struct policy_apply *a, policy_refused_fn refused, void *ctx)
{
	struct policy_ep *ep, *tmp;
	int r = run(a, refused, ctx);

	a->err = -r;
	if (r < 0)
		return r;
	HASH_ITER(hh, a->eps, ep, tmp)
		ep->in_force = true;
	return 0;
}
