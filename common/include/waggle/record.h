/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One attachment (container id + interface name) on disk: STATE/endpoints/<ep_id>.json. The CNI
 * plugin writes it before anything else is made and removes it after everything else is gone, so
 * whatever a killed ADD leaves can be found from it. The agent watches the directory, and from a
 * record makes map entries and programs anew (endpoint_attach.h).
 *
 * ep_id is a hash of the attachment; where two collide, the next of RECORD_PROBES numbers. The host
 * side of a veth we made is named after it. All values are in host order unless typed __be*.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/abi_addr.h>

#define RECORD_PROBES 8
#define RECORD_ADDRS 8
#define RECORD_PORTS 64
#define RECORD_ROUTES 16

struct record {
	uint32_t ep_id;
	uint32_t ifindex; /* host side; 0: not made yet */
	bool ready;	  /* ADD came to its end */
	bool chained;	  /* another plugin made the interface: it is not ours to remove */
	char container_id[128];
	char ifname[16]; /* in the pod */
	char host_ifname[16];
	char network[128];
	char netns[256];
	char ns[64], pod[256], uid[64]; /* Kubernetes; may be empty */
	char boot_id[40];
	char ipam[64]; /* plugin the addresses are from; empty: our own leases */
	uint64_t netns_cookie; /* 0: nobody could tell */
	uint8_t mac[6], host_mac[6];
	uint32_t mtu, route_mtu; /* bytes; route_mtu 0: the interface's */
	uint64_t egress_rate, egress_burst;   /* what the pod sends; bit/s, bit; 0: no limit */
	uint64_t ingress_rate, ingress_burst; /* what the pod receives */
	unsigned addr_count;
	struct record_addr {
		struct wag_addr addr;
		char range[64]; /* ipam_range_key(); empty: from another plugin */
	} addrs[RECORD_ADDRS];
	unsigned route_count; /* of the pod, over its gateway, beside the default routes */
	struct record_route {
		struct wag_addr dst;
		unsigned bits; /* in the address's own family */
	} routes[RECORD_ROUTES];
	unsigned port_count;
	struct record_port {
		struct wag_addr host_addr; /* any address: ::ffff:0.0.0.0 or :: */
		uint16_t host_port;
		uint16_t port; /* of the pod's address of the same family */
		uint8_t proto; /* IPPROTO_* */
	} ports[RECORD_PORTS];
};

/* Never 0. */
uint32_t record_hash(const char *container_id, const char *ifname);
uint32_t record_ep_id(const char *container_id, const char *ifname, unsigned probe);
/* ep_id, names and MACs from the attachment. probe: 0 .. RECORD_PROBES - 1 */
void record_init(struct record *rec, const char *container_id, const char *ifname, unsigned probe);
/* 0 or -EBADMSG. */
int record_parse(const char *text, size_t size, struct record *ret);

/*
 * Locks the attachment against another ADD or DEL of it: an fd to close, or -errno (-EWOULDBLOCK
 * after timeout_ms). Makes the state directories.
 */
int record_lock(const char *state_dir, uint32_t hash, int timeout_ms);

/* 0; -ENOENT: no such record; -EBADMSG: unreadable; or -errno. */
int record_read(const char *state_dir, uint32_t ep_id, struct record *ret);
bool record_exists(const char *state_dir, uint32_t ep_id);
/* 0 and its probe; -ENOENT: no record of this attachment, then *ret_probe is a free one. */
int record_find(const char *state_dir, const char *container_id, const char *ifname,
		struct record *ret, unsigned *ret_probe);
/*
 * Calls fn for each record, in no order. One that cannot be read has rec NULL. Not 0 from fn stops.
 * No directory yet: 0.
 */
typedef int (*record_fn)(uint32_t ep_id, const struct record *rec, void *ctx);
int record_list(const char *state_dir, record_fn fn, void *ctx);
/* One nobody can read, of before a power cut. 0 or -errno. */
int record_discard(const char *state_dir, uint32_t ep_id);
/* Both need the attachment's lock. 0 or -errno. */
int record_write(const char *state_dir, const struct record *rec);
int record_remove(const char *state_dir, const struct record *rec);
