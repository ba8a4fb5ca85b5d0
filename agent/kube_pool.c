// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <event2/event.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "ipam_pick.h"
#include "kube_lease.h"
#include "kube_pool.h"
#include "kube_write.h"

#define RELIST_MS 300000
#define FULL_SHARE 5 /* of the time between listings: how often a full pool is asked again */

struct kube_pool {
	struct kube_cluster *cluster;
	struct kube_pool_options o;
	char *ns;
	struct event *timer;
	struct kube_write *req;
	struct node_range_list mine;   /* what others are told */
	struct node_range_list wanted; /* of mine: its Lease is not there */
	struct kube_lease held[NODE_RANGES_MAX];
	bool verified[NODE_RANGES_MAX];
	size_t n_held;
	struct kube_lease busy; /* what the request at hand is about */
	bool listed, paused;
	char uid[64]; /* of the Node, when its Leases were listed */
	size_t need[2];
	unsigned attempt[2];
	struct ipam_taken taken; /* learnt after conflicts */
	char *page;
	struct kube_trouble trouble;
	struct kube_pool_stats stats;
};

static void step(struct kube_pool *p);
static void verify(struct kube_pool *p);

static void pause_for(struct kube_pool *p, unsigned ms)
{
	p->paused = true;
	kube_arm(p->timer, ms);
}

/* Whatever the server did with the last request is seen by listing anew. */
static void fail(struct kube_pool *p, unsigned least_ms, const char *text)
{
	unsigned ms = kube_backoff_ms(p->cluster, &p->trouble.backoff_ms);

	p->stats.errors++;
	p->listed = false;
	if (kube_trouble_note(&p->trouble, text, KUBE_TELL_AGAIN_MS))
		kube_report(p->cluster, WAG_LOG_WARN, "address blocks: %s; trying again", text);
	pause_for(p, least_ms > ms ? least_ms + kube_random_below(ms) : ms);
}

static void recovered(struct kube_pool *p)
{
	if (kube_trouble_over(&p->trouble))
		kube_report(p->cluster, WAG_LOG_INFO, "address blocks: fine again");
	p->trouble.backoff_ms = 0;
}

static const struct node *own_node(const struct kube_pool *p)
{
	const struct object *obj =
		model_get(p->cluster->model, MODEL_NODE, "", p->cluster->node_name);

	return obj && obj->node.uid ? &obj->node : NULL;
}

static int family_of(const struct ipam_range *block)
{
	return !wag_addr_is_v4(&block->subnet);
}

static size_t count_of(const struct node_range_list *list, int family)
{
	size_t n = 0;

	for (size_t i = 0; i < list->n; i++)
		n += family_of(&list->at[i]) == family;
	return n;
}

static void list_drop(struct node_range_list *list, const struct ipam_range *block)
{
	for (size_t i = 0; i < list->n; i++) {
		if (list->at[i].bits == block->bits &&
		    wag_addr_equal(&list->at[i].subnet, &block->subnet)) {
			node_range_remove(list, i);
			return;
		}
	}
}

static void held_drop(struct kube_pool *p, size_t i)
{
	p->n_held--;
	memmove(&p->held[i], &p->held[i + 1], (p->n_held - i) * sizeof(p->held[0]));
	memmove(&p->verified[i], &p->verified[i + 1], (p->n_held - i) * sizeof(p->verified[0]));
}

static void changed(struct kube_pool *p)
{
	if (p->o.changed)
		p->o.changed(p->o.ctx);
}

static void lose(struct kube_pool *p, const struct ipam_range *block, const char *why)
{
	char text[IPAM_RANGE_KEY];

	kube_report(p->cluster, WAG_LOG_ERROR,
	       "address block %s is not this node's any more: %s; no new pod gets an address of "
	       "it, and pods that have one should be deleted",
	       node_range_text(block, text), why);
	list_drop(&p->wanted, block);
	list_drop(&p->mine, block);
	changed(p);
}

static int send_about(struct kube_pool *p, const char *method, const struct kube_lease *lease,
		      json_t *body, kube_answer_fn fn)
{
	bool is_new = strcmp(method, "POST") == 0;
	_cleanup_free_ char *path = NULL;
	int r = body ? 0 : -ENOMEM;

	p->busy = *lease;
	if (r == 0)
		r = kube_lease_path(&path, p->ns, is_new ? NULL : lease->name);
	if (r == 0)
		r = kube_write_send(p->cluster, method, path, KUBE_JSON, body, fn, p, &p->req);
	json_decref(body);
	if (r < 0)
		fail(p, 0, strerror(-r));
	return r;
}

