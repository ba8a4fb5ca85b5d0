/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a NetworkPolicy or ClusterNetworkPolicy says, in one form for both: an ordered list of rules
 * for each direction. Immutable once parsed, and shared by whoever holds a reference.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/abi_addr.h>

struct label;

enum sel_op { SEL_IN, SEL_NOT_IN, SEL_EXISTS, SEL_ABSENT };

struct sel_req {
	char *key;
	enum sel_op op;
	char **values;
	size_t n_values;
};

/* All of its requirements; none: everything. */
struct selector {
	struct sel_req *reqs;
	size_t n_reqs;
};

#define POLICY_NS_LABEL "kubernetes.io/metadata.name" /* every namespace has it, with its name */

enum policy_dir { POLICY_INGRESS, POLICY_EGRESS, POLICY_DIRS };
enum policy_tier { POLICY_ADMIN, POLICY_NETWORK, POLICY_BASELINE };
enum policy_action { POLICY_ACCEPT, POLICY_DENY, POLICY_PASS };

struct policy_port {
	char *name;	     /* of a container's port; NULL: by number */
	uint8_t proto;	     /* IPPROTO_*; 0 (only by name): the container port's own */
	uint16_t first, last; /* host order */
};

struct policy_cidr {
	struct wag_addr addr;
	uint8_t bits; /* of the 128 */
};

enum policy_peer_kind { PEER_PODS, PEER_NODES, PEER_CIDR };

struct policy_peer {
	enum policy_peer_kind kind;
	struct selector ns;  /* PEER_PODS */
	struct selector obj; /* the pods or nodes */
	struct policy_cidr cidr;
	struct policy_cidr *excepts;
	size_t n_excepts;
};

struct policy_rule {
	char *name; /* may be NULL */
	enum policy_action action;
	bool any_peer;
	struct policy_peer *peers; /* without any_peer: none matches nobody */
	size_t n_peers;
	bool any_port;
	struct policy_port *ports;
	size_t n_ports;
};

struct policy {
	unsigned refs;
	char *uid;	  /* of its object, for talking about it; may be NULL */
	char *unreadable; /* why nothing else here counts; NULL: it was read */
	enum policy_tier tier;
	uint32_t priority;	    /* lower first; not of POLICY_NETWORK */
	bool isolates[POLICY_DIRS]; /* POLICY_NETWORK: what no rule accepts is denied */
	struct selector ns, pods;   /* whom it is for */
	struct policy_rule *rules[POLICY_DIRS];
	size_t n_rules[POLICY_DIRS];
};

struct policy *policy_new(const char *uid); /* NULL: out of memory */
struct policy *policy_ref(struct policy *p); /* NULL is fine */
void policy_unref(struct policy *p);
bool policy_equal(const struct policy *a, const struct policy *b);

/* ns: the label POLICY_NS_LABEL counts as set to it, whatever labels say; NULL: no such label. */
bool selector_matches(const struct selector *s, const struct label *labels, size_t n,
		      const char *ns);
/* Appends key, one operator and its values. 0 or -ENOMEM; the caller owns s also then. */
int selector_add(struct selector *s, const char *key, enum sel_op op);
int selector_add_value(struct selector *s, const char *value); /* to the last requirement */
/* One text for each meaning that is spelt alike; the caller frees it. NULL: out of memory. */
char *selector_text(const struct selector *s);
char *policy_peers_text(const struct policy_rule *rule);
