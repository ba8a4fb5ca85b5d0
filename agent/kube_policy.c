// SPDX-License-Identifier: Apache-2.0
/* NetworkPolicy and ClusterNetworkPolicy as JSON -> struct policy. */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "kube_field.h"
#include "kube_selector.h"
#include "object.h"

#define PATH_MAX_LEN 160

static int own_namespace(const struct reader *rd, struct selector *s)
{
	return selector_add(s, POLICY_NS_LABEL, SEL_IN) < 0 ||
			       selector_add_value(s, rd->ident->ns) < 0 ?
		       field_no_memory(rd) :
		       0;
}

/* ---- what both kinds have ---- */

static int read_cidr(const struct reader *rd, const json_t *value, const char *path,
		     struct policy_cidr *ret)
{
	struct wag_addr addr;
	unsigned bits;

	if (!json_is_string(value) || wag_cidr_parse(json_string_value(value), &addr, &bits) < 0)
		return field_bad(rd, value, "%s: is no CIDR", path);
	bits += wag_addr_is_v4(&addr) ? 96 : 0;
	for (unsigned i = 0; i < 128; i++)
		if (i >= bits)
			addr.b[i / 8] &= ~(0x80 >> i % 8);
	*ret = (struct policy_cidr){ .addr = addr, .bits = bits };
	return 0;
}

static struct policy_peer *add_peer(struct policy_rule *rule, enum policy_peer_kind kind)
{
	struct policy_peer *peer = array_grow(&rule->peers, &rule->n_peers, sizeof(*peer));

	if (peer)
		peer->kind = kind;
	return peer;
}

static struct policy_port *add_port(struct policy_rule *rule, uint8_t proto, uint16_t first,
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
	int r = read_cidr(rd, value, path, ret);

	if (r < 0 || (ret->bits > cidr->bits && wag_addr_in_cidr(&ret->addr, &cidr->addr, own)))
		return r;
	return field_bad(rd, value,
			 "%s: %.64s is no part of the cidr %s/%u: remove it, or name a part", path,
			 json_string_value(value), wag_addr_format(&cidr->addr, outer), own);
}

static int np_ip_block(const struct reader *rd, const json_t *block, const char *path,
		       struct policy_rule *rule)
{
	struct policy_peer *peer = add_peer(rule, PEER_CIDR);
	const json_t *excepts, *value;
	char where[PATH_MAX_LEN];
	size_t i;
	int r;

	if (!peer)
		return field_no_memory(rd);
	snprintf(where, sizeof(where), "%.120sipBlock.cidr", path);
	r = read_cidr(rd, field_member(block, "cidr"), where, &peer->cidr);
	snprintf(where, sizeof(where), "%.120sipBlock.", path);
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
	struct policy_peer *peer;
	const json_t *block;
	bool ns, pods;
	int r;

	r = field_typed(rd, tree, path, "ipBlock", JSON_OBJECT, &block);
	if (r < 0)
		return r;
	if (block) {
		if (field_member(tree, "podSelector") || field_member(tree, "namespaceSelector"))
			return field_bad(rd, tree, "%sipBlock: stands beside a selector", path);
		return np_ip_block(rd, block, path, rule);
	}
	peer = add_peer(rule, PEER_PODS);
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
	at = add_port(rule, proto, 0, 0);
	return at ? field_copy(rd, name, &at->name) : field_no_memory(rd);
}

static int np_port(const struct reader *rd, const json_t *tree, const char *path,
		   struct policy_rule *rule)
{
	const json_t *port = field_member(tree, "port");
	json_int_t first = 0, last = 0;
	uint8_t proto;
	int r;

	if ((r = field_proto(rd, tree, path, &proto)) < 0 ||
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
	return add_port(rule, proto, first, last ? last : first) ? 0 : field_no_memory(rd);
}

typedef int (*item_fn)(const struct reader *rd, const json_t *tree, const char *path,
		       struct policy_rule *rule);

/* Every element of a list through fn. */
static int each(const struct reader *rd, const json_t *list, const char *path, const char *key,
		item_fn fn, struct policy_rule *rule)
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
	const json_t *list, *ports;
	int r;

