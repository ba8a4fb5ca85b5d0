// SPDX-License-Identifier: Apache-2.0
/* CHECK: compares what stands with the record and, where the runtime gave it, with prevResult. */
#include <stdlib.h>
#include <string.h>

#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include <waggle/endpoint_attach.h>

#include "job.h"
#include "wire.h"

static void on_difference(void *ctx, const char *text)
{
	wire_differs(ctx, "%s", text);
}

static bool has_addr(const struct record *rec, const struct wag_addr *addr)
{
	for (unsigned i = 0; i < rec->addr_count; i++)
		if (wag_addr_equal(&rec->addrs[i].addr, addr))
			return true;
	return false;
}

static void prev_compare(const struct job *job, struct wire_diffs *diffs)
{
	const struct conf_result *prev = &job->conf.prev;
	const uint8_t *m = job->rec.mac;
	char text[WAG_ADDR_TEXT];
	uint8_t mac[6] = { 0 };

	if (!job->conf.prev_result)
		return;
	for (unsigned i = 0; i < prev->addr_count; i++)
		if (!has_addr(&job->rec, &prev->addrs[i]))
			wire_differs(diffs, "prevResult: %s is not the container's",
				     wag_addr_format(&prev->addrs[i], text));
	sscanf(prev->pod_mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3,
	       mac + 4, mac + 5);
	if (prev->pod_mac[0] && memcmp(mac, m, sizeof(mac)) != 0)
		wire_differs(diffs, "prevResult: MAC address %s is not the container's",
			     prev->pod_mac);
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
	prev_compare(job, &diffs);
	r = wire_check(&job->ns, &job->rec, &diffs, err);
	if (!r)
		r = pins_fail(endpoint_check(job->conf.pin_dir, job->nl, &job->rec, on_difference,
					     &diffs, err),
			      err);
	if (!r)
		r = check_addresses(job, err);
	return r ? r : report(job, &diffs, err);
}
