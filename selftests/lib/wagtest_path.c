// SPDX-License-Identifier: Apache-2.0
/* What a path does to packets: hops and errors (ping), large segments (bulk), losses (stream). */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "selftests/lib/wagtest.h"

/* The part of an echo request that both families share. */
struct echo {
	uint8_t type, code;
	uint16_t checksum, id, seq;
};

struct answer {
	union sa from;
	int hops;
	const uint8_t *icmp;
	size_t len;
};

static int ping_socket(const struct opts *o, bool v4)
{
	int fd = socket(v4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_CLOEXEC,
			v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6), one = 1, ttl = o->ttl;
	int probe = v4 ? IP_PMTUDISC_PROBE : IPV6_PMTUDISC_PROBE;

	if (fd < 0)
		return -errno;
	if (ttl)
		setsockopt(fd, v4 ? SOL_IP : SOL_IPV6, v4 ? IP_TTL : IPV6_UNICAST_HOPS, &ttl,
			   sizeof(ttl));
	if (o->df)
		setsockopt(fd, v4 ? SOL_IP : SOL_IPV6, v4 ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER,
			   &probe, sizeof(probe));
	if (!v4)
		setsockopt(fd, SOL_IPV6, IPV6_RECVHOPLIMIT, &one, sizeof(one));
	if (o->n_src && bind(fd, &o->src[0].sa, sa_len(&o->src[0])) < 0) {
		int err = errno;

		close(fd);
		return -err;
	}
	return fd;
}

