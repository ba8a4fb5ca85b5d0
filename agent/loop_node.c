// SPDX-License-Identifier: Apache-2.0
/* The node itself changes while the agent runs: devices, addresses, MTUs, routes. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "loop_internal.h"
#include "node_route.h"

#define NODE_DELAY_MS 20 /* links and addresses change in bursts */

void loop_log_devices(const struct node_facts *f, uint32_t socket_lb)
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

void loop_log_pacing(const struct node_facts *f)
{
	log_info("bandwidth of pods: %s",
		 f->paced ? "departure times, for fq sends on every device served"
			  : "token bucket, for fq does not send on every device served");
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
	struct dp_tunnel tunnel;
	int r = node_net_tunnel(&tunnel, l->nl, l->config, facts, err);

	if (r < 0)
		return r;
	if (tunnel.dev.ifindex != l->tunnel.dev.ifindex) {
		start_anew(l, "the tunnel's device was removed");
		return 0;
	}
	node_net_mtu(l->config, facts, &mtu, &tunnel_mtu);
	r = dataplane_set_mtu(l->dp, mtu, tunnel_mtu);
	if (r == 0)
		r = node_net_set_facts(l->net, facts, &tunnel.dev);
	return r < 0 ? wag_err_set(err, r, "following the node's devices: %s", strerror(-r)) : 0;
}

/* Takes what is new; 0 also where the agent is about to start anew. */
static int follow(struct loop *l, struct node_facts *facts, struct wag_err *err)
{
	int r = 0;

	if (main_addr_gone(facts, &l->facts.v4, &facts->v4) ||
	    main_addr_gone(facts, &l->facts.v6, &facts->v6)) {
		start_anew(l, "the node's main address has changed");
		return 0;
	}
	facts->v4 = l->facts.v4;
	facts->v6 = l->facts.v6;
	if (!same_devices(facts, &l->facts)) {
		r = dataplane_set_devices(l->dp, facts->devices, facts->n_devices, err);
		if (r == 0)
			loop_log_devices(facts, l->config->socket_lb);
	}
	if (r == 0 && facts->paced != l->facts.paced) {
		r = dataplane_set_pacing(l->dp, facts->paced);
		if (r < 0)
			return wag_err_set(err, r, "map wag_runtime: %s", strerror(-r));
		loop_log_pacing(facts);
	}
	return r < 0 ? r : follow_facts(l, facts, err);
}

static void on_node_timer(evutil_socket_t fd, short what, void *ctx)
{
	struct loop *l = ctx;
	struct node_facts facts;
	struct wag_err err = { 0 };
	int r = node_facts_read(&facts, l->nl, l->config->devices);

	endpoint_watch_links(l->endpoints);
	if (r < 0) {
		log_error("reading links and addresses: %s: trying again in 1 s", strerror(-r));
		loop_start_timer(l->node_timer, 1000);
		return;
	}
	node_facts_ports(&facts, l->config->nodeport_addresses, &l->facts.v4, &l->facts.v6);
	r = sync_set_node_addrs(l->sync, facts.addrs, facts.n_addrs);
	if (r < 0)
		wag_err_set(&err, r, "out of memory");
	else
		r = follow(l, &facts, &err);
	if (r < 0) {
		log_error("%s: trying again in 1 s", err.msg);
		loop_start_timer(l->node_timer, 1000);
		node_facts_done(&facts);
	} else {
		node_facts_done(&l->facts);
		l->facts = facts;
	}
	loop_schedule_sync(l);
}

static void on_monitor(evutil_socket_t fd, short what, void *ctx)
{
	struct loop *l = ctx;

	if (nl_monitor_read(fd) != 0 && !event_pending(l->node_timer, EV_TIMEOUT, NULL))
		loop_start_timer(l->node_timer, NODE_DELAY_MS);
}

static void on_routes(evutil_socket_t fd, short what, void *ctx)
{
	struct loop *l = ctx;

	if (nl_route_monitor_read(fd, NODE_ROUTE_PROTO) == 0)
		return;
	node_net_check_routes(l->net);
	loop_schedule_sync(l);
}

static void on_masq(void *ctx, const struct node_prefix *list, size_t n)
{
	struct loop *l = ctx;

	if (node_net_set_no_masquerade(l->net, list, n) < 0)
		log_error("--ip-masq-agent-config: out of memory");
	loop_schedule_sync(l);
}

int loop_node_events(struct loop *l, struct wag_err *err)
{
	int r = nl_new(&l->nl);

	l->monitor_fd = r < 0 ? r : nl_monitor_open();
	l->routes_fd = l->monitor_fd < 0 ? l->monitor_fd : nl_route_monitor_open();
	if (l->routes_fd < 0)
		return wag_err_set(err, l->routes_fd, "rtnetlink: %s", strerror(-l->routes_fd));
	l->node_timer = evtimer_new(l->base, on_node_timer, l);
	l->monitor = event_new(l->base, l->monitor_fd, EV_READ | EV_PERSIST, on_monitor, l);
	l->routes = event_new(l->base, l->routes_fd, EV_READ | EV_PERSIST, on_routes, l);
	if (!l->node_timer || !l->monitor || !l->routes || event_add(l->monitor, NULL) < 0 ||
	    event_add(l->routes, NULL) < 0)
		return wag_err_set(err, -ENOMEM, "out of memory");
	return 0;
}

int loop_node_start(struct loop *l, struct wag_err *err)
{
	const char *masq = l->config->ip_masq_agent_config;
	int r = node_net_new(&l->net, l->config, l->dp, loop_report, l, err);

	if (r < 0)
		return r;
	r = node_net_set_facts(l->net, &l->facts, &l->tunnel.dev);
	if (r == 0 && masq && masq[0])
		r = masq_watch_new(&l->masq, l->base, masq, on_masq, loop_report, l);
	return r < 0 ? wag_err_set(err, r, "starting: %s", strerror(-r)) : 0;
}

void loop_node_stop(struct loop *l)
{
	masq_watch_free(l->masq);
	node_net_free(l->net);
	loop_free_event(l->node_timer);
	loop_free_event(l->monitor);
	loop_free_event(l->routes);
	closep(&l->monitor_fd);
	closep(&l->routes_fd);
}
