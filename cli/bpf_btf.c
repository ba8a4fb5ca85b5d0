// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <bpf/btf.h>
#include <stdio.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "bpf_btf.h"

static json_t *hex_json(const unsigned char *data, size_t size, const char *sep)
{
	_cleanup_free_ char *text = malloc(size * (2 + strlen(sep)) + 1);
	char *p = text;

	if (!text)
		return NULL;
	*p = '\0';
	for (size_t i = 0; i < size; i++)
		p += sprintf(p, "%s%02x", i ? sep : "", data[i]);
	return json_string(text);
}

static json_t *addr_json(const void *data)
{
	char text[WAG_ADDR_TEXT];
	struct wag_addr addr;

	memcpy(&addr, data, sizeof(addr));
	return json_string(wag_addr_format(&addr, text));
}

void cidr_key_text(const struct wag_cidr_key *key, char *buf, size_t size)
{
	char text[WAG_ADDR_TEXT];
	struct wag_addr addr;
	bool v4;

	memcpy(addr.w, key->addr, sizeof(addr.w));
	v4 = key->bits >= 96 && wag_addr_is_v4(&addr);
	snprintf(buf, size, "%s/%u", wag_addr_format(&addr, text), key->bits - (v4 ? 96 : 0));
}

static json_t *cidr_json(const void *data)
{
	struct wag_cidr_key key;
	char text[WAG_ADDR_TEXT + 4];

	memcpy(&key, data, sizeof(key));
	cidr_key_text(&key, text, sizeof(text));
	return json_string(text);
}

static json_t *src_range_json(const void *data)
{
	struct wag_src_range_key key;
	struct wag_cidr_key cidr;
	char text[WAG_ADDR_TEXT + 4];

	memcpy(&key, data, sizeof(key));
	cidr.bits = key.bits - 32;
	memcpy(cidr.addr, key.addr, sizeof(cidr.addr));
	cidr_key_text(&cidr, text, sizeof(text));
	return json_pack("{s:I, s:s}", "svc_id", (json_int_t)key.svc_id, "cidr", text);
}

static json_t *string_json(const char *data, size_t size)
{
	size_t len = strnlen(data, size);
	json_t *text = json_stringn(data, len);

	return text ? text : hex_json((const unsigned char *)data, len, ""); /* not UTF-8 */
}

/* Integers of 1, 2, 4 and 8 bytes, unaligned; bit fields are not used by our structs. */
static json_t *int_json(const void *data, size_t size, bool is_signed)
{
	uint64_t value = 0;
	unsigned unused = 64 - 8 * (unsigned)size;

	if (size > sizeof(value))
		return hex_json(data, size, "");
	memcpy(&value, data, size);
	if (is_signed && unused)
		value = (uint64_t)((int64_t)(value << unused) >> unused);
	/* jansson's integers are signed; what does not fit is still a number to every reader. */
	if (!is_signed && value > INT64_MAX)
		return json_real((double)value);
	return json_integer((json_int_t)value);
}

static json_t *array_json(const struct btf *btf, const struct btf_array *array, const void *data,
			  size_t size)
{
	size_t each = array->nelems ? size / array->nelems : 0;
	const struct btf_type *element;
	json_t *list;
	int id = btf__resolve_type(btf, array->type);

	element = id < 0 ? NULL : btf__type_by_id(btf, id);
	if (element && btf_is_int(element) && each == 1) {
		const char *name = btf__name_by_offset(btf, element->name_off);

		if (name && strcmp(name, "char") == 0)
			return string_json(data, size);
		return hex_json(data, size, size == 6 ? ":" : "");
	}
	list = json_array();
	for (size_t i = 0; list && i < array->nelems; i++) {
		json_t *one = btf_to_json(btf, array->type, (const char *)data + i * each, each);

		if (!one || json_array_append_new(list, one) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static json_t *struct_json(const struct btf *btf, const struct btf_type *type, const void *data,
			   size_t size)
{
	const struct btf_member *member = btf_members(type);
	json_t *object = json_object();

	for (int i = 0; object && i < btf_vlen(type); i++, member++) {
		const char *name = btf__name_by_offset(btf, member->name_off);
		size_t offset = btf_member_bit_offset(type, i) / 8;
		long long member_size = btf__resolve_size(btf, member->type);
		json_t *value;
		int r;

		if (member_size < 0 || offset + member_size > size ||
		    (name && strncmp(name, "pad", 3) == 0))
			continue;
		value = btf_to_json(btf, member->type, (const char *)data + offset, member_size);
		if (name && *name) {
			r = value ? json_object_set_new(object, name, value) : -1;
		} else { /* an anonymous struct or union: its members are ours */
			r = value ? json_object_update(object, value) : -1;
			json_decref(value);
		}
		if (r < 0) {
			json_decref(object);
			return NULL;
		}
	}
	return object;
}

static json_t *enum_json(const struct btf *btf, const struct btf_type *type, const void *data,
			 size_t size)
{
	const struct btf_enum *value = btf_enum(type);
	int32_t number;

	if (size != sizeof(number))
		return int_json(data, size, true);
	memcpy(&number, data, sizeof(number));
	for (int i = 0; i < btf_vlen(type); i++)
		if (value[i].val == number)
			return json_string(btf__name_by_offset(btf, value[i].name_off));
	return json_integer(number);
}

json_t *btf_to_json(const struct btf *btf, uint32_t type_id, const void *data, size_t size)
{
	const struct btf_type *type = btf && type_id ? btf__type_by_id(btf, type_id) : NULL;

	while (type) {
		const char *name = btf__name_by_offset(btf, type->name_off);

		if (btf_is_typedef(type) && strcmp(name, "__be16") == 0 && size == 2) {
			uint16_t port;

			memcpy(&port, data, sizeof(port));
			return json_integer(ntohs(port));
		}
		if (btf_is_struct(type) && strcmp(name, "wag_addr") == 0 && size == 16)
			return addr_json(data);
		if (btf_is_struct(type) && strcmp(name, "wag_cidr_key") == 0 &&
		    size == sizeof(struct wag_cidr_key))
			return cidr_json(data);
		if (btf_is_struct(type) && strcmp(name, "wag_src_range_key") == 0 &&
		    size == sizeof(struct wag_src_range_key))
			return src_range_json(data);
		if (!btf_is_mod(type) && !btf_is_typedef(type))
			break;
		type = btf__type_by_id(btf, type->type);
	}
	if (!type)
		return hex_json(data, size, "");
	if (btf_is_int(type))
		return int_json(data, size, btf_int_encoding(type) & BTF_INT_SIGNED);
	if (btf_is_composite(type))
		return struct_json(btf, type, data, size);
	if (btf_is_array(type))
		return array_json(btf, btf_array(type), data, size);
	if (btf_is_enum(type))
		return enum_json(btf, type, data, size);
	return hex_json(data, size, "");
}
