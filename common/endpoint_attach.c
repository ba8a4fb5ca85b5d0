// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <linux/bpf.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <waggle/abi_maps.h>
#include <waggle/addr.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include <waggle/endpoint_attach.h>
#include <waggle/pins.h>

#define LOCK_MS 10000

static const struct hook {
	const char *prog;
	int egress; /* of the host side: what the pod sends comes in */
} hooks[] = { { "wag_from_pod", 0 }, { "wag_to_pod", 1 } };

#define HOOKS (sizeof(hooks) / sizeof(hooks[0]))

static int again(const char *pin_dir, struct wag_err *err)
{
	return wag_err_set(err, -EAGAIN,
			   "waggle-agent has not run since boot: start it; pin dir %s", pin_dir);
}

static int map_fail(const char *pin_dir, const char *name, int r, struct wag_err *err)
{
	if (r == -ENOENT)
		return again(pin_dir, err);
	if (r == -EPROTO)
		return wag_err_set(
			err, -EAGAIN,
			"map %s in pin dir %s has another layout: install the waggle-cni "
			"of the version of the running waggle-agent",
			name, pin_dir);
	return wag_err_set(err, r, "map %s in pin dir %s: %s", name, pin_dir,
			   strerror(-r));
}

int endpoint_meta(const char *pin_dir, struct wag_meta *ret, struct wag_err *err)
{
	_cleanup_close_ int fd = -1;
	uint32_t zero = 0;
	int r;

	fd = pins_map_open(pin_dir, "wag_meta", sizeof(zero), sizeof(*ret));
	if (fd < 0)
		return map_fail(pin_dir, "wag_meta", fd, err);
	r = bpfsys_map_lookup(fd, &zero, ret);
	if (r < 0)
		return map_fail(pin_dir, "wag_meta", r, err);
	/* Zero: the agent has made the map and is not ready to have pods. */
	if (ret->magic != WAG_META_MAGIC)
		return again(pin_dir, err);
	if (ret->abi != WAG_ABI)
		return wag_err_set(
			err, -EAGAIN,
			"pin dir %s has ABI %u, this waggle-cni knows %u: install the one "
			"of the running waggle-agent's version",
			pin_dir, ret->abi, WAG_ABI);
	return 0;
}

int endpoint_ready(const char *pin_dir, struct wag_err *err)
{
	struct wag_meta meta;
	char path[PATH_MAX];
	int r;

	r = endpoint_meta(pin_dir, &meta, err);
	if (r)
		return r;
	for (size_t i = 0; i < HOOKS; i++) {
		r = pins_prog_path(path, sizeof(path), pin_dir, hooks[i].prog);
		if (r < 0 || access(path, F_OK) < 0)
			return again(pin_dir, err);
	}
	return 0;
}

/* ---- map entries ---- */

struct maps {
	int pods, endpoint, netns;
};

static void maps_done(struct maps *m)
{
	closep(&m->pods);
	closep(&m->endpoint);
	closep(&m->netns);
}

static int maps_open(const char *pin_dir, struct maps *m, struct wag_err *err)
{
	m->pods = pins_map_open(pin_dir, "wag_pods", sizeof(struct wag_addr),
				sizeof(struct wag_pod));
	if (m->pods < 0)
		return map_fail(pin_dir, "wag_pods", m->pods, err);
	m->endpoint = pins_map_open(pin_dir, "wag_endpoint", sizeof(uint32_t),
				    sizeof(struct wag_endpoint));
	if (m->endpoint < 0)
		return map_fail(pin_dir, "wag_endpoint", m->endpoint, err);
	m->netns = pins_map_open(pin_dir, "wag_netns", sizeof(uint64_t), sizeof(struct wag_netns));
	if (m->netns < 0)
		return map_fail(pin_dir, "wag_netns", m->netns, err);
	return 0;
}

static void endpoint_fill(struct wag_endpoint *ep, const struct record *rec)
{
	memset(ep, 0, sizeof(*ep));
	ep->ifindex = rec->ifindex;
	ep->netns_cookie = rec->netns_cookie;
	for (unsigned i = 0; i < rec->addr_count; i++)
		*(wag_addr_is_v4(&rec->addrs[i].addr) ? &ep->v4 : &ep->v6) = rec->addrs[i].addr;
	memcpy(ep->ifname, rec->host_ifname, sizeof(ep->ifname));
	memcpy(ep->pod_ifname, rec->ifname, sizeof(ep->pod_ifname));
	memcpy(ep->container_id, rec->container_id, sizeof(ep->container_id));
	memcpy(ep->ns, rec->ns, sizeof(ep->ns));
	memcpy(ep->pod, rec->pod, sizeof(ep->pod));
}