static void send_list(struct kube_pool *p, const char *selector, kube_answer_fn fn)
{
	_cleanup_free_ char *path = NULL;
	int r = kube_lease_list_path(&path, p->ns, selector, p->page);

	if (r == 0)
		r = kube_write_send(p->cluster, "GET", path, NULL, NULL, fn, p, &p->req);
	if (r < 0)
		fail(p, 0, strerror(-r));
}

/* True when another page has to be asked for; p->page is its token. */
static bool next_page(struct kube_pool *p, const json_t *list)
{
	const char *token =
		json_string_value(json_object_get(json_object_get(list, "metadata"), "continue"));

	free(p->page);
	p->page = token && token[0] ? strdup(token) : NULL;
	return p->page;
}

static bool bad_list(struct kube_pool *p, const struct kube_answer *answer)
{
	if (kube_answer_ok(answer) && json_is_array(json_object_get(answer->body, "items")))
		return false;
	free(p->page);
	p->page = NULL;
	fail(p, answer->retry_after_s * 1000,
	     answer->error[0] ? answer->error : "the answer is no list of Leases");
	return true;
}

/* ---- what the node has ---- */

static void on_own(void *ctx, const struct kube_answer *answer)
{
	const struct node *node;
	struct kube_pool *p = ctx;
	const json_t *item;
	size_t i;

	if (bad_list(p, answer))
		return;
	p->n_held = 0;
	json_array_foreach(json_object_get(answer->body, "items"), i, item) {
		struct kube_lease lease;

		if (kube_lease_read(item, &lease) < 0 || p->n_held == NODE_RANGES_MAX ||
		    strcmp(lease.holder, p->cluster->node_name) != 0)
			continue;
		p->verified[p->n_held] = node_range_has(&p->mine, &lease.block);
		p->held[p->n_held++] = lease;
		list_drop(&p->wanted, &lease.block);
	}
	for (i = 0; i < p->mine.n; i++) {
		bool found = false;

		for (size_t k = 0; k < p->n_held && !found; k++)
			found = p->held[k].block.bits == p->mine.at[i].bits &&
				wag_addr_equal(&p->held[k].block.subnet, &p->mine.at[i].subnet);
		if (!found)
			node_range_add(&p->wanted, &p->mine.at[i]);
	}
	node = own_node(p);
	snprintf(p->uid, sizeof(p->uid), "%s", node ? node->uid : "");
	p->listed = true;
	step(p);
}

static void list_own(struct kube_pool *p)
{
	char label[64], selector[128];

	free(p->page);
	p->page = NULL;
	kube_lease_node(p->cluster->node_name, label);
	snprintf(selector, sizeof(selector), KUBE_LEASE_IPAM "," KUBE_LEASE_NODE "=%s", label);
	send_list(p, selector, on_own);
}

/* The Node is another of the same name: its blocks would go with the one that is gone. */
static void on_put(void *ctx, const struct kube_answer *answer)
{
	struct kube_pool *p = ctx;
	struct kube_lease lease;

	if (answer->status == 409 || answer->status == 404) {
		p->listed = false;
		step(p);
		return;
	}
	if (!kube_answer_ok(answer) || kube_lease_read(answer->body, &lease) < 0) {
		fail(p, answer->retry_after_s * 1000,
		     answer->error[0] ? answer->error : "the answer is no Lease");
		return;
	}
	for (size_t i = 0; i < p->n_held; i++)
		if (strcmp(p->held[i].name, lease.name) == 0)
			p->held[i] = lease;
	step(p);
}

/* ---- claiming ---- */

static void got(struct kube_pool *p, const struct kube_lease *lease)
{
	list_drop(&p->wanted, &lease->block);
	p->attempt[family_of(&lease->block)] = 0;
	p->taken.known = false;
	p->verified[p->n_held] = false;
	p->held[p->n_held++] = *lease;
	step(p);
}

/* Whose is it? Ours, when a request of ours was carried out and its answer lost. */
static void on_holder(void *ctx, const struct kube_answer *answer)
{
	struct kube_pool *p = ctx;
	const struct ipam_range block = p->busy.block;
	struct kube_lease lease;

	if (!kube_answer_ok(answer) && answer->status != 404) {
		fail(p, answer->retry_after_s * 1000, answer->error);
		return;
	}
	if (kube_answer_ok(answer) && kube_lease_read(answer->body, &lease) == 0 &&
	    strcmp(lease.holder, p->cluster->node_name) == 0) {
		got(p, &lease);
		return;
	}
	if (kube_answer_ok(answer)) {
		p->stats.conflicts++;
		p->attempt[family_of(&block)]++;
		ipam_taken_add(&p->taken, &block);
		if (node_range_has(&p->wanted, &block))
			lose(p, &block, "another node has claimed it");
	}
	step(p);
}

