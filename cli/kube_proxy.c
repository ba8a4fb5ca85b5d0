// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/cleanup.h>
#include <waggle/netlink.h>
#include "command.h"
#include "kube_proxy.h"
#include "listener.h"

#define METRICS_PORT 10249
#define HEALTHZ_PORT 10256

static const struct kube_backend backends[KUBE_BACKENDS] = {
	{ "iptables (nf_tables)", "iptables-nft-save", "iptables-nft-restore" },
	{ "ip6tables (nf_tables)", "ip6tables-nft-save", "ip6tables-nft-restore" },
	{ "iptables (legacy)", "iptables-legacy-save", "iptables-legacy-restore" },
	{ "ip6tables (legacy)", "ip6tables-legacy-save", "ip6tables-legacy-restore" },
};

/* Before iptables 1.8 there was one way only, and its programs had no longer names. */
static const struct kube_backend plain[2] = {
	{ "iptables", "iptables-save", "iptables-restore" },
	{ "ip6tables", "ip6tables-save", "ip6tables-restore" },
};

const char *kube_nft_family(unsigned i)
{
	return i ? "ip6" : "ip";
}

/* A program that is here and fails (the kernel lacks its subsystem) is told, and no more. */
static int ask(struct kube_proxy *kp, const char *const argv[], char **ret)
{
	struct wag_err err = { 0 };
	int r = command_run(argv, NULL, ret, &err);

	if (r == -EIO) {
		snprintf(kp->blind[KUBE_BLIND - 1], sizeof(kp->blind[0]), "%.250s", err.msg);
		return 0;
	}
	return r;
}

static int look_at_rules(struct kube_proxy *kp, struct kube_backend *b, struct wag_err *err)
{
	const char *const argv[] = { b->save, NULL };
	_cleanup_free_ char *text = NULL;
	int r = ask(kp, argv, &text);

	if (r < 0 || !text)
		return r < 0 ? wag_err_set(err, r, "%s: %s", b->save, strerror(-r)) : 0;
	r = kube_rules_parse(text, &b->rules);
	return r < 0 ? wag_err_set(err, r, "out of memory") : 0;
}

/* Tables of iptables-legacy that the kernel has, without a program to show them. */
static bool legacy_in_use(void)
{
	_cleanup_fclose_ FILE *v4 = fopen("/proc/self/net/ip_tables_names", "re");
	_cleanup_fclose_ FILE *v6 = fopen("/proc/self/net/ip6_tables_names", "re");

	return (v4 && fgetc(v4) != EOF) || (v6 && fgetc(v6) != EOF);
}

static int look_at_backends(struct kube_proxy *kp, struct wag_err *err)
{
	bool nft, legacy;
	int r = 0;

	for (int i = 0; i < KUBE_BACKENDS; i++)
		kp->backends[i] = backends[i];
	nft = command_exists(backends[0].save);
	legacy = command_exists(backends[2].save);
	if (!nft && !legacy && command_exists(plain[0].save)) {
		kp->backends[0] = plain[0];
		kp->backends[1] = plain[1];
		nft = legacy = true;
	}
	if (!nft)
		snprintf(kp->blind[0], sizeof(kp->blind[0]),
			 "iptables-save and iptables-nft-save are not here: rules of kube-proxy's "
			 "iptables mode cannot be seen");
	else if (!legacy && legacy_in_use())
		snprintf(kp->blind[0], sizeof(kp->blind[0]),
			 "there are tables of iptables-legacy, and no iptables-legacy-save to show "
			 "them");
	for (int i = 0; i < KUBE_BACKENDS && r == 0; i++)
		if (command_exists(kp->backends[i].save))
			r = look_at_rules(kp, &kp->backends[i], err);
	return r;
}

static int look_at_nft(struct kube_proxy *kp, struct wag_err *err)
{
	static const char *const argv[] = { "nft", "list", "tables", NULL };
	_cleanup_free_ char *text = NULL;
	char *save;
	int r;

	if (!command_exists("nft")) {
		snprintf(kp->blind[1], sizeof(kp->blind[1]),
			 "nft is not here: tables of kube-proxy's nftables mode cannot be seen");
		return 0;
	}
	r = ask(kp, argv, &text);
	if (r < 0 || !text)
		return r < 0 ? wag_err_set(err, r, "nft: %s", strerror(-r)) : 0;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		kp->nft[0] |= strcmp(line, "table ip kube-proxy") == 0;
		kp->nft[1] |= strcmp(line, "table ip6 kube-proxy") == 0;
	}
	return 0;
}

static int look_at_sets(struct kube_proxy *kp, struct wag_err *err)
{
	static const char *const argv[] = { "ipset", "list", "-name", NULL };
	_cleanup_free_ char *text = NULL;
	char *save;
	int r;

	if (!command_exists("ipset")) {
		if (kp->ipvs_ifindex)
			snprintf(kp->blind[2], sizeof(kp->blind[2]),
				 "ipset is not here: sets of kube-proxy's ipvs mode cannot be "
				 "seen");
		return 0;
	}
	r = ask(kp, argv, &text);
	if (r < 0 || !text)
		return r < 0 ? wag_err_set(err, r, "ipset: %s", strerror(-r)) : 0;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char **bigger;

		if (!kube_ipset(line))
			continue;
		bigger = reallocarray(kp->sets, kp->n_sets + 1, sizeof(*bigger));
		if (!bigger)
			return wag_err_set(err, -ENOMEM, "out of memory");
		kp->sets = bigger;
		bigger[kp->n_sets] = strdup(line);
		if (!bigger[kp->n_sets++])
			return wag_err_set(err, -ENOMEM, "out of memory");
	}
	return 0;
}