static int entries_add(const struct maps *m, const struct record *rec, uint32_t flags)
{
	struct wag_pod pod = { .ifindex = rec->ifindex, .ep_id = rec->ep_id, .flags = flags };
	struct wag_netns netns = { .flags = WAG_NETNS_POD, .ep_id = rec->ep_id };
	struct wag_endpoint ep;
	int r;

	/* The endpoint first: it names the others to whoever must clean up. */
	endpoint_fill(&ep, rec);
	r = bpfsys_map_update(m->endpoint, &rec->ep_id, &ep, BPF_ANY);
	memcpy(pod.mac, rec->mac, sizeof(pod.mac));
	memcpy(pod.host_mac, rec->host_mac, sizeof(pod.host_mac));
	for (unsigned i = 0; r == 0 && i < rec->addr_count; i++)
		r = bpfsys_map_update(m->pods, &rec->addrs[i].addr, &pod, BPF_ANY);
	if (r == 0 && rec->netns_cookie)
		r = bpfsys_map_update(m->netns, &rec->netns_cookie, &netns, BPF_ANY);
	return r;
}

static void pod_delete(const struct maps *m, const struct wag_addr *addr, uint32_t ep_id)
{
	struct wag_pod pod;

	/* By now the address may be another pod's. */
	if (!wag_addr_is_zero(addr) && bpfsys_map_lookup(m->pods, addr, &pod) == 0 &&
	    pod.ep_id == ep_id)
		bpfsys_map_delete(m->pods, addr);
}

static void links_unpin(const char *pin_dir, const char *ifname, uint32_t ifindex)
{
	char path[PATH_MAX];

	for (size_t i = 0; ifindex && i < HOOKS; i++)
		if (pins_tcx_path(path, sizeof(path), pin_dir, ifname, ifindex, hooks[i].egress) ==
		    0)
			unlink(path);
}

static void entries_remove(const char *pin_dir, const struct maps *m, const struct record *rec)
{
	struct wag_endpoint ep;
	struct wag_netns netns;

	for (unsigned i = 0; i < rec->addr_count; i++)
		pod_delete(m, &rec->addrs[i].addr, rec->ep_id);
	if (bpfsys_map_lookup(m->endpoint, &rec->ep_id, &ep) < 0 ||
	    strncmp(ep.container_id, rec->container_id, sizeof(ep.container_id)) != 0)
		return;
	links_unpin(pin_dir, rec->host_ifname, ep.ifindex);
	pod_delete(m, &ep.v4, rec->ep_id);
	pod_delete(m, &ep.v6, rec->ep_id);
	if (ep.netns_cookie && bpfsys_map_lookup(m->netns, &ep.netns_cookie, &netns) == 0 &&
	    netns.ep_id == rec->ep_id)
		bpfsys_map_delete(m->netns, &ep.netns_cookie);
	bpfsys_map_delete(m->endpoint, &rec->ep_id);
}

/* ---- programs ---- */

static int hook_attach_tcx(const char *pin_dir, const struct record *rec, const struct hook *hook,
			   int prog_fd)
{
	_cleanup_close_ int link = -1;
	char path[PATH_MAX];
	int r;

	r = pins_tcx_path(path, sizeof(path), pin_dir, rec->host_ifname, rec->ifindex,
			  hook->egress);
	if (r < 0)
		return r;
	link = bpfsys_tcx_attach(prog_fd, rec->ifindex, hook->egress);
	if (link < 0)
		return link;
	/* A pin outlives its device: an old one in the way is nobody's. */
	unlink(path);
	return bpfsys_obj_pin(link, path);
}

