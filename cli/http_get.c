// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "http_get.h"

#define MAX_ANSWER (16U << 20)
#define TIMEOUT_S 2

static int split_addr(const char *addr, char *host, size_t size, const char **ret_port)
{
	const char *colon = strrchr(addr, ':');
	size_t len;
	__u16 port;

	if (!colon || wag_port_parse(colon + 1, &port) < 0)
		return -EINVAL;
	len = colon - addr;
	if (addr[0] == '[' && len >= 2 && addr[len - 1] == ']') {
		addr++;
		len -= 2;
	}
	if (len == 0 || len >= size)
		return -EINVAL;
	memcpy(host, addr, len);
	host[len] = '\0';
	*ret_port = colon + 1;
	return 0;
}

static int connect_unix(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	const struct timeval timeout = { .tv_sec = TIMEOUT_S };
	_cleanup_close_ int fd = -1;

	if (strlen(path) >= sizeof(un.sun_path))
		return -EINVAL;
	strcpy(un.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	if (connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0)
		return errno == ENOENT ? -ECONNREFUSED : -errno;
	return TAKE_FD(fd);
}

static int connect_tcp(const char *addr)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
	const struct timeval timeout = { .tv_sec = TIMEOUT_S };
	struct addrinfo *list, *ai;
	char host[256];
	const char *port;
	int r;

	r = split_addr(addr, host, sizeof(host), &port);
	if (r < 0)
		return r;
	r = -EINVAL;
	if (getaddrinfo(host, port, &hints, &list) != 0)
		return -EINVAL;
	for (ai = list; ai; ai = ai->ai_next) {
		_cleanup_close_ int fd =
			socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC, ai->ai_protocol);

		if (fd < 0) {
			r = -errno;
			continue;
		}
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
		if (connect(fd, ai->ai_addr, ai->ai_addrlen) == 0) {
			r = TAKE_FD(fd);
			break;
		}
		r = errno == EINPROGRESS ? -ETIMEDOUT : -errno;
	}
	freeaddrinfo(list);
	return r;
}

/* Everything until the server closes, NUL-terminated; caller frees. */
static int read_all(int fd, char **ret)
{
	_cleanup_free_ char *buf = NULL;
	size_t len = 0, size = 0;

	for (;;) {
		ssize_t n;

		if (size - len < 2) {
			char *bigger = realloc(buf, size ? size * 2 : 8192);

			if (!bigger)
				return -ENOMEM;
			buf = bigger;
			size = size ? size * 2 : 8192;
			if (size > MAX_ANSWER)
				return -EPROTO;
		}
		n = recv(fd, buf + len, size - len - 1, 0);
		if (n < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		if (n == 0)
			break;
		len += n;
	}
	buf[len] = '\0';
	*ret = TAKE_PTR(buf);
	return 0;
}

int http_get(const char *addr, const char *path, char **ret_body)
{
	_cleanup_free_ char *answer = NULL;
	_cleanup_close_ int fd = -1;
	bool local = strncmp(addr, "unix:", 5) == 0;
	char request[1024];
	int r, n, minor, status;
	const char *body;

	fd = local ? connect_unix(addr + 5) : connect_tcp(addr);
	if (fd < 0)
		return fd;
	/* HTTP/1.0: the body ends where the connection does, and is never chunked. */
	n = snprintf(request, sizeof(request), "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", path,
		     local ? "localhost" : addr);
	if (n < 0 || (size_t)n >= sizeof(request))
		return -EINVAL;
	if (send(fd, request, n, MSG_NOSIGNAL) != n)
		return -EIO;
	r = read_all(fd, &answer);
	if (r < 0)
		return r;
	if (sscanf(answer, "HTTP/1.%d %3d", &minor, &status) != 2 || status < 100)
		return -EPROTO;
	body = strstr(answer, "\r\n\r\n");
	if (!body)
		return -EPROTO;
	*ret_body = strdup(body + 4);
	return *ret_body ? status : -ENOMEM;
}
