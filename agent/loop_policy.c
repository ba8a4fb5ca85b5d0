// SPDX-License-Identifier: Apache-2.0
/* Policies: what the model says of them, in force on this node's pods. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include "kube_parse.h"
#include "kube_recorder.h"
#include "loop_internal.h"

#define RETRY_MS 1000
#define PODS_RETRY_MS 20 /* while the list of all Pods is on its way */

static void on_change(const struct object *obj, bool gone, void *ctx)
{
	struct loop *l = ctx;

	if (policy_apply_change(&l->policies.apply, obj, gone) == 0)
		return;
	log_error("policies: %s: starting anew", strerror(ENOMEM));
	l->restart = true;
	event_base_loopbreak(l->base);
}

bool loop_policy_in_force(void *ctx, uint32_t ep_id)
{
	struct loop *l = ctx;

	/* A folder of manifests is all there is: a pod that is not in it has no labels. */
	return policy_sync_ready(&l->policies) &&
	       policy_apply_in_force(&l->policies.apply, ep_id, !l->config->manifests);
}

/* ---- the pods of this node ---- */

struct pods {
	struct wag_endpoint *eps;
	struct policy_endpoint *list;
	struct wag_addr (*addrs)[2];
	size_t n, cap;
};

static int pods_grow(struct pods *p)
{
	size_t cap = p->cap ? p->cap * 2 : 64;
	void *eps = reallocarray(p->eps, cap, sizeof(*p->eps));
	void *list, *addrs;

	if (!eps)
		return -ENOMEM;
	p->eps = eps;
	list = reallocarray(p->list, cap, sizeof(*p->list));
	if (!list)
		return -ENOMEM;
	p->list = list;
	addrs = reallocarray(p->addrs, cap, sizeof(*p->addrs));
	if (!addrs)
		return -ENOMEM;
	p->addrs = addrs;
	p->cap = cap;
	return 0;
}

static bool addr_given(const struct wag_addr *a)
{
	return a->d[0] || a->d[1];
}

/* The arrays grow while they are filled: pointers are set at the end. */
static void pods_point(struct pods *p)
{
	for (size_t i = 0; i < p->n; i++) {
		struct wag_endpoint *ep = &p->eps[i];
		struct policy_endpoint *to = &p->list[i];

		ep->ns[sizeof(ep->ns) - 1] = 0;
		ep->pod[sizeof(ep->pod) - 1] = 0;
		to->ns = ep->ns;
		to->pod = ep->pod;
		to->addrs = p->addrs[i];
		to->n_addrs = 0;
		if (addr_given(&ep->v4))
			p->addrs[i][to->n_addrs++] = ep->v4;
		if (addr_given(&ep->v6))
			p->addrs[i][to->n_addrs++] = ep->v6;
	}
}

static int read_pods(struct loop *l, struct pods *p)
{
	int fd = dataplane_map_fd(l->dp, "wag_endpoint"), r;
	uint32_t id, next;

	r = bpfsys_map_next_key(fd, NULL, &next);
	while (r == 0) {
		id = next;
		r = bpfsys_map_next_key(fd, &id, &next);
		if (p->n == p->cap && pods_grow(p) < 0)
			return -ENOMEM;
		p->list[p->n].ep_id = id;
		if (bpfsys_map_lookup(fd, &id, &p->eps[p->n]) == 0)
			p->n++;
	}
	pods_point(p);
	return 0;
}

static int take_pods(struct loop *l)
{
	struct pods p = { 0 };
	int r = read_pods(l, &p);

	if (r == 0)
		r = policy_apply_endpoints(&l->policies.apply, p.list, p.n);
	free(p.eps);
	free(p.list);
	free(p.addrs);
	return r;
}

/* ---- a turn ---- */

static void on_refused(const char *ns, const char *name, const char *why, bool old, void *ctx)
{
	struct loop *l = ctx;
	enum model_kind kind = ns[0] ? MODEL_POLICY : MODEL_CLUSTER_POLICY;
	const struct object *obj = model_get(l->model, kind, ns, name);
	const struct kube_ref about = { kind, ns, name, obj ? obj->policy->uid : NULL };
	const char *remedy = obj && obj->policy->unreadable ? "mend it" :
							      "make it smaller, or others";
	const char *still = old ? "; its last version is" : "";

	log_error("%s %s%s%s is not in force: %s: %s%s", kube_kind_name(kind), ns,
		  ns[0] ? "/" : "", name, why, remedy, still);
	kube_warn(source_cluster(l->source), &about, "PolicyRefused",
		  "not in force on node %s: %s: %s%s", l->config->node_name, why, remedy, still);
}

/* 0: everything that is to be known is; else when to look again. */
static int wait_for_pods(struct loop *l)
{
	if (!model_synced(l->model, MODEL_POD) || !model_synced(l->model, MODEL_NODE))
		return PODS_RETRY_MS;
	if (!policy_compiler_wants_pods(l->policies.apply.compiler))
		return 0;
	source_want_all_pods(l->source);
	return source_has_all_pods(l->source) ? 0 : PODS_RETRY_MS;
}

static int enforce(struct loop *l)
{
	struct policy_apply *a = &l->policies.apply;
	uint64_t flips = a->flips;
	int r = take_pods(l);

	l->policies.waits = false;
	if (r == 0)
		r = wait_for_pods(l);
	if (r > 0) {
		l->policies.waits = true;
		return r;
	}
	if (r == 0)
		r = policy_apply_run(a, on_refused, l);
	if (r < 0) {
		log_error("policies: %s: %s: the last ones stay in force; trying again in 1 s",
			  a->err_map ? a->err_map : "pods", strerror(-r));
		return RETRY_MS;
	}
	if (a->flips != flips || l->endpoints_changed || model_count(l->model, MODEL_POLICY) ||
	    model_count(l->model, MODEL_CLUSTER_POLICY))
		endpoint_watch_release(l->endpoints);
	if (a->flips != flips)
		loop_start_timer(l->trim_timer, TRIM_DELAY_MS);
	l->endpoints_changed = false;
	return -1;
}

void loop_policy_start(struct loop *l)
{
	model_on_change(l->model, on_change, l);
	l->endpoints_changed = true;
}

int loop_policy_run(struct loop *l)
{
	int r = policy_sync_run(&l->policies, l->model);

	if (r < 0) {
		log_error("map wag_policy_ns: %s: trying again in 1 s", strerror(-r));
		return RETRY_MS;
	}
	return policy_sync_ready(&l->policies) ? enforce(l) : -1;
}
