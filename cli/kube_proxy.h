/* SPDX-License-Identifier: Apache-2.0 */
/* What kube-proxy has left in this network namespace, and taking it away. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/err.h>
#include "kube_rules.h"

/* One way to the kernel's rules: legacy or nf_tables, IPv4 or IPv6. */
struct kube_backend {
	const char *what, *save, *restore; /* static */
	struct kube_rules rules;
};

#define KUBE_BLIND 4
#define KUBE_BACKENDS 4
#define KUBE_NFT_TABLES 2

struct kube_proxy {
	struct kube_backend backends[KUBE_BACKENDS];
	bool nft[KUBE_NFT_TABLES]; /* table kube-proxy of ip, ip6 */
	char **sets;		   /* ipsets */
	size_t n_sets;
	uint32_t ipvs_ifindex; /* of kube-ipvs0; 0: none */
	size_t ipvs_servers;   /* virtual servers of IPVS, whosever they are */
	char running[160];     /* who listens on its ports; "" for nobody */
	/* Where no look was possible, and what helps; "" for nothing. */
	char blind[KUBE_BLIND][256];
};

/* 0 or -errno. */
int kube_proxy_look(struct kube_proxy *ret, struct wag_err *err);
void kube_proxy_done(struct kube_proxy *kp);
const char *kube_nft_family(unsigned i); /* "ip", "ip6" */
bool kube_proxy_removable(const struct kube_proxy *kp);
/* Removes what kube_proxy_look() found, table by table; the first failure ends it. */
int kube_proxy_clean(const struct kube_proxy *kp, struct wag_err *err);
