// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "policy_sync.h"

int policy_sync_init(struct policy_sync *p, struct dataplane *dp)
{
	int r;

	*p = (struct policy_sync){ .stale = true };
	r = policy_apply_init(&p->apply, dp);
	if (r == 0)
		r = sync_table_init(&p->table, dp, DP_POLICY_NS);
	if (r < 0)
		policy_sync_done(p);
	return r;
}

void policy_sync_done(struct policy_sync *p)
{
	sync_table_done(&p->table);
	policy_apply_done(&p->apply);
}

static bool synced(const struct model *m)
{
	return model_synced(m, MODEL_NAMESPACE) && model_synced(m, MODEL_POLICY) &&
	       model_synced(m, MODEL_CLUSTER_POLICY) &&
	       model_synced(m, MODEL_SERVICE) && model_synced(m, MODEL_SLICE);
}

struct fresh {
	struct deltamap map;
	const struct policy_compiler *compiler;
	bool cluster; /* there are ClusterNetworkPolicies */
};

static int add_namespace(const char *ns, size_t n_policies, void *ctx)
{
	struct fresh *f = ctx;
	bool selects = n_policies || (f->cluster && policy_compiler_selects(f->compiler, ns));
	struct wag_policy_ns value = { .flags = selects ? WAG_POLICY_NS_SELECTS : 0 };
	struct wag_policy_ns_key key = { 0 };

	if (strlen(ns) >= sizeof(key.ns))
		return 0;
	memcpy(key.ns, ns, strlen(ns));
	return deltamap_set_desired(&f->map, &key, &value);
}

static int compile(struct policy_sync *p, const struct model *m)
{
	struct fresh fresh = { .compiler = p->apply.compiler,
			       .cluster = model_count(m, MODEL_CLUSTER_POLICY) > 0 };
	int r = deltamap_init(&fresh.map, sizeof(struct wag_policy_ns_key),
			      sizeof(struct wag_policy_ns));

	if (r == 0)
		r = model_visit_namespaces(m, add_namespace, &fresh);
	if (r == 0)
		r = sync_table_replace(&p->table, &fresh.map);
	deltamap_done(&fresh.map);
	return r;
}

int policy_sync_run(struct policy_sync *p, struct model *m)
{
	bool cluster = model_count(m, MODEL_CLUSTER_POLICY) > 0;
	bool some = cluster || model_count(m, MODEL_POLICY) > 0;
	bool labels = model_take_dirty(m, MODEL_NAMESPACE);
	int r = 0, set;

	/* A namespace's labels say whether ClusterNetworkPolicies are for its pods. */
	p->stale |= model_take_dirty_namespaces(m);
	p->stale |= model_take_dirty(m, MODEL_CLUSTER_POLICY) || (labels && cluster);
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
