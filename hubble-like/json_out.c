// SPDX-License-Identifier: Apache-2.0
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include "json_out.h"
#include "wellknown.pb-c.h"

/* Length of the valid UTF-8 character at p, 0: none. */
static unsigned utf8_len(const unsigned char *p)
{
	unsigned n = *p < 0x80		       ? 1
		     : *p >= 0xc2 && *p < 0xe0 ? 2
		     : *p >= 0xe0 && *p < 0xf0 ? 3
		     : *p >= 0xf0 && *p < 0xf5 ? 4
					       : 0;

	for (unsigned i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

void json_out_string(FILE *f, const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	static const char escapes[] = "\"\"\\\\\bb\ff\nn\rr\tt";

	fputc('"', f);
	while (*p) {
		unsigned n = utf8_len(p);
		const char *e = NULL;

		for (size_t i = 0; i + 1 < sizeof(escapes); i += 2)
			if ((unsigned char)escapes[i] == *p)
				e = &escapes[i + 1];
		if (e)
			fprintf(f, "\\%c", *e);
		else if (!n)
			fputs("\\ufffd", f);
		else if (*p < 0x20 || *p == '<' || *p == '>' || *p == '&')
			fprintf(f, "\\u%04x", *p); /* as Go's encoder does */
		else
			fwrite(p, 1, n, f);
		p += n ? n : 1;
	}
	fputc('"', f);
}

void json_time_format(char *buf, size_t size, int64_t seconds, int32_t nanos)
{
	time_t t = seconds;
	size_t len;
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !(len = strftime(buf, size, "%Y-%m-%dT%H:%M:%S", &tm))) {
		snprintf(buf, size, "N/A");
		return;
	}
	if (nanos < 0 || nanos > 999999999)
		nanos = 0;
	if (!nanos)
		snprintf(buf + len, size - len, "Z");
	else if (nanos % 1000000 == 0)
		snprintf(buf + len, size - len, ".%03dZ", nanos / 1000000);
	else if (nanos % 1000 == 0)
		snprintf(buf + len, size - len, ".%06dZ", nanos / 1000);
	else
		snprintf(buf + len, size - len, ".%09dZ", nanos);
}

/* Well-known types have forms of their own. */
static bool out_wellknown(FILE *f, const ProtobufCMessage *msg)
{
	char text[64];

	if (msg->descriptor == &google__protobuf__timestamp__descriptor) {
		const Google__Protobuf__Timestamp *ts = (const void *)msg;

		json_time_format(text, sizeof(text), ts->seconds, ts->nanos);
		json_out_string(f, text);
	} else if (msg->descriptor == &google__protobuf__bool_value__descriptor) {
		fputs(((const Google__Protobuf__BoolValue *)msg)->value ? "true" : "false", f);
	} else if (msg->descriptor == &google__protobuf__int32_value__descriptor) {
		fprintf(f, "%d", ((const Google__Protobuf__Int32Value *)msg)->value);
	} else {
		return false;
	}
	return true;
}

static size_t value_size(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_DOUBLE:
		return 8;
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	default:
		return 4;
	}
}

static void out_value(FILE *f, const ProtobufCFieldDescriptor *field, const void *at)
{
	const ProtobufCEnumValue *name;

	switch (field->type) {
	case PROTOBUF_C_TYPE_MESSAGE:
		json_out_message(f, *(ProtobufCMessage *const *)at);
		break;
	case PROTOBUF_C_TYPE_STRING:
		json_out_string(f, *(char *const *)at);
		break;
	case PROTOBUF_C_TYPE_BOOL:
		fputs(*(const protobuf_c_boolean *)at ? "true" : "false", f);
		break;
	case PROTOBUF_C_TYPE_UINT64:
		fprintf(f, "\"%" PRIu64 "\"", *(const uint64_t *)at);
		break;
	case PROTOBUF_C_TYPE_INT64:
		fprintf(f, "\"%" PRId64 "\"", *(const int64_t *)at);
		break;
	case PROTOBUF_C_TYPE_DOUBLE:
		fprintf(f, "%.15g", *(const double *)at);
		break;
	case PROTOBUF_C_TYPE_UINT32:
		fprintf(f, "%" PRIu32, *(const uint32_t *)at);
		break;
	case PROTOBUF_C_TYPE_ENUM:
		name = protobuf_c_enum_descriptor_get_value(field->descriptor, *(const int *)at);
		if (name) {
			json_out_string(f, name->name);
			break;
		}
		fprintf(f, "%d", *(const int *)at);
		break;
	case PROTOBUF_C_TYPE_BYTES:
		fputs("\"\"", f); /* only inside Any, which nobody fills */
		break;
	default:
		fprintf(f, "%" PRId32, *(const int32_t *)at);
	}
}

static bool is_set(const ProtobufCMessage *msg, const ProtobufCFieldDescriptor *field)
{
	const char *at = (const char *)msg + field->offset;
	static const char zero[sizeof(ProtobufCBinaryData)];

	if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
		return *(const uint32_t *)((const char *)msg + field->quantifier_offset) ==
		       field->id;
	if (field->label == PROTOBUF_C_LABEL_REPEATED)
		return *(const size_t *)((const char *)msg + field->quantifier_offset) > 0;
	if (field->type == PROTOBUF_C_TYPE_STRING)
		return *(const char *const *)at && **(const char *const *)at;
	return memcmp(at, zero, value_size(field->type)) != 0;
}

static void out_field(FILE *f, const ProtobufCMessage *msg, const ProtobufCFieldDescriptor *field)
{
	const char *at = (const char *)msg + field->offset;
	size_t n;

	json_out_string(f, field->name);
	fputc(':', f);
	if (field->label != PROTOBUF_C_LABEL_REPEATED) {
		out_value(f, field, at);
		return;
	}
	n = *(const size_t *)((const char *)msg + field->quantifier_offset);
	at = *(const char *const *)at;
	fputc('[', f);
	for (size_t i = 0; i < n; i++) {
		if (i)
			fputc(',', f);
		out_value(f, field, at + i * value_size(field->type));
	}
	fputc(']', f);
}

/* protobuf-c sorts members by number, but lays them out as declared, a oneof's union last. */
static unsigned declared_at(const ProtobufCFieldDescriptor *field)
{
	if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
		return field->id < 100 ? 0
				       : UINT32_MAX; /* Layer7's record follows its other members */
	return field->offset;
}

void json_out_message(FILE *f, const ProtobufCMessage *msg)
{
	const ProtobufCFieldDescriptor *set[64];
	unsigned n = 0;

	if (out_wellknown(f, msg))
		return;
	for (unsigned i = 0; i < msg->descriptor->n_fields && n < 64; i++) {
		const ProtobufCFieldDescriptor *field = &msg->descriptor->fields[i];
		unsigned at = n;

		if (!is_set(msg, field))
			continue;
		for (; at && declared_at(set[at - 1]) > declared_at(field); at--)
			set[at] = set[at - 1];
		set[at] = field;
		n++;
	}
	fputc('{', f);
	for (unsigned i = 0; i < n; i++) {
		if (i)
			fputc(',', f);
		out_field(f, msg, set[i]);
	}
	fputc('}', f);
}
