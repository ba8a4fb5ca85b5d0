// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <waggle/cleanup.h>
#include "grpc.h"

struct grpc_call {
	struct grpc_conn *conn;
	struct grpc_call *next, **prev;
	int32_t id;
	bool started, responded, deferred, finished;
	bool is_post, is_grpc;
	enum grpc_status status;
	uint64_t timeout_ns, deadline_ns; /* 0: none */
	void *state;
	struct grpc_buf in, out;
	char path[128];
	char message[384]; /* percent-encoded */
};

struct grpc_conn {
	struct grpc_handler handler;
	nghttp2_session *session;
	struct grpc_call *calls;
	size_t n_calls;
};

static nghttp2_nv nv(const char *name, const char *value)
{
	return (nghttp2_nv){ (uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value),
			     NGHTTP2_NV_FLAG_NONE };
}

static void call_free(struct grpc_call *call)
{
	if (call->started)
		call->conn->handler.end(call->conn->handler.ctx, call);
	*call->prev = call->next;
	if (call->next)
		call->next->prev = call->prev;
	call->conn->n_calls--;
	grpc_buf_done(&call->in);
	grpc_buf_done(&call->out);
	free(call);
}

static void fill(struct grpc_call *call)
{
	if (call->started && !call->finished && grpc_call_room(call))
		call->conn->handler.fill(call->conn->handler.ctx, call);
}

static void submit_trailers(struct grpc_call *call)
{
	char status[12];
	nghttp2_nv nva[2];

	snprintf(status, sizeof(status), "%d", call->status);
	nva[0] = nv("grpc-status", status);
	nva[1] = nv("grpc-message", call->message);
	nghttp2_submit_trailer(call->conn->session, call->id, nva, call->message[0] ? 2 : 1);
}

static ssize_t on_data_wanted(nghttp2_session *session, int32_t id, uint8_t *buf, size_t len,
			      uint32_t *flags, nghttp2_data_source *source, void *ctx)
{
	struct grpc_call *call = source->ptr;
	size_t n = grpc_buf_len(&call->out);

	if (n < len) {
		fill(call);
		n = grpc_buf_len(&call->out);
	}
	if (!n && !call->finished) {
		call->deferred = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	if (n > len)
		n = len;
	if (n)
		memcpy(buf, call->out.data + call->out.start, n);
	call->out.start += n;
	if (call->finished && !grpc_buf_len(&call->out)) {
		*flags = NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
		submit_trailers(call);
	}
	return n;
}

/* Headers go out with the first message; a call that fails before it is "trailers only". */
static void respond(struct grpc_call *call)
{
	nghttp2_data_provider provider = { .source.ptr = call, .read_callback = on_data_wanted };
	nghttp2_nv nva[4] = { nv(":status", "200"), nv("content-type", "application/grpc") };
	char status[12];

	call->responded = true;
	if (!call->finished || grpc_buf_len(&call->out)) {
		nghttp2_submit_response(call->conn->session, call->id, nva, 2, &provider);
		return;
	}
	snprintf(status, sizeof(status), "%d", call->status);
	nva[2] = nv("grpc-status", status);
	nva[3] = nv("grpc-message", call->message);
	nghttp2_submit_response(call->conn->session, call->id, nva, call->message[0] ? 4 : 3, NULL);
}

static void resume(struct grpc_call *call)
{
	if (!call->responded) {
		respond(call);
	} else if (call->deferred && (call->finished || grpc_buf_len(&call->out))) {
		call->deferred = false;
		nghttp2_session_resume_data(call->conn->session, call->id);
	}
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* The request is complete: the one place where a call begins. */
static void start(struct grpc_call *call)
{
	const uint8_t *msg;
	size_t len;
	int r;

	if (call->responded)
		return;
	if (call->timeout_ns)
		call->deadline_ns = now_ns() + call->timeout_ns;
	r = grpc_buf_message(&call->in, GRPC_REQUEST_MAX, &msg, &len);
	if (!call->is_post || !call->is_grpc)
		grpc_call_finish(call, GRPC_INTERNAL, "not a gRPC request");
	else if (r == -EPROTO)
		grpc_call_finish(call, GRPC_UNIMPLEMENTED, "compressed requests are not supported");
	else if (r < 0)
		grpc_call_finish(call, GRPC_RESOURCE_EXHAUSTED, "the request is too long");
	else if (r == 0 || grpc_buf_len(&call->in))
		grpc_call_finish(call, GRPC_INTERNAL, "the request is not one whole message");
	if (!call->finished) {
		call->started = true;
		call->conn->handler.start(call->conn->handler.ctx, call, call->path, msg, len);
		fill(call);
	}
	grpc_buf_done(&call->in);
	respond(call);
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *ctx)
{
	struct grpc_conn *conn = ctx;
	struct grpc_call *call;

	if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	call = calloc(1, sizeof(*call));
	if (!call)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	call->conn = conn;
	call->id = frame->hd.stream_id;
	call->prev = &conn->calls;
	call->next = conn->calls;
	if (call->next)
		call->next->prev = &call->next;
	conn->calls = call;
	conn->n_calls++;
	nghttp2_session_set_stream_user_data(session, call->id, call);
	return 0;
}

static bool is(const uint8_t *text, size_t len, const char *want)
{
	return len == strlen(want) && memcmp(text, want, len) == 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
		     void *ctx)
{
	struct grpc_call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	static const char type[] = "application/grpc";

	if (!call || frame->hd.type != NGHTTP2_HEADERS)
		return 0;
	if (is(name, name_len, ":path") && value_len < sizeof(call->path)) {
		memcpy(call->path, value, value_len);
		call->path[value_len] = '\0';
	} else if (is(name, name_len, ":method")) {
		call->is_post = is(value, value_len, "POST");
	} else if (is(name, name_len, "content-type")) {
		call->is_grpc = value_len >= strlen(type) && !memcmp(value, type, strlen(type));
	} else if (is(name, name_len, "grpc-timeout")) {
		if (grpc_timeout_parse((const char *)value, value_len, &call->timeout_ns) == 0 &&
		    !call->timeout_ns)
			call->timeout_ns = 1;
	}
	return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
		   size_t len, void *ctx)
{
	struct grpc_call *call = nghttp2_session_get_stream_user_data(session, id);

	if (!call || call->responded)
		return 0;
	if (grpc_buf_len(&call->in) + len > GRPC_REQUEST_MAX + GRPC_PREFIX ||
	    grpc_buf_append(&call->in, data, len) < 0) {
		grpc_call_finish(call, GRPC_RESOURCE_EXHAUSTED, "the request is too long");
		respond(call);
	}
	return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *ctx)
{
	struct grpc_call *call;

	if ((frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) ||
	    !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		return 0;
	call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	if (call)
		start(call);
	return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t code, void *ctx)
{
	struct grpc_call *call = nghttp2_session_get_stream_user_data(session, id);

	if (call) {
		nghttp2_session_set_stream_user_data(session, id, NULL);
		call_free(call);
	}
	return 0;
}

static int session_new(struct grpc_conn *conn)
{
	nghttp2_session_callbacks *cb;
	nghttp2_option *option;
	int r;

	if (nghttp2_session_callbacks_new(&cb))
		return -ENOMEM;
	if (nghttp2_option_new(&option)) {
		nghttp2_session_callbacks_del(cb);
		return -ENOMEM;
	}
	nghttp2_option_set_max_outbound_ack(option, 128);
	nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
	r = nghttp2_session_server_new2(&conn->session, cb, conn, option);
	nghttp2_option_del(option);
	nghttp2_session_callbacks_del(cb);
	return r ? -ENOMEM : 0;
}

int grpc_conn_new(struct grpc_conn **ret, const struct grpc_handler *handler)
{
	nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, GRPC_STREAMS_MAX },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, 8192 },
	};
	_cleanup_(grpc_conn_freep) struct grpc_conn *conn = calloc(1, sizeof(*conn));
	int r;

	if (!conn)
		return -ENOMEM;
	conn->handler = *handler;
	r = session_new(conn);
	if (r < 0)
		return r;
	if (nghttp2_submit_settings(conn->session, NGHTTP2_FLAG_NONE, settings, 2))
		return -ENOMEM;
	*ret = TAKE_PTR(conn);
	return 0;
}

