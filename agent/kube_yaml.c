// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <math.h>
#include <string.h>
#include <uthash.h>
#include <waggle/cleanup.h>
#include <yaml.h>

#include "kube_yaml.h"
#include "object.h"

#define DEPTH_MAX 64
#define ANCHORS_MAX 1024
#define ALIASED_MAX 4000000 /* values that aliases may add to a document */

struct line {
	const json_t *value;
	unsigned line;
	UT_hash_handle hh;
};

struct anchor {
	char *name;
	json_t *value;
	size_t weight; /* how many values it is */
};

/* Each document has a parser of its own, so that one that is broken takes no other with it. */
struct kube_yaml {
	yaml_parser_t parser;
	const char *text; /* what no parser has been given yet */
	size_t size;
	size_t line; /* of text */
	size_t base; /* lines before what the parser has */
	size_t n_values, n_aliased; /* of the document */
	json_t *document;   /* the current one */
	struct line *lines; /* of its values */
	bool parsing;
	struct anchor *anchors;
	size_t n_anchors;
	struct wag_err *err;
};

static int fail_at(struct kube_yaml *y, const yaml_mark_t *mark, const char *what)
{
	return wag_err_set(y->err, -EINVAL, "line %zu: %s", y->base + mark->line + 1, what);
}

static int no_memory(struct kube_yaml *y)
{
	return wag_err_set(y->err, -ENOMEM, "out of memory");
}

static int next_event(struct kube_yaml *y, yaml_event_t *event)
{
	const yaml_parser_t *p = &y->parser;

	if (yaml_parser_parse(&y->parser, event))
		return 0;
	if (p->error == YAML_MEMORY_ERROR)
		return no_memory(y);
	if (p->error == YAML_READER_ERROR)
		return wag_err_set(y->err, -EINVAL, "line %zu: %s",
				   y->base + p->mark.line + 1, p->problem);
	return wag_err_set(y->err, -EINVAL, "line %zu: %s%s%s", y->base + p->problem_mark.line + 1,
			   p->context ? p->context : "", p->context ? ": " : "",
			   p->problem ? p->problem : "syntax error");
}

/* Remembers where value stands; singletons (true, false, null) have no place of their own. */
static int remember_line(struct kube_yaml *y, const json_t *value, const yaml_mark_t *mark)
{
	struct line *at;

	if (json_is_boolean(value) || json_is_null(value))
		return 0;
	at = malloc(sizeof(*at));
	if (!at)
		return no_memory(y);
	at->value = value;
	at->line = y->base + mark->line + 1;
	HASH_ADD_PTR(y->lines, value, at);
	return 0;
}

static int add_anchor(struct kube_yaml *y, const yaml_char_t *name, json_t *value, size_t weight,
		      const yaml_mark_t *mark)
{
	struct anchor *at;

	if (!name)
		return 0;
	if (y->n_anchors >= ANCHORS_MAX)
		return fail_at(y, mark, "too many anchors");
	at = array_grow(&y->anchors, &y->n_anchors, sizeof(*at));
	if (!at)
		return no_memory(y);
	at->weight = weight;
	at->name = strdup((const char *)name);
	at->value = json_incref(value);
	return at->name ? 0 : no_memory(y);
}

static void drop_anchors(struct kube_yaml *y)
{
	for (size_t i = 0; i < y->n_anchors; i++) {
		free(y->anchors[i].name);
		json_decref(y->anchors[i].value);
	}
	free(y->anchors);
	y->anchors = NULL;
	y->n_anchors = 0;
}

