// SPDX-License-Identifier: Apache-2.0
/*
 * A conversation that never pauses: a datagram every INTERVAL_US from one namespace to another,
 * each answered, and when they get through. Commands on standard input:
 *   until pass|drop TIMEOUT_MS   answered once SURE datagrams in a row did: "NS GAP_US", when the
 *                                first of them got through, or the last before them; GAP_US is the
 *                                longest time between two datagrams since the last command. "late":
 *                                it did not come to that
 * NS is CLOCK_MONOTONIC.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define INTERVAL_US 50
#define SURE 100
#define PRIORITY 2 /* above what is measured: it sleeps nearly always */

struct options {
	const char *from_ns, *to_ns;
	struct sockaddr_in to;
	int cpu;
	bool fifo;
};

struct probe {
	int from, to;
	uint64_t n, seen; /* datagrams sent, and the last one that got through */
	uint64_t passed_ns, first_ns;
	unsigned passes, drops; /* in a row */
	uint64_t sent_ns, gap_ns;
};

struct command {
	bool waits, pass;
	uint64_t deadline_ns;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static int socket_in(const char *ns)
{
	int fd = open(ns, O_RDONLY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = setns(fd, CLONE_NEWNET) < 0 ? -errno : 0;
	close(fd);
	if (r < 0)
		return r;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	return fd < 0 ? -errno : fd;
}

static int start(const struct options *o, struct probe *p)
{
	struct sched_param param = { .sched_priority = PRIORITY };
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = o->to.sin_port };
	cpu_set_t set;

	p->to = socket_in(o->to_ns);
	if (p->to < 0)
		return p->to;
	p->from = socket_in(o->from_ns);
	if (p->from < 0)
		return p->from;
	CPU_ZERO(&set);
	CPU_SET(o->cpu, &set);
	if (bind(p->to, (const struct sockaddr *)&any, sizeof(any)) < 0 ||
	    connect(p->from, (const struct sockaddr *)&o->to, sizeof(o->to)) < 0 ||
	    sched_setaffinity(0, sizeof(set), &set) < 0 ||
	    (o->fifo && sched_setscheduler(0, SCHED_FIFO, &param) < 0))
		return -errno;
	return fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

/* Takes what arrived at both ends. */
static void receive(struct probe *p)
{
	struct sockaddr_in who;
	socklen_t len = sizeof(who);
	uint64_t n;

	while (recvfrom(p->to, &n, sizeof(n), 0, (struct sockaddr *)&who, &len) == sizeof(n)) {
		p->seen = n;
		p->passed_ns = now_ns();
		sendto(p->to, &n, sizeof(n), 0, (const struct sockaddr *)&who, len);
	}
	while (recv(p->from, &n, sizeof(n), 0) >= 0)
		;
}

static void tick(struct probe *p)
{
	uint64_t now = now_ns();

	if (p->n && now - p->sent_ns > p->gap_ns)
		p->gap_ns = now - p->sent_ns;
	p->sent_ns = now;
	p->n++;
	if (send(p->from, &p->n, sizeof(p->n), 0) < 0 && errno != EAGAIN)
		return; /* an error of an earlier one */
	receive(p);
	if (p->seen == p->n) {
		if (!p->passes++)
			p->first_ns = p->passed_ns;
		p->drops = 0;
	} else {
		p->drops++;
		p->passes = 0;
	}
}

static void answer(struct probe *p, struct command *c)
{
	if ((c->pass ? p->passes : p->drops) >= SURE)
		printf("%lu %lu\n", c->pass ? p->first_ns : p->passed_ns, p->gap_ns / 1000);
	else if (now_ns() > c->deadline_ns)
		printf("late\n");
	else
		return;
	fflush(stdout);
	c->waits = false;
}

/* False: the end. */
static bool take_command(struct probe *p, struct command *c)
{
	char line[128], what[8];
	ssize_t n = read(STDIN_FILENO, line, sizeof(line) - 1);
	unsigned ms;

	if (n < 0)
		return errno == EAGAIN;
	line[n] = 0;
	if (sscanf(line, "until %7s %u", what, &ms) != 2)
		return false;
	*c = (struct command){ true, !strcmp(what, "pass"), now_ns() + ms * 1000000ULL };
	p->gap_ns = 0;
	return true;
}

static void run(struct probe *p)
{
	struct command c = { 0 };
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	while (take_command(p, &c)) {
		uint64_t next = at.tv_sec * 1000000000ULL + at.tv_nsec + INTERVAL_US * 1000, now;

		tick(p);
		if (c.waits)
			answer(p, &c);
		now = now_ns();
		next = next > now ? next : now + INTERVAL_US * 1000;
		at = (struct timespec){ next / 1000000000, next % 1000000000 };
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
	}
}

static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option longopts[] = {
		{ "from-ns", required_argument, NULL, 'f' },
		{ "to-ns", required_argument, NULL, 't' },
		{ "to-addr", required_argument, NULL, 'a' },
		{ "port", required_argument, NULL, 'p' },
		{ "cpu", required_argument, NULL, 'C' },
		{ "fifo", no_argument, NULL, 'F' },
		{},
	};
	int c;

	o->to.sin_family = AF_INET;
	while ((c = getopt_long(argc, argv, "", longopts, NULL)) != -1) {
		switch (c) {
		case 'f': o->from_ns = optarg; break;
		case 't': o->to_ns = optarg; break;
		case 'a':
			if (inet_pton(AF_INET, optarg, &o->to.sin_addr) != 1)
				return -EINVAL;
			break;
		case 'p': o->to.sin_port = htons(atoi(optarg)); break;
		case 'C': o->cpu = atoi(optarg); break;
		case 'F': o->fifo = true; break;
		default: return -EINVAL;
		}
	}
	return o->from_ns && o->to_ns && o->to.sin_port ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
	struct options o = { 0 };
	struct probe p = { 0 };
	int r = parse_options(argc, argv, &o);

	if (r == 0)
		r = start(&o, &p);
	if (r == 0)
		run(&p);
	else
		fprintf(stderr, "bench_probe: %s\n", strerror(-r));
	return r < 0;
}
