// SPDX-License-Identifier: Apache-2.0
/* Packets made by hand: SCTP where the kernel has no SCTP, fragments out of order, SYN floods. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "selftests/lib/wagtest.h"

struct sctp {
	uint16_t sport, dport;
	uint32_t vtag;
	uint32_t crc; /* little endian on the wire */
	uint8_t chunk_type, chunk_flags;
	uint16_t chunk_len;
	char text[32];
};

static uint32_t crc32c(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint32_t crc = ~0U;

	while (len--) {
		crc ^= *p++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78U : 0);
	}
	return ~crc;
}

static bool sctp_valid(struct sctp *s, size_t len)
{
	uint32_t crc = s->crc;

	s->crc = 0;
	return crc32c(s, len) == crc;
}

static void sctp_fill(struct sctp *s, uint16_t sport, uint16_t dport, uint8_t type,
		      const char *text)
{
	*s = (struct sctp){ .sport = sport, .dport = dport, .chunk_type = type, .vtag = htonl(7),
			    .chunk_len = htons(sizeof(s->text) + 4) };
	snprintf(s->text, sizeof(s->text), "%s", text);
	s->crc = crc32c(s, sizeof(*s));
}

/* One packet from a raw SCTP socket, without its IP header; its length, or -errno. */
static ssize_t sctp_receive(int fd, struct sctp *ret, union sa *from)
{
	uint8_t buf[2048];
	socklen_t len = sizeof(*from);
	ssize_t n = recvfrom(fd, buf, sizeof(buf), 0, &from->sa, &len);
	size_t skip = n > 0 && from->sa.sa_family == AF_INET ? (buf[0] & 15) * 4 : 0;

	if (n < 0)
		return -errno;
	if (n < (ssize_t)(skip + sizeof(*ret)))
		return -EPROTO;
	memcpy(ret, buf + skip, sizeof(*ret));
	return n - skip;
}

static bool serves(const struct opts *o, unsigned int port)
{
	for (size_t i = 0; i < o->n_ports; i++)
		if (o->ports[i] == port)
			return true;
	return false;
}

static void sctp_answer(int fd, const struct opts *o)
{
	struct sctp in, out;
	union sa from;
	ssize_t n = sctp_receive(fd, &in, &from);

	if (n != sizeof(in) || !serves(o, ntohs(in.dport)) || in.chunk_type != 1)
		return;
	if (!sctp_valid(&in, n)) {
		puts("bad crc");
		return;
	}
	sctp_fill(&out, in.dport, in.sport, 2, o->label);
	*sa_port(&from) = 0;
	if (sendto(fd, &out, sizeof(out), 0, &from.sa, sa_len(&from)) < 0)
		printf("err errno=%s\n", errno_name(errno));
}

int run_sctp_server(const struct opts *o)
{
	struct pollfd p[2] = {
		{ .fd = socket(AF_INET, SOCK_RAW, IPPROTO_SCTP), .events = POLLIN },
		{ .fd = socket(AF_INET6, SOCK_RAW, IPPROTO_SCTP), .events = POLLIN },
	};

	puts("ready");
	while (!stopping() && poll(p, 2, -1) >= 0)
		for (int i = 0; i < 2; i++)
			if (p[i].revents & POLLIN)
				sctp_answer(p[i].fd, o);
	return 0;
}

int run_sctp(const struct opts *o)
{
	union sa dst = o->dst[0], from, src = o->src[0];
	int fd = socket(dst.sa.sa_family, SOCK_RAW, IPPROTO_SCTP);
	uint64_t end = now_us() + o->timeout_ms * 1000ULL;
	struct sctp out, in;
	char t[64];

	sctp_fill(&out, *sa_port(&src), *sa_port(&dst), 1, "init");
	*sa_port(&dst) = 0;
	if (fd < 0 || sendto(fd, &out, sizeof(out), 0, &dst.sa, sa_len(&dst)) < 0) {
		printf("err errno=%s us=0\n", errno_name(errno));
		return 1;
	}
	while (now_us() < end && !wait_fd(fd, POLLIN, (end - now_us()) / 1000 + 1)) {
		ssize_t n = sctp_receive(fd, &in, &from);
		bool valid;

		if (n != sizeof(in) || in.dport != out.sport || in.chunk_type != 2)
			continue;
		valid = sctp_valid(&in, n);
		*sa_port(&from) = in.sport;
		printf("%s label=%.31s from=%s crc=%s\n", valid ? "ok" : "err errno=EBADMSG",
		       in.text, sa_text(&from, t), valid ? "good" : "bad");
		return valid ? 0 : 1;
	}
	printf("err errno=ETIMEDOUT us=0\n");
	return 1;
}

/* Sum over the pseudo header of either family. */
static uint32_t pseudo_sum(const union sa *s, const union sa *d, uint8_t proto, size_t len)
{
	bool v4 = s->sa.sa_family == AF_INET;
	size_t n = v4 ? 4 : 16;
	const void *sp = v4 ? (const void *)&s->v4.sin_addr : &s->v6.sin6_addr;
	const void *dp = v4 ? (const void *)&d->v4.sin_addr : &d->v6.sin6_addr;

	return inet_sum(dp, n, inet_sum(sp, n, proto + len));
}

