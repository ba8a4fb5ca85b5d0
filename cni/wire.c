// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "conf.h"
#include "unlink.h"
#include "wire.h"

#define SECOND_METRIC 4096 /* behind what IPv6 gives a route without one: 1024 */

unsigned wire_bits(const struct wag_addr *addr)
{
	return wag_addr_is_v4(addr) ? 32 : 128;
}

bool wire_has_family(const struct record *rec, bool v4)
{
	for (unsigned i = 0; i < rec->addr_count; i++)
		if (wag_addr_is_v4(&rec->addrs[i].addr) == v4)
			return true;
	return false;
}

static int sysctl_must(struct wag_err *err, const char *value, const char *path, const char *ifname)
{
	int r = sysctl_set(value, path, ifname);

	if (r == 0)
		return 0;
	return wag_err_set(err, CNI_E_KERNEL, "cannot set a sysctl of %s to %s: %s", ifname, value,
			   strerror(-r));
}

/* The gateway the pod speaks to has no address here: nothing may be filtered by it. */
static const struct wire_sysctl host_wanted[] = {
	{ true, "0", "ipv4/conf/%s/rp_filter" },     { true, "1", "ipv4/conf/%s/accept_local" },
	{ true, "1", "ipv4/conf/%s/forwarding" },    { false, "0", "ipv6/conf/%s/disable_ipv6" },
	{ false, "1", "ipv6/conf/%s/addr_gen_mode" }, { false, "0", "ipv6/conf/%s/accept_ra" },
	{ false, "1", "ipv6/conf/%s/forwarding" },
};

/* Container runtimes like to switch IPv6 off in a new namespace. */
static const struct wire_sysctl pod_wanted[] = {
	{ false, "0", "ipv6/conf/%s/disable_ipv6" },
	{ false, "0", "ipv6/conf/%s/accept_ra" },
};

const struct wire_sysctl *wire_sysctls(bool pod, size_t *ret_count)
{
	*ret_count = pod ? sizeof(pod_wanted) / sizeof(pod_wanted[0])
			 : sizeof(host_wanted) / sizeof(host_wanted[0]);
	return pod ? pod_wanted : host_wanted;
}

static int host_sysctls(const struct record *rec, struct wag_err *err)
{
	int r = 0;

	if (wire_has_family(rec, true))
		r = sysctl_must(err, "1", "ipv4/%s", "ip_forward");
	if (!r && wire_has_family(rec, false))
		r = sysctl_must(err, "1", "ipv6/conf/%s/forwarding", "all");
	for (size_t i = 0; !r && i < sizeof(host_wanted) / sizeof(host_wanted[0]); i++)
		if (wire_has_family(rec, host_wanted[i].v4))
			r = sysctl_must(err, host_wanted[i].value, host_wanted[i].path,
					rec->host_ifname);
	return r;
}

int wire_create(struct nl *nl, const struct netns *ns, struct record *rec, struct wag_err *err)
{
	struct nl_link link;
	int r;

	r = nl_veth_add(nl, rec->host_ifname, rec->ifname, ns->pod_fd, rec->mtu,
			rec->host_mac, rec->mac);
	if (r == -EEXIST)
		return wag_err_set(err, CNI_E_EXISTS,
				   "interface %s exists already in the container: choose another "
				   "CNI_IFNAME or DEL it first",
				   rec->ifname);
	if (r == 0)
		r = nl_link_get(nl, rec->host_ifname, &link);
	if (r < 0)
		return wag_err_set(err, CNI_E_KERNEL, "cannot make the veth pair %s: %s",
				   rec->host_ifname, strerror(-r));
	rec->ifindex = link.ifindex;
	return host_sysctls(rec, err);
}

int wire_host(struct nl *nl, const struct record *rec, struct wag_err *err)
{
	char text[WAG_ADDR_TEXT];
	int r;

	r = nl_link_up(nl, rec->ifindex);
	if (r < 0)
		return wag_err_set(err, CNI_E_KERNEL, "cannot bring %s up: %s", rec->host_ifname,
				   strerror(-r));
	for (unsigned i = 0; i < rec->addr_count; i++) {
		const struct wag_addr *addr = &rec->addrs[i].addr;

		r = nl_neigh_add(nl, rec->ifindex, addr, rec->mac);
		if (r == 0)
			r = nl_route_add(nl, addr, wire_bits(addr), NULL, rec->ifindex, NULL, 0);
		if (r < 0)
			return wag_err_set(err, CNI_E_KERNEL, "cannot route %s to %s: %s",
					   wag_addr_format(addr, text), rec->host_ifname,
					   strerror(-r));
	}
	return 0;
}

