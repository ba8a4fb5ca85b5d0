// SPDX-License-Identifier: Apache-2.0
/* Does what is pinned and attached say of a pod what its record says? */
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <waggle/addr.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include <waggle/endpoint_attach.h>
#include <waggle/endpoint_limit.h>
#include <waggle/pins.h>

struct check {
	const char *pin_dir;
	const struct record *rec;
	endpoint_differs_fn differs;
	void *ctx;
};

__attribute__((format(printf, 2, 3))) static void differs(const struct check *c, const char *fmt,
							   ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->differs(c->ctx, text);
}

static int open_map(const struct check *c, const char *name, uint32_t key, uint32_t value)
{
	int fd = pins_map_open(c->pin_dir, name, key, value);

	if (fd < 0)
		differs(c, "map %s: %s", name,
			fd == -EPROTO ? "has another layout" : strerror(-fd));
	return fd;
}

static void check_pods(const struct check *c)
{
	const struct record *rec = c->rec;
	char text[WAG_ADDR_TEXT];
	_cleanup_close_ int fd = -1;
	struct wag_pod pod;

	fd = open_map(c, "wag_pods", sizeof(struct wag_addr), sizeof(pod));
	for (unsigned i = 0; fd >= 0 && i < rec->addr_count; i++) {
		wag_addr_format(&rec->addrs[i].addr, text);
		if (bpfsys_map_lookup(fd, &rec->addrs[i].addr, &pod) < 0)
			differs(c, "map wag_pods: no %s", text);
		else if (pod.ep_id != rec->ep_id || pod.ifindex != rec->ifindex)
			differs(c, "map wag_pods: %s is another pod's", text);
		else if (memcmp(pod.mac, rec->mac, 6) || memcmp(pod.host_mac, rec->host_mac, 6))
			differs(c, "map wag_pods: %s has other MAC addresses", text);
		else if (pod.mtu != rec->mtu)
			differs(c, "map wag_pods: %s has MTU %u, not %u", text, pod.mtu, rec->mtu);
	}
}

static void check_endpoint(const struct check *c)
{
	_cleanup_close_ int fd = -1, netns_fd = -1;
	const struct record *rec = c->rec;
	struct wag_netns netns;
	struct wag_endpoint ep;

	fd = open_map(c, "wag_endpoint", sizeof(uint32_t), sizeof(ep));
	if (fd >= 0 && bpfsys_map_lookup(fd, &rec->ep_id, &ep) < 0)
		differs(c, "map wag_endpoint: no %u", rec->ep_id);
	else if (fd >= 0 && (ep.ifindex != rec->ifindex ||
			     strcmp(ep.container_id, rec->container_id) != 0))
		differs(c, "map wag_endpoint: %u is another pod's", rec->ep_id);
	if (!rec->netns_cookie)
		return;
	netns_fd = open_map(c, "wag_netns", sizeof(uint64_t), sizeof(netns));
	if (netns_fd >= 0 && bpfsys_map_lookup(netns_fd, &rec->netns_cookie, &netns) < 0)
		differs(c, "map wag_netns: the container's namespace is missing");
}

static void check_ports(const struct check *c)
{
	const struct record *rec = c->rec;
	_cleanup_close_ int fd = -1;

	if (rec->port_count)
		fd = open_map(c, "wag_hostport", sizeof(struct wag_svc_key),
			      sizeof(struct wag_hostport));
	for (unsigned i = 0; fd >= 0 && i < rec->port_count; i++) {
		const struct record_port *p = &rec->ports[i];
		struct wag_svc_key key = { .addr = p->host_addr,
					   .port = htons(p->host_port),
					   .proto = p->proto };
		struct wag_hostport held;

		if (bpfsys_map_lookup(fd, &key, &held) < 0 || held.ep_id != rec->ep_id ||
		    held.port != htons(p->port))
			differs(c, "map wag_hostport: port %u (protocol %u) is not the pod's",
				p->host_port, p->proto);
	}
}