static void ask_holder(struct kube_pool *p)
{
	_cleanup_free_ char *path = NULL;
	int r = kube_lease_path(&path, p->ns, p->busy.name);

	if (r == 0)
		r = kube_write_send(p->cluster, "GET", path, NULL, NULL, on_holder, p, &p->req);
	if (r < 0)
		fail(p, 0, strerror(-r));
}

static void on_post(void *ctx, const struct kube_answer *answer)
{
	struct kube_pool *p = ctx;
	struct kube_lease lease;

	if (answer->status == 409)
		ask_holder(p);
	else if (!kube_answer_ok(answer))
		fail(p, answer->retry_after_s * 1000, answer->error);
	else if (kube_lease_read(answer->body, &lease) < 0)
		fail(p, 0, "the answer is no Lease");
	else
		got(p, &lease);
}

static void claim(struct kube_pool *p, const struct ipam_range *block)
{
	const struct node *node = own_node(p);
	struct kube_lease lease = { .block = *block };

	kube_lease_name(block, lease.name);
	send_about(p, "POST", &lease,
		   kube_lease_make(block, p->cluster->node_name, node->uid, NULL), on_post);
}

static void on_taken(void *ctx, const struct kube_answer *answer)
{
	struct kube_pool *p = ctx;
	const json_t *item;
	size_t i;

	if (bad_list(p, answer))
		return;
	json_array_foreach(json_object_get(answer->body, "items"), i, item) {
		struct kube_lease lease;

		if (kube_lease_read(item, &lease) == 0)
			ipam_taken_add(&p->taken, &lease.block);
	}
	if (next_page(p, answer->body)) {
		send_list(p, KUBE_LEASE_IPAM, on_taken);
		return;
	}
	p->taken.known = true;
	step(p);
}

static void claim_next(struct kube_pool *p, int family)
{
	const struct ipam_pool *pool = &p->o.pools[family];
	const struct ipam_pick pick = { pool, p->cluster->model, p->cluster->node_name, &p->mine,
					&p->taken };
	struct ipam_range block;
	char text[256];
	int r;

	r = ipam_pick(&pick, &p->attempt[family], &block);
	if (r == 0) {
		claim(p, &block);
		return;
	}
	if (r == -EAGAIN) {
		p->taken.n = 0;
		send_list(p, KUBE_LEASE_IPAM, on_taken);
		return;
	}
	p->taken.known = false;
	snprintf(text, sizeof(text),
		 "no block of /%u is free in --cluster-pool-ipv%c-cidr (%zu are taken): give it "
		 "another range, or remove Nodes that are no more",
		 pool->mask, family ? '6' : '4', p->taken.n);
	fail(p, p->o.relist_ms / FULL_SHARE, text);
}

/* ---- nobody has a part of it ---- */

static void on_undone(void *ctx, const struct kube_answer *answer)
{
	struct kube_pool *p = ctx;

	if (!kube_answer_ok(answer) && answer->status != 404 && answer->status != 409)
		fail(p, answer->retry_after_s * 1000, answer->error);
	else
		step(p);
}

static void give_back(struct kube_pool *p, size_t i, const struct kube_lease *other)
{
	char a[IPAM_RANGE_KEY], b[IPAM_RANGE_KEY];
	const struct kube_lease lease = p->held[i];

	kube_report(p->cluster, WAG_LOG_WARN,
		    "address block %s overlaps %s of node %s: giving it back",
	       node_range_text(&lease.block, a), node_range_text(&other->block, b), other->holder);
	ipam_taken_add(&p->taken, &other->block);
	held_drop(p, i);
	send_about(p, "DELETE", &lease, kube_lease_delete_options(&lease), on_undone);
	if (node_range_has(&p->mine, &lease.block))
		lose(p, &lease.block, "it overlaps another node's");
}

static void on_others(void *ctx, const struct kube_answer *answer)
{
	const json_t *items = json_object_get(answer->body, "items"), *item;
	struct kube_pool *p = ctx;
	char text[IPAM_RANGE_KEY];
	size_t k;

	if (bad_list(p, answer))
		return;
	json_array_foreach(items, k, item) {
		struct kube_lease other;

		if (kube_lease_read(item, &other) < 0)
			continue;
		for (size_t i = 0; i < p->n_held; i++) {
			if (!p->verified[i] &&
			    ipam_ranges_overlap(&p->held[i].block, &other.block)) {
				give_back(p, i, &other);
				return;
			}
		}
	}
	if (next_page(p, answer->body)) {
		verify(p);
		return;
	}
	for (size_t i = 0; i < p->n_held; i++) {
		if (p->verified[i])
			continue;
		p->verified[i] = true;
		p->stats.claimed++;
		kube_report(p->cluster, WAG_LOG_INFO, "address block %s is this node's",
		       node_range_text(&p->held[i].block, text));
		node_range_add(&p->mine, &p->held[i].block);
	}
	p->taken.n = 0;
	changed(p);
	step(p);
}

