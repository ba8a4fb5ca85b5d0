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

#include <stdbool.h>
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

/* What stands in a lease's file. */
struct ipam_lease {
	bool leased;	  /* else released */
	char boot_id[40]; /* empty: the file was torn by a power cut */
	int64_t time_ms;  /* CLOCK_BOOTTIME of that boot: given or released */
	char container_id[128];
	char ifname[16];
};

struct ipam_usage {
	uint64_t capacity, used, quarantined; /* addresses; the rest is free */
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

/*
 * A subnet all of whose addresses may be given but its own, the first (the gateway), and IPv4's
 * broadcast. -EINVAL: no CIDR, host bits set, or a prefix not within 8..30 (IPv6: 8..126).
 */
int ipam_range_parse(const char *cidr, struct ipam_range *ret);
int ipam_range_from_key(const char *key, struct ipam_range *ret); /* subnet and bits only */
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
/*
 * Makes the owner the holder of this very address, or rewrites its lease. -EEXIST: another one
 * holds it; -ERANGE: it is not one of the range that may be given.
 */
int ipam_take(struct ipam *ipam, const struct ipam_range *range, const struct wag_addr *addr,
	      const struct ipam_owner *owner);

/* ---- reading: needs no lock; a lease's file is whole at any time ---- */

int ipam_boot_id(char buf[40]);	 /* of this boot; 0 or -errno */
int64_t ipam_now_ms(void);	 /* CLOCK_BOOTTIME */
int ipam_lease_read(int leases_fd, const char *name, struct ipam_lease *ret);
/*
 * Calls fn for each lease on disk of one range, or of all where range_key is NULL, in no order;
 * not 0 from fn stops. range has subnet and bits only. Nothing there yet: 0.
 */
typedef int (*ipam_lease_fn)(const struct ipam_range *range, const struct wag_addr *addr,
			     const struct ipam_lease *lease, void *ctx);
int ipam_visit(const char *state_dir, const char *range_key, ipam_lease_fn fn, void *ctx);
/* 0 or -errno. A lease of another boot counts as free. */
int ipam_usage(const char *state_dir, const struct ipam_range *range, const char *boot_id,
	       int64_t now_ms, struct ipam_usage *ret);
/* Held, or not to be given yet: by this boot's word. */
bool ipam_lease_holds(const struct ipam_lease *lease, const char *boot_id);
bool ipam_lease_waits(const struct ipam_lease *lease, const char *boot_id, int64_t now_ms);
