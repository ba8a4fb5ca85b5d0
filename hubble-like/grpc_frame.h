/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC's length-prefixed messages, and the words of its status codes. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum grpc_status {
	GRPC_OK = 0,
	GRPC_CANCELLED = 1,
	GRPC_UNKNOWN = 2,
	GRPC_INVALID_ARGUMENT = 3,
	GRPC_DEADLINE_EXCEEDED = 4,
	GRPC_NOT_FOUND = 5,
	GRPC_RESOURCE_EXHAUSTED = 8,
	GRPC_UNIMPLEMENTED = 12,
	GRPC_INTERNAL = 13,
	GRPC_UNAVAILABLE = 14,
};

#define GRPC_PREFIX 5 /* bytes before every message: compressed, length */

/* Bytes that arrive in any portions, taken out again as whole messages. */
struct grpc_buf {
	uint8_t *data;
	size_t start, end, size;
};

void grpc_buf_done(struct grpc_buf *buf);
size_t grpc_buf_len(const struct grpc_buf *buf);
/* Makes room for len bytes at the end and returns it, or NULL; the caller adds to buf->end. */
uint8_t *grpc_buf_reserve(struct grpc_buf *buf, size_t len);
int grpc_buf_append(struct grpc_buf *buf, const void *data, size_t len); /* 0 or -ENOMEM */
/*
 * 1 and the next message, which stays valid until the next call that changes buf; 0 if it has not
 * arrived whole; -EMSGSIZE if it is longer than max; -EPROTO if it is compressed.
 */
int grpc_buf_message(struct grpc_buf *buf, size_t max, const uint8_t **ret, size_t *ret_len);

void grpc_prefix(uint8_t prefix[GRPC_PREFIX], size_t len);
/* "5S", "100m" (milliseconds), ... 0 or -EINVAL. */
int grpc_timeout_parse(const char *text, size_t len, uint64_t *ret_ns);
/* Percent-encodes a status message; truncates. */
void grpc_message_encode(char *buf, size_t size, const char *text);
void grpc_message_decode(char *text); /* in place */
