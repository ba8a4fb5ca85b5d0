// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <string.h>

#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "chain.h"
#include "conf.h"

struct found {
	struct record *rec;
	uint32_t ifindex;
};

static bool is_link_local(const struct wag_addr *addr)
{
	return !wag_addr_is_v4(addr) && addr->b[0] == 0xfe && (addr->b[1] & 0xc0) == 0x80;
}

static int on_addr(const struct nl_addr *a, void *ctx)
{
	struct found *f = ctx;

	if (a->ifindex == f->ifindex && !is_link_local(&a->addr) &&
	    f->rec->addr_count < RECORD_ADDRS)
		f->rec->addrs[f->rec->addr_count++].addr = a->addr;
	return 0;
}

/* In the container's namespace. */
static int pod_look(struct record *rec, struct nl_link *ret)
{
	_cleanup_(nl_freep) struct nl *nl = NULL;
	struct found found = { .rec = rec };
	int r;

	r = nl_new(&nl);
	if (r == 0)
		r = nl_link_get(nl, rec->ifname, ret);
	if (r < 0 || rec->addr_count)
		return r;
	found.ifindex = ret->ifindex;
	return nl_addr_list(nl, on_addr, &found);
}

int chain_find(struct nl *nl, const struct netns *ns, struct record *rec, struct wag_err *err)
{
	struct nl_link pod, host;
	int r, left;

	r = netns_enter(ns);
	if (r == 0) {
		r = pod_look(rec, &pod);
		left = netns_leave(ns);
		if (left < 0)
			return wag_err_set(err, CNI_E_KERNEL, "cannot leave the container: %s",
					   strerror(-left));
	}
	if (r == -ENODEV)
		return wag_err_set(err, CNI_E_CONFIG,
				   "chainingMode: the container has no %s: the plugin before must "
				   "make it",
				   rec->ifname);
	if (r < 0)
		return wag_err_set(err, CNI_E_KERNEL, "container's %s: %s", rec->ifname,
				   strerror(-r));
	/* The other end names this one too, or it is some other link of the node's. */
	if (strcmp(pod.kind, "veth") != 0 ||
	    nl_link_get_by_index(nl, pod.peer_ifindex, &host) < 0 ||
	    strcmp(host.kind, "veth") != 0 || host.peer_ifindex != pod.ifindex)
		return wag_err_set(err, CNI_E_CONFIG,
				   "chainingMode: the container's %s is no veth with its other end "
				   "on the node",
				   rec->ifname);
	if (!rec->addr_count)
		return wag_err_set(err, CNI_E_CONFIG,
				   "chainingMode: neither prevResult nor the container's %s has an "
				   "address",
				   rec->ifname);
	rec->ifindex = host.ifindex;
	rec->mtu = pod.mtu;
	memcpy(rec->host_ifname, host.name, sizeof(rec->host_ifname));
	memcpy(rec->mac, pod.mac, sizeof(rec->mac));
	memcpy(rec->host_mac, host.mac, sizeof(rec->host_mac));
	return 0;
}
