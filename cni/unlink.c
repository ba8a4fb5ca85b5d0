// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <waggle/cleanup.h>

#include "unlink.h"

#define CHILD_FD 3 /* to the parent; all others are closed */

/* Hears of every change of a link in this namespace. */
static int watch_open(void)
{
	const struct sockaddr_nl links = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK };
	_cleanup_close_ int fd =
		socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);

	if (fd < 0 || bind(fd, (const struct sockaddr *)&links, sizeof(links)) < 0)
		return -errno;
	return TAKE_FD(fd);
}

/* It lives longer than we: neither our locks nor the runtime's pipes may stay open in it. */
__attribute__((noreturn)) static void child(uint32_t ifindex, int to)
{
	struct nl *nl;
	ssize_t n;
	int r;

	if (dup2(to, CHILD_FD) < 0 || close_range(CHILD_FD + 1, ~0U, 0) < 0 ||
	    close_range(0, CHILD_FD - 1, 0) < 0)
		_exit(1);
	r = nl_new(&nl);
	if (r == 0)
		r = nl_link_del(nl, ifindex);
	n = write(CHILD_FD, &r, sizeof(r));
	_exit(n != sizeof(r));
}

static int child_start(uint32_t ifindex)
{
	_cleanup_close_ int from = -1, to = -1;
	int fds[2];
	pid_t pid;

	if (pipe(fds) < 0)
		return -errno;
	from = fds[0];
	to = fds[1];
	pid = fork();
	if (pid == 0)
		child(ifindex, to);
	return pid < 0 ? -errno : TAKE_FD(from);
}

/* 0: the child has done it; -EAGAIN: a link has changed; -ECHILD: the child was killed. */
static int change_wait(int watch, int from)
{
	struct pollfd fds[] = { { .fd = watch, .events = POLLIN },
				{ .fd = from, .events = POLLIN } };
	char ignored[256];
	int r;

	if (poll(fds, 2, -1) < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	if (fds[1].revents)
		return read(from, &r, sizeof(r)) == sizeof(r) ? r : -ECHILD;
	/* What they say is asked for anyway; also after an overflow. */
	while (recv(watch, ignored, sizeof(ignored), MSG_TRUNC) > 0 || errno == ENOBUFS)
		;
	return -EAGAIN;
}

int unlink_veth(struct nl *nl, uint32_t ifindex)
{
	_cleanup_close_ int watch = watch_open(), from = -1;
	struct nl_link link;
	int r = -ECHILD;

	from = watch < 0 ? -1 : child_start(ifindex);
	while (from >= 0) {
		r = change_wait(watch, from);
		if (r != -EAGAIN)
			break;
		/* The answer waits while somebody is at work on links. */
		r = nl_link_get_by_index(nl, ifindex, &link);
		if (r < 0)
			return r == -ENODEV ? 0 : r;
	}
	return r == -ECHILD ? nl_link_del(nl, ifindex) : r;
}
