// SPDX-License-Identifier: Apache-2.0
#include <net/if_arp.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>
#include <waggle/addr.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include <waggle/sysctl.h>
#include "node_addr.h"
#include "node_qdisc.h"
#include "node_port.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71 /* Linux 5.14 */
#endif

struct link_fact {
	struct nl_link link;
	bool global, route;
};

struct reading {
	struct node_facts *facts;
	struct nl_addr *addrs; /* as many as facts has, in the same order */
	struct link_fact *links;
	size_t n_links;
	struct nl_qdisc *qdiscs;
	size_t n_qdiscs;
	int err;
};

bool node_device_ignored(const char *name)
{
	static const char *const prefixes[] = { "wag", "docker", "cni", "br-", "virbr", "lxc" };

	if (strcmp(name, "lo") == 0)
		return true;
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
		if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	return false;
}

bool node_addr_is_global(const struct wag_addr *addr)
{
	if (wag_addr_is_v4(addr))
		return addr->b[12] != 127 && !(addr->b[12] == 169 && addr->b[13] == 254);
	if (addr->b[0] == 0xfe && (addr->b[1] & 0xc0) == 0x80)
		return false;
	return addr->d[0] || addr->w[2] || addr->w[3] != htonl(1);
}

bool node_device_listed(const char *list, const char *name)
{
	size_t want = strlen(name);

	for (const char *p = list; p && *p;) {
		size_t n = strcspn(p, ",");

		if (n == want && strncmp(p, name, n) == 0)
			return true;
		p += n + (p[n] == ',');
	}
	return false;
}

static int on_link(const struct nl_link *link, void *ctx)
{
	struct reading *r = ctx;
	struct link_fact *links = reallocarray(r->links, r->n_links + 1, sizeof(*links));

	if (!links) {
		r->err = -ENOMEM;
		return 1;
	}
	r->links = links;
	links[r->n_links++] = (struct link_fact){ .link = *link };
	return 0;
}

static int on_qdisc(const struct nl_qdisc *qdisc, void *ctx)
{
	struct reading *r = ctx;
	struct nl_qdisc *qdiscs = reallocarray(r->qdiscs, r->n_qdiscs + 1, sizeof(*qdiscs));

	if (!qdiscs) {
		r->err = -ENOMEM;
		return 1;
	}
	r->qdiscs = qdiscs;
	qdiscs[r->n_qdiscs++] = *qdisc;
	return 0;
}

static struct link_fact *link_by_index(struct reading *r, uint32_t ifindex)
{
	for (size_t i = 0; i < r->n_links; i++)
		if (r->links[i].link.ifindex == ifindex)
			return &r->links[i];
	return NULL;
}

static struct link_fact *link_by_name(struct reading *r, const char *name)
{
	for (size_t i = 0; i < r->n_links; i++)
		if (strcmp(r->links[i].link.name, name) == 0)
			return &r->links[i];
	return NULL;
}

static int on_addr(const struct nl_addr *a, void *ctx)
{
	struct reading *r = ctx;
	struct node_facts *f = r->facts;
	struct sync_node_addr *addrs = reallocarray(f->addrs, f->n_addrs + 1, sizeof(*addrs));
	struct nl_addr *all = reallocarray(r->addrs, f->n_addrs + 1, sizeof(*all));
	struct link_fact *link = link_by_index(r, a->ifindex);
	bool global = node_addr_is_global(&a->addr);

	f->addrs = addrs ? addrs : f->addrs;
	r->addrs = all ? all : r->addrs;
	if (!addrs || !all) {
		r->err = -ENOMEM;
		return 1;
	}
	all[f->n_addrs] = *a;
	addrs[f->n_addrs++] =
		(struct sync_node_addr){ a->addr,
					 { a->ifindex,
					   link && strcmp(link->link.name, "lo") == 0 && !global
						   ? WAG_NODE_ADDR_LOOPBACK
						   : 0 } };
	if (link && global)
		link->global = true;
	return 0;
}

static void add_default_route(struct reading *r, const char *dev, const struct wag_addr *router)
{
	struct link_fact *link = link_by_name(r, dev);
	struct node_facts *f = r->facts;

	if (link)
		link->route = true;
	if (node_addr_is_global(router) && f->n_routers < NODE_ROUTERS_MAX)
		f->routers[f->n_routers++] = *router;
}

/* The kernel's text tables say less than rtnetlink, but all that is asked here. */
static void read_default_routes(struct reading *r)
{
	_cleanup_fclose_ FILE *v4 = fopen("/proc/self/net/route", "re");
	_cleanup_fclose_ FILE *v6 = fopen("/proc/self/net/ipv6_route", "re");
	char line[512], name[32], dst[40], via[40];
	struct wag_addr router;
	unsigned bits, gw;

	while (v4 && fgets(line, sizeof(line), v4)) {
		if (sscanf(line, "%31s %8s %8x", name, dst, &gw) != 3 ||
		    strcmp(dst, "00000000") != 0)
			continue;
		router = wag_addr_from_v4(gw); /* the table prints it as it stands in memory */
		add_default_route(r, name, &router);
	}
	while (v6 && fgets(line, sizeof(line), v6)) {
		if (sscanf(line, "%32s %2x %*s %*s %32s %*s %*s %*s %*s %31s", dst, &bits, via,
			   name) != 4 ||
		    bits != 0)
			continue;
		memset(&router, 0, sizeof(router));
		for (size_t i = 0; i < 16 && sscanf(via + 2 * i, "%2x", &gw) == 1; i++)
			router.b[i] = (__u8)gw;
		add_default_route(r, name, &router);
	}
}

