// SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <uthash.h>
#include <waggle/cleanup.h>

#include "kube_parse.h"
#include "manifests.h"
#include "manifests_read.h"
#include "object.h"

#define ROUNDS_MAX 8
#define KEY_MAX 1024

struct file;

/* One object's name, and the files that hold an object of it, by file name: the last one counts. */
struct claim {
	UT_hash_handle hh;
	union {
		struct file *file;   /* n_files is 1: the rule, and no memory of its own */
		struct file **files; /* 2 and more */
	};
	char *service; /* made of Endpoints: of this Service; else NULL */
	uint32_t n_files;
	uint32_t load; /* the load that met it last */
	bool hidden;   /* made of Endpoints, and its Service has real slices */
	uint8_t kind;
	char key[]; /* kind, ns, NUL, name */
};

struct stamp {
	uint64_t dev, ino;
	int64_t size;
	struct timespec modified;
};

struct file {
	char *name;
	struct stamp stamp; /* of the content in force, or of the one found broken */
	bool stale, seen;
	uint64_t hold_until_ms;
	char *error; /* first problem of the content; NULL: none */
	struct claim **claims;
	size_t n_claims;
	UT_hash_handle hh;
};

struct manifests {
	char *dir;
	struct model *model;
	struct source_reporter reporter;
	struct file *files;
	struct claim *claims;
	size_t n_legacy;
	uint32_t loads;
	struct manifests_stats stats;
	bool dir_failed;
};

static void report(const struct manifests *m, enum wag_log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void report(const struct manifests *m, enum wag_log_level level, const char *fmt, ...)
{
	char msg[1024];
	va_list ap;

	if (!m->reporter.fn)
		return;
	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	m->reporter.fn(m->reporter.ctx, level, msg);
}

static void report_file(struct manifests *m, struct file *f, unsigned line, const char *text)
{
	char where[32] = "";

	if (line)
		snprintf(where, sizeof(where), "%u: ", line);
	if (!f->error &&
	    asprintf(&f->error, "%s:%s%s%s", f->name, where, line ? "" : " ", text) < 0)
		f->error = NULL;
	report(m, WAG_LOG_ERROR, "%s/%s:%s%s%s", m->dir, f->name, where, line ? "" : " ", text);
}

static void report_kept(const struct manifests *m, const struct file *f, size_t n)
{
	report(m, WAG_LOG_WARN, "%s/%s: what it held before (%zu objects) stays in force", m->dir,
	       f->name, n);
}

static bool has_suffix(const char *name, const char *suffix)
{
	size_t n = strlen(name), k = strlen(suffix);

	return n > k && strcmp(name + n - k, suffix) == 0;
}

bool manifests_wants(const char *name)
{
	if (name[0] == '.' || name[0] == '#')
		return false;
	return has_suffix(name, ".yaml") || has_suffix(name, ".yml") || has_suffix(name, ".json");
}

static struct stamp stamp_of(const struct stat *st)
{
	return (struct stamp){ st->st_dev, st->st_ino, st->st_size, st->st_mtim };
}

static int batch_read(struct manifests *m, struct file *f, struct batch *b, struct wag_err *err)
{
	_cleanup_free_ char *path = NULL, *text = NULL;
	struct stat st;
	size_t size = 0;
	int r;

	if (asprintf(&path, "%s/%s", m->dir, f->name) < 0)
		return wag_err_set(err, -ENOMEM, "out of memory");
	r = manifests_read_text(path, &st, &text, &size);
	/* One that cannot be read is not tried, and told of, with every scan. */
	if (r == 0 || stat(path, &st) == 0 || lstat(path, &st) == 0)
		f->stamp = stamp_of(&st);
	if (r < 0)
		return wag_err_set(err, r, "cannot read: %s",
				   r == -EISDIR ? "it is no regular file" :
				   r == -EFBIG	? "it is larger than 64 MiB; split it" :
				   r == -ENOENT ? "it is a link to nothing" :
						  strerror(-r));
	m->stats.bytes += size;
	return batch_parse(b, text, size, has_suffix(f->name, ".json"), err);
}

/* The file at hand, for what its objects have to say. */
struct complaint {
	struct manifests *m;
	struct file *file;
};

static void complain(void *ctx, unsigned line, const char *text)
{
	struct complaint *c = ctx;

	c->m->stats.bad_objects++;
	report_file(c->m, c->file, line, text);
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

static const char *claim_ns(const struct claim *c)
{
	return c->key + 1;
}

static const char *claim_name(const struct claim *c)
{
	return c->key + 1 + strlen(c->key + 1) + 1;
}

static void claim_free(struct manifests *m, struct claim *c)
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
static void claim_drop_file(struct manifests *m, struct claim *c, struct file *f)
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
		claim_free(m, c);
	} else if (was_winner) {
		claim_winner(c)->stale = true;
	}
}

