/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Keys and values of the policy maps (docs/maps.md "Policy"). Every key has a generation: packets
 * are judged by the one that wag_runtime.policy_epoch names, while another one is written. With a
 * third, the one written is not the one whose last readers may still be about.
 */
#pragma once

#include <linux/types.h>
#include <waggle/abi_addr.h>

#define WAG_POLICY_GENS 3

/* The generation an epoch puts in force. No epoch ends in binary 11. */
static inline __u32 wag_policy_gen(__u32 epoch)
{
	return epoch & 3;
}

/* Entries of each map; one generation may have its share. */
#define WAG_IPCACHE_MAX (131072 * WAG_POLICY_GENS)
#define WAG_POLICY_MAX (2048 * WAG_POLICY_GENS)
#define WAG_RULE_MAX (131072 * WAG_POLICY_GENS)
#define WAG_PORT_MAX (65536 * WAG_POLICY_GENS) /* of single ports, and of the others */
#define WAG_RULES_MAX 32768 /* rules of all policies */

/* What a table says of a flow: two bits of action, and which rule decided. 0 is not used. */
enum wag_verdict_action {
	WAG_VERDICT_PORTS = 0, /* the rest is a profile: its ports say it (wag_port) */
	WAG_VERDICT_ALLOW = 1,
	WAG_VERDICT_DENY = 2,	  /* a rule says so */
	WAG_VERDICT_ISOLATED = 3, /* no rule allows it; the rule is the policy that isolates */
};
#define WAG_VERDICT(action, rule) ((__u32)(action) << 30 | (rule))
#define WAG_VERDICT_ACTION(v) ((v) >> 30)
#define WAG_VERDICT_RULE(v) ((v) & 0x3fffffffU)

/* ---- wag_ipcache: LPM_TRIE wag_ipcache_key -> wag_ipcache. Whose an address is. ---- */
struct wag_ipcache_key {
	__u32 bits; /* 32 more than the prefix of the 128 */
	__u32 gen;
	__be32 addr[4];
};

struct wag_ipcache {
	__u32 identity; /* 0: nobody's that a rule names */
	__u32 flags;	/* WAG_IPCACHE_* */
};
#define WAG_IPCACHE_UNKNOWN 1U /* a pod could have it, and none is known that has */

/* ---- wag_policy: HASH wag_policy_key -> wag_policy. Local pods that some policy selects. ---- */
struct wag_policy_key {
	__u32 ep_id;
	__u32 gen;
};

struct wag_policy {
	__u32 ruleset[2]; /* by direction: 0 ingress, 1 egress; 0: everything is allowed */
	__u32 verdict[2]; /* of a peer that has no entry in wag_rule */
	__u32 flags;	  /* WAG_POLICY_* */
	__u16 identity[2]; /* of its IPv4 and IPv6 address, as wag_ipcache has it; 0: ask there */
};
#define WAG_POLICY_AUDIT 1U /* what would be dropped is only told */

/* ---- wag_rule: HASH wag_rule_key -> __u32 verdict of a peer under one ruleset. ---- */
struct wag_rule_key {
	__u32 ruleset; /* of one direction */
	__u32 identity;
	__u32 gen;
};

/*
 * ---- wag_port_exact: HASH, wag_port: LPM_TRIE wag_port_key -> __u32 verdict. ----
 * Single ports (96 bits), asked first: a trie is the slower the more it holds. And all others.
 */
struct wag_port_key {
	__u32 bits; /* 64: any protocol; 80: any port of it; up to 96 */
	__u32 gen;
	__u32 profile;
	__be16 proto;
	__be16 port;
};

/* ---- wag_rule_stat: PERCPU_ARRAY of wag_stat, index a rule. What it has judged. ---- */

/* ---- wag_rule_name: HASH __u32 rule -> wag_rule_name, userspace only. ---- */
struct wag_rule_name {
	__u8 tier;	/* 0 Admin, 1 NetworkPolicy, 2 Baseline */
	__u8 direction; /* 0 ingress, 1 egress */
	__u16 index;	/* of the rule in its policy; 0xffff: the policy's isolation */
	__u32 pad;
	char ns[64];	/* empty: ClusterNetworkPolicy */
	char name[256];
	char rule[104]; /* its own name, if it has one */
};

_Static_assert(sizeof(struct wag_ipcache_key) == 24, "wag_ipcache_key");
_Static_assert(sizeof(struct wag_policy) == 24, "wag_policy");
_Static_assert(sizeof(struct wag_rule_key) == 12, "wag_rule_key");
_Static_assert(sizeof(struct wag_port_key) == 16, "wag_port_key");
