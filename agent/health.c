// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <limits.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <waggle/cleanup.h>
#include "health.h"

#define REQUEST_MAX 8192
#define TIMEOUT_S 10

struct health {
	struct event_base *base; /* the caller's */
	struct evhttp *http;
	const struct agent_view *view;
	char *unlink_path; /* of a unix socket */
};

static void reply(struct evhttp_request *req, int code, const char *reason, const char *type,
		  const struct text *t)
{
	struct evbuffer *out = evbuffer_new();

	if (!out || t->err) {
		evhttp_send_error(req, 500, "Out of memory");
	} else {
		evhttp_add_header(evhttp_request_get_output_headers(req), "Content-Type", type);
		evbuffer_add(out, t->data, t->len);
		evhttp_send_reply(req, code, reason, out);
	}
	if (out)
		evbuffer_free(out);
}

static void on_healthz(struct evhttp_request *req, void *ctx)
{
	struct text t = { 0 };

	text_add(&t, "ok\n");
	reply(req, 200, "OK", "text/plain; charset=utf-8", &t);
	text_done(&t);
}

static void on_readyz(struct evhttp_request *req, void *ctx)
{
	const struct health *h = ctx;
	struct text t = { 0 };
	bool ready = readiness_collect(&t, h->view);

	if (ready)
		text_add(&t, "ok\n");
	reply(req, ready ? 200 : 503, ready ? "OK" : "Service Unavailable",
	      "text/plain; charset=utf-8", &t);
	text_done(&t);
}

static void on_metrics(struct evhttp_request *req, void *ctx)
{
	const struct health *h = ctx;
	struct text t = { 0 };

	metrics_collect(&t, h->view);
	reply(req, 200, "OK", "text/plain; version=0.0.4; charset=utf-8", &t);
	text_done(&t);
}

int health_addr_parse(const char *addr, char *host, size_t host_size, uint16_t *ret_port)
{
	const char *colon = strrchr(addr, ':'), *from = addr;
	size_t n = colon ? (size_t)(colon - addr) : 0;
	unsigned long port;
	char *end;

	if (!colon || !colon[1])
		return -EINVAL;
	port = strtoul(colon + 1, &end, 10);
	if (*end || port > 65535 || colon[1] < '0' || colon[1] > '9')
		return -EINVAL;
	if (n >= 2 && from[0] == '[' && from[n - 1] == ']') {
		from++;
		n -= 2;
	} else if (memchr(from, ':', n)) {
		return -EINVAL; /* IPv6 without brackets */
	}
	if (!n || n >= host_size)
		return -EINVAL;
	memcpy(host, from, n);
	host[n] = 0;
	*ret_port = (uint16_t)port;
	return 0;
}

static int listen_unix(struct health *h, struct event_base *base, const char *path,
		       struct wag_err *err)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct evconnlistener *listener;

	if (strlen(path) >= sizeof(sun.sun_path))
		return wag_err_set(err, -ENAMETOOLONG, "--health-addr unix:%s: too long", path);
	strcpy(sun.sun_path, path);
	unlink(path); /* of an agent that was killed: the pin dir's lock says no other one runs */
	listener = evconnlistener_new_bind(base, NULL, NULL,
					   LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 16,
					   (struct sockaddr *)&sun, sizeof(sun));
	if (!listener)
		return wag_err_set(err, -errno, "--health-addr unix:%s: %s", path, strerror(errno));
	h->unlink_path = strdup(path);
	if (!h->unlink_path || !evhttp_bind_listener(h->http, listener)) {
		evconnlistener_free(listener);
		return wag_err_set(err, -ENOMEM, "out of memory");
	}
	return 0;
}

/*
 * 0, or an errno. Not evhttp_bind_socket(): it looks names up with AI_ADDRCONFIG, which knows no
 * 127.0.0.1 on a node that has IPv6 addresses only.
 */
static int bind_http(struct health *h, const char *host, uint16_t port)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
	struct evconnlistener *listener;
	struct addrinfo *found;
	char service[8];
	int r;

	snprintf(service, sizeof(service), "%u", port);
	r = getaddrinfo(host, service, &hints, &found);
	if (r)
		return r == EAI_SYSTEM ? errno : EADDRNOTAVAIL;
	listener = evconnlistener_new_bind(h->base, NULL, NULL,
					   LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC |
						   LEV_OPT_REUSEABLE,
					   128, found->ai_addr, found->ai_addrlen);
	r = errno;
	freeaddrinfo(found);
	if (!listener)
		return r ? r : ENOMEM;
	if (evhttp_bind_listener(h->http, listener))
		return 0;
	evconnlistener_free(listener);
	return ENOMEM;
}