/* The id of what runs at a hook, or ahead of it for a limit; 0: nothing of ours. */
static uint32_t attached_id(const struct check *c, struct nl *nl, uint32_t how, bool egress,
			    bool limit)
{
	_cleanup_close_ int link = -1;
	const struct record *rec = c->rec;
	uint32_t id = 0, ifindex = 0;
	char path[PATH_MAX];
	int r;

	if (limit)
		r = limit_link_path(path, sizeof(path), c->pin_dir, rec->host_ifname, rec->ifindex,
				    egress);
	else
		r = pins_tcx_path(path, sizeof(path), c->pin_dir, rec->host_ifname, rec->ifindex,
				  egress);
	/* A pod that began with a filter may have got a link since (docs/adr/0007). */
	if (r == 0)
		link = bpfsys_obj_get(path);
	if (link >= 0 && bpfsys_tcx_info(link, &ifindex, &id) == 0 && ifindex == rec->ifindex)
		return id;
	if (how != WAG_ATTACH_CLSACT || nl_tc_prog_id(nl, rec->ifindex, egress, limit, &id) < 0)
		return 0;
	return id;
}

static void check_hook(const struct check *c, struct nl *nl, uint32_t how, const char *name,
		       bool egress, bool limit)
{
	_cleanup_close_ int prog = -1;
	uint32_t want = 0, have;
	char path[PATH_MAX];

	if (pins_prog_path(path, sizeof(path), c->pin_dir, name) == 0)
		prog = bpfsys_obj_get(path);
	if (prog < 0 || bpfsys_prog_id(prog, &want) < 0) {
		differs(c, "program %s is not pinned", name);
		return;
	}
	have = attached_id(c, nl, how, egress, limit);
	if (have != want)
		differs(c, "program %s is not attached to %s%s", name, c->rec->host_ifname,
			have ? ": another version of it is" : "");
}

static void check_limit(const struct check *c, struct nl *nl, uint32_t how,
			const struct limit_side *side)
{
	const char *what = side->direction == WAG_LIMIT_EGRESS ? "egress" : "ingress";
	struct wag_limit_key key = { c->rec->ifindex, side->direction };
	struct wag_limit want, have;
	_cleanup_close_ int fd = -1;

	if (!limit_wanted(c->rec, side, &want))
		return;
	fd = open_map(c, "wag_limit", sizeof(key), sizeof(have));
	if (fd >= 0 && bpfsys_map_lookup(fd, &key, &have) < 0)
		differs(c, "map wag_limit: no %s bandwidth of %s", what, c->rec->host_ifname);
	else if (fd >= 0 && (have.bytes_per_s != want.bytes_per_s ||
			     have.burst_bytes != want.burst_bytes))
		differs(c,
			"map wag_limit: %s bandwidth of %s is %llu bytes/s with a burst of %llu, "
			"not %llu with %llu",
			what, c->rec->host_ifname, have.bytes_per_s, have.burst_bytes,
			want.bytes_per_s, want.burst_bytes);
	check_hook(c, nl, how, side->prog, side->egress, true);
}

int endpoint_check(const char *pin_dir, struct nl *nl, const struct record *rec,
		   endpoint_differs_fn fn, void *ctx, struct wag_err *err)
{
	const struct check c = { pin_dir, rec, fn, ctx };
	struct wag_meta meta;
	int r;

	r = endpoint_meta(pin_dir, &meta, err);
	if (r < 0)
		return r;
	check_pods(&c);
	check_endpoint(&c);
	check_ports(&c);
	for (unsigned i = 0; i < ENDPOINT_HOOKS; i++)
		check_hook(&c, nl, meta.attach, endpoint_hooks[i].prog, endpoint_hooks[i].egress,
			   false);
	for (unsigned i = 0; i < LIMIT_SIDES; i++)
		check_limit(&c, nl, meta.attach, &limit_sides[i]);
	return 0;
}