void grpc_conn_free(struct grpc_conn *conn)
{
	if (!conn)
		return;
	while (conn->calls)
		call_free(conn->calls);
	nghttp2_session_del(conn->session);
	free(conn);
}

void grpc_conn_freep(struct grpc_conn **conn)
{
	grpc_conn_free(*conn);
}

int grpc_conn_recv(struct grpc_conn *conn, const uint8_t *data, size_t len)
{
	return nghttp2_session_mem_recv(conn->session, data, len) < 0 ? -EPROTO : 0;
}

ssize_t grpc_conn_send(struct grpc_conn *conn, const uint8_t **ret)
{
	ssize_t n = nghttp2_session_mem_send(conn->session, ret);

	return n < 0 ? -EPROTO : n;
}

void grpc_conn_poke(struct grpc_conn *conn, uint64_t now)
{
	for (struct grpc_call *call = conn->calls; call; call = call->next) {
		if (!call->started || call->finished)
			continue;
		if (call->deadline_ns && now >= call->deadline_ns)
			grpc_call_finish(call, GRPC_DEADLINE_EXCEEDED, "the deadline has passed");
		else if (call->deferred)
			fill(call);
		resume(call);
	}
}

bool grpc_conn_done(const struct grpc_conn *conn)
{
	return !nghttp2_session_want_read(conn->session) &&
	       !nghttp2_session_want_write(conn->session);
}

size_t grpc_conn_calls(const struct grpc_conn *conn)
{
	return conn->n_calls;
}

void *grpc_call_state(const struct grpc_call *call)
{
	return call->state;
}

void grpc_call_set_state(struct grpc_call *call, void *state)
{
	call->state = state;
}

bool grpc_call_room(const struct grpc_call *call)
{
	return grpc_buf_len(&call->out) < GRPC_CALL_BUFFER;
}

uint8_t *grpc_call_message(struct grpc_call *call, size_t len)
{
	uint8_t *to = grpc_buf_reserve(&call->out, GRPC_PREFIX + len);

	if (!to)
		return NULL;
	grpc_prefix(to, len);
	call->out.end += GRPC_PREFIX + len;
	return to + GRPC_PREFIX;
}

void grpc_call_finish(struct grpc_call *call, enum grpc_status status, const char *message)
{
	if (call->finished)
		return;
	call->finished = true;
	call->status = status;
	grpc_message_encode(call->message, sizeof(call->message), message ? message : "");
}

bool grpc_call_finished(const struct grpc_call *call)
{
	return call->finished;
}