static int find_alias(struct kube_yaml *y, const yaml_event_t *event, json_t **ret)
{
	const char *name = (const char *)event->data.alias.anchor;

	for (size_t i = y->n_anchors; i > 0; i--) {
		const struct anchor *at = &y->anchors[i - 1];

		if (strcmp(at->name, name) != 0)
			continue;
		y->n_values += at->weight;
		y->n_aliased += at->weight;
		if (y->n_aliased > ALIASED_MAX)
			return fail_at(y, &event->start_mark,
				       "aliases make it too large: write out what is meant");
		*ret = json_incref(at->value);
		return 0;
	}
	return wag_err_set(y->err, -EINVAL, "line %zu: alias *%.64s has no anchor before it",
			   y->base + event->start_mark.line + 1, name);
}

static json_t *plain_int(const char *text)
{
	const char *digits = text + (*text == '-' || *text == '+');
	char *end;
	long long v;
	int base = 10;

	if (digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'o') && digits == text) {
		base = digits[1] == 'x' ? 16 : 8;
		text = digits += 2;
	}
	if (!digits[0] || strspn(digits, "0123456789abcdefABCDEF") != strlen(digits))
		return NULL;
	errno = 0;
	v = strtoll(text, &end, base);
	return *end || errno ? NULL : json_integer(v);
}

static json_t *plain_real(const char *text)
{
	char *end;
	double v;

	if (!*text || strspn(text, "0123456789.eE+-") != strlen(text) ||
	    !strpbrk(text, "0123456789"))
		return NULL;
	v = strtod(text, &end);
	return *end || !isfinite(v) ? NULL : json_real(v);
}

static bool is_one_of(const char *text, const char *const *words)
{
	for (; *words; words++) {
		if (strcmp(text, *words) == 0)
			return true;
	}
	return false;
}

static json_t *plain_scalar(const char *text)
{
	static const char *const nulls[] = { "", "~", "null", "Null", "NULL", NULL };
	static const char *const trues[] = { "true", "True", "TRUE", NULL };
	static const char *const falses[] = { "false", "False", "FALSE", NULL };
	json_t *value;

	if (is_one_of(text, nulls))
		return json_null();
	if (is_one_of(text, trues))
		return json_true();
	if (is_one_of(text, falses))
		return json_false();
	value = plain_int(text);
	return value ? value : plain_real(text);
}

static int make_scalar(struct kube_yaml *y, const yaml_event_t *event, json_t **ret)
{
	const char *text = (const char *)event->data.scalar.value;
	const char *tag = (const char *)event->data.scalar.tag;
	json_t *value = NULL;

	if (event->data.scalar.plain_implicit)
		value = plain_scalar(text);
	else if (tag && strcmp(tag, YAML_INT_TAG) == 0)
		value = plain_int(text);
	else if (tag && (strcmp(tag, YAML_BOOL_TAG) == 0 || strcmp(tag, YAML_NULL_TAG) == 0))
		value = plain_scalar(text);
	if (!value) {
		if (memchr(text, 0, event->data.scalar.length))
			return fail_at(y, &event->start_mark, "a string contains a NUL byte");
		value = json_stringn(text, event->data.scalar.length);
	}
	if (!value)
		return fail_at(y, &event->start_mark, "a string is not valid UTF-8");
	*ret = value;
	return 0;
}

static int read_node(struct kube_yaml *y, yaml_event_t *event, int depth, json_t **ret);

static int read_sequence(struct kube_yaml *y, int depth, json_t *list)
{
	int r;

	for (;;) {
		json_t *value = NULL;
		yaml_event_t event;

		r = next_event(y, &event);
		if (r < 0)
			return r;
		if (event.type == YAML_SEQUENCE_END_EVENT) {
			yaml_event_delete(&event);
			return 0;
		}
		r = read_node(y, &event, depth, &value);
		yaml_event_delete(&event);
		if (r < 0)
			return r;
		if (json_array_append_new(list, value) < 0)
			return no_memory(y);
	}
}

