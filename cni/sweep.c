// SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <waggle/addr.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include <waggle/ipam.h>
#include <waggle/pins.h>

#include "sweep.h"

#define LOCK_MS 10000

bool sweep_is_listed(const struct cni_conf *conf, uint32_t ep_id)
{
	for (size_t i = 0; i < conf->attachment_count; i++) {
		const struct conf_attachment *a = &conf->attachments[i];

		for (unsigned probe = 0; probe < RECORD_PROBES; probe++)
			if (record_ep_id(a->container_id, a->ifname, probe) == ep_id)
				return true;
	}
	return false;
}

static bool is_owned(const struct job *job, uint32_t ep_id)
{
	return record_exists(job->conf.state_dir, ep_id) || sweep_is_listed(&job->conf, ep_id);
}

/* The endpoint an interface of ours is named after; 0: no such name. */
static uint32_t name_ep_id(const char *name)
{
	unsigned ep_id;
	int end = 0;

	if (strlen(name) != 11 || strncmp(name, "wag", 3) != 0 ||
	    name[3 + strspn(name + 3, "0123456789abcdef")] ||
	    sscanf(name, "wag%8x%n", &ep_id, &end) != 1)
		return 0;
	return ep_id;
}

/* ---- veths ---- */

static int on_link(const struct nl_link *link, void *ctx)
{
	uint32_t ep_id = name_ep_id(link->name);
	struct job *job = ctx;
	int r = 0;

	if (ep_id && strcmp(link->kind, "veth") == 0 && !is_owned(job, ep_id))
		r = nl_link_del(job->nl, link->ifindex);
	return r == -ENODEV ? 0 : r;
}

/* ---- leases ---- */

static int on_lease(const struct ipam_range *range, const struct wag_addr *addr,
		    const struct ipam_lease *lease, void *ctx)
{
	const struct ipam_owner owner = { lease->container_id, lease->ifname };
	_cleanup_(ipam_done) struct ipam ipam = { .lock_fd = -1 };
	struct job *job = ctx;
	char key[IPAM_RANGE_KEY];
	struct record rec;
	unsigned probe;
	int r;

	if (!ipam_lease_holds(lease, job->boot_id) ||
	    sweep_is_listed(&job->conf, record_hash(owner.container_id, owner.ifname)))
		return 0;
	r = record_find(job->conf.state_dir, owner.container_id, owner.ifname, &rec, &probe);
	if (r != -ENOENT)
		return r;
	r = ipam_init(&ipam, job->conf.state_dir, job->boot_id, ipam_now_ms());
	if (r < 0)
		return r;
	ipam_range_key(range, key);
	return ipam_release(&ipam, key, addr, &owner);
}

/* ---- map entries: under the lock that ADD and DEL hold while they write them ---- */

struct entries {
	struct job *job;
	int endpoint_fd;
	uint32_t *ifindexes; /* of endpoints that stay */
	size_t count;
};

/* Collects keys first: deleting under a walk starts it over. */
static int map_sweep(const struct entries *e, const char *name, size_t key_size, size_t value_size,
		     bool (*is_orphan)(const struct entries *e, const void *key, const void *value))
{
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *keys = NULL;
	size_t count = 0, room = 0;
	char key[64], value[1024];
	int r;

	fd = pins_map_open(e->job->conf.pin_dir, name, key_size, value_size);
	if (fd < 0)
		return fd == -ENOENT || fd == -EPROTO ? 0 : fd;
	for (r = bpfsys_map_next_key(fd, NULL, key); r == 0;
	     r = bpfsys_map_next_key(fd, key, key)) {
		if (bpfsys_map_lookup(fd, key, value) < 0 || !is_orphan(e, key, value))
			continue;
		if (count == room) {
			char *p = reallocarray(keys, room = room ? room * 2 : 64, key_size);

			if (!p)
				return -ENOMEM;
			keys = p;
		}
		memcpy(keys + count++ * key_size, key, key_size);
	}
	while (count--)
		bpfsys_map_delete(fd, keys + count * key_size);
	return r == -ENOENT ? 0 : r;
}

static bool endpoint_orphan(const struct entries *e, const void *key, const void *value)
{
	return !is_owned(e->job, *(const uint32_t *)key);
}

static bool is_known(const struct entries *e, uint32_t ep_id)
{
	struct wag_endpoint ep;

	return bpfsys_map_lookup(e->endpoint_fd, &ep_id, &ep) == 0 || is_owned(e->job, ep_id);
}

static bool pod_orphan(const struct entries *e, const void *key, const void *value)
{
	return !is_known(e, ((const struct wag_pod *)value)->ep_id);
}

static bool netns_orphan(const struct entries *e, const void *key, const void *value)
{
	const struct wag_netns *netns = value;

	return netns->flags & WAG_NETNS_POD && !is_known(e, netns->ep_id);
}

static bool port_orphan(const struct entries *e, const void *key, const void *value)
{
	return !is_known(e, ((const struct wag_hostport *)value)->ep_id);
}

