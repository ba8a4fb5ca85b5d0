// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <waggle/cleanup.h>
#include "command.h"

#define SBIN "/usr/local/sbin:/usr/sbin:/sbin"

static bool find(const char *name, char ret[PATH_MAX])
{
	const char *env = getenv("PATH");
	char dirs[PATH_MAX], *save;

	snprintf(dirs, sizeof(dirs), "%s:%s", env ? env : "/usr/bin:/bin", SBIN);
	for (char *dir = strtok_r(dirs, ":", &save); dir; dir = strtok_r(NULL, ":", &save)) {
		if (snprintf(ret, PATH_MAX, "%s/%s", dir, name) < PATH_MAX &&
		    access(ret, X_OK) == 0)
			return true;
	}
	return false;
}

bool command_exists(const char *name)
{
	char path[PATH_MAX];

	return find(name, path);
}

/* A file in memory: neither side has to wait for the other, however much it is. */
static int memory(const char *content)
{
	_cleanup_close_ int fd = memfd_create("waggle", MFD_CLOEXEC);
	size_t n = content ? strlen(content) : 0;

	if (fd < 0)
		return -errno;
	while (n) {
		ssize_t written = write(fd, content, n);

		if (written < 0)
			return -errno;
		content += written;
		n -= (size_t)written;
	}
	return lseek(fd, 0, SEEK_SET) < 0 ? -errno : TAKE_FD(fd);
}

static int content_of(int fd, char **ret)
{
	off_t size = lseek(fd, 0, SEEK_END);
	_cleanup_free_ char *text = NULL;
	ssize_t n;

	if (size < 0)
		return -errno;
	text = malloc((size_t)size + 1);
	if (!text)
		return -ENOMEM;
	for (off_t at = 0; at < size; at += n) {
		n = pread(fd, text + at, (size_t)(size - at), at);
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
	}
	text[size] = 0;
	*ret = TAKE_PTR(text);
	return 0;
}

static int run(const char *path, const char *const argv[], int in, int out, int error)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(error, 2) < 0)
			_exit(126);
		execv(path, (char *const *)argv);
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

static int failed(const char *name, int error, struct wag_err *err)
{
	_cleanup_free_ char *text = NULL;
	char *end;

	if (content_of(error, &text) < 0 || !text[0])
		return wag_err_set(err, -EIO, "%s failed and said nothing", name);
	end = strrchr(text, '\n');
	if (end && !end[1])
		*end = 0;
	for (char *p = text; *p; p++)
		if (*p == '\n')
			*p = ' ';
	return wag_err_set(err, -EIO, "%s: %.400s", name, text);
}

int command_run(const char *const argv[], const char *input, char **ret_out, struct wag_err *err)
{
	_cleanup_close_ int in = memory(input), out = memory(NULL), error = memory(NULL);
	char path[PATH_MAX];
	int r;

	if (in < 0 || out < 0 || error < 0)
		return wag_err_set(err, -ENOMEM, "%s: no memory for its input and output", argv[0]);
	if (!find(argv[0], path))
		return wag_err_set(err, -ENOENT, "%s: there is no such program here", argv[0]);
	r = run(path, argv, in, out, error);
	if (r == -EIO)
		return failed(argv[0], error, err);
	if (r == 0 && ret_out)
		r = content_of(out, ret_out);
	return r < 0 ? wag_err_set(err, r, "%s: %s", argv[0], strerror(-r)) : 0;
}
