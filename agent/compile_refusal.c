// SPDX-License-Identifier: Apache-2.0
/* Policies that cannot be read or do not fit: which they are, and what is done about them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/cleanup.h>

#include "compile_policy_internal.h"

/* More than this no table holds, whatever it is made of: not even tried. */
#define POLICY_PEERS_MAX 20000
#define POLICY_PORTS_MAX 2000
#define ONE_BY_ONE 4 /* rounds */

/* How much of the tables a policy may take, roughly. */
static size_t weight(const struct policy *p, size_t *ret_ports)
{
	size_t peers = 0, ports = 0;

	for (int d = 0; d < POLICY_DIRS; d++) {
		for (size_t i = 0; i < p->n_rules[d]; i++) {
			const struct policy_rule *rule = &p->rules[d][i];

			ports += rule->n_ports;
			for (size_t k = 0; k < rule->n_peers; k++)
				peers += 1 + rule->peers[k].n_excepts;
		}
	}
	*ret_ports = ports;
	return peers + ports;
}

int pol_refuse(struct policy_compiler *c, struct pol *pol, const char *why,
	       const struct refusal *to)
{
	int r = pol->policy == pol->before ? 0 : pol_install(c, pol, pol->before);

	pol->refused = true;
	if (r < 0 || (pol->why && strcmp(pol->why, why) == 0))
		return r;
	free(pol->why);
	pol->why = strdup(why);
	if (!pol->why)
		return -ENOMEM;
	if (to->fn)
		to->fn(pol->key, pol->name, why, pol->before, to->ctx);
	return 0;
}

const char *pol_hopeless(const struct policy *p, char *buf, size_t size)
{
	size_t ports, peers = weight(p, &ports) - ports;

	if (p->unreadable)
		return p->unreadable;
	if (peers <= POLICY_PEERS_MAX && ports <= POLICY_PORTS_MAX)
		return NULL;
	snprintf(buf, size, "it has %zu peers and %zu ports; %d and %d are the most of one policy",
		 peers, ports, POLICY_PEERS_MAX, POLICY_PORTS_MAX);
	return buf;
}

const char *table_too_small(const struct policy_compiler *c)
{
	static const char *const names[POLICY_TABLES] = {
		[POLICY_IPCACHE] = "wag_ipcache", [POLICY_POD] = "wag_policy",
		[POLICY_RULE] = "wag_rule",	  [POLICY_PORT] = "wag_port",
		[POLICY_PORT_EXACT] = "wag_port_exact",
	};

	for (int t = 0; t < POLICY_TABLES; t++)
		if (c->tables[t].n_desired > c->limits.entries[t])
			return names[t];
	if (c->names.n_desired > WAG_RULES_MAX - 1)
		return "wag_rule_name";
	return HASH_COUNT(c->identities) > c->limits.identities ? "identities" : NULL;
}

static struct pol *heaviest(struct policy_compiler *c)
{
	struct pol *pol, *tmp, *found = NULL;
	size_t most = 0, ports;

	HASH_ITER(hh, c->pols, pol, tmp) {
		size_t w = pol->installed ? weight(pol->policy, &ports) + 1 : 0;

		if (w > most) {
			most = w;
			found = pol;
		}
	}
	return found;
}

void pols_queue_refused(struct policy_compiler *c)
{
	struct pol *pol, *tmp;
	bool some = false;

	HASH_ITER(hh, c->pols, pol, tmp)
		some |= pol->queued && !pol->wanted;
	HASH_ITER(hh, c->pols, pol, tmp)
		pol->queued |= some && pol->refused;
}

static unsigned count_installed(const struct policy_compiler *c)
{
	struct pol *pol, *tmp;
	unsigned n = 0;

	HASH_ITER(hh, c->pols, pol, tmp)
		n += pol->installed;
	return n;
}

int pols_make_fit(struct policy_compiler *c, const struct refusal *to)
{
	const char *what;
	struct pol *pol;
	char why[128];
	int r = 0;

	for (unsigned round = 0; r == 0 && (what = table_too_small(c)) && heaviest(c); round++) {
		unsigned n = round < ONE_BY_ONE ? 1 : (count_installed(c) + 1) / 2;

		snprintf(why, sizeof(why), "with it, %s would be full", what);
		for (unsigned i = 0; i < n && r == 0 && (pol = heaviest(c)); i++) {
			pol->installed = false;
			r = pol_refuse(c, pol, why, to);
		}
		if (r == 0)
			r = policies_update(c);
	}
	return r;
}
