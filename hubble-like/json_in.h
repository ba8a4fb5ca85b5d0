/* SPDX-License-Identifier: Apache-2.0 */
/* One JSON object as a message: the reverse of json_out.h. */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <waggle/err.h>

/*
 * Members the message does not have are skipped, or refused when strict. Returns 0 and a message
 * for protobuf_c_message_free_unpacked(); -EINVAL with the offset; -ENOMEM.
 */
int json_in_message(ProtobufCMessage **ret, const ProtobufCMessageDescriptor *desc,
		    const char *text, size_t len, bool strict, struct wag_err *err);
/* "1970-01-01T00:20:34.5678Z", also with an offset like +02:00. 0 or -EINVAL. */
int json_time_parse(const char *text, int64_t *ret_seconds, int32_t *ret_nanos);
/* Of a time in UTC as strptime() left it. 0, or -EINVAL: there is no such day or second. */
int json_tm_seconds(const struct tm *tm, int64_t *ret_seconds);
