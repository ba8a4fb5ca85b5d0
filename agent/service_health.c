// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <errno.h>
#include <event2/http.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uthash.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "health.h"
#include "http_port.h"
#include "service_health.h"

struct entry;

struct listener {
	struct entry *entry;
	struct http_port *port; /* NULL: none */
	uint16_t number;	/* that port has, host order */
	uint32_t local;
};

struct entry {
	UT_hash_handle hh;
	struct service_health *owner;
	struct entry *next_changed;
	bool changed;
	struct health_check check;
	struct listener listeners[HEALTH_FAMILIES];
	const char *name; /* behind the namespace in key */
	char key[];	  /* "ns\0name" */
};

struct service_health {
	struct service_health_options options;
	struct entry *entries, *changed;
	struct http_port *node;
	struct service_health_stats stats; /* healthz, livez; the rest is counted */
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- answers ---- */

static void answer_service(struct evhttp_request *req, void *ctx)
{
	const struct listener *l = ctx;
	const struct entry *e = l->entry;
	struct proxy_answer answer;
	struct wag_addr addr;
	char weight[16];

	if (!http_port_local(req, &addr) ||
	    !e->owner->options.serves(&addr, e->owner->options.ctx)) {
		evhttp_send_error(req, HTTP_NOTFOUND, NULL);
		return;
	}
	proxy_health_service(e->key, e->name, l->local,
			     proxy_health_ok(e->owner->options.proxy, now_ms()), &answer);
	snprintf(weight, sizeof(weight), "%u", l->local);
	evhttp_add_header(evhttp_request_get_output_headers(req),
			  "X-Load-Balancing-Endpoint-Weight", weight);
	http_port_reply(req, answer.code, answer.body);
}

/* A node that nobody tells of is taken for a good one. */
static bool node_eligible(const struct service_health *h)
{
	const struct object *node =
		model_get(h->options.model, MODEL_NODE, "", h->options.node_name);

	return !node || !node->node.leaving;
}

static void answer_node(struct evhttp_request *req, void *ctx)
{
	const char *path = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(req));
	struct service_health *h = ctx;
	struct proxy_answer answer;
	struct timespec wall;

	clock_gettime(CLOCK_REALTIME, &wall);
	if (path && strcmp(path, "/healthz") == 0) {
		proxy_health_healthz(h->options.proxy, now_ms(), wall, node_eligible(h), &answer);
		h->stats.healthz[answer.code != 200]++;
	} else if (path && strcmp(path, "/livez") == 0) {
		proxy_health_livez(h->options.proxy, now_ms(), wall, &answer);
		h->stats.livez[answer.code != 200]++;
	} else {
		evhttp_send_error(req, HTTP_NOTFOUND, NULL);
		return;
	}
	http_port_reply(req, answer.code, answer.body);
}

/* ---- the node ---- */

int service_health_serve_node(struct service_health *h, const char *text, struct wag_err *err)
{
	struct http_port_options o = { .base = h->options.base,
				       .answer = answer_node,
				       .ctx = h,
				       .reporter = h->options.reporter };
	struct wag_addr addr;
	char host[64], what[160];
	uint16_t port;

	if (health_addr_parse(text, host, sizeof(host), &port) < 0 ||
	    wag_addr_parse(host, &addr) < 0 || !port)
		return wag_err_set(err, -EINVAL,
				   "--healthz-bind-address '%s': IP:PORT or [V6]:PORT is needed, "
				   "or nothing for no such server",
				   text);
	o.both = wag_addr_is_zero(&addr) || (wag_addr_is_v4(&addr) && !addr.w[3]);
	if (!o.both && wag_addr_is_v4(&addr))
		o.addr.v4 = (struct sockaddr_in){ .sin_family = AF_INET,
						  .sin_port = htons(port),
						  .sin_addr.s_addr = addr.w[3] };
	else
		o.addr.v6 = (struct sockaddr_in6){ .sin6_family = AF_INET6,
						   .sin6_port = htons(port) };
	if (!o.both && !wag_addr_is_v4(&addr))
		memcpy(&o.addr.v6.sin6_addr, &addr, sizeof(addr));
	snprintf(what, sizeof(what), "--healthz-bind-address %s", text);
	o.what = what;
	return http_port_new(&h->node, &o) < 0 ? wag_err_set(err, -ENOMEM, "out of memory") : 0;
}

/* ---- Services ---- */

static uint16_t wanted(const struct entry *e, int family)
{
	return e->check.family[family].serves ? e->check.port : 0;
}

static void close_unwanted(struct entry *e)
{
	for (int f = 0; f < HEALTH_FAMILIES; f++) {
		struct listener *l = &e->listeners[f];

		l->local = e->check.family[f].local;
		if (!l->port || l->number == wanted(e, f))
			continue;
		http_port_free(TAKE_PTR(l->port));
	}
}