	if ((r = field_typed(rd, tree, path, peers, JSON_ARRAY, &list)) < 0 ||
	    (r = field_typed(rd, tree, path, "ports", JSON_ARRAY, &ports)) < 0)
		return r;
	rule->action = POLICY_ACCEPT;
	rule->any_peer = json_array_size(list) == 0;
	rule->any_port = json_array_size(ports) == 0;
	r = each(rd, list, path, peers, np_peer, rule);
	return r < 0 ? r : each(rd, ports, path, "ports", np_port, rule);
}

typedef int (*rule_fn)(const struct reader *rd, const json_t *tree, const char *path,
		       const char *peers, struct policy_rule *rule);

static int read_rules(const struct reader *rd, const json_t *spec, enum policy_dir dir, rule_fn fn,
		      struct policy *p)
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
	int r;

	p->tier = POLICY_NETWORK;
	if ((r = own_namespace(rd, &p->ns)) < 0 ||
	    (r = kube_member_selector(rd, spec, "spec.", "podSelector", &p->pods, NULL)) < 0 ||
	    (r = np_types(rd, spec, p)) < 0)
		return r;
	for (enum policy_dir d = POLICY_INGRESS; d < POLICY_DIRS && r == 0; d++)
		r = p->isolates[d] ? read_rules(rd, spec, d, np_rule, p) : 0;
	return r;
}

/* ---- ClusterNetworkPolicy ---- */

/* The API has the keys as one choice: whatever were left out here would be lost. */
static int cnp_one_of(const struct reader *rd, const json_t *tree, const char *path,
		      const char *const *keys)
{
	const char *found = NULL;

	for (; *keys; keys++) {
		if (!field_member(tree, *keys))
			continue;
		if (found)
			return field_bad(rd, tree, "%s%s: stands beside %s, one is allowed", path,
					 *keys, found);
		found = *keys;
	}
	return 0;
}

static int cnp_pods(const struct reader *rd, const json_t *pods, const char *path,
		    struct selector *ns, struct selector *obj)
{
	int r = kube_member_selector(rd, pods, path, "namespaceSelector", ns, NULL);

	return r < 0 ? r : kube_member_selector(rd, pods, path, "podSelector", obj, NULL);
}

/*
 * What this version does not know fails closed: an Accept accepts nothing by it, a Deny or Pass
 * denies everything.
 */
static int cnp_unknown(struct policy_rule *rule)
{
	if (rule->action == POLICY_ACCEPT)
		return 0;
	rule->action = POLICY_DENY;
	rule->any_peer = rule->any_port = true;
	return 0;
}

static int cnp_networks(const struct reader *rd, const json_t *list, const char *path,
			struct policy_rule *rule)
{
	char where[PATH_MAX_LEN];
	const json_t *value;
	size_t i;
	int r;

	if (json_array_size(list) == 0)
		return field_bad(rd, list, "%snetworks: must not be empty", path);
	json_array_foreach(list, i, value)
	{
		struct policy_peer *peer = add_peer(rule, PEER_CIDR);

		snprintf(where, sizeof(where), "%.120snetworks[%zu]", path, i);
		if (!peer)
			return field_no_memory(rd);
		r = read_cidr(rd, value, where, &peer->cidr);
		if (r < 0)
			return r;
	}
	return 0;
}

static int cnp_peer(const struct reader *rd, const json_t *tree, const char *path,
		    struct policy_rule *rule)
{
	static const char *const kinds[] = { "namespaces", "pods", "nodes", "networks", NULL };
	const json_t *namespaces, *pods, *nodes, *networks;
	struct policy_peer *peer;
	int r;

