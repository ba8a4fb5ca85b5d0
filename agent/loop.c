// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include <waggle/netlink.h>
#include <waggle/pins.h>
#include "cni_conf.h"
#include "dataplane_bpf.h"
#include "endpoint.h"
#include "endpoint_watch.h"
#include "flow.h"
#include "health.h"
#include "ipam_node.h"
#include "loop.h"
#include "metrics.h"
#include "model.h"
#include "node_addr.h"
#include "node_net.h"
#include "node_route.h"
#include "policy_sync.h"
#include "reconcile.h"
#include "source.h"
#include "sync.h"
#include "tunnel_dev.h"

#define SYNC_GAP_MS 5	 /* runs are no closer than this, nor than the last one took */
#define NODE_DELAY_MS 20 /* links and addresses change in bursts */
#define TRIM_DELAY_MS 200
#define POLICY_RETRY_MS 1000

struct loop {
	const struct config *config;
	struct event_base *base;
	struct event *sync_timer, *node_timer, *trim_timer, *monitor, *routes;
	struct event *sigterm, *sigint;
	struct nl *nl;
	int monitor_fd, routes_fd;
	struct node_facts facts;
	struct dp_device tunnel; /* ifindex 0: none */
	struct node_net *net;
	struct dataplane *dp;
	struct model *model;
	struct sync *sync;
	struct policy_sync policies;
	struct endpoint_watch *endpoints;
	struct source *source;
	struct ipam_node *ipam;
	struct names *names;
	struct flow_server *flow;
	struct health *health, *metrics;
	struct cni_watch *cni;
	struct agent_view view;
	uint64_t last_run_ms, last_cost_ms;
	bool sync_due, restart, told_to_end, policies_told;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static uint64_t now_ms(void)
{
	return now_ns() / 1000000;
}

static void start_timer(struct event *timer, uint64_t ms)
{
	const struct timeval tv = { .tv_sec = (time_t)(ms / 1000),
				    .tv_usec = (suseconds_t)(ms % 1000 * 1000) };

	event_add(timer, &tv);
}

/* ---- model -> maps ---- */

static void schedule_sync(struct loop *l)
{
	uint64_t gap = l->last_cost_ms > SYNC_GAP_MS ? l->last_cost_ms : SYNC_GAP_MS;
	uint64_t since = now_ms() - l->last_run_ms;

	if (l->sync_due)
		return;
	l->sync_due = true;
	start_timer(l->sync_timer, since >= gap ? 0 : gap - since);
}

static void on_dirty(void *ctx)
{
	schedule_sync(ctx);
}

static void on_refused(const char *ns, const char *name, int err, void *ctx)
{
	log_warn("Service %s/%s is not served: %s", ns, name, strerror(-err));
}

/* Names in flows come from other kinds too; their marks are taken with every run. */
static void take_other_marks(struct loop *l)
{
	if (model_take_dirty(l->model, MODEL_NODE))
		node_net_set_dirty(l->net);
	model_take_dirty(l->model, MODEL_POD);
}

static void first_sync_over(struct loop *l, uint64_t cost_ms)
{
	struct sync_stats s;

	sync_get_stats(l->sync, &s);
	l->view.swept = true;
	dataplane_set_synced(l->dp, now_ns());
	cni_watch_begin(l->cni);
	start_timer(l->trim_timer, TRIM_DELAY_MS);
	log_info("synced: %zu Services, %zu frontends, %zu backends in %" PRIu64 " ms", s.services,
		 s.frontends, s.backends, cost_ms);
}

/* Which namespaces have policies, for the CNI plugin; and pods that waited for it go on. */
static void sync_policies(struct loop *l)
{
	int r = policy_sync_run(&l->policies, l->model);

	if (r < 0)
		log_error("map wag_policy_ns: %s: trying again in 1 s", strerror(-r));
	if (policy_sync_ready(&l->policies))
		endpoint_watch_policy_known(l->endpoints);
	if (model_count(l->model, MODEL_POLICY) == 0 || l->policies_told)
		return;
	l->policies_told = true;
	log_warn("there are NetworkPolicies: this version does not enforce them");
}

static void on_sync_timer(evutil_socket_t fd, short what, void *ctx)
{
	struct loop *l = ctx;
	const struct compile_facts facts = { .node_name = l->config->node_name };
	uint64_t begin = now_ms();
	int r, retry, net_retry;

	l->sync_due = false;
	take_other_marks(l);
	ipam_node_poke(l->ipam);
	r = node_net_run(l->net, l->model, begin);
	if (r == 0)
		r = reconcile_run(l->model, &facts, l->sync, begin, on_refused, l);
	l->last_run_ms = now_ms();
	l->last_cost_ms = l->last_run_ms - begin;
	if (r < 0) {
		log_error("programming the maps: %s: starting anew", strerror(-r));
		l->restart = true;
		event_base_loopbreak(l->base);
		return;
	}
	sync_policies(l);
	if (sync_swept(l->sync) && !l->view.swept)
		first_sync_over(l, l->last_cost_ms);
	/* A change does not wait for the retry: sync_due stays false. */
	retry = sync_retry_ms(l->sync, l->last_run_ms);
	if (l->policies.err && (retry < 0 || retry > POLICY_RETRY_MS))
		retry = POLICY_RETRY_MS;
	net_retry = node_net_retry_ms(l->net, l->last_run_ms);
	if (retry < 0 || (net_retry >= 0 && net_retry < retry))
		retry = net_retry;
	if (retry >= 0)
		start_timer(l->sync_timer, (uint64_t)retry);
}

/* A list parsed leaves holes all over the heap: pages nobody uses go back once it is quiet. */
static void on_trim_timer(evutil_socket_t fd, short what, void *ctx)
{
	malloc_trim(0);
}

static void on_conflict(const char *ns, const char *name, const struct wag_svc_key *frontend,
			const char *holder_ns, const char *holder_name, void *ctx)
{
	char text[WAG_ADDR_TEXT + 10];

	log_warn("Service %s/%s: %s %s is already Service %s/%s's: that one keeps it", ns, name,
		 wag_addr_port_format(&frontend->addr, frontend->port, text, sizeof(text)),
		 wag_proto_name(frontend->proto), holder_ns, holder_name);
}

/* ---- the node ---- */

static void log_devices(const struct node_facts *f, uint32_t socket_lb)
{
	char list[512] = "";
	size_t len = 0;

	for (size_t i = 0; i < f->n_devices && len < sizeof(list) - 20; i++)
		len += (size_t)snprintf(list + len, sizeof(list) - len, " %s", f->devices[i].name);
	if (socket_lb == WAG_SOCKET_LB_OFF) /* what its sockets send to a Service leaves there */
		len += (size_t)snprintf(list + len, sizeof(list) - len, " lo");
	log_info("node devices served:%s", len ? list : " none");
	if (f->headerless[0])
		log_warn("not served, for they have no Ethernet header:%s; NodePorts are not "
			 "answered "
			 "there",
			 f->headerless);
}

static bool same_devices(const struct node_facts *a, const struct node_facts *b)
{
	return a->n_devices == b->n_devices &&
	       (!a->n_devices ||
		memcmp(a->devices, b->devices, a->n_devices * sizeof(*a->devices)) == 0);
}

static bool has_addr(const struct node_facts *f, const struct wag_addr *addr)
{
	for (size_t i = 0; i < f->n_addrs; i++)
		if (wag_addr_equal(&f->addrs[i].addr, addr))
			return true;
	return false;
}

/* The main addresses are constants of the loaded programs: the agent starts anew to change them. */
static bool main_addr_gone(const struct node_facts *now, const struct wag_addr *loaded,
			   const struct wag_addr *found)
{
	if (wag_addr_is_zero(loaded))
		return !wag_addr_is_zero(found);
	return !wag_addr_is_zero(found) && !has_addr(now, loaded);
}

static void start_anew(struct loop *l, const char *why)
{
	log_info("%s: starting anew", why);
	l->restart = true;
	event_base_loopbreak(l->base);
}

/* The tunnel's device is a constant of the loaded programs too. */
static int follow_facts(struct loop *l, const struct node_facts *facts, struct wag_err *err)
{
	uint32_t mtu, tunnel_mtu;
	struct dp_device tunnel;
	int r = node_net_tunnel(&tunnel, l->nl, l->config, facts, err);

	if (r < 0)
		return r;
	if (tunnel.ifindex != l->tunnel.ifindex) {
		start_anew(l, "the tunnel's device was removed");
		return 0;
	}
	node_net_mtu(l->config, facts, &mtu, &tunnel_mtu);
	r = dataplane_set_mtu(l->dp, mtu, tunnel_mtu);
	if (r == 0)
		r = node_net_set_facts(l->net, facts, &tunnel);
	return r < 0 ? wag_err_set(err, r, "following the node's devices: %s", strerror(-r)) : 0;
}

static void on_node_timer(evutil_socket_t fd, short what, void *ctx)
{
	struct loop *l = ctx;
	struct node_facts facts;
	struct wag_err err = { 0 };
	int r = node_facts_read(&facts, l->nl, l->config->devices);

	endpoint_watch_links(l->endpoints);
	if (r == 0)
		r = sync_set_node_addrs(l->sync, facts.addrs, facts.n_addrs);
	if (r < 0) {
		log_error("reading links and addresses: %s: trying again in 1 s", strerror(-r));
		start_timer(l->node_timer, 1000);
		return;
	}
	if (main_addr_gone(&facts, &l->facts.v4, &facts.v4) ||
	    main_addr_gone(&facts, &l->facts.v6, &facts.v6)) {
		start_anew(l, "the node's main address has changed");
	} else if (!same_devices(&facts, &l->facts)) {
		r = dataplane_set_devices(l->dp, facts.devices, facts.n_devices, &err);
		if (r < 0) {
			log_error("%s: trying again in 1 s", err.msg);
			start_timer(l->node_timer, 1000);
		}
		if (r == 0)
			log_devices(&facts, l->config->socket_lb);
	}
	if (r == 0 && !l->restart) {
		r = follow_facts(l, &facts, &err);
		if (r < 0) {
			log_error("%s: trying again in 1 s", err.msg);
			start_timer(l->node_timer, 1000);
		}
	}
	if (r == 0) {
		facts.v4 = l->restart ? facts.v4 : l->facts.v4;
		facts.v6 = l->restart ? facts.v6 : l->facts.v6;
		node_facts_done(&l->facts);
		l->facts = facts;
	} else {
		node_facts_done(&facts);
	}
	schedule_sync(l);
}

static void on_monitor(evutil_socket_t fd, short what, void *ctx)
{
	struct loop *l = ctx;

	if (nl_monitor_read(fd) != 0 && !event_pending(l->node_timer, EV_TIMEOUT, NULL))
		start_timer(l->node_timer, NODE_DELAY_MS);
}

static void on_routes(evutil_socket_t fd, short what, void *ctx)
{
	struct loop *l = ctx;

	if (nl_route_monitor_read(fd, NODE_ROUTE_PROTO) == 0)
		return;
	node_net_check_routes(l->net);
	schedule_sync(l);
}

static void on_signal(evutil_socket_t sig, short what, void *ctx)
{
	struct loop *l = ctx;

	log_info("%s: ending; programs and maps stay in place", strsignal((int)sig));
	l->told_to_end = true;
	event_base_loopbreak(l->base);
}

static void on_report(void *ctx, enum wag_log_level level, const char *msg)
{
	wag_log(level, "%s", msg);
}

static void on_note(void *ctx, const char *msg)
{
	log_info("%s", msg);
}

/* ---- start ---- */

static const char *attach_name(uint32_t attach)
{
	return attach == WAG_ATTACH_TCX ? "tcx" : "clsact";
}

/* The hand of the conntrack ring masks its index. n is at most 2^31: the config's limit. */
static uint32_t round_up_pow2(uint32_t n)
{
	return n <= 1 ? 1 : 1U << (32 - __builtin_clz(n - 1));
}

static int start_dataplane(struct loop *l, struct wag_err *err)
{
	const struct config *c = l->config;
	struct dataplane_options o = {
		.pin_dir = c->pin_dir,
		.state_dir = c->state_dir,
		.cgroup = c->cgroup,
		.node_name = c->node_name,
		.attach = c->attach,
		.socket_lb = c->socket_lb,
		.ct_max = round_up_pow2(c->ct_max),
		.svc_max = c->svc_max,
		.slot_max = c->slot_max,
		.tunnel_vni = TUNNEL_VNI,
		.host_routing = c->host_routing,
		.masquerade_v4 = c->masquerade_v4,
		.masquerade_v6 = c->masquerade_v6,
		.note = on_note,
	};
	uint64_t begin = now_ms();
	int r;

	r = node_facts_read(&l->facts, l->nl, c->devices);
	if (r < 0)
		return wag_err_set(err, r, "reading links and addresses: %s", strerror(-r));
	o.node_v4 = l->facts.v4;
	o.node_v6 = l->facts.v6;
	node_net_mtu(c, &l->facts, &o.mtu, &o.route_mtu);
	o.devices = l->facts.devices;
	o.n_devices = l->facts.n_devices;
	r = node_sysctls(err);
	if (r == 0)
		r = node_net_tunnel(&l->tunnel, l->nl, c, &l->facts, err);
	o.tunnel = l->tunnel;
	if (r == 0)
		r = dataplane_open(&l->dp, &o, err);
	if (r == 0)
		r = node_register_netns(l->dp, err);
	if (r < 0)
		return r;
	log_devices(&l->facts, c->socket_lb);
	log_info("%zu programs in place (pods by %s, devices by %s, socket path %s) in %" PRIu64
		 " ms",
		 dataplane_n_programs(l->dp), attach_name(dataplane_attach_mode(l->dp)),
		 attach_name(dataplane_attach_mode_net(l->dp)),
		 c->socket_lb == WAG_SOCKET_LB_OFF    ? "off"
		 : c->socket_lb == WAG_SOCKET_LB_HOST ? "host"
						      : "full",
		 now_ms() - begin);
	return 0;
}

static int start_sync(struct loop *l, struct wag_err *err)
{
	int r = model_new(&l->model);

	if (r == 0)
		r = sync_new(l->dp, &l->sync);
	if (r == 0)
		r = sync_adopt(l->sync);
	if (r == 0)
		r = sync_set_node_addrs(l->sync, l->facts.addrs, l->facts.n_addrs);
	if (r == 0)
		r = policy_sync_init(&l->policies, l->dp);
	if (r < 0)
		return wag_err_set(err, r, "taking over the maps: %s", strerror(-r));
	r = node_net_new(&l->net, l->config, l->dp, on_report, l, err);
	if (r == 0 && node_net_set_facts(l->net, &l->facts, &l->tunnel) < 0)
		r = wag_err_set(err, -ENOMEM, "out of memory");
	if (r < 0)
		return r;
	sync_on_conflict(l->sync, on_conflict, l);
	model_on_dirty(l->model, on_dirty, l);
	schedule_sync(l);
	return 0;
}

/* Each pod that comes or goes takes or frees an address. */
static void on_endpoints(void *ctx)
{
	struct loop *l = ctx;

	ipam_node_count(l->ipam);
}

static int start_endpoints(struct loop *l, struct wag_err *err)
{
	const struct endpoint_watch_options o = {
		.base = l->base,
		.dp = l->dp,
		.nl = l->nl,
		.pin_dir = l->config->pin_dir,
		.state_dir = l->config->state_dir,
		.changed = on_endpoints,
		.ctx = l,
	};

	return endpoint_watch_new(&l->endpoints, &o, err);
}

static int start_source(struct loop *l, struct wag_err *err)
{
	const struct config *c = l->config;
	const struct source_reporter reporter = { on_report, l };
	const struct kube_options options = {
		.kubeconfig = c->kubeconfig,
		.api_servers = c->api_server,
		.node_name = c->node_name,
		.reporter = reporter,
	};

	if (c->manifests)
		return source_new_manifests(&l->source, l->base, l->model, c->manifests, &reporter,
					    err);
	return source_new_kube(&l->source, l->base, l->model, &options, err);
}

static int start_ipam(struct loop *l, struct wag_err *err)
{
	const struct config *c = l->config;
	const struct ipam_node_options options = {
		.state_dir = c->state_dir,
		.node_name = c->node_name,
		.cluster_pool = c->ipam == CONFIG_IPAM_CLUSTER_POOL,
		.ns = c->ipam_namespace,
		.without = { !c->enable_v4, !c->enable_v6 },
		.pool_cidrs = { c->enable_v4 ? c->pool_v4 : NULL,
				c->enable_v6 ? c->pool_v6 : NULL },
		.pool_masks = { c->pool_mask_v4, c->pool_mask_v6 },
		.reporter = { on_report, l },
	};

	return ipam_node_new(&l->ipam, l->base, l->model, l->source, &options, err);
}

/* Flows are a view: the node serves its Services without them. */
static int start_flows(struct loop *l, struct wag_err *err)
{
	struct wag_err flow_err = { 0 };
	struct flow_config config = {
		.socket_path = l->config->socket,
		.node_name = l->config->node_name,
		.events_fd = dataplane_map_fd(l->dp, "wag_events"),
		.runtime_fd = dataplane_map_fd(l->dp, "wag_runtime"),
		.stats_fd = dataplane_map_fd(l->dp, "wag_map_errors"),
	};
	int r = names_new(&l->names, l->dp, l->model);

	if (r < 0)
		return wag_err_set(err, r, "out of memory");
	config.resolver = names_resolver(l->names);
	if (!l->config->socket[0])
		return 0;
	r = flow_server_new(&l->flow, &config, &flow_err);
	if (r == 0)
		r = flow_server_start(l->flow, &flow_err);
	if (r < 0) {
		log_error("flows are not served: %s", flow_err.msg);
		flow_server_free(TAKE_PTR(l->flow));
	}
	return 0;
}

static int start_cni(struct loop *l, struct wag_err *err)
{
	const struct config *c = l->config;
	const struct cni_conf_options options = {
		.dir = c->cni_conf_dir,
		.chaining_mode = config_chaining_name(c),
		.chaining_target = c->cni_chaining_target,
		.pin_dir = c->pin_dir,
		.state_dir = c->state_dir,
		.exclusive = c->cni_exclusive,
	};

	if (!c->cni_conf_dir || !c->cni_conf_dir[0])
		return 0;
	return cni_watch_new(&l->cni, l->base, &options, err);
}

static int make_events(struct loop *l, struct wag_err *err)
{
	int r;

	l->base = event_base_new();
	if (!l->base)
		return wag_err_set(err, -ENOMEM, "out of memory");
	r = nl_new(&l->nl);
	/* The watch begins before the first listing, so that nothing falls in between. */
	l->monitor_fd = r < 0 ? r : nl_monitor_open();
	if (l->monitor_fd < 0)
		return wag_err_set(err, l->monitor_fd, "rtnetlink: %s", strerror(-l->monitor_fd));
	l->routes_fd = nl_route_monitor_open();
	if (l->routes_fd < 0)
		return wag_err_set(err, l->routes_fd, "rtnetlink: %s", strerror(-l->routes_fd));
	l->sync_timer = evtimer_new(l->base, on_sync_timer, l);
	l->node_timer = evtimer_new(l->base, on_node_timer, l);
	l->trim_timer = evtimer_new(l->base, on_trim_timer, l);
	l->monitor = event_new(l->base, l->monitor_fd, EV_READ | EV_PERSIST, on_monitor, l);
	l->routes = event_new(l->base, l->routes_fd, EV_READ | EV_PERSIST, on_routes, l);
	l->sigterm = evsignal_new(l->base, SIGTERM, on_signal, l);
	l->sigint = evsignal_new(l->base, SIGINT, on_signal, l);
	if (!l->sync_timer || !l->node_timer || !l->trim_timer || !l->monitor || !l->routes ||
	    !l->sigterm || !l->sigint || event_add(l->monitor, NULL) < 0 ||
	    event_add(l->routes, NULL) < 0 || event_add(l->sigterm, NULL) < 0 ||
	    event_add(l->sigint, NULL) < 0)
		return wag_err_set(err, -ENOMEM, "out of memory");
	return 0;
}

static int start(struct loop *l, struct wag_err *err)
{
	int r = make_events(l, err);

	/* First: a second agent is told what it is, not that a port is taken. */
	if (r == 0)
		r = dataplane_in_use(l->config->pin_dir, l->config->state_dir, err);
	/* Before anything is touched; answers only once the loop runs. */
	if (r == 0 && l->config->health_addr[0])
		r = health_new(&l->health, l->base, l->config->health_addr, &l->view, err);
	if (r == 0 && l->config->prometheus_addr && l->config->prometheus_addr[0])
		r = health_new_metrics(&l->metrics, l->base, l->config->prometheus_addr, &l->view,
				       err);
	if (r == 0)
		r = start_cni(l, err);
	if (r == 0)
		r = start_dataplane(l, err);
	if (r == 0)
		r = start_sync(l, err);
	if (r == 0)
		r = start_endpoints(l, err);
	if (r == 0)
		r = start_flows(l, err);
	if (r == 0)
		r = start_source(l, err);
	if (r == 0)
		r = start_ipam(l, err);
	if (r < 0)
		return r;
	l->view.dp = l->dp;
	l->view.sync = l->sync;
	l->view.policies = &l->policies;
	l->view.endpoints = l->endpoints;
	l->view.net = l->net;
	l->view.source = l->source;
	l->view.ipam = l->ipam;
	l->view.model = l->model;
	l->view.flow = l->flow;
	return 0;
}

static void free_event(struct event *e)
{
	if (e)
		event_free(e);
}

static void stop(struct loop *l)
{
	cni_watch_free(l->cni, l->told_to_end && l->config->cni_uninstall);
	health_free(l->health);
	health_free(l->metrics);
	ipam_node_free(l->ipam);
	source_free(l->source);
	flow_server_free(l->flow);
	names_free(l->names);
	endpoint_watch_free(l->endpoints);
	policy_sync_done(&l->policies);
	sync_free(l->sync);
	node_net_free(l->net);
	model_free(l->model);
	dataplane_free(l->dp);
	node_facts_done(&l->facts);
	nl_free(l->nl);
	free_event(l->sync_timer);
	free_event(l->node_timer);
	free_event(l->trim_timer);
	free_event(l->monitor);
	free_event(l->routes);
	free_event(l->sigterm);
	free_event(l->sigint);
	if (l->base)
		event_base_free(l->base);
	closep(&l->monitor_fd);
	closep(&l->routes_fd);
}

int loop_run(const struct config *config, struct wag_err *err)
{
	struct loop l = { .config = config, .monitor_fd = -1, .routes_fd = -1 };
	int r;

	l.view.node_name = config->node_name;
	r = start(&l, err);
	if (r == 0 && event_base_dispatch(l.base) < 0)
		r = wag_err_set(err, -EIO, "event loop failed");
	if (r == 0 && l.restart)
		r = 1;
	stop(&l);
	return r;
}