static void on_report(void *ctx, enum wag_log_level level, const char *text)
{
	const struct entry *e = ctx;
	const struct service_health_options *o = &e->owner->options;

	if (o->reporter.fn)
		o->reporter.fn(o->reporter.ctx, level, text);
	if (level == WAG_LOG_ERROR && o->failed)
		o->failed(e->key, e->name, text, o->ctx);
}

static int open_wanted(struct entry *e)
{
	struct http_port_options o = { .base = e->owner->options.base,
				       .answer = answer_service,
				       .reporter = { on_report, e } };
	char what[400];

	for (int f = 0; f < HEALTH_FAMILIES; f++) {
		struct listener *l = &e->listeners[f];
		uint16_t port = wanted(e, f);

		if (l->port || !port)
			continue;
		snprintf(what, sizeof(what), "Service %s/%s: healthCheckNodePort %u of %s", e->key,
			 e->name, port, f == HEALTH_V4 ? "IPv4" : "IPv6");
		o.what = what;
		o.ctx = l;
		if (f == HEALTH_V4)
			o.addr.v4 = (struct sockaddr_in){ .sin_family = AF_INET,
							  .sin_port = htons(port) };
		else
			o.addr.v6 = (struct sockaddr_in6){ .sin6_family = AF_INET6,
							   .sin6_port = htons(port) };
		if (http_port_new(&l->port, &o) < 0)
			return -ENOMEM;
		l->number = port;
	}
	return 0;
}

static bool is_empty(const struct health_check *check)
{
	return !check->port;
}

static void entry_free(struct entry *e)
{
	for (int f = 0; f < HEALTH_FAMILIES; f++)
		http_port_free(e->listeners[f].port);
	free(e);
}

static struct entry *entry_new(struct service_health *h, const char *ns, const char *name)
{
	size_t ns_size = strlen(ns) + 1, name_size = strlen(name) + 1;
	struct entry *e = calloc(1, sizeof(*e) + ns_size + name_size);

	if (!e)
		return NULL;
	e->owner = h;
	e->name = e->key + ns_size;
	memcpy(e->key, ns, ns_size);
	memcpy(e->key + ns_size, name, name_size);
	for (int f = 0; f < HEALTH_FAMILIES; f++)
		e->listeners[f].entry = e;
	HASH_ADD_KEYPTR(hh, h->entries, e->key, ns_size + name_size - 1, e);
	return e;
}

static struct entry *entry_find(struct service_health *h, const char *ns, const char *name)
{
	struct entry *e = NULL;
	char key[400];
	int n = snprintf(key, sizeof(key), "%s%c%s", ns, 0, name);

	if (n > 0 && (size_t)n < sizeof(key))
		HASH_FIND(hh, h->entries, key, (size_t)n, e);
	return e;
}

int service_health_set(struct service_health *h, const char *ns, const char *name,
		       const struct health_check *check)
{
	static const struct health_check none;
	struct entry *e = entry_find(h, ns, name);

	check = check ? check : &none;
	if (!e && is_empty(check))
		return 0;
	if (!e)
		e = entry_new(h, ns, name);
	if (!e)
		return -ENOMEM;
	e->check = *check;
	if (!e->changed) {
		e->changed = true;
		e->next_changed = h->changed;
		h->changed = e;
	}
	return 0;
}

/* A port may have gone from one Service to another: all are closed before any is opened. */
int service_health_apply(struct service_health *h)
{
	struct entry *e, *next;
	int r = 0;

	for (e = h->changed; e; e = e->next_changed)
		close_unwanted(e);
	for (e = TAKE_PTR(h->changed); e; e = next) {
		next = e->next_changed;
		e->changed = false;
		if (is_empty(&e->check)) {
			HASH_DEL(h->entries, e);
			entry_free(e);
		} else if (open_wanted(e) < 0) {
			r = -ENOMEM;
		}
	}
	return r;
}

/* ---- life ---- */

int service_health_new(struct service_health **ret, const struct service_health_options *options)
{
	struct service_health *h = calloc(1, sizeof(*h));

	if (!h)
		return -ENOMEM;
	h->options = *options;
	*ret = h;
	return 0;
}

void service_health_free(struct service_health *h)
{
	struct entry *e, *tmp;

	if (!h)
		return;
	HASH_ITER (hh, h->entries, e, tmp) {
		HASH_DEL(h->entries, e);
		entry_free(e);
	}
	http_port_free(h->node);
	free(h);
}

void service_health_get_stats(const struct service_health *h, struct service_health_stats *ret)
{
	struct entry *e, *tmp;

	*ret = h->stats;
	ret->node_failed = h->node && http_port_error(h->node);
	HASH_ITER (hh, h->entries, e, tmp) {
		for (int f = 0; f < HEALTH_FAMILIES; f++) {
			const struct http_port *port = e->listeners[f].port;

			ret->listening += port && !http_port_error(port);
			ret->failed += port && http_port_error(port);
		}
	}
}
