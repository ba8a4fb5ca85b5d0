// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <waggle/addr.h>

#include "kube_pb_field.h"

int pb_too_big(const struct pb_reader *rd)
{
	return wag_err_set(rd->to.err, -EMSGSIZE, "it is larger than allowed");
}

bool pb_is_utf8(const char *text)
{
	json_t *value;

	while (*text && !(*text & 0x80))
		text++;
	if (!*text)
		return true;
	value = json_string(text);
	json_decref(value);
	return value;
}

int pb_text(const struct pb_reader *rd, const char *text, const char *path, const char **ret)
{
	*ret = text ? text : "";
	return pb_is_utf8(*ret) ? 0 : field_bad(&rd->to, NULL, "%s: is not UTF-8", path);
}

int pb_opt(const struct pb_reader *rd, const char *text, const char *path, char **ret)
{
	const char *found;
	int r = pb_text(rd, text, path, &found);

	*ret = r == 0 && found[0] ? (char *)found : NULL;
	return r;
}

int pb_int(const struct pb_reader *rd, int32_t value, int min, int max, const char *path,
	   const char *key)
{
	if (value < min || value > max)
		return field_bad(&rd->to, NULL, "%s%s: %d is not in %d..%d", path, key, value, min,
				 max);
	return 0;
}

int pb_addr(const struct pb_reader *rd, const char *text, const char *path, struct wag_addr *ret)
{
	if (!text || wag_addr_parse(text, ret) < 0)
		return field_bad(&rd->to, NULL, "%s: \"%.64s\" is no IP address", path,
				 text && pb_is_utf8(text) ? text : "");
	return 0;
}

/* The path is made only for an error: there are a hundred thousand good ones. */
static int bad_addr(const struct pb_reader *rd, const char *text, const char *path, int index,
		    size_t i)
{
	struct wag_addr addr;
	char where[96];

	if (index < 0)
		snprintf(where, sizeof(where), "%s[%zu]", path, i);
	else
		snprintf(where, sizeof(where), "%s[%d].addresses[%zu]", path, index, i);
	return pb_addr(rd, text, where, &addr);
}

int pb_addrs(const struct pb_reader *rd, char **list, size_t n, const char *path, int index,
	     struct wag_addr **ret, size_t *ret_n)
{
	if (n == 0)
		return 0;
	*ret = kube_arena_zalloc(rd->arena, n, sizeof(**ret));
	if (!*ret)
		return pb_too_big(rd);
	for (size_t i = 0; i < n; i++) {
		if (wag_addr_parse(list[i], &(*ret)[i]) < 0)
			return bad_addr(rd, list[i], path, index, i);
	}
	*ret_n = n;
	return 0;
}

int pb_proto(const struct pb_reader *rd, const char *text, const char *path, uint8_t *ret)
{
	__u8 proto = IPPROTO_TCP;

	if (text && text[0] &&
	    (wag_proto_parse(text, &proto) < 0 ||
	     (proto != IPPROTO_TCP && proto != IPPROTO_UDP && proto != IPPROTO_SCTP)))
		return field_bad(&rd->to, NULL, "%sprotocol: \"%.32s\" is not TCP, UDP or SCTP",
				 path, pb_is_utf8(text) ? text : "");
	*ret = proto;
	return 0;
}

bool pb_is(const char *text, const char *want)
{
	return text && strcmp(text, want) == 0;
}

static const char *find_pair(Kube__StringPair *const *pairs, size_t n, const char *key)
{
	for (size_t i = 0; i < n; i++)
		if (pb_is(pairs[i]->key, key))
			return pairs[i]->value ? pairs[i]->value : "";
	return NULL;
}

const char *pb_label(const struct pb_reader *rd, const char *key)
{
	return find_pair(rd->meta->labels, rd->meta->n_labels, key);
}

const char *pb_annotation(const struct pb_reader *rd, const char *key)
{
	return find_pair(rd->meta->annotations, rd->meta->n_annotations, key);
}

int pb_labels(const struct pb_reader *rd, struct label **ret, size_t *ret_n)
{
	size_t n = rd->meta->n_labels;
	struct label *labels;
	int r;

	if (n == 0)
		return 0;
	*ret = labels = kube_arena_zalloc(rd->arena, n, sizeof(*labels));
	if (!labels)
		return pb_too_big(rd);
	for (size_t i = 0; i < n; i++) {
		const Kube__StringPair *pair = rd->meta->labels[i];
		const char *key, *value;

		if ((r = pb_text(rd, pair->key, "metadata.labels", &key)) < 0 ||
		    (r = pb_text(rd, pair->value, "metadata.labels", &value)) < 0)
			return r;
		labels[i] = (struct label){ (char *)key, (char *)value };
	}
	*ret_n = n;
	return 0;
}
