// SPDX-License-Identifier: Apache-2.0
/* Follows the runtime's folder of networks, in which other plugins' installers work too. */
#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>
#include <waggle/cleanup.h>
#include <waggle/cni_dir.h>
#include <waggle/log.h>
#include <waggle/node_ranges.h>
#include <waggle/pins.h>
#include "cni_conf.h"

#define DELAY_MS 50    /* files come in bursts */
#define RETRY_MS 5000
#define RANGES_MS 100
#define CHANGES (IN_CREATE | IN_DELETE | IN_MOVED_TO | IN_MOVED_FROM | IN_CLOSE_WRITE)

struct cni_watch {
	struct cni_conf_options options;
	struct event *changed, *timer;
	int inotify_fd;
	bool begun;
	char said[sizeof(((struct wag_err *)0)->msg)]; /* the last complaint: said once */
};

static void start_timer(struct cni_watch *w, long ms)
{
	const struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	event_add(w->timer, &tv);
}

/* Without them the plugin can only answer "try again". Who has none to give says so elsewhere. */
static bool has_ranges(const struct cni_watch *w)
{
	_cleanup_free_ struct node_ranges *ranges = calloc(1, sizeof(*ranges));
	struct wag_err ignored;

	return ranges && node_ranges_read(w->options.state_dir, ranges, &ignored) == 0 &&
	       ranges->family[0].n + ranges->family[1].n > 0;
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
	struct cni_watch *w = ctx;
	struct wag_err err = { 0 };
	int r;

	if (!cni_conf_is_chained(&w->options) && !has_ranges(w)) {
		start_timer(w, RANGES_MS);
		return;
	}
	r = cni_conf_apply(&w->options, &err);
	if (r > 0)
		log_info("%s/%s: the container runtime's network is Waggle's", w->options.dir,
			 CNI_DIR_CONF);
	if (r >= 0) {
		w->said[0] = 0;
		return;
	}
	if (strcmp(w->said, err.msg) != 0)
		wag_log(r == -ENOENT ? WAG_LOG_INFO : WAG_LOG_ERROR, "%s", err.msg);
	memcpy(w->said, err.msg, sizeof(w->said));
	start_timer(w, RETRY_MS);
}

static void on_changed(evutil_socket_t fd, short what, void *ctx)
{
	struct cni_watch *w = ctx;
	char buf[4096];

	while (read(fd, buf, sizeof(buf)) > 0)
		;
	if (w->begun)
		start_timer(w, DELAY_MS);
}

int cni_watch_new(struct cni_watch **ret, struct event_base *base,
		  const struct cni_conf_options *options, struct wag_err *err)
{
	struct cni_watch *w = calloc(1, sizeof(*w));
	int r = w ? pins_mkdir_p(options->dir, 0755) : -ENOMEM;

	if (!w)
		return wag_err_set(err, -ENOMEM, "out of memory");
	w->options = *options;
	w->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (r == 0 && (w->inotify_fd < 0 ||
		       inotify_add_watch(w->inotify_fd, options->dir, CHANGES) < 0))
		r = -errno;
	if (r == 0) {
		w->timer = evtimer_new(base, on_timer, w);
		w->changed = event_new(base, w->inotify_fd, EV_READ | EV_PERSIST, on_changed, w);
		if (!w->timer || !w->changed || event_add(w->changed, NULL) < 0)
			r = -ENOMEM;
	}
	if (r < 0) {
		cni_watch_free(w, false);
		return wag_err_set(err, r, "--cni-conf-dir %s: %s", options->dir, strerror(-r));
	}
	*ret = w;
	return 0;
}

void cni_watch_begin(struct cni_watch *w)
{
	if (!w || w->begun)
		return;
	w->begun = true;
	start_timer(w, 0);
}

void cni_watch_free(struct cni_watch *w, bool restore)
{
	int r;

	if (!w)
		return;
	if (w->changed)
		event_free(w->changed);
	if (w->timer)
		event_free(w->timer);
	closep(&w->inotify_fd);
	if (restore) {
		r = cni_dir_restore(w->options.dir);
		if (r < 0)
			log_error("%s: giving the former network back: %s", w->options.dir,
				  strerror(-r));
		else
			log_info("%s/%s removed, %d networks have their names back",
				 w->options.dir, CNI_DIR_CONF, r);
	}
	free(w);
}