static void verify(struct kube_pool *p)
{
	char selector[128], v4[16], v6[16];

	kube_lease_size(false, p->o.pools[0].mask, v4);
	kube_lease_size(true, p->o.pools[1].mask, v6);
	snprintf(selector, sizeof(selector), KUBE_LEASE_IPAM "," KUBE_LEASE_IPAM " notin (%s,%s)",
		 v4, v6);
	send_list(p, selector, on_others);
}

/* ---- what is next ---- */

static const struct kube_lease *of_another_node(const struct kube_pool *p)
{
	for (size_t i = 0; i < p->n_held; i++)
		if (strcmp(p->held[i].owner_uid, p->uid) != 0)
			return &p->held[i];
	return NULL;
}

static bool all_verified(const struct kube_pool *p)
{
	for (size_t i = 0; i < p->n_held; i++)
		if (!p->verified[i])
			return false;
	return true;
}

static void reclaim(struct kube_pool *p)
{
	const struct ipam_range block = p->wanted.at[0];

	if (ipam_pool_has(&p->o.pools[family_of(&block)], &block)) {
		claim(p, &block);
		return;
	}
	lose(p, &block, "its Lease is gone, and it is not in --cluster-pool-ipv4-cidr or "
			"--cluster-pool-ipv6-cidr");
	step(p);
}

static void step(struct kube_pool *p)
{
	const struct node *node = own_node(p);
	const struct kube_lease *lease;

	/* Without a Node there is nobody to own a block; the model says when it comes. */
	if (p->req || p->paused || !node || !model_synced(p->cluster->model, MODEL_NODE) ||
	    !model_synced(p->cluster->model, MODEL_SERVICE))
		return;
	if (!p->listed || strcmp(p->uid, node->uid) != 0) {
		list_own(p);
		return;
	}
	lease = of_another_node(p);
	if (lease) {
		send_about(p, "PUT", lease,
			   kube_lease_make(&lease->block, p->cluster->node_name, node->uid, lease),
			   on_put);
		return;
	}
	if (p->wanted.n && p->n_held < NODE_RANGES_MAX) {
		reclaim(p);
		return;
	}
	if (!all_verified(p)) {
		verify(p);
		return;
	}
	for (int f = 0; f < 2; f++) {
		if (p->o.pools[f].total && count_of(&p->mine, f) < p->need[f] &&
		    p->n_held < NODE_RANGES_MAX) {
			claim_next(p, f);
			return;
		}
	}
	recovered(p);
	if (!event_pending(p->timer, EV_TIMEOUT, NULL))
		kube_arm(p->timer, p->o.relist_ms + kube_random_below(p->o.relist_ms / 4 + 1));
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
	struct kube_pool *p = ctx;

	p->paused = false;
	p->listed = false;
	step(p);
}

void kube_pool_poke(struct kube_pool *p)
{
	step(p);
}

void kube_pool_need(struct kube_pool *p, int family, size_t n)
{
	p->need[family] = n;
	step(p);
}

const struct node_range_list *kube_pool_blocks(const struct kube_pool *p)
{
	return &p->mine;
}

void kube_pool_stats(const struct kube_pool *p, struct kube_pool_stats *ret)
{
	*ret = p->stats;
	snprintf(ret->error, sizeof(ret->error), "%s", p->trouble.text);
}

int kube_pool_new(struct kube_pool **ret, struct kube_cluster *cluster,
		  const struct kube_pool_options *options)
{
	struct kube_pool *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->cluster = cluster;
	p->o = *options;
	if (!p->o.relist_ms)
		p->o.relist_ms = RELIST_MS;
	p->mine = options->trusted;
	p->need[0] = p->need[1] = 1;
	p->ns = strdup(options->ns);
	p->timer = evtimer_new(cluster->base, on_timer, p);
	if (!p->ns || !p->timer) {
		kube_pool_free(p);
		return -ENOMEM;
	}
	*ret = p;
	return 0;
}

void kube_pool_free(struct kube_pool *p)
{
	if (!p)
		return;
	kube_write_cancel(p->req);
	if (p->timer)
		event_free(p->timer);
	free(p->taken.at);
	free(p->page);
	free(p->ns);
	free(p);
}
