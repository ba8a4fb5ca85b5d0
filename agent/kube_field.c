// SPDX-License-Identifier: Apache-2.0
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <waggle/addr.h>
#include <waggle/suggest.h>

#include "kube_field.h"
#include "object.h"

int field_bad(const struct reader *rd, const json_t *at, const char *fmt, ...)
{
	const struct kube_ident *id = rd->ident;
	char text[320];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (at)
		rd->ident->at = at;
	return wag_err_set(rd->err, -EINVAL, "%s %.63s%s%.253s: %s", id->kind, id->ns,
			   id->ns[0] ? "/" : "", id->name[0] ? id->name : "(no name)", text);
}

int field_no_memory(const struct reader *rd)
{
	return wag_err_set(rd->err, -ENOMEM, "out of memory");
}

const json_t *field_member(const json_t *tree, const char *key)
{
	const json_t *value = json_object_get(tree, key);

	return json_is_null(value) ? NULL : value;
}

int field_known(const struct reader *rd, const json_t *tree, const char *path,
		const char *const *keys)
{
	const json_t *value;
	const char *key;

	if (!rd->sink || !rd->sink->manifests)
		return 0;
	json_object_foreach((json_t *)tree, key, value)
	{
		const char *near;
		size_t n = 0;

		while (keys[n] && strcmp(keys[n], key) != 0)
			n++;
		if (keys[n])
			continue;
		near = suggest(key, keys, n);
		return field_bad(rd, value, "%s%.64s: no such field%s%s%s", path, key,
				 near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
	}
	return 0;
}

int field_typed(const struct reader *rd, const json_t *tree, const char *path, const char *key,
		json_type type, const json_t **ret)
{
	static const char *const names[] = { "an object", "a list",    "a string",  "an integer",
					     "a number",  "a boolean", "a boolean", "null" };
	const json_t *value = field_member(tree, key);
	bool fits =
		!value || json_typeof(value) == type || (type == JSON_TRUE && json_is_false(value));

	*ret = NULL;
	if (tree && !json_is_object(tree) && !json_is_null(tree))
		return field_bad(rd, tree, "%.*s: must be an object, is %s",
				 (int)strlen(path) - 1, path, names[json_typeof(tree)]);
	if (!fits)
		return field_bad(rd, value, "%s%s: must be %s, is %s", path, key, names[type],
				 names[json_typeof(value)]);
	*ret = value;
	return 0;
}

int field_str(const struct reader *rd, const json_t *tree, const char *path, const char *key,
	      const char **ret)
{
	const json_t *value;
	int r;

	r = field_typed(rd, tree, path, key, JSON_STRING, &value);
	if (r < 0)
		return r;
	*ret = value ? json_string_value(value) : "";
	return 0;
}

int field_bool(const struct reader *rd, const json_t *tree, const char *path, const char *key,
	       bool fallback, bool *ret)
{
	const json_t *value;
	int r;

	r = field_typed(rd, tree, path, key, JSON_TRUE, &value);
	if (r < 0)
		return r;
	*ret = value ? json_is_true(value) : fallback;
	return 0;
}

int field_int(const struct reader *rd, const json_t *tree, const char *path, const char *key,
	      json_int_t min, json_int_t max, json_int_t *ret)
{
	const json_t *value;
	int r;

	r = field_typed(rd, tree, path, key, JSON_INTEGER, &value);
	if (r < 0)
		return r;
	*ret = value ? json_integer_value(value) : 0;
	if (value && (*ret < min || *ret > max))
		return field_bad(rd, value,
				 "%s%s: %" JSON_INTEGER_FORMAT " is not in %" JSON_INTEGER_FORMAT
				 "..%" JSON_INTEGER_FORMAT,
				 path, key, *ret, min, max);
	return 0;
}

int field_word(const char *text, const char *const *words, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(text, words[i]) == 0)
			return (int)i;
	return -1;
}

int field_choice(const struct reader *rd, const json_t *tree, const char *path, const char *key,
		 const char *const *words, size_t n, const char *said, int *ret)
{
	const char *text;
	int r = field_str(rd, tree, path, key, &text);

	if (r < 0)
		return r;
	*ret = field_word(text, words, n);
	if (*ret < 0)
		return field_bad(rd, tree, "%s%s: \"%.32s\" is not %s", path, key, text, said);
	return 0;
}

int field_copy(const struct reader *rd, const char *text, char **ret)
{
	*ret = strdup(text);
	return *ret ? 0 : field_no_memory(rd);
}

int field_dup(const struct reader *rd, const json_t *tree, const char *path, const char *key,
	      char **ret)
{
	const char *text;
	int r;

	r = field_str(rd, tree, path, key, &text);
	if (r < 0 || !text[0])
		return r;
	return field_copy(rd, text, ret);
}

