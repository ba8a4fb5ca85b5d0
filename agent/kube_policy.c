// SPDX-License-Identifier: Apache-2.0
/* NetworkPolicy as JSON -> struct policy, and what ClusterNetworkPolicy shares with it. */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "kube_policy_internal.h"
#include "kube_selector.h"
#include "object.h"

static int own_namespace(const struct reader *rd, struct selector *s)
{
	return selector_add(s, POLICY_NS_LABEL, SEL_IN) < 0 ||
			       selector_add_value(s, rd->ident->ns) < 0 ?
		       field_no_memory(rd) :
		       0;
}

/* ---- what both kinds have ---- */

int kube_policy_cidr(const struct reader *rd, const json_t *value, const char *path,
		     struct policy_cidr *ret)
{
	struct wag_addr addr;
	unsigned bits;

	if (!json_is_string(value) || !strchr(json_string_value(value), '/') ||
	    wag_cidr_parse(json_string_value(value), &addr, &bits) < 0)
		return field_bad(rd, value, "%s: is no CIDR", path);
	bits += wag_addr_is_v4(&addr) ? 96 : 0;
	for (unsigned i = 0; i < 128; i++)
		if (i >= bits)
			addr.b[i / 8] &= ~(0x80 >> i % 8);
	*ret = (struct policy_cidr){ .addr = addr, .bits = bits };
	return 0;
}

struct policy_peer *kube_policy_peer(struct policy_rule *rule, enum policy_peer_kind kind)
{
	struct policy_peer *peer = array_grow(&rule->peers, &rule->n_peers, sizeof(*peer));

	if (peer)
		peer->kind = kind;
	return peer;
}

struct policy_port *kube_policy_port(struct policy_rule *rule, uint8_t proto, uint16_t first,
				    uint16_t last)
{
	struct policy_port *port = array_grow(&rule->ports, &rule->n_ports, sizeof(*port));

	if (port) {
		port->proto = proto;
		port->first = first;
		port->last = last;
	}
	return port;
}

/* ---- NetworkPolicy ---- */

/* As the API server has it: smaller than the cidr, and inside. */
static int np_except(const struct reader *rd, const json_t *value, const char *path,
		     const struct policy_cidr *cidr, struct policy_cidr *ret)
{
	unsigned own = cidr->bits - (wag_addr_is_v4(&cidr->addr) ? 96 : 0);
	char outer[WAG_ADDR_TEXT];
	int r = kube_policy_cidr(rd, value, path, ret);

	if (r < 0 || (ret->bits > cidr->bits && wag_addr_in_cidr(&ret->addr, &cidr->addr, own)))
		return r;
	return field_bad(rd, value,
			 "%s: %.64s is no part of the cidr %s/%u: remove it, or name a part", path,
			 json_string_value(value), wag_addr_format(&cidr->addr, outer), own);
}

static int np_ip_block(const struct reader *rd, const json_t *block, const char *path,
		       struct policy_rule *rule)
{
	static const char *const keys[] = { "cidr", "except", NULL };
	struct policy_peer *peer = kube_policy_peer(rule, PEER_CIDR);
	const json_t *excepts, *value;
	char where[PATH_MAX_LEN];
	size_t i;
	int r;

	if (!peer)
		return field_no_memory(rd);
	snprintf(where, sizeof(where), "%.120sipBlock.cidr", path);
	r = kube_policy_cidr(rd, field_member(block, "cidr"), where, &peer->cidr);
	snprintf(where, sizeof(where), "%.120sipBlock.", path);
	if (r == 0)
		r = field_known(rd, block, where, keys);
	if (r == 0)
		r = field_typed(rd, block, where, "except", JSON_ARRAY, &excepts);
	if (r < 0)
		return r;
	json_array_foreach(excepts, i, value)
	{
		struct policy_cidr *at =
			array_grow(&peer->excepts, &peer->n_excepts, sizeof(*at));

		snprintf(where, sizeof(where), "%.120sipBlock.except[%zu]", path, i);
		if (!at)
			return field_no_memory(rd);
		r = np_except(rd, value, where, &peer->cidr, at);
		if (r < 0)
			return r;
	}
	return 0;
}

static int np_peer(const struct reader *rd, const json_t *tree, const char *path,
		   struct policy_rule *rule)
{
	static const char *const keys[] = { "podSelector", "namespaceSelector", "ipBlock", NULL };
	struct policy_peer *peer;
	const json_t *block;
	bool ns, pods;
	int r;

