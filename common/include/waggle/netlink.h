/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rtnetlink requests we need, over one socket, without a library: the CNI binary is static and
 * small (man 7 rtnetlink). Every call is one request and its answer, bounded by a 5 s deadline;
 * returns 0 or -errno. Replies are parsed defensively: see selftests/fuzz/fuzz_netlink.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/abi_addr.h>

struct nl;

int nl_new(struct nl **ret); /* in the caller's network namespace; caller owns *ret */
void nl_free(struct nl *nl);
void nl_freep(struct nl **nl);

/* The same for sockets of other processes in this namespace (man 7 sock_diag). */
int nl_new_diag(struct nl **ret);

struct nl_link {
	uint32_t ifindex;
	char name[16];
	char kind[16]; /* "veth", ... or empty */
	uint8_t mac[6];
	uint32_t mtu;
	uint32_t flags;	   /* IFF_* */
	uint16_t type;	   /* ARPHRD_*: what header its frames have */
	uint32_t peer_ifindex; /* IFLA_LINK, 0: none */
};

/* Makes a veth pair: host end in this namespace, peer end born in peer_netns_fd under peer_name. */
int nl_veth_add(struct nl *nl, const char *name, const char *peer_name, int peer_netns_fd,
		uint32_t mtu, const uint8_t mac[6], const uint8_t peer_mac[6]);
int nl_link_get(struct nl *nl, const char *name, struct nl_link *ret); /* -ENODEV: none */
int nl_link_get_by_index(struct nl *nl, uint32_t ifindex, struct nl_link *ret);
int nl_link_del(struct nl *nl, uint32_t ifindex);
int nl_link_up(struct nl *nl, uint32_t ifindex);
typedef int (*nl_link_fn)(const struct nl_link *link, void *ctx); /* not 0 stops */
int nl_link_list(struct nl *nl, nl_link_fn fn, void *ctx);

/* A UDP socket that is connected. */
struct nl_socket {
	struct wag_addr peer;
	uint64_t cookie; /* the kernel's, as BPF sees it */
	__be16 peer_port;
	uint8_t family; /* AF_INET, AF_INET6 */
	uint8_t id[48]; /* the kernel's own words for it */
};
typedef int (*nl_socket_fn)(const struct nl_socket *s, void *ctx); /* not 0 stops */
int nl_udp_list(struct nl *diag, nl_socket_fn fn, void *ctx); /* of both families */
/*
 * Its owner gets ECONNABORTED once, and it has no peer any more. -ENOENT: it is gone;
 * -EOPNOTSUPP: this kernel cannot (CONFIG_INET_DIAG_DESTROY).
 */
int nl_socket_destroy(struct nl *diag, const struct nl_socket *s);

int nl_addr_add(struct nl *nl, uint32_t ifindex, const struct wag_addr *addr, unsigned bits);
struct nl_addr {
	uint32_t ifindex;
	struct wag_addr addr;
	unsigned bits;
	uint8_t flags; /* the low ones of IFA_F_*: SECONDARY, DEPRECATED, TENTATIVE, ... */
};
typedef int (*nl_addr_fn)(const struct nl_addr *addr, void *ctx); /* not 0 stops */
int nl_addr_list(struct nl *nl, nl_addr_fn fn, void *ctx);

/* dst/bits via gw (may be NULL) on ifindex; scope link when gw is NULL; src (may be NULL). */
int nl_route_add(struct nl *nl, const struct wag_addr *dst, unsigned bits,
		 const struct wag_addr *gw, uint32_t ifindex, const struct wag_addr *src,
		 uint32_t mtu);
int nl_route_del(struct nl *nl, const struct wag_addr *dst, unsigned bits, uint32_t ifindex);
struct nl_route {
	struct wag_addr dst, gw, src; /* zero: none; dst of a default route: the family's any */
	unsigned bits;		      /* in the address's own family */
	uint32_t ifindex, mtu, priority, table;
	uint8_t protocol, type; /* RTPROT_*, RTN_* */
};
typedef int (*nl_route_fn)(const struct nl_route *route, void *ctx); /* not 0 stops */
int nl_route_list(struct nl *nl, nl_route_fn fn, void *ctx); /* of both families, every table */
/*
 * A unicast route of the main table with r's own protocol. Without replace -EEXIST if there is one
 * to the same prefix already, whosever it is. Priority and table of r count for nothing.
 */
