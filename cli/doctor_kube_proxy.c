// SPDX-License-Identifier: Apache-2.0
#include <string.h>
#include <waggle/cleanup.h>
#include "doctor.h"

#define AREA "kube-proxy"
#define CLEAN "waggle doctor --clean-kube-proxy removes exactly this"

static void table_found(const struct kube_backend *b, const struct kube_table *t, json_t *findings)
{
	size_t rules = 0;

	if (!kube_table_removable(t))
		return;
	for (size_t i = 0; i < t->n_chains; i++)
		rules += t->chains[i]->rules;
	doctor_add(findings, DOCTOR_PROBLEM, AREA,
		   json_sprintf("%s, table %s: %zu chains of kube-proxy with %zu rules, %zu jumps "
				"into them",
				b->what, t->name, t->n_chains, rules, t->n_jumps),
		   CLEAN);
}

static void others_found(const struct kube_proxy *kp, json_t *findings)
{
	for (unsigned i = 0; i < KUBE_NFT_TABLES; i++)
		if (kp->nft[i])
			doctor_add(findings, DOCTOR_PROBLEM, AREA,
				   json_sprintf("nftables: table %s kube-proxy",
						kube_nft_family(i)),
				   CLEAN);
	if (kp->n_sets)
		doctor_add(findings, DOCTOR_PROBLEM, AREA,
			   json_sprintf("%zu ipsets of kube-proxy, such as %s", kp->n_sets,
					kp->sets[0]),
			   CLEAN);
	if (kp->ipvs_ifindex)
		doctor_add(findings, DOCTOR_PROBLEM, AREA,
			   json_string("device kube-ipvs0: it makes every cluster address an "
				       "address of the node"),
			   CLEAN);
	if (kp->ipvs_ifindex && kp->ipvs_servers)
		doctor_add(findings, DOCTOR_PROBLEM, AREA,
			   json_sprintf("%zu virtual servers in IPVS", kp->ipvs_servers),
			   "if nobody else uses IPVS here: ipvsadm --clear");
}

void doctor_clean_left(const struct kube_proxy *kp, json_t *findings)
{
	for (int i = 0; i < KUBE_BACKENDS; i++) {
		const struct kube_backend *b = &kp->backends[i];

		for (size_t k = 0; k < b->rules.n; k++) {
			const struct kube_table *t = &b->rules.tables[k];

			for (size_t n = 0; n < t->n_kubelet; n++)
				doctor_add(findings, DOCTOR_NOTE, AREA,
					   json_sprintf("%s, table %s: chain %s is kubelet's",
							b->what, t->name, t->kubelet[n]),
					   "none: kubelet keeps it, and it stays");
			if (t->n_others)
				doctor_add(findings, DOCTOR_NOTE, AREA,
					   json_sprintf("%s, table %s: %zu KUBE-* chains of "
							"others, such as %s",
							b->what, t->name, t->n_others,
							t->others[0]),
					   "none: they are not kube-proxy's, and stay");
			for (size_t n = 0; n < t->n_chains; n++)
				if (t->chains[n]->held_by)
					doctor_add(findings, DOCTOR_NOTE, AREA,
						   json_sprintf("%s, table %s: chain %s is in use "
								"by: %s",
								b->what, t->name,
								t->chains[n]->name,
								t->chains[n]->held_by),
						   "it stays until that rule, which is not "
						   "kube-proxy's, is gone");
		}
	}
}

void doctor_kube_proxy(const struct kube_proxy *kp, json_t *findings)
{
	if (kp->running[0])
		doctor_add(findings, DOCTOR_PROBLEM, AREA,
			   json_sprintf("kube-proxy runs: %s", kp->running),
			   "delete its DaemonSet (kubectl -n kube-system delete daemonset "
			   "kube-proxy) or stop its service");
	for (int i = 0; i < KUBE_BLIND; i++)
		if (kp->blind[i][0])
			doctor_add(findings, DOCTOR_PROBLEM, AREA, json_string(kp->blind[i]),
				   "install that program, or ask on the node itself");
	for (int i = 0; i < KUBE_BACKENDS; i++)
		for (size_t k = 0; k < kp->backends[i].rules.n; k++)
			table_found(&kp->backends[i], &kp->backends[i].rules.tables[k], findings);
	others_found(kp, findings);
	doctor_clean_left(kp, findings);
}

/* ---- the plan ---- */

static void plan_add(json_t *plan, const char *where, json_t *what)
{
	json_array_append_new(plan, json_pack("{s:s, s:o}", "where", where, "what", what));
}

static void plan_table(json_t *plan, const struct kube_backend *b, const struct kube_table *t)
{
	char where[96];

	snprintf(where, sizeof(where), "%s, table %.40s", b->what, t->name);
	for (size_t i = 0; i < t->n_jumps; i++)
		plan_add(plan, where, json_string(t->jumps[i]));
	for (size_t i = 0; i < t->n_chains; i++)
		if (!t->chains[i]->held_by)
			plan_add(plan, where,
				 json_sprintf("chain %s and its %zu rules", t->chains[i]->name,
					      t->chains[i]->rules));
}

json_t *doctor_clean_plan(const struct kube_proxy *kp)
{
	json_t *plan = json_array();

	for (unsigned i = 0; i < KUBE_NFT_TABLES; i++)
		if (kp->nft[i])
			plan_add(plan, "nftables",
				 json_sprintf("table %s kube-proxy", kube_nft_family(i)));
	for (int i = 0; i < KUBE_BACKENDS; i++)
		for (size_t k = 0; k < kp->backends[i].rules.n; k++)
			plan_table(plan, &kp->backends[i], &kp->backends[i].rules.tables[k]);
	for (size_t i = 0; i < kp->n_sets; i++)
		plan_add(plan, "ipset", json_string(kp->sets[i]));
	if (kp->ipvs_ifindex)
		plan_add(plan, "devices", json_string("kube-ipvs0"));
	return plan;
}
