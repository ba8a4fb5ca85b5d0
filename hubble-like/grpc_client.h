/* SPDX-License-Identifier: Apache-2.0 */
/* A gRPC client for one call at a time, without TLS. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <waggle/err.h>
#include "grpc_frame.h"

#define GRPC_RESPONSE_MAX (4U << 20)

struct grpc_client;

/* A message of the answer. Not 0 ends the call with that code. */
typedef int (*grpc_client_fn)(void *ctx, const uint8_t *msg, size_t len);

/* server: "unix:///path", "unix:path", "host:port", "[v6]:port" or "tcp://host:port". */
int grpc_client_new(struct grpc_client **ret, const char *server, int timeout_ms,
		    struct wag_err *err);
void grpc_client_free(struct grpc_client *c); /* NULL is fine */
void grpc_client_freep(struct grpc_client **c);

/*
 * Sends the request and calls fn for every message of the answer. 0; fn's code; -ETIMEDOUT after
 * timeout_ms (0: never); -EREMOTEIO with the server's words when it refuses; other -errno.
 */
int grpc_client_call(struct grpc_client *c, const char *path, const uint8_t *request, size_t len,
		     int timeout_ms, grpc_client_fn fn, void *ctx, struct wag_err *err);
