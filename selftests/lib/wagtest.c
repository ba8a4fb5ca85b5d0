// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "selftests/lib/wagtest.h"

static volatile sig_atomic_t stop_flag;

static void on_signal(int sig)
{
	stop_flag = 1;
}

bool stopping(void)
{
	return stop_flag;
}

uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000ULL + t.tv_nsec / 1000;
}

socklen_t sa_len(const union sa *a)
{
	return a->sa.sa_family == AF_INET ? sizeof(a->v4) : sizeof(a->v6);
}

in_port_t *sa_port(union sa *a)
{
	return a->sa.sa_family == AF_INET ? &a->v4.sin_port : &a->v6.sin6_port;
}

const char *sa_text(const union sa *a, char buf[static 64])
{
	char ip[INET6_ADDRSTRLEN] = "?";

	if (a->sa.sa_family == AF_INET) {
		inet_ntop(AF_INET, &a->v4.sin_addr, ip, sizeof(ip));
		snprintf(buf, 64, "%s:%u", ip, ntohs(a->v4.sin_port));
	} else {
		inet_ntop(AF_INET6, &a->v6.sin6_addr, ip, sizeof(ip));
		snprintf(buf, 64, "[%s]:%u", ip, ntohs(a->v6.sin6_port));
	}
	return buf;
}

bool sa_parse(const char *text, union sa *ret)
{
	char buf[80];
	char *host = buf, *port = NULL, *end;

	if (strlen(text) >= sizeof(buf))
		return false;
	strcpy(buf, text);
	if (buf[0] == '[') {
		host = buf + 1;
		end = strchr(host, ']');
		if (!end)
			return false;
		*end = 0;
		port = end[1] == ':' ? end + 2 : NULL;
	} else if (strchr(buf, ':') && strchr(buf, ':') == strrchr(buf, ':')) {
		port = strchr(buf, ':');
		*port++ = 0;
	}
	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET, host, &ret->v4.sin_addr) == 1)
		ret->sa.sa_family = AF_INET;
	else if (inet_pton(AF_INET6, host, &ret->v6.sin6_addr) == 1)
		ret->sa.sa_family = AF_INET6;
	else
		return false;
	*sa_port(ret) = htons(port ? atoi(port) : 0);
	return true;
}

const char *errno_name(int err)
{
	const char *name = strerrorname_np(err);

	return name ? name : "E?";
}

int wait_fd(int fd, short events, int timeout_ms)
{
	struct pollfd p = { .fd = fd, .events = events };
	int r = poll(&p, 1, timeout_ms);

	if (r < 0)
		return -errno;
	return r ? 0 : -ETIMEDOUT;
}

