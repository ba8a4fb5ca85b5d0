// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <waggle/abi_maps.h>
#include <waggle/addr.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include <waggle/pins.h>

#include "attach.h"
#include "conf.h"

#define LOCK_MS 10000

static const struct hook {
	const char *prog;
	int egress; /* of the host side: what the pod sends comes in */
} hooks[] = { { "wag_from_pod", 0 }, { "wag_to_pod", 1 } };

#define HOOKS (sizeof(hooks) / sizeof(hooks[0]))

/* An fd, or -errno; -EPROTO: made by a version with another layout. */
static int map_open(const char *pin_dir, const char *name, uint32_t key, uint32_t value)
{
	uint32_t have_key, have_value;
	_cleanup_close_ int fd = -1;
	char path[PATH_MAX];
	int r;

	r = pins_map_path(path, sizeof(path), pin_dir, name);
	if (r < 0)
		return r;
	fd = bpfsys_obj_get(path);
	if (fd < 0)
		return fd;
	r = bpfsys_map_sizes(fd, &have_key, &have_value);
	if (r < 0)
		return r;
	if (have_key != key || have_value != value)
		return -EPROTO;
	return TAKE_FD(fd);
}

static int again(const char *pin_dir, struct wag_err *err)
{
	return wag_err_set(err, CNI_E_AGAIN,
			   "waggle-agent has not run since boot: start it; pin dir %s", pin_dir);
}

static int map_fail(const char *pin_dir, const char *name, int r, struct wag_err *err)
{
	if (r == -ENOENT)
		return again(pin_dir, err);
	if (r == -EPROTO)
		return wag_err_set(
			err, CNI_E_AGAIN,
			"map %s in pin dir %s has another layout: install the waggle-cni "
			"of the version of the running waggle-agent",
			name, pin_dir);
	return wag_err_set(err, CNI_E_KERNEL, "map %s in pin dir %s: %s", name, pin_dir,
			   strerror(-r));
}

static int meta_read(const char *pin_dir, struct wag_meta *ret, struct wag_err *err)
{
	_cleanup_close_ int fd = -1;
	uint32_t zero = 0;
	int r;

	fd = map_open(pin_dir, "wag_meta", sizeof(zero), sizeof(*ret));
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
			err, CNI_E_AGAIN,
			"pin dir %s has ABI %u, this waggle-cni knows %u: install the one "
			"of the running waggle-agent's version",
			pin_dir, ret->abi, WAG_ABI);
	return 0;
}

int attach_ready(const char *pin_dir, struct wag_err *err)
{
	struct wag_meta meta;
	char path[PATH_MAX];
	int r;

	r = meta_read(pin_dir, &meta, err);
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
	m->pods = map_open(pin_dir, "wag_pods", sizeof(struct wag_addr), sizeof(struct wag_pod));
	if (m->pods < 0)
		return map_fail(pin_dir, "wag_pods", m->pods, err);
	m->endpoint =
		map_open(pin_dir, "wag_endpoint", sizeof(uint32_t), sizeof(struct wag_endpoint));
	if (m->endpoint < 0)
		return map_fail(pin_dir, "wag_endpoint", m->endpoint, err);
	m->netns = map_open(pin_dir, "wag_netns", sizeof(uint64_t), sizeof(struct wag_netns));
	if (m->netns < 0)
		return map_fail(pin_dir, "wag_netns", m->netns, err);
	return 0;
}

static void endpoint_fill(struct wag_endpoint *ep, const struct record *rec, uint64_t cookie)
{
	memset(ep, 0, sizeof(*ep));
	ep->ifindex = rec->ifindex;
	ep->netns_cookie = cookie;
	for (unsigned i = 0; i < rec->addr_count; i++)
		*(wag_addr_is_v4(&rec->addrs[i].addr) ? &ep->v4 : &ep->v6) = rec->addrs[i].addr;
	memcpy(ep->ifname, rec->host_ifname, sizeof(ep->ifname));
	memcpy(ep->pod_ifname, rec->ifname, sizeof(ep->pod_ifname));
	memcpy(ep->container_id, rec->container_id, sizeof(ep->container_id));
	memcpy(ep->ns, rec->ns, sizeof(ep->ns));
	memcpy(ep->pod, rec->pod, sizeof(ep->pod));
}

static int entries_add(const struct maps *m, const struct record *rec, uint64_t cookie)
{
	struct wag_pod pod = { .ifindex = rec->ifindex, .ep_id = rec->ep_id };
	struct wag_netns netns = { .flags = WAG_NETNS_POD, .ep_id = rec->ep_id };
	struct wag_endpoint ep;
	int r;

	/* The endpoint first: it names the others to whoever must clean up. */
	endpoint_fill(&ep, rec, cookie);
	r = bpfsys_map_update(m->endpoint, &rec->ep_id, &ep, BPF_ANY);
	memcpy(pod.mac, rec->mac, sizeof(pod.mac));
	memcpy(pod.host_mac, rec->host_mac, sizeof(pod.host_mac));
	for (unsigned i = 0; r == 0 && i < rec->addr_count; i++)
		r = bpfsys_map_update(m->pods, &rec->addrs[i].addr, &pod, BPF_ANY);
	if (r == 0 && cookie)
		r = bpfsys_map_update(m->netns, &cookie, &netns, BPF_ANY);
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
		return wag_err_set(err, CNI_E_KERNEL, "cannot attach %s to %s: %s", path,
				   rec->host_ifname, strerror(-r));
	return 0;
}

