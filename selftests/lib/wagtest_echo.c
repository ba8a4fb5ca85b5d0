// SPDX-License-Identifier: Apache-2.0
/*
 * The backend. TCP: says "label client-address\n", then echoes. UDP: answers each datagram with
 * "label client-address length\n", padded with the datagram's own bytes to its length.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "selftests/lib/wagtest.h"

enum kind { LISTEN = 0, DGRAM = 1, CONN = 2 };
#define TAG(fd, kind) ((uint64_t)(kind) << 32 | (uint32_t)(fd))

static int watch(int ep, int fd, enum kind kind)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = TAG(fd, kind) };

	return epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

static int bound_socket(int family, int type, unsigned int port, const union sa *src)
{
	int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1, bytes = 4 << 20;
	union sa a = { .sa.sa_family = family };

	if (fd < 0)
		return -errno;
	if (src)
		a = *src;
	*sa_port(&a) = htons(port);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	if (family == AF_INET6)
		setsockopt(fd, SOL_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, &a.sa, sa_len(&a)) < 0 || (type == SOCK_STREAM && listen(fd, 4096) < 0)) {
		int err = errno;

		close(fd);
		return -err;
	}
	return fd;
}

static void on_accept(int ep, int fd, const char *label)
{
	for (;;) {
		union sa peer;
		socklen_t len = sizeof(peer);
		int c = accept4(fd, &peer.sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC), n;
		int bytes = 1 << 20; /* an echo is written at once or not at all */
		char text[64], line[160];

		if (c < 0)
			return;
		setsockopt(c, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes));
		n = snprintf(line, sizeof(line), "%s %s\n", label, sa_text(&peer, text));
		if (write(c, line, n) != n || watch(ep, c, CONN) < 0)
			close(c);
	}
}

static void on_datagram(int fd, const char *label)
{
	static char buf[65536];

	for (;;) {
		union sa peer;
		socklen_t len = sizeof(peer);
		ssize_t got = recvfrom(fd, buf, sizeof(buf), 0, &peer.sa, &len);
		char text[64], line[160];
		int n;

		if (got < 0)
			return;
		n = snprintf(line, sizeof(line), "%s %s %zd\n", label, sa_text(&peer, text), got);
		memcpy(buf, line, n);
		sendto(fd, buf, got > n ? got : n, 0, &peer.sa, len);
	}
}

static void on_bytes(int fd)
{
	char buf[4096];
	ssize_t got = read(fd, buf, sizeof(buf));

	if (got <= 0 || write(fd, buf, got) != got)
		close(fd);
}

static int listen_all(const struct opts *o, int ep)
{
	static const int families[] = { AF_INET, AF_INET6 }, types[] = { SOCK_STREAM, SOCK_DGRAM };

	for (size_t i = 0; i < o->n_ports * 4; i++) {
		int family = families[i & 1], type = types[i >> 1 & 1], fd, r;

		if (o->n_src && o->src[0].sa.sa_family != family)
			continue;
		fd = bound_socket(family, type, o->ports[i / 4], o->n_src ? &o->src[0] : NULL);
		if (fd < 0)
			return fd;
		r = watch(ep, fd, type == SOCK_STREAM ? LISTEN : DGRAM);
		if (r < 0)
			return r;
	}
	return 0;
}

int run_echo(const struct opts *o)
{
	int ep = epoll_create1(EPOLL_CLOEXEC), r = listen_all(o, ep);
	struct epoll_event ev[64];

	allow_files();
	if (r < 0) {
		fprintf(stderr, "wagtest echo: %s\n", errno_name(-r));
		return 1;
	}
	puts("ready");
	while (!stopping()) {
		int n = epoll_wait(ep, ev, 64, -1);

		for (int i = 0; i < n; i++) {
			int fd = (uint32_t)ev[i].data.u64;

			switch (ev[i].data.u64 >> 32) {
			case LISTEN: on_accept(ep, fd, o->label); break;
			case DGRAM: on_datagram(fd, o->label); break;
			default: on_bytes(fd);
			}
		}
	}
	return 0;
}