int nl_route_put(struct nl *nl, const struct nl_route *r, bool replace);
/* The same with r's priority, over a gateway that no other route leads to (onlink). */
int nl_route_put_onlink(struct nl *nl, const struct nl_route *r, bool replace);
/* The route of exactly this protocol, priority and device; -ESRCH: there is none. */
int nl_route_drop(struct nl *nl, const struct nl_route *r);
int nl_neigh_add(struct nl *nl, uint32_t ifindex, const struct wag_addr *addr,
		 const uint8_t mac[6]);
struct nl_neigh {
	uint32_t ifindex;
	struct wag_addr addr;
	uint8_t mac[6];
	bool permanent;
};
typedef int (*nl_neigh_fn)(const struct nl_neigh *neigh, void *ctx); /* not 0 stops */
int nl_neigh_list(struct nl *nl, nl_neigh_fn fn, void *ctx);

/* A device for the tunnel to every other node: each packet says where to (collect metadata). */
struct nl_tunnel {
	char kind[16]; /* "vxlan" or "geneve" */
	uint16_t port; /* of UDP, host order */
	bool external; /* collects metadata */
	bool zero_csum6; /* UDP over IPv6 goes without a checksum, and comes so (RFC 6935) */
	/* Of UDP source ports, host order, the last one left out. Geneve's are the kernel's own. */
	uint16_t sport_min, sport_max;
};
#define NL_GENEVE_SPORT_MIN 1
#define NL_GENEVE_SPORT_MAX 65535
/* -EEXIST: the name is taken; -EOPNOTSUPP: the kernel has no such kind. */
int nl_tunnel_add(struct nl *nl, const char *name, const struct nl_tunnel *t, uint32_t mtu);
int nl_tunnel_get(struct nl *nl, const char *name, struct nl_tunnel *ret); /* -ENODEV: none */
/* Up, and without neighbour lookups: whom a packet is for is no matter of its MAC address. */
int nl_link_up_noarp(struct nl *nl, uint32_t ifindex);
int nl_link_set_mtu(struct nl *nl, uint32_t ifindex, uint32_t mtu);

/* clsact with one direct-action filter at a fixed handle and priority; replaces atomically. */
#define NL_TC_PRIO 0x7761 /* "wa" */
#define NL_TC_HANDLE 1
int nl_tc_attach(struct nl *nl, uint32_t ifindex, bool egress, int prog_fd, const char *name);
/* Another one ahead of it. */
int nl_tc_attach_first(struct nl *nl, uint32_t ifindex, bool egress, int prog_fd,
		       const char *name);
int nl_tc_detach(struct nl *nl, uint32_t ifindex, bool egress);
/* Id of the program our filter runs, or the one ahead of it; -ENOENT: there is none. */
int nl_tc_prog_id(struct nl *nl, uint32_t ifindex, bool egress, bool first, uint32_t *ret_id);
/* Our filters go, and with the last of them the clsact, unless somebody else's is there too. */
void nl_tc_remove(struct nl *nl, uint32_t ifindex);

struct nl_qdisc {
	uint32_t ifindex, handle, parent; /* TC_H_* */
	char kind[16];
};
typedef int (*nl_qdisc_fn)(const struct nl_qdisc *qdisc, void *ctx); /* not 0 stops */
int nl_qdisc_list(struct nl *nl, nl_qdisc_fn fn, void *ctx);

/*
 * Watches links, addresses and queueing: a non-blocking fd to poll; nl_monitor_read() drains it and
 * returns 1 if anything changed, 0 if not, -ENOBUFS if messages were lost (list again).
 */
int nl_monitor_open(void); /* fd or -errno; caller owns */
int nl_monitor_read(int fd);
/*
 * The same for routes: 1 only if one of this protocol was removed, or any was replaced, which may
 * have been one of ours.
 */
int nl_route_monitor_open(void);
int nl_route_monitor_read(int fd, uint8_t protocol);
