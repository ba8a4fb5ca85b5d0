// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <waggle/cleanup.h>

#include "kube_parse.h"
#include "kube_yaml.h"
#include "manifests_read.h"
#include "object.h"

#define FILE_MAX_BYTES (64 << 20)
#define OBJECTS_MAX 1000000 /* of one file: aliases can multiply a small text */

void batch_done(struct batch *b)
{
	for (size_t i = 0; i < b->n_objects; i++)
		object_free(b->objects[i]);
	free(b->objects);
	b->objects = NULL;
	b->n_objects = b->n_bad = 0;
	kube_yaml_freep(&b->yaml);
	b->yaml = NULL;
}

static int batch_object(void *ctx, struct object *obj, const json_t *tree)
{
	_cleanup_(object_freep) struct object *given = obj;
	struct batch *b = ctx;
	struct object **at;

	if (b->n_objects >= OBJECTS_MAX)
		return -E2BIG;
	/* Grows by doubling: a file may hold tens of thousands. */
	if ((b->n_objects & (b->n_objects - 1)) == 0) {
		at = reallocarray(b->objects, b->n_objects ? b->n_objects * 2 : 1, sizeof(*at));
		if (!at)
			return -ENOMEM;
		b->objects = at;
	}
	b->objects[b->n_objects] = object_pack(given);
	if (!b->objects[b->n_objects])
		return -ENOMEM;
	b->n_objects++;
	return 0;
}

static void batch_bad(void *ctx, const struct kube_ident *ident, const struct wag_err *err)
{
	struct batch *b = ctx;

	b->n_bad++;
	if (b->quiet)
		return;
	b->complain(b->ctx, b->yaml ? kube_yaml_line(b->yaml, ident->at) : 0, err->msg);
}

static int batch_walk(struct batch *b, const json_t *tree)
{
	const struct kube_sink sink = {
		.object = batch_object,
		.bad = batch_bad,
		.ctx = b,
		.default_ns = "default",
		.manifests = true,
	};

	return kube_parse_any(tree, &sink);
}

void batch_complain(struct batch *b, const struct wag_err *err)
{
	const char *text = err->msg;
	unsigned line = 0;
	int skip = 0;

	if (sscanf(text, "line %u: %n", &line, &skip) == 1)
		text += skip;
	b->complain(b->ctx, line, text);
}

/* whole: nothing of a text counts in which a document is broken. */
static int batch_read_yaml(struct batch *b, const char *text, size_t size, bool whole,
			   struct wag_err *err)
{
	json_t *tree;
	int r;

	r = kube_yaml_new(&b->yaml, text, size);
	if (r < 0)
		return wag_err_set(err, r, "%s", strerror(-r));
	while ((r = kube_yaml_next(b->yaml, &tree, err)) != 0) {
		if (r == -EINVAL && !whole) {
			b->n_bad++;
			batch_complain(b, err);
			continue;
		}
		if (r < 0)
			return r;
		r = tree ? batch_walk(b, tree) : 0;
		if (r < 0)
			return wag_err_set(err, r, "%s", strerror(-r));
	}
	return 0;
}

static size_t count_lines(const char *text, const char *end)
{
	size_t n = 0;

	while (text < end)
		n += *text++ == '\n';
	return n;
}

/* One value or several in a row. */
static int batch_read_json(struct batch *b, const char *text, size_t size, struct wag_err *err)
{
	const char *from = text, *end = text + size;
	json_error_t at;
	json_t *tree;
	int r;

	do {
		tree = json_loadb(from, end - from,
				  JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK, &at);
		if (!tree)
			return wag_err_set(err, -EINVAL, "line %zu: %s",
					   count_lines(text, from) + at.line, at.text);
		r = batch_walk(b, tree);
		json_decref(tree);
		if (r < 0)
			return wag_err_set(err, r, "%s", strerror(-r));
		for (from += at.position; from < end && strchr(" \t\r\n", *from); from++)
			;
	} while (from < end);
	return 0;
}

/*
 * The JSON reader is many times faster and smaller than the YAML reader, which alone knows the line
 * of an object that cannot be used. But YAML 1.1 readers refuse some JSON, such as surrogate pairs:
 * then the JSON reader has the last word.
 */
int batch_parse(struct batch *b, const char *text, size_t size, bool json, struct wag_err *err)
{
	struct wag_err json_err;
	int r;

	if (json) {
		b->quiet = true;
		r = batch_read_json(b, text, size, &json_err);
		b->quiet = false;
		if (r != -EINVAL && b->n_bad == 0)
			return r < 0 ? wag_err_set(err, r, "%s", json_err.msg) : 0;
		batch_done(b);
	}
	r = batch_read_yaml(b, text, size, json, err);
	if (r != -EINVAL || !json)
		return r;
	batch_done(b);
	r = batch_read_json(b, text, size, &json_err);
	if (r < 0)
		*err = json_err;
	return r;
}

int manifests_read_text(const char *path, struct stat *ret_st, char **ret, size_t *ret_size)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_close_ int fd = -1;
	size_t used = 0;
	ssize_t n;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, ret_st) < 0)
		return -errno;
	if (!S_ISREG(ret_st->st_mode))
		return -EISDIR;
	if (ret_st->st_size > FILE_MAX_BYTES)
		return -EFBIG;
	text = malloc(ret_st->st_size + 1);
	if (!text)
		return -ENOMEM;
	while (used < (size_t)ret_st->st_size) {
		n = read(fd, text + used, ret_st->st_size - used);
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		used += n;
	}
	*ret_size = used;
	*ret = TAKE_PTR(text);
	return 0;
}