/* "<<: *base" or "<<: [*a, *b]": what is missing here is taken from there. */
static int merge(struct kube_yaml *y, json_t *map, const json_t *merges, const yaml_mark_t *mark)
{
	const json_t *one;
	size_t i;

	json_array_foreach(merges, i, one)
	{
		const json_t *list = json_is_array(one) ? one : NULL, *from;
		size_t k, n = list ? json_array_size(list) : 1;

		for (k = 0; k < n; k++) {
			from = list ? json_array_get(list, k) : one;
			if (!json_is_object(from))
				return fail_at(y, mark, "\"<<\" needs a mapping");
			if (json_object_update_missing(map, (json_t *)from) < 0)
				return no_memory(y);
		}
	}
	return 0;
}

static int add_pair(struct kube_yaml *y, json_t *map, const yaml_event_t *key, json_t *value,
		    json_t *merges)
{
	const char *name = (const char *)key->data.scalar.value;

	if (strlen(name) != key->data.scalar.length) {
		json_decref(value);
		return fail_at(y, &key->start_mark, "a key contains a NUL byte");
	}
	if (strcmp(name, "<<") == 0 && key->data.scalar.plain_implicit)
		return json_array_append_new(merges, value) < 0 ? no_memory(y) : 0;
	if (json_object_get(map, name)) {
		json_decref(value);
		return wag_err_set(y->err, -EINVAL, "line %zu: key \"%.64s\" stands here twice",
				   y->base + key->start_mark.line + 1, name);
	}
	if (json_object_set_new(map, name, value) < 0)
		return fail_at(y, &key->start_mark, "a key is not valid UTF-8");
	return 0;
}

static void json_freep(json_t **tree)
{
	json_decref(*tree);
}

static int read_pair(struct kube_yaml *y, const yaml_event_t *key, int depth, json_t *map,
		     json_t *merges)
{
	json_t *value = NULL;
	yaml_event_t event;
	int r;

	if (key->type != YAML_SCALAR_EVENT)
		return fail_at(y, &key->start_mark, "a key must be a plain string");
	r = next_event(y, &event);
	if (r < 0)
		return r;
	r = read_node(y, &event, depth, &value);
	yaml_event_delete(&event);
	return r < 0 ? r : add_pair(y, map, key, value, merges);
}

static int read_mapping(struct kube_yaml *y, int depth, json_t *map, const yaml_mark_t *mark)
{
	_cleanup_(json_freep) json_t *merges = json_array();
	int r;

	if (!merges)
		return no_memory(y);
	for (;;) {
		yaml_event_t key;

		r = next_event(y, &key);
		if (r < 0)
			return r;
		if (key.type == YAML_MAPPING_END_EVENT) {
			yaml_event_delete(&key);
			return merge(y, map, merges, mark);
		}
		r = read_pair(y, &key, depth, map, merges);
		yaml_event_delete(&key);
		if (r < 0)
			return r;
	}
}

/* The node that event opens; the caller deletes event. *ret is the caller's. */
static int read_node(struct kube_yaml *y, yaml_event_t *event, int depth, json_t **ret)
{
	_cleanup_(json_freep) json_t *value = NULL;
	const yaml_char_t *anchor = NULL;
	size_t before = y->n_values;
	int r;

	if (depth >= DEPTH_MAX)
		return fail_at(y, &event->start_mark, "nested too deep");
	switch (event->type) {
	case YAML_ALIAS_EVENT:
		return find_alias(y, event, ret);
	case YAML_SCALAR_EVENT:
		anchor = event->data.scalar.anchor;
		r = make_scalar(y, event, &value);
		break;
	case YAML_SEQUENCE_START_EVENT:
		anchor = event->data.sequence_start.anchor;
		value = json_array();
		r = value ? read_sequence(y, depth + 1, value) : no_memory(y);
		break;
	case YAML_MAPPING_START_EVENT:
		anchor = event->data.mapping_start.anchor;
		value = json_object();
		r = value ? read_mapping(y, depth + 1, value, &event->start_mark) : no_memory(y);
		break;
	default:
		return fail_at(y, &event->start_mark, "unexpected end");
	}
	y->n_values++;
	if (r < 0 || (r = remember_line(y, value, &event->start_mark)) < 0 ||
	    (r = add_anchor(y, anchor, value, y->n_values - before, &event->start_mark)) < 0)
		return r;
	*ret = TAKE_PTR(value);
	return 0;
}

