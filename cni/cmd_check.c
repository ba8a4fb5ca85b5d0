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

static const struct conf_iface *prev_iface(const struct conf_result *prev, const char *name,
					   bool pod)
{
	for (unsigned i = 0; i < prev->iface_count; i++)
		if (strcmp(prev->ifaces[i].name, name) == 0 && !prev->ifaces[i].sandbox[0] == !pod)
			return &prev->ifaces[i];
	return NULL;
}

static void mac_compare(const struct conf_iface *iface, const uint8_t *mac,
			struct wire_diffs *diffs)
{
	uint8_t m[6] = { 0 };

	if (!iface->mac[0])
		return;
	sscanf(iface->mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", m, m + 1, m + 2, m + 3, m + 4, m + 5);
	if (memcmp(m, mac, sizeof(m)) != 0)
		wire_differs(diffs, "prevResult: MAC address %s is not that of %s", iface->mac,
			     iface->name);
}

/* Both ends are in it: an own result has them, another plugin's (chained) may leave one out. */
static void ifaces_compare(const struct job *job, struct wire_diffs *diffs)
{
	const struct conf_result *prev = &job->conf.prev;
	const struct record *rec = &job->rec;
	const struct conf_iface *pod = prev_iface(prev, rec->ifname, true);
	const struct conf_iface *host = prev_iface(prev, rec->host_ifname, false);
	bool whole = prev->iface_count && !rec->chained;

	if (whole && !pod)
		wire_differs(diffs, "prevResult: has no %s of the container", rec->ifname);
	if (whole && !host)
		wire_differs(diffs, "prevResult: has no %s of the node", rec->host_ifname);
	if (pod && strcmp(pod->sandbox, job->env.netns) != 0)
		wire_differs(diffs, "prevResult: %s is in %s, not in %s", pod->name, pod->sandbox,
			     job->env.netns);
	if (pod)
		mac_compare(pod, rec->mac, diffs);
	if (host)
		mac_compare(host, rec->host_mac, diffs);
}

static void prev_compare(const struct job *job, struct wire_diffs *diffs)
{
	const struct conf_result *prev = &job->conf.prev;
	char text[WAG_ADDR_TEXT];

	for (unsigned i = 0; i < prev->addr_count; i++)
		if (!has_addr(&job->rec, &prev->addrs[i]))
			wire_differs(diffs, "prevResult: %s is not the container's",
				     wag_addr_format(&prev->addrs[i], text));
	ifaces_compare(job, diffs);
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
