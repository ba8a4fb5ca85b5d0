// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "node_net.h"
#include "node_route.h"
#include "sync_table.h"
#include "tunnel_dev.h"

#define RETRY_MS 1000
#define ROUTES_GAP_MS 200 /* somebody may remove our routes as fast as we make them */
#define MTU_UNKNOWN 1500
#define REPORTS_MAX 20 /* warnings in one run */

struct prefixes {
	struct node_prefix *list;
	size_t n;
};

struct node_net {
	const struct config *config;
	struct nl *nl;
	struct sync_table cidrs, nodes, devices;
	struct prefixes fixed, extra; /* not masqueraded: of the settings, of a file */
	struct node_facts facts;      /* only what compile_nodes() reads */
	struct wag_addr *own;
	size_t n_own;
	uint32_t tunnel_ifindex;
	struct node_plan *plan; /* NULL: Nodes are not known yet */
	struct node_route_result routes;
	bool dirty, routes_due, tunnel_checked, told; /* told: that wag_cidr is complete */
	uint64_t routes_after_ms, retry_at_ms; /* 0: nothing to retry */
	char error[512];
	node_net_report_fn report;
	void *ctx;
};

/* ---- settings ---- */

static bool wants_tunnel(const struct config *c)
{
	return c->routing_mode != WAG_ROUTING_NATIVE;
}

void node_net_mtu(const struct config *c, const struct node_facts *f, uint32_t *ret_mtu,
		  uint32_t *ret_tunnel_mtu)
{
	const struct node_compile in = { .underlay = c->underlay, .v4 = f->v4, .v6 = f->v6 };

	*ret_mtu = c->mtu ? c->mtu : f->mtu ? f->mtu : MTU_UNKNOWN;
	*ret_tunnel_mtu =
		wants_tunnel(c) ? node_tunnel_mtu(*ret_mtu, node_underlay_family(&in)) : 0;
}

int node_net_tunnel(struct dp_tunnel *ret, struct nl *nl, const struct config *c,
		    const struct node_facts *f, struct wag_err *err)
{
	struct tunnel_wish wish = { .geneve = c->tunnel_protocol == CONFIG_TUNNEL_GENEVE,
				    .port = (uint16_t)c->tunnel_port };
	uint32_t mtu;

	*ret = (struct dp_tunnel){ 0 };
	if (!wants_tunnel(c))
		return 0;
	node_net_mtu(c, f, &mtu, &wish.mtu);
	return tunnel_dev_ensure(ret, nl, &wish, err);
}

int node_net_cleanup(struct wag_err *err)
{
	_cleanup_(nl_freep) struct nl *nl = NULL;
	struct node_route_result routes;
	int r = nl_new(&nl);

	if (r == 0)
		r = node_routes_apply(nl, NULL, 0, &routes);
	if (r == 0)
		r = tunnel_dev_remove(nl, 0);
	if (r < 0)
		return wag_err_set(err, r, "routes and tunnel: %s", strerror(-r));
	return routes.failed ? wag_err_set(err, -EIO, "route %s", routes.error) : 0;
}

