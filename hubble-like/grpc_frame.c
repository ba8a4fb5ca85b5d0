// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "grpc_frame.h"

void grpc_buf_done(struct grpc_buf *buf)
{
	free(buf->data);
	memset(buf, 0, sizeof(*buf));
}

size_t grpc_buf_len(const struct grpc_buf *buf)
{
	return buf->end - buf->start;
}

uint8_t *grpc_buf_reserve(struct grpc_buf *buf, size_t len)
{
	size_t used = grpc_buf_len(buf), size = buf->size ? buf->size : 256;
	uint8_t *data;

	if (buf->size - buf->end >= len)
		return buf->data + buf->end;
	if (buf->start) {
		memmove(buf->data, buf->data + buf->start, used);
		buf->start = 0;
		buf->end = used;
		if (buf->size - buf->end >= len)
			return buf->data + buf->end;
	}
	while (size - used < len)
		size *= 2;
	data = realloc(buf->data, size);
	if (!data)
		return NULL;
	buf->data = data;
	buf->size = size;
	return buf->data + buf->end;
}

int grpc_buf_append(struct grpc_buf *buf, const void *data, size_t len)
{
	uint8_t *to;

	if (!len)
		return 0;
	to = grpc_buf_reserve(buf, len);
	if (!to)
		return -ENOMEM;
	memcpy(to, data, len);
	buf->end += len;
	return 0;
}

int grpc_buf_message(struct grpc_buf *buf, size_t max, const uint8_t **ret, size_t *ret_len)
{
	const uint8_t *p = buf->data + buf->start;
	size_t len;

	if (grpc_buf_len(buf) < GRPC_PREFIX)
		return 0;
	len = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
	if (p[0])
		return -EPROTO;
	if (len > max)
		return -EMSGSIZE;
	if (grpc_buf_len(buf) - GRPC_PREFIX < len)
		return 0;
	*ret = p + GRPC_PREFIX;
	*ret_len = len;
	buf->start += GRPC_PREFIX + len;
	return 1;
}

void grpc_prefix(uint8_t prefix[GRPC_PREFIX], size_t len)
{
	prefix[0] = 0;
	prefix[1] = len >> 24;
	prefix[2] = len >> 16;
	prefix[3] = len >> 8;
	prefix[4] = len;
}

int grpc_timeout_parse(const char *text, size_t len, uint64_t *ret_ns)
{
	static const struct {
		char unit;
		uint64_t ns;
	} units[] = { { 'H', 3600000000000ULL }, { 'M', 60000000000ULL }, { 'S', 1000000000ULL },
		      { 'm', 1000000ULL },	 { 'u', 1000ULL },	  { 'n', 1ULL } };
	uint64_t value = 0;

	if (len < 2 || len > 9) /* at most eight digits */
		return -EINVAL;
	for (size_t i = 0; i < len - 1; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -EINVAL;
		value = value * 10 + (text[i] - '0');
	}
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (units[i].unit != text[len - 1])
			continue;
		*ret_ns = value * units[i].ns;
		return 0;
	}
	return -EINVAL;
}

void grpc_message_encode(char *buf, size_t size, const char *text)
{
	size_t at = 0;

	for (; *text && at + 4 <= size; text++) {
		unsigned char c = *text;

		if (c >= ' ' && c <= '~' && c != '%')
			buf[at++] = c;
		else
			at += snprintf(buf + at, size - at, "%%%02X", c);
	}
	buf[at] = '\0';
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

void grpc_message_decode(char *text)
{
	char *to = text;

	for (; *text; text++) {
		if (*text == '%' && hex(text[1]) >= 0 && hex(text[2]) >= 0) {
			*to++ = hex(text[1]) * 16 + hex(text[2]);
			text += 2;
		} else {
			*to++ = *text;
		}
	}
	*to = '\0';
}
