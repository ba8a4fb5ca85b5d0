// SPDX-License-Identifier: Apache-2.0
#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <waggle/cleanup.h>
#include "json_in.h"
#include "wellknown.pb-c.h"

#define DEPTH_MAX 24

struct parser {
	const char *at, *end;
	bool strict;
	unsigned depth;
};

static int parse_message(struct parser *p, const ProtobufCMessageDescriptor *desc,
			 ProtobufCMessage **ret);

static void space(struct parser *p)
{
	while (p->at < p->end && strchr(" \t\r\n", *p->at) && *p->at)
		p->at++;
}

static bool eat(struct parser *p, char c)
{
	space(p);
	if (p->at == p->end || *p->at != c)
		return false;
	p->at++;
	return true;
}

static bool eat_word(struct parser *p, const char *word)
{
	size_t len = strlen(word);

	space(p);
	if ((size_t)(p->end - p->at) < len || memcmp(p->at, word, len))
		return false;
	p->at += len;
	return true;
}

static unsigned put_utf8(char *to, uint32_t c)
{
	if (c < 0x80) {
		to[0] = c;
		return 1;
	}
	if (c < 0x800) {
		to[0] = 0xc0 | c >> 6;
		to[1] = 0x80 | (c & 0x3f);
		return 2;
	}
	if (c < 0x10000) {
		to[0] = 0xe0 | c >> 12;
		to[1] = 0x80 | (c >> 6 & 0x3f);
		to[2] = 0x80 | (c & 0x3f);
		return 3;
	}
	to[0] = 0xf0 | c >> 18;
	to[1] = 0x80 | (c >> 12 & 0x3f);
	to[2] = 0x80 | (c >> 6 & 0x3f);
	to[3] = 0x80 | (c & 0x3f);
	return 4;
}

static int parse_hex4(struct parser *p, uint32_t *ret)
{
	uint32_t c = 0;

	if (p->end - p->at < 4)
		return -EINVAL;
	for (int i = 0; i < 4; i++, p->at++) {
		if (!isxdigit((unsigned char)*p->at))
			return -EINVAL;
		c = c * 16 +
		    (isdigit((unsigned char)*p->at) ? *p->at - '0' : (*p->at | 32) - 'a' + 10);
	}
	*ret = c;
	return 0;
}

static int parse_escape(struct parser *p, char *to, unsigned *ret_len)
{
	static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
	const char *e;
	uint32_t c, low;

	if (p->at == p->end)
		return -EINVAL;
	if (*p->at != 'u') {
		e = *p->at ? strchr(from, *p->at) : NULL;
		if (!e)
			return -EINVAL;
		p->at++;
		*to = into[e - from];
		*ret_len = 1;
		return 0;
	}
	p->at++;
	if (parse_hex4(p, &c) < 0)
		return -EINVAL;
	if (c >= 0xd800 && c < 0xdc00) {
		if (p->end - p->at < 6 || p->at[0] != '\\' || p->at[1] != 'u')
			return -EINVAL;
		p->at += 2;
		if (parse_hex4(p, &low) < 0 || low < 0xdc00 || low > 0xdfff)
			return -EINVAL;
		c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
	}
	if (!c || (c >= 0xdc00 && c <= 0xdfff))
		return -EINVAL;
	*ret_len = put_utf8(to, c);
	return 0;
}

/* Returns a string of the heap. */
static int parse_string(struct parser *p, char **ret)
{
	_cleanup_free_ char *text = NULL;
	size_t len = 0;
	unsigned n;

	if (!eat(p, '"'))
		return -EINVAL;
	text = malloc(p->end - p->at + 1); /* never longer than its source */
	if (!text)
		return -ENOMEM;
	for (;;) {
		unsigned char c;

		if (p->at == p->end)
			return -EINVAL;
		c = *p->at++;
		if (c == '"')
			break;
		if (c < 0x20)
			return -EINVAL;
		if (c != '\\') {
			text[len++] = c;
			continue;
		}
		if (parse_escape(p, text + len, &n) < 0)
			return -EINVAL;
		len += n;
	}
	text[len] = '\0';
	*ret = realloc(text, len + 1);
	if (*ret)
		text = NULL;
	return *ret ? 0 : -ENOMEM;
}

/* A number, as text; a quoted one counts as well. */
static int parse_number(struct parser *p, char *buf, size_t size)
{
	_cleanup_free_ char *text = NULL;
	size_t len = 0;
	int r;

	space(p);
	if (p->at < p->end && *p->at == '"') {
		r = parse_string(p, &text);
		if (r < 0)
			return r;
		if (!*text || strlen(text) >= size)
			return -EINVAL;
		strcpy(buf, text);
		return 0;
	}
	while (p->at < p->end && *p->at && strchr("+-.eE0123456789", *p->at) && len + 1 < size)
		buf[len++] = *p->at++;
	buf[len] = '\0';
	return len ? 0 : -EINVAL;
}

