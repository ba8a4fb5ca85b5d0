/* SPDX-License-Identifier: Apache-2.0 */
/* JSON text into a fixed buffer: the plugin writes three small shapes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct json_out {
	size_t len;
	bool overflow;
	char buf[32768];
};

void jout_init(struct json_out *j);
void jout_raw(struct json_out *j, const char *text);
void jout_format(struct json_out *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void jout_string(struct json_out *j, const char *text); /* quoted and escaped */
/* ,"name":"value" */
void jout_member(struct json_out *j, const char *name, const char *value);
