// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "model.h"
#include "object.h"
#include "policy.h"

/* ---- selectors ---- */

int selector_add(struct selector *s, const char *key, enum sel_op op)
{
	struct sel_req *req = array_grow(&s->reqs, &s->n_reqs, sizeof(*req));

	if (!req)
		return -ENOMEM;
	req->op = op;
	req->key = strdup(key);
	return req->key ? 0 : -ENOMEM;
}

int selector_add_value(struct selector *s, const char *value)
{
	struct sel_req *req = &s->reqs[s->n_reqs - 1];
	char **at = array_grow(&req->values, &req->n_values, sizeof(*at));

	if (!at)
		return -ENOMEM;
	*at = strdup(value);
	return *at ? 0 : -ENOMEM;
}

static void selector_done(struct selector *s)
{
	for (size_t i = 0; i < s->n_reqs; i++) {
		for (size_t v = 0; v < s->reqs[i].n_values; v++)
			free(s->reqs[i].values[v]);
		free(s->reqs[i].values);
		free(s->reqs[i].key);
	}
	free(s->reqs);
}

static const char *label_of(const struct label *labels, size_t n, const char *ns, const char *key)
{
	if (ns && strcmp(key, POLICY_NS_LABEL) == 0)
		return ns;
	for (size_t i = 0; i < n; i++)
		if (strcmp(labels[i].key, key) == 0)
			return labels[i].value;
	return NULL;
}

static bool has_value(const struct sel_req *req, const char *value)
{
	for (size_t i = 0; i < req->n_values; i++)
		if (strcmp(req->values[i], value) == 0)
			return true;
	return false;
}

bool selector_matches(const struct selector *s, const struct label *labels, size_t n,
		      const char *ns)
{
	for (size_t i = 0; i < s->n_reqs; i++) {
		const struct sel_req *req = &s->reqs[i];
		const char *value = label_of(labels, n, ns, req->key);
		bool ok = false;

		switch (req->op) {
		case SEL_IN:
			ok = value && has_value(req, value);
			break;
		case SEL_NOT_IN: /* a label that is not there is not in either */
			ok = !value || !has_value(req, value);
			break;
		case SEL_EXISTS:
			ok = value;
			break;
		case SEL_ABSENT:
			ok = !value;
			break;
		}
		if (!ok)
			return false;
	}
	return true;
}

/* ---- texts ---- */

/* With its length before it, no string can be taken for the end of another. */
static void put_str(FILE *f, const char *s)
{
	fprintf(f, "%zu:%s", strlen(s), s);
}

static void put_selector(FILE *f, const struct selector *s)
{
	for (size_t i = 0; i < s->n_reqs; i++) {
		const struct sel_req *req = &s->reqs[i];

		fprintf(f, "%c", "=!+-"[req->op]);
		put_str(f, req->key);
		for (size_t v = 0; v < req->n_values; v++)
			put_str(f, req->values[v]);
	}
	fputc(';', f);
}

static void put_cidr(FILE *f, const struct policy_cidr *c)
{
	char text[WAG_ADDR_TEXT];

	fprintf(f, "%s/%u", wag_addr_format(&c->addr, text), c->bits);
}

static void put_peers(FILE *f, const struct policy_rule *rule)
{
	for (size_t i = 0; i < rule->n_peers; i++) {
		const struct policy_peer *peer = &rule->peers[i];

		fputc("pnc"[peer->kind], f);
		if (peer->kind != PEER_CIDR) {
			put_selector(f, &peer->ns);
			put_selector(f, &peer->obj);
			continue;
		}
		put_cidr(f, &peer->cidr);
		for (size_t e = 0; e < peer->n_excepts; e++) {
			fputc('-', f);
			put_cidr(f, &peer->excepts[e]);
		}
	}
	fputs(rule->any_peer ? "*." : ".", f);
}

static void put_rule(FILE *f, const struct policy_rule *rule)
{
	fprintf(f, "%u", rule->action);
	put_str(f, rule->name ? rule->name : "");
	put_peers(f, rule);
	for (size_t i = 0; i < rule->n_ports; i++) {
		const struct policy_port *port = &rule->ports[i];

		fprintf(f, "%u:%u-%u", port->proto, port->first, port->last);
		put_str(f, port->name ? port->name : "");
	}
	fputs(rule->any_port ? "*|" : "|", f);
}

static void put_policy(FILE *f, const struct policy *p)
{
	fprintf(f, "%u %u %d%d ", p->tier, p->priority, p->isolates[0], p->isolates[1]);
	put_str(f, p->unreadable ? p->unreadable : "");
	put_selector(f, &p->ns);
	put_selector(f, &p->pods);
	for (int d = 0; d < POLICY_DIRS; d++) {
		for (size_t i = 0; i < p->n_rules[d]; i++)
			put_rule(f, &p->rules[d][i]);
		fputc('/', f);
	}
}

struct text_file {
	FILE *f; /* NULL: out of memory */
	char *text;
	size_t size;
};

static bool text_begin(struct text_file *t)
{
	*t = (struct text_file){ 0 };
	t->f = open_memstream(&t->text, &t->size);
	return t->f;
}

static char *text_end(struct text_file *t)
{
	if (fclose(t->f) == 0)
		return t->text;
	free(t->text);
	return NULL;
}

static char *policy_text(const struct policy *p)
{
	struct text_file t;

	if (!text_begin(&t))
		return NULL;
	put_policy(t.f, p);
	return text_end(&t);
}

char *selector_text(const struct selector *s)
{
	struct text_file t;

	if (!text_begin(&t))
		return NULL;
	put_selector(t.f, s);
	return text_end(&t);
}

char *policy_peers_text(const struct policy_rule *rule)
{
	struct text_file t;

	if (!text_begin(&t))
		return NULL;
	put_peers(t.f, rule);
	return text_end(&t);
}

/* ---- policies ---- */

struct policy *policy_new(const char *uid)
{
	struct policy *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->refs = 1;
	p->uid = uid ? strdup(uid) : NULL;
	if (!uid || p->uid)
		return p;
	free(p);
	return NULL;
}

struct policy *policy_ref(struct policy *p)
{
	if (p)
		p->refs++;
	return p;
}

static void rule_done(struct policy_rule *rule)
{
	for (size_t i = 0; i < rule->n_peers; i++) {
		selector_done(&rule->peers[i].ns);
		selector_done(&rule->peers[i].obj);
		free(rule->peers[i].excepts);
	}
	for (size_t i = 0; i < rule->n_ports; i++)
		free(rule->ports[i].name);
	free(rule->peers);
	free(rule->ports);
	free(rule->name);
}

void policy_unref(struct policy *p)
{
	if (!p || --p->refs > 0)
		return;
	selector_done(&p->ns);
	selector_done(&p->pods);
	for (int d = 0; d < POLICY_DIRS; d++) {
		for (size_t i = 0; i < p->n_rules[d]; i++)
			rule_done(&p->rules[d][i]);
		free(p->rules[d]);
	}
	free(p->uid);
	free(p->unreadable);
	free(p);
}

bool policy_equal(const struct policy *a, const struct policy *b)
{
	_cleanup_free_ char *x = NULL, *y = NULL;

	if (a == b || !a || !b)
		return a == b;
	x = policy_text(a);
	y = policy_text(b);
	return x && y && strcmp(x, y) == 0;
}
