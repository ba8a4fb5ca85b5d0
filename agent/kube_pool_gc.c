// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <event2/event.h>
#include <string.h>
#include <uthash.h>
#include <waggle/cleanup.h>
#include <waggle/node_ranges.h>

#include "kube_lease.h"
#include "kube_node.h"
#include "kube_pool_gc.h"
#include "kube_write.h"

#define DELAY_MS 5000
#define SWEEP_MS 3600000
#define FIRST_SWEEP 20
#define SPREAD_MS_PER_NODE 50 /* so that not every node asks at once */
#define SPREAD_MAX_MS 60000

/* A Node of the model, or one that is gone and has not been looked after. */
struct known {
	UT_hash_handle hh;
	bool seen, gone;
	uint64_t due_ms; /* of a gone one */
	char name[];
};

struct kube_pool_gc {
	struct kube_cluster *cluster;
	struct kube_pool_gc_options o;
	char *ns, *page;
	struct event *timer;
	struct kube_write *req;
	struct known *nodes;
	uint64_t changes; /* of the model's Nodes, as of the last look */
	uint64_t sweep_due_ms;
	bool started;
	unsigned backoff_ms;
	char name[254]; /* whose Leases are being freed */
	struct kube_lease leases[NODE_RANGES_MAX];
	size_t n_leases;
};

static void step(struct kube_pool_gc *gc);

static bool is_there(const struct kube_pool_gc *gc, const char *name)
{
	return model_get(gc->cluster->model, MODEL_NODE, "", name);
}

static struct known *known_get(struct kube_pool_gc *gc, const char *name)
{
	size_t len = strlen(name);
	struct known *k;

	HASH_FIND_STR(gc->nodes, name, k);
	if (k)
		return k;
	k = calloc(1, sizeof(*k) + len + 1);
	if (!k)
		return NULL;
	memcpy(k->name, name, len + 1);
	HASH_ADD_KEYPTR(hh, gc->nodes, k->name, len, k);
	return k;
}

static void known_drop(struct kube_pool_gc *gc, struct known *k)
{
	HASH_DEL(gc->nodes, k);
	free(k);
}

static int see_node(const struct object *obj, void *ctx)
{
	struct known *k = known_get(ctx, obj->name);

	if (k) {
		k->seen = true;
		k->gone = false;
	}
	return 0;
}

static uint64_t spread_ms(const struct kube_pool_gc *gc)
{
	uint64_t spread = SPREAD_MS_PER_NODE * model_count(gc->cluster->model, MODEL_NODE);

	return kube_random_below(spread < SPREAD_MAX_MS ? spread : SPREAD_MAX_MS);
}

/* ---- one node ---- */

static void try_later(struct kube_pool_gc *gc)
{
	struct known *k = gc->name[0] ? known_get(gc, gc->name) : NULL;
	unsigned ms = kube_backoff_ms(gc->cluster, &gc->backoff_ms);

	gc->name[0] = 0;
	gc->n_leases = 0;
	if (k) {
		k->gone = true;
		k->due_ms = kube_now_ms() + ms;
	} else {
		gc->sweep_due_ms = kube_now_ms() + ms;
	}
	step(gc);
}

static void node_done(struct kube_pool_gc *gc)
{
	gc->name[0] = 0;
	gc->n_leases = 0;
	gc->backoff_ms = 0;
	step(gc);
}

static void delete_next(struct kube_pool_gc *gc);

static void on_deleted(void *ctx, const struct kube_answer *answer)
{
	struct kube_pool_gc *gc = ctx;
	const struct source_reporter *reporter = &gc->cluster->options.reporter;
	char msg[512], text[IPAM_RANGE_KEY];

	if (kube_answer_ok(answer)) {
		snprintf(msg, sizeof(msg), "address block %s of node %s is free: the Node is gone",
			 node_range_text(&gc->leases[gc->n_leases].block, text), gc->name);
		if (reporter->fn)
			reporter->fn(reporter->ctx, WAG_LOG_INFO, msg);
	} else if (answer->status != 404 && answer->status != 409) {
		try_later(gc);
		return;
	}
	delete_next(gc);
}

static void delete_next(struct kube_pool_gc *gc)
{
	_cleanup_free_ char *path = NULL;
	json_t *options;
	int r;

	if (!gc->n_leases || is_there(gc, gc->name)) {
		node_done(gc);
		return;
	}
	gc->n_leases--;
	options = kube_lease_delete_options(&gc->leases[gc->n_leases]);
	r = kube_lease_path(&path, gc->ns, gc->leases[gc->n_leases].name);
	if (r == 0)
		r = kube_write_send(gc->cluster, "DELETE", path, KUBE_JSON, options, on_deleted, gc,
				    &gc->req);
	json_decref(options);
	if (r < 0)
		try_later(gc);
}

/* The model may be behind; the API server is not. */
static void on_node(void *ctx, const struct kube_answer *answer)
{
	struct kube_pool_gc *gc = ctx;

	if (answer->status == 404)
		delete_next(gc);
	else if (kube_answer_ok(answer))
		node_done(gc);
	else
		try_later(gc);
}

static void on_leases(void *ctx, const struct kube_answer *answer)
{
	struct kube_pool_gc *gc = ctx;
	const json_t *item;
	size_t i;

	if (!kube_answer_ok(answer)) {
		try_later(gc);
		return;
	}
	json_array_foreach(json_object_get(answer->body, "items"), i, item) {
		struct kube_lease lease;

		if (gc->n_leases < NODE_RANGES_MAX && kube_lease_read(item, &lease) == 0 &&
		    strcmp(lease.holder, gc->name) == 0)
			gc->leases[gc->n_leases++] = lease;
	}
	if (!gc->n_leases)
		node_done(gc);
	else if (kube_node_get(gc->cluster, gc->name, on_node, gc, &gc->req) < 0)
		try_later(gc);
}