	if ((r = field_known(rd, tree, path, keys)) < 0 ||
	    (r = field_typed(rd, tree, path, "ipBlock", JSON_OBJECT, &block)) < 0)
		return r;
	if (block) {
		if (field_member(tree, "podSelector") || field_member(tree, "namespaceSelector"))
			return field_bad(rd, tree, "%sipBlock: stands beside a selector", path);
		return np_ip_block(rd, block, path, rule);
	}
	peer = kube_policy_peer(rule, PEER_PODS);
	if (!peer)
		return field_no_memory(rd);
	if ((r = kube_member_selector(rd, tree, path, "namespaceSelector", &peer->ns, &ns)) < 0 ||
	    (r = kube_member_selector(rd, tree, path, "podSelector", &peer->obj, &pods)) < 0)
		return r;
	if (!ns && !pods)
		return field_bad(rd, tree, "%s: has no podSelector, namespaceSelector or ipBlock",
				 path);
	return ns ? 0 : own_namespace(rd, &peer->ns);
}

/* Of a port that has one: as RFC 6335 wants it. */
static bool is_port_name(const char *s)
{
	size_t n = strlen(s);

	return n >= 1 && n <= 15 && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == n &&
	       strspn(s, "0123456789-") < n && s[0] != '-' && s[n - 1] != '-' &&
	       !strstr(s, "--");
}

static int np_named_port(const struct reader *rd, const json_t *port, const char *path,
			 uint8_t proto, struct policy_rule *rule)
{
	const char *name = json_string_value(port);
	struct policy_port *at;

	if (!is_port_name(name))
		return field_bad(rd, port, "%sport: \"%.32s\" is no name of a port%s", path, name,
				 name[0] && strspn(name, "0123456789") == strlen(name) ?
					 ": a number stands without quotes" :
					 "");
	at = kube_policy_port(rule, proto, 0, 0);
	return at ? field_copy(rd, name, &at->name) : field_no_memory(rd);
}

static int np_port(const struct reader *rd, const json_t *tree, const char *path,
		   struct policy_rule *rule)
{
	static const char *const keys[] = { "protocol", "port", "endPort", NULL };
	const json_t *port = field_member(tree, "port");
	json_int_t first = 0, last = 0;
	uint8_t proto;
	int r;

	if ((r = field_known(rd, tree, path, keys)) < 0 ||
	    (r = field_proto(rd, tree, path, &proto)) < 0 ||
	    (r = field_int(rd, tree, path, "endPort", 1, 65535, &last)) < 0)
		return r;
	if (json_is_string(port) && last)
		return field_bad(rd, tree, "%sendPort: stands beside a named port", path);
	if (json_is_string(port))
		return np_named_port(rd, port, path, proto, rule);
	r = field_int(rd, tree, path, "port", 1, 65535, &first);
	if (r < 0)
		return r;
	if (last && !first)
		return field_bad(rd, tree, "%sendPort: stands without port", path);
	if (last && last < first)
		return field_bad(rd, tree, "%sendPort: is less than port", path);
	if (!first)
		last = 65535;
	return kube_policy_port(rule, proto, first, last ? last : first) ? 0 : field_no_memory(rd);
}

int kube_policy_each(const struct reader *rd, const json_t *list, const char *path, const char *key,
		     kube_policy_item_fn fn, struct policy_rule *rule)
{
	char where[PATH_MAX_LEN];
	const json_t *value;
	size_t i;
	int r;

	json_array_foreach(list, i, value)
	{
		snprintf(where, sizeof(where), "%.100s%s[%zu].", path, key, i);
		if (!json_is_object(value))
			return field_bad(rd, value, "%s: must be an object", where);
		r = fn(rd, value, where, rule);
		if (r < 0)
			return r;
	}
	return 0;
}

static int np_rule(const struct reader *rd, const json_t *tree, const char *path, const char *peers,
		   struct policy_rule *rule)
{
	const char *const keys[] = { peers, "ports", NULL };
	const json_t *list, *ports;
	int r;

	if ((r = field_known(rd, tree, path, keys)) < 0 ||
	    (r = field_typed(rd, tree, path, peers, JSON_ARRAY, &list)) < 0 ||
	    (r = field_typed(rd, tree, path, "ports", JSON_ARRAY, &ports)) < 0)
		return r;
	rule->action = POLICY_ACCEPT;
	rule->any_peer = json_array_size(list) == 0;
	rule->any_port = json_array_size(ports) == 0;
	r = kube_policy_each(rd, list, path, peers, np_peer, rule);
	return r < 0 ? r : kube_policy_each(rd, ports, path, "ports", np_port, rule);
}

