/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything this node says of its pods' addresses: the leases of the store, the records of the
 * pods, the datapath's map; and where they contradict each other. Pure but for ipam_state_load().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <waggle/ipam.h>
#include <waggle/node_ranges.h>
#include <waggle/record.h>
#include "cli.h"

struct state_lease {
	struct ipam_range range; /* subnet and bits only */
	struct wag_addr addr;
	struct ipam_lease lease;
};

struct state_pod {
	struct wag_addr addr;
	uint32_t ep_id;
};

struct ipam_state {
	char boot_id[40];
	int64_t now_ms; /* CLOCK_BOOTTIME */
	struct node_ranges node; /* all zero: not written */
	struct state_lease *leases; /* sorted by address */
	size_t n_leases;
	struct record *records;
	size_t n_records, unreadable;
	struct state_pod *pods; /* of wag_pods */
	size_t n_pods;
	bool pods_known; /* the map is pinned */
};

enum ipam_problem {
	IPAM_OLD_BOOT,	      /* a lease that an earlier boot gave */
	IPAM_LEASE_NO_RECORD, /* a lease that no pod has */
	IPAM_RECORD_NO_LEASE, /* a pod's address that nobody holds */
	IPAM_MAP_NO_LEASE,    /* the datapath serves an address that nobody holds */
	IPAM_DUPLICATE,	      /* two pods have it, or two ranges gave it */
	IPAM_PROBLEMS,
};

struct ipam_finding {
	enum ipam_problem problem;
	struct wag_addr addr;
	const struct state_lease *lease; /* may be NULL */
	const struct record *record;	 /* whose address it is or should be; may be NULL */
};

/* 0 or -errno with err filled. The caller owns what is in ret, see ipam_state_done(). */
int ipam_state_load(struct ipam_state *ret, const struct cli *cli, struct wag_err *err);
void ipam_state_done(struct ipam_state *s);
#define _cleanup_ipam_state_ _cleanup_(ipam_state_done)

/* Of this boot; NULL: there is none. */
const struct record *ipam_state_record(const struct ipam_state *s, const char *container_id,
				       const char *ifname);
const struct state_lease *ipam_state_lease(const struct ipam_state *s, const struct wag_addr *addr);
bool ipam_record_has(const struct record *rec, const struct wag_addr *addr);
/* 0, or -ENOMEM; the caller frees *ret. */
int ipam_state_check(const struct ipam_state *s, struct ipam_finding **ret, size_t *ret_n);
