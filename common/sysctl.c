// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>
#include <waggle/cleanup.h>
#include <waggle/sysctl.h>

static bool has(const char *path, char value)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[2];

	/* "1\n"; not the first of several digits. */
	return fd >= 0 && read(fd, text, 2) == 2 && text[0] == value && text[1] == '\n';
}

int sysctl_ensure(const char *path, char value)
{
	_cleanup_close_ int fd = -1;
	char host[256];

	if (has(path, value))
		return 0;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 && errno == EROFS) {
		if (snprintf(host, sizeof(host), "/host%s", path) >= (int)sizeof(host))
			return -ENAMETOOLONG;
		fd = open(host, O_WRONLY | O_CLOEXEC);
		if (fd < 0)
			return -EROFS;
	}
	if (fd < 0)
		return -errno;
	return write(fd, &value, 1) == 1 ? 0 : -errno;
}
