// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <waggle/cleanup.h>

#include "conf.h"
#include "delegate.h"

#define ANSWER_MAX (1024 * 1024)

static int plugin_find(const char *type, char *path, size_t size, struct wag_err *err)
{
	const char *dirs = getenv("CNI_PATH");

	if (!dirs || !*dirs)
		return wag_err_set(err, CNI_E_ENV, "CNI_PATH is not set: ipam.type %s is not found",
				   type);
	for (const char *d = dirs; *d;) {
		size_t len = strcspn(d, ":");
		int n = snprintf(path, size, "%.*s/%s", (int)len, d, type);

		if (len && n > 0 && (size_t)n < size && access(path, X_OK) == 0)
			return 0;
		d += len;
		d += *d == ':';
	}
	return wag_err_set(err, CNI_E_CONFIG,
			   "ipam.type: no plugin \"%s\" in CNI_PATH (%.256s): install it, or leave "
			   "the type out for waggle's own addresses",
			   type, dirs);
}

int delegate_look(const char *type, struct wag_err *err)
{
	char path[PATH_MAX];

	return plugin_find(type, path, sizeof(path), err);
}

/* A file in memory for its stdin: no pipe can fill up on either side. */
static int stdin_make(const char *text, size_t size)
{
	_cleanup_close_ int fd = memfd_create("conf", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (write(fd, text, size) != (ssize_t)size || lseek(fd, 0, SEEK_SET) < 0)
		return -EIO;
	return TAKE_FD(fd);
}

__attribute__((noreturn)) static void child(const char *path, const struct delegate *d, int in,
					    int out)
{
	if ((d->lock_fd >= 0 && fcntl(d->lock_fd, F_SETFD, 0) < 0) ||
	    setenv("CNI_COMMAND", d->command, 1) < 0 ||
	    setenv("CNI_CONTAINERID", d->container_id, 1) < 0 ||
	    setenv("CNI_IFNAME", d->ifname, 1) < 0 || setenv("CNI_NETNS", d->netns, 1) < 0 ||
	    dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0)
		_exit(126);
	execl(path, path, (char *)NULL);
	_exit(127);
}

static int answer_read(int fd, char **ret, size_t *ret_size)
{
	_cleanup_free_ char *buf = malloc(ANSWER_MAX);
	size_t size = 0;

	if (!buf)
		return -ENOMEM;
	while (size < ANSWER_MAX) {
		ssize_t n = read(fd, buf + size, ANSWER_MAX - size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0) {
			*ret = TAKE_PTR(buf);
			*ret_size = size;
			return 0;
		}
		size += n;
	}
	return -EMSGSIZE;
}

/* What it says went wrong, under its own code. */
static int plugin_error(const struct delegate *d, int status, const char *text, size_t size,
			struct wag_err *err)
{
	_cleanup_(json_decrefp) json_t *root = json_loadb(text, size, 0, NULL);
	json_int_t code = json_integer_value(json_object_get(root, "code"));
	const char *msg = json_string_value(json_object_get(root, "msg"));

	if (WIFSIGNALED(status))
		return wag_err_set(err, CNI_E_IO, "ipam plugin %s: killed by signal %d", d->type,
				   WTERMSIG(status));
	if (code < 1 || code > INT_MAX || !msg)
		return wag_err_set(err, CNI_E_IO, "ipam plugin %s: %s failed with status %d",
				   d->type, d->command, WEXITSTATUS(status));
	return wag_err_set(err, (int)code, "ipam plugin %s: %s", d->type, msg);
}

int delegate_run(const struct delegate *d, char **ret_answer, size_t *ret_size, struct wag_err *err)
{
	_cleanup_close_ int in = -1, from = -1;
	_cleanup_free_ char *answer = NULL;
	int pipe_fds[2], status, r;
	char path[PATH_MAX];
	size_t size = 0;
	pid_t pid;

	r = plugin_find(d->type, path, sizeof(path), err);
	if (r)
		return r;
	in = stdin_make(d->conf, d->conf_size);
	if (in < 0 || pipe2(pipe_fds, O_CLOEXEC) < 0)
		return wag_err_set(err, CNI_E_IO, "ipam plugin %s: %s", d->type,
				   strerror(in < 0 ? -in : errno));
	from = pipe_fds[0];
	pid = fork();
	if (pid == 0)
		child(path, d, in, pipe_fds[1]);
	close(pipe_fds[1]);
	if (pid < 0)
		return wag_err_set(err, CNI_E_IO, "ipam plugin %s: fork: %s", d->type,
				   strerror(errno));
	r = answer_read(from, &answer, &size);
	closep(&from);
	from = -1; /* a plugin that still writes ends by it */
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return wag_err_set(err, CNI_E_IO, "ipam plugin %s: %s", d->type,
					   strerror(errno));
	if (r < 0)
		return wag_err_set(err, CNI_E_IO, "ipam plugin %s: its answer: %s", d->type,
				   strerror(-r));
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return plugin_error(d, status, answer, size, err);
	*ret_answer = TAKE_PTR(answer);
	*ret_size = size;
	return 0;
}