static int hook_attach(const char *pin_dir, struct nl *nl, const struct record *rec,
		       const struct hook *hook, uint32_t how, struct wag_err *err)
{
	_cleanup_close_ int prog = -1;
	char path[PATH_MAX];
	int r;

	r = pins_prog_path(path, sizeof(path), pin_dir, hook->prog);
	if (r == 0)
		r = prog = bpfsys_obj_get(path);
	if (r == -ENOENT)
		return again(pin_dir, err);
	if (r >= 0)
		r = how == WAG_ATTACH_CLSACT
			    ? nl_tc_attach(nl, rec->ifindex, hook->egress, prog, hook->prog)
			    : hook_attach_tcx(pin_dir, rec, hook, prog);
	if (r < 0)
		return wag_err_set(err, r, "cannot attach %s to %s: %s", path,
				   rec->host_ifname, strerror(-r));
	return 0;
}

int endpoint_attach(const char *pin_dir, struct nl *nl, const struct record *rec, uint32_t flags,
		    struct wag_err *err)
{
	_cleanup_(maps_done) struct maps m = { -1, -1, -1 };
	_cleanup_close_ int lock = -1;
	struct wag_meta meta;
	char path[PATH_MAX];
	int r;

	/* Held against the agent's program switch: no veth is born with old code. */
	lock = pins_lock(pin_dir, LOCK_MS);
	if (lock < 0)
		return wag_err_set(err, -EAGAIN, "pin dir %s: %s", pin_dir,
				   lock == -EWOULDBLOCK ? "locked for 10 s by another process"
							: strerror(-lock));
	r = endpoint_meta(pin_dir, &meta, err);
	if (!r)
		r = maps_open(pin_dir, &m, err);
	if (r)
		return r;
	snprintf(path, sizeof(path), "%s/links", pin_dir);
	r = pins_mkdir_p(path, 0755);
	if (r == 0)
		r = entries_add(&m, rec, flags);
	if (r < 0)
		return wag_err_set(err, r, "cannot write the maps in %s: %s%s", pin_dir,
				   strerror(-r), r == -E2BIG ? " (too many pods)" : "");
	for (size_t i = 0; !r && i < HOOKS; i++)
		r = hook_attach(pin_dir, nl, rec, &hooks[i], meta.attach, err);
	return r;
}

int endpoint_detach(const char *pin_dir, const struct record *rec, struct wag_err *err)
{
	_cleanup_(maps_done) struct maps m = { -1, -1, -1 };
	_cleanup_close_ int lock = -1;
	int r;

	lock = pins_lock(pin_dir, LOCK_MS);
	if (lock == -ENOENT)
		return 0;
	if (lock < 0)
		return wag_err_set(err, -EAGAIN, "pin dir %s: %s", pin_dir,
				   lock == -EWOULDBLOCK ? "locked for 10 s by another process"
							: strerror(-lock));
	links_unpin(pin_dir, rec->host_ifname, rec->ifindex);
	r = maps_open(pin_dir, &m, err);
	if (r == -EAGAIN)
		return 0; /* nothing pinned, or nothing we could read */
	if (r)
		return r;
	entries_remove(pin_dir, &m, rec);
	return 0;
}

int endpoint_check(const char *pin_dir, const struct record *rec, struct wag_err *err)
{
	_cleanup_(maps_done) struct maps m = { -1, -1, -1 };
	char text[WAG_ADDR_TEXT], path[PATH_MAX];
	struct wag_meta meta;
	struct wag_pod pod;
	int r;

	r = endpoint_meta(pin_dir, &meta, err);
	if (!r)
		r = maps_open(pin_dir, &m, err);
	if (r)
		return r;
	for (unsigned i = 0; i < rec->addr_count; i++)
		if (bpfsys_map_lookup(m.pods, &rec->addrs[i].addr, &pod) < 0 ||
		    pod.ep_id != rec->ep_id || pod.ifindex != rec->ifindex)
			return wag_err_set(err, -ESTALE, "wag_pods does not have %s on %s",
					   wag_addr_format(&rec->addrs[i].addr, text),
					   rec->host_ifname);
	for (size_t i = 0; meta.attach == WAG_ATTACH_TCX && i < HOOKS; i++) {
		r = pins_tcx_path(path, sizeof(path), pin_dir, rec->host_ifname, rec->ifindex,
				  hooks[i].egress);
		if (r < 0 || access(path, F_OK) < 0)
			return wag_err_set(err, -ESTALE, "%s is not attached to %s",
					   hooks[i].prog, rec->host_ifname);
	}
	return 0;
}

