// SPDX-License-Identifier: Apache-2.0
/* Many conversations at once: living ones that must not be disturbed, and a stream of new ones. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "selftests/lib/wagtest.h"

struct conn {
	int fd;
	bool greeted, dead;
	uint64_t start_us, sent_us, echoed_us;
};

struct tally {
	unsigned long tried, ok, refused, reset, timeout, noport, other, foreign, closed;
	uint64_t max_gap_us, max_us;
};

static void count_error(struct tally *t, int err)
{
	switch (err) {
	case ECONNREFUSED: t->refused++; break;
	case ECONNRESET:
	case EPIPE: t->reset++; break;
	case ETIMEDOUT: t->timeout++; break;
	case EADDRNOTAVAIL: t->noport++; break;
	default: t->other++;
	}
}

static int begin(const struct opts *o, const union sa *dst, const union sa *src)
{
	int fd = open_socket(o, dst, SOCK_STREAM | SOCK_NONBLOCK, src);

	if (fd < 0)
		return fd;
	if (connect(fd, &dst->sa, sa_len(dst)) < 0 && errno != EINPROGRESS) {
		int err = errno;

		close(fd);
		return -err;
	}
	return fd;
}

static void finish(const struct opts *o, struct conn *c)
{
	struct linger l = { .l_onoff = 1 };

	if (o->linger0)
		setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	close(c->fd);
	c->fd = -1;
	c->dead = true;
}

/* The greeting or an error; true when the connection is over. */
static bool read_label(const struct opts *o, struct conn *c, struct tally *t)
{
	char buf[256];
	ssize_t n = read(c->fd, buf, sizeof(buf) - 1);

	if (n < 0 && errno == EAGAIN)
		return false;
	if (n <= 0) {
		count_error(t, n < 0 ? errno : ECONNRESET);
		return true;
	}
	buf[n] = 0;
	if (o->expect && strncmp(buf, o->expect, strlen(o->expect))) {
		t->foreign++;
		if (o->verbose)
			fprintf(stderr, "foreign: %s", buf);
	}
	c->greeted = true;
	t->ok++;
	if (now_us() - c->start_us > t->max_us)
		t->max_us = now_us() - c->start_us;
	return true;
}

static void print_tally(const char *what, const struct tally *t)
{
	printf("%s tried=%lu ok=%lu refused=%lu reset=%lu timeout=%lu noport=%lu other=%lu "
	       "foreign=%lu closed=%lu max_gap_ms=%llu max_us=%llu\n",
	       what, t->tried, t->ok, t->refused, t->reset, t->timeout, t->noport, t->other,
	       t->foreign, t->closed, (unsigned long long)t->max_gap_us / 1000,
	       (unsigned long long)t->max_us);
}

void allow_files(void)
{
	struct rlimit r = { .rlim_cur = 65536, .rlim_max = 65536 };

	setrlimit(RLIMIT_NOFILE, &r);
}

struct flood {
	const struct opts *o;
	struct conn *c;
	size_t cap, next_free, next_old;
	struct tally t;
	int ep;
};

static void flood_start(struct flood *f)
{
	const struct opts *o = f->o;
	size_t i = f->next_free % f->cap;
	unsigned long k = f->t.tried;
	struct conn *c = &f->c[i];
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = i };
	int fd;

	if (f->next_free - f->next_old >= f->cap)
		return; /* everything is in flight: the time-outs will tell */
	f->t.tried++;
	fd = begin(o, &o->dst[k % o->n_dst], o->n_src ? &o->src[k / o->n_dst % o->n_src] : NULL);
	if (fd < 0) {
		count_error(&f->t, -fd);
		return;
	}
	*c = (struct conn){ .fd = fd, .start_us = now_us() };
	epoll_ctl(f->ep, EPOLL_CTL_ADD, fd, &ev);
	f->next_free++;
}

static void flood_expire(struct flood *f, uint64_t now)
{
	while (f->next_old < f->next_free) {
		struct conn *c = &f->c[f->next_old % f->cap];

		if (!c->dead) {
			if (now - c->start_us < f->o->timeout_ms * 1000ULL)
				return;
			count_error(&f->t, ETIMEDOUT);
			finish(f->o, c);
		}
		f->next_old++;
	}
}

