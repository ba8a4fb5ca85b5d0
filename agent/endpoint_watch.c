// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include <waggle/endpoint_attach.h>
#include <waggle/log.h>
#include <waggle/pins.h>
#include <waggle/policy_ns.h>
#include <waggle/record.h>
#include "endpoint_watch.h"

#define ORPHAN_MS 5000 /* a DEL under way takes less */
#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 30000
#define PIN_LOCK_MS 50 /* the loop must not stand still */
#define ORPHANS_MAX 256 /* the rest at the next look */

struct orphan {
	uint32_t ep_id, ifindex;
};

struct endpoint_watch {
	struct endpoint_watch_options o;
	int pods_fd, endpoint_fd; /* borrowed */
	int inotify_fd;
	struct event *readable, *retry, *look;
	unsigned retry_ms;
	char boot_id[40];
	struct orphan orphans[ORPHANS_MAX]; /* seen at the last look */
	size_t n_orphans;
	struct endpoint_watch_stats stats;
};

static void arm(struct event *timer, unsigned ms)
{
	const struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	if (!event_pending(timer, EV_TIMEOUT, NULL))
		event_add(timer, &tv);
}

static void again(struct endpoint_watch *w)
{
	w->retry_ms = w->retry_ms ? w->retry_ms * 2 : RETRY_MIN_MS;
	if (w->retry_ms > RETRY_MAX_MS)
		w->retry_ms = RETRY_MAX_MS;
	arm(w->retry, w->retry_ms);
}

/* ---- policy ---- */

static uint32_t policy_flags(const struct endpoint_watch *w, const char *ns)
{
	uint32_t flags = 0;

	return policy_ns_flags(w->o.pin_dir, ns, &flags) < 0 ? WAG_POD_PENDING : flags;
}

static bool may_go(const struct endpoint_watch *w, const struct wag_addr *addr,
		       struct wag_pod *ret)
{
	return bpfsys_map_lookup(w->pods_fd, addr, ret) == 0 && ret->flags & WAG_POD_PENDING &&
	       w->o.in_force(w->o.ctx, ret->ep_id);
}

/* 1: released; 0: nothing to do; -EWOULDBLOCK. */
static int release(struct endpoint_watch *w, const struct wag_addr *addr)
{
	_cleanup_close_ int lock = -1;
	struct wag_pod pod;
	int r;

	if (!may_go(w, addr, &pod))
		return 0;
	/* Whoever else writes the entry holds it. */
	lock = pins_lock(w->o.pin_dir, PIN_LOCK_MS);
	if (lock < 0)
		return lock;
	if (!may_go(w, addr, &pod))
		return 0;
	pod.flags &= ~WAG_POD_PENDING;
	r = bpfsys_map_update(w->pods_fd, addr, &pod, BPF_EXIST);
	return r < 0 ? r : 1;
}

static void release_all(struct endpoint_watch *w)
{
	struct wag_addr addr, next;
	bool failed = false;
	int r;

	r = bpfsys_map_next_key(w->pods_fd, NULL, &next);
	while (r == 0) {
		int released;

		addr = next;
		r = bpfsys_map_next_key(w->pods_fd, &addr, &next);
		released = release(w, &addr);
		failed |= released < 0;
		w->stats.released += released > 0;
	}
	if (failed)
		again(w);
}

/* ---- records ---- */

static bool same_link(struct endpoint_watch *w, uint32_t ifindex, const char *name)
{
	struct nl_link link;

	return ifindex && nl_link_get_by_index(w->o.nl, ifindex, &link) == 0 &&
	       strcmp(link.name, name) == 0;
}

/* Of this boot, complete, and its interface lives. */
static bool is_alive(struct endpoint_watch *w, const struct record *rec)
{
	return rec->ready && strcmp(rec->boot_id, w->boot_id) == 0 &&
	       same_link(w, rec->ifindex, rec->host_ifname);
}

static void note_lost(void *ctx, const char *text)
{
	bool *lost = ctx;

	*lost = true;
}

/* Is something of the pod's map entries and programs not as the record wants it? */
static bool is_lost(struct endpoint_watch *w, const struct record *rec)
{
	struct wag_err err = { 0 };
	bool lost = false;

	return endpoint_check(w->o.pin_dir, w->o.nl, rec, note_lost, &lost, &err) == 0 && lost;
}