/* An IP header for a packet, or for one fragment of it; returns its length. */
static size_t put_ip(uint8_t *p, const union sa *s, const union sa *d, uint8_t proto, size_t len,
		     int offset, bool more, uint16_t id)
{
	struct iphdr *ip = (void *)p;
	struct ip6_hdr *ip6 = (void *)p;
	struct ip6_frag *frag = (void *)(ip6 + 1);

	if (s->sa.sa_family == AF_INET) {
		*ip = (struct iphdr){ .version = 4, .ihl = 5, .ttl = 64, .protocol = proto,
				      .id = htons(id), .tot_len = htons(len + sizeof(*ip)),
				      .saddr = s->v4.sin_addr.s_addr,
				      .daddr = d->v4.sin_addr.s_addr };
		if (offset >= 0)
			ip->frag_off = htons(offset / 8 | (more ? 0x2000 : 0));
		ip->check = htons(~inet_sum(ip, sizeof(*ip), 0));
		return sizeof(*ip);
	}
	*ip6 = (struct ip6_hdr){ .ip6_hlim = 64, .ip6_nxt = proto, .ip6_src = s->v6.sin6_addr,
				 .ip6_dst = d->v6.sin6_addr };
	ip6->ip6_vfc = 0x60;
	ip6->ip6_plen = htons(len);
	if (offset < 0)
		return sizeof(*ip6);
	ip6->ip6_nxt = 44;
	ip6->ip6_plen = htons(len + sizeof(*frag));
	*frag = (struct ip6_frag){ .ip6f_nxt = proto, .ip6f_ident = htonl(id),
				   .ip6f_offlg = htons(offset | (more ? 1 : 0)) };
	return sizeof(*ip6) + sizeof(*frag);
}

static int raw_send(int fd, const void *p, size_t len, union sa dst)
{
	*sa_port(&dst) = 0;
	return sendto(fd, p, len, 0, &dst.sa, sa_len(&dst)) < 0 ? -errno : 0;
}

/* The echo server's answer to the datagram, at its own socket. */
static int frag_answer(int fd, const struct opts *o)
{
	char in[4096], label[LABEL_MAX] = "?", seen[64] = "?";
	int r = wait_fd(fd, POLLIN, o->timeout_ms), len = 0;
	ssize_t n = r ? -1 : recv(fd, in, sizeof(in) - 1, 0);

	if (n < 0) {
		printf("err errno=%s\n", errno_name(r ? -r : errno));
		return 1;
	}
	in[n] = 0;
	sscanf(in, "%63s %63s %d", label, seen, &len);
	printf("ok label=%s seen=%s len=%d\n", label, seen, len);
	return 0;
}

/* A UDP datagram in two fragments, in order or (--reverse) the last one first. */
int run_frag(const struct opts *o)
{
	union sa src = o->src[0], dst = o->dst[0];
	int fd = socket(dst.sa.sa_family, SOCK_RAW, IPPROTO_RAW), r = 0;
	int answers = o->answer ? open_socket(o, &dst, SOCK_DGRAM, &src) : -1;
	size_t len = sizeof(struct udphdr) + o->size, half = len / 2 & ~7UL;
	uint8_t l4[4096] = { 0 }, pkt[4096];
	struct udphdr *udp = (void *)l4;

	if (fd < 0 || len > 2800 || (o->answer && answers < 0))
		return 2;
	*udp = (struct udphdr){ .source = *sa_port(&src), .dest = *sa_port(&dst),
				.len = htons(len) };
	udp->check = htons(~inet_sum(l4, len, pseudo_sum(&src, &dst, IPPROTO_UDP, len)));
	for (int i = 0; i < 2 && !r; i++) {
		bool last = o->reverse ? !i : i;
		size_t part = last ? len - half : half;
		size_t head = put_ip(pkt, &src, &dst, IPPROTO_UDP, part, last ? half : 0, !last,
				     getpid());

		memcpy(pkt + head, l4 + (last ? half : 0), part);
		r = raw_send(fd, pkt, head + part, dst);
	}
	if (!r && o->answer)
		return frag_answer(answers, o);
	printf("%s errno=%s\n", r ? "err" : "ok", errno_name(-r));
	return r ? 1 : 0;
}

/* SYNs that never finish their handshake, each from another port; rate a second for ms. */
int run_synflood(const struct opts *o)
{
	union sa src = o->src[0];
	int fd = socket(src.sa.sa_family, SOCK_RAW, IPPROTO_RAW);
	uint64_t start = now_us(), now;
	unsigned long sent = 0, failed = 0;

	puts("ready");
	for (now = start; fd >= 0 && !stopping() && now - start < o->ms * 1000ULL; now = now_us()) {
		uint64_t due = (now - start) * o->rate / 1000000;

		for (int burst = 0; sent < due && burst < 512; burst++, sent++) {
			union sa dst = o->dst[sent % o->n_dst];
			struct tcphdr tcp = { .source = htons(1024 + sent % 64000),
					      .dest = *sa_port(&dst), .seq = htonl(sent),
					      .doff = 5, .syn = 1, .window = htons(1024) };
			uint8_t pkt[128];
			size_t head = put_ip(pkt, &src, &dst, IPPROTO_TCP, sizeof(tcp), -1, false,
					     sent);

			tcp.check = htons(~inet_sum(&tcp, sizeof(tcp),
						    pseudo_sum(&src, &dst, IPPROTO_TCP,
							       sizeof(tcp))));
			memcpy(pkt + head, &tcp, sizeof(tcp));
			failed += raw_send(fd, pkt, head + sizeof(tcp), dst) < 0;
		}
		poll(NULL, 0, 2);
	}
	printf("synflood sent=%lu failed=%lu\n", sent, failed);
	return 0;
}
