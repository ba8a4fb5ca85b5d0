// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <waggle/cleanup.h>
#include "kube_rules.h"

#define HASH_CHARS "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
#define HASH_LEN 16

static const char *const proxy_chains[] = {
	"KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING",
	"KUBE-MARK-MASQ", "KUBE-FORWARD", "KUBE-PROXY-FIREWALL", "KUBE-PROXY-CANARY",
	/* ipvs */
	"KUBE-LOAD-BALANCER", "KUBE-NODE-PORT", "KUBE-SOURCE-RANGES-FIREWALL", "KUBE-IPVS-FILTER",
	"KUBE-IPVS-OUT-FILTER",
	/* userspace */
	"KUBE-PORTALS-CONTAINER", "KUBE-PORTALS-HOST", "KUBE-NODEPORT-CONTAINER",
	"KUBE-NODEPORT-HOST", "KUBE-NODEPORT-NON-LOCAL",
};
static const char *const proxy_prefixes[] = { "KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-EXT-",
					      "KUBE-FW-",  "KUBE-XLB-" };
static const char *const kubelet_chains[] = { "KUBE-FIREWALL", "KUBE-KUBELET-CANARY",
					      "KUBE-MARK-DROP", "KUBE-IPTABLES-HINT" };
static const char *const proxy_sets[] = {
	"LOOP-BACK", "CLUSTER-IP", "EXTERNAL-IP", "EXTERNAL-IP-LOCAL", "LOAD-BALANCER",
	"LOAD-BALANCER-LOCAL", "LOAD-BALANCER-FW", "LOAD-BALANCER-SOURCE-IP",
	"LOAD-BALANCER-SOURCE-CIDR", "NODE-PORT-TCP", "NODE-PORT-LOCAL-TCP", "NODE-PORT-UDP",
	"NODE-PORT-LOCAL-UDP", "NODE-PORT-SCTP-HASH", "NODE-PORT-LOCAL-SCTP-HASH",
	"HEALTH-CHECK-NODE-PORT", "IPVS-IPS",
};

#define N(a) (sizeof(a) / sizeof((a)[0]))

static bool one_of(const char *name, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(name, list[i]) == 0)
			return true;
	return false;
}

static bool is_proxys(const char *name)
{
	for (size_t i = 0; i < N(proxy_prefixes); i++) {
		size_t n = strlen(proxy_prefixes[i]);

		if (strncmp(name, proxy_prefixes[i], n) == 0)
			return strlen(name + n) == HASH_LEN &&
			       strspn(name + n, HASH_CHARS) == HASH_LEN;
	}
	return one_of(name, proxy_chains, N(proxy_chains));
}

bool kube_ipset(const char *name)
{
	if (strncmp(name, "KUBE-", 5) != 0)
		return false;
	name += 5;
	return one_of(strncmp(name, "6-", 2) == 0 ? name + 2 : name, proxy_sets, N(proxy_sets));
}

/* ---- one table being read ---- */

struct chain {
	struct kube_chain own; /* first: what the table's list points at */
	UT_hash_handle hh;
	bool builtin, proxys;
	char *name;
};

struct edge {
	struct chain *from, *to;
};

struct reading {
	struct kube_rules *rules;
	struct kube_table *table; /* NULL: between two */
	struct chain *chains;	  /* of this table, by name */
	struct edge *edges;	  /* among kube-proxy's */
	size_t n_edges;
	bool held;
};

/* Room for one more element of a list that holds n. */
static void *grow(void *list, size_t n, size_t size)
{
	if (n & (n - 1))
		return list; /* room was made in powers of two */
	return reallocarray(list, n ? n * 2 : 1, size);
}

static int add_text(char ***list, size_t *n, const char *text)
{
	char **bigger = grow(*list, *n, sizeof(**list));

	if (!bigger)
		return -ENOMEM;
	*list = bigger;
	bigger[*n] = strdup(text);
	return bigger[(*n)++] ? 0 : -ENOMEM;
}

