// SPDX-License-Identifier: Apache-2.0
/* One conversation after the other, each described by one line. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "selftests/lib/wagtest.h"

/* Reads "label client-address\n" into label and seen. 0 or -errno. */
static int read_greeting(int fd, int timeout_ms, char label[LABEL_MAX], char seen[64])
{
	char line[160] = "";
	size_t len = 0;

	label[0] = seen[0] = 0;
	while (!memchr(line, '\n', len)) {
		ssize_t got;
		int r = wait_fd(fd, POLLIN, timeout_ms);

		if (r < 0)
			return r;
		got = read(fd, line + len, sizeof(line) - 1 - len);
		if (got < 0)
			return -errno;
		if (!got)
			return -EPIPE;
		len += got;
	}
	return sscanf(line, "%63s %63s", label, seen) == 2 ? 0 : -EPROTO;
}

static int connect_wait(int fd, const union sa *dst, int timeout_ms)
{
	int err = 0, r;
	socklen_t len = sizeof(err);

	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	if (!connect(fd, &dst->sa, sa_len(dst)))
		return 0;
	if (errno != EINPROGRESS)
		return -errno;
	r = wait_fd(fd, POLLOUT, timeout_ms);
	if (r < 0)
		return r;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
	return -err;
}

static int connect_once(const struct opts *o, const union sa *dst, const union sa *src)
{
	char label[LABEL_MAX] = "", seen[64] = "", t[64], t2[64];
	uint64_t start = now_us();
	union sa local = { 0 }, peer = { 0 };
	socklen_t len = sizeof(local);
	int fd = open_socket(o, dst, SOCK_STREAM, src), r;

	r = fd < 0 ? fd : connect_wait(fd, dst, o->timeout_ms);
	if (!r)
		r = read_greeting(fd, o->timeout_ms, label, seen);
	if (!r) {
		getsockname(fd, &local.sa, &len);
		len = sizeof(peer);
		getpeername(fd, &peer.sa, &len);
		printf("ok label=%s local=%s peer=%s seen=%s us=%llu\n", label, sa_text(&local, t),
		       sa_text(&peer, t2), seen, (unsigned long long)(now_us() - start));
	} else {
		printf("err errno=%s us=%llu\n", errno_name(-r),
		       (unsigned long long)(now_us() - start));
	}
	if (fd >= 0 && !o->hold_open)
		close(fd);
	return r;
}

int run_connect(const struct opts *o)
{
	int failed = 0;

	for (unsigned int i = 0; i < o->count && !stopping(); i++)
		for (size_t d = 0; d < o->n_dst; d++)
			failed |= connect_once(o, &o->dst[d], o->n_src ? &o->src[0] : NULL);
	if (o->hold_open) {
		puts("ready");
		while (!stopping())
			pause();
	}
	return failed ? 1 : 0;
}

static void fill(char *buf, size_t len, unsigned int seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (i * 31 + seed) & 0xff;
}

/* One datagram and its answer; prints a line. */
static int udp_once(const struct opts *o, int fd, const union sa *dst, unsigned int seed)
{
	static char out[65536], in[65536];
	size_t len = o->size ? o->size : 4;
	uint64_t start = now_us();
	union sa from = { 0 };
	socklen_t flen = sizeof(from);
	char label[LABEL_MAX] = "?", seen[64] = "?", t[64], *nl;
	ssize_t got;
	int r;

	fill(out, len, seed);
	if (sendto(fd, out, len, 0, o->connected ? NULL : &dst->sa,
		   o->connected ? 0 : sa_len(dst)) < 0)
		r = -errno;
	else
		r = wait_fd(fd, POLLIN, o->timeout_ms);
	got = r ? -1 : recvfrom(fd, in, sizeof(in) - 1, MSG_DONTWAIT, &from.sa, &flen);
	if (!r && got < 0)
		r = -errno;
	if (r) {
		printf("err errno=%s us=%llu\n", errno_name(-r),
		       (unsigned long long)(now_us() - start));
		return r;
	}
	in[got] = 0;
	sscanf(in, "%63s %63s", label, seen);
	nl = memchr(in, '\n', got);
	printf("ok label=%s from=%s seen=%s len=%zd intact=%d us=%llu\n", label, sa_text(&from, t),
	       seen, got, nl && !memcmp(nl + 1, out + (nl + 1 - in), in + got - nl - 1),
	       (unsigned long long)(now_us() - start));
	return 0;
}

int run_udp(const struct opts *o)
{
	int failed = 0, fd = open_socket(o, &o->dst[0], SOCK_DGRAM, o->n_src ? &o->src[0] : NULL);
	union sa peer = { 0 };
	socklen_t len = sizeof(peer);
	char t[64];

	if (fd < 0 || (o->connected && connect(fd, &o->dst[0].sa, sa_len(&o->dst[0])) < 0)) {
		printf("err errno=%s us=0\n", errno_name(fd < 0 ? -fd : errno));
		return 1;
	}
	if (o->connected && !getpeername(fd, &peer.sa, &len))
		printf("peer peer=%s\n", sa_text(&peer, t));
	for (unsigned int i = 0; i < o->count && !stopping(); i++) {
		for (size_t d = 0; d < o->n_dst; d++)
			failed |= udp_once(o, fd, &o->dst[d], i);
		if (i + 1 < o->count && o->period_ms)
			poll(NULL, 0, o->period_ms);
	}
	close(fd);
	return failed ? 1 : 0;
}

/* Sends too large datagrams that must not be fragmented until the path MTU has been learnt. */
int run_pmtu(const struct opts *o)
{
	bool v4 = o->dst[0].sa.sa_family == AF_INET;
	int level = v4 ? SOL_IP : SOL_IPV6, name = v4 ? IP_MTU : IPV6_MTU, mtu = 0, first = 0;
	int pmtudisc = v4 ? IP_PMTUDISC_DO : IPV6_PMTUDISC_DO;
	int fd = open_socket(o, &o->dst[0], SOCK_DGRAM, NULL);
	uint64_t end = now_us() + o->timeout_ms * 1000ULL;
	static char buf[65536];
	socklen_t len = sizeof(mtu);

	setsockopt(fd, level, v4 ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER, &pmtudisc,
		   sizeof(pmtudisc));
	if (fd < 0 || connect(fd, &o->dst[0].sa, sa_len(&o->dst[0])) < 0) {
		printf("err errno=%s us=0\n", errno_name(errno));
		return 1;
	}
	getsockopt(fd, level, name, &first, &len);
	mtu = first;
	while (mtu >= first && now_us() < end && !stopping()) {
		if (send(fd, buf, o->size, 0) < 0 && errno != EMSGSIZE)
			break;
		poll(NULL, 0, 10);
		len = sizeof(mtu);
		getsockopt(fd, level, name, &mtu, &len);
	}
	printf("%s first=%d mtu=%d\n", mtu < first ? "ok" : "err errno=ETIMEDOUT", first, mtu);
	close(fd);
	return mtu < first ? 0 : 1;
}