static void warn_double(struct manifests *m, const struct claim *c, const struct file *f)
{
	const struct file *winner = claim_winner(c);

	report(m, WAG_LOG_WARN, "%s %s%s%s is in %s and in %s: %s counts (the last by name)",
	       kube_kind_name(c->kind), claim_ns(c), claim_ns(c)[0] ? "/" : "", claim_name(c),
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
		report(m, WAG_LOG_WARN, "%s/%s: %s %s/%s stands here twice: the last one counts",
		       m->dir, f->name, kube_kind_name(c->kind), claim_ns(c), claim_name(c));
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
			claim_drop_file(m, c, f);
			continue;
		}
		f->claims[f->n_claims++] = c;
		n_kept++;
	}
	if (n_kept)
		report_kept(m, f, n_kept);
}

static int batch_apply(struct manifests *m, struct file *f, struct batch *b)
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

static void load_file(struct manifests *m, struct file *f)
{
	struct complaint complaint = { .m = m, .file = f };
	_cleanup_(batch_done) struct batch b = { .complain = complain, .ctx = &complaint };
	struct wag_err err = { 0 };
	int r;

	f->stale = false;
	free(f->error);
	f->error = NULL;
	m->stats.files_read++;
	r = batch_read(m, f, &b, &err);
	if (r == 0) {
		r = batch_apply(m, f, &b);
		if (r < 0)
			wag_err_set(&err, r, "cannot be applied: %s", strerror(-r));
	}
	if (r == 0)
		return;
	batch_complain(&b, &err);
	if (f->n_claims)
		report_kept(m, f, f->n_claims);
}

static void drop_file(struct manifests *m, struct file *f)
{
	for (size_t i = 0; i < f->n_claims; i++)
		claim_drop_file(m, f->claims[i], f);
	HASH_DEL(m->files, f);
	free(f->claims);
	free(f->error);
	free(f->name);
	free(f);
}

static struct file *file_get(struct manifests *m, const char *name, bool create)
{
	struct file *f;

	HASH_FIND_STR(m->files, name, f);
	if (f || !create)
		return f;
	f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	f->name = strdup(name);
	if (!f->name) {
		free(f);
		return NULL;
	}
	f->stale = true;
	HASH_ADD_KEYPTR(hh, m->files, f->name, strlen(f->name), f);
	return f;
}

static bool same_content(struct stamp a, struct stamp b)
{
	return a.dev == b.dev && a.ino == b.ino && a.size == b.size &&
	       a.modified.tv_sec == b.modified.tv_sec && a.modified.tv_nsec == b.modified.tv_nsec;
}

/* Finds which files are there and which of them changed. */
static int look(struct manifests *m)
{
	const struct dirent *entry;
	struct file *f, *tmp;
	struct stat st;
	DIR *dir;
	int r;

	dir = opendir(m->dir);
	if (!dir)
		return -errno;
	HASH_ITER (hh, m->files, f, tmp)
		f->seen = false;
	for (errno = 0; (entry = readdir(dir)); errno = 0) {
		if (!manifests_wants(entry->d_name) ||
		    (fstatat(dirfd(dir), entry->d_name, &st, 0) < 0 &&
		     fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) ||
		    S_ISDIR(st.st_mode))
			continue;
		f = file_get(m, entry->d_name, true);
		if (!f)
			continue; /* out of memory: the next scan tries again */
		f->seen = true;
		if (!same_content(stamp_of(&st), f->stamp))
			f->stale = true;
	}
	r = -errno;
	closedir(dir);
	return r;
}

