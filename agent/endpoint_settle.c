// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <event2/event.h>
#include <limits.h>
#include <linux/bpf.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include <waggle/endpoint_attach.h>
#include <waggle/log.h>
#include <waggle/netlink.h>
#include <waggle/pins.h>
#include "endpoint_settle.h"

#define AGE_S 10	/* of a pod that is here to stay */
#define QUIET_MS 1000	/* after an ADD or DEL */
#define STEP_MS 200	/* a link holds the kernel's network lock for up to 25 ms */
#define BUSY_MS 20	/* looks again whether it is there */
#define PIN_LOCK_MS 1000

struct endpoint_settle {
	struct endpoint_settle_options o;
	struct event *timer;
	int endpoint_fd, pods_fd, limit_fd; /* borrowed */
	/* One pod's turn, in a thread: the loop must not stand still as long as a link takes. */
	pthread_t thread;
	bool busy; /* it was begun, and not joined yet */
	atomic_bool over;
	struct wag_endpoint ep; /* the thread's until it is over, as its result */
	int result;
};

static void arm(struct endpoint_settle *s, unsigned ms)
{
	const struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	event_add(s->timer, &tv);
}

static int link_path(const struct endpoint_settle *s, const struct wag_endpoint *ep, char *buf,
		     size_t size)
{
	return pins_tcx_path(buf, size, s->o.pin_dir, ep->ifname, ep->ifindex, false);
}

/* What must run ahead of us, or beside us, on clsact leaves us there. */
static bool must_stay(const struct endpoint_settle *s, const struct wag_endpoint *ep)
{
	const struct wag_limit_key key = { ep->ifindex, WAG_LIMIT_EGRESS };
	const struct wag_addr none = { 0 }, *addr = &ep->v4;
	struct wag_limit limit;
	struct wag_pod pod;

	if (bpfsys_map_lookup(s->limit_fd, &key, &limit) == 0)
		return true;
	if (memcmp(addr, &none, sizeof(none)) == 0)
		addr = &ep->v6;
	if (bpfsys_map_lookup(s->pods_fd, addr, &pod) < 0)
		return true; /* on its way in or out */
	return pod.flags & WAG_POD_CHAINED;
}

/* Seconds since the pod's record was complete; negative: there is none. */
static long age_s(const struct endpoint_settle *s, uint32_t ep_id)
{
	char path[PATH_MAX];
	struct stat st;

	snprintf(path, sizeof(path), "%s/endpoints/%u.json", s->o.state_dir, ep_id);
	return stat(path, &st) < 0 ? -1 : time(NULL) - st.st_mtime;
}

/* The link first: what both see for a moment is known by WAG_MARK_TRANSLATED. */
static int settle(const struct endpoint_settle *s, const struct wag_endpoint *ep)
{
	_cleanup_close_ int prog = -1, link = -1, lock = -1;
	_cleanup_(nl_freep) struct nl *nl = NULL;
	char path[PATH_MAX];
	int r = nl_new(&nl);

	if (r < 0)
		return r;
	lock = pins_lock(s->o.pin_dir, PIN_LOCK_MS);
	if (lock < 0)
		return lock;
	r = pins_prog_path(path, sizeof(path), s->o.pin_dir, endpoint_hooks[0].prog);
	if (r == 0)
		r = prog = bpfsys_obj_get(path);
	if (r >= 0)
		r = link_path(s, ep, path, sizeof(path));
	if (r < 0)
		return r;
	link = bpfsys_tcx_attach(prog, ep->ifindex, 0, 0);
	if (link < 0)
		return link;
	unlink(path); /* a pin outlives its device: an old one in the way is nobody's */
	r = bpfsys_obj_pin(link, path);
	if (r == 0)
		nl_tc_detach(nl, ep->ifindex, false);
	return r;
}

