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
	reconcile_refused_fn refused;
	void *ctx;
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
	if (r < 0 && r != -ENOMEM && t->refused)
		t->refused(ns, name, r, t->ctx);
	return r == -ENOMEM ? r : 0;
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
		  reconcile_refused_fn refused, void *ctx)
{
	struct turn t = { .m = m, .facts = facts, .s = s, .refused = refused, .ctx = ctx };
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
