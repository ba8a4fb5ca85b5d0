// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "grpc_client.h"

struct grpc_client {
	int fd;
	nghttp2_session *session;
	char server[256];
	/* of the call under way */
	int32_t id;
	bool closed;
	int http_status, status; /* status -1: none yet */
	int result;		 /* of fn, or of decoding */
	char message[512];
	struct grpc_buf in;
	const uint8_t *request;
	size_t request_len, request_at;
	grpc_client_fn fn;
	void *ctx;
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

/* ---- connecting ---- */

static int wait_connected(int fd, int timeout_ms)
{
	struct pollfd p = { fd, POLLOUT, 0 };
	socklen_t len = sizeof(int);
	int code = 0, n;

	n = poll(&p, 1, timeout_ms);
	if (n < 0)
		return -errno;
	if (n == 0)
		return -ETIMEDOUT;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len);
	return -code;
}

static int connect_to(const struct sockaddr *addr, socklen_t len, int timeout_ms)
{
	_cleanup_close_ int fd =
		socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r = 0;

	if (fd < 0)
		return -errno;
	if (connect(fd, addr, len) < 0)
		r = errno == EINPROGRESS || errno == EAGAIN ? wait_connected(fd, timeout_ms)
							    : -errno;
	return r < 0 ? r : TAKE_FD(fd);
}

static int connect_unix(const char *path, int timeout_ms)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	return connect_to((struct sockaddr *)&addr, sizeof(addr), timeout_ms);
}

static int connect_tcp(const char *server, int timeout_ms, struct wag_err *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list;
	const char *colon = strrchr(server, ':');
	char host[256];
	__u16 port;
	size_t len;
	int r;

	if (!colon || (size_t)(colon - server) >= sizeof(host) ||
	    wag_port_parse(colon + 1, &port) < 0)
		return wag_err_set(err, -EINVAL,
				   "server \"%s\" is neither unix:///PATH nor HOST:PORT", server);
	len = colon - server;
	memcpy(host, server, len);
	host[len] = '\0';
	if (len > 1 && host[0] == '[' && host[len - 1] == ']') {
		host[len - 1] = '\0';
		memmove(host, host + 1, len - 1);
	}
	r = getaddrinfo(*host ? host : "localhost", colon + 1, &hints, &list);
	if (r)
		return wag_err_set(err, -EHOSTUNREACH, "cannot find \"%s\": %s", server,
				   gai_strerror(r));
	r = -EHOSTUNREACH;
	for (struct addrinfo *a = list; a && r < 0; a = a->ai_next)
		r = connect_to(a->ai_addr, a->ai_addrlen, timeout_ms);
	freeaddrinfo(list);
	return r;
}

static int dial(const char *server, int timeout_ms, struct wag_err *err)
{
	int fd;

	if (strncmp(server, "tls://", 6) == 0)
		return wag_err_set(err, -EPROTONOSUPPORT, "TLS servers are not supported: %s",
				   server);
	if (strncmp(server, "unix:", 5) == 0)
		fd = connect_unix(strncmp(server + 5, "//", 2) ? server + 5 : server + 7,
				  timeout_ms);
	else
		fd = connect_tcp(strncmp(server, "tcp://", 6) ? server : server + 6, timeout_ms,
				 err);
	if (fd == -EINVAL && err->code)
		return fd;
	if (fd < 0 && !err->code)
		wag_err_set(err, fd, "%s", strerror(-fd));
	if (fd < 0)
		wag_err_set(err, fd,
			    "cannot connect to %s (%s): is waggle-agent running? use --server",
			    server, strerror(-fd));
	return fd;
}

/* ---- nghttp2 callbacks ---- */

static bool is(const uint8_t *text, size_t len, const char *want)
{
	return len == strlen(want) && memcmp(text, want, len) == 0;
}

static int number(const uint8_t *text, size_t len)
{
	char buf[12];

	snprintf(buf, sizeof(buf), "%.*s", (int)len, (const char *)text);
	return atoi(buf);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
		     void *ctx)
{
	struct grpc_client *c = ctx;

	if (frame->hd.stream_id != c->id)
		return 0;
	if (is(name, name_len, ":status")) {
		c->http_status = number(value, value_len);
	} else if (is(name, name_len, "grpc-status")) {
		c->status = number(value, value_len);
	} else if (is(name, name_len, "grpc-message")) {
		snprintf(c->message, sizeof(c->message), "%.*s", (int)value_len,
			 (const char *)value);
		grpc_message_decode(c->message);
	}
	return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
		   size_t len, void *ctx)
{
	struct grpc_client *c = ctx;
	const uint8_t *msg;
	size_t msg_len;
	int r;

	if (id != c->id || c->result)
		return 0;
	r = grpc_buf_append(&c->in, data, len);
	while (r == 0) {
		r = grpc_buf_message(&c->in, GRPC_RESPONSE_MAX, &msg, &msg_len);
		if (r <= 0)
			break;
		r = c->fn(c->ctx, msg, msg_len);
	}
	c->result = r;
	return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t code, void *ctx)
{
	struct grpc_client *c = ctx;

	if (id == c->id)
		c->closed = true;
	return 0;
}

static ssize_t on_request_wanted(nghttp2_session *session, int32_t id, uint8_t *buf, size_t len,
				 uint32_t *flags, nghttp2_data_source *source, void *ctx)
{
	struct grpc_client *c = ctx;
	uint8_t prefix[GRPC_PREFIX];
	size_t n = 0;

	grpc_prefix(prefix, c->request_len);
	for (; n < len && c->request_at < GRPC_PREFIX; n++)
		buf[n] = prefix[c->request_at++];
	for (; n < len && c->request_at < GRPC_PREFIX + c->request_len; n++)
		buf[n] = c->request[c->request_at++ - GRPC_PREFIX];
	if (c->request_at == GRPC_PREFIX + c->request_len)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return n;
}

