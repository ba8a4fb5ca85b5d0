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
#include "kube_recorder.h"
#include "loop.h"
#include "loop_internal.h"
#include "node_port.h"
#include "reconcile.h"
#include "tunnel_dev.h"

#define SYNC_GAP_MS 5	 /* runs are no closer than this, nor than the CPU time of the last */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

uint64_t loop_now_ms(void)
{
	return now_ns() / 1000000;
}

/* What a run has cost the node: waiting for readers to leave is no work. */
static uint64_t cpu_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static int64_t wall_ms(const struct timespec *wall)
{
	return (int64_t)wall->tv_sec * 1000 + wall->tv_nsec / 1000000;
}

void loop_start_timer(struct event *timer, uint64_t ms)
{
	const struct timeval tv = { .tv_sec = (time_t)(ms / 1000),
				    .tv_usec = (suseconds_t)(ms % 1000 * 1000) };

	event_add(timer, &tv);
}

/* ---- model -> maps ---- */

void loop_schedule_sync(struct loop *l)
{
	uint64_t gap = l->last_cpu_ms > SYNC_GAP_MS ? l->last_cpu_ms : SYNC_GAP_MS;
	uint64_t since = loop_now_ms() - l->last_run_ms;

	if (l->sync_due)
		return;
	l->sync_due = true;
	if (since >= gap) /* behind what is at hand, without asking the kernel for more first */
		event_active(l->sync_timer, EV_TIMEOUT, 0);
	else
		loop_start_timer(l->sync_timer, gap - since);
}

/* As in kube-proxy nothing counts as late before the first list is complete. */
static void on_dirty(void *ctx)
{
	struct loop *l = ctx;

	if (l->view.swept)
		proxy_health_queued(&l->proxy_health, loop_now_ms());
	loop_schedule_sync(l);
}

static void on_refused(const char *ns, const char *name, int err, void *ctx)
{
	log_warn("Service %s/%s is not served: %s", ns, name, strerror(-err));
}

static void on_remarked(const char *ns, const char *name, const char *remark, void *ctx)
{
	log_warn("Service %s/%s: %s", ns, name, remark);
}

static int on_checked(const char *ns, const char *name, const struct health_check *check, void *ctx)
{
	struct loop *l = ctx;

	return service_health_set(l->service_health, ns, name, check);
}

/* What happened before our time says nothing about us. */
static void on_programmed(int64_t trigger_ms, void *ctx)
{
	struct loop *l = ctx;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (trigger_ms >= l->started_ms)
		histogram_add(&l->programming, (double)(wall_ms(&now) - trigger_ms) / 1e3);
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
	loop_start_timer(l->trim_timer, TRIM_DELAY_MS);
	log_info("synced: %zu Services, %zu frontends, %zu backends in %" PRIu64 " ms", s.services,
		 s.frontends, s.backends, cost_ms);
}

static int program_services(struct loop *l, uint64_t begin)
{
	const struct reconcile_listener listener = { on_refused, on_remarked, on_checked,
						     on_programmed, l };
	struct timespec wall;
	int r = reconcile_run(l->model, &l->compile_facts, l->sync, begin, &listener);

	if (r == 0)
		r = service_health_apply(l->service_health);
	if (r < 0 || !sync_swept(l->sync))
		return r;
	clock_gettime(CLOCK_REALTIME, &wall);
	if (sync_pending(l->sync))
		proxy_health_queued(&l->proxy_health, begin);
	else
		proxy_health_applied(&l->proxy_health, wall);
	return 0;
}

static void on_sync_timer(evutil_socket_t fd, short what, void *ctx)
{
	struct loop *l = ctx;
	uint64_t begin = loop_now_ms(), cpu = cpu_ms();
	int r, retry, net_retry, policy_retry;

	l->sync_due = false;
	take_other_marks(l);
	ipam_node_poke(l->ipam);
	r = node_net_run(l->net, l->model, begin);
	if (r == 0)
		r = program_services(l, begin);
	l->last_run_ms = loop_now_ms();
	l->last_cpu_ms = cpu_ms() - cpu;
	if (r < 0) {
		log_error("programming the maps: %s: starting anew", strerror(-r));
		l->restart = true;
		event_base_loopbreak(l->base);
		return;
	}
	policy_retry = loop_policy_run(l);
	if (sync_swept(l->sync) && !l->view.swept)
		first_sync_over(l, l->last_run_ms - begin);
	/* A change does not wait for the retry: sync_due stays false. */
	retry = sync_retry_ms(l->sync, l->last_run_ms);
	if (retry < 0 || (policy_retry >= 0 && policy_retry < retry))
		retry = policy_retry;
	net_retry = node_net_retry_ms(l->net, l->last_run_ms);
	if (retry < 0 || (net_retry >= 0 && net_retry < retry))
		retry = net_retry;
	if (retry >= 0)
		loop_start_timer(l->sync_timer, (uint64_t)retry);
}