int open_socket(const struct opts *o, const union sa *dst, int type, const union sa *src)
{
	int fd = socket(dst->sa.sa_family, type | SOCK_CLOEXEC, 0), one = 1;

	if (fd < 0)
		return -errno;
	if (o->reuse)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	/* Many clients of one address: the port is chosen by the whole tuple, at connect(). */
	if (src && !(src->sa.sa_family == AF_INET ? src->v4.sin_port : src->v6.sin6_port))
		setsockopt(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
	if (o->recverr && dst->sa.sa_family == AF_INET)
		setsockopt(fd, SOL_IP, IP_RECVERR, &one, sizeof(one));
	if (o->recverr && dst->sa.sa_family == AF_INET6)
		setsockopt(fd, SOL_IPV6, IPV6_RECVERR, &one, sizeof(one));
	if (src && bind(fd, &src->sa, sa_len(src)) < 0) {
		int err = errno;

		close(fd);
		return -err;
	}
	return fd;
}

uint16_t inet_sum(const void *data, size_t len, uint32_t start)
{
	const uint8_t *p = data;
	uint32_t sum = start;

	for (; len > 1; len -= 2, p += 2)
		sum += p[0] << 8 | p[1];
	if (len)
		sum += p[0] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static bool add_addrs(const char *list, union sa *a, size_t *n)
{
	char *copy = strdup(list), *save = NULL;
	bool ok = copy != NULL;

	for (char *t = copy ? strtok_r(copy, ",", &save) : NULL; t && ok;
	     t = strtok_r(NULL, ",", &save))
		ok = *n < ADDRS_MAX && sa_parse(t, &a[(*n)++]);
	free(copy);
	return ok;
}

static bool add_ports(const char *list, struct opts *o)
{
	for (const char *p = list; p && *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
		if (o->n_ports == sizeof(o->ports) / sizeof(o->ports[0]))
			return false;
		o->ports[o->n_ports++] = atoi(p);
	}
	return o->n_ports > 0;
}

static const struct {
	const char *name;
	int (*run)(const struct opts *o);
} modes[] = {
	{ "echo", run_echo },		    /* --label L --port P[,P] [--src ADDR] */
	{ "connect", run_connect },	    /* --dst A:P [--src A:P] [--count N] [--hold-open] */
	{ "udp", run_udp },		    /* --dst A:P [--connected] [--count N] [--size N] */
	{ "pmtu", run_pmtu },		    /* --dst A:P --size N */
	{ "hold", run_hold },		    /* --dst A:P[,A:P] --conns N --period MS --ms MS */
	{ "flood", run_flood },		    /* --dst A:P[,A:P] --rate N --ms MS [--expect L] */
	{ "sctp-server", run_sctp_server }, /* --label L --port P[,P] */
	{ "sctp", run_sctp },		    /* --dst A:P --src A:P */
	{ "frag", run_frag },		    /* --dst, --src A:P --size N [--reverse] [--answer] */
	{ "synflood", run_synflood },	    /* --dst A:P --src A --rate N --ms MS */
	{ "ping", run_ping },		    /* --dst A[,A] [--ttl N] [--size N] [--df] */
	{ "bulk", run_bulk },		    /* --dst A:P --size N */
	{ "stream", run_stream },	    /* --dst A:P --rate N --ms MS */
};

static const struct option options[] = {
	{ "label", 1, NULL, 'l' },	{ "expect", 1, NULL, 'e' },
	{ "dst", 1, NULL, 'd' },	{ "src", 1, NULL, 's' },
	{ "port", 1, NULL, 'p' },	{ "count", 1, NULL, 'n' },
	{ "conns", 1, NULL, 'c' },	{ "rate", 1, NULL, 'r' },
	{ "size", 1, NULL, 'z' },	{ "ms", 1, NULL, 'm' },
	{ "period", 1, NULL, 'P' },	{ "timeout", 1, NULL, 't' },
	{ "connected", 0, NULL, 'C' },	{ "recverr", 0, NULL, 'E' },
	{ "reuse", 0, NULL, 'R' },	{ "hold-open", 0, NULL, 'H' },
	{ "linger0", 0, NULL, 'L' },	{ "reverse", 0, NULL, 'V' },
	{ "verbose", 0, NULL, 'v' },	{ "ttl", 1, NULL, 'T' },
	{ "df", 0, NULL, 'D' },		{ "answer", 0, NULL, 'A' },
	{ 0 },
};

static bool parse_one(struct opts *o, int c, const char *arg)
{
	switch (c) {
	case 'l': o->label = arg; break;
	case 'e': o->expect = arg; break;
	case 'd': return add_addrs(arg, o->dst, &o->n_dst);
	case 's': return add_addrs(arg, o->src, &o->n_src);
	case 'p': return add_ports(arg, o);
	case 'n': o->count = atoi(arg); break;
	case 'c': o->conns = atoi(arg); break;
	case 'r': o->rate = atoi(arg); break;
	case 'z': o->size = atoi(arg); break;
	case 'm': o->ms = atoi(arg); break;
	case 'P': o->period_ms = atoi(arg); break;
	case 't': o->timeout_ms = atoi(arg); break;
	case 'C': o->connected = true; break;
	case 'E': o->recverr = true; break;
	case 'R': o->reuse = true; break;
	case 'H': o->hold_open = true; break;
	case 'L': o->linger0 = true; break;
	case 'V': o->reverse = true; break;
	case 'v': o->verbose = true; break;
	case 'T': o->ttl = atoi(arg); break;
	case 'D': o->df = true; break;
	case 'A': o->answer = true; break;
	default: return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	struct opts o = { .label = "?", .count = 1, .conns = 1, .rate = 100, .ms = 1000,
			  .period_ms = 10, .timeout_ms = 3000 };
	struct sigaction sa = { .sa_handler = on_signal };
	int c;

	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (!parse_one(&o, c, optarg)) {
			fprintf(stderr, "wagtest: bad option or argument: %s\n", argv[optind - 1]);
			return 2;
		}
	}
	for (size_t i = 0; optind < argc && i < sizeof(modes) / sizeof(modes[0]); i++)
		if (!strcmp(argv[optind], modes[i].name))
			return modes[i].run(&o);
	fprintf(stderr, "usage: wagtest MODE [options]\n");
	return 2;
}
