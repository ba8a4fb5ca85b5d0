/* SPDX-License-Identifier: Apache-2.0 */
/* The tests' client and server: static, prints key=value lines for scripts to read. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define LABEL_MAX 64
#define ADDRS_MAX 128

union sa {
	struct sockaddr sa;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* What the command line said; every mode reads the part it needs. */
struct opts {
	const char *label;
	const char *expect; /* prefix a label must have */
	union sa dst[ADDRS_MAX];
	size_t n_dst;
	union sa src[ADDRS_MAX];
	size_t n_src;
	unsigned int ports[16];
	size_t n_ports;
	unsigned int count, conns, rate, size, ms, period_ms, timeout_ms;
	unsigned int ttl; /* 0: the system's */
	bool connected, recverr, reuse, hold_open, linger0, reverse, verbose, df, answer;
};

int run_echo(const struct opts *o);
int run_connect(const struct opts *o);
int run_udp(const struct opts *o);
int run_pmtu(const struct opts *o);
int run_hold(const struct opts *o);
int run_flood(const struct opts *o);
int run_sctp_server(const struct opts *o);
int run_sctp(const struct opts *o);
int run_frag(const struct opts *o);
int run_synflood(const struct opts *o);
int run_ping(const struct opts *o);
int run_bulk(const struct opts *o);
int run_stream(const struct opts *o);

uint64_t now_us(void);
socklen_t sa_len(const union sa *a);
in_port_t *sa_port(union sa *a);
/* "1.2.3.4:80" or "[::1]:80" */
const char *sa_text(const union sa *a, char buf[static 64]);
/* accepts ADDR, ADDR:PORT, [ADDR]:PORT; false when it is none of them */
bool sa_parse(const char *text, union sa *ret);
/* A name such as ECONNREFUSED. */
const char *errno_name(int err);
/* true once SIGTERM or SIGINT came */
bool stopping(void);
/* waits until fd has the poll events; 0, or -ETIMEDOUT */
int wait_fd(int fd, short events, int timeout_ms);
/* a socket, bound to src when src is given */
int open_socket(const struct opts *o, const union sa *dst, int type, const union sa *src);
/* raises the limit of open files */
void allow_files(void);
uint16_t inet_sum(const void *data, size_t len, uint32_t start);
