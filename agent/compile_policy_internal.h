/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the files that make up the policy compiler:
 *   compile_policy.c    policies: what is told, what is in force
 *   compile_refusal.c   those that cannot be read or do not fit
 *   compile_peers.c	 which namespaces, pods and nodes the rules' selectors select
 *   compile_identity.c  whose an address is: pods and nodes, identities
 *   compile_cidr.c	 prefixes between the rules' CIDRs
 *   compile_ruleset.c   what a pod's policies say to each identity
 *   compile_ports.c	 what they say to each port
 */
#pragma once

#define HASH_NONFATAL_OOM 1 /* an element that was not added has no table */
#include <uthash.h>

#include "compile_policy.h"
#include "compile_ports.h"

struct bits {
	uint64_t *words;
	uint32_t n;
};

static inline bool bits_test(const struct bits *b, uint32_t i)
{
	return i / 64 < b->n && b->words[i / 64] >> i % 64 & 1;
}
int bits_set(struct bits *b, uint32_t i); /* 0 or -ENOMEM */
static inline void bits_clear(struct bits *b, uint32_t i)
{
	if (i / 64 < b->n)
		b->words[i / 64] &= ~(1ULL << i % 64);
}
static inline void bits_done(struct bits *b)
{
	free(b->words);
	*b = (struct bits){ 0 };
}

/* Small numbers that are used again. */
struct numbers {
	struct bits used;
	uint32_t hint; /* none below is free */
};

/* A selector over namespaces, interned: each namespace knows which select it. */
struct ns_sel {
	UT_hash_handle hh;
	unsigned refs;
	uint32_t index;
	struct policy *policy; /* holds sel */
	const struct selector *sel;
	char *text;
};

/* The peers of a rule: one bit of every identity says whether it is among them. */
struct peer_set {
	UT_hash_handle hh;
	unsigned refs;
	uint32_t bit;
	struct policy *policy; /* holds rule */
	const struct policy_rule *rule;
	struct ns_sel **ns; /* by peer; NULL where it is no pods' */
	bool labels, cidrs; /* what kinds of peers it has */
	bool fresh;	    /* nobody's bit is set yet */
	char *text;
};

struct ns {
	UT_hash_handle hh;
	const struct object *obj; /* may be NULL */
	struct bits sels;
	struct subject *pods;
	char name[];
};

/* A pod, or a node. */
struct subject {
	UT_hash_handle hh;
	const struct object *obj; /* NULL: only an endpoint tells of it */
	struct ns *ns;		  /* NULL: a node */
	struct subject *next, *prev; /* of the namespace */
	struct endpoint *ep;
	struct bits bits;
	struct port_names names; /* of its named ports those that rules name */
	struct wag_addr *addrs;
	size_t n_addrs;
	bool stale;  /* labels, names and addresses */
	bool queued;
	struct subject *queue_next;
	char key[]; /* "ns\0name" */
};

/* Who shares it is not told apart by any rule. */
struct identity {
	UT_hash_handle hh;
	uint32_t id;
	unsigned refs;
	bool fresh; /* no ruleset has it yet */
	struct bits bits; /* within key */
	struct port_names names;
	size_t key_len;
	char key[];
};

struct address {
	UT_hash_handle hh;
	struct wag_addr addr;
	struct subject **owners; /* the last who came is believed, a pod of this node before all */
	size_t n_owners;
	struct identity *id; /* NULL: 0 */
};

/* A prefix under which the CIDRs of all rules are the same ones, but for longer prefixes. */
struct region {
	struct policy_cidr cidr;
	uint32_t parent; /* index + 1 */
	uint32_t first_mark, n_marks;
	bool pods, unknown; /* pods' of some node; so is a parent */
	struct bits bits;
	struct identity *id;
};

struct regions {
	struct region *list; /* parents first */
	size_t n;
	struct cidr_mark *marks;
	bool stale;
};

struct used_name {
	UT_hash_handle hh;
	unsigned refs;
	char name[];
};

struct rule_ref {
	uint32_t id; /* of wag_rule_name */
};

struct crule {
	struct rule_ref *ref;
	struct peer_set *set; /* NULL: everybody, or (without any_peer) nobody */
	const struct policy_rule *rule;
};

/* One policy by name: as the cluster wants it, and as it is in force. */
struct pol {
	UT_hash_handle hh;
	struct policy *wanted;	/* NULL: gone */
	struct policy *policy;	/* in force; NULL: none */
	struct policy *before;	/* in force when this run began */
	uint32_t version;	/* of what is in force; never used twice */
	struct crule *rules[POLICY_DIRS];
	struct rule_ref *isolates[POLICY_DIRS];
	struct ns_sel *ns;
	bool queued, installed, refused;
	char *why; /* refused last time; NULL: it was not, or has changed since */
	char *name;
	char key[]; /* "ns\0name" */
};

struct pattern {
	UT_hash_handle hh;
	uint32_t verdict;
	size_t key_len;
	char key[]; /* which rules match, then (egress) the peer's named ports */
};