int attach_add(const char *pin_dir, struct nl *nl, const struct record *rec, uint64_t netns_cookie,
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
		return wag_err_set(err, CNI_E_AGAIN, "pin dir %s: %s", pin_dir,
				   lock == -EWOULDBLOCK ? "locked for 10 s by another process"
							: strerror(-lock));
	r = meta_read(pin_dir, &meta, err);
	if (!r)
		r = maps_open(pin_dir, &m, err);
	if (r)
		return r;
	snprintf(path, sizeof(path), "%s/links", pin_dir);
	r = pins_mkdir_p(path, 0755);
	if (r == 0)
		r = entries_add(&m, rec, netns_cookie);
	if (r < 0)
		return wag_err_set(err, CNI_E_KERNEL, "cannot write the maps in %s: %s%s", pin_dir,
				   strerror(-r), r == -E2BIG ? " (too many pods)" : "");
	for (size_t i = 0; !r && i < HOOKS; i++)
		r = hook_attach(pin_dir, nl, rec, &hooks[i], meta.attach, err);
	return r;
}

int attach_remove(const char *pin_dir, const struct record *rec, struct wag_err *err)
{
	_cleanup_(maps_done) struct maps m = { -1, -1, -1 };
	_cleanup_close_ int lock = -1;
	int r;

	lock = pins_lock(pin_dir, LOCK_MS);
	if (lock == -ENOENT)
		return 0;
	if (lock < 0)
		return wag_err_set(err, CNI_E_AGAIN, "pin dir %s: %s", pin_dir,
				   lock == -EWOULDBLOCK ? "locked for 10 s by another process"
							: strerror(-lock));
	links_unpin(pin_dir, rec->host_ifname, rec->ifindex);
	r = maps_open(pin_dir, &m, err);
	if (r == CNI_E_AGAIN)
		return 0; /* nothing pinned, or nothing we could read */
	if (r)
		return r;
	entries_remove(pin_dir, &m, rec);
	return 0;
}

int attach_check(const char *pin_dir, const struct record *rec, struct wag_err *err)
{
	_cleanup_(maps_done) struct maps m = { -1, -1, -1 };
	char text[WAG_ADDR_TEXT], path[PATH_MAX];
	struct wag_meta meta;
	struct wag_pod pod;
	int r;

	r = meta_read(pin_dir, &meta, err);
	if (!r)
		r = maps_open(pin_dir, &m, err);
	if (r)
		return r;
	for (unsigned i = 0; i < rec->addr_count; i++)
		if (bpfsys_map_lookup(m.pods, &rec->addrs[i].addr, &pod) < 0 ||
		    pod.ep_id != rec->ep_id || pod.ifindex != rec->ifindex)
			return wag_err_set(err, CNI_E_CHECK, "wag_pods does not have %s on %s",
					   wag_addr_format(&rec->addrs[i].addr, text),
					   rec->host_ifname);
	for (size_t i = 0; meta.attach == WAG_ATTACH_TCX && i < HOOKS; i++) {
		r = pins_tcx_path(path, sizeof(path), pin_dir, rec->host_ifname, rec->ifindex,
				  hooks[i].egress);
		if (r < 0 || access(path, F_OK) < 0)
			return wag_err_set(err, CNI_E_CHECK, "%s is not attached to %s",
					   hooks[i].prog, rec->host_ifname);
	}
	return 0;
}

/* ---- the namespace's cookie ---- */

static void learn_connect(uint32_t token)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in to = { .sin_family = AF_INET,
				  .sin_port = htons(token & 0xffff),
				  .sin_addr.s_addr = htonl(WAG_LEARN_V4 | token >> 16) };

	/* The hook sees the attempt; whether it has a route does not matter. */
	if (fd >= 0)
		(void)!connect(fd, (struct sockaddr *)&to, sizeof(to));
}

static uint64_t learn_cookie(const char *pin_dir, const struct netns *ns)
{
	_cleanup_close_ int map = -1;
	uint64_t cookie = 0;
	uint32_t token;

	map = map_open(pin_dir, "wag_netns_learn", sizeof(token), sizeof(cookie));
	if (map < 0 || getrandom(&token, sizeof(token), 0) != sizeof(token))
		return 0;
	token = (token & 0xffffff) | 1;
	if (bpfsys_map_update(map, &token, &cookie, BPF_NOEXIST) < 0)
		return 0;
	if (netns_enter(ns) == 0) {
		learn_connect(token);
		if (netns_leave(ns) < 0)
			cookie = 0;
	}
	if (bpfsys_map_lookup(map, &token, &cookie) < 0)
		cookie = 0;
	bpfsys_map_delete(map, &token);
	return cookie;
}

uint64_t attach_netns_cookie(const char *pin_dir, const struct netns *ns)
{
	uint64_t cookie = 0;
	int r;

	r = netns_enter(ns);
	if (r < 0)
		return 0;
	r = netns_cookie(&cookie);
	if (netns_leave(ns) < 0)
		return 0;
	return r == 0 ? cookie : learn_cookie(pin_dir, ns);
}