static void list_of(struct kube_pool_gc *gc, const char *selector, kube_answer_fn fn)
{
	_cleanup_free_ char *path = NULL;
	int r = kube_lease_list_path(&path, gc->ns, selector, gc->page);

	if (r == 0)
		r = kube_write_send(gc->cluster, "GET", path, NULL, NULL, fn, gc, &gc->req);
	if (r < 0)
		try_later(gc);
}

static void look_after(struct kube_pool_gc *gc, struct known *k)
{
	char label[64], selector[128];

	snprintf(gc->name, sizeof(gc->name), "%s", k->name);
	known_drop(gc, k);
	gc->n_leases = 0;
	kube_lease_node(gc->name, label);
	snprintf(selector, sizeof(selector), KUBE_LEASE_IPAM "," KUBE_LEASE_NODE "=%s", label);
	list_of(gc, selector, on_leases);
}

/* ---- all of them ---- */

static void on_all(void *ctx, const struct kube_answer *answer)
{
	struct kube_pool_gc *gc = ctx;
	const char *token = json_string_value(
		json_object_get(json_object_get(answer->body, "metadata"), "continue"));
	const json_t *item;
	size_t i;

	free(gc->page);
	gc->page = NULL;
	if (!kube_answer_ok(answer)) {
		try_later(gc);
		return;
	}
	json_array_foreach(json_object_get(answer->body, "items"), i, item) {
		struct kube_lease lease;
		struct known *k;

		if (kube_lease_read(item, &lease) < 0 || is_there(gc, lease.holder) ||
		    strcmp(lease.holder, gc->cluster->node_name) == 0)
			continue;
		k = known_get(gc, lease.holder);
		if (k && !k->gone) {
			k->gone = true;
			k->due_ms = kube_now_ms();
		}
	}
	if (token && token[0] && (gc->page = strdup(token))) {
		list_of(gc, KUBE_LEASE_IPAM, on_all);
		return;
	}
	gc->sweep_due_ms = kube_now_ms() + gc->o.sweep_ms / 2 + kube_random_below(gc->o.sweep_ms);
	step(gc);
}

/* ---- what is next ---- */

/* The one that is due first; those that came back are forgotten on the way. */
static struct known *first_due(struct kube_pool_gc *gc)
{
	struct known *k, *tmp, *first = NULL;

	HASH_ITER (hh, gc->nodes, k, tmp) {
		if (k->gone && (!first || k->due_ms < first->due_ms))
			first = k;
	}
	return first;
}

static void step(struct kube_pool_gc *gc)
{
	uint64_t now = kube_now_ms(), due = gc->sweep_due_ms;
	struct known *k;

	if (gc->req || !gc->started)
		return;
	k = first_due(gc);
	if (k && k->due_ms <= now) {
		look_after(gc, k);
		return;
	}
	if (due <= now) {
		list_of(gc, KUBE_LEASE_IPAM, on_all);
		return;
	}
	if (k && k->due_ms < due)
		due = k->due_ms;
	kube_arm(gc->timer, due - now);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
	step(ctx);
}

void kube_pool_gc_poke(struct kube_pool_gc *gc)
{
	const struct model *model = gc->cluster->model;
	struct known *k, *tmp;

	if (!model_synced(model, MODEL_NODE) || model_changes(model, MODEL_NODE) == gc->changes)
		return;
	gc->changes = model_changes(model, MODEL_NODE);
	HASH_ITER (hh, gc->nodes, k, tmp)
		k->seen = false;
	model_visit(model, MODEL_NODE, see_node, gc);
	HASH_ITER (hh, gc->nodes, k, tmp) {
		if (k->seen || k->gone)
			continue;
		k->gone = true;
		k->due_ms = kube_now_ms() + gc->o.delay_ms + spread_ms(gc);
		/* Our own blocks are our own business. */
		if (strcmp(k->name, gc->cluster->node_name) == 0)
			known_drop(gc, k);
	}
	if (!gc->started) {
		gc->started = true;
		gc->sweep_due_ms = kube_now_ms() + gc->o.sweep_ms / FIRST_SWEEP + spread_ms(gc);
	}
	step(gc);
}

static unsigned or_default(unsigned value, unsigned fallback)
{
	return value ? value : fallback;
}

int kube_pool_gc_new(struct kube_pool_gc **ret, struct kube_cluster *cluster,
		     const struct kube_pool_gc_options *options)
{
	struct kube_pool_gc *gc = calloc(1, sizeof(*gc));

	if (!gc)
		return -ENOMEM;
	gc->cluster = cluster;
	gc->o.delay_ms = or_default(options->delay_ms, DELAY_MS);
	gc->o.sweep_ms = or_default(options->sweep_ms, SWEEP_MS);
	gc->ns = strdup(options->ns);
	gc->timer = evtimer_new(cluster->base, on_timer, gc);
	if (!gc->ns || !gc->timer) {
		kube_pool_gc_free(gc);
		return -ENOMEM;
	}
	*ret = gc;
	return 0;
}

void kube_pool_gc_free(struct kube_pool_gc *gc)
{
	struct known *k, *tmp;

	if (!gc)
		return;
	kube_write_cancel(gc->req);
	HASH_ITER (hh, gc->nodes, k, tmp)
		known_drop(gc, k);
	if (gc->timer)
		event_free(gc->timer);
	free(gc->page);
	free(gc->ns);
	free(gc);
}