/* The chains that are not kube-proxy's were of use while reading only. */
static int end_table(struct reading *rd)
{
	struct kube_table *t = rd->table;
	struct chain *c, *tmp;
	int r = 0;

	HASH_ITER (hh, rd->chains, c, tmp) {
		struct kube_chain **bigger = NULL;

		HASH_DEL(rd->chains, c);
		if (c->proxys && t)
			bigger = grow(t->chains, t->n_chains, sizeof(struct kube_chain *));
		if (bigger) {
			t->chains = bigger;
			bigger[t->n_chains++] = &c->own;
			continue;
		}
		if (c->proxys && t)
			r = -ENOMEM;
		free(c->own.held_by);
		free(c->name);
		free(c);
	}
	free(rd->edges);
	rd->edges = NULL;
	rd->n_edges = 0;
	rd->held = false;
	rd->table = NULL;
	return r;
}

static int begin_table(struct reading *rd, const char *name)
{
	struct kube_rules *rules = rd->rules;
	struct kube_table *bigger = grow(rules->tables, rules->n, sizeof(*bigger));

	if (!bigger)
		return -ENOMEM;
	rules->tables = bigger;
	bigger[rules->n] = (struct kube_table){ .name = strdup(name) };
	rd->table = &bigger[rules->n++];
	return rd->table->name ? 0 : -ENOMEM;
}

static struct chain *chain_find(const struct reading *rd, const char *name)
{
	struct chain *c = NULL;

	HASH_FIND_STR(rd->chains, name, c);
	return c;
}

/* ":NAME POLICY [packets:bytes]"; who has no policy is no built-in chain. */
static int read_chain(struct reading *rd, char *line)
{
	char *save, *name = strtok_r(line, " ", &save), *policy = strtok_r(NULL, " ", &save);
	struct chain *c;

	if (!name || !policy || chain_find(rd, name))
		return 0;
	c = calloc(1, sizeof(*c));
	if (c)
		c->name = strdup(name);
	if (!c || !c->name) {
		free(c);
		return -ENOMEM;
	}
	c->own.name = c->name;
	c->builtin = strcmp(policy, "-") != 0;
	c->proxys = !c->builtin && is_proxys(name);
	HASH_ADD_KEYPTR(hh, rd->chains, c->name, strlen(c->name), c);
	if (c->builtin || c->proxys || strncmp(name, "KUBE-", 5) != 0)
		return 0;
	if (one_of(name, kubelet_chains, N(kubelet_chains)))
		return add_text(&rd->table->kubelet, &rd->table->n_kubelet, name);
	return add_text(&rd->table->others, &rd->table->n_others, name);
}

/* The next word, its quotes taken off; NULL: there is none. */
static char *next_word(char **at)
{
	char *from = *at + strspn(*at, " "), *to = from, *word = from;
	bool quoted = false;

	if (!*from)
		return NULL;
	for (; *from && (quoted || *from != ' '); from++) {
		if (*from == '"') {
			quoted = !quoted;
			continue;
		}
		if (*from == '\\' && from[1])
			from++;
		*to++ = *from;
	}
	*at = *from ? from + 1 : from;
	*to = 0;
	return word;
}

struct rule {
	const char *chain, *target, *comment; /* "" where there is none */
};

/* "-A CHAIN ..." */
static bool parse_rule(char *line, struct rule *ret)
{
	char *word = next_word(&line);

	*ret = (struct rule){ "", "", "" };
	if (!word || strcmp(word, "-A") != 0 || !(word = next_word(&line)))
		return false;
	ret->chain = word;
	while ((word = next_word(&line))) {
		if (strcmp(word, "--comment") == 0)
			ret->comment = (word = next_word(&line)) ? word : "";
		else if (strcmp(word, "-j") == 0 || strcmp(word, "-g") == 0)
			ret->target = (word = next_word(&line)) ? word : "";
	}
	return true;
}

static int add_edge(struct reading *rd, struct chain *from, struct chain *to)
{
	struct edge *bigger = grow(rd->edges, rd->n_edges, sizeof(*bigger));

	if (!bigger)
		return -ENOMEM;
	rd->edges = bigger;
	bigger[rd->n_edges++] = (struct edge){ from, to };
	return 0;
}

static int hold(struct reading *rd, struct chain *c, const char *by)
{
	if (c->own.held_by)
		return 0;
	rd->held = true;
	c->own.held_by = strdup(by);
	return c->own.held_by ? 0 : -ENOMEM;
}

