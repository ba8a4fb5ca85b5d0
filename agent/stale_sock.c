// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#define HASH_NONFATAL_OOM 1 /* an element that was not added has no table */
#include <uthash.h>
#include <waggle/addr.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include <waggle/netlink.h>
#include <waggle/record.h>
#include "stale_sock.h"

#define BATCH 2048
#define CLOSE_MAX 256 /* sockets closed in one slice */
#define GATHER_MS 10 /* endpoints of a rollout leave in bursts */
#define IDLE_SHARE 10 /* a scan takes no more than this part of the time */

struct backend {
	UT_hash_handle hh;
	struct wag_backend_key key;
};

/* A socket to be closed, by what wag_sock says of it. */
struct victim {
	uint32_t ep_id;
	struct wag_sock_key key;
};

struct stale_sock {
	struct stale_sock_options o;
	struct event *timer;
	struct backend *coming; /* gone since the scan began */
	struct backend *gone;	/* looked for by the scan */
	struct wag_sock_key *keys;
	struct wag_sock *values;
	uint32_t at;
	bool scanning;
	struct victim *victims; /* of the scan; then sorted by pod, closed from the end */
	size_t n_victims, max_victims;
	uint64_t scan_ns;
	bool unable; /* the kernel cannot */
	int told;    /* the last errno of a namespace that was told */
	struct stale_sock_stats stats;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void arm(struct stale_sock *s, uint64_t ms)
{
	const struct timeval tv = { .tv_sec = (time_t)(ms / 1000),
				    .tv_usec = (suseconds_t)(ms % 1000 * 1000) };