static int read_document(struct kube_yaml *y)
{
	yaml_event_t event;
	int r;

	r = next_event(y, &event);
	if (r < 0)
		return r;
	r = read_node(y, &event, 0, &y->document);
	yaml_event_delete(&event);
	drop_anchors(y);
	return r;
}

static void drop_document(struct kube_yaml *y)
{
	struct line *at, *tmp;

	HASH_ITER (hh, y->lines, at, tmp) {
		HASH_DEL(y->lines, at);
		free(at);
	}
	json_decref(y->document);
	y->document = NULL;
	y->n_values = y->n_aliased = 0;
}

int kube_yaml_new(struct kube_yaml **ret, const char *text, size_t size)
{
	struct kube_yaml *y = calloc(1, sizeof(*y));

	if (!y)
		return -ENOMEM;
	y->text = text;
	y->size = size;
	*ret = y;
	return 0;
}

static bool begins_document(const char *line, const char *end)
{
	return end - line >= 3 && memcmp(line, "---", 3) == 0 &&
	       (end - line == 3 || strchr(" \t\r\n", line[3]));
}

/* Cuts the next document off; a directive belongs to the one after it. */
static size_t cut_document(struct kube_yaml *y)
{
	const char *start = y->text, *end = start + y->size, *at = start, *eol;
	bool directive = false;

	for (; at < end; at = eol + 1) {
		if (at > start && !directive && begins_document(at, end))
			break;
		directive = *at == '%' || (directive && !begins_document(at, end));
		eol = memchr(at, '\n', end - at);
		if (!eol) {
			at = end;
			break;
		}
		y->line++;
	}
	y->text = at;
	y->size = end - at;
	return at - start;
}

static int open_parser(struct kube_yaml *y)
{
	const unsigned char *text = (const unsigned char *)y->text;

	if (!yaml_parser_initialize(&y->parser))
		return no_memory(y);
	y->parsing = true;
	y->base = y->line;
	yaml_parser_set_input_string(&y->parser, text, cut_document(y));
	return 0;
}

static void close_parser(struct kube_yaml *y)
{
	if (y->parsing)
		yaml_parser_delete(&y->parser);
	y->parsing = false;
}

/* 1: a document was read; 0: the parser has no more. */
static int next_document(struct kube_yaml *y)
{
	yaml_event_type_t type;
	yaml_event_t event;
	int r;

	do {
		r = next_event(y, &event);
		if (r < 0)
			return r;
		type = event.type;
		yaml_event_delete(&event);
		if (type == YAML_STREAM_END_EVENT)
			return 0;
	} while (type != YAML_DOCUMENT_START_EVENT);
	r = read_document(y);
	return r < 0 ? r : 1;
}

int kube_yaml_next(struct kube_yaml *y, json_t **ret, struct wag_err *err)
{
	int r = 0;

	drop_document(y);
	y->err = err;
	while (r == 0 && (y->parsing || y->size)) {
		if (!y->parsing)
			r = open_parser(y);
		if (r == 0)
			r = next_document(y);
		if (r <= 0)
			close_parser(y);
	}
	if (r == 1)
		*ret = json_is_null(y->document) ? NULL : y->document;
	return r;
}

unsigned kube_yaml_line(const struct kube_yaml *y, const json_t *value)
{
	struct line *at;

	HASH_FIND_PTR(y->lines, &value, at);
	return at ? at->line : 0;
}

void kube_yaml_free(struct kube_yaml *y)
{
	if (!y)
		return;
	drop_document(y);
	drop_anchors(y);
	close_parser(y);
	free(y);
}

void kube_yaml_freep(struct kube_yaml **y)
{
	kube_yaml_free(*y);
}