static int read_rule(struct reading *rd, const char *line)
{
	_cleanup_free_ char *copy = strdup(line);
	struct chain *from, *to;
	struct rule rule;

	if (!copy)
		return -ENOMEM;
	if (!parse_rule(copy, &rule))
		return 0;
	from = chain_find(rd, rule.chain);
	to = chain_find(rd, rule.target);
	if (from && from->proxys) {
		from->own.rules++;
		return to && to->proxys ? add_edge(rd, from, to) : 0;
	}
	if (!to || !to->proxys)
		return 0;
	/* kube-proxy signs its rules in the built-in chains: "kubernetes service portals". */
	if (from && from->builtin && strncmp(rule.comment, "kube", 4) == 0)
		return add_text(&rd->table->jumps, &rd->table->n_jumps, line);
	return hold(rd, to, line);
}

/* What a chain that stays leads to stays too. */
static int spread_holds(struct reading *rd)
{
	bool again = rd->held;
	int r = 0;

	while (again && r == 0) {
		again = false;
		for (size_t i = 0; i < rd->n_edges && r == 0; i++) {
			const struct edge *e = &rd->edges[i];

			if (!e->from->own.held_by || e->to->own.held_by)
				continue;
			r = hold(rd, e->to, e->from->own.held_by);
			again = true;
		}
	}
	return r;
}

static int read_line(struct reading *rd, char *line)
{
	int r;

	if (line[0] == '*') {
		r = end_table(rd);
		return r < 0 ? r : begin_table(rd, line + 1);
	}
	if (!rd->table)
		return 0;
	if (strcmp(line, "COMMIT") == 0) {
		r = spread_holds(rd);
		return r < 0 ? r : end_table(rd);
	}
	if (line[0] == ':')
		return read_chain(rd, line + 1);
	return line[0] == '-' ? read_rule(rd, line) : 0;
}

int kube_rules_parse(const char *text, struct kube_rules *ret)
{
	_cleanup_free_ char *copy = strdup(text);
	struct kube_rules rules = { 0 };
	struct reading rd = { .rules = &rules };
	char *save, *line;
	int r = copy ? 0 : -ENOMEM, r2;

	line = copy ? strtok_r(copy, "\n", &save) : NULL;
	for (; line && r == 0; line = strtok_r(NULL, "\n", &save))
		r = read_line(&rd, line);
	if (r == 0)
		r = spread_holds(&rd); /* a table without its end */
	r2 = end_table(&rd);
	if (r < 0 || r2 < 0) {
		kube_rules_done(&rules);
		return -ENOMEM;
	}
	*ret = rules;
	return 0;
}

static void texts_free(char **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i]);
	free(list);
}

void kube_rules_done(struct kube_rules *rules)
{
	for (size_t i = 0; i < rules->n; i++) {
		struct kube_table *t = &rules->tables[i];

		for (size_t k = 0; k < t->n_chains; k++) {
			free(t->chains[k]->held_by);
			free(t->chains[k]->name);
			free(t->chains[k]); /* the struct chain that begins with it */
		}
		free(t->chains);
		texts_free(t->jumps, t->n_jumps);
		texts_free(t->kubelet, t->n_kubelet);
		texts_free(t->others, t->n_others);
		free(t->name);
	}
	free(rules->tables);
	*rules = (struct kube_rules){ 0 };
}

/* ---- removal ---- */

bool kube_table_removable(const struct kube_table *t)
{
	bool any = t->n_jumps;

	for (size_t i = 0; i < t->n_chains && !any; i++)
		any = !t->chains[i]->held_by;
	return any;
}

/* With --noflush a chain that is named is emptied, and no other. */
static void remove_table(FILE *out, const struct kube_table *t)
{
	fprintf(out, "*%s\n", t->name);
	for (size_t i = 0; i < t->n_chains; i++)
		if (!t->chains[i]->held_by)
			fprintf(out, ":%s - [0:0]\n", t->chains[i]->name);
	for (size_t i = 0; i < t->n_jumps; i++)
		fprintf(out, "-D%s\n", t->jumps[i] + 2);
	for (size_t i = 0; i < t->n_chains; i++)
		if (!t->chains[i]->held_by)
			fprintf(out, "-X %s\n", t->chains[i]->name);
	fprintf(out, "COMMIT\n");
}

char *kube_rules_removal(const struct kube_rules *rules)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	for (size_t i = 0; i < rules->n; i++)
		if (kube_table_removable(&rules->tables[i]))
			remove_table(out, &rules->tables[i]);
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	return text;
}