void wire_gateway(bool v4, struct wag_addr *gw, struct wag_addr *any)
{
	wag_addr_parse(v4 ? WIRE_GATEWAY_V4 : WIRE_GATEWAY_V6, gw);
	wag_addr_parse(v4 ? "0.0.0.0" : "::", any);
}

/* A pod whose default route is another interface's keeps it: this one's comes after it. */
static int default_add(struct nl *nl, uint32_t ifindex, const struct record *rec,
		       const struct wag_addr *gw, const struct wag_addr *any)
{
	struct nl_route route = { .dst = *any,
				  .gw = *gw,
				  .ifindex = ifindex,
				  .mtu = rec->route_mtu,
				  .protocol = RTPROT_STATIC };
	int r = nl_route_put_onlink(nl, &route, false);

	if (r != -EEXIST)
		return r;
	route.priority = SECOND_METRIC + ifindex;
	return nl_route_put_onlink(nl, &route, true);
}

static int pod_family(struct nl *nl, uint32_t ifindex, const struct record *rec, bool v4)
{
	struct wag_addr gw, any;
	int r;

	if (!wire_has_family(rec, v4))
		return 0;
	wire_gateway(v4, &gw, &any);
	r = nl_neigh_add(nl, ifindex, &gw, rec->host_mac);
	if (r == 0)
		r = default_add(nl, ifindex, rec, &gw, &any);
	for (unsigned i = 0; r == 0 && i < rec->route_count; i++)
		if (rec->routes[i].bits && wag_addr_is_v4(&rec->routes[i].dst) == v4)
			r = nl_route_add(nl, &rec->routes[i].dst, rec->routes[i].bits, &gw, ifindex,
					 NULL, rec->route_mtu);
	return r;
}

static int pod_sysctls(const struct record *rec)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(pod_wanted) / sizeof(pod_wanted[0]); i++)
		if (wire_has_family(rec, pod_wanted[i].v4))
			r = sysctl_set(pod_wanted[i].value, pod_wanted[i].path, rec->ifname);
	return r;
}

/* In the pod's namespace. *ret_step: what failed. */
static int pod_setup(const struct record *rec, const char **ret_step)
{
	_cleanup_(nl_freep) struct nl *nl = NULL;
	struct nl_link link;
	int r;

	*ret_step = "open rtnetlink";
	r = nl_new(&nl);
	if (r < 0)
		return r;
	*ret_step = "bring lo up";
	r = nl_link_up(nl, 1);
	if (r < 0)
		return r;
	*ret_step = "find the interface";
	r = nl_link_get(nl, rec->ifname, &link);
	if (r < 0)
		return r;
	*ret_step = "set IPv6 sysctls";
	r = pod_sysctls(rec);
	if (r < 0)
		return r;
	*ret_step = "add the address";
	for (unsigned i = 0; r == 0 && i < rec->addr_count; i++)
		r = nl_addr_add(nl, link.ifindex, &rec->addrs[i].addr,
				wire_bits(&rec->addrs[i].addr));
	if (r < 0)
		return r;
	*ret_step = "bring the interface up";
	r = nl_link_up(nl, link.ifindex);
	if (r < 0)
		return r;
	*ret_step = "add the routes";
	r = pod_family(nl, link.ifindex, rec, true);
	return r < 0 ? r : pod_family(nl, link.ifindex, rec, false);
}

int wire_pod(const struct netns *ns, const struct record *rec, struct wag_err *err)
{
	const char *step = "enter the namespace";
	int r, left;

	r = netns_enter(ns);
	if (r == 0) {
		r = pod_setup(rec, &step);
		left = netns_leave(ns);
		if (left < 0)
			return wag_err_set(err, CNI_E_KERNEL, "cannot leave the container: %s",
					   strerror(-left));
	}
	if (r < 0)
		return wag_err_set(err, CNI_E_KERNEL, "container's %s: cannot %s: %s", rec->ifname,
				   step, strerror(-r));
	return 0;
}

int wire_remove(struct nl *nl, const struct record *rec, struct wag_err *err)
{
	struct nl_link link;
	int r;

	r = nl_link_get(nl, rec->host_ifname, &link);
	if (r == -ENODEV)
		return 0;
	if (r == 0 && strcmp(link.kind, "veth") != 0)
		return wag_err_set(err, CNI_E_KERNEL, "%s is not a veth: not ours to remove",
				   rec->host_ifname);
	if (r == 0)
		r = unlink_veth(nl, link.ifindex);
	/* The namespace may take the pair with it at the same moment. */
	if (r < 0 && r != -ENODEV)
		return wag_err_set(err, CNI_E_KERNEL, "cannot remove %s: %s", rec->host_ifname,
				   strerror(-r));
	return 0;
}