/* A device that leads somewhere, and is not one that pods or containers hang on. */
static bool node_device_found(const struct link_fact *l)
{
	if (l->route)
		return strcmp(l->link.name, "lo") != 0;
	return l->global && !node_device_ignored(l->link.name);
}

static void add_word(char *text, size_t size, const char *word)
{
	size_t len = strlen(text);

	snprintf(text + len, size - len, " %s", word);
}

static int choose_devices(struct reading *r, const char *wanted)
{
	struct node_facts *f = r->facts;
	bool automatic = !wanted || !wanted[0];

	f->devices = calloc(r->n_links + 1, sizeof(*f->devices));
	f->tables = calloc(r->n_links + 1, sizeof(*f->tables));
	if (!f->devices || !f->tables)
		return -ENOMEM;
	for (size_t i = 0; i < r->n_links; i++) {
		const struct link_fact *l = &r->links[i];
		struct dp_device *d = &f->devices[f->n_devices];

		if (automatic ? !node_device_found(l) : !node_device_listed(wanted, l->link.name))
			continue;
		if (l->link.type != ARPHRD_ETHER) { /* the programs read an Ethernet header */
			add_word(f->headerless, sizeof(f->headerless), l->link.name);
			continue;
		}
		d->ifindex = l->link.ifindex;
		memcpy(d->name, l->link.name, sizeof(d->name));
		f->tables[f->n_devices].ifindex = d->ifindex;
		f->tables[f->n_devices].value.mtu = l->link.mtu;
		f->n_devices++;
		if (l->link.mtu && (!f->mtu || l->link.mtu < f->mtu))
			f->mtu = l->link.mtu;
	}
	return 0;
}

/* One the kernel would take as a source: not a second one of its subnet, not on its way out. */
static bool is_primary(const struct nl_addr *a)
{
	return node_addr_is_global(&a->addr) &&
	       !(a->flags &
		 (IFA_F_SECONDARY | IFA_F_DEPRECATED | IFA_F_TENTATIVE | IFA_F_DADFAILED));
}

/* The first primary address of a family is what packets without one leave a device with. */
static int describe_devices(struct reading *r)
{
	struct node_facts *f = r->facts;

	f->subnets = calloc(f->n_addrs + 1, sizeof(*f->subnets));
	if (!f->subnets)
		return -ENOMEM;
	for (size_t i = 0; i < f->n_addrs; i++) {
		const struct nl_addr *a = &r->addrs[i];
		struct node_device *d = NULL;
		struct wag_addr *first;

		for (size_t n = 0; n < f->n_devices && !d; n++)
			if (f->tables[n].ifindex == a->ifindex)
				d = &f->tables[n];
		if (!d || !node_addr_is_global(&a->addr))
			continue;
		f->subnets[f->n_subnets++] = (struct node_subnet){ { a->addr, a->bits },
								   a->ifindex, d->value.mtu };
		first = wag_addr_is_v4(&a->addr) ? &d->value.v4 : &d->value.v6;
		if (wag_addr_is_zero(first) && is_primary(a))
			*first = a->addr;
	}
	return 0;
}

/* Best first: on a served device with a default route, on a served device, anywhere but pods. */
static unsigned rank(struct reading *r, uint32_t ifindex)
{
	const struct link_fact *l = link_by_index(r, ifindex);

	if (!l)
		return 0;
	for (size_t i = 0; i < r->facts->n_devices; i++)
		if (r->facts->devices[i].ifindex == ifindex)
			return l->route ? 3 : 2;
	return strncmp(l->link.name, "wag", 3) != 0;
}

static void choose_main_addrs(struct reading *r)
{
	struct node_facts *f = r->facts;
	unsigned best4 = 0, best6 = 0;

	for (size_t i = 0; i < f->n_addrs; i++) {
		const struct sync_node_addr *a = &f->addrs[i];
		bool v4 = wag_addr_is_v4(&a->addr);
		unsigned *best = v4 ? &best4 : &best6;
		unsigned value = rank(r, a->value.ifindex) * 2 + is_primary(&r->addrs[i]);

		if (!node_addr_is_global(&a->addr) || value < 2 || value <= *best)
			continue;
		*best = value;
		*(v4 ? &f->v4 : &f->v6) = a->addr;
	}
}

