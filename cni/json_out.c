// SPDX-License-Identifier: Apache-2.0
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "json_out.h"

void jout_init(struct json_out *j)
{
	j->len = 0;
	j->overflow = false;
	j->buf[0] = '\0';
}

void jout_format(struct json_out *j, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (j->overflow)
		return;
	va_start(ap, fmt);
	n = vsnprintf(j->buf + j->len, sizeof(j->buf) - j->len, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(j->buf) - j->len)
		j->overflow = true;
	else
		j->len += n;
}

void jout_raw(struct json_out *j, const char *text)
{
	jout_format(j, "%s", text);
}

/* Bytes of the UTF-8 character here; 0: none, or one that an error's "%.64s" cut through. */
static int char_bytes(const char *text)
{
	unsigned char c = *text;
	int n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;

	for (int i = 1; i < n; i++)
		if ((text[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

void jout_string(struct json_out *j, const char *text)
{
	jout_raw(j, "\"");
	while (*text) {
		unsigned char c = *text;
		int n = char_bytes(text);

		if (!n)
			jout_raw(j, "\\ufffd");
		else if (c == '"' || c == '\\')
			jout_format(j, "\\%c", c);
		else if (c < 0x20)
			jout_format(j, "\\u%04x", c);
		else
			jout_format(j, "%.*s", n, text);
		text += n ? n : 1;
	}
	jout_raw(j, "\"");
}

void jout_member(struct json_out *j, const char *name, const char *value)
{
	jout_format(j, ",\"%s\":", name);
	jout_string(j, value);
}
