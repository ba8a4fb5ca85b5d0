// SPDX-License-Identifier: Apache-2.0
#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include <waggle/node_ranges.h>

#include "ipam_node.h"
#include "kube_node.h"
#include "kube_pool.h"
#include "kube_pool_gc.h"
#include "kube_recorder.h"

#define SETTLE_MS 500
#define AGAIN_MS 10000 /* what time alone changes: quarantine, draining; and what has failed */
#define SAME_TEXT_MS 60000
#define SAME_PATCH_MS 60000 /* the watch may be slow to show what was published */

static const char *const family_names[2] = { "IPv4", "IPv6" };

struct ipam_node {
	struct event_base *base;
	struct model *model;
	struct kube_cluster *cluster; /* NULL: manifests */
	struct ipam_node_options o;
	char *state_dir, *node_name;
	char boot_id[40];
	struct event *timer;
	uint64_t due_ms; /* 0: the timer is not set */
	struct node_ranges now; /* as written */
	bool write_failed, read_failed;
	struct ipam_usage usage[2];
	bool nearly_full[2];
	struct kube_pool *pool; /* cluster-pool only */
	struct kube_pool_gc *gc;
	struct kube_write *patch;
	char *sent; /* what was published last, and of which Node */
	uint64_t sent_ms;
	unsigned patch_backoff_ms;
	uint64_t patch_after_ms, told_patch_ms;
	bool told_no_range;
	char told_bad[IPAM_RANGE_KEY];
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

static void report(const struct ipam_node *n, enum wag_log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void report(const struct ipam_node *n, enum wag_log_level level, const char *fmt, ...)
{
	char msg[1024];
	va_list ap;

	if (!n->o.reporter.fn)
		return;
	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	n->o.reporter.fn(n->o.reporter.ctx, level, msg);
}

/* The timer fires at the earliest of what it was asked for. */
static void arm(struct ipam_node *n, unsigned ms)
{
	const struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
	uint64_t due = now_ms() + ms;

	if (n->due_ms && n->due_ms <= due)
		return;
	n->due_ms = due;
	event_add(n->timer, &tv);
}

static const struct node *own_node(const struct ipam_node *n)
{
	const struct object *obj = model_get(n->model, MODEL_NODE, "", n->node_name);

	return obj ? &obj->node : NULL;
}

/* ---- which ranges ---- */

static void no_range(struct ipam_node *n)
{
	if (n->told_no_range || !n->cluster)
		return;
	n->told_no_range = true;
	report(n, WAG_LOG_WARN,
	       "Node %s has no spec.podCIDRs%s: start kube-controller-manager with "
	       "--allocate-node-cidrs, or this agent with --ipam cluster-pool, or name ranges in "
	       "the CNI configuration",
	       n->node_name,
	       n->o.without[1] ? " for IPv4" : n->o.without[0] ? " for IPv6" : "");
}

static void bad_range(struct ipam_node *n, const char *cidr, int r)
{
	if (strncmp(n->told_bad, cidr, sizeof(n->told_bad) - 1) == 0)
		return;
	snprintf(n->told_bad, sizeof(n->told_bad), "%s", cidr);
	report(n, WAG_LOG_ERROR, "Node %s: pod range %s is not used: %s", n->node_name, cidr,
	       r == -E2BIG ? "there are too many" :
			     "it has host bits set, or a prefix length out of 8..30 (IPv6: "
			     "8..126)");
}

/* False: nobody has said yet, so what is written stays. */
static bool ranges_of_node(struct ipam_node *n, struct node_ranges *ret)
{
	const struct node *node = own_node(n);

	if (!node || (n->cluster && !model_synced(n->model, MODEL_NODE)))
		return false;
	/* Blocks of an earlier --ipam cluster-pool: first they are taken back from the Node. */
	if (n->cluster && node->published)
		return false;
	for (size_t i = 0; i < node->n_pod_cidrs; i++) {
		int r = 0;

		if (!n->o.without[strchr(node->pod_cidrs[i], ':') != NULL])
			r = node_ranges_add(ret, node->pod_cidrs[i]);
		if (r < 0)
			bad_range(n, node->pod_cidrs[i], r);
	}
	if (ret->family[0].n + ret->family[1].n > 0)
		return true;
	no_range(n);
	return false;
}

static bool ranges_of_pool(const struct ipam_node *n, struct node_ranges *ret)
{
	const struct node_range_list *blocks = kube_pool_blocks(n->pool);

	for (size_t i = 0; i < blocks->n; i++)
		node_range_add(&ret->family[!wag_addr_is_v4(&blocks->at[i].subnet)],
			       &blocks->at[i]);
	/* Before the first block is claimed, what an earlier mode left stays. */
	return blocks->n || strcmp(n->now.mode, ret->mode) == 0;
}

static uint64_t used_of(const struct ipam_node *n, const struct ipam_range *range)
{
	struct ipam_usage usage = { 0 };

	/* What cannot be read is not known to be free. */
	if (ipam_usage(n->state_dir, range, n->boot_id, ipam_now_ms(), &usage) < 0)
		return 1;
	return usage.used;
}

static void say_draining(const struct ipam_node *n, const struct ipam_range *range, uint64_t used)
{
	char text[IPAM_RANGE_KEY];

	report(n, WAG_LOG_WARN,
	       "pod range %s is not this node's any more; it is kept until the %llu pods with "
	       "addresses of it are gone, and no new pod gets one",
	       node_range_text(range, text), (unsigned long long)used);
}

static void drain(const struct ipam_node *n, const struct node_range_list *old,
		  struct node_ranges *want)
{
	char text[IPAM_RANGE_KEY];

	for (size_t i = 0; i < old->n; i++) {
		const struct ipam_range *range = &old->at[i];
		bool before = node_range_has(&n->now.draining, range);
		uint64_t used;

		if (node_range_has(&want->family[!wag_addr_is_v4(&range->subnet)], range))
			continue;
		used = used_of(n, range);
		if (used) {
			node_range_add(&want->draining, range);
			if (!before)
				say_draining(n, range, used);
		} else if (before) {
			report(n, WAG_LOG_INFO, "pod range %s: its last pod is gone",
			       node_range_text(range, text));
		}
	}
}

static void describe(const struct node_ranges *ranges, char *buf, size_t size)
{
	char text[IPAM_RANGE_KEY];
	size_t len = 0;

	buf[0] = 0;
	for (int f = 0; f < 2; f++)
		for (size_t i = 0; i < ranges->family[f].n && len < size; i++)
			len += (size_t)snprintf(buf + len, size - len, "%s%s", len ? "," : "",
						node_range_text(&ranges->family[f].at[i], text));
}

static void write_ranges(struct ipam_node *n)
{
	static const char *const modes[] = { "kubernetes", "cluster-pool" };
	struct node_ranges want = { 0 };
	char text[NODE_RANGES_MAX * 2 * 24];
	int r;

	snprintf(want.mode, sizeof(want.mode), "%s", modes[n->o.cluster_pool]);
	if (!(n->o.cluster_pool ? ranges_of_pool(n, &want) : ranges_of_node(n, &want))) {
		/* Only the pods of ranges that were given up before may have gone. */
		want = n->now;
		want.draining.n = 0;
	}
	for (int f = 0; f < 2; f++)
		drain(n, &n->now.family[f], &want);
	drain(n, &n->now.draining, &want);
	if (node_ranges_equal(&want, &n->now) && !n->write_failed)
		return;
	r = node_ranges_write(n->state_dir, &want);
	n->write_failed = r < 0;
	if (r < 0) {
		report(n, WAG_LOG_ERROR, "%s/ipam/node.json: %s: trying again", n->state_dir,
		       strerror(-r));
		arm(n, AGAIN_MS);
		return;
	}
	n->now = want;
	describe(&n->now, text, sizeof(text));
	report(n, WAG_LOG_INFO, "pod ranges of this node: %s", text[0] ? text : "none");
	ipam_node_count(n);
}

/* ---- what others are told ---- */

static void on_patched(void *ctx, const struct kube_answer *answer)
{
	struct ipam_node *n = ctx;

	if (kube_answer_ok(answer)) {
		n->patch_backoff_ms = 0;
		n->told_patch_ms = 0;
		return;
	}
	free(n->sent);
	n->sent = NULL;
	n->patch_after_ms = now_ms() + kube_backoff_ms(n->cluster, &n->patch_backoff_ms);
	if (!n->told_patch_ms || now_ms() - n->told_patch_ms >= SAME_TEXT_MS) {
		n->told_patch_ms = now_ms();
		report(n, WAG_LOG_WARN, "other nodes are not told of this node's pod ranges: %s",
		       answer->error);
	}
	arm(n, n->patch_backoff_ms);
}

static void publish(struct ipam_node *n)
{
	char text[NODE_RANGES_MAX * 2 * 24] = "", sent[sizeof(text) + 64];
	const struct node *node = own_node(n);
	const char *there;

	if (!n->cluster || !node || !node->uid || n->patch || now_ms() < n->patch_after_ms)
		return;
	if (n->o.cluster_pool && strcmp(n->now.mode, "cluster-pool") == 0)
		describe(&n->now, text, sizeof(text));
	else if (n->o.cluster_pool)
		return; /* no block yet */
	there = node->published ? node->published : "";
	if (strcmp(there, text) == 0) {
		free(n->sent);
		n->sent = NULL;
		return;
	}
	snprintf(sent, sizeof(sent), "%s %s", node->uid, text);
	if (n->sent && strcmp(n->sent, sent) == 0 && now_ms() - n->sent_ms < SAME_PATCH_MS)
		return;
	free(n->sent);
	n->sent = strdup(sent);
	n->sent_ms = now_ms();
	if (kube_node_publish(n->cluster, n->node_name, node->uid, text[0] ? text : NULL,
			      on_patched, n, &n->patch) < 0)
		arm(n, AGAIN_MS);
}

/* ---- how full ---- */

/* Without an API server there is no more to know. */
static bool knows_itself(const struct ipam_node *n)
{
	const struct node *node = own_node(n);

	return !n->cluster || (node && node->uid);
}

/* Once, until it is calm again. */
static void tell_nearly_full(struct ipam_node *n, int family, const char *text)
{
	const struct node *node = own_node(n);
	const struct kube_ref about = { MODEL_NODE, "", n->node_name, node ? node->uid : NULL };

	if (n->nearly_full[family] || !knows_itself(n))
		return;
	n->nearly_full[family] = true;
	report(n, WAG_LOG_WARN, "%s", text);
	kube_warn(n->cluster, &about, "IPAMNearlyFull", "%s", text);
}

static void judge(struct ipam_node *n, int family)
{
	const struct ipam_usage *u = &n->usage[family];
	uint64_t taken = u->used + u->quarantined;
	/* Divided, as a /64 has more addresses than a multiplication leaves room for. */
	uint64_t percent = u->capacity ? taken / (u->capacity / 100 + !(u->capacity / 100)) : 0;
	char text[320];

	if (u->capacity && u->capacity < 10000)
		percent = taken * 100 / u->capacity;
	if (percent < IPAM_CALM_PERCENT)
		n->nearly_full[family] = false;
	if (percent < IPAM_FULL_PERCENT)
		return;
	snprintf(text, sizeof(text),
		 "%llu %% of the %llu %s pod addresses of node %s are in use (%llu used, %llu wait "
		 "after their release)%s",
		 (unsigned long long)percent, (unsigned long long)u->capacity, family_names[family],
		 n->node_name, (unsigned long long)u->used, (unsigned long long)u->quarantined,
		 n->pool ? "; another block is claimed" :
			   "; give the node a larger range, or fewer pods");
	tell_nearly_full(n, family, text);
	if (n->pool)
		kube_pool_need(n->pool, family, n->now.family[family].n + 1);
}

static int count_family(const struct ipam_node *n, int family, struct ipam_usage *ret)
{
	struct ipam_usage sum = { 0 }, one;
	int r = 0;

	for (size_t i = 0; r == 0 && i < n->now.family[family].n; i++) {
		r = ipam_usage(n->state_dir, &n->now.family[family].at[i], n->boot_id,
			       ipam_now_ms(), &one);
		if (r < 0)
			break;
		sum.used += one.used;
		sum.quarantined += one.quarantined;
		if (__builtin_add_overflow(sum.capacity, one.capacity, &sum.capacity))
			sum.capacity = UINT64_MAX;
	}
	if (r == 0)
		*ret = sum;
	return r;
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
	struct ipam_node *n = ctx;
	int r = 0;

	n->due_ms = 0;
	for (int f = 0; f < 2 && r == 0; f++) {
		r = count_family(n, f, &n->usage[f]);
		if (r == 0)
			judge(n, f);
	}
	if (r < 0 && !n->read_failed)
		report(n, WAG_LOG_ERROR, "address store %s/ipam: %s", n->state_dir, strerror(-r));
	n->read_failed = r < 0;
	write_ranges(n);
	publish(n);
	if (r < 0 || n->usage[0].quarantined || n->usage[1].quarantined || n->now.draining.n ||
	    !knows_itself(n) || n->patch_after_ms > now_ms())
		arm(n, AGAIN_MS);
}

void ipam_node_count(struct ipam_node *n)
{
	arm(n, n->o.settle_ms);
}

void ipam_node_poke(struct ipam_node *n)
{
	if (n->pool)
		kube_pool_poke(n->pool);
	if (n->gc)
		kube_pool_gc_poke(n->gc);
	write_ranges(n);
	publish(n);
}

static void on_pool_changed(void *ctx)
{
	struct ipam_node *n = ctx;

	write_ranges(n);
	publish(n);
}

void ipam_node_stats(const struct ipam_node *n, struct ipam_node_stats *ret)
{
	struct kube_pool_stats pool = { 0 };

	*ret = (struct ipam_node_stats){ .draining = n->now.draining.n };
	for (int f = 0; f < 2; f++) {
		ret->family[f].usage = n->usage[f];
		ret->family[f].blocks = n->now.family[f].n;
	}
	if (n->pool)
		kube_pool_stats(n->pool, &pool);
	ret->claimed = pool.claimed;
	ret->conflicts = pool.conflicts;
	ret->errors = pool.errors;
}

/* ---- start ---- */

static int start_pool(struct ipam_node *n, struct wag_err *err)
{
	static const char *const flags[] = { "cluster-pool-ipv4-cidr", "cluster-pool-ipv6-cidr" };
	struct kube_pool_options o = {
		.ns = n->o.ns,
		.changed = on_pool_changed,
		.ctx = n,
		.relist_ms = n->o.relist_ms,
	};
	const struct kube_pool_gc_options gc = { .ns = n->o.ns,
						 .delay_ms = n->o.gc_delay_ms,
						 .sweep_ms = n->o.gc_sweep_ms };
	int r = 0;

	assert(n->cluster); /* config_check() saw to it */
	for (int f = 0; f < 2 && r == 0; f++)
		r = ipam_pool_parse(&o.pools[f], f, n->o.pool_cidrs[f], n->o.pool_masks[f],
				    flags[f], err);
	if (r < 0)
		return r;
	if (strcmp(n->now.mode, "cluster-pool") == 0)
		for (int f = 0; f < 2; f++)
			for (size_t i = 0; i < n->now.family[f].n; i++)
				node_range_add(&o.trusted, &n->now.family[f].at[i]);
	r = kube_pool_new(&n->pool, n->cluster, &o);
	if (r == 0)
		r = kube_pool_gc_new(&n->gc, n->cluster, &gc);
	return r < 0 ? wag_err_set(err, r, "out of memory") : 0;
}

int ipam_node_new(struct ipam_node **ret, struct event_base *base, struct model *model,
		  struct source *source, const struct ipam_node_options *options,
		  struct wag_err *err)
{
	struct ipam_node *n = calloc(1, sizeof(*n));
	struct wag_err why = { 0 };
	int r = n ? 0 : -ENOMEM;

	if (r < 0)
		return wag_err_set(err, r, "out of memory");
	n->base = base;
	n->model = model;
	n->cluster = source_cluster(source);
	n->o = *options;
	if (!n->o.settle_ms)
		n->o.settle_ms = SETTLE_MS;
	n->state_dir = strdup(options->state_dir);
	n->node_name = strdup(options->node_name);
	n->timer = evtimer_new(base, on_timer, n);
	if (!n->state_dir || !n->node_name || !n->timer)
		r = wag_err_set(err, -ENOMEM, "out of memory");
	if (r == 0)
		r = ipam_boot_id(n->boot_id);
	if (r == 0 && node_ranges_read(n->state_dir, &n->now, &why) < 0) {
		memset(&n->now, 0, sizeof(n->now));
		if (why.code != -ENOENT)
			report(n, WAG_LOG_WARN, "%s: it will be written anew", why.msg);
	}
	if (r == 0 && n->o.cluster_pool)
		r = start_pool(n, err);
	if (r < 0) {
		ipam_node_free(n);
		return r;
	}
	arm(n, 0);
	*ret = n;
	return 0;
}

void ipam_node_free(struct ipam_node *n)
{
	if (!n)
		return;
	kube_pool_gc_free(n->gc);
	kube_pool_free(n->pool);
	kube_write_cancel(n->patch);
	if (n->timer)
		event_free(n->timer);
	free(n->sent);
	free(n->state_dir);
	free(n->node_name);
	free(n);
}
