/* SPDX-License-Identifier: Apache-2.0 */
/* A pod's bandwidth: its entries of wag_limit, and the programs that look at them. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <waggle/abi_maps.h>
#include <waggle/err.h>
#include <waggle/netlink.h>
#include <waggle/record.h>

#define LIMIT_SIDES 2
struct limit_side {
	const char *prog;   /* its pin */
	uint32_t direction; /* WAG_LIMIT_* */
	bool egress;	    /* of the host side */
};
extern const struct limit_side limit_sides[LIMIT_SIDES];
/* What wag_limit should say of a side; false: the record has no rate for it. */
bool limit_wanted(const struct record *rec, const struct limit_side *side, struct wag_limit *ret);

/* Ahead of the other programs there; how: enum wag_attach. Nothing where the record has no rate. */
int limit_add(const char *pin_dir, struct nl *nl, const struct record *rec, uint32_t how,
	      struct wag_err *err);
/* The entries and links; a filter goes with its device. */
void limit_remove(const char *pin_dir, const char *ifname, uint32_t ifindex);
/* links/<ifname>_<ifindex>_{ingress,egress}_limit, egress as the host side sees it. 0 or -errno. */
int limit_link_path(char *buf, size_t size, const char *pin_dir, const char *ifname,
		    uint32_t ifindex, bool egress);