/*
 * A list parsed, or policies that went, leave holes all over the heap: pages nobody uses go back
 * once it is quiet.
 */
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

static void on_signal(evutil_socket_t sig, short what, void *ctx)
{
	struct loop *l = ctx;

	log_info("%s: ending; programs and maps stay in place", strsignal((int)sig));
	l->told_to_end = true;
	event_base_loopbreak(l->base);
}

void loop_report(void *ctx, enum wag_log_level level, const char *msg)
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
		.acceleration = c->acceleration,
		.ct_max = round_up_pow2(c->ct_max),
		.svc_max = c->svc_max,
		.slot_max = c->slot_max,
		.routing = c->routing_mode,
		.host_routing = c->host_routing,
		.masquerade_v4 = c->masquerade_v4,
		.masquerade_v6 = c->masquerade_v6,
		.policy_audit = c->policy_audit,
		.allow_localhost = c->allow_localhost,
		.note = on_note,
	};
	uint64_t begin = loop_now_ms();
	int r;

	r = node_facts_read(&l->facts, l->nl, c->devices);
	if (r == 0)
		node_facts_ports(&l->facts, c->nodeport_addresses, &l->facts.v4, &l->facts.v6);
	if (r < 0)
		return wag_err_set(err, r, "reading links and addresses: %s", strerror(-r));
	o.node_v4 = l->facts.v4;
	o.node_v6 = l->facts.v6;
	o.loopback_node_ports = node_port_loopback(c->nodeport_addresses);
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
	r = dataplane_set_pacing(l->dp, l->facts.paced);
	if (r < 0)
		return wag_err_set(err, r, "map wag_runtime: %s", strerror(-r));
	loop_log_devices(&l->facts, c->socket_lb);
	loop_log_pacing(&l->facts);
	log_info("%zu programs in place (pods by %s, devices by %s, socket path %s) in %" PRIu64
		 " ms",
		 dataplane_n_programs(l->dp), attach_name(dataplane_attach_mode(l->dp)),
		 attach_name(dataplane_attach_mode_net(l->dp)),
		 c->socket_lb == WAG_SOCKET_LB_OFF    ? "off"
		 : c->socket_lb == WAG_SOCKET_LB_HOST ? "host"
						      : "full",
		 loop_now_ms() - begin);
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
	r = loop_node_start(l, err);
	if (r < 0)
		return r;
	sync_on_conflict(l->sync, on_conflict, l);
	model_on_dirty(l->model, on_dirty, l);
	loop_policy_start(l);
	loop_schedule_sync(l);
	return 0;
}

static void on_backend_gone(const struct wag_backend_key *key, void *ctx)
{
	stale_sock_gone(ctx, key);
}

static int start_stale_sock(struct loop *l, struct wag_err *err)
{
	const struct stale_sock_options o = {
		.base = l->base,
		.sock_fd = dataplane_map_fd(l->dp, "wag_sock"),
		.state_dir = l->config->state_dir,
		.reporter = { loop_report, l },
	};

	if (l->config->socket_lb == WAG_SOCKET_LB_OFF)
		return 0;
	if (stale_sock_new(&l->stale, &o) < 0)
		return wag_err_set(err, -ENOMEM, "out of memory");
	sync_on_backend_gone(l->sync, on_backend_gone, l->stale);
	return 0;
}

static bool serves_node_ports(const struct wag_addr *addr, void *ctx)
{
	const struct loop *l = ctx;

	return node_port_serves(l->config->nodeport_addresses, addr,
				wag_addr_is_v4(addr) ? &l->facts.v4 : &l->facts.v6);
}

static void on_health_port_failed(const char *ns, const char *name, const char *text, void *ctx)
{
	const struct loop *l = ctx;
	const struct object *svc = model_get(l->model, MODEL_SERVICE, ns, name);
	const struct kube_ref about = { MODEL_SERVICE, ns, name, svc ? svc->service.uid : NULL };

	kube_warn(l->source ? source_cluster(l->source) : NULL, &about, "HealthCheckPortTaken",
		  "node %s: %s", l->config->node_name, text);
}

