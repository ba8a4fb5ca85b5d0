// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <waggle/cleanup.h>

#include "conf.h"
#include "netns.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

int netns_open(const char *path, struct netns *ret, struct wag_err *err)
{
	_cleanup_close_ int host = -1, pod = -1;
	struct stat a, b;

	pod = open(path, O_RDONLY | O_CLOEXEC);
	if (pod < 0)
		return wag_err_set(err, CNI_E_CONTAINER, "CNI_NETNS %s: %s", path, strerror(errno));
	if (ioctl(pod, NS_GET_NSTYPE) != CLONE_NEWNET)
		return wag_err_set(err, CNI_E_ENV, "CNI_NETNS %s: not a network namespace", path);
	host = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (host < 0 || fstat(host, &a) < 0 || fstat(pod, &b) < 0)
		return wag_err_set(err, CNI_E_IO, "/proc/self/ns/net: %s", strerror(errno));
	if (a.st_ino == b.st_ino && a.st_dev == b.st_dev)
		return wag_err_set(err, CNI_E_ENV,
				   "CNI_NETNS %s: is the node's own namespace; a pod needs its own",
				   path);
	ret->host_fd = TAKE_FD(host);
	ret->pod_fd = TAKE_FD(pod);
	return 0;
}

void netns_done(struct netns *ns)
{
	closep(&ns->host_fd);
	closep(&ns->pod_fd);
}

int netns_enter(const struct netns *ns)
{
	return setns(ns->pod_fd, CLONE_NEWNET) < 0 ? -errno : 0;
}

int netns_leave(const struct netns *ns)
{
	return setns(ns->host_fd, CLONE_NEWNET) < 0 ? -errno : 0;
}

int netns_cookie(uint64_t *ret)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(*ret);

	if (fd < 0)
		return -errno;
	return getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, ret, &len) < 0 ? -errno : 0;
}

int sysctl_set(const char *value, const char *fmt, ...)
{
	_cleanup_close_ int fd = -1;
	char path[PATH_MAX], old[32];
	va_list ap;
	ssize_t n;

	n = snprintf(path, sizeof(path), "/proc/sys/net/");
	va_start(ap, fmt);
	vsnprintf(path + n, sizeof(path) - n, fmt, ap);
	va_end(ap);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, old, sizeof(old) - 1);
	old[n > 0 ? n : 0] = '\0';
	old[strcspn(old, "\n")] = '\0';
	/* Reading first: /proc/sys is often read-only where everything is set already. */
	if (strcmp(old, value) == 0)
		return 0;
	close(fd);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = write(fd, value, strlen(value));
	return n < 0 ? -errno : 0;
}

bool sysctl_has_ipv6(void)
{
	return access("/proc/sys/net/ipv6/conf/all", F_OK) == 0;
}