struct ruleset {
	UT_hash_handle hh, hh_all;
	uint32_t id;
	unsigned refs;
	enum policy_dir dir;
	bool fresh;
	struct port_match *matches;
	struct peer_set **sets; /* by match; NULL: see crule */
	size_t n;
	uint32_t isolates, verdict;
	struct port_names names; /* ingress: the pod's own */
	struct pattern *patterns;
	size_t key_len;
	char key[]; /* direction, versions of the policies, names */
};

struct endpoint {
	UT_hash_handle hh;
	uint32_t ep_id;
	struct subject *subject;
	struct wag_addr *addrs;
	size_t n_addrs;
	struct ruleset *rulesets[POLICY_DIRS];
	bool stale;
};

struct policy_compiler {
	struct policy_limits limits;
	struct deltamap tables[POLICY_TABLES], names;
	struct pol *pols;
	struct ns_sel *ns_sels;
	struct peer_set *sets;
	struct ns *namespaces;
	struct subject *subjects, *nodes, *queue;
	struct identity *identities;
	struct address *addresses;
	struct regions regions;
	struct used_name *used_names;
	struct ruleset *rulesets, *all_rulesets;
	struct endpoint *endpoints;
	struct profile_set profiles;
	struct numbers ns_numbers, set_numbers, id_numbers, ruleset_numbers;
	uint32_t next_version, next_rule, rules_beyond;
	bool names_stale, endpoints_stale, sets_fresh, ids_fresh, pols_queued, full;
	bool wants_pods; /* policy_compiler_wants_pods() */
	size_t n_refused;
};

#define IDENTITIES_DEFAULT 16384
_Static_assert(IDENTITIES_DEFAULT <= UINT16_MAX, "wag_policy.identity");

int number_take(struct numbers *n, uint32_t *ret);
void number_give(struct numbers *n, uint32_t i);

/* compile_policy.c */
int pol_install(struct policy_compiler *c, struct pol *pol, struct policy *p);
int policies_update(struct policy_compiler *c); /* the tables say what is installed */

/* compile_refusal.c */
struct refusal {
	policy_refused_fn fn;
	void *ctx;
};
/* Why it is not even tried; NULL: it may fit. */
const char *pol_hopeless(const struct policy *p, char *buf, size_t size);
/* What was in force before stays, and to is told once. */
int pol_refuse(struct policy_compiler *c, struct pol *pol, const char *why,
	       const struct refusal *to);
const char *table_too_small(const struct policy_compiler *c); /* NULL: everything fits */
/* Those that did not fit may, now that another one goes. */
void pols_queue_refused(struct policy_compiler *c);
/* Of those that came last the heaviest go: one by one, and when that does not help by halves. */
int pols_make_fit(struct policy_compiler *c, const struct refusal *to);

/* compile_peers.c */
int ns_sel_get(struct policy_compiler *c, struct policy *p, const struct selector *sel,
	       struct ns_sel **ret);
void ns_sel_put(struct policy_compiler *c, struct ns_sel *s);
int peer_set_get(struct policy_compiler *c, struct policy *p, const struct policy_rule *rule,
		 struct peer_set **ret);
void peer_set_put(struct policy_compiler *c, struct peer_set *set);
int ns_get(struct policy_compiler *c, const char *name, struct ns **ret);
int ns_change(struct policy_compiler *c, const struct object *obj, bool gone);
void ns_put(struct policy_compiler *c, struct ns *ns); /* where nobody is in it */
bool subject_in(const struct subject *s, const struct peer_set *set);
int peer_sets_judge(struct policy_compiler *c); /* the fresh ones */

/* compile_identity.c */
uint32_t address_identity(const struct policy_compiler *c, const struct wag_addr *addr);
int subject_get(struct policy_compiler *c, const char *ns, const char *name,
		struct subject **ret); /* ns "": a node */
void subject_queue(struct policy_compiler *c, struct subject *s, bool stale);
void subjects_queue_all(struct policy_compiler *c, bool stale);
/* Everything queued, fresh and stale is worked off: addresses have their identities. */
int identities_update(struct policy_compiler *c);
void identities_sweep(struct policy_compiler *c); /* those that nobody has */
int identity_get(struct policy_compiler *c, const struct bits *a, const struct bits *b,
		 const struct port_names *names, struct identity **ret);
bool address_known(const struct policy_compiler *c, const struct wag_addr *addr);
void identities_done(struct policy_compiler *c);

/* compile_cidr.c */
int regions_update(struct policy_compiler *c);
const struct region *region_find(const struct policy_compiler *c, const struct wag_addr *addr);
void regions_done(struct policy_compiler *c);

/* compile_ruleset.c */
int endpoints_update(struct policy_compiler *c); /* what selects them, and what that says */
void endpoint_done(struct policy_compiler *c, struct endpoint *ep);
/* An identity goes: no ruleset says anything of it. */
void rulesets_forget(struct policy_compiler *c, uint32_t identity);