/* A list that config.c has checked. */
static int add_prefixes(struct prefixes *p, const char *text)
{
	_cleanup_free_ char *list = strdup(text ? text : "");
	char *save;

	if (!list)
		return -ENOMEM;
	for (char *word = strtok_r(list, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		struct node_prefix *more = reallocarray(p->list, p->n + 1, sizeof(*more));

		if (!more)
			return -ENOMEM;
		p->list = more;
		if (wag_cidr_parse(word, &more[p->n].addr, &more[p->n].bits) == 0)
			p->n++;
	}
	return 0;
}

/* ---- life ---- */

static int init(struct node_net *n)
{
	const struct config *c = n->config;
	int r = nl_new(&n->nl);

	if (r == 0)
		r = add_prefixes(&n->fixed, c->native_cidr_v4);
	if (r == 0)
		r = add_prefixes(&n->fixed, c->native_cidr_v6);
	if (r == 0)
		r = add_prefixes(&n->fixed, c->non_masquerade_cidrs);
	return r;
}

int node_net_new(struct node_net **ret, const struct config *config, struct dataplane *dp,
		 node_net_report_fn report, void *ctx, struct wag_err *err)
{
	struct node_net *n = calloc(1, sizeof(*n));
	int r;

	if (!n)
		return wag_err_set(err, -ENOMEM, "out of memory");
	n->config = config;
	n->report = report;
	n->ctx = ctx;
	r = init(n);
	if (r == 0)
		r = sync_table_init(&n->cidrs, dp, DP_CIDR);
	if (r == 0)
		r = sync_table_init(&n->nodes, dp, DP_NODES);
	if (r == 0)
		r = sync_table_init(&n->devices, dp, DP_DEVICE);
	if (r < 0) {
		node_net_free(n);
		return wag_err_set(err, r, "taking over the maps of other nodes: %s",
				   strerror(-r));
	}
	n->devices.swept = true; /* what is there is always all there is */
	n->dirty = true;
	*ret = n;
	return 0;
}

static void forget_facts(struct node_net *n)
{
	free(n->facts.subnets);
	free(n->own);
	n->facts = (struct node_facts){ 0 };
	n->own = NULL;
}

void node_net_free(struct node_net *n)
{
	if (!n)
		return;
	sync_table_done(&n->cidrs);
	sync_table_done(&n->nodes);
	sync_table_done(&n->devices);
	node_plan_free(n->plan);
	forget_facts(n);
	free(n->fixed.list);
	free(n->extra.list);
	nl_free(n->nl);
	free(n);
}

/* ---- what is known ---- */

static int set_devices(struct node_net *n, const struct node_facts *f)
{
	struct deltamap fresh;
	int r = deltamap_init(&fresh, sizeof(uint32_t), sizeof(struct wag_device));

	for (size_t i = 0; i < f->n_devices && r == 0; i++)
		r = deltamap_set_desired(&fresh, &f->tables[i].ifindex, &f->tables[i].value);
	if (r == 0)
		r = sync_table_replace(&n->devices, &fresh);
	deltamap_done(&fresh);
	return r;
}

int node_net_set_facts(struct node_net *n, const struct node_facts *f,
		       const struct dp_device *tunnel)
{
	_cleanup_free_ struct node_subnet *subnets = calloc(f->n_subnets + 1, sizeof(*subnets));
	_cleanup_free_ struct wag_addr *own = calloc(f->n_addrs + 1, sizeof(*own));
	int r = subnets && own ? set_devices(n, f) : -ENOMEM;

	if (r < 0)
		return r;
	if (f->n_subnets)
		memcpy(subnets, f->subnets, f->n_subnets * sizeof(*subnets));
	for (size_t i = 0; i < f->n_addrs; i++)
		own[i] = f->addrs[i].addr;
	forget_facts(n);
	n->facts = (struct node_facts){
		.subnets = TAKE_PTR(subnets),
		.n_subnets = f->n_subnets,
		.n_routers = f->n_routers,
		.v4 = f->v4,
		.v6 = f->v6,
		.mtu = f->mtu,
	};
	memcpy(n->facts.routers, f->routers, sizeof(n->facts.routers));
	n->own = TAKE_PTR(own);
	n->n_own = f->n_addrs;
	n->tunnel_ifindex = tunnel->ifindex;
	n->dirty = true;
	n->routes_due = true; /* a device that went took its routes along */
	return 0;
}

int node_net_set_no_masquerade(struct node_net *n, const struct node_prefix *list, size_t count)
{
	struct node_prefix *copy = calloc(count + 1, sizeof(*copy));

	if (!copy)
		return -ENOMEM;
	if (count)
		memcpy(copy, list, count * sizeof(*copy));
	free(n->extra.list);
	n->extra = (struct prefixes){ copy, count };
	n->dirty = true;
	return 0;
}

void node_net_set_dirty(struct node_net *n)
{
	n->dirty = true;
}

void node_net_check_routes(struct node_net *n)
{
	n->routes_due = true;
}

/* ---- what should be ---- */

struct nodes {
	const struct object **list;
	size_t n;
};

static int collect_node(const struct object *obj, void *ctx)
{
	struct nodes *nodes = ctx;

	nodes->list[nodes->n++] = obj;
	return 0;
}

static int compile(struct node_net *n, const struct model *m, struct node_plan **ret)
{
	const struct config *c = n->config;
	size_t count = model_count(m, MODEL_NODE), n_keep = n->fixed.n + n->extra.n;
	_cleanup_free_ const struct object **list = calloc(count + 1, sizeof(*list));
	_cleanup_free_ struct node_prefix *keep = calloc(n_keep + 1, sizeof(*keep));
	struct nodes nodes = { .list = list };
	struct node_compile in = {
		.node_name = c->node_name,
		.direct = c->routing_mode == WAG_ROUTING_AUTO || c->auto_direct_node_routes,
		.tunnel = wants_tunnel(c),
		.quiet = c->skip_unreachable,
		.underlay = c->underlay,
		.tunnel_ifindex = n->tunnel_ifindex,
		.v4 = n->facts.v4,
		.v6 = n->facts.v6,
		.subnets = n->facts.subnets,
		.n_subnets = n->facts.n_subnets,
		.own = n->own,
		.n_own = n->n_own,
		.routers = n->facts.routers,
		.n_routers = n->facts.n_routers,
		.no_masquerade = keep,
		.n_no_masquerade = n_keep,
	};
	uint32_t tunnel_mtu;

	if (!list || !keep)
		return -ENOMEM;
	node_net_mtu(c, &n->facts, &in.mtu, &tunnel_mtu);
	if (n->fixed.n)
		memcpy(keep, n->fixed.list, n->fixed.n * sizeof(*keep));
	if (n->extra.n)
		memcpy(keep + n->fixed.n, n->extra.list, n->extra.n * sizeof(*keep));
	model_visit(m, MODEL_NODE, collect_node, &nodes);
	return compile_nodes(&in, list, nodes.n, ret);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* What the plan before did not say. */
static void report_news(struct node_net *n, struct node_plan *plan)
{
	const struct node_plan *old = n->plan;
	char more[64];
	size_t news = 0;

	if (plan->n_warnings)
		qsort(plan->warnings, plan->n_warnings, sizeof(char *), by_text);
	for (size_t i = 0; i < plan->n_warnings; i++) {
		if (old && old->n_warnings &&
		    bsearch(&plan->warnings[i], old->warnings, old->n_warnings, sizeof(char *),
			    by_text))
			continue;
		if (news++ < REPORTS_MAX)
			n->report(n->ctx, WAG_LOG_WARN, plan->warnings[i]);
	}
	if (news <= REPORTS_MAX)
		return;
	snprintf(more, sizeof(more), "and %zu more like these", news - REPORTS_MAX);
	n->report(n->ctx, WAG_LOG_WARN, more);
}

static int set_tables(struct node_net *n, const struct node_plan *plan)
{
	const struct wag_node known = { 0 };
	struct deltamap cidrs, nodes;
	int r = 0;

	deltamap_init(&cidrs, sizeof(struct wag_cidr_key), sizeof(struct wag_cidr));
	deltamap_init(&nodes, sizeof(struct wag_addr), sizeof(struct wag_node));
	for (size_t i = 0; i < plan->n_cidrs && r == 0; i++)
		r = deltamap_set_desired(&cidrs, &plan->cidrs[i].key, &plan->cidrs[i].value);
	for (size_t i = 0; i < plan->n_nodes && r == 0; i++)
		r = deltamap_set_desired(&nodes, &plan->nodes[i], &known);
	if (r == 0)
		r = sync_table_replace(&n->cidrs, &cidrs);
	if (r == 0)
		r = sync_table_replace(&n->nodes, &nodes);
	deltamap_done(&cidrs);
	deltamap_done(&nodes);
	return r;
}

static int plan_anew(struct node_net *n, const struct model *m)
{
	struct node_plan *plan;
	int r = compile(n, m, &plan);

	if (r < 0)
		return r;
	r = set_tables(n, plan);
	if (r < 0) {
		node_plan_free(plan);
		return r;
	}
	report_news(n, plan);
	node_plan_free(n->plan);
	n->plan = plan;
	n->dirty = false;
	n->routes_due = true;
	n->cidrs.swept = true;
	return 0;
}

/* ---- making it so ---- */

static void add_error(struct node_net *n, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void add_error(struct node_net *n, const char *fmt, ...)
{
	va_list ap;

	if (n->error[0])
		return;
	va_start(ap, fmt);
	vsnprintf(n->error, sizeof(n->error), fmt, ap);
	va_end(ap);
}

static void apply_table(struct node_net *n, struct sync_table *t)
{
	int r = sync_table_apply(t);

	if (r < 0)
		add_error(n, "map %s: %s", dataplane_table_name(t->table), strerror(-r));
}

static void apply_routes(struct node_net *n, uint64_t now_ms)
{
	int r;

	if (n->routes_due && now_ms >= n->routes_after_ms) {
		n->routes_due = false;
		n->routes_after_ms = now_ms + ROUTES_GAP_MS;
		r = node_routes_apply(n->nl, n->plan->routes, n->plan->n_routes, &n->routes);
		if (r < 0) {
			n->routes.failed = 1;
			snprintf(n->routes.error, sizeof(n->routes.error), "reading: %s",
				 strerror(-r));
		}
	}
	if (n->routes.failed)
		add_error(n, "%zu of %zu routes to other nodes: %s", n->routes.failed,
			  n->plan->n_routes, n->routes.error);
}

/* Where there was one before these settings: nothing is sent to it any more. */
static void remove_old_tunnel(struct node_net *n)
{
	int r;

	if (n->tunnel_checked)
		return;
	r = tunnel_dev_remove(n->nl, n->tunnel_ifindex);
	if (r < 0)
		add_error(n, "removing the tunnel's old device: %s", strerror(-r));
	n->tunnel_checked = r == 0;
}

/* What is not in it is outside of the cluster from now on: new flows to there have waited. */
static void tell_known(struct node_net *n)
{
	int r;

	if (n->told || n->error[0])
		return;
	r = dataplane_set_nodes(n->cidrs.dp);
	if (r < 0)
		add_error(n, "map wag_runtime: %s", strerror(-r));
	n->told = r == 0;
}

/*
 * Who may send through the tunnel is known before anything is sent there that is answered, and is
 * forgotten last.
 */
static void apply(struct node_net *n, uint64_t now_ms)
{
	n->nodes.swept = false;
	apply_table(n, &n->nodes);
	apply_table(n, &n->cidrs);
	tell_known(n);
	apply_routes(n, now_ms);
	n->nodes.swept = true;
	apply_table(n, &n->nodes);
	remove_old_tunnel(n);
}

int node_net_run(struct node_net *n, const struct model *m, uint64_t now_ms)
{
	char before[sizeof(n->error)];
	int r = 0;

	memcpy(before, n->error, sizeof(before));
	if (n->retry_at_ms && now_ms >= n->retry_at_ms && n->routes.failed)
		n->routes_due = true;
	n->error[0] = 0;
	apply_table(n, &n->devices);
	if (model_synced(m, MODEL_NODE) && n->dirty)
		r = plan_anew(n, m);
	if (r < 0)
		return r;
	if (n->plan)
		apply(n, now_ms);
	if (!n->error[0])
		n->retry_at_ms = 0;
	else if (now_ms >= n->retry_at_ms) /* other changes do not put it off */
		n->retry_at_ms = now_ms + RETRY_MS;
	if (n->error[0] && strcmp(n->error, before) != 0)
		n->report(n->ctx, WAG_LOG_ERROR, n->error);
	else if (before[0] && !n->error[0])
		n->report(n->ctx, WAG_LOG_INFO, "ways to other nodes: all is in place again");
	return 0;
}

int node_net_retry_ms(const struct node_net *n, uint64_t now_ms)
{
	uint64_t at = n->retry_at_ms;

	if (n->plan && n->routes_due && (!at || n->routes_after_ms < at))
		at = n->routes_after_ms ? n->routes_after_ms : now_ms;
	if (!at)
		return -1;
	return at > now_ms ? (int)(at - now_ms) : 0;
}

void node_net_get_stats(const struct node_net *n, struct node_net_stats *ret)
{
	const struct node_plan *plan = n->plan;

	*ret = (struct node_net_stats){
		.direct = plan ? plan->n_direct : 0,
		.tunnel = plan ? plan->n_tunnel : 0,
		.unreachable = plan ? plan->n_unreachable : 0,
		.routes = n->routes.present,
		.failed_routes = n->routes.failed,
	};
	memcpy(ret->error, n->error, sizeof(ret->error));
	if (!plan && (wants_tunnel(n->config) || n->config->auto_direct_node_routes))
		strcpy(ret->error, "Nodes are not known yet");
}
