// SPDX-License-Identifier: Apache-2.0
/*
 * TCP clients and servers of the bench, all on one core: connections are opened, asked once and
 * closed (crr) or kept and asked over and over (rr). Prints "RATE P50_US P99_US COUNT ERRORS".
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SERVERS_MAX 8
#define CONNS_MAX 64
#define SAMPLES_MAX (1 << 20)
#define MESSAGE_BYTES 64
#define WARM_UP_NS 60000000ULL
#define FDS_MAX 65536

struct options {
	const char *client_ns, *cgroup;
	const char *servers[SERVERS_MAX];
	int server_count, conns, cpu, ms;
	uint16_t listen_port;
	struct sockaddr_in target;
	bool fifo, keep;
};

struct conn {
	int fd;
	uint64_t start_ns;
};

static uint32_t samples[SAMPLES_MAX];

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static int enter_ns(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = setns(fd, CLONE_NEWNET) < 0 ? -errno : 0;
	close(fd);
	return r;
}

static int enter_cgroup(const char *dir)
{
	char path[512], pid[16];
	int fd, r = 0, n;

	if (snprintf(path, sizeof(path), "%s/cgroup.procs", dir) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = snprintf(pid, sizeof(pid), "%d", getpid());
	if (write(fd, pid, n) != n)
		r = -errno;
	close(fd);
	return r;
}

static int pin_here(const struct options *o)
{
	struct sched_param param = { .sched_priority = 1 };
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(o->cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		return -errno;
	if (o->fifo && sched_setscheduler(0, SCHED_FIFO, &param) < 0)
		return -errno;
	return 0;
}

static int watch(int ep, int fd, uint32_t events, void *ptr)
{
	struct epoll_event ev = { .events = events, .data.ptr = ptr };

	return epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

/* One listening socket in each backend pod, served by one process. */
static int listen_all(const struct options *o, int ep, bool *listening)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(o->listen_port) };
	int one = 1;

	for (int i = 0; i < o->server_count; i++) {
		int r = enter_ns(o->servers[i]), fd;

		if (r < 0)
			return r;
		fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (fd < 0 || fd >= FDS_MAX)
			return -EMFILE;
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(fd, (struct sockaddr *)&any, sizeof(any)) < 0 || listen(fd, 1024) < 0)
			return -errno;
		listening[fd] = true;
		r = watch(ep, fd, EPOLLIN, (void *)(intptr_t)fd);
		if (r < 0)
			return r;
	}
	return 0;
}

static void serve_event(int ep, int fd, bool is_listener)
{
	char buf[MESSAGE_BYTES] = {};
	int one = 1, n;

	if (is_listener) {
		while ((n = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
			setsockopt(n, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
			if (watch(ep, n, EPOLLIN, (void *)(intptr_t)n) < 0)
				close(n);
		}
		return;
	}
	n = recv(fd, buf, sizeof(buf), 0);
	if (n > 0 && send(fd, buf, sizeof(buf), MSG_NOSIGNAL) == sizeof(buf))
		return;
	if (n < 0 && errno == EAGAIN)
		return;
	close(fd);
}

static int serve(const struct options *o, int ready)
{
	static bool listening[FDS_MAX];
	int ep = epoll_create1(EPOLL_CLOEXEC), r;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	r = ep < 0 ? -errno : listen_all(o, ep, listening);
	if (r == 0)
		r = pin_here(o);
	if (write(ready, &r, sizeof(r)) != sizeof(r) || r < 0)
		return r;
	for (;;) {
		struct epoll_event ev[64];
		int n = epoll_wait(ep, ev, 64, -1);

		for (int i = 0; i < n; i++) {
			int fd = (int)(intptr_t)ev[i].data.ptr;

			serve_event(ep, fd, listening[fd]);
		}
	}
}

static int start(const struct options *o, int ep, struct conn *c)
{
	int one = 1, r;

	c->start_ns = now_ns();
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return -errno;
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(c->fd, (const struct sockaddr *)&o->target, sizeof(o->target)) < 0 &&
	    errno != EINPROGRESS) {
		r = -errno;
		close(c->fd);
		return r;
	}
	return watch(ep, c->fd, EPOLLOUT, c);
}

static int ask(int ep, struct conn *c)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
	char buf[MESSAGE_BYTES] = {};

	if (send(c->fd, buf, sizeof(buf), MSG_NOSIGNAL) != sizeof(buf))
		return -EPIPE;
	return epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev) < 0 ? -errno : 0;
}

/* Handles one event; returns 1 when a transaction ended, 0 when not, -errno when it failed. */
static int step(const struct options *o, int ep, struct conn *c, uint32_t events)
{
	char buf[MESSAGE_BYTES];
	int n;

	if (events & EPOLLOUT)
		return ask(ep, c);
	n = recv(c->fd, buf, sizeof(buf), 0);
	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n <= 0)
		return -ECONNRESET;
	return 1;
}

