// SPDX-License-Identifier: Apache-2.0
/* waggle-cni: wires a pod from what is pinned and on disk; no agent needs to run (docs/cni.md). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <waggle/cleanup.h>

#include "job.h"
#include "result.h"

static int stdin_read(char **ret, size_t *ret_size, struct wag_err *err)
{
	size_t room = 16384, size = 0;
	_cleanup_free_ char *buf = malloc(room);

	while (buf) {
		ssize_t n = read(STDIN_FILENO, buf + size, room - size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return wag_err_set(err, CNI_E_IO, "stdin: %s", strerror(errno));
		if (n == 0 || size + n > CONF_STDIN_MAX) {
			*ret_size = size + n;
			*ret = TAKE_PTR(buf);
			return 0;
		}
		size += n;
		if (size == room) {
			char *p = realloc(buf, room *= 2);

			if (!p)
				break;
			buf = p;
		}
	}
	return wag_err_set(err, CNI_E_IO, "out of memory");
}

int cmd_del(struct job *job, struct wag_err *err)
{
	bool recorded = false;
	unsigned probe = 0;
	int r;

	r = job_open(job, err);
	if (!r)
		r = job_find(job, &recorded, &probe, err);
	/* Without a record, there may still be what a lost state dir knew. */
	return r ? r : tear_down(job, recorded, err);
}

static int run(struct job *job, struct wag_err *err)
{
	static const struct {
		enum conf_use use;
		int (*fn)(struct job *job, struct wag_err *err);
	} commands[] = {
		[CNI_VERSION] = { CONF_VERSION, cmd_version },
		[CNI_ADD] = { CONF_ADD, cmd_add },
		[CNI_DEL] = { CONF_DEL, cmd_del },
		[CNI_CHECK] = { CONF_CHECK, cmd_check },
		[CNI_GC] = { CONF_GC, cmd_gc },
		[CNI_STATUS] = { CONF_STATUS, cmd_status },
	};
	int r;

	r = env_read(&job->env, err);
	if (!r)
		r = stdin_read(&job->text, &job->size, err);
	if (!r)
		r = conf_parse(job->text, job->size, commands[job->env.command].use, &job->conf,
			       err);
	if (!r)
		r = commands[job->env.command].fn(job, err);
	return r;
}

int main(void)
{
	_cleanup_(job_done) struct job job = { .ns = { -1, -1 }, .lock_fd = -1 };
	struct wag_err err = { 0 };

	if (run(&job, &err) == 0)
		return 0;
	if (!err.code)
		err.code = CNI_E_IO;
	result_print_error(job.conf.version, &err, job.details);
	return 1;
}
