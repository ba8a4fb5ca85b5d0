/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is kube-proxy's in the output of iptables-save, and how to take exactly that away.
 * kube-proxy is known by the names of its chains, of all its modes and ages; other chains whose
 * names begin with KUBE- are kubelet's or another program's, and stay. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct kube_chain {
	char *name;
	size_t rules;
	/* Somebody else's rule that leads here, or to a chain that leads here: it has to stay. */
	char *held_by; /* NULL: none */
};

struct kube_table {
	char *name;
	struct kube_chain **chains; /* kube-proxy's */
	size_t n_chains;
	char **jumps; /* kube-proxy's rules in built-in chains, as "-A ..." */
	size_t n_jumps;
	char **kubelet; /* names of kubelet's chains */
	size_t n_kubelet;
	char **others; /* names of other KUBE-* chains */
	size_t n_others;
};

struct kube_rules {
	struct kube_table *tables;
	size_t n;
};

/* text: of iptables-save or ip6tables-save. 0 or -ENOMEM; the caller has kube_rules_done() it. */
int kube_rules_parse(const char *text, struct kube_rules *ret);
void kube_rules_done(struct kube_rules *rules);
/* Is anything there that can be removed? */
bool kube_table_removable(const struct kube_table *t);
/* Input of iptables-restore --noflush that removes it; "" for nothing; caller frees. NULL: OOM. */
char *kube_rules_removal(const struct kube_rules *rules);
/* Is the ipset of this name one of kube-proxy's? */
bool kube_ipset(const char *name);