static int again(const struct options *o, int ep, struct conn *c)
{
	char buf[MESSAGE_BYTES] = {};

	if (!o->keep) {
		close(c->fd);
		return start(o, ep, c);
	}
	c->start_ns = now_ns();
	return send(c->fd, buf, sizeof(buf), MSG_NOSIGNAL) == sizeof(buf) ? 0 : -EPIPE;
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void report(uint32_t count, uint64_t ns, uint32_t errors)
{
	uint32_t kept = count < SAMPLES_MAX ? count : SAMPLES_MAX;

	qsort(samples, kept, sizeof(samples[0]), by_value);
	printf("%.1f %.2f %.2f %u %u\n", count * 1e9 / ns, kept ? samples[kept / 2] / 1e3 : 0.0,
	       kept ? samples[(uint64_t)kept * 99 / 100] / 1e3 : 0.0, count, errors);
}

static int ask_all(const struct options *o)
{
	static struct conn conns[CONNS_MAX];
	int ep = epoll_create1(EPOLL_CLOEXEC), r = ep < 0 ? -errno : 0;
	uint64_t begin = now_ns() + WARM_UP_NS, end = begin + o->ms * 1000000ULL, now = 0;
	uint32_t count = 0, errors = 0;

	for (int i = 0; r == 0 && i < o->conns; i++)
		r = start(o, ep, &conns[i]);
	while (r == 0 && now < end) {
		struct epoll_event ev[CONNS_MAX];
		int n = epoll_wait(ep, ev, CONNS_MAX, 1000);

		now = now_ns();
		if (n == 0)
			return -ETIMEDOUT;
		for (int i = 0; i < n && r == 0; i++) {
			struct conn *c = ev[i].data.ptr;
			int done = step(o, ep, c, ev[i].events);

			if (done == 0)
				continue;
			if (done < 0) {
				errors++;
				close(c->fd);
				r = start(o, ep, c);
				continue;
			}
			now = now_ns();
			if (now >= begin && now < end)
				samples[count++ % SAMPLES_MAX] = now - c->start_ns;
			r = again(o, ep, c);
		}
	}
	if (r == 0)
		report(count, o->ms * 1000000ULL, errors);
	return r;
}

static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option longopts[] = {
		{ "client-ns", required_argument, NULL, 'c' },
		{ "server-ns", required_argument, NULL, 's' },
		{ "cgroup", required_argument, NULL, 'g' },
		{ "target-addr", required_argument, NULL, 't' },
		{ "target-port", required_argument, NULL, 'p' },
		{ "listen-port", required_argument, NULL, 'l' },
		{ "conns", required_argument, NULL, 'n' },
		{ "ms", required_argument, NULL, 'm' },
		{ "cpu", required_argument, NULL, 'C' },
		{ "keep", no_argument, NULL, 'k' },
		{ "fifo", no_argument, NULL, 'F' },
		{},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longopts, NULL)) != -1) {
		switch (c) {
		case 'c': o->client_ns = optarg; break;
		case 's':
			if (o->server_count == SERVERS_MAX)
				return -E2BIG;
			o->servers[o->server_count++] = optarg;
			break;
		case 'g': o->cgroup = optarg; break;
		case 't':
			if (inet_pton(AF_INET, optarg, &o->target.sin_addr) != 1)
				return -EINVAL;
			break;
		case 'p': o->target.sin_port = htons(atoi(optarg)); break;
		case 'l': o->listen_port = atoi(optarg); break;
		case 'n': o->conns = atoi(optarg); break;
		case 'm': o->ms = atoi(optarg); break;
		case 'C': o->cpu = atoi(optarg); break;
		case 'k': o->keep = true; break;
		case 'F': o->fifo = true; break;
		default: return -EINVAL;
		}
	}
	if (!o->client_ns || !o->server_count || o->conns < 1 || o->conns > CONNS_MAX)
		return -EINVAL;
	return 0;
}

static int run(const struct options *o)
{
	int ready[2], r;
	pid_t server;

	if (o->cgroup) {
		r = enter_cgroup(o->cgroup);
		if (r < 0)
			return r;
	}
	if (pipe2(ready, O_CLOEXEC) < 0)
		return -errno;
	server = fork();
	if (server < 0)
		return -errno;
	if (server == 0)
		_exit(serve(o, ready[1]) < 0);
	close(ready[1]);
	if (read(ready[0], &r, sizeof(r)) != sizeof(r))
		r = -ECHILD;
	if (r == 0)
		r = enter_ns(o->client_ns);
	if (r == 0)
		r = pin_here(o);
	if (r == 0)
		r = ask_all(o);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	return r;
}

int main(int argc, char **argv)
{
	struct options o = { .conns = 16, .ms = 400, .listen_port = 8080,
			     .target = { .sin_family = AF_INET } };
	int r = parse_options(argc, argv, &o);

	if (r == 0)
		r = run(&o);
	if (r < 0)
		fprintf(stderr, "bench_conn: %s\n", strerror(-r));
	return r < 0;
}