static int session_new(struct grpc_client *c)
{
	nghttp2_settings_entry settings[] = { { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20 } };
	nghttp2_session_callbacks *cb;
	int r;

	if (nghttp2_session_callbacks_new(&cb))
		return -ENOMEM;
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
	r = nghttp2_session_client_new(&c->session, cb, c);
	nghttp2_session_callbacks_del(cb);
	if (r || nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, 1))
		return -ENOMEM;
	nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, 1 << 20);
	return 0;
}

int grpc_client_new(struct grpc_client **ret, const char *server, int timeout_ms,
		    struct wag_err *err)
{
	_cleanup_(grpc_client_freep) struct grpc_client *c = calloc(1, sizeof(*c));
	struct wag_err local = { 0 };

	if (!err)
		err = &local;
	if (!c)
		return wag_err_set(err, -ENOMEM, "out of memory");
	err->code = 0;
	snprintf(c->server, sizeof(c->server), "%s", server);
	c->fd = dial(server, timeout_ms, err);
	if (c->fd < 0)
		return c->fd;
	if (session_new(c) < 0)
		return wag_err_set(err, -ENOMEM, "out of memory");
	*ret = TAKE_PTR(c);
	return 0;
}

void grpc_client_free(struct grpc_client *c)
{
	if (!c)
		return;
	nghttp2_session_del(c->session);
	closep(&c->fd);
	grpc_buf_done(&c->in);
	free(c);
}

void grpc_client_freep(struct grpc_client **c)
{
	grpc_client_free(*c);
}

/* ---- one call ---- */

static int flush(struct grpc_client *c)
{
	for (;;) {
		const uint8_t *data;
		ssize_t n = nghttp2_session_mem_send(c->session, &data);

		if (n < 0)
			return -EPROTO;
		if (n == 0)
			return 0;
		while (n > 0) {
			struct pollfd p = { c->fd, POLLOUT, 0 };
			ssize_t sent = send(c->fd, data, n, MSG_NOSIGNAL);

			if (sent < 0 && errno == EAGAIN)
				poll(&p, 1, 1000);
			else if (sent < 0 && errno != EINTR)
				return -errno;
			if (sent > 0) {
				data += sent;
				n -= sent;
			}
		}
	}
}

static int receive(struct grpc_client *c, int timeout_ms)
{
	struct pollfd p = { c->fd, POLLIN, 0 };
	uint8_t buf[16384];
	ssize_t n;

	n = poll(&p, 1, timeout_ms);
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	if (n == 0)
		return -ETIMEDOUT;
	n = recv(c->fd, buf, sizeof(buf), 0);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0)
		return -ECONNRESET;
	return nghttp2_session_mem_recv(c->session, buf, n) < 0 ? -EPROTO : 0;
}

static int submit(struct grpc_client *c, const char *path)
{
#define NV(n, v)                                                                                   \
	{                                                                                          \
		(uint8_t *)(n), (uint8_t *)(v), strlen(n), strlen(v), NGHTTP2_NV_FLAG_NONE         \
	}
	const nghttp2_nv nva[] = {
		NV(":method", "POST"),
		NV(":scheme", "http"),
		NV(":path", path),
		NV(":authority", "localhost"),
		NV("te", "trailers"),
		NV("content-type", "application/grpc"),
		NV("user-agent", "flow-observe/" WAGGLE_VERSION),
	};
#undef NV
	nghttp2_data_provider provider = { .read_callback = on_request_wanted };

	c->id = nghttp2_submit_request(c->session, NULL, nva, sizeof(nva) / sizeof(nva[0]),
				       &provider, NULL);
	return c->id < 0 ? -EPROTO : 0;
}

static int verdict(const struct grpc_client *c, struct wag_err *err)
{
	if (c->status == GRPC_OK)
		return 0;
	if (c->status < 0)
		return wag_err_set(err, -EPROTO, "%s is not a gRPC server (HTTP status %d)",
				   c->server, c->http_status);
	return wag_err_set(err, -EREMOTEIO, "%s refused (gRPC status %d): %s", c->server, c->status,
			   *c->message ? c->message : "no reason given");
}

int grpc_client_call(struct grpc_client *c, const char *path, const uint8_t *request, size_t len,
		     int timeout_ms, grpc_client_fn fn, void *ctx, struct wag_err *err)
{
	uint64_t until = now_ms() + timeout_ms;
	int r;

	c->closed = false;
	c->status = -1;
	c->http_status = c->result = 0;
	c->message[0] = '\0';
	c->in.start = c->in.end = 0;
	c->request = request;
	c->request_len = len;
	c->request_at = 0;
	c->fn = fn;
	c->ctx = ctx;
	r = submit(c, path);
	while (r == 0 && !c->closed && !c->result) {
		uint64_t now = now_ms();
		int wait = !timeout_ms ? -1 : now < until ? (int)(until - now) : 0;

		r = flush(c);
		if (r == 0)
			r = receive(c, wait);
	}
	if (c->result) {
		nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, c->id, NGHTTP2_CANCEL);
		flush(c);
		return c->result;
	}
	if (c->closed)
		return verdict(c, err);
	if (r == -ECONNRESET)
		return wag_err_set(err, r, "%s closed the connection", c->server);
	return wag_err_set(err, r, "%s: %s", c->server, strerror(-r));
}
