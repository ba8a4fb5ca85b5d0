// SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <uthash.h>
#include <waggle/cleanup.h>

#include "manifests_internal.h"
#include "manifests_read.h"

#define ROUNDS_MAX 8

void manifests_report(const struct manifests *m, enum wag_log_level level, const char *fmt, ...)
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
	manifests_report(m, WAG_LOG_ERROR, "%s/%s:%s%s%s", m->dir, f->name, where, line ? "" : " ",
			 text);
}

void manifests_report_kept(const struct manifests *m, const struct file *f, size_t n)
{
	manifests_report(m, WAG_LOG_WARN,
			 "%s/%s: what it held before (%zu objects) stays in force", m->dir, f->name,
			 n);
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
		r = manifests_apply(m, f, &b);
		if (r < 0)
			wag_err_set(&err, r, "cannot be applied: %s", strerror(-r));
	}
	if (r == 0)
		return;
	batch_complain(&b, &err);
	if (f->n_claims)
		manifests_report_kept(m, f, f->n_claims);
}

static void drop_file(struct manifests *m, struct file *f)
{
	for (size_t i = 0; i < f->n_claims; i++)
		manifests_claim_drop(m, f->claims[i], f);
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

int manifests_scan(struct manifests *m, uint64_t now_ms)
{
	struct file *f, *tmp;
	int r, n, total = 0;

	m->stats.scans++;
	r = look(m);
	if (r < 0) {
		if (!m->dir_failed)
			manifests_report(m, WAG_LOG_ERROR,
					 "cannot read the folder %s: %s; what it held stays in "
					 "force",
					 m->dir, strerror(-r));
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
		manifests_settle_legacy(m);
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
		manifests_claim_free(m, c);
	free(m->dir);
	free(m);
}

void manifests_freep(struct manifests **m)
{
	manifests_free(*m);
}