static int receive(int fd, uint8_t *buf, size_t size, struct answer *a)
{
	char control[128];
	struct iovec iov = { .iov_base = buf, .iov_len = size };
	struct msghdr m = { .msg_name = &a->from, .msg_namelen = sizeof(a->from), .msg_iov = &iov,
			    .msg_iovlen = 1, .msg_control = control,
			    .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(fd, &m, 0);
	size_t skip = 0;

	if (n < 0)
		return -errno;
	a->hops = -1;
	if (a->from.sa.sa_family == AF_INET) {
		skip = (buf[0] & 15) * 4;
		a->hops = buf[8];
	}
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
		if (c->cmsg_level == SOL_IPV6 && c->cmsg_type == IPV6_HOPLIMIT)
			memcpy(&a->hops, CMSG_DATA(c), sizeof(a->hops));
	if ((size_t)n < skip + sizeof(struct echo))
		return -EPROTO;
	a->icmp = buf + skip;
	a->len = n - skip;
	*sa_port(&a->from) = 0;
	return 0;
}

/* Is this message about the request: its reply (1), or an error that quotes it (2)? */
static int about(const struct answer *a, const struct echo *sent)
{
	bool v4 = a->from.sa.sa_family == AF_INET;
	struct echo e;
	size_t inner;

	memcpy(&e, a->icmp, sizeof(e));
	if (e.type == (v4 ? ICMP_ECHOREPLY : ICMP6_ECHO_REPLY))
		return e.id == sent->id && e.seq == sent->seq ? 1 : 0;
	if (v4 ? e.type != ICMP_DEST_UNREACH && e.type != ICMP_TIME_EXCEEDED : e.type > 127)
		return 0;
	inner = 8 + (v4 ? (size_t)(a->icmp[8] & 15) * 4 : sizeof(struct ip6_hdr));
	if (a->len < inner + sizeof(e))
		return 0;
	memcpy(&e, a->icmp + inner, sizeof(e));
	return e.id == sent->id && e.seq == sent->seq ? 2 : 0;
}

static unsigned int told_mtu(const struct answer *a)
{
	uint16_t mtu4;
	uint32_t mtu6;

	memcpy(&mtu4, a->icmp + 6, sizeof(mtu4));
	memcpy(&mtu6, a->icmp + 4, sizeof(mtu6));
	if (a->from.sa.sa_family == AF_INET)
		return a->icmp[0] == ICMP_DEST_UNREACH ? ntohs(mtu4) : 0;
	return a->icmp[0] == ICMP6_PACKET_TOO_BIG ? ntohl(mtu6) : 0;
}

static int ping_wait(int fd, const struct opts *o, const struct echo *sent, uint64_t start)
{
	static uint8_t buf[65536];
	uint64_t end = start + o->timeout_ms * 1000ULL, now;
	struct answer a = { 0 };
	char t[64];
	int kind;

	for (now = start; now < end && !wait_fd(fd, POLLIN, (end - now) / 1000 + 1);
	     now = now_us()) {
		if (receive(fd, buf, sizeof(buf), &a) < 0)
			continue;
		kind = about(&a, sent);
		if (kind == 1)
			printf("ok from=%s hops=%d us=%llu\n", sa_text(&a.from, t), a.hops,
			       (unsigned long long)(now_us() - start));
		else if (kind == 2)
			printf("icmp from=%s type=%u code=%u mtu=%u\n", sa_text(&a.from, t),
			       a.icmp[0], a.icmp[1], told_mtu(&a));
		if (kind)
			return kind == 1 ? 0 : 1;
	}
	printf("err errno=ETIMEDOUT us=%llu\n", (unsigned long long)(now_us() - start));
	return 1;
}

/* One echo request to each address; --size is that of the whole IP packet. */
int run_ping(const struct opts *o)
{
	static uint8_t packet[65536];
	int failed = 0;

	for (size_t d = 0; d < o->n_dst; d++) {
		bool v4 = o->dst[d].sa.sa_family == AF_INET;
		size_t head = v4 ? sizeof(struct iphdr) : sizeof(struct ip6_hdr);
		struct echo e = { .type = v4 ? ICMP_ECHO : ICMP6_ECHO_REQUEST,
				  .id = htons(getpid()), .seq = htons(d) };
		size_t len = o->size > head + sizeof(e) ? o->size - head : sizeof(e) + 56;
		uint64_t start = now_us();
		int fd = ping_socket(o, v4);

		memcpy(packet, &e, sizeof(e));
		e.checksum = htons(~inet_sum(packet, len, 0)); /* the kernel writes IPv6's own */
		memcpy(packet, &e, sizeof(e));
		if (fd < 0 || sendto(fd, packet, len, 0, &o->dst[d].sa, sa_len(&o->dst[d])) < 0) {
			printf("err errno=%s us=0\n", errno_name(fd < 0 ? -fd : errno));
			failed = 1;
		} else {
			failed |= ping_wait(fd, o, &e, start);
		}
		if (fd >= 0)
			close(fd);
	}
	return failed;
}

/* Reads len bytes; the greeting's line counts as none. 0 or -errno. */
static int read_all(int fd, char *buf, size_t len, int timeout_ms)
{
	for (size_t done = 0; done < len;) {
		int r = wait_fd(fd, POLLIN, timeout_ms);
		ssize_t n;

		if (r < 0)
			return r;
		n = read(fd, buf + done, len - done);
		if (n <= 0)
			return n ? -errno : -EPIPE;
		done += n;
	}
	return 0;
}

/* Sends --size bytes to an echo server in large writes, and compares what comes back. */
int run_bulk(const struct opts *o)
{
	enum { CHUNK = 32768 };
	static char out[CHUNK], in[CHUNK];
	int fd = open_socket(o, &o->dst[0], SOCK_STREAM, o->n_src ? &o->src[0] : NULL), r = 0;
	struct timeval limit = { .tv_sec = o->timeout_ms / 1000,
				 .tv_usec = o->timeout_ms % 1000 * 1000 };
	uint64_t start = now_us();
	size_t done = 0;

	for (size_t i = 0; i < CHUNK; i++)
		out[i] = i * 31 >> 3;
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (fd < 0 || connect(fd, &o->dst[0].sa, sa_len(&o->dst[0])) < 0)
		r = fd < 0 ? fd : -errno;
	for (in[0] = 0; !r && in[0] != '\n';)
		r = read_all(fd, in, 1, o->timeout_ms);
	for (; !r && done < o->size; done += CHUNK) {
		r = write(fd, out, CHUNK) == CHUNK ? 0 : -EIO;
		if (!r)
			r = read_all(fd, in, CHUNK, o->timeout_ms);
		if (!r && memcmp(in, out, CHUNK))
			r = -EBADMSG;
	}
	printf("%s errno=%s bytes=%zu us=%llu\n", r ? "err" : "ok", r ? errno_name(-r) : "0", done,
	       (unsigned long long)(now_us() - start));
	if (fd >= 0)
		close(fd);
	return r ? 1 : 0;
}

struct stream {
	int fd;
	uint8_t *seen; /* one for each datagram */
	size_t cap, sent, received, dup;
	uint64_t last_us, max_gap_us;
};

/* The server's answer begins with its label and ends with the datagram's own bytes. */
static void stream_read(struct stream *s)
{
	uint8_t buf[512];
	uint32_t seq;
	ssize_t n;

	while ((n = recv(s->fd, buf, sizeof(buf), MSG_DONTWAIT)) >= (ssize_t)sizeof(seq)) {
		memcpy(&seq, buf + n - sizeof(seq), sizeof(seq));
		if (seq >= s->sent)
			continue;
		s->dup += s->seen[seq];
		s->received += !s->seen[seq];
		s->seen[seq] = 1;
		if (now_us() - s->last_us > s->max_gap_us)
			s->max_gap_us = now_us() - s->last_us;
		s->last_us = now_us();
	}
}

/* Numbered datagrams at a rate until SIGTERM or for ms; every one must be answered once. */
int run_stream(const struct opts *o)
{
	struct stream s = { .fd = open_socket(o, &o->dst[0], SOCK_DGRAM, NULL),
			    .cap = (uint64_t)o->rate * o->ms / 1000 + 1 };
	uint64_t start = now_us(), now, end;
	int bytes = 4 << 20; /* what is lost is lost on the way */
	uint8_t out[200] = { 0 };
	unsigned long errors = 0;
	bool said = false;

	s.seen = calloc(s.cap, 1);
	if (!s.seen || s.fd < 0 || connect(s.fd, &o->dst[0].sa, sa_len(&o->dst[0])) < 0)
		return 2;
	setsockopt(s.fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	s.last_us = start;
	for (now = start; !stopping() && now - start < o->ms * 1000ULL; now = now_us()) {
		uint64_t due = (now - start) * o->rate / 1000000;

		for (; s.sent < due && s.sent < s.cap; s.sent++) {
			uint32_t seq = s.sent;

			memcpy(out + sizeof(out) - sizeof(seq), &seq, sizeof(seq));
			errors += send(s.fd, out, sizeof(out), 0) < 0;
		}
		wait_fd(s.fd, POLLIN, 1);
		stream_read(&s);
		if (!said && s.received) {
			puts("ready");
			said = true;
		}
	}
	for (end = now_us() + o->timeout_ms * 1000ULL; s.received < s.sent && now_us() < end;) {
		wait_fd(s.fd, POLLIN, 10);
		stream_read(&s);
	}
	printf("stream sent=%zu received=%zu dup=%zu errors=%lu max_gap_ms=%llu last_ms=%llu\n",
	       s.sent, s.received, s.dup, errors, (unsigned long long)s.max_gap_us / 1000,
	       (unsigned long long)(s.last_us - start) / 1000);
	close(s.fd);
	free(s.seen);
	return 0;
}
