// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <waggle/cleanup.h>
#include <waggle/sysctl.h>
#include "tunnel_dev.h"

static const char *const names[] = { "waggle_vxlan", "waggle_geneve" };

/* Linux's default for ip_local_port_range, which the node may change. */
#define VXLAN_SPORT_MIN 32768
#define VXLAN_SPORT_MAX 60999

/* First word of a header without options around an Ethernet frame: RFC 7348, 5; RFC 8926, 3.4. */
#define VXLAN_HEAD 0x08000000U
#define GENEVE_HEAD 0x00006558U

static int read_sysctl(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	char c = 0;

	return fd < 0 ? -errno : read(fd, &c, 1) == 1 ? c : -EIO;
}

static int write_sysctl(const char *family, const char *dev, const char *key, char value,
			struct wag_err *err)
{
	char path[128];
	int r;

	snprintf(path, sizeof(path), "/proc/sys/net/%s/conf/%s/%s", family, dev, key);
	r = sysctl_ensure(path, value);
	if (r < 0 && r != -ENOENT) /* no IPv6 in this kernel */
		return wag_err_set(err, r, "%s: %s (the tunnel needs it to be %c)", path,
				   strerror(-r), value);
	return 0;
}

/*
 * A packet may leave by the tunnel and its answer come without, so a strict filter would drop it.
 * The stricter of "all" and the device's own counts, but a loose one (2) wins.
 */
static int set_sysctls(const char *dev, struct wag_err *err)
{
	bool filtered = read_sysctl("/proc/sys/net/ipv4/conf/all/rp_filter") != '0';
	int r = write_sysctl("ipv4", dev, "rp_filter", filtered ? '2' : '0', err);

	if (r == 0)
		r = write_sysctl("ipv4", dev, "forwarding", '1', err);
	if (r == 0)
		r = write_sysctl("ipv6", dev, "forwarding", '1', err);
	if (r == 0) /* 1: no address of its own */
		r = write_sysctl("ipv6", dev, "addr_gen_mode", '1', err);
	return r;
}

static int make(struct nl *nl, const char *name, const struct nl_tunnel *t, uint32_t mtu,
		struct wag_err *err)
{
	int r = nl_tunnel_add(nl, name, t, mtu);

	if (r == -EOPNOTSUPP)
		return wag_err_set(err, r,
				   "this kernel cannot make a %s device (CONFIG_%s): give "
				   "--tunnel-protocol=%s, or --routing-mode=native",
				   t->kind, strcmp(t->kind, "vxlan") == 0 ? "VXLAN" : "GENEVE",
				   strcmp(t->kind, "vxlan") == 0 ? "geneve" : "vxlan");
	if (r == -EEXIST || r == -EBUSY || r == -EADDRINUSE)
		return wag_err_set(err, r,
				   "device %s: another %s device has UDP port %u: remove it, or "
				   "give another --tunnel-port on every node",
				   name, t->kind, t->port);
	return r < 0 ? wag_err_set(err, r, "device %s: %s", name, strerror(-r)) : 0;
}

static bool same(const struct nl_tunnel *a, const struct nl_tunnel *b)
{
	return strcmp(a->kind, b->kind) == 0 && a->port == b->port && a->external == b->external &&
	       a->zero_csum6 == b->zero_csum6 && a->sport_min == b->sport_min &&
	       a->sport_max == b->sport_max;
}

static int make_anew(struct nl *nl, const char *name, const struct nl_tunnel *want, uint32_t mtu,
		     struct wag_err *err)
{
	struct nl_link link;
	int r = nl_link_get(nl, name, &link);

	if (r == 0)
		r = nl_link_del(nl, link.ifindex);
	if (r < 0 && r != -ENODEV)
		return wag_err_set(err, r, "device %s: %s", name, strerror(-r));
	return make(nl, name, want, mtu, err);
}

static int bring_up(struct nl *nl, const struct nl_link *link, const struct nl_tunnel *want,
		    uint32_t mtu, struct wag_err *err)
{
	const unsigned flags = IFF_UP | IFF_NOARP;
	int r = set_sysctls(link->name, err);

	if (r < 0)
		return r;
	if (link->mtu != mtu)
		r = nl_link_set_mtu(nl, link->ifindex, mtu);
	if (r == 0 && (link->flags & flags) != flags)
		r = nl_link_up_noarp(nl, link->ifindex);
	if (r == -EADDRINUSE)
		return wag_err_set(err, r,
				   "device %s: UDP port %u is in use: give another --tunnel-port "
				   "on every node",
				   link->name, want->port);
	return r < 0 ? wag_err_set(err, r, "device %s: %s", link->name, strerror(-r)) : 0;
}

static struct nl_tunnel wanted(const struct tunnel_wish *wish)
{
	struct nl_tunnel want = {
		.port = wish->port,
		.external = true,
		.zero_csum6 = true,
		.sport_min = wish->geneve ? NL_GENEVE_SPORT_MIN : VXLAN_SPORT_MIN,
		.sport_max = wish->geneve ? NL_GENEVE_SPORT_MAX : VXLAN_SPORT_MAX,
	};

	strcpy(want.kind, wish->geneve ? "geneve" : "vxlan");
	return want;
}

int tunnel_dev_ensure(struct dp_tunnel *ret, struct nl *nl, const struct tunnel_wish *wish,
		      struct wag_err *err)
{
	struct nl_tunnel want = wanted(wish), got;
	const char *name = names[wish->geneve];
	struct nl_link link;
	int r;

	r = nl_tunnel_get(nl, name, &got);
	if (r == 0 && !same(&got, &want))
		r = -ENODEV;
	if (r == -ENODEV)
		r = make_anew(nl, name, &want, wish->mtu, err);
	else if (r < 0)
		r = wag_err_set(err, r, "device %s: %s", name, strerror(-r));
	if (r < 0)
		return r;
	r = nl_link_get(nl, name, &link);
	if (r < 0)
		return wag_err_set(err, r, "device %s: %s", name, strerror(-r));
	r = bring_up(nl, &link, &want, wish->mtu, err);
	if (r < 0)
		return r;
	*ret = (struct dp_tunnel){
		.dev.ifindex = link.ifindex,
		.vni = TUNNEL_VNI,
		.port = wish->port,
		.head = wish->geneve ? GENEVE_HEAD : VXLAN_HEAD,
		.sport_min = want.sport_min,
		.sport_max = want.sport_max,
	};
	memcpy(ret->dev.name, link.name, sizeof(ret->dev.name));
	return 0;
}

int tunnel_dev_remove(struct nl *nl, uint32_t keep_ifindex)
{
	int first = 0;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct nl_link link;
		int r = nl_link_get(nl, names[i], &link);

		if (r == 0 && link.ifindex != keep_ifindex)
			r = nl_link_del(nl, link.ifindex);
		if (r < 0 && r != -ENODEV && first == 0)
			first = r;
	}
	return first;
}