/* 1: done; 0: it needed nothing; or -errno. */
static int heal(struct endpoint_watch *w, uint32_t ep_id, struct wag_err *err)
{
	_cleanup_close_ int lock = -1;
	struct record rec;
	int r;

	r = record_read(w->o.state_dir, ep_id, &rec);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	lock = record_lock(w->o.state_dir, record_hash(rec.container_id, rec.ifname), 0);
	if (lock < 0)
		return wag_err_set(err, lock, "an ADD or DEL is under way");
	/* What was read before the lock may be gone by now. */
	r = record_read(w->o.state_dir, ep_id, &rec);
	if (r < 0 || !is_alive(w, &rec))
		return 0;
	if (!is_lost(w, &rec))
		return 0;
	r = endpoint_attach(w->o.pin_dir, w->o.nl, &rec, policy_flags(w, rec.ns), err);
	if (r < 0)
		return r;
	w->stats.healed++;
	log_info("pod %s/%s: %s is served again: map entries or programs were lost or old",
		 rec.ns[0] ? rec.ns : "-", rec.pod[0] ? rec.pod : rec.container_id,
		 rec.host_ifname);
	return 1;
}

static int visit_record(uint32_t ep_id, const struct record *rec, void *ctx)
{
	struct endpoint_watch *w = ctx;
	struct wag_err err = { 0 };
	int r;

	if (!rec) {
		log_warn("%s/endpoints/%u.json cannot be read; the next CNI GC or ADD replaces it",
			 w->o.state_dir, ep_id);
		return 0;
	}
	if (!is_alive(w, rec))
		return 0;
	if (is_lost(w, rec)) {
		r = heal(w, ep_id, &err);
		if (r < 0 && r != -EWOULDBLOCK)
			log_error("pod %s/%s: serving it again: %s", rec->ns, rec->pod,
				  err.msg[0] ? err.msg : strerror(-r));
		if (r < 0)
			again(w);
	}
	for (unsigned i = 0; i < rec->addr_count; i++) {
		r = release(w, &rec->addrs[i].addr);
		if (r < 0)
			again(w);
		else
			w->stats.released += r > 0;
	}
	return 0;
}

static void visit_all(struct endpoint_watch *w)
{
	int r = record_list(w->o.state_dir, visit_record, w);

	if (r < 0) {
		log_error("%s/endpoints: %s", w->o.state_dir, strerror(-r));
		again(w);
	}
	release_all(w);
}

static void on_retry(evutil_socket_t fd, short what, void *ctx)
{
	struct endpoint_watch *w = ctx;

	visit_all(w);
	if (!event_pending(w->retry, EV_TIMEOUT, NULL))
		w->retry_ms = 0;
}

static void take_event(struct endpoint_watch *w, const struct inotify_event *event)
{
	struct record rec;
	uint32_t ep_id;
	int end = 0, r;

	if (event->mask & IN_Q_OVERFLOW) {
		visit_all(w);
		return;
	}
	/* Records come by rename: anything else in the folder is not complete. */
	if (!event->len || sscanf(event->name, "%" SCNu32 ".json%n", &ep_id, &end) != 1 || !end ||
	    event->name[end])
		return;
	if (event->mask & IN_DELETE) {
		arm(w->look, ORPHAN_MS); /* that its entries went with it */
		return;
	}
	r = record_read(w->o.state_dir, ep_id, &rec);
	if (r == 0 || r == -EBADMSG)
		visit_record(ep_id, r == 0 ? &rec : NULL, w);
}

static void on_readable(evutil_socket_t fd, short what, void *ctx)
{
	_Alignas(struct inotify_event) char buf[4096];
	struct endpoint_watch *w = ctx;
	ssize_t n;

	while ((n = read(w->inotify_fd, buf, sizeof(buf))) > 0) {
		const struct inotify_event *event;

		for (ssize_t at = 0; at < n; at += (ssize_t)sizeof(*event) + event->len) {
			event = (const void *)(buf + at);
			take_event(w, event);
		}
	}
	if (w->o.changed)
		w->o.changed(w->o.ctx);
}

/* ---- what nobody asks for any more ---- */

static bool has_record(const struct endpoint_watch *w, uint32_t ep_id)
{
	struct record rec;

	return record_read(w->o.state_dir, ep_id, &rec) != -ENOENT;
}

static bool was_seen(const struct endpoint_watch *w, const struct orphan *o)
{
	for (size_t i = 0; i < w->n_orphans; i++)
		if (memcmp(&w->orphans[i], o, sizeof(*o)) == 0)
			return true;
	return false;
}

static void remove_orphan(struct endpoint_watch *w, uint32_t ep_id, const struct wag_endpoint *ep)
{
	struct record rec = { .ep_id = ep_id, .ifindex = ep->ifindex };
	struct wag_err err = { 0 };

	/* endpoint_detach() takes the rest from the entry itself. */
	memcpy(rec.container_id, ep->container_id, sizeof(rec.container_id));
	memcpy(rec.ifname, ep->pod_ifname, sizeof(rec.ifname));
	memcpy(rec.host_ifname, ep->ifname, sizeof(rec.host_ifname));
	if (endpoint_detach(w->o.pin_dir, &rec, &err) < 0) {
		log_error("pod %s/%s: removing its map entries: %s", ep->ns, ep->pod, err.msg);
		arm(w->look, ORPHAN_MS);
		return;
	}
	w->stats.orphans++;
	log_info("pod %s/%s: %s has vanished without a DEL: its map entries are removed", ep->ns,
		 ep->pod, ep->ifname);
}