	if ((r = cnp_one_of(rd, tree, path, kinds)) < 0 ||
	    (r = field_typed(rd, tree, path, "namespaces", JSON_OBJECT, &namespaces)) < 0 ||
	    (r = field_typed(rd, tree, path, "pods", JSON_OBJECT, &pods)) < 0 ||
	    (r = field_typed(rd, tree, path, "nodes", JSON_OBJECT, &nodes)) < 0 ||
	    (r = field_typed(rd, tree, path, "networks", JSON_ARRAY, &networks)) < 0)
		return r;
	if (networks)
		return cnp_networks(rd, networks, path, rule);
	if (!namespaces && !pods && !nodes)
		return cnp_unknown(rule);
	peer = add_peer(rule, nodes ? PEER_NODES : PEER_PODS);
	if (!peer)
		return field_no_memory(rd);
	if (nodes)
		return kube_read_selector(rd, nodes, path, &peer->obj);
	return namespaces ? kube_read_selector(rd, namespaces, path, &peer->ns) :
			    cnp_pods(rd, pods, path, &peer->ns, &peer->obj);
}

/* destinationPort of tcp, udp or sctp: a number, a range, or (absent) every port. */
static int cnp_port(const struct reader *rd, const json_t *tree, const char *path, uint8_t proto,
		    struct policy_rule *rule)
{
	static const char *const forms[] = { "number", "range", NULL };
	json_int_t number = 0, first = 0, last = 0;
	const json_t *port, *range;
	char where[PATH_MAX_LEN];
	int r;

	snprintf(where, sizeof(where), "%.100sdestinationPort.", path);
	if ((r = field_typed(rd, tree, path, "destinationPort", JSON_OBJECT, &port)) < 0 ||
	    (r = cnp_one_of(rd, port, where, forms)) < 0 ||
	    (r = field_int(rd, port, path, "number", 1, 65535, &number)) < 0 ||
	    (r = field_typed(rd, port, path, "range", JSON_OBJECT, &range)) < 0 ||
	    (r = field_int(rd, range, path, "start", 1, 65535, &first)) < 0 ||
	    (r = field_int(rd, range, path, "end", 1, 65535, &last)) < 0)
		return r;
	if (range && (!first || last < first))
		return field_bad(rd, range, "%sdestinationPort.range: end is less than start",
				 path);
	if (port && !range && !number)
		return cnp_unknown(rule);
	if (!port)
		last = 65535;
	else if (number)
		first = last = number;
	return add_port(rule, proto, first, last) ? 0 : field_no_memory(rd);
}

static int cnp_protocol(const struct reader *rd, const json_t *tree, const char *path,
			struct policy_rule *rule)
{
	static const struct {
		const char *key;
		uint8_t proto;
	} protos[] = { { "tcp", IPPROTO_TCP }, { "udp", IPPROTO_UDP }, { "sctp", IPPROTO_SCTP } };
	static const char *const forms[] = { "destinationNamedPort", "tcp", "udp", "sctp", NULL };
	struct policy_port *at;
	const json_t *proto;
	const char *name;
	int r;

	if ((r = cnp_one_of(rd, tree, path, forms)) < 0 ||
	    (r = field_str(rd, tree, path, "destinationNamedPort", &name)) < 0)
		return r;
	if (name[0]) {
		at = add_port(rule, 0, 0, 0);
		return at ? field_copy(rd, name, &at->name) : field_no_memory(rd);
	}
	for (size_t i = 0; i < sizeof(protos) / sizeof(protos[0]); i++) {
		r = field_typed(rd, tree, path, protos[i].key, JSON_OBJECT, &proto);
		if (r < 0)
			return r;
		if (proto)
			return cnp_port(rd, proto, path, protos[i].proto, rule);
	}
	return cnp_unknown(rule);
}

