// SPDX-License-Identifier: Apache-2.0
/* STATUS: could an ADD succeed now? And VERSION. */
#include <errno.h>
#include <string.h>

#include <waggle/abi_maps.h>
#include <waggle/addr.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include <waggle/endpoint_attach.h>
#include <waggle/ipam.h>
#include <waggle/pins.h>

#include "job.h"
#include "policy.h"
#include "result.h"

/* An agent that died while it carried flows over: flows that nobody knows are dropped since. */
static int migration_check(const struct job *job, struct wag_err *err)
{
	_cleanup_close_ int fd = -1;
	struct wag_runtime runtime;
	uint32_t zero = 0;

	fd = pins_map_open(job->conf.pin_dir, "wag_runtime", sizeof(zero), sizeof(runtime));
	if (fd < 0 || bpfsys_map_lookup(fd, &zero, &runtime) < 0 || !runtime.migrating ||
	    agent_alive(job->conf.state_dir))
		return 0;
	return wag_err_set(err, CNI_E_LIMITED,
			   "waggle-agent died in the middle of an upgrade of the dataplane: pods "
			   "may be cut off until it is started again");
}

static int set_check(const struct job *job, const struct conf_set *set, struct wag_err *err)
{
	uint64_t capacity = 0;
	char text[WAG_ADDR_TEXT];

	for (unsigned i = 0; i < set->range_count; i++) {
		struct ipam_usage usage = { 0 };
		int r = ipam_usage(job->conf.state_dir, &set->ranges[i], job->boot_id,
				   ipam_now_ms(), &usage);

		if (r < 0)
			return state_fail(job, r, err);
		/* What waits after its release is as good as free: it only takes seconds. */
		if (usage.used < usage.capacity)
			return 0;
		capacity += usage.capacity;
	}
	return wag_err_set(err, CNI_E_UNAVAILABLE,
			   "no address left in %s/%u%s: all %llu belong to pods",
			   wag_addr_format(&set->ranges[0].subnet, text), set->ranges[0].bits,
			   set->range_count > 1 ? " and the ranges after it" : "",
			   (unsigned long long)capacity);
}

static int addresses_check(struct job *job, struct wag_err *err)
{
	int r = 0;

	if (!job->conf.set_count)
		r = conf_node_ranges(&job->conf, err);
	for (unsigned i = 0; !r && i < job->conf.set_count; i++)
		r = set_check(job, &job->conf.sets[i], err);
	return r;
}

static int delegate_check(struct job *job, struct wag_err *err)
{
	_cleanup_free_ char *answer = NULL;
	size_t size;
	int r;

	r = job_delegate(job, job->conf.ipam_type, "STATUS", &answer, &size, err);
	/* One of before 1.1.0 does not know the verb. */
	return r == CNI_E_VERSION || r == CNI_E_ENV ? 0 : r;
}

int cmd_status(struct job *job, struct wag_err *err)
{
	int r;

	r = job_open(job, err);
	if (!r)
		r = pins_fail(endpoint_ready(job->conf.pin_dir, &job->meta, err), err);
	if (!r && job->conf.ipam_type[0])
		r = delegate_check(job, err);
	else if (!r && !job->conf.chained)
		r = addresses_check(job, err);
	if (!r)
		r = migration_check(job, err);
	if (!r || r == CNI_E_LIMITED)
		return r;
	err->code = CNI_E_UNAVAILABLE;
	return err->code;
}

int cmd_version(struct job *job, struct wag_err *err)
{
	int r = result_print_versions(job->conf.version);

	return r < 0 ? wag_err_set(err, CNI_E_IO, "stdout: %s", strerror(-r)) : 0;
}