static bool all_paced(const struct reading *r)
{
	const struct node_facts *f = r->facts;

	for (size_t i = 0; i < f->n_devices; i++)
		if (!qdiscs_pace(r->qdiscs, r->n_qdiscs, f->devices[i].ifindex))
			return false;
	return f->n_devices > 0;
}

int node_facts_read(struct node_facts *ret, struct nl *nl, const char *wanted)
{
	struct node_facts f = { 0 };
	struct reading r = { .facts = &f };
	int e = nl_link_list(nl, on_link, &r);

	if (e == 0)
		e = nl_addr_list(nl, on_addr, &r);
	if (e == 0)
		e = nl_qdisc_list(nl, on_qdisc, &r);
	if (r.err < 0)
		e = r.err;
	if (e == 0) {
		read_default_routes(&r);
		e = choose_devices(&r, wanted);
	}
	if (e == 0)
		e = describe_devices(&r);
	if (e == 0)
		choose_main_addrs(&r);
	f.paced = all_paced(&r);
	free(r.links);
	free(r.addrs);
	free(r.qdiscs);
	if (e < 0)
		node_facts_done(&f);
	else
		*ret = f;
	return e;
}

void node_facts_ports(struct node_facts *f, const char *nodeport_addresses,
		      const struct wag_addr *v4, const struct wag_addr *v6)
{
	for (size_t i = 0; i < f->n_addrs; i++) {
		struct sync_node_addr *a = &f->addrs[i];

		if (!node_port_serves(nodeport_addresses, &a->addr,
				      wag_addr_is_v4(&a->addr) ? v4 : v6))
			a->value.flags |= WAG_NODE_ADDR_NO_NODE_PORT;
	}
}

void node_facts_done(struct node_facts *f)
{
	free(f->addrs);
	free(f->devices);
	free(f->tables);
	free(f->subnets);
	*f = (struct node_facts){ 0 };
}

int node_sysctls(struct wag_err *err)
{
	static const char *const paths[] = {
		"/proc/sys/net/ipv4/ip_forward",
		"/proc/sys/net/ipv6/conf/all/forwarding",
		"/proc/sys/net/ipv4/conf/lo/accept_local",
	};

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		int r = sysctl_ensure(paths[i], '1');
		if (r < 0 && r != -ENOENT) /* no IPv6 in this kernel */
			return wag_err_set(err, r,
					   "%s: %s (pods need it to be 1: set it with sysctl)",
					   paths[i], strerror(-r));
	}
	return 0;
}

/* Before Linux 5.14 only BPF sees the cookie: see wag_netns_learn in abi_maps.h. */
static int learn_cookie(struct dataplane *dp, int sock, uint64_t *ret)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	int fd = dataplane_map_fd(dp, "wag_netns_learn");
	uint32_t token = 0;
	uint64_t cookie = 0;
	int r = 0;

	if (getrandom(&token, sizeof(token), 0) != sizeof(token))
		return -EIO;
	token = (token & 0xff0000) | (token & 0xffff) | 1;
	to.sin_addr.s_addr = htonl(WAG_LEARN_V4 | token >> 16);
	to.sin_port = htons((uint16_t)token);
	if (fd < 0)
		return fd;
	r = bpfsys_map_update(fd, &token, &cookie, 0);
	if (r < 0)
		return r;
	/* No route to it is no matter: the program runs before routing. */
	if (connect(sock, (struct sockaddr *)&to, sizeof(to)) < 0)
		r = -errno;
	if (bpfsys_map_lookup(fd, &token, &cookie) == 0 && cookie)
		r = 0;
	else if (r == 0)
		r = -ENOENT;
	bpfsys_map_delete(fd, &token);
	*ret = cookie;
	return r;
}

static void forget_other_nodes(int fd, uint64_t own)
{
	uint64_t key = 0, next;
	struct wag_netns value;
	bool first = true;

	while (bpfsys_map_next_key(fd, first ? NULL : &key, &next) == 0) {
		key = next;
		first = false;
		if (key == own || bpfsys_map_lookup(fd, &key, &value) < 0 ||
		    !(value.flags & WAG_NETNS_HOST))
			continue;
		bpfsys_map_delete(fd, &key);
		first = true;
	}
}

int node_register_netns(struct dataplane *dp, struct wag_err *err)
{
	_cleanup_close_ int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const struct wag_netns value = { .flags = WAG_NETNS_HOST };
	int fd = dataplane_map_fd(dp, "wag_netns"), r = 0;
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	if (sock < 0)
		return wag_err_set(err, -errno, "socket: %s", strerror(errno));
	if (getsockopt(sock, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) < 0)
		r = learn_cookie(dp, sock, &cookie);
	if (r < 0)
		return wag_err_set(err, r,
				   "the cookie of this network namespace cannot be learnt (%s): "
				   "before Linux 5.14 the agent itself must run below --cgroup",
				   strerror(-r));
	r = bpfsys_map_update(fd, &cookie, &value, 0);
	if (r < 0)
		return wag_err_set(err, r, "map wag_netns: %s", strerror(-r));
	forget_other_nodes(fd, cookie);
	return 0;
}
