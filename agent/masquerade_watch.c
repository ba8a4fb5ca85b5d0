// SPDX-License-Identifier: Apache-2.0
/* A timer looks whether the file is another one: a mounted ConfigMap is changed by a symlink. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <waggle/cleanup.h>

#include "masquerade.h"

/* What a file looks like from outside; all zero: it is not there. */
struct file_sign {
	uint64_t dev, ino, size, mtime_ns, ctime_ns;
};

struct masq_watch {
	char *path;
	masq_changed_fn changed;
	masq_report_fn report;
	void *ctx;
	struct event *timer;
	struct masq_cidrs cidrs;
	struct file_sign seen;
	bool told; /* the list has been told once */
};

static uint64_t ns_of(struct timespec t)
{
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static struct file_sign look(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return (struct file_sign){ .ino = errno == ENOENT ? 0 : ~0ULL };
	return (struct file_sign){ .dev = st.st_dev,
				   .ino = st.st_ino,
				   .size = st.st_size,
				   .mtime_ns = ns_of(st.st_mtim),
				   .ctime_ns = ns_of(st.st_ctim) };
}

static bool same_list(const struct masq_cidrs *a, const struct masq_cidrs *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (a->list[i].bits != b->list[i].bits ||
		    memcmp(&a->list[i].addr, &b->list[i].addr, sizeof(a->list[i].addr)) != 0)
			return false;
	return true;
}

/* The caller's list is w's from now on. */
static void take(struct masq_watch *w, struct masq_cidrs *now)
{
	bool same = w->told && same_list(&w->cidrs, now);
	char msg[512];

	masq_cidrs_done(&w->cidrs);
	w->cidrs = *now;
	if (same)
		return;
	w->told = true;
	snprintf(msg, sizeof(msg), "%.400s: %zu destinations are not masqueraded", w->path, now->n);
	w->report(w->ctx, WAG_LOG_INFO, msg);
	w->changed(w->ctx, w->cidrs.list, w->cidrs.n);
}

static int read_again(struct masq_watch *w)
{
	struct masq_cidrs now = { 0 };
	struct wag_err err = { 0 };
	int r = masq_read(&now, w->path, &err);

	if (r < 0) {
		w->report(w->ctx, WAG_LOG_ERROR, err.msg);
		if (w->told || r == -ENOMEM)
			return r;
		r = masq_parse(&now, "", 0, &err);
		if (r < 0)
			return r;
	}
	take(w, &now);
	return 0;
}

static void rearm(struct masq_watch *w)
{
	uint64_t ms = w->cidrs.resync_ms < MASQ_LOOK_MS ? w->cidrs.resync_ms : MASQ_LOOK_MS;
	const struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	event_add(w->timer, &tv);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
	struct masq_watch *w = ctx;
	struct file_sign now = look(w->path); /* before reading: a later change is seen next time */

	if (memcmp(&now, &w->seen, sizeof(now)) != 0) {
		w->seen = now;
		if (read_again(w) == -ENOMEM)
			w->seen.ino = ~0ULL;
	}
	rearm(w);
}

int masq_watch_new(struct masq_watch **ret, struct event_base *base, const char *path,
		   masq_changed_fn changed, masq_report_fn report, void *ctx)
{
	struct masq_watch *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	w->path = strdup(path);
	w->changed = changed;
	w->report = report;
	w->ctx = ctx;
	w->timer = event_new(base, -1, 0, on_timer, w);
	w->seen = look(path);
	r = w->path && w->timer ? read_again(w) : -ENOMEM;
	if (r < 0 && !w->told) {
		masq_watch_free(w);
		return r;
	}
	rearm(w);
	*ret = w;
	return 0;
}

void masq_watch_free(struct masq_watch *w)
{
	if (!w)
		return;
	if (w->timer)
		event_free(w->timer);
	masq_cidrs_done(&w->cidrs);
	free(w->path);
	free(w);
}
