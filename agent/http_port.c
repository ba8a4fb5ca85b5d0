// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "http_port.h"

#define REQUEST_MAX 8192
#define TIMEOUT_S 10
#define BACKLOG 128
#define RETRY_MIN_MS 250
#define RETRY_MAX_MS 15000

struct http_port {
	struct http_port_options options;
	struct evhttp *http;
	struct event *retry;
	char *what;
	unsigned retry_ms;
	int err, told;
};

static int listen_socket(const struct http_port_options *o, const struct sockaddr *sa)
{
	socklen_t len = sa->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
						  : sizeof(struct sockaddr_in);
	_cleanup_close_ int fd =
		socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1, v6only = !o->both;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    (sa->sa_family == AF_INET6 &&
	     setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof(v6only)) < 0) ||
	    bind(fd, sa, len) < 0 || listen(fd, BACKLOG) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static int open_socket(const struct http_port_options *o)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = o->addr.v6.sin6_port };
	int fd = listen_socket(o, &o->addr.sa);

	if (o->both && (fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL))
		fd = listen_socket(o, (const struct sockaddr *)&any);
	return fd;
}

static void report(const struct http_port *p, enum wag_log_level level, const char *text)
{
	char msg[512];

	if (!p->options.reporter.fn)
		return;
	snprintf(msg, sizeof(msg), "%s: %s", p->what, text);
	p->options.reporter.fn(p->options.reporter.ctx, level, msg);
}

static void tell(struct http_port *p)
{
	char text[128];

	if (p->err == p->told)
		return;
	p->told = p->err;
	if (!p->err) {
		report(p, WAG_LOG_INFO, "answers now");
		return;
	}
	snprintf(text, sizeof(text), "%s; trying again until it can be had",
		 p->err == EADDRINUSE ? "in use: end the process that has it, or give another "
					"port"
				      : strerror(p->err));
	report(p, WAG_LOG_ERROR, text);
}

static void try_listen(struct http_port *p)
{
	int fd = open_socket(&p->options);

	p->err = fd < 0 ? -fd : 0;
	if (fd >= 0 && evhttp_accept_socket(p->http, fd) < 0) {
		close(fd);
		p->err = ENOMEM;
	}
	tell(p);
	if (p->err) {
		const struct timeval tv = { .tv_sec = p->retry_ms / 1000,
					    .tv_usec = p->retry_ms % 1000 * 1000 };

		event_add(p->retry, &tv);
		p->retry_ms = p->retry_ms * 2 < RETRY_MAX_MS ? p->retry_ms * 2 : RETRY_MAX_MS;
	}
}

static void on_retry(evutil_socket_t fd, short what, void *ctx)
{
	try_listen(ctx);
}

int http_port_new(struct http_port **ret, const struct http_port_options *options)
{
	struct http_port *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->options = *options;
	p->retry_ms = RETRY_MIN_MS;
	p->what = strdup(options->what);
	p->http = evhttp_new(options->base);
	p->retry = evtimer_new(options->base, on_retry, p);
	if (!p->what || !p->http || !p->retry) {
		http_port_free(p);
		return -ENOMEM;
	}
	evhttp_set_allowed_methods(p->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
	evhttp_set_max_headers_size(p->http, REQUEST_MAX);
	evhttp_set_max_body_size(p->http, REQUEST_MAX);
	evhttp_set_timeout(p->http, TIMEOUT_S);
	evhttp_set_gencb(p->http, options->answer, options->ctx);
	try_listen(p);
	*ret = p;
	return 0;
}

void http_port_free(struct http_port *p)
{
	if (!p)
		return;
	if (p->http)
		evhttp_free(p->http);
	if (p->retry)
		event_free(p->retry);
	free(p->what);
	free(p);
}

int http_port_error(const struct http_port *p)
{
	return p->err;
}

bool http_port_local(struct evhttp_request *req, struct wag_addr *ret)
{
	struct evhttp_connection *connection = evhttp_request_get_connection(req);
	union {
		struct sockaddr sa;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} addr;
	socklen_t len = sizeof(addr);

	if (getsockname(bufferevent_getfd(evhttp_connection_get_bufferevent(connection)), &addr.sa,
			&len) < 0)
		return false;
	if (addr.sa.sa_family == AF_INET)
		*ret = wag_addr_from_v4(addr.v4.sin_addr.s_addr);
	else
		memcpy(ret, &addr.v6.sin6_addr, sizeof(*ret));
	return true;
}

void http_port_reply(struct evhttp_request *req, int code, const char *body)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(req);
	struct evbuffer *out = evbuffer_new();

	if (!out) {
		evhttp_send_error(req, 500, "Out of memory");
		return;
	}
	evhttp_add_header(headers, "Content-Type", "application/json");
	evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
	evbuffer_add(out, body, strlen(body));
	evhttp_send_reply(req, code, code == 200 ? "OK" : "Service Unavailable", out);
	evbuffer_free(out);
}