static void *turn(void *ctx)
{
	struct endpoint_settle *s = ctx;

	s->result = settle(s, &s->ep);
	atomic_store(&s->over, true);
	return NULL;
}

static int begin_turn(struct endpoint_settle *s, const struct wag_endpoint *ep)
{
	int r;

	s->ep = *ep;
	atomic_store(&s->over, false);
	r = pthread_create(&s->thread, NULL, turn, s);
	s->busy = r == 0;
	return -r;
}

static int end_turn(struct endpoint_settle *s)
{
	if (!s->busy)
		return 0;
	pthread_join(s->thread, NULL);
	s->busy = false;
	return s->result;
}

enum todo { NOTHING, LATER, NOW };

static enum todo look(const struct endpoint_settle *s, uint32_t ep_id, struct wag_endpoint *ret)
{
	char path[PATH_MAX];
	long age;

	if (bpfsys_map_lookup(s->endpoint_fd, &ep_id, ret) < 0)
		return NOTHING;
	ret->ifname[sizeof(ret->ifname) - 1] = 0;
	if (link_path(s, ret, path, sizeof(path)) < 0 || access(path, F_OK) == 0 ||
	    must_stay(s, ret))
		return NOTHING;
	age = age_s(s, ep_id);
	return age < 0 ? NOTHING : age < AGE_S ? LATER : NOW;
}

/* What fails is tried again with the others, at an ordinary pace. */
static void failed(struct endpoint_settle *s, int r)
{
	if (r != -EWOULDBLOCK && r != -ENODEV)
		log_warn("pod %s/%s: %s stays with its clsact filter: TCX link: %s", s->ep.ns,
			 s->ep.pod, s->ep.ifname, strerror(-r));
	arm(s, AGE_S * 1000);
}

/* The next one; the rest at the next turn. */
static void next_turn(struct endpoint_settle *s)
{
	struct wag_endpoint ep;
	bool later = false;
	uint32_t id;
	int r;

	for (r = bpfsys_map_next_key(s->endpoint_fd, NULL, &id); r == 0;
	     r = bpfsys_map_next_key(s->endpoint_fd, &id, &id)) {
		enum todo todo = look(s, id, &ep);

		later |= todo == LATER;
		if (todo != NOW)
			continue;
		r = begin_turn(s, &ep);
		if (r < 0)
			failed(s, r);
		else
			arm(s, STEP_MS);
		return;
	}
	if (later)
		arm(s, QUIET_MS);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
	struct endpoint_settle *s = ctx;
	int r;

	if (s->busy && !atomic_load(&s->over)) {
		arm(s, BUSY_MS);
		return;
	}
	r = end_turn(s);
	if (r < 0)
		failed(s, r);
	else
		next_turn(s);
}

void endpoint_settle_changed(struct endpoint_settle *s)
{
	if (s)
		arm(s, QUIET_MS);
}

int endpoint_settle_new(struct endpoint_settle **ret, const struct endpoint_settle_options *options,
			struct wag_err *err)
{
	struct endpoint_settle *s;

	*ret = NULL;
	if (!dataplane_pods_settle(options->dp))
		return 0;
	s = calloc(1, sizeof(*s));
	if (!s)
		return wag_err_set(err, -ENOMEM, "out of memory");
	s->o = *options;
	s->endpoint_fd = dataplane_map_fd(options->dp, "wag_endpoint");
	s->pods_fd = dataplane_map_fd(options->dp, "wag_pods");
	s->limit_fd = dataplane_map_fd(options->dp, "wag_limit");
	s->timer = evtimer_new(options->base, on_timer, s);
	if (!s->timer) {
		free(s);
		return wag_err_set(err, -ENOMEM, "out of memory");
	}
	arm(s, QUIET_MS);
	*ret = s;
	return 0;
}

void endpoint_settle_free(struct endpoint_settle *s)
{
	if (!s)
		return;
	end_turn(s);
	event_free(s->timer);
	free(s);
}
