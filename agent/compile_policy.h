/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policies, Pods, Namespaces, Nodes and the pods of this node -> the tables of abi_policy.h: no I/O
 * and no clock. It is told of changes and works out what follows from them.
 *
 * An identity is a class of addresses that no rule in use tells apart: what its owner's labels, its
 * place among the CIDRs and its named ports make it. A ruleset is what the policies that select a
 * pod say for one direction; pods of which the same policies say the same share it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/abi_policy.h>
#include <waggle/deltamap.h>

#include "model.h"

enum policy_table {
	POLICY_IPCACHE, /* wag_ipcache_key -> wag_ipcache */
	POLICY_POD,	/* wag_policy_key -> wag_policy */
	POLICY_RULE,	/* wag_rule_key -> __u32 */
	POLICY_PORT,	/* wag_port_key -> __u32 */
	POLICY_PORT_EXACT, /* the same, of single ports */
	POLICY_TABLES,	/* those that have generations */
};

/* The most of each; 0: the default. */
struct policy_limits {
	size_t entries[POLICY_TABLES];
	size_t identities;
};

struct policy_endpoint {
	uint32_t ep_id;
	const char *ns, *pod;
	const struct wag_addr *addrs;
	size_t n_addrs;
};

struct policy_compiler;

int policy_compiler_new(struct policy_compiler **ret, const struct policy_limits *limits);
void policy_compiler_free(struct policy_compiler *c);
void policy_compiler_freep(struct policy_compiler **c);

/*
 * As model_on_change(): an object has come, and stands still until it goes. Kinds that policy does
 * not depend on are nothing. 0 or -ENOMEM.
 */
int policy_compiler_change(struct policy_compiler *c, const struct object *obj, bool gone);
/* A pod of this node: it is judged. Its addresses count though its Pod may not show them yet. */
int policy_compiler_endpoint(struct policy_compiler *c, const struct policy_endpoint *ep);
void policy_compiler_endpoint_gone(struct policy_compiler *c, uint32_t ep_id);

/*
 * A policy is not in force as it stands; why is a sentence's end. With old, its last version is.
 * Said once, until the policy changes or the reason does.
 */
typedef void (*policy_refused_fn)(const char *ns, const char *name, const char *why, bool old,
				  void *ctx);
/*
 * Brings the tables up to date. 0 or -ENOMEM; -E2BIG: they do not fit though no policy has changed,
 * and must not be put in force.
 */
int policy_compiler_run(struct policy_compiler *c, policy_refused_fn refused, void *ctx);

/*
 * What should be in force: the desired sides, keys with generation 0. The actual sides are the
 * caller's.
 */
struct deltamap *policy_compiler_table(struct policy_compiler *c, enum policy_table table);
/* Likewise: __u32 rule -> wag_rule_name. Without generations. */
struct deltamap *policy_compiler_names(struct policy_compiler *c);
/* Does any policy select pods of the namespace, whatever their labels? */
bool policy_compiler_selects(const struct policy_compiler *c, const char *ns);
/* Those that are not in force as they stand now. */
void policy_compiler_visit_refused(const struct policy_compiler *c, policy_refused_fn fn,
				   void *ctx);
bool policy_compiler_full(const struct policy_compiler *c); /* the last run returned -E2BIG */
/* Is the endpoint's Pod known? What is not known is judged as a pod without labels. */
bool policy_compiler_knows(const struct policy_compiler *c, uint32_t ep_id);
bool policy_compiler_has_some(const struct policy_compiler *c); /* is there any policy? */
/*
 * Must all Pods of the cluster be known? So it is, and stays, once a policy of a pod of this node
 * speaks of pods. To be asked before a run that may need them.
 */
bool policy_compiler_wants_pods(struct policy_compiler *c);

/* 0 or -ENOENT. */
int policy_compiler_rule(const struct policy_compiler *c, uint32_t rule, struct wag_rule_name *ret);

struct policy_stats {
	size_t policies, refused, identities, rulesets, profiles, cidrs, pods;
};
void policy_compiler_stats(const struct policy_compiler *c, struct policy_stats *ret);
