// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <string.h>
#include "field_mask.h"

/* Returns the index of the member named by the first part of path, or -EINVAL. */
static int find(const ProtobufCMessageDescriptor *desc, const char *path, const char **ret_rest)
{
	size_t len = strcspn(path, ".");
	const ProtobufCFieldDescriptor *field;
	char name[64];

	if (!len || len >= sizeof(name))
		return -EINVAL;
	memcpy(name, path, len);
	name[len] = '\0';
	field = protobuf_c_message_descriptor_get_field_by_name(desc, name);
	if (!field || field - desc->fields >= FIELD_MASK_FIELDS)
		return -EINVAL;
	*ret_rest = path[len] == '.' ? path + len + 1 : NULL;
	return field - desc->fields;
}

int field_mask_init(struct field_mask *mask, char *const *paths, size_t n, struct wag_err *err)
{
	const ProtobufCMessageDescriptor *desc = &flow__flow__descriptor;

	memset(mask, 0, sizeof(*mask));
	mask->active = n > 0;
	for (size_t i = 0; i < n; i++) {
		const char *rest;
		int top = find(desc, paths[i], &rest), member;

		if (top < 0)
			goto unknown;
		mask->fields |= 1ULL << top;
		if (!rest) {
			mask->members[top] = UINT64_MAX;
			continue;
		}
		if (desc->fields[top].type != PROTOBUF_C_TYPE_MESSAGE)
			goto unknown;
		member = find(desc->fields[top].descriptor, rest, &rest);
		if (member < 0)
			goto unknown;
		mask->members[top] |= 1ULL << member;
		continue;
	unknown:
		return wag_err_set(err, -EINVAL, "field_mask: a flow has no \"%s\"", paths[i]);
	}
	return 0;
}

static void clear(ProtobufCMessage *msg, const ProtobufCFieldDescriptor *field)
{
	char *at = (char *)msg + field->offset;

	if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
		uint32_t *which = (uint32_t *)((char *)msg + field->quantifier_offset);

		if (*which == field->id)
			*which = 0;
		return;
	}
	if (field->label == PROTOBUF_C_LABEL_REPEATED) {
		*(size_t *)((char *)msg + field->quantifier_offset) = 0;
		return;
	}
	switch (field->type) {
	case PROTOBUF_C_TYPE_MESSAGE:
		*(void **)at = NULL;
		break;
	case PROTOBUF_C_TYPE_STRING:
		*(const char **)at = protobuf_c_empty_string;
		break;
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_INT64:
		memset(at, 0, sizeof(uint64_t));
		break;
	case PROTOBUF_C_TYPE_BOOL:
		*(protobuf_c_boolean *)at = 0;
		break;
	default: /* of a Flow's members, 32-bit integers and enums */
		memset(at, 0, sizeof(uint32_t));
	}
}

static void keep(ProtobufCMessage *msg, uint64_t fields)
{
	for (unsigned i = 0; i < msg->descriptor->n_fields; i++)
		if (i >= FIELD_MASK_FIELDS || !(fields & 1ULL << i))
			clear(msg, &msg->descriptor->fields[i]);
}

void field_mask_apply(const struct field_mask *mask, Flow__Flow *flow)
{
	const ProtobufCMessageDescriptor *desc = &flow__flow__descriptor;

	if (!mask->active)
		return;
	keep(&flow->base, mask->fields);
	for (unsigned i = 0; i < desc->n_fields; i++) {
		ProtobufCMessage *member;

		if (desc->fields[i].type != PROTOBUF_C_TYPE_MESSAGE ||
		    desc->fields[i].label == PROTOBUF_C_LABEL_REPEATED ||
		    mask->members[i] == UINT64_MAX)
			continue;
		member = *(ProtobufCMessage **)((char *)flow + desc->fields[i].offset);
		if (member)
			keep(member, mask->members[i]);
	}
}