static int look_at_ipvs(struct kube_proxy *kp, struct wag_err *err)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/net/ip_vs", "re");
	_cleanup_(nl_freep) struct nl *nl = NULL;
	_cleanup_free_ char *line = NULL;
	struct nl_link link;
	size_t room = 0;
	int r = nl_new(&nl);

	if (r == 0)
		r = nl_link_get(nl, "kube-ipvs0", &link);
	if (r == 0)
		kp->ipvs_ifindex = link.ifindex;
	while (f && getline(&line, &room, f) > 0)
		kp->ipvs_servers += strncmp(line, "TCP ", 4) == 0 ||
				    strncmp(line, "UDP ", 4) == 0 || strncmp(line, "SCTP ", 5) == 0;
	return r < 0 && r != -ENODEV ? wag_err_set(err, r, "links: %s", strerror(-r)) : 0;
}

/* 10256 is our agent's too. Of whom nothing can be seen, only 10249 says that it is kube-proxy. */
static void look_for_process(struct kube_proxy *kp)
{
	char who[96];

	if (tcp_listener(METRICS_PORT, who, sizeof(who)))
		snprintf(kp->running, sizeof(kp->running), "%s listens on port %d",
			 who[0] ? who : "a process", METRICS_PORT);
	else if (tcp_listener(HEALTHZ_PORT, who, sizeof(who)) && who[0] &&
		 strncmp(who, "waggle-agent", 12) != 0)
		snprintf(kp->running, sizeof(kp->running), "%s listens on port %d", who,
			 HEALTHZ_PORT);
}

int kube_proxy_look(struct kube_proxy *ret, struct wag_err *err)
{
	struct kube_proxy kp = { 0 };
	int r = look_at_backends(&kp, err);

	if (r == 0)
		r = look_at_nft(&kp, err);
	if (r == 0)
		r = look_at_ipvs(&kp, err);
	if (r == 0)
		r = look_at_sets(&kp, err);
	if (r < 0) {
		kube_proxy_done(&kp);
		return r;
	}
	look_for_process(&kp);
	*ret = kp;
	return 0;
}

void kube_proxy_done(struct kube_proxy *kp)
{
	for (int i = 0; i < KUBE_BACKENDS; i++)
		kube_rules_done(&kp->backends[i].rules);
	for (size_t i = 0; i < kp->n_sets; i++)
		free(kp->sets[i]);
	free(kp->sets);
	*kp = (struct kube_proxy){ 0 };
}

static bool rules_removable(const struct kube_rules *rules)
{
	for (size_t i = 0; i < rules->n; i++)
		if (kube_table_removable(&rules->tables[i]))
			return true;
	return false;
}

bool kube_proxy_removable(const struct kube_proxy *kp)
{
	bool any = kp->nft[0] || kp->nft[1] || kp->n_sets || kp->ipvs_ifindex;

	for (int i = 0; i < KUBE_BACKENDS; i++)
		any = any || rules_removable(&kp->backends[i].rules);
	return any;
}

static int clean_rules(const struct kube_backend *b, struct wag_err *err)
{
	const char *const argv[] = { b->restore, "--noflush", "--wait=5", NULL };
	_cleanup_free_ char *text = NULL;

	if (!rules_removable(&b->rules))
		return 0;
	text = kube_rules_removal(&b->rules);
	if (!text)
		return wag_err_set(err, -ENOMEM, "out of memory");
	return command_run(argv, text, NULL, err);
}

static int clean_link(uint32_t ifindex, struct wag_err *err)
{
	_cleanup_(nl_freep) struct nl *nl = NULL;
	int r = nl_new(&nl);

	if (r == 0)
		r = nl_link_del(nl, ifindex);
	return r < 0 ? wag_err_set(err, r, "device kube-ipvs0: %s", strerror(-r)) : 0;
}

/* Rules go before the sets they ask. */
int kube_proxy_clean(const struct kube_proxy *kp, struct wag_err *err)
{
	int r = 0;

	for (unsigned i = 0; i < KUBE_NFT_TABLES && r == 0; i++) {
		const char *const argv[] = { "nft", "delete", "table", kube_nft_family(i),
					     "kube-proxy", NULL };

		if (kp->nft[i])
			r = command_run(argv, NULL, NULL, err);
	}
	for (int i = 0; i < KUBE_BACKENDS && r == 0; i++)
		r = clean_rules(&kp->backends[i], err);
	for (size_t i = 0; i < kp->n_sets && r == 0; i++) {
		const char *const argv[] = { "ipset", "destroy", kp->sets[i], NULL };

		r = command_run(argv, NULL, NULL, err);
	}
	if (r == 0 && kp->ipvs_ifindex)
		r = clean_link(kp->ipvs_ifindex, err);
	return r;
}
