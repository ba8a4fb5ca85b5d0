// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <waggle/cleanup.h>
#include <waggle/endpoint_attach.h>
#include <waggle/ipam.h>

#include "delegate.h"
#include "job.h"
#include "wire.h"

void job_done(struct job *job)
{
	conf_done(&job->conf);
	netns_done(&job->ns);
	nl_free(job->nl);
	closep(&job->lock_fd);
	free(job->text);
	free(job->dns);
	free(job->details);
}

int state_fail(const struct job *job, int r, struct wag_err *err)
{
	return wag_err_set(err, r == -EWOULDBLOCK ? CNI_E_AGAIN : CNI_E_IO, "state dir %s: %s",
			   job->conf.state_dir,
			   r == -EWOULDBLOCK ? "another ADD or DEL of this container still runs"
					     : strerror(-r));
}

int pins_fail(int r, struct wag_err *err)
{
	if (!r)
		return 0;
	err->code = r == -EAGAIN    ? CNI_E_AGAIN
		    : r == -ESTALE  ? CNI_E_CHECK
		    : r == -EADDRINUSE ? CNI_E_PORT
				       : CNI_E_KERNEL;
	return err->code;
}

int job_open(struct job *job, struct wag_err *err)
{
	int r;

	r = ipam_boot_id(job->boot_id);
	if (r < 0)
		return wag_err_set(err, CNI_E_IO, "/proc/sys/kernel/random/boot_id: %s",
				   strerror(-r));
	r = nl_new(&job->nl);
	return r < 0 ? wag_err_set(err, CNI_E_KERNEL, "rtnetlink: %s", strerror(-r)) : 0;
}

int job_find(struct job *job, bool *ret_recorded, unsigned *ret_probe, struct wag_err *err)
{
	const struct cni_env *env = &job->env;
	int r;

	r = job->lock_fd = record_lock(job->conf.state_dir,
				       record_hash(env->container_id, env->ifname), JOB_LOCK_MS);
	if (r < 0)
		return state_fail(job, r, err);
	r = record_find(job->conf.state_dir, env->container_id, env->ifname, &job->rec, ret_probe);
	if (r < 0 && r != -ENOENT)
		return state_fail(job, r, err);
	if (r == -ENOENT)
		record_init(&job->rec, env->container_id, env->ifname, *ret_probe);
	*ret_recorded = r == 0;
	return 0;
}

int record_save(const struct job *job, struct wag_err *err)
{
	int r = record_write(job->conf.state_dir, &job->rec);

	return r < 0 ? state_fail(job, r, err) : 0;
}

int job_delegate(const struct job *job, const char *type, const char *command, char **ret,
		 size_t *ret_size, struct wag_err *err)
{
	const struct delegate d = {
		.type = type,
		.command = command,
		.conf = job->text,
		.conf_size = job->size,
		.container_id = job->rec.container_id,
		.ifname = job->rec.ifname,
		.netns = job->rec.netns,
		.lock_fd = job->lock_fd,
	};

	return delegate_run(&d, ret, ret_size, err);
}

/* ---- the way back ---- */

static int leases_drop(const struct job *job, struct wag_err *err)
{
	const struct ipam_owner owner = { job->rec.container_id, job->rec.ifname };
	_cleanup_(ipam_done) struct ipam ipam = { .lock_fd = -1 };
	int r;

	r = ipam_init(&ipam, job->conf.state_dir, job->boot_id, ipam_now_ms());
	for (unsigned i = 0; r == 0 && i < job->rec.addr_count; i++)
		r = ipam_release(&ipam, job->rec.addrs[i].range, &job->rec.addrs[i].addr, &owner);
	/* Killed before the addresses came into the record: only the leases know. */
	if (r == 0 && !job->rec.addr_count)
		r = ipam_release_all(&ipam, &owner);
	return r < 0 ? state_fail(job, r, err) : 0;
}

static int addresses_drop(const struct job *job, bool recorded, struct wag_err *err)
{
	const char *type = recorded ? job->rec.ipam : job->conf.ipam_type;
	bool chained = recorded ? job->rec.chained : job->conf.chained;
	_cleanup_free_ char *answer = NULL;
	size_t size;

	/* Of an attachment nobody recorded: a plugin that is not there gave it no address. */
	if (*type && !recorded && delegate_look(type, NULL))
		return 0;
	if (*type)
		return job_delegate(job, type, "DEL", &answer, &size, err);
	return chained ? 0 : leases_drop(job, err);
}

/* Another plugin's interface stays; our filters must not stay on it. */
static int wire_release(struct job *job, struct wag_err *err)
{
	struct nl_link link;

	if (!job->rec.chained)
		return wire_remove(job->nl, &job->rec, err);
	if (job->rec.ifindex && nl_link_get(job->nl, job->rec.host_ifname, &link) == 0 &&
	    link.ifindex == job->rec.ifindex)
		nl_tc_remove(job->nl, link.ifindex);
	return 0;
}

int tear_down(struct job *job, bool recorded, struct wag_err *err)
{
	int r;

	r = wire_release(job, err);
	if (!r)
		r = pins_fail(endpoint_detach(job->conf.pin_dir, &job->rec, err), err);
	if (!r)
		r = addresses_drop(job, recorded, err);
	if (r)
		return r;
	r = record_remove(job->conf.state_dir, &job->rec);
	return r < 0 ? state_fail(job, r, err) : 0;
}
