// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/cleanup.h>
#include "reconcile.h"

struct turn {
	struct model *m;
	const struct compile_facts *facts;
	struct sync *s;
	const struct object **slices;
	size_t n, cap;
	const struct reconcile_listener *listener;
};

static int add_slice(const struct object *obj, void *ctx)
{
	struct turn *t = ctx;

	if (t->n == t->cap) {
		size_t cap = t->cap ? t->cap * 2 : 16;
		const struct object **bigger = realloc(t->slices, cap * sizeof(*bigger));

		if (!bigger)
			return -ENOMEM;
		t->slices = bigger;
		t->cap = cap;
	}
	t->slices[t->n++] = obj;
	return 0;
}

static int tell_checked(const struct turn *t, const char *ns, const char *name,
			const struct object *svc)
{
	const struct reconcile_listener *l = t->listener;
	struct health_check check;
	int r = 0;

	if (!l->checked)
		return 0;
	if (svc)
		r = compile_health(svc, t->slices, t->n, t->facts, &check);
	return r < 0 ? r : l->checked(ns, name, svc ? &check : NULL, l->ctx);
}

static int reconcile_service(const char *ns, const char *name, void *ctx)
{
	struct turn *t = ctx;
	const struct object *svc = model_get(t->m, MODEL_SERVICE, ns, name);
	struct svc_table *table = NULL;
	int r;

	t->n = 0;
	if (svc) {
		r = model_visit_slices(t->m, ns, name, add_slice, t);
		if (r < 0)
			return r;
		r = compile_service(svc, t->slices, t->n, t->facts, &table);
		if (r < 0)
			return r;
	}
	r = sync_set_service(t->s, ns, name, table);
	if (r < 0 && r != -ENOMEM && t->listener->refused)
		t->listener->refused(ns, name, r, t->listener->ctx);
	return r == -ENOMEM ? r : tell_checked(t, ns, name, svc);
}

/* A node that moves to another zone may use other endpoints of every Service. */
static int follow_zone(struct model *m, struct compile_facts *facts)
{
	const struct object *node = NULL;
	const char *zone = "";

	if (facts && facts->node_name)
		node = model_get(m, MODEL_NODE, "", facts->node_name);
	if (node && node->node.zone)
		zone = node->node.zone;
	if (!facts || strncmp(facts->zone, zone, sizeof(facts->zone) - 1) == 0)
		return 0;
	snprintf(facts->zone, sizeof(facts->zone), "%s", zone);
	return model_touch_services(m);
}

int reconcile_run(struct model *m, struct compile_facts *facts, struct sync *s, uint64_t now_ms,
		  const struct reconcile_listener *listener)
{
	static const struct reconcile_listener nobody;
	struct turn t = { .m = m, .facts = facts, .s = s,
			  .listener = listener ? listener : &nobody };
	int r;

	r = follow_zone(m, facts);
	if (r < 0)
		return r;

	if (!model_synced(m, MODEL_SERVICE) || !model_synced(m, MODEL_SLICE))
		return sync_run(s, now_ms);
	r = model_take_dirty_services(m, reconcile_service, &t);
	free(t.slices);
	if (r < 0)
		return r;
	sync_sweep(s);
	return sync_run(s, now_ms);
}