int field_add_addr(const struct reader *rd, const json_t *value, const char *path,
		   struct wag_addr **addrs, size_t *n)
{
	struct wag_addr addr, *at;

	if (!json_is_string(value))
		return field_bad(rd, value, "%s: must be a string", path);
	if (wag_addr_parse(json_string_value(value), &addr) < 0)
		return field_bad(rd, value, "%s: \"%.64s\" is no IP address", path,
				 json_string_value(value));
	at = array_grow(addrs, n, sizeof(*at));
	if (!at)
		return field_no_memory(rd);
	*at = addr;
	return 0;
}

int field_addrs(const struct reader *rd, const json_t *tree, const char *path, const char *key,
		struct wag_addr **addrs, size_t *n)
{
	const json_t *list, *value;
	char where[64];
	size_t i;
	int r;

	r = field_typed(rd, tree, path, key, JSON_ARRAY, &list);
	if (r < 0)
		return r;
	json_array_foreach(list, i, value)
	{
		snprintf(where, sizeof(where), "%s%s[%zu]", path, key, i);
		r = field_add_addr(rd, value, where, addrs, n);
		if (r < 0)
			return r;
	}
	return 0;
}

int field_proto(const struct reader *rd, const json_t *tree, const char *path, uint8_t *ret)
{
	const char *text;
	__u8 proto = IPPROTO_TCP;
	int r;

	r = field_str(rd, tree, path, "protocol", &text);
	if (r < 0)
		return r;
	if (text[0] && (wag_proto_parse(text, &proto) < 0 ||
			(proto != IPPROTO_TCP && proto != IPPROTO_UDP && proto != IPPROTO_SCTP)))
		return field_bad(rd, field_member(tree, "protocol"),
				 "%sprotocol: \"%.32s\" is not TCP, UDP or SCTP", path, text);
	*ret = proto;
	return 0;
}

int field_labels(const struct reader *rd, const json_t *tree, struct label **labels, size_t *n)
{
	const json_t *map, *value;
	const char *key;
	int r;

	r = field_typed(rd, field_member(tree, "metadata"), "metadata.", "labels", JSON_OBJECT,
			&map);
	if (r < 0)
		return r;
	json_object_foreach((json_t *)map, key, value)
	{
		struct label *label;

		if (!json_is_string(value))
			return field_bad(rd, value, "metadata.labels[%.80s]: must be a string",
					 key);
		label = array_grow(labels, n, sizeof(*label));
		if (!label)
			return field_no_memory(rd);
		label->key = strdup(key);
		label->value = strdup(json_string_value(value));
		if (!label->key || !label->value)
			return field_no_memory(rd);
	}
	return 0;
}

static int meta_str(const struct reader *rd, const json_t *tree, const char *map_name,
		    const char *key, const char **ret)
{
	const json_t *map;
	char path[32];
	int r;

	r = field_typed(rd, field_member(tree, "metadata"), "metadata.", map_name, JSON_OBJECT,
			&map);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "metadata.%s.", map_name);
	return field_str(rd, map, path, key, ret);
}

int field_label(const struct reader *rd, const json_t *tree, const char *key, const char **ret)
{
	return meta_str(rd, tree, "labels", key, ret);
}

int field_annotation(const struct reader *rd, const json_t *tree, const char *key, const char **ret)
{
	return meta_str(rd, tree, "annotations", key, ret);
}

bool field_other_proxy(const json_t *tree)
{
	const json_t *labels = json_object_get(json_object_get(tree, "metadata"), "labels");

	return json_object_get(labels, "service.kubernetes.io/service-proxy-name") ||
	       json_object_get(labels, "service.kubernetes.io/headless");
}

int64_t field_time_ms(const char *text)
{
	struct tm tm = { 0 };
	const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	int hours = 0, minutes = 0, ms = 0;
	char sign = '+';

	if (!end)
		return 0;
	if (*end == '.') {
		for (int scale = 100; isdigit((unsigned char)*++end); scale /= 10)
			ms += (*end - '0') * scale;
	}
	if (*end == 'Z' && !end[1])
		sign = '+';
	else if (strlen(end) != 6 || sscanf(end, "%c%2d:%2d", &sign, &hours, &minutes) != 3 ||
		 !strchr("+-", sign) || hours < 0 || minutes < 0)
		return 0;
	hours = sign == '-' ? -hours : hours;
	minutes = sign == '-' ? -minutes : minutes;
	return (int64_t)(timegm(&tm) - hours * 3600 - minutes * 60) * 1000 + ms;
}