static int skip_value(struct parser *p)
{
	_cleanup_free_ char *text = NULL;
	char number[64], close;
	int r = 0;

	space(p);
	if (p->at == p->end)
		return -EINVAL;
	if (*p->at == '"')
		return parse_string(p, &text);
	if (eat_word(p, "true") || eat_word(p, "false") || eat_word(p, "null"))
		return 0;
	if (*p->at != '{' && *p->at != '[')
		return parse_number(p, number, sizeof(number));
	if (++p->depth > DEPTH_MAX)
		return -EINVAL;
	close = *p->at++ == '{' ? '}' : ']';
	while (r == 0 && !eat(p, close)) {
		if (close == '}') {
			_cleanup_free_ char *key = NULL;

			r = parse_string(p, &key);
			if (r == 0 && !eat(p, ':'))
				r = -EINVAL;
		}
		if (r == 0)
			r = skip_value(p);
		if (r == 0 && !eat(p, ',')) {
			if (!eat(p, close))
				r = -EINVAL;
			break;
		}
	}
	p->depth--;
	return r;
}

/* strptime() takes any day up to 31 and a second 60; timegm() makes another day of them. */
int json_tm_seconds(const struct tm *tm, int64_t *ret_seconds)
{
	struct tm real = *tm;
	int64_t seconds = timegm(&real);

	if (real.tm_mday != tm->tm_mday || real.tm_sec != tm->tm_sec)
		return -EINVAL;
	*ret_seconds = seconds;
	return 0;
}

int json_time_parse(const char *text, int64_t *ret_seconds, int32_t *ret_nanos)
{
	struct tm tm = { 0 };
	const char *p = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	int32_t nanos = 0, scale = 100000000;
	unsigned hours, minutes;
	int64_t seconds;
	int used = 0;

	if (!p || json_tm_seconds(&tm, &seconds) < 0)
		return -EINVAL;
	if (*p == '.')
		for (p++; isdigit((unsigned char)*p); p++, scale /= 10)
			nanos += (*p - '0') * scale;
	if (*p == '+' || *p == '-') {
		if (sscanf(p + 1, "%2u:%2u%n", &hours, &minutes, &used) != 2 || p[1 + used] ||
		    hours > 23 || minutes > 59)
			return -EINVAL;
		seconds -= (*p == '-' ? -1 : 1) * (int)(hours * 3600 + minutes * 60);
	} else if (strcmp(p, "Z")) {
		return -EINVAL;
	}
	*ret_seconds = seconds;
	*ret_nanos = nanos;
	return 0;
}

static int parse_bool(struct parser *p, protobuf_c_boolean *ret)
{
	*ret = eat_word(p, "true");
	return *ret || eat_word(p, "false") ? 0 : -EINVAL;
}

static int parse_int(struct parser *p, ProtobufCType type, void *to)
{
	char text[32], *end;
	int r = parse_number(p, text, sizeof(text));

	if (r < 0)
		return r;
	errno = 0;
	if (type == PROTOBUF_C_TYPE_UINT64)
		*(uint64_t *)to = strtoull(text, &end, 10);
	else if (type == PROTOBUF_C_TYPE_INT64)
		*(int64_t *)to = strtoll(text, &end, 10);
	else if (type == PROTOBUF_C_TYPE_DOUBLE)
		*(double *)to = strtod(text, &end);
	else if (type == PROTOBUF_C_TYPE_UINT32)
		*(uint32_t *)to = strtoul(text, &end, 10);
	else
		*(int32_t *)to = strtol(text, &end, 10);
	return *end || errno ? -EINVAL : 0;
}

static int parse_enum(struct parser *p, const ProtobufCEnumDescriptor *desc, void *to)
{
	_cleanup_free_ char *name = NULL;
	const ProtobufCEnumValue *value;
	int r;

	space(p);
	if (p->at < p->end && *p->at != '"')
		return parse_int(p, PROTOBUF_C_TYPE_INT32, to);
	r = parse_string(p, &name);
	if (r < 0)
		return r;
	value = protobuf_c_enum_descriptor_get_value_by_name(desc, name);
	if (!value && p->strict)
		return -EINVAL;
	*(int32_t *)to = value ? value->value : 0;
	return 0;
}

/* to is zero and big enough for the type. */
static int parse_value(struct parser *p, const ProtobufCFieldDescriptor *field, void *to)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_MESSAGE:
		return parse_message(p, field->descriptor, to);
	case PROTOBUF_C_TYPE_STRING:
		return parse_string(p, to);
	case PROTOBUF_C_TYPE_BOOL:
		return parse_bool(p, to);
	case PROTOBUF_C_TYPE_ENUM:
		return parse_enum(p, field->descriptor, to);
	case PROTOBUF_C_TYPE_BYTES:
		return skip_value(p);
	default:
		return parse_int(p, field->type, to);
	}
}

static size_t value_size(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_DOUBLE:
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return 8;
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	default:
		return 4;
	}
}

_Static_assert(sizeof(protobuf_c_boolean) == 4 && sizeof(void *) == 8, "value_size");