static int listen_at(struct health *h, const char *flag, const char *addr, const char *host,
		     uint16_t port, struct wag_err *err)
{
	int e = bind_http(h, host, port);

	if (!e)
		return 0;
	if (e == EADDRINUSE)
		return wag_err_set(err, -e,
				   "--%s %s: in use by another process: give another port, or "
				   "--%s= for none",
				   flag, addr, flag);
	return wag_err_set(err, -e, "--%s %s: %s", flag, addr, strerror(e));
}

static int listen_tcp(struct health *h, const char *addr, struct wag_err *err)
{
	char host[256];
	uint16_t port;

	if (health_addr_parse(addr, host, sizeof(host), &port) < 0)
		return wag_err_set(err, -EINVAL,
				   "--health-addr '%s': HOST:PORT, [V6]:PORT or unix:/path is "
				   "needed",
				   addr);
	return listen_at(h, "health-addr", addr, host, port, err);
}

/* "::" takes IPv4 as well; where the kernel has no IPv6 it cannot be bound. */
static int listen_metrics(struct health *h, const char *addr, struct wag_err *err)
{
	static const char flag[] = "prometheus-serve-addr";
	char full[300], host[256];
	uint16_t port;
	int r;

	snprintf(full, sizeof(full), "%s%s", addr[0] == ':' ? "[::]" : "", addr);
	if (health_addr_parse(full, host, sizeof(host), &port) < 0)
		return wag_err_set(err, -EINVAL,
				   "--%s '%s': :PORT, HOST:PORT or [V6]:PORT is needed", flag,
				   addr);
	r = listen_at(h, flag, addr, host, port, err);
	return r < 0 && r != -EADDRINUSE && addr[0] == ':' ?
		       listen_at(h, flag, addr, "0.0.0.0", port, err) :
		       r;
}

static int http_new(struct health **ret, struct event_base *base, const struct agent_view *view,
		    struct wag_err *err)
{
	_cleanup_(health_freep) struct health *h = calloc(1, sizeof(*h));

	if (h)
		h->http = evhttp_new(base);
	if (!h || !h->http)
		return wag_err_set(err, -ENOMEM, "out of memory");
	h->base = base;
	h->view = view;
	evhttp_set_allowed_methods(h->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
	evhttp_set_max_headers_size(h->http, REQUEST_MAX);
	evhttp_set_max_body_size(h->http, REQUEST_MAX);
	evhttp_set_timeout(h->http, TIMEOUT_S);
	evhttp_set_cb(h->http, "/metrics", on_metrics, h);
	*ret = TAKE_PTR(h);
	return 0;
}

int health_new_metrics(struct health **ret, struct event_base *base, const char *addr,
		       const struct agent_view *view, struct wag_err *err)
{
	_cleanup_(health_freep) struct health *h = NULL;
	int r = http_new(&h, base, view, err);

	if (r == 0)
		r = listen_metrics(h, addr, err);
	if (r == 0)
		*ret = TAKE_PTR(h);
	return r;
}

int health_new(struct health **ret, struct event_base *base, const char *addr,
	       const struct agent_view *view, struct wag_err *err)
{
	_cleanup_(health_freep) struct health *h = NULL;
	int r = http_new(&h, base, view, err);

	if (r < 0)
		return r;
	evhttp_set_cb(h->http, "/healthz", on_healthz, h);
	evhttp_set_cb(h->http, "/readyz", on_readyz, h);
	if (strncmp(addr, "unix:", 5) == 0)
		r = listen_unix(h, base, addr + 5, err);
	else
		r = listen_tcp(h, addr, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(h);
	return 0;
}

void health_free(struct health *h)
{
	if (!h)
		return;
	if (h->http)
		evhttp_free(h->http);
	if (h->unlink_path)
		unlink(h->unlink_path);
	free(h->unlink_path);
	free(h);
}

void health_freep(struct health **h)
{
	health_free(*h);
}