/* Starts rate connections a second for ms, waits for the answers, prints one line. */
int run_flood(const struct opts *o)
{
	struct flood f = { .o = o, .cap = 32768, .ep = epoll_create1(EPOLL_CLOEXEC) };
	uint64_t start = now_us(), end = start + o->ms * 1000ULL, now;
	struct epoll_event ev[128];

	allow_files();
	f.c = calloc(f.cap, sizeof(*f.c));
	if (!f.c || !o->n_dst)
		return 2;
	puts("ready");
	for (now = start; (now < end && !stopping()) || f.next_old < f.next_free; now = now_us()) {
		uint64_t due = (now < end ? now - start : o->ms * 1000ULL) * o->rate / 1000000;
		int n;

		for (int burst = 0; !stopping() && f.t.tried < due && burst < 256; burst++)
			flood_start(&f);
		n = epoll_wait(f.ep, ev, 128, 2);
		for (int i = 0; i < n; i++) {
			struct conn *c = &f.c[ev[i].data.u64];

			if (!c->dead && read_label(o, c, &f.t))
				finish(o, c);
		}
		flood_expire(&f, now_us());
	}
	print_tally("flood", &f.t);
	free(f.c);
	return 0;
}

/* Sends a byte on the connection when its time has come, and notes how long echoes stay away. */
static void hold_tick(const struct opts *o, struct conn *c, struct tally *t, uint64_t now)
{
	if (c->dead || !c->greeted)
		return;
	if (now - c->echoed_us > t->max_gap_us)
		t->max_gap_us = now - c->echoed_us;
	if (now - c->sent_us < o->period_ms * 1000ULL)
		return;
	c->sent_us = now;
	if (write(c->fd, "x", 1) < 0 && errno != EAGAIN) {
		count_error(t, errno);
		finish(o, c);
	}
}

static void hold_read(const struct opts *o, struct conn *c, struct tally *t)
{
	char buf[512];
	ssize_t n;

	if (!c->greeted) {
		if (read_label(o, c, t) && !c->greeted)
			finish(o, c);
		c->echoed_us = c->sent_us = now_us();
		return;
	}
	n = read(c->fd, buf, sizeof(buf));
	if (n > 0) {
		c->echoed_us = now_us();
		return;
	}
	if (n < 0 && errno == EAGAIN)
		return;
	if (n < 0)
		count_error(t, errno);
	else
		t->closed++;
	finish(o, c);
}

static void hold_open_all(const struct opts *o, struct conn *c, struct tally *t, int ep)
{
	for (unsigned int i = 0; i < o->conns; i++) {
		struct epoll_event ev = { .events = EPOLLIN, .data.u64 = i };
		int fd = begin(o, &o->dst[i % o->n_dst], NULL);

		t->tried++;
		c[i] = (struct conn){ .fd = fd, .dead = fd < 0, .start_us = now_us() };
		if (fd < 0) {
			count_error(t, -fd);
			continue;
		}
		epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
	}
}

/* Keeps connections talking until SIGTERM or for ms; every one must survive. */
int run_hold(const struct opts *o)
{
	struct conn *c = calloc(o->conns, sizeof(*c));
	uint64_t start = now_us(), ticked = 0, now;
	int ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event ev[128];
	struct tally t = { 0 };
	bool said = false;

	allow_files();
	if (!c || !o->n_dst)
		return 2;
	hold_open_all(o, c, &t, ep);
	for (now = start; !stopping() && now - start < o->ms * 1000ULL; now = now_us()) {
		int n = epoll_wait(ep, ev, 128, 2);

		for (int i = 0; i < n; i++)
			if (!c[ev[i].data.u64].dead)
				hold_read(o, &c[ev[i].data.u64], &t);
		if (!said && t.ok + t.refused + t.reset + t.timeout + t.other == t.tried) {
			puts("ready");
			said = true;
		}
		if (now - ticked < 2000)
			continue;
		ticked = now = now_us();
		for (unsigned int i = 0; i < o->conns; i++)
			hold_tick(o, &c[i], &t, now);
	}
	print_tally("hold", &t);
	free(c);
	return 0;
}