static bool limit_orphan(const struct entries *e, const void *key, const void *value)
{
	uint32_t ifindex = ((const struct wag_limit_key *)key)->ifindex;

	for (size_t i = 0; i < e->count; i++)
		if (e->ifindexes[i] == ifindex)
			return false;
	return true;
}

static int ifindexes_read(struct entries *e)
{
	struct wag_endpoint ep;
	uint32_t id, *p;
	int r;

	for (r = bpfsys_map_next_key(e->endpoint_fd, NULL, &id); r == 0;
	     r = bpfsys_map_next_key(e->endpoint_fd, &id, &id)) {
		if (bpfsys_map_lookup(e->endpoint_fd, &id, &ep) < 0)
			continue;
		p = reallocarray(e->ifindexes, e->count + 1, sizeof(*p));
		if (!p)
			return -ENOMEM;
		e->ifindexes = p;
		e->ifindexes[e->count++] = ep.ifindex;
	}
	return r == -ENOENT ? 0 : r;
}

static int maps_sweep(struct entries *e)
{
	const char *pin_dir = e->job->conf.pin_dir;
	int r;

	r = map_sweep(e, "wag_endpoint", 4, sizeof(struct wag_endpoint), endpoint_orphan);
	if (r < 0)
		return r;
	e->endpoint_fd = pins_map_open(pin_dir, "wag_endpoint", 4, sizeof(struct wag_endpoint));
	if (e->endpoint_fd < 0)
		return 0;
	r = ifindexes_read(e);
	if (r == 0)
		r = map_sweep(e, "wag_pods", sizeof(struct wag_addr), sizeof(struct wag_pod),
			      pod_orphan);
	if (r == 0)
		r = map_sweep(e, "wag_netns", sizeof(uint64_t), sizeof(struct wag_netns),
			      netns_orphan);
	if (r == 0)
		r = map_sweep(e, "wag_hostport", sizeof(struct wag_svc_key),
			      sizeof(struct wag_hostport), port_orphan);
	if (r == 0)
		r = map_sweep(e, "wag_limit", sizeof(struct wag_limit_key),
			      sizeof(struct wag_limit), limit_orphan);
	return r;
}

/* A pin outlives its device, and is then nobody's, whoever made it. */
static int pins_sweep(struct job *job)
{
	char path[PATH_MAX];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "%s/links", job->conf.pin_dir);
	d = opendir(path);
	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while ((e = readdir(d))) {
		struct nl_link link;
		char name[64];
		unsigned ifindex;
		uint32_t ep_id;

		snprintf(name, sizeof(name), "%.11s", e->d_name);
		ep_id = e->d_name[0] && e->d_name[strnlen(name, 11)] == '_' ? name_ep_id(name) : 0;
		for (char *c = strchr(e->d_name, '_'); c; c = strchr(c + 1, '_'))
			if (sscanf(c, "_%u_%15[a-z]", &ifindex, name) == 2 &&
			    (strcmp(name, "ingress") == 0 || strcmp(name, "egress") == 0) &&
			    ((ep_id && !is_owned(job, ep_id)) ||
			     nl_link_get_by_index(job->nl, ifindex, &link) == -ENODEV))
				unlinkat(dirfd(d), e->d_name, 0);
	}
	closedir(d);
	return 0;
}

static int pinned_sweep(struct job *job)
{
	struct entries entries = { .job = job, .endpoint_fd = -1 };
	_cleanup_close_ int lock = pins_lock(job->conf.pin_dir, LOCK_MS);
	int r;

	if (lock < 0)
		return lock == -ENOENT ? 0 : lock;
	r = maps_sweep(&entries);
	closep(&entries.endpoint_fd);
	free(entries.ifindexes);
	return r < 0 ? r : pins_sweep(job);
}

/* ---- what a killed record_write() left ---- */

static int temporaries_sweep(struct job *job)
{
	char path[PATH_MAX];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "%s/endpoints", job->conf.state_dir);
	d = opendir(path);
	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while ((e = readdir(d))) {
		unsigned hash;
		int end = 0;

		if (sscanf(e->d_name, ".%u.tmp%n", &hash, &end) == 1 && end && !e->d_name[end]) {
			_cleanup_close_ int lock = record_lock(job->conf.state_dir, hash, 0);

			if (lock >= 0)
				unlinkat(dirfd(d), e->d_name, 0);
		}
	}
	closedir(d);
	return 0;
}

int sweep(struct job *job, struct wag_err *err)
{
	const struct {
		const char *what;
		int r;
	} done[] = {
		{ "interfaces", nl_link_list(job->nl, on_link, job) },
		{ "leases", ipam_visit(job->conf.state_dir, NULL, on_lease, job) },
		{ "pinned entries", pinned_sweep(job) },
		{ "endpoint records", temporaries_sweep(job) },
	};

	for (size_t i = 0; i < sizeof(done) / sizeof(done[0]); i++)
		if (done[i].r < 0)
			return wag_err_set(err, CNI_E_IO, "cannot clean up %s: %s", done[i].what,
					   strerror(-done[i].r));
	return 0;
}
