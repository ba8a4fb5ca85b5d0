// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "policy_sync.h"

int policy_sync_init(struct policy_sync *p, struct dataplane *dp)
{
	*p = (struct policy_sync){ .stale = true };
	return sync_table_init(&p->table, dp, DP_POLICY_NS);
}

void policy_sync_done(struct policy_sync *p)
{
	sync_table_done(&p->table);
}

static bool synced(const struct model *m)
{
	return model_synced(m, MODEL_NAMESPACE) && model_synced(m, MODEL_POLICY) &&
	       model_synced(m, MODEL_SERVICE) && model_synced(m, MODEL_SLICE);
}

static int add_namespace(const char *ns, size_t n_policies, void *ctx)
{
	struct wag_policy_ns value = { .flags = n_policies ? WAG_POLICY_NS_SELECTS : 0 };
	struct wag_policy_ns_key key = { 0 };

	if (strlen(ns) >= sizeof(key.ns))
		return 0;
	memcpy(key.ns, ns, strlen(ns));
	return deltamap_set_desired(ctx, &key, &value);
}

static int compile(struct policy_sync *p, const struct model *m)
{
	struct deltamap fresh;
	int r = deltamap_init(&fresh, sizeof(struct wag_policy_ns_key),
			      sizeof(struct wag_policy_ns));

	if (r == 0)
		r = model_visit_namespaces(m, add_namespace, &fresh);
	if (r == 0)
		r = sync_table_replace(&p->table, &fresh);
	deltamap_done(&fresh);
	return r;
}

int policy_sync_run(struct policy_sync *p, struct model *m)
{
	bool some = model_count(m, MODEL_POLICY) > 0;
	int r = 0, set;

	if (model_take_dirty_namespaces(m))
		p->stale = true;
	model_take_dirty(m, MODEL_NAMESPACE);
	model_take_dirty(m, MODEL_POLICY);
	if (!synced(m) || (!p->stale && !p->err))
		return 0;
	/* On before the table is stricter, off after it: at no moment does a pod look free that is
	 * not. */
	set = some ? dataplane_set_policies(p->table.dp, true) : 0;
	if (p->stale)
		r = compile(p, m);
	if (r == 0) {
		p->stale = false;
		p->table.swept = true;
		r = sync_table_apply(&p->table);
	}
	if (r == 0 && !some)
		set = dataplane_set_policies(p->table.dp, false);
	r = r < 0 ? r : set;
	p->err = -r;
	return r;
}

bool policy_sync_ready(const struct policy_sync *p)
{
	return p->table.swept && !p->stale && !p->err;
}
