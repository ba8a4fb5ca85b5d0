/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One attachment (container id + interface name) on disk: STATE/endpoints/<ep_id>.json. It is
 * written before anything else is made and removed after everything else is gone, so whatever a
 * killed ADD leaves can be found from it. The agent watches the directory.
 *
 * ep_id is a hash of the attachment; where two collide, the next of RECORD_PROBES numbers. The host
 * side of the veth is named after it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <waggle/abi_addr.h>

#define RECORD_PROBES 8
#define RECORD_ADDRS 8

struct record {
	uint32_t ep_id;
	uint32_t ifindex; /* host side; 0: not made yet */
	bool ready;	  /* ADD came to its end */
	char container_id[128];
	char ifname[16]; /* in the pod */
	char host_ifname[16];
	char network[128];
	char netns[256];
	char ns[64], pod[256], uid[64]; /* Kubernetes; may be empty */
	char boot_id[40];
	uint8_t mac[6], host_mac[6];
	unsigned addr_count;
	struct record_addr {
		struct wag_addr addr;
		char range[64]; /* ipam_range_key() */
	} addrs[RECORD_ADDRS];
};

/* Never 0. */
uint32_t record_hash(const char *container_id, const char *ifname);
/* ep_id, names and MACs from the attachment. probe: 0 .. RECORD_PROBES - 1 */
void record_init(struct record *rec, const char *container_id, const char *ifname, unsigned probe);

/*
 * Locks the attachment against another ADD or DEL of it: an fd to close, or -errno (-EWOULDBLOCK
 * after timeout_ms). Makes the state directories.
 */
int record_lock(const char *state_dir, uint32_t hash, int timeout_ms);

/* 0 and its probe; -ENOENT: no record of this attachment, then *ret_probe is a free one. */
int record_find(const char *state_dir, const char *container_id, const char *ifname,
		struct record *ret, unsigned *ret_probe);
/* Both need the attachment's lock. 0 or -errno. */
int record_write(const char *state_dir, const struct record *rec);
int record_remove(const char *state_dir, const struct record *rec);
