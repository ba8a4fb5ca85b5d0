// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <waggle/abi_maps.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include <waggle/pins.h>

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

/* ---- the namespace's cookie ---- */

static int own_cookie(uint64_t *ret)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(*ret);

	if (fd < 0)
		return -errno;
	return getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, ret, &len) < 0 ? -errno : 0;
}

static void learn_connect(uint32_t token)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in to = { .sin_family = AF_INET,
				  .sin_port = htons(token & 0xffff),
				  .sin_addr.s_addr = htonl(WAG_LEARN_V4 | token >> 16) };

	/* The hook sees the attempt; whether it has a route does not matter. */
	if (fd >= 0)
		(void)!connect(fd, (struct sockaddr *)&to, sizeof(to));
}

static uint64_t learn_cookie(const char *pin_dir, const struct netns *ns)
{
	_cleanup_close_ int map = -1;
	uint64_t cookie = 0;
	uint32_t token;

	map = pins_map_open(pin_dir, "wag_netns_learn", sizeof(token), sizeof(cookie));
	if (map < 0 || getrandom(&token, sizeof(token), 0) != sizeof(token))
		return 0;
	token = (token & 0xffffff) | 1;
	if (bpfsys_map_update(map, &token, &cookie, BPF_NOEXIST) < 0)
		return 0;
	if (netns_enter(ns) == 0) {
		learn_connect(token);
		if (netns_leave(ns) < 0)
			cookie = 0;
	}
	if (bpfsys_map_lookup(map, &token, &cookie) < 0)
		cookie = 0;
	bpfsys_map_delete(map, &token);
	return cookie;
}

uint64_t netns_cookie_of(const char *pin_dir, const struct netns *ns)
{
	uint64_t cookie = 0;
	int r;

	r = netns_enter(ns);
	if (r < 0)
		return 0;
	r = own_cookie(&cookie);
	if (netns_leave(ns) < 0)
		return 0;
	return r == 0 ? cookie : learn_cookie(pin_dir, ns);
}

/* ---- sysctls ---- */

static void sysctl_path(char *path, size_t size, const char *fmt, va_list ap)
{
	int n = snprintf(path, size, "/proc/sys/net/");

	vsnprintf(path + n, size - n, fmt, ap);
}

static int value_read(const char *path, char *buf, size_t size)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);

	if (n < 0)
		return -errno;
	buf[n] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return 0;
}

int sysctl_get(char *buf, size_t size, const char *fmt, ...)
{
	char path[PATH_MAX];
	va_list ap;

	va_start(ap, fmt);
	sysctl_path(path, sizeof(path), fmt, ap);
	va_end(ap);
	return value_read(path, buf, size);
}

int sysctl_set(const char *value, const char *fmt, ...)
{
	_cleanup_close_ int fd = -1;
	char path[PATH_MAX], old[32];
	va_list ap;
	int r;

	va_start(ap, fmt);
	sysctl_path(path, sizeof(path), fmt, ap);
	va_end(ap);
	r = value_read(path, old, sizeof(old));
	/* Reading first: /proc/sys is often read-only where everything is set already. */
	if (r < 0 || strcmp(old, value) == 0)
		return r;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		return -errno;
	return 0;
}

bool sysctl_has_ipv6(void)
{
	return access("/proc/sys/net/ipv6/conf/all", F_OK) == 0;
}