static int by_name(const struct file *a, const struct file *b)
{
	return strcmp(a->name, b->name);
}

static int load_stale(struct manifests *m, uint64_t now_ms)
{
	struct file *f, *tmp;
	int n = 0;

	HASH_SORT(m->files, by_name);
	HASH_ITER (hh, m->files, f, tmp) {
		if (!f->stale || f->hold_until_ms > now_ms)
			continue;
		f->hold_until_ms = 0;
		load_file(m, f);
		n++;
	}
	return n;
}

static int is_real_slice(const struct object *obj, void *ctx)
{
	return obj->origin != KUBE_ORIGIN_LEGACY;
}

/* Endpoints stand in only for a Service that has no slice of its own. */
static void settle_legacy(struct manifests *m)
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

int manifests_scan(struct manifests *m, uint64_t now_ms)
{
	struct file *f, *tmp;
	int r, n, total = 0;

	m->stats.scans++;
	r = look(m);
	if (r < 0) {
		if (!m->dir_failed)
			report(m, WAG_LOG_ERROR,
			       "cannot read the folder %s: %s; what it held stays in force", m->dir,
			       strerror(-r));
		m->dir_failed = true;
		return r;
	}
	m->dir_failed = false;
	HASH_ITER (hh, m->files, f, tmp) {
		if (!f->seen) {
			drop_file(m, f);
			total++;
		}
	}
	for (int round = 0; round < ROUNDS_MAX; round++) {
		n = load_stale(m, now_ms);
		total += n;
		settle_legacy(m);
		if (n == 0 && round > 0)
			break;
	}
	return total;
}

void manifests_touch(struct manifests *m, const char *name)
{
	struct file *f = file_get(m, name, false);

	if (f)
		f->stale = true;
}

void manifests_hold(struct manifests *m, const char *name, uint64_t until_ms)
{
	struct file *f;

	if (!manifests_wants(name))
		return;
	/* A new file is held as well: half of it is no better than half of an old one. */
	f = file_get(m, name, until_ms != 0);
	if (f)
		f->hold_until_ms = until_ms;
}

uint64_t manifests_next_hold(const struct manifests *m)
{
	const struct file *f, *tmp;
	uint64_t first = 0;

	HASH_ITER (hh, m->files, f, tmp) {
		if (f->hold_until_ms && (!first || f->hold_until_ms < first))
			first = f->hold_until_ms;
	}
	return first;
}

void manifests_stats(const struct manifests *m, struct manifests_stats *ret)
{
	const struct file *f, *tmp, *first = NULL;

	*ret = m->stats;
	ret->error[0] = 0;
	HASH_ITER (hh, m->files, f, tmp) {
		if (f->error && (!first || strcmp(f->name, first->name) < 0))
			first = f;
	}
	if (m->dir_failed)
		snprintf(ret->error, sizeof(ret->error), "cannot read the folder");
	else if (first)
		snprintf(ret->error, sizeof(ret->error), "%s", first->error);
}

int manifests_new(struct manifests **ret, const char *dir, struct model *model,
		  const struct source_reporter *reporter)
{
	struct manifests *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	m->dir = strdup(dir);
	if (!m->dir) {
		free(m);
		return -ENOMEM;
	}
	m->model = model;
	if (reporter)
		m->reporter = *reporter;
	*ret = m;
	return 0;
}

void manifests_free(struct manifests *m)
{
	struct file *f, *tmp;
	struct claim *c, *c_tmp;

	if (!m)
		return;
	HASH_ITER (hh, m->files, f, tmp) {
		HASH_DEL(m->files, f);
		free(f->claims);
		free(f->error);
		free(f->name);
		free(f);
	}
	HASH_ITER (hh, m->claims, c, c_tmp)
		claim_free(m, c);
	free(m->dir);
	free(m);
}

void manifests_freep(struct manifests **m)
{
	manifests_free(*m);
}