static int cnp_action(const struct reader *rd, const json_t *tree, const char *path,
		      enum policy_action *ret)
{
	static const char *const names[] = { [POLICY_ACCEPT] = "Accept",
					     [POLICY_DENY] = "Deny",
					     [POLICY_PASS] = "Pass" };
	const char *text;
	int r = field_str(rd, tree, path, "action", &text);

	if (r < 0)
		return r;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(text, names[i]) == 0) {
			*ret = i;
			return 0;
		}
	}
	return field_bad(rd, tree, "%saction: \"%.32s\" is not Accept, Deny or Pass", path, text);
}

static int cnp_rule(const struct reader *rd, const json_t *tree, const char *path,
		    const char *peers, struct policy_rule *rule)
{
	const json_t *list, *protocols;
	int r;

	if ((r = field_dup(rd, tree, path, "name", &rule->name)) < 0 ||
	    (r = cnp_action(rd, tree, path, &rule->action)) < 0 ||
	    (r = field_typed(rd, tree, path, peers, JSON_ARRAY, &list)) < 0 ||
	    (r = field_typed(rd, tree, path, "protocols", JSON_ARRAY, &protocols)) < 0)
		return r;
	if (json_array_size(list) == 0)
		return field_bad(rd, tree,
				 "%s%s: must name a peer; {\"namespaces\": {}} is every pod", path,
				 peers);
	rule->any_port = json_array_size(protocols) == 0;
	r = each(rd, list, path, peers, cnp_peer, rule);
	return r < 0 ? r : each(rd, protocols, path, "protocols", cnp_protocol, rule);
}

static int cnp_head(const struct reader *rd, const json_t *spec, struct policy *p)
{
	static const char *const kinds[] = { "namespaces", "pods", NULL };
	const json_t *subject, *namespaces, *pods;
	json_int_t priority;
	const char *tier;
	int r;

	if ((r = field_str(rd, spec, "spec.", "tier", &tier)) < 0 ||
	    (r = field_int(rd, spec, "spec.", "priority", 0, 1000, &priority)) < 0 ||
	    (r = field_typed(rd, spec, "spec.", "subject", JSON_OBJECT, &subject)) < 0 ||
	    (r = cnp_one_of(rd, subject, "spec.subject.", kinds)) < 0 ||
	    (r = field_typed(rd, subject, "spec.subject.", "namespaces", JSON_OBJECT,
			     &namespaces)) < 0 ||
	    (r = field_typed(rd, subject, "spec.subject.", "pods", JSON_OBJECT, &pods)) < 0)
		return r;
	if (strcmp(tier, "Admin") != 0 && strcmp(tier, "Baseline") != 0)
		return field_bad(rd, spec, "spec.tier: \"%.32s\" is not Admin or Baseline", tier);
	if (!field_member(spec, "priority"))
		return field_bad(rd, spec, "spec.priority: is missing");
	if (!namespaces && !pods)
		return field_bad(rd, spec, "spec.subject: has no namespaces and no pods");
	p->tier = tier[0] == 'A' ? POLICY_ADMIN : POLICY_BASELINE;
	p->priority = priority;
	if (namespaces)
		return kube_read_selector(rd, namespaces, "spec.subject.namespaces.", &p->ns);
	return cnp_pods(rd, pods, "spec.subject.pods.", &p->ns, &p->pods);
}

static int read_cluster_policy(const struct reader *rd, const json_t *spec, struct policy *p)
{
	int r = cnp_head(rd, spec, p);

	for (enum policy_dir d = POLICY_INGRESS; d < POLICY_DIRS && r == 0; d++)
		r = read_rules(rd, spec, d, cnp_rule, p);
	return r;
}

static int read_spec(const struct reader *rd, const json_t *tree, enum model_kind kind,
		     struct policy *p)
{
	const json_t *spec;
	int r = field_typed(rd, tree, "", "spec", JSON_OBJECT, &spec);

	if (r < 0)
		return r;
	return kind == MODEL_POLICY ? read_network_policy(rd, spec, p) :
				      read_cluster_policy(rd, spec, p);
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
