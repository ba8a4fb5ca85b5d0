// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
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
#include <waggle/endpoint_limit.h>
#include <waggle/pins.h>

#define LOCK_MS 60000 /* many pods at once wait for the kernel's own lock, one after the other */

const struct endpoint_hook endpoint_hooks[ENDPOINT_HOOKS] = {
	{ "wag_from_pod", false },
	{ "wag_to_pod", true },
};

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

int endpoint_ready(const char *pin_dir, struct wag_meta *ret, struct wag_err *err)
{
	char path[PATH_MAX];
	int r;

	r = endpoint_meta(pin_dir, ret, err);
	if (r)
		return r;
	for (size_t i = 0; i < ENDPOINT_HOOKS; i++) {
		r = pins_prog_path(path, sizeof(path), pin_dir, endpoint_hooks[i].prog);
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
	for (unsigned i = rec->addr_count; i-- > 0;) /* the first of a family stays */
		*(wag_addr_is_v4(&rec->addrs[i].addr) ? &ep->v4 : &ep->v6) = rec->addrs[i].addr;
	memcpy(ep->ifname, rec->host_ifname, sizeof(ep->ifname));
	memcpy(ep->pod_ifname, rec->ifname, sizeof(ep->pod_ifname));
	memcpy(ep->container_id, rec->container_id, sizeof(ep->container_id));
	memcpy(ep->ns, rec->ns, sizeof(ep->ns));
	memcpy(ep->pod, rec->pod, sizeof(ep->pod));
}

/* A namespace with several of our interfaces stays the first one's. */
static int netns_add(const struct maps *m, const struct record *rec)
{
	struct wag_netns netns = { .flags = WAG_NETNS_POD, .ep_id = rec->ep_id }, held;
	struct wag_endpoint ep;

	if (bpfsys_map_lookup(m->netns, &rec->netns_cookie, &held) == 0 &&
	    bpfsys_map_lookup(m->endpoint, &held.ep_id, &ep) == 0 &&
	    ep.netns_cookie == rec->netns_cookie)
		return 0;
	return bpfsys_map_update(m->netns, &rec->netns_cookie, &netns, BPF_ANY);
}

static int entries_add(const struct maps *m, const struct record *rec, uint32_t flags)
{
	struct wag_pod pod = { .ifindex = rec->ifindex, .ep_id = rec->ep_id, .mtu = rec->mtu };
	struct wag_endpoint ep;
	int r;

	pod.flags = flags | (rec->chained ? WAG_POD_CHAINED : 0) |
		    (rec->ingress_rate ? WAG_POD_NO_PEER : 0);
	/* The endpoint first: it names the others to whoever must clean up. */
	endpoint_fill(&ep, rec);
	r = bpfsys_map_update(m->endpoint, &rec->ep_id, &ep, BPF_ANY);
	memcpy(pod.mac, rec->mac, sizeof(pod.mac));
	memcpy(pod.host_mac, rec->host_mac, sizeof(pod.host_mac));
	for (unsigned i = 0; r == 0 && i < rec->addr_count; i++)
		r = bpfsys_map_update(m->pods, &rec->addrs[i].addr, &pod, BPF_ANY);
	if (r == 0 && rec->netns_cookie)
		r = netns_add(m, rec);
	return r;
}

/* ---- ports of the node ---- */

static bool is_any(const struct wag_addr *addr)
{
	return wag_addr_is_zero(addr) || (wag_addr_is_v4(addr) && !addr->w[3]);
}

static void port_key(struct wag_svc_key *key, const struct record_port *port)
{
	memset(key, 0, sizeof(*key));
	key->addr = port->host_addr;
	key->port = htons(port->host_port);
	key->proto = port->proto;
}

/* The same port, on an address that a packet could have for both. */
static bool keys_meet(const struct wag_svc_key *a, const struct wag_svc_key *b)
{
	return a->port == b->port && a->proto == b->proto &&
	       wag_addr_is_v4(&a->addr) == wag_addr_is_v4(&b->addr) &&
	       (wag_addr_equal(&a->addr, &b->addr) || is_any(&a->addr) || is_any(&b->addr));
}

static int port_free(int fd, const struct maps *m, const struct record *rec,
		     const struct record_port *port, struct wag_err *err)
{
	struct wag_svc_key want, key;
	char text[WAG_ADDR_TEXT];
	struct wag_hostport held;
	struct wag_endpoint ep;

	port_key(&want, port);
	for (int r = bpfsys_map_next_key(fd, NULL, &key); r == 0;
	     r = bpfsys_map_next_key(fd, &key, &key)) {
		/* A holder without an endpoint is what a killed DEL left. */
		if (!keys_meet(&want, &key) || bpfsys_map_lookup(fd, &key, &held) < 0 ||
		    held.ep_id == rec->ep_id ||
		    bpfsys_map_lookup(m->endpoint, &held.ep_id, &ep) < 0)
			continue;
		return wag_err_set(err, -EADDRINUSE,
				   "port %u (protocol %u) of %s on this node belongs to pod "
				   "%.63s/%.200s, container %.64s",
				   port->host_port, port->proto, wag_addr_format(&key.addr, text),
				   ep.ns, ep.pod, ep.container_id);
	}
	return 0;
}

static const struct wag_addr *family_addr(const struct record *rec, const struct wag_addr *like)
{
	for (unsigned i = 0; i < rec->addr_count; i++)
		if (wag_addr_is_v4(&rec->addrs[i].addr) == wag_addr_is_v4(like))
			return &rec->addrs[i].addr;
	return NULL;
}

static int ports_add(const char *pin_dir, const struct maps *m, const struct record *rec,
		     struct wag_err *err)
{
	_cleanup_close_ int fd = -1;
	int r = 0;

	if (!rec->port_count)
		return 0;
	fd = pins_map_open(pin_dir, "wag_hostport", sizeof(struct wag_svc_key),
			   sizeof(struct wag_hostport));
	if (fd < 0)
		return map_fail(pin_dir, "wag_hostport", fd, err);
	for (unsigned i = 0; r == 0 && i < rec->port_count; i++) {
		const struct wag_addr *addr = family_addr(rec, &rec->ports[i].host_addr);
		struct wag_hostport value = { .port = htons(rec->ports[i].port),
					      .ep_id = rec->ep_id };
		struct wag_svc_key key;

		if (!addr)
			continue;
		r = port_free(fd, m, rec, &rec->ports[i], err);
		if (r < 0)
			return r;
		value.addr = *addr;
		port_key(&key, &rec->ports[i]);
		r = bpfsys_map_update(fd, &key, &value, BPF_ANY);
	}
	return r < 0 ? map_fail(pin_dir, "wag_hostport", r, err) : 0;
}

static void ports_remove(const char *pin_dir, const struct record *rec)
{
	_cleanup_close_ int fd = -1;
	struct wag_hostport held;
	struct wag_svc_key key;

	if (rec->port_count)
		fd = pins_map_open(pin_dir, "wag_hostport", sizeof(key), sizeof(held));
	for (unsigned i = 0; fd >= 0 && i < rec->port_count; i++) {
		port_key(&key, &rec->ports[i]);
		if (bpfsys_map_lookup(fd, &key, &held) == 0 && held.ep_id == rec->ep_id)
			bpfsys_map_delete(fd, &key);
	}
}

/* ---- the way back ---- */

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

	for (size_t i = 0; ifindex && i < ENDPOINT_HOOKS; i++)
		if (pins_tcx_path(path, sizeof(path), pin_dir, ifname, ifindex,
				  endpoint_hooks[i].egress) == 0)
			unlink(path);
	limit_remove(pin_dir, ifname, ifindex);
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

static int hook_attach_tcx(const char *pin_dir, const struct record *rec,
			   const struct endpoint_hook *hook, int prog_fd)
{
	_cleanup_close_ int link = -1;
	char path[PATH_MAX];
	int r;

	r = pins_tcx_path(path, sizeof(path), pin_dir, rec->host_ifname, rec->ifindex,
			  hook->egress);
	if (r < 0)
		return r;
	link = bpfsys_tcx_attach(prog_fd, rec->ifindex, hook->egress, 0);
	if (link == -EEXIST && access(path, F_OK) == 0)
		return 0; /* it is there already, held by its pin */
	if (link < 0)
		return link;
	/* A pin outlives its device: an old one in the way is nobody's. */
	unlink(path);
	return bpfsys_obj_pin(link, path);
}

/* Does a link hold this very interface? Then the agent has put it in the filter's place. */
static bool hook_has_link(const char *pin_dir, const struct record *rec, bool egress)
{
	_cleanup_close_ int link = -1;
	uint32_t ifindex = 0, prog_id;
	char path[PATH_MAX];

	if (pins_tcx_path(path, sizeof(path), pin_dir, rec->host_ifname, rec->ifindex, egress) < 0)
		return false;
	link = bpfsys_obj_get(path);
	return link >= 0 && bpfsys_tcx_info(link, &ifindex, &prog_id) == 0 &&
	       ifindex == rec->ifindex;
}

static int hook_attach(const char *pin_dir, struct nl *nl, const struct record *rec,
		       const struct endpoint_hook *hook, uint32_t how, struct wag_err *err)
{
	_cleanup_close_ int prog = -1;
	char path[PATH_MAX];
	int r;

	if (how == WAG_ATTACH_CLSACT && hook_has_link(pin_dir, rec, hook->egress))
		return 0;
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
				   lock == -EWOULDBLOCK ? "locked for a minute by another process"
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
	r = ports_add(pin_dir, &m, rec, err);
	for (size_t i = 0; !r && i < ENDPOINT_HOOKS; i++)
		r = hook_attach(pin_dir, nl, rec, &endpoint_hooks[i], meta.attach, err);
	return r ? r : limit_add(pin_dir, nl, rec, meta.attach, err);
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
				   lock == -EWOULDBLOCK ? "locked for a minute by another process"
							: strerror(-lock));
	links_unpin(pin_dir, rec->host_ifname, rec->ifindex);
	r = maps_open(pin_dir, &m, err);
	if (r == -EAGAIN)
		return 0; /* nothing pinned, or nothing we could read */
	if (r)
		return r;
	ports_remove(pin_dir, rec);
	entries_remove(pin_dir, &m, rec);
	return 0;
}
