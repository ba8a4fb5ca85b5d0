// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/cleanup.h>
#include "object.h"
#include "reconcile.h"

struct turn {
	struct model *m;
	const struct compile_facts *facts;
	struct sync *s;
	const struct object **slices;
	size_t n, cap;
	int64_t *triggers; /* of the slices that have changed */
	size_t n_triggers, max_triggers;
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

static int take_triggers(struct turn *t)
{
	for (size_t i = 0; t->listener->programmed && i < t->n; i++) {
		int64_t ms = object_take_trigger(t->slices[i]);

		if (!ms)
			continue;
		if (t->n_triggers == t->max_triggers) {
			size_t max = t->max_triggers ? t->max_triggers * 2 : 16;
			int64_t *bigger = reallocarray(t->triggers, max, sizeof(*bigger));

			if (!bigger)
				return -ENOMEM;
			t->triggers = bigger;
			t->max_triggers = max;
		}
		t->triggers[t->n_triggers++] = ms;
	}
	return 0;
}

/* What waits for another try is not in the maps: when it was asked for is told of no more. */
static int run_sync(struct turn *t, uint64_t now_ms)
{
	int r = sync_run(t->s, now_ms);

	for (size_t i = 0; r == 0 && !sync_pending(t->s) && i < t->n_triggers; i++)
		t->listener->programmed(t->triggers[i], t->listener->ctx);
	return r;
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

/* Once: not again as long as it stays true. */
static void tell_remark(const struct turn *t, const char *ns, const char *name,
			const struct svc_table *table)
{
	const struct svc_table *before = sync_get_service(t->s, ns, name);
	const char *remark = table ? table->remark : NULL;

	if (remark && t->listener->remarked && (!before || before->remark != remark))
		t->listener->remarked(ns, name, remark, t->listener->ctx);
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
		if (r == 0)
			r = take_triggers(t);
		if (r < 0) {
			free(table);
			return r;
		}
	}
	tell_remark(t, ns, name, table);
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
	if (r == 0) {
		sync_sweep(s);
		r = run_sync(&t, now_ms);
	}
	free(t.triggers);
	return r;
}
