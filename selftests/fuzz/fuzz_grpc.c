// SPDX-License-Identifier: Apache-2.0
/*
 * Bytes on the server's socket. The first byte chooses: raw bytes; frames behind a good preface; a
 * request of the given bytes inside well-formed HTTP/2, so that the decoder behind is reached too.
 */
#include <nghttp2/nghttp2.h>
#include <stdlib.h>
#include <string.h>
#include "hubble-like/grpc.h"
#include "hubble-like/observer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct flow_names *names;
static struct flow_ring *ring;
static struct observer observer;

static void world(void)
{
	if (flow_names_new(&names) < 0 || flow_ring_new(&ring, 7) < 0)
		abort();
	observer_init(&observer, ring, "n");
	for (unsigned i = 0; i < 20; i++) {
		struct flow_record rec = { .time_ns = i, .kind = i % 4 };

		if (rec.kind != FLOW_RECORD_LOST)
			rec.event.type = 1 + i % 3;
		flow_ring_push(ring, &rec);
	}
}

static void drain(struct grpc_conn *conn)
{
	const uint8_t *out;

	for (int i = 0; i < 64 && grpc_conn_send(conn, &out) > 0; i++)
		;
}

struct request {
	const uint8_t *data;
	size_t size;
};

static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *buf, size_t len,
			 uint32_t *flags, nghttp2_data_source *source, void *ctx)
{
	struct request *r = source->ptr;
	size_t n = r->size < len ? r->size : len;

	memcpy(buf, r->data, n);
	r->data += n;
	r->size -= n;
	if (!r->size)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return n;
}

static void send_request(struct grpc_conn *conn, const uint8_t *data, size_t size)
{
#define NV(n, v)                                                                                   \
	{                                                                                          \
		(uint8_t *)(n), (uint8_t *)(v), strlen(n), strlen(v), 0                            \
	}
	const nghttp2_nv nva[] = {
		NV(":method", "POST"),
		NV(":scheme", "http"),
		NV(":path", "/observer.Observer/GetFlows"),
		NV("content-type", "application/grpc"),
	};
#undef NV
	nghttp2_session_callbacks *cb;
	nghttp2_session *session;
	uint8_t *body = malloc(GRPC_PREFIX + size);
	struct request request = { body, GRPC_PREFIX + size };
	nghttp2_data_provider provider = { { .ptr = &request }, read_body };
	const uint8_t *out;
	ssize_t n;

	grpc_prefix(body, size);
	if (size)
		memcpy(body + GRPC_PREFIX, data, size);
	nghttp2_session_callbacks_new(&cb);
	nghttp2_session_client_new(&session, cb, NULL);
	nghttp2_submit_settings(session, 0, NULL, 0);
	nghttp2_submit_request(session, NULL, nva, 4, &provider, NULL);
	while ((n = nghttp2_session_mem_send(session, &out)) > 0)
		if (grpc_conn_recv(conn, out, n) < 0)
			break;
	nghttp2_session_del(session);
	nghttp2_session_callbacks_del(cb);
	free(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
	struct grpc_handler handler;
	struct grpc_conn *conn;

	if (!ring)
		world();
	if (!size)
		return 0;
	handler = observer_handler(&observer);
	if (grpc_conn_new(&conn, &handler) < 0)
		abort();
	switch (data[0] % 3) {
	case 0:
		grpc_conn_recv(conn, data + 1, size - 1);
		break;
	case 1:
		grpc_conn_recv(conn, (const uint8_t *)preface, sizeof(preface));
		grpc_conn_recv(conn, data + 1, size - 1);
		break;
	case 2:
		send_request(conn, data + 1, size - 1);
		break;
	}
	drain(conn);
	grpc_conn_poke(conn, UINT64_MAX / 2);
	drain(conn);
	grpc_conn_free(conn);
	if (observer.streams || observer.followers)
		abort();
	return 0;
}
