// SPDX-License-Identifier: Apache-2.0
/* The manifests source: inotify tells when to look at the folder again. */
#include <errno.h>
#include <event2/event.h>
#include <malloc.h>
#include <stdalign.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <waggle/cleanup.h>

#include "manifests.h"

#define SETTLE_MS 10   /* several events of one edit make one scan */
#define HOLD_MS 1000   /* a writer silent for so long without closing has had its time */
#define RESCAN_MS 5000 /* finds what inotify cannot tell: targets of symlinks, network folders */
#define WATCH_MASK                                                                                 \
	(IN_CLOSE_WRITE | IN_MODIFY | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE |        \
	 IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

struct manifests_source {
	struct source source;
	struct manifests *manifests;
	struct model *model;
	char *dir;
	int inotify_fd;
	int watch; /* -1: the folder is not watched (gone), the rescan tries again */
	struct event *readable, *settle, *rescan;
	uint64_t last_event_ms, overflows;
};

static struct manifests_source *from_source(const struct source *s)
{
	return (struct manifests_source *)s; /* its first member */
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

static void arm(struct event *timer, uint64_t ms)
{
	const struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	event_add(timer, &tv);
}

/* Returns whether the folder has to be looked at. */
static bool take_event(struct manifests_source *s, const struct inotify_event *ev)
{
	if (ev->mask & IN_Q_OVERFLOW) {
		s->overflows++;
		return true;
	}
	if (ev->wd != s->watch)
		return false;
	if (ev->mask & (IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF)) {
		if (!(ev->mask & IN_IGNORED))
			inotify_rm_watch(s->inotify_fd, s->watch);
		s->watch = -1;
		return true;
	}
	if (!ev->len)
		return false;
	if (!manifests_wants(ev->name))
		/* A ConfigMap's "..data" was swapped, or an editor's own business. */
		return ev->mask & (IN_MOVED_TO | IN_CREATE) && strncmp(ev->name, "..", 2) == 0;
	if (ev->mask & IN_MODIFY) {
		manifests_hold(s->manifests, ev->name, now_ms() + HOLD_MS);
		return true;
	}
	if (ev->mask & (IN_CLOSE_WRITE | IN_MOVED_TO)) {
		manifests_hold(s->manifests, ev->name, 0);
		manifests_touch(s->manifests, ev->name);
	}
	return true;
}

static bool drain(struct manifests_source *s)
{
	alignas(struct inotify_event) char buf[16384];
	bool look = false;
	ssize_t n;

	while ((n = read(s->inotify_fd, buf, sizeof(buf))) > 0) {
		for (char *at = buf; at < buf + n;) {
			const struct inotify_event *ev = (const struct inotify_event *)at;

			look |= take_event(s, ev);
			at += sizeof(*ev) + ev->len;
		}
	}
	return look;
}

static void on_inotify(evutil_socket_t fd, short what, void *ctx)
{
	struct manifests_source *s = ctx;

	if (drain(s))
		arm(s->settle, SETTLE_MS);
}

static void scan(struct manifests_source *s)
{
	uint64_t now = now_ms(), hold;
	int n;

	drain(s); /* a file that is just being written must be known as such */
	n = manifests_scan(s->manifests, now);
	if (n > 0) {
		s->last_event_ms = now;
		malloc_trim(0);
	}
	hold = manifests_next_hold(s->manifests);
	if (hold)
		arm(s->settle, hold > now ? hold - now + 1 : SETTLE_MS);
}

static void on_settle(evutil_socket_t fd, short what, void *ctx)
{
	scan(ctx);
}

static void watch_folder(struct manifests_source *s)
{
	s->watch = inotify_add_watch(s->inotify_fd, s->dir, WATCH_MASK);
}

static void on_rescan(evutil_socket_t fd, short what, void *ctx)
{
	struct manifests_source *s = ctx;

	if (s->watch < 0)
		watch_folder(s);
	scan(s);
}

static void manifests_status(const struct source *source, struct source_status *ret)
{
	const struct manifests_source *s = from_source(source);
	struct manifests_stats stats;

	manifests_stats(s->manifests, &stats);
	ret->type = "manifests";
	snprintf(ret->detail, sizeof(ret->detail), "%s", s->dir);
	for (int k = 0; k < MODEL_KINDS; k++) {
		struct source_kind_status *kind = &ret->kinds[k];

		kind->synced = model_synced(s->model, k);
		kind->required = k == MODEL_SERVICE || k == MODEL_SLICE;
		kind->last_event_ms = s->last_event_ms;
		kind->relists = stats.scans;
	}
	/* A folder does not say which kind a broken file would have held: told once, first. */
	ret->kinds[MODEL_SERVICE].events = stats.files_read;
	ret->kinds[MODEL_SERVICE].bytes = stats.bytes;
	ret->kinds[MODEL_SERVICE].bad_objects = stats.bad_objects;
	snprintf(ret->kinds[MODEL_SERVICE].error, sizeof(ret->kinds[MODEL_SERVICE].error), "%s",
		 stats.error);
}

static void manifests_source_free(struct source *source)
{
	struct manifests_source *s = from_source(source);

	if (s->readable)
		event_free(s->readable);
	if (s->settle)
		event_free(s->settle);
	if (s->rescan)
		event_free(s->rescan);
	closep(&s->inotify_fd);
	manifests_free(s->manifests);
	free(s->dir);
	free(s);
}

static void manifests_source_freep(struct manifests_source **s)
{
	if (*s)
		manifests_source_free(&(*s)->source);
}

static int start_events(struct manifests_source *s, struct event_base *base)
{
	s->readable = event_new(base, s->inotify_fd, EV_READ | EV_PERSIST, on_inotify, s);
	s->settle = evtimer_new(base, on_settle, s);
	s->rescan = event_new(base, -1, EV_PERSIST, on_rescan, s);
	if (!s->readable || !s->settle || !s->rescan)
		return -ENOMEM;
	event_add(s->readable, NULL);
	arm(s->rescan, RESCAN_MS);
	return 0;
}

int source_new_manifests(struct source **ret, struct event_base *base, struct model *model,
			 const char *dir, const struct source_reporter *reporter,
			 struct wag_err *err)
{
	static const struct source_ops ops = { manifests_status, manifests_source_free };
	_cleanup_(manifests_source_freep) struct manifests_source *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return wag_err_set(err, -ENOMEM, "out of memory");
	s->source.ops = &ops;
	s->model = model;
	s->watch = -1;
	s->inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (s->inotify_fd < 0)
		return wag_err_set(err, -errno,
				   "cannot start inotify: %s (raise "
				   "fs.inotify.max_user_instances)",
				   strerror(errno));
	s->dir = strdup(dir);
	r = s->dir ? manifests_new(&s->manifests, dir, model, reporter) : -ENOMEM;
	if (r < 0)
		return wag_err_set(err, r, "out of memory");
	watch_folder(s);
	if (s->watch < 0)
		return wag_err_set(err, -errno, "--manifests %s: %s", dir, strerror(errno));
	r = start_events(s, base);
	if (r < 0)
		return wag_err_set(err, r, "out of memory");
	r = manifests_scan(s->manifests, now_ms());
	if (r < 0)
		return wag_err_set(err, r, "--manifests %s: %s", dir, strerror(-r));
	s->last_event_ms = now_ms();
	malloc_trim(0);
	for (int k = 0; k < MODEL_KINDS; k++)
		model_set_synced(model, k);
	*ret = &TAKE_PTR(s)->source;
	return 0;
}