/* Elements join the message one by one, so that what is freed on an error is always whole. */
static int parse_list(struct parser *p, ProtobufCMessage *msg,
		      const ProtobufCFieldDescriptor *field)
{
	size_t *n = (size_t *)((char *)msg + field->quantifier_offset),
	       size = value_size(field->type);
	char **list = (char **)((char *)msg + field->offset), *grown;
	int r;

	if (!eat(p, '['))
		return -EINVAL;
	if (eat(p, ']'))
		return 0;
	do {
		union {
			uint64_t u64;
			void *p;
			ProtobufCBinaryData b;
		} value = { 0 };

		grown = realloc(*list, (*n + 1) * size);
		if (!grown)
			return -ENOMEM;
		*list = grown;
		r = parse_value(p, field, &value);
		if (r < 0)
			return r;
		memcpy(*list + *n * size, &value, size);
		++*n;
	} while (eat(p, ','));
	return eat(p, ']') ? 0 : -EINVAL;
}

static int parse_field(struct parser *p, ProtobufCMessage *msg,
		       const ProtobufCFieldDescriptor *field)
{
	char *at = (char *)msg + field->offset;
	uint32_t *which = (uint32_t *)((char *)msg + field->quantifier_offset);
	bool oneof = field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF;

	if (eat_word(p, "null"))
		return 0;
	if (field->label == PROTOBUF_C_LABEL_REPEATED)
		return parse_list(p, msg, field);
	if (oneof && *which)
		return -EINVAL; /* two of them */
	if (!oneof && field->type == PROTOBUF_C_TYPE_MESSAGE && *(void **)at)
		return -EINVAL; /* twice */
	if (field->type == PROTOBUF_C_TYPE_STRING) {
		if (*(char **)at != protobuf_c_empty_string)
			return -EINVAL;
		*(char **)at = NULL;
	}
	if (oneof) {
		*(void **)at = NULL;
		*which = field->id;
	}
	return parse_value(p, field, at);
}

/* "node_name" is also "nodeName". */
static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *desc,
						  const char *key)
{
	const ProtobufCFieldDescriptor *field =
		protobuf_c_message_descriptor_get_field_by_name(desc, key);

	for (unsigned i = 0; !field && i < desc->n_fields; i++) {
		const char *have = desc->fields[i].name, *want = key;

		while (*have && *want) {
			bool up = *have == '_';

			have += up;
			if (*want != (up ? toupper((unsigned char)*have) : *have))
				break;
			have++;
			want++;
		}
		if (!*have && !*want)
			field = &desc->fields[i];
	}
	return field;
}

static int parse_members(struct parser *p, ProtobufCMessage *msg)
{
	if (!eat(p, '{'))
		return -EINVAL;
	if (eat(p, '}'))
		return 0;
	do {
		_cleanup_free_ char *key = NULL;
		const ProtobufCFieldDescriptor *field;
		int r = parse_string(p, &key);

		if (r < 0)
			return r;
		if (!eat(p, ':'))
			return -EINVAL;
		field = find_field(msg->descriptor, key);
		if (!field && p->strict)
			return -EINVAL;
		r = field ? parse_field(p, msg, field) : skip_value(p);
		if (r < 0)
			return r;
	} while (eat(p, ','));
	return eat(p, '}') ? 0 : -EINVAL;
}

static int parse_time(struct parser *p, Google__Protobuf__Timestamp *ts)
{
	_cleanup_free_ char *text = NULL;
	int r = parse_string(p, &text);

	return r < 0 ? r : json_time_parse(text, &ts->seconds, &ts->nanos);
}

static int parse_message(struct parser *p, const ProtobufCMessageDescriptor *desc,
			 ProtobufCMessage **ret)
{
	ProtobufCMessage *msg;
	int r;

	if (p->depth >= DEPTH_MAX)
		return -EINVAL;
	msg = calloc(1, desc->sizeof_message);
	if (!msg)
		return -ENOMEM;
	protobuf_c_message_init(desc, msg);
	p->depth++;
	if (desc == &google__protobuf__timestamp__descriptor)
		r = parse_time(p, (Google__Protobuf__Timestamp *)msg);
	else if (desc == &google__protobuf__bool_value__descriptor)
		r = parse_bool(p, &((Google__Protobuf__BoolValue *)msg)->value);
	else if (desc == &google__protobuf__int32_value__descriptor)
		r = parse_int(p, PROTOBUF_C_TYPE_INT32,
			      &((Google__Protobuf__Int32Value *)msg)->value);
	else
		r = parse_members(p, msg);
	p->depth--;
	if (r < 0) {
		protobuf_c_message_free_unpacked(msg, NULL);
		return r;
	}
	*ret = msg;
	return 0;
}

int json_in_message(ProtobufCMessage **ret, const ProtobufCMessageDescriptor *desc,
		    const char *text, size_t len, bool strict, struct wag_err *err)
{
	struct parser p = { .at = text, .end = text + len, .strict = strict };
	ProtobufCMessage *msg = NULL;
	int r = parse_message(&p, desc, &msg);

	space(&p);
	if (r == 0 && p.at != p.end) {
		protobuf_c_message_free_unpacked(msg, NULL);
		r = -EINVAL;
	}
	if (r < 0)
		return wag_err_set(err, r, "not a %s in JSON: wrong at character %zu",
				   desc->short_name, (size_t)(p.at - text) + 1);
	*ret = msg;
	return 0;
}
