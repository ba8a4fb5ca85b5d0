// SPDX-License-Identifier: Apache-2.0
/* Which files hold which objects. Of several versions that of the last file by name counts. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <waggle/cleanup.h>

#include "kube_parse.h"
#include "manifests_internal.h"
#include "manifests_read.h"
#include "object.h"

#define KEY_MAX 1024

static const char *claim_ns(const struct claim *c)
{
	return c->key + 1;
}

static const char *claim_name(const struct claim *c)
{
	return c->key + 1 + strlen(c->key + 1) + 1;
}

static struct claim *claim_get(struct manifests *m, const struct object *obj)
{
	size_t ns_len = strlen(obj->ns), name_len = strlen(obj->name);
	size_t len = 1 + ns_len + 1 + name_len;
	struct claim *c;
	char key[KEY_MAX];

	if (len + 1 > sizeof(key))
		return NULL;
	key[0] = (char)('0' + obj->kind);
	memcpy(key + 1, obj->ns, ns_len + 1);
	memcpy(key + 1 + ns_len + 1, obj->name, name_len + 1);
	HASH_FIND(hh, m->claims, key, len, c);
	if (c)
		return c;
	c = calloc(1, sizeof(*c) + len + 1);
	if (!c)
		return NULL;
	c->kind = (uint8_t)obj->kind;
	memcpy(c->key, key, len + 1);
	HASH_ADD_KEYPTR(hh, m->claims, c->key, len, c);
	return c;
}

void manifests_claim_free(struct manifests *m, struct claim *c)
{
	HASH_DEL(m->claims, c);
	if (c->service)
		m->n_legacy--;
	free(c->service);
	if (c->n_files > 1)
		free(c->files);
	free(c);
}

static struct file *claim_file(const struct claim *c, uint32_t i)
{
	return c->n_files == 1 ? c->file : c->files[i];
}

static struct file *claim_winner(const struct claim *c)
{
	return c->n_files ? claim_file(c, c->n_files - 1) : NULL;
}

/* Puts f among the files of c, sorted by name. Returns 1 if it was not there, 0, or -ENOMEM. */
static int claim_add_file(struct claim *c, struct file *f)
{
	struct file **files;
	uint32_t n = c->n_files, i;

	for (i = 0; i < n; i++) {
		if (claim_file(c, i) == f)
			return 0;
	}
	if (n == 0) {
		c->file = f;
		c->n_files = 1;
		return 1;
	}
	files = reallocarray(n > 1 ? c->files : NULL, n + 1, sizeof(struct file *));
	if (!files)
		return -ENOMEM;
	if (n == 1)
		files[0] = c->file;
	for (i = n; i > 0 && strcmp(files[i - 1]->name, f->name) > 0; i--)
		files[i] = files[i - 1];
	files[i] = f;
	c->files = files;
	c->n_files = n + 1;
	return 1;
}

static void claim_take_out(struct claim *c, uint32_t i)
{
	struct file **files = c->files;

	c->n_files--;
	if (c->n_files == 0)
		return;
	memmove(&files[i], &files[i + 1], (c->n_files - i) * sizeof(*files));
	if (c->n_files == 1) {
		c->file = files[0];
		free(files);
	}
}

/* f no longer holds the object: the next file's version counts, or the object goes. */
void manifests_claim_drop(struct manifests *m, struct claim *c, struct file *f)
{
	bool was_winner = claim_winner(c) == f;
	uint32_t i;

	for (i = 0; i < c->n_files && claim_file(c, i) != f; i++)
		;
	if (i == c->n_files)
		return;
	claim_take_out(c, i);
	if (c->n_files == 0) {
		model_delete(m->model, c->kind, claim_ns(c), claim_name(c));
		manifests_claim_free(m, c);
	} else if (was_winner) {
		claim_winner(c)->stale = true;
	}
}

