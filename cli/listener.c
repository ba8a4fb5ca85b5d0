// SPDX-License-Identifier: Apache-2.0
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <waggle/cleanup.h>
#include "listener.h"

#define TCP_LISTEN 10

/* "  0: 00000000:2810 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 12345 ..." */
static bool find_inode(const char *path, uint16_t port, unsigned long *ret)
{
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	_cleanup_free_ char *line = NULL;
	unsigned local, state;
	size_t room = 0;

	while (f && getline(&line, &room, f) > 0)
		if (sscanf(line, " %*d: %*[^:]:%x %*s %x %*s %*s %*s %*s %*s %lu", &local, &state,
			   ret) == 3 &&
		    local == port && state == TCP_LISTEN)
			return true;
	return false;
}

static bool has_socket(const char *pid, unsigned long inode)
{
	char path[300], link[64], want[64];
	struct dirent *e;
	bool found = false;
	DIR *dir;

	snprintf(want, sizeof(want), "socket:[%lu]", inode);
	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	dir = opendir(path);
	while (dir && !found && (e = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), e->d_name, link, sizeof(link) - 1);

		if (n < 0)
			continue;
		link[n] = 0;
		found = strcmp(link, want) == 0;
	}
	if (dir)
		closedir(dir);
	return found;
}

static void name_of(const char *pid, char *ret, size_t size)
{
	char path[300], name[64] = "?";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%s/comm", pid);
	f = fopen(path, "re");
	if (f && fgets(name, sizeof(name), f))
		name[strcspn(name, "\n")] = 0;
	if (f)
		fclose(f);
	snprintf(ret, size, "%s (pid %s)", name, pid);
}

bool tcp_listener(uint16_t port, char *ret, size_t size)
{
	unsigned long inode;
	struct dirent *e;
	DIR *dir;

	if (!find_inode("/proc/self/net/tcp", port, &inode) &&
	    !find_inode("/proc/self/net/tcp6", port, &inode))
		return false;
	ret[0] = 0;
	dir = opendir("/proc");
	while (dir && !ret[0] && (e = readdir(dir)))
		if (isdigit((unsigned char)e->d_name[0]) && has_socket(e->d_name, inode))
			name_of(e->d_name, ret, size);
	if (dir)
		closedir(dir);
	return true;
}
