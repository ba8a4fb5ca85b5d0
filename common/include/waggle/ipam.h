/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address leases on disk. Below STATE/ipam/, one directory a range:
 *   RANGE/leases/ADDRESS  one line: "leased|released BOOT_ID TIME_MS CONTAINER IFNAME"
 *   RANGE/queue           u64 offsets of released addresses, oldest first
 *   RANGE/cursor          struct: the boot, the first address never given, the head of the queue
 *
 * Addresses form one queue: first those never given, then the released ones in the order of their
 * release. None is given again before IPAM_QUARANTINE_MS. All of it costs the same for a /24 and a
 * /64. The lease file is the truth; queue and cursor are made anew from the leases when the boot id
 * is another one or the range seems exhausted, so a kill between any two steps loses nothing.
 */
#pragma once

#include <stdint.h>
#include <waggle/abi_addr.h>
#include <waggle/err.h>

#define IPAM_QUARANTINE_MS 30000
#define IPAM_RANGE_KEY 64
/* A range larger than this gives a released address rather than keep a file of each ever used. */
#define IPAM_QUEUE_LONG 4096

struct ipam_range {
	struct wag_addr subnet;
	unsigned bits;	      /* in the address's own family */
	uint64_t first, last; /* offsets in the subnet that may be given */
	uint64_t gateway;     /* offset never given */
};

struct ipam_owner {
	const char *container_id;
	const char *ifname;
};

struct ipam {
	int lock_fd;
	char dir[272];
	char boot_id[40];
	int64_t now_ms; /* CLOCK_BOOTTIME; given by the caller so that tests own the clock */
};

/* Takes the lock of the whole store until ipam_done(). 0 or -errno. */
int ipam_init(struct ipam *ipam, const char *state_dir, const char *boot_id, int64_t now_ms);
void ipam_done(struct ipam *ipam);

void ipam_range_key(const struct ipam_range *range, char buf[IPAM_RANGE_KEY]);
uint64_t ipam_range_size(const struct ipam_range *range);

/*
 * One address out of the ranges, tried in order. Returns 0 and the range's index, -EADDRNOTAVAIL
 * when all are taken, or -errno; err has the text.
 */
int ipam_allocate(struct ipam *ipam, const struct ipam_range *ranges, unsigned count,
		  const struct ipam_owner *owner, struct wag_addr *ret, unsigned *ret_range,
		  struct wag_err *err);
/* To the back of the queue. 0 also when the owner does not hold it. */
int ipam_release(struct ipam *ipam, const char *range_key, const struct wag_addr *addr,
		 const struct ipam_owner *owner);
/* Releases whatever the owner holds, by reading every lease: for what a killed ADD left. */
int ipam_release_all(struct ipam *ipam, const struct ipam_owner *owner);
