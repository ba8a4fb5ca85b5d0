/* SPDX-License-Identifier: Apache-2.0 */
/*
 * STATE/ipam/node.json: the node's pod ranges. The agent writes it; the CNI plugin gives addresses
 * out of "ranges" where its own configuration names none: one list a family, tried in order. No new
 * pod gets an address of "draining": those ranges are the node's no more, but pods still have
 * addresses of them.
 *
 *   {"mode": "kubernetes", "ranges": [["10.0.3.0/24", "10.0.9.0/24"], ["fd00:3::/64"]],
 *    "draining": ["10.0.1.0/24"]}
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <waggle/err.h>
#include <waggle/ipam.h>

#define NODE_RANGES_MAX 64 /* of one list */

struct node_range_list {
	struct ipam_range at[NODE_RANGES_MAX];
	size_t n;
};

struct node_ranges {
	char mode[16];			 /* "kubernetes" or "cluster-pool" */
	struct node_range_list family[2]; /* IPv4, IPv6 */
	struct node_range_list draining;
};

/* 0; -ENOENT: not written yet; -EBADMSG or another -errno with err saying what is wrong. */
int node_ranges_read(const char *state_dir, struct node_ranges *ret, struct wag_err *err);
int node_ranges_parse(const char *text, size_t size, struct node_ranges *ret,
		      struct wag_err *err);
/* Whole or not at all, and there after a power cut. 0 or -errno. */
int node_ranges_write(const char *state_dir, const struct node_ranges *ranges);

bool node_ranges_equal(const struct node_ranges *a, const struct node_ranges *b);
/* Into the list of its family. -EINVAL: not a range for pods; -E2BIG; 0 also when it is there. */
int node_ranges_add(struct node_ranges *ranges, const char *cidr);
int node_range_add(struct node_range_list *list, const struct ipam_range *range);
bool node_range_has(const struct node_range_list *list, const struct ipam_range *range);
void node_range_remove(struct node_range_list *list, size_t i);
const char *node_range_text(const struct ipam_range *range, char buf[IPAM_RANGE_KEY]); /* CIDR */