	if (!event_pending(s->timer, EV_TIMEOUT, NULL))
		event_add(s->timer, &tv);
}

static void report(struct stale_sock *s, enum wag_log_level level, const char *msg)
{
	if (s->o.reporter.fn)
		s->o.reporter.fn(s->o.reporter.ctx, level, msg);
}

static void backends_free(struct backend **list)
{
	struct backend *b, *tmp;

	HASH_ITER (hh, *list, b, tmp) {
		HASH_DEL(*list, b);
		free(b);
	}
}

void stale_sock_gone(struct stale_sock *s, const struct wag_backend_key *key)
{
	struct backend *b = NULL;

	if (key->proto != IPPROTO_UDP || s->unable)
		return;
	HASH_FIND(hh, s->coming, key, sizeof(*key), b);
	if (b)
		return;
	b = calloc(1, sizeof(*b));
	if (!b)
		return; /* its clients find out by themselves */
	b->key = *key;
	HASH_ADD(hh, s->coming, key, sizeof(b->key), b);
	if (!b->hh.tbl)
		free(b);
	else if (!s->scanning && !s->n_victims)
		arm(s, GATHER_MS + s->scan_ns / 1000000 * IDLE_SHARE);
}

/* ---- which sockets ---- */

static void add_victim(struct stale_sock *s, const struct wag_sock_key *key, uint32_t ep_id)
{
	if (s->n_victims == s->max_victims) {
		size_t max = s->max_victims ? s->max_victims * 2 : 64;
		struct victim *bigger = reallocarray(s->victims, max, sizeof(*bigger));

		if (!bigger)
			return;
		s->victims = bigger;
		s->max_victims = max;
	}
	s->victims[s->n_victims++] = (struct victim){ ep_id, *key };
}

static void judge(struct stale_sock *s, const struct wag_sock_key *key,
		  const struct wag_sock *value)
{
	const struct wag_backend_key want = {
		.addr = key->addr, .svc_id = value->svc_id, .port = key->port, .proto = key->proto
	};
	struct backend *b = NULL;

	if (key->dir != WAG_SOCK_REV || key->proto != IPPROTO_UDP)
		return;
	HASH_FIND(hh, s->gone, &want, sizeof(want), b);
	if (b)
		add_victim(s, key, value->ep_id);
}

static int by_pod_and_key(const void *a, const void *b)
{
	const struct victim *x = a, *y = b;

	if (x->ep_id != y->ep_id)
		return x->ep_id < y->ep_id ? -1 : 1;
	return memcmp(&x->key, &y->key, sizeof(x->key));
}

static void scan(struct stale_sock *s)
{
	uint64_t begin = now_ns();
	uint32_t n = BATCH, next = 0;
	int r;

	if (!s->scanning) {
		s->gone = TAKE_PTR(s->coming);
		s->scan_ns = 0;
	}
	r = bpfsys_map_lookup_batch(s->o.sock_fd, s->scanning ? &s->at : NULL, &next, s->keys,
				    s->values, &n);
	for (uint32_t i = 0; i < n; i++)
		judge(s, &s->keys[i], &s->values[i]);
	s->at = next;
	s->scan_ns += now_ns() - begin;
	s->scanning = r == 0;
	if (s->scanning)
		return;
	s->stats.failed += r != -ENOENT;
	backends_free(&s->gone);
	if (s->n_victims)
		qsort(s->victims, s->n_victims, sizeof(*s->victims), by_pod_and_key);
}

/* ---- closing them ---- */

struct closing {
	struct stale_sock *s;
	struct nl *diag;
	const struct victim *victims;
	size_t n;
};

static int close_socket(const struct nl_socket *sock, void *ctx)
{
	struct closing *pod = ctx;
	struct stale_sock *s = pod->s;
	struct victim want = { .ep_id = pod->victims->ep_id };
	int r;

	want.key.cookie = sock->cookie;
	want.key.addr = sock->peer;
	want.key.port = sock->peer_port;
	want.key.proto = IPPROTO_UDP;
	want.key.dir = WAG_SOCK_REV;
	if (!bsearch(&want, pod->victims, pod->n, sizeof(want), by_pod_and_key))
		return 0;
	r = nl_socket_destroy(pod->diag, sock);
	if (r == -EOPNOTSUPP)
		return r;
	s->stats.closed += r == 0;
	s->stats.failed += r < 0 && r != -ENOENT;
	return 0;
}

/* A netlink socket belongs to the namespace it was made in: the rest is done from here. */
static int diag_in(const char *netns, struct nl **ret)
{
	_cleanup_close_ int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	_cleanup_close_ int there = open(netns, O_RDONLY | O_CLOEXEC);
	int r;

	if (home < 0 || there < 0)
		return -errno;
	if (setns(there, CLONE_NEWNET) < 0)
		return -errno;
	r = nl_new_diag(ret);
	if (setns(home, CLONE_NEWNET) < 0)
		abort(); /* nothing the agent would do from there is right */
	return r;
}

static int open_pod(struct stale_sock *s, uint32_t ep_id, struct record *rec, struct nl **ret)
{
	int r;

	if (!ep_id)
		return nl_new_diag(ret);
	r = record_read(s->o.state_dir, ep_id, rec);
	return r < 0 ? r : diag_in(rec->netns, ret);
}

static void tell_failure(struct stale_sock *s, const struct record *rec, int err)
{
	char msg[800];

	s->stats.failed++;
	if (err == -EOPNOTSUPP) {
		s->unable = true;
		report(s, WAG_LOG_WARN,
		       "this kernel cannot close sockets (CONFIG_INET_DIAG_DESTROY): UDP clients "
		       "that are connected to a backend that left have to notice themselves");
		return;
	}
	if (err == s->told)
		return;
	s->told = err;
	snprintf(msg, sizeof(msg),
		 "sockets of pod %s/%s to a backend that left: %s: %s: they have to notice "
		 "themselves%s",
		 rec->ns, rec->pod, rec->netns, strerror(-err),
		 err == -ENOENT ? " (the agent needs to see the node's /run/netns)" : "");
	report(s, WAG_LOG_WARN, msg);
}

/* Those of one pod, the last in the list; of very many, some. */
static void close_pods(struct stale_sock *s)
{
	struct victim *last = &s->victims[s->n_victims - 1], *first = last;
	_cleanup_(nl_freep) struct nl *diag = NULL;
	struct record rec = { 0 };
	struct closing pod = { .s = s };
	int r;

	while (first > s->victims && first[-1].ep_id == last->ep_id &&
	       last - first < CLOSE_MAX - 1)
		first--;
	pod.victims = first;
	pod.n = (size_t)(last - first) + 1;
	r = open_pod(s, last->ep_id, &rec, &diag);
	if (r == 0) {
		pod.diag = diag;
		r = nl_udp_list(diag, close_socket, &pod);
	}
	/* A record that is gone: the pod left, with its sockets. */
	if (r < 0 && (r != -ENOENT || rec.netns[0]))
		tell_failure(s, &rec, r);
	s->n_victims = s->unable ? 0 : s->n_victims - pod.n;
}

/* One slice: a batch of the map, or one pod. */
static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
	struct stale_sock *s = ctx;

	if (s->n_victims && !s->scanning)
		close_pods(s);
	else
		scan(s);
	if (s->scanning || s->n_victims)
		arm(s, 0);
	else if (s->coming)
		arm(s, GATHER_MS + s->scan_ns / 1000000 * IDLE_SHARE);
}

/* ---- life ---- */

int stale_sock_new(struct stale_sock **ret, const struct stale_sock_options *options)
{
	struct stale_sock *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->o = *options;
	s->timer = evtimer_new(options->base, on_timer, s);
	s->keys = calloc(BATCH, sizeof(*s->keys));
	s->values = calloc(BATCH, sizeof(*s->values));
	if (!s->timer || !s->keys || !s->values) {
		stale_sock_free(s);
		return -ENOMEM;
	}
	*ret = s;
	return 0;
}

void stale_sock_free(struct stale_sock *s)
{
	if (!s)
		return;
	if (s->timer)
		event_free(s->timer);
	backends_free(&s->coming);
	backends_free(&s->gone);
	free(s->victims);
	free(s->keys);
	free(s->values);
	free(s);
}

void stale_sock_get_stats(const struct stale_sock *s, struct stale_sock_stats *ret)
{
	*ret = s->stats;
}