static int start_service_health(struct loop *l, struct wag_err *err)
{
	const char *addr = l->config->healthz_addr;
	const struct service_health_options o = {
		.base = l->base,
		.proxy = &l->proxy_health,
		.model = l->model,
		.node_name = l->config->node_name,
		.serves = serves_node_ports,
		.failed = on_health_port_failed,
		.ctx = l,
		.reporter = { loop_report, l },
	};

	if (service_health_new(&l->service_health, &o) < 0)
		return wag_err_set(err, -ENOMEM, "out of memory");
	return addr[0] ? service_health_serve_node(l->service_health, addr, err) : 0;
}

/* Each pod that comes or goes takes or frees an address. */
static void on_endpoints(void *ctx)
{
	struct loop *l = ctx;

	l->endpoints_changed = true;
	loop_schedule_sync(l);
	ipam_node_count(l->ipam);
	endpoint_settle_changed(l->settle);
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
		.in_force = loop_policy_in_force,
		.ctx = l,
	};
	const struct endpoint_settle_options settle = {
		.base = l->base,
		.dp = l->dp,
		.pin_dir = l->config->pin_dir,
		.state_dir = l->config->state_dir,
	};
	int r = endpoint_watch_new(&l->endpoints, &o, err);

	return r < 0 ? r : endpoint_settle_new(&l->settle, &settle, err);
}

static int start_source(struct loop *l, struct wag_err *err)
{
	const struct config *c = l->config;
	const struct source_reporter reporter = { loop_report, l };
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
		.reporter = { loop_report, l },
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
	l->base = event_base_new();
	if (!l->base)
		return wag_err_set(err, -ENOMEM, "out of memory");
	l->sync_timer = evtimer_new(l->base, on_sync_timer, l);
	l->trim_timer = evtimer_new(l->base, on_trim_timer, l);
	l->sigterm = evsignal_new(l->base, SIGTERM, on_signal, l);
	l->sigint = evsignal_new(l->base, SIGINT, on_signal, l);
	if (!l->sync_timer || !l->trim_timer || !l->sigterm || !l->sigint ||
	    event_add(l->sigterm, NULL) < 0 || event_add(l->sigint, NULL) < 0)
		return wag_err_set(err, -ENOMEM, "out of memory");
	return loop_node_events(l, err);
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
		r = start_service_health(l, err);
	if (r == 0)
		r = start_stale_sock(l, err);
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
	l->view.service_health = l->service_health;
	l->view.stale = l->stale;
	return 0;
}

static void stop(struct loop *l)
{
	cni_watch_free(l->cni, l->told_to_end && l->config->cni_uninstall);
	health_free(l->health);
	health_free(l->metrics);
	service_health_free(l->service_health);
	ipam_node_free(l->ipam);
	source_free(l->source);
	flow_server_free(l->flow);
	names_free(l->names);
	endpoint_settle_free(l->settle);
	endpoint_watch_free(l->endpoints);
	policy_sync_done(&l->policies);
	sync_free(l->sync);
	stale_sock_free(l->stale);
	loop_node_stop(l);
	model_free(l->model);
	dataplane_free(l->dp);
	node_facts_done(&l->facts);
	nl_free(l->nl);
	loop_free_event(l->sync_timer);
	loop_free_event(l->trim_timer);
	loop_free_event(l->sigterm);
	loop_free_event(l->sigint);
	if (l->base)
		event_base_free(l->base);
}

int loop_run(const struct config *config, struct wag_err *err)
{
	static const double bounds[] = { 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,	2,
					 4,    8,     15,   30,	 60,   120, 300 };
	struct loop l = { .config = config, .monitor_fd = -1, .routes_fd = -1 };
	struct timespec now;
	int r;

	clock_gettime(CLOCK_REALTIME, &now);
	l.started_ms = wall_ms(&now);
	l.programming = (struct histogram){ .bounds = bounds,
					    .n = sizeof(bounds) / sizeof(*bounds) };
	l.view.programming = &l.programming;
	l.view.proxy_health = &l.proxy_health;

	l.view.node_name = config->node_name;
	l.compile_facts.node_name = config->node_name;
	l.compile_facts.lb_mode = config->lb_mode;
	l.compile_facts.lb_algorithm = config->lb_algorithm;
	l.compile_facts.tunnel = config->routing_mode != WAG_ROUTING_NATIVE;
	r = start(&l, err);
	if (r == 0 && event_base_dispatch(l.base) < 0)
		r = wag_err_set(err, -EIO, "event loop failed");
	if (r == 0 && l.restart)
		r = 1;
	stop(&l);
	return r;
}