static bool is_orphan(struct endpoint_watch *w, uint32_t ep_id, struct wag_endpoint *ret)
{
	if (bpfsys_map_lookup(w->endpoint_fd, &ep_id, ret) < 0)
		return false;
	ret->ifname[sizeof(ret->ifname) - 1] = 0;
	return !same_link(w, ret->ifindex, ret->ifname) && !has_record(w, ep_id);
}

/* Seen twice, ORPHAN_MS apart, it goes. */
static void on_look(evutil_socket_t fd, short what, void *ctx)
{
	struct endpoint_watch *w = ctx;
	_cleanup_free_ struct orphan *found = calloc(ORPHANS_MAX, sizeof(*found));
	struct wag_endpoint ep;
	uint32_t ep_id, next;
	size_t n = 0;
	int r;

	r = found ? bpfsys_map_next_key(w->endpoint_fd, NULL, &next) : -ENOMEM;
	while (r == 0) {
		struct orphan o;

		ep_id = next;
		r = bpfsys_map_next_key(w->endpoint_fd, &ep_id, &next);
		if (!is_orphan(w, ep_id, &ep))
			continue;
		o = (struct orphan){ ep_id, ep.ifindex };
		if (was_seen(w, &o))
			remove_orphan(w, ep_id, &ep);
		else if (n < ORPHANS_MAX)
			found[n++] = o;
	}
	w->n_orphans = n;
	if (n) {
		memcpy(w->orphans, found, n * sizeof(*found));
		arm(w->look, ORPHAN_MS);
	}
}

void endpoint_watch_links(struct endpoint_watch *w)
{
	arm(w->look, ORPHAN_MS);
}

/* ---- */

void endpoint_watch_release(struct endpoint_watch *w)
{
	release_all(w);
}

void endpoint_watch_get_stats(const struct endpoint_watch *w, struct endpoint_watch_stats *ret)
{
	*ret = w->stats;
}

static int read_boot_id(char *buf, size_t size)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");

	if (!f || !fgets(buf, (int)size, f))
		return -EIO;
	buf[strcspn(buf, "\n")] = 0;
	return 0;
}

static int watch_folder(struct endpoint_watch *w)
{
	char path[4096];
	int n = snprintf(path, sizeof(path), "%s/endpoints", w->o.state_dir);

	if (n < 0 || n >= (int)sizeof(path))
		return -ENAMETOOLONG;
	n = pins_mkdir_p(path, 0755);
	if (n < 0)
		return n;
	w->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (w->inotify_fd < 0 ||
	    inotify_add_watch(w->inotify_fd, path, IN_MOVED_TO | IN_DELETE) < 0)
		return -errno;
	w->readable = event_new(w->o.base, w->inotify_fd, EV_READ | EV_PERSIST, on_readable, w);
	return w->readable && event_add(w->readable, NULL) == 0 ? 0 : -ENOMEM;
}

static void endpoint_watch_freep(struct endpoint_watch **w)
{
	endpoint_watch_free(*w);
}

int endpoint_watch_new(struct endpoint_watch **ret, const struct endpoint_watch_options *options,
		       struct wag_err *err)
{
	_cleanup_(endpoint_watch_freep) struct endpoint_watch *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return wag_err_set(err, -ENOMEM, "out of memory");
	w->o = *options;
	w->inotify_fd = -1;
	w->pods_fd = dataplane_map_fd(options->dp, "wag_pods");
	w->endpoint_fd = dataplane_map_fd(options->dp, "wag_endpoint");
	w->retry = evtimer_new(options->base, on_retry, w);
	w->look = evtimer_new(options->base, on_look, w);
	r = w->retry && w->look ? read_boot_id(w->boot_id, sizeof(w->boot_id)) : -ENOMEM;
	/* It begins before the first look, so that nothing falls in between. */
	if (r == 0)
		r = watch_folder(w);
	if (r < 0)
		return wag_err_set(err, r, "--state-dir %s: watching the pods' records: %s",
				   options->state_dir, strerror(-r));
	visit_all(w);
	arm(w->look, ORPHAN_MS);
	*ret = TAKE_PTR(w);
	return 0;
}

void endpoint_watch_free(struct endpoint_watch *w)
{
	if (!w)
		return;
	if (w->readable)
		event_free(w->readable);
	if (w->retry)
		event_free(w->retry);
	if (w->look)
		event_free(w->look);
	closep(&w->inotify_fd);
	free(w);
}
