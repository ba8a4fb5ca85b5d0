/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server's half of gRPC over one HTTP/2 connection: bytes in, bytes out, no file descriptors.
 * Messages are pulled: a call is asked for more when the client has taken what it was given, so a
 * slow client costs GRPC_CALL_BUFFER at most.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "grpc_frame.h"

#define GRPC_CALL_BUFFER (32U << 10)
#define GRPC_REQUEST_MAX (256U << 10)
#define GRPC_STREAMS_MAX 32

struct grpc_conn;
struct grpc_call;

struct grpc_handler {
	void *ctx;
	/* A whole request. It may finish the call at once; state set with grpc_call_set_state(). */
	void (*start)(void *ctx, struct grpc_call *call, const char *path, const uint8_t *msg,
		      size_t len);
	/* The call has room (grpc_call_room()): send what there is, or nothing. */
	void (*fill)(void *ctx, struct grpc_call *call);
	/* The call is gone, finished or not: free the state. */
	void (*end)(void *ctx, struct grpc_call *call);
};

int grpc_conn_new(struct grpc_conn **ret, const struct grpc_handler *handler); /* 0 or -errno */
void grpc_conn_free(struct grpc_conn *conn);				       /* ends every call */
void grpc_conn_freep(struct grpc_conn **conn);

/* Bytes from the client. 0, or -EPROTO: close the connection. */
int grpc_conn_recv(struct grpc_conn *conn, const uint8_t *data, size_t len);
/* Bytes to write, valid until the next call; 0: nothing now; -errno: close. */
ssize_t grpc_conn_send(struct grpc_conn *conn, const uint8_t **ret);
/* Asks open calls for more messages and checks deadlines. now_ns: CLOCK_MONOTONIC. */
void grpc_conn_poke(struct grpc_conn *conn, uint64_t now_ns);
bool grpc_conn_done(const struct grpc_conn *conn); /* nothing to read or write any more */
size_t grpc_conn_calls(const struct grpc_conn *conn);

void *grpc_call_state(const struct grpc_call *call);
void grpc_call_set_state(struct grpc_call *call, void *state);
bool grpc_call_room(const struct grpc_call *call);
/* Appends a message of len bytes for the caller to fill in; NULL: out of memory. */
uint8_t *grpc_call_message(struct grpc_call *call, size_t len);
/* No message follows. message may be NULL. Later finishes are ignored. */
void grpc_call_finish(struct grpc_call *call, enum grpc_status status, const char *message);
bool grpc_call_finished(const struct grpc_call *call);