int kube_policy_rules(const struct reader *rd, const json_t *spec, enum policy_dir dir,
		      kube_policy_rule_fn fn, struct policy *p)
{
	const char *key = dir == POLICY_INGRESS ? "ingress" : "egress";
	const char *peers = dir == POLICY_INGRESS ? "from" : "to";
	const json_t *list, *value;
	char where[PATH_MAX_LEN];
	size_t i;
	int r;

	r = field_typed(rd, spec, "spec.", key, JSON_ARRAY, &list);
	if (r < 0)
		return r;
	json_array_foreach(list, i, value)
	{
		struct policy_rule *rule =
			array_grow(&p->rules[dir], &p->n_rules[dir], sizeof(*rule));

		snprintf(where, sizeof(where), "spec.%s[%zu].", key, i);
		if (!rule)
			return field_no_memory(rd);
		if (!json_is_object(value))
			return field_bad(rd, value, "%s: must be an object", where);
		r = fn(rd, value, where, peers, rule);
		if (r < 0)
			return r;
	}
	return 0;
}

static int np_types(const struct reader *rd, const json_t *spec, struct policy *p)
{
	const json_t *list, *egress, *value;
	size_t i;
	int r;

	/* Of both, also where one does not count: what was meant for a list is not to be lost. */
	if ((r = field_typed(rd, spec, "spec.", "ingress", JSON_ARRAY, &list)) < 0 ||
	    (r = field_typed(rd, spec, "spec.", "egress", JSON_ARRAY, &egress)) < 0 ||
	    (r = field_typed(rd, spec, "spec.", "policyTypes", JSON_ARRAY, &list)) < 0)
		return r;
	json_array_foreach(list, i, value)
	{
		const char *text = json_is_string(value) ? json_string_value(value) : "";

		if (strcmp(text, "Ingress") == 0)
			p->isolates[POLICY_INGRESS] = true;
		else if (strcmp(text, "Egress") == 0)
			p->isolates[POLICY_EGRESS] = true;
		else
			return field_bad(rd, value, "spec.policyTypes[%zu]: \"%.32s\" is not "
					 "Ingress or Egress", i, text);
	}
	if (json_array_size(list) > 0)
		return 0;
	p->isolates[POLICY_INGRESS] = true;
	p->isolates[POLICY_EGRESS] = json_array_size(egress) > 0;
	return 0;
}

static int read_network_policy(const struct reader *rd, const json_t *spec, struct policy *p)
{
	static const char *const keys[] = { "podSelector", "policyTypes", "ingress", "egress",
					    NULL };
	int r;

	p->tier = POLICY_NETWORK;
	if ((r = field_known(rd, spec, "spec.", keys)) < 0 ||
	    (r = own_namespace(rd, &p->ns)) < 0 ||
	    (r = kube_member_selector(rd, spec, "spec.", "podSelector", &p->pods, NULL)) < 0 ||
	    (r = np_types(rd, spec, p)) < 0)
		return r;
	for (enum policy_dir d = POLICY_INGRESS; d < POLICY_DIRS && r == 0; d++)
		r = p->isolates[d] ? kube_policy_rules(rd, spec, d, np_rule, p) : 0;
	return r;
}

static int read_spec(const struct reader *rd, const json_t *tree, enum model_kind kind,
		     struct policy *p)
{
	static const char *const keys[] = { "apiVersion", "kind", "metadata", "spec", "status",
					    NULL };
	const json_t *spec;
	int r;

	if ((r = field_known(rd, tree, "", keys)) < 0 ||
	    (r = field_typed(rd, tree, "", "spec", JSON_OBJECT, &spec)) < 0)
		return r;
	return kind == MODEL_POLICY ? read_network_policy(rd, spec, p) :
				      kube_read_cluster_policy(rd, spec, p);
}

int kube_unreadable_policy(const struct reader *rd, const char *uid, struct object *obj)
{
	const char *why = strstr(rd->err->msg, ": "); /* behind the object's name */

	policy_unref(obj->policy);
	obj->policy = policy_new(uid);
	if (!obj->policy)
		return field_no_memory(rd);
	return field_copy(rd, why ? why + 2 : rd->err->msg, &obj->policy->unreadable);
}

int kube_read_policy(const struct reader *rd, const json_t *tree, struct object *obj)
{
	const char *uid =
		json_string_value(json_object_get(json_object_get(tree, "metadata"), "uid"));
	int r;

	obj->policy = policy_new(uid);
	if (!obj->policy)
		return field_no_memory(rd);
	r = read_spec(rd, tree, obj->kind, obj->policy);
	return r == -EINVAL ? kube_unreadable_policy(rd, uid, obj) : r;
}