static void warn_double(struct manifests *m, const struct claim *c, const struct file *f)
{
	const struct file *winner = claim_winner(c);

	manifests_report(m, WAG_LOG_WARN,
			 "%s %s%s%s is in %s and in %s: %s counts (the last by name)",
			 kube_kind_name(c->kind), claim_ns(c), claim_ns(c)[0] ? "/" : "",
			 claim_name(c),
			 winner == f ? claim_file(c, c->n_files - 2)->name : f->name, winner->name,
			 winner->name);
}

/* Takes the object over: into the model if f's version is the one that counts. */
static int apply_object(struct manifests *m, struct file *f, struct object *obj)
{
	_cleanup_(object_freep) struct object *given = obj;
	struct claim *c = claim_get(m, given);
	bool legacy = given->origin == KUBE_ORIGIN_LEGACY;
	int added;

	if (!c)
		return -ENOMEM;
	if (c->load == m->loads) {
		manifests_report(m, WAG_LOG_WARN,
				 "%s/%s: %s %s%s%s stands here twice: the last one counts", m->dir,
				 f->name, kube_kind_name(c->kind), claim_ns(c),
				 claim_ns(c)[0] ? "/" : "", claim_name(c));
	} else {
		/* Sized by the caller for every object of the batch. */
		f->claims[f->n_claims++] = c;
	}
	c->load = m->loads;
	if (legacy && !c->service) {
		c->service = strdup(given->slice.service);
		if (!c->service)
			return -ENOMEM;
		m->n_legacy++;
	}
	added = claim_add_file(c, f);
	if (added < 0)
		return added;
	if (added > 0 && c->n_files > 1)
		warn_double(m, c, f);
	if (claim_winner(c) != f || c->hidden)
		return 0;
	return model_upsert(m->model, TAKE_PTR(given));
}

/*
 * What f held before and does not hold now goes; unless f is broken: one object that cannot be used
 * may be any of them, misspelt, so all of them stay in force until the file is whole.
 */
static void apply_rest(struct manifests *m, struct file *f, const struct batch *b,
		       struct claim **old, size_t n_old)
{
	size_t n_kept = 0;

	for (size_t i = 0; i < n_old; i++) {
		struct claim *c = old[i];

		if (c->load == m->loads)
			continue;
		if (b->n_bad == 0) {
			manifests_claim_drop(m, c, f);
			continue;
		}
		f->claims[f->n_claims++] = c;
		n_kept++;
	}
	if (n_kept)
		manifests_report_kept(m, f, n_kept);
}

int manifests_apply(struct manifests *m, struct file *f, struct batch *b)
{
	_cleanup_free_ struct claim **old = f->claims;
	size_t n_old = f->n_claims, i;
	struct claim **claims = calloc(b->n_objects + n_old + 1, sizeof(*claims));
	int r, first = 0;

	if (!claims) {
		old = NULL;
		return -ENOMEM;
	}
	m->loads++;
	f->claims = claims;
	f->n_claims = 0;
	for (i = 0; i < b->n_objects; i++) {
		r = apply_object(m, f, TAKE_PTR(b->objects[i]));
		if (r < 0 && first == 0)
			first = r;
	}
	apply_rest(m, f, b, old, n_old);
	return first;
}

static int is_real_slice(const struct object *obj, void *ctx)
{
	return obj->origin != KUBE_ORIGIN_LEGACY;
}

void manifests_settle_legacy(struct manifests *m)
{
	struct claim *c, *tmp;

	if (!m->n_legacy)
		return;
	HASH_ITER (hh, m->claims, c, tmp) {
		bool hide;

		if (!c->service)
			continue;
		hide = model_visit_slices(m->model, claim_ns(c), c->service, is_real_slice, NULL);
		if (hide == c->hidden)
			continue;
		c->hidden = hide;
		if (hide)
			model_delete(m->model, c->kind, claim_ns(c), claim_name(c));
		else if (claim_winner(c))
			claim_winner(c)->stale = true;
	}
}
