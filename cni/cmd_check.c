// SPDX-License-Identifier: Apache-2.0
/* CHECK: compares what stands with the record and, where the runtime gave it, with prevResult. */
#include <stdlib.h>
#include <string.h>

#include <waggle/cleanup.h>
#include <waggle/endpoint_attach.h>

#include "job.h"
#include "prev_check.h"
#include "wire.h"

static void on_difference(void *ctx, const char *text)
{
	wire_differs(ctx, "%s", text);
}

static int check_addresses(const struct job *job, struct wag_err *err)
{
	_cleanup_free_ char *answer = NULL;
	size_t size;

	return job->rec.ipam[0] ? job_delegate(job, job->rec.ipam, "CHECK", &answer, &size, err)
				: 0;
}

static int report(struct job *job, const struct wire_diffs *diffs, struct wag_err *err)
{
	if (!diffs->count)
		return 0;
	job->details = strdup(diffs->text);
	return wag_err_set(err, CNI_E_CHECK, "container %s, %s: %u difference%s: %s",
			   job->env.container_id, job->env.ifname, diffs->count,
			   diffs->count == 1 ? "" : "s", diffs->text);
}

int cmd_check(struct job *job, struct wag_err *err)
{
	struct wire_diffs diffs = { 0 };
	bool recorded = false;
	unsigned probe = 0;
	int r;

	r = netns_open(job->env.netns, &job->ns, err);
	if (!r)
		r = job_open(job, err);
	if (!r)
		r = job_find(job, &recorded, &probe, err);
	if (r)
		return r;
	if (!recorded || !job->rec.ready)
		return wag_err_set(err, CNI_E_CONTAINER, "container %s has no %s: ADD it first",
				   job->env.container_id, job->env.ifname);
	r = prev_check(job, &diffs, err);
	if (!r)
		r = wire_check(&job->ns, &job->rec, &job->conf.prev, &diffs, err);
	if (!r)
		r = pins_fail(endpoint_check(job->conf.pin_dir, job->nl, &job->rec, on_difference,
					     &diffs, err),
			      err);
	if (!r)
		r = check_addresses(job, err);
	return r ? r : report(job, &diffs, err);
}
