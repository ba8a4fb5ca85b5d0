// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "policy_oracle.h"

static const json_t *at(const json_t *tree, const char *a, const char *b)
{
	const json_t *v = json_object_get(tree, a);

	return b ? json_object_get(v, b) : v;
}

static const char *str(const json_t *tree, const char *key)
{
	const char *s = json_string_value(json_object_get(tree, key));

	return s ? s : "";
}

static bool contains(const json_t *list, const char *value)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		if (strcmp(json_string_value(json_array_get(list, i)), value) == 0)
			return true;
	return false;
}

static bool selected(const json_t *selector, const json_t *labels)
{
	const json_t *exprs = at(selector, "matchExpressions", NULL), *value;
	const char *key;

	json_object_foreach((json_t *)at(selector, "matchLabels", NULL), key, value) {
		if (strcmp(str(labels, key), json_string_value(value)) != 0 ||
		    !json_object_get(labels, key))
			return false;
	}
	for (size_t i = 0; i < json_array_size(exprs); i++) {
		const json_t *e = json_array_get(exprs, i), *values = at(e, "values", NULL);
		const char *op = str(e, "operator"), *k = str(e, "key");
		bool there = json_object_get(labels, k);

		if (strcmp(op, "Exists") == 0 && !there)
			return false;
		if (strcmp(op, "DoesNotExist") == 0 && there)
			return false;
		if (strcmp(op, "In") == 0 && !(there && contains(values, str(labels, k))))
			return false;
		if (strcmp(op, "NotIn") == 0 && there && contains(values, str(labels, k)))
			return false;
	}
	return true;
}

static bool has_addr(const json_t *list, const char *key, const char *addr)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		if (strcmp(str(json_array_get(list, i), key), addr) == 0)
			return true;
	return false;
}

const json_t *oracle_pod(const struct oracle *o, const char *addr)
{
	for (size_t i = 0; i < json_array_size(o->pods); i++) {
		const json_t *pod = json_array_get(o->pods, i);
		const char *phase = str(at(pod, "status", NULL), "phase");

		if (!json_is_true(at(pod, "spec", "hostNetwork")) && strcmp(phase, "Failed") != 0 &&
		    strcmp(phase, "Succeeded") != 0 &&
		    has_addr(at(pod, "status", "podIPs"), "ip", addr))
			return pod;
	}
	return NULL;
}

const json_t *oracle_node(const struct oracle *o, const char *addr)
{
	for (size_t i = 0; i < json_array_size(o->nodes); i++) {
		const json_t *node = json_array_get(o->nodes, i);

		if (has_addr(at(node, "status", "addresses"), "address", addr))
			return node;
	}
	return NULL;
}

static const json_t *ns_labels(const struct oracle *o, const char *ns)
{
	for (size_t i = 0; i < json_array_size(o->namespaces); i++) {
		const json_t *obj = json_array_get(o->namespaces, i);

		if (strcmp(str(at(obj, "metadata", NULL), "name"), ns) == 0)
			return at(obj, "metadata", "labels");
	}
	return NULL;
}

static const char *ns_of(const json_t *obj)
{
	return str(at(obj, "metadata", NULL), "namespace");
}

static const json_t *labels_of(const json_t *obj)
{
	return at(obj, "metadata", "labels");
}

static bool in_cidr(const char *text, const char *addr)
{
	int family = strchr(text, ':') ? AF_INET6 : AF_INET;
	unsigned char net[16] = { 0 }, a[16] = { 0 };
	char copy[64];
	int bits;

	snprintf(copy, sizeof(copy), "%s", text);
	bits = atoi(strchr(copy, '/') + 1);
	*strchr(copy, '/') = 0;
	if (inet_pton(family, copy, net) != 1 || inet_pton(family, addr, a) != 1)
		return false;
	for (int i = 0; i < bits; i++)
		if ((net[i / 8] ^ a[i / 8]) & 0x80 >> i % 8)
			return false;
	return true;
}

struct flow {
	const struct oracle *o;
	bool egress;
	const json_t *pod, *peer_pod, *peer_node;
	const char *peer, *proto;
	int port;
};

/* The number that the destination's named port has, for the flow's protocol; -1: none. */
static bool named_port(const struct flow *f, const char *name, bool any_proto)
{
	const json_t *dst = f->egress ? f->peer_pod : f->pod;
	const json_t *containers = at(dst, "spec", "containers");

	(void)any_proto;
	for (size_t c = 0; c < json_array_size(containers); c++) {
		const json_t *ports = at(json_array_get(containers, c), "ports", NULL);

		for (size_t i = 0; i < json_array_size(ports); i++) {
			const json_t *p = json_array_get(ports, i);
			const char *proto = str(p, "protocol");

			if (strcmp(str(p, "name"), name) == 0 &&
			    strcmp(proto[0] ? proto : "TCP", f->proto) == 0 &&
			    json_integer_value(at(p, "containerPort", NULL)) == f->port)
				return true;
		}
	}
	return false;
}

static bool in_pods(const struct flow *f, const json_t *ns_sel, const json_t *pod_sel)
{
	return f->peer_pod && selected(ns_sel, ns_labels(f->o, ns_of(f->peer_pod))) &&
	       selected(pod_sel, labels_of(f->peer_pod));
}

/* ---- NetworkPolicy ---- */

static bool np_peer(const struct flow *f, const json_t *policy, const json_t *peer)
{
	const json_t *block = at(peer, "ipBlock", NULL), *ns = at(peer, "namespaceSelector", NULL);
	const json_t *pods = at(peer, "podSelector", NULL);

	if (block) {
		const json_t *excepts = at(block, "except", NULL);

		if (!in_cidr(str(block, "cidr"), f->peer))
			return false;
		for (size_t i = 0; i < json_array_size(excepts); i++)
			if (in_cidr(json_string_value(json_array_get(excepts, i)), f->peer))
				return false;
		return true;
	}
	if (!f->peer_pod)
		return false;
	if (ns)
		return in_pods(f, ns, pods);
	return strcmp(ns_of(f->peer_pod), ns_of(policy)) == 0 &&
	       selected(pods, labels_of(f->peer_pod));
}

static bool np_port(const struct flow *f, const json_t *port)
{
	const char *proto = str(port, "protocol");
	const json_t *number = at(port, "port", NULL), *end = at(port, "endPort", NULL);

	if (strcmp(proto[0] ? proto : "TCP", f->proto) != 0)
		return false;
	if (!number)
		return true;
	if (json_is_string(number))
		return named_port(f, json_string_value(number), false);
	if (end)
		return f->port >= json_integer_value(number) && f->port <= json_integer_value(end);
	return f->port == json_integer_value(number);
}

static bool np_rule(const struct flow *f, const json_t *policy, const json_t *rule)
{
	const json_t *peers = at(rule, f->egress ? "to" : "from", NULL);
	const json_t *ports = at(rule, "ports", NULL);
	bool peer_ok = json_array_size(peers) == 0, port_ok = json_array_size(ports) == 0;

	for (size_t i = 0; i < json_array_size(peers); i++)
		peer_ok |= np_peer(f, policy, json_array_get(peers, i));
	for (size_t i = 0; i < json_array_size(ports); i++)
		port_ok |= np_port(f, json_array_get(ports, i));
	return peer_ok && port_ok;
}

static bool np_applies(const struct flow *f, const json_t *policy)
{
	const json_t *types = at(policy, "spec", "policyTypes");

	if (strcmp(ns_of(policy), ns_of(f->pod)) != 0 ||
	    !selected(at(policy, "spec", "podSelector"), labels_of(f->pod)))
		return false;
	if (json_array_size(types))
		return contains(types, f->egress ? "Egress" : "Ingress");
	return !f->egress || json_array_size(at(policy, "spec", "egress")) > 0;
}

static struct oracle_answer np_judge(const struct flow *f)
{
	bool isolated = false;

	for (size_t i = 0; i < json_array_size(f->o->policies); i++) {
		const json_t *p = json_array_get(f->o->policies, i);
		const json_t *rules = at(p, "spec", f->egress ? "egress" : "ingress");

		if (!np_applies(f, p))
			continue;
		isolated = true;
		for (size_t r = 0; r < json_array_size(rules); r++)
			if (np_rule(f, p, json_array_get(rules, r)))
				return (struct oracle_answer){ ORACLE_ALLOW };
	}
	return (struct oracle_answer){ isolated ? ORACLE_ISOLATED : 0 };
}

/* ---- ClusterNetworkPolicy ---- */

static bool cnp_peer(const struct flow *f, const json_t *peer)
{
	const json_t *namespaces = at(peer, "namespaces", NULL), *pods = at(peer, "pods", NULL);
	const json_t *nodes = at(peer, "nodes", NULL), *networks = at(peer, "networks", NULL);

	if (namespaces)
		return in_pods(f, namespaces, NULL);
	if (pods)
		return in_pods(f, at(pods, "namespaceSelector", NULL),
			       at(pods, "podSelector", NULL));
	if (nodes)
		return f->peer_node && selected(nodes, labels_of(f->peer_node));
	for (size_t i = 0; i < json_array_size(networks); i++)
		if (in_cidr(json_string_value(json_array_get(networks, i)), f->peer))
			return true;
	return false;
}

static bool cnp_protocol(const struct flow *f, const json_t *protocol)
{
	static const char *const keys[][2] = { { "tcp", "TCP" }, { "udp", "UDP" },
					       { "sctp", "SCTP" } };

	if (at(protocol, "destinationNamedPort", NULL))
		return named_port(f, str(protocol, "destinationNamedPort"), true);
	for (size_t i = 0; i < 3; i++) {
		const json_t *p = at(protocol, keys[i][0], NULL), *port, *range;

		if (!p)
			continue;
		if (strcmp(keys[i][1], f->proto) != 0)
			return false;
		port = at(p, "destinationPort", NULL);
		range = at(port, "range", NULL);
		if (!port)
			return true;
		if (range)
			return f->port >= json_integer_value(at(range, "start", NULL)) &&
			       f->port <= json_integer_value(at(range, "end", NULL));
		return f->port == json_integer_value(at(port, "number", NULL));
	}
	return false;
}

static bool cnp_rule(const struct flow *f, const json_t *rule)
{
	const json_t *peers = at(rule, f->egress ? "to" : "from", NULL);
	const json_t *protocols = at(rule, "protocols", NULL);
	bool peer_ok = false, port_ok = json_array_size(protocols) == 0;

	for (size_t i = 0; i < json_array_size(peers); i++)
		peer_ok |= cnp_peer(f, json_array_get(peers, i));
	for (size_t i = 0; i < json_array_size(protocols); i++)
		port_ok |= cnp_protocol(f, json_array_get(protocols, i));
	return peer_ok && port_ok;
}

static bool cnp_applies(const struct flow *f, const json_t *policy, const char *tier)
{
	const json_t *subject = at(policy, "spec", "subject"), *pods = at(subject, "pods", NULL);
	const json_t *ns = ns_labels(f->o, ns_of(f->pod));

	if (strcmp(str(at(policy, "spec", NULL), "tier"), tier) != 0)
		return false;
	if (at(subject, "namespaces", NULL))
		return selected(at(subject, "namespaces", NULL), ns);
	return selected(at(pods, "namespaceSelector", NULL), ns) &&
	       selected(at(pods, "podSelector", NULL), labels_of(f->pod));
}

/* The first policy of the tier, by priority and then name, with a rule that matches. */
static struct oracle_answer cnp_judge(const struct flow *f, const char *tier)
{
	struct oracle_answer best = { 0 };
	json_int_t best_priority = -1;

	for (size_t i = 0; i < json_array_size(f->o->cluster_policies); i++) {
		const json_t *p = json_array_get(f->o->cluster_policies, i);
		const json_t *rules = at(p, "spec", f->egress ? "egress" : "ingress");
		json_int_t priority = json_integer_value(at(p, "spec", "priority"));
		const char *name = str(at(p, "metadata", NULL), "name");

		if (!cnp_applies(f, p, tier))
			continue;
		if (best_priority >= 0 &&
		    (priority > best_priority ||
		     (priority == best_priority && strcmp(name, best.name) > 0)))
			continue;
		for (size_t r = 0; r < json_array_size(rules); r++) {
			const char *action = str(json_array_get(rules, r), "action");

			if (!cnp_rule(f, json_array_get(rules, r)))
				continue;
			best_priority = priority;
			best = (struct oracle_answer){ .name = name, .rule = (long)r };
			if (strcmp(action, "Pass") != 0)
				best.verdict = strcmp(action, "Deny") == 0 ? ORACLE_DENY :
									     ORACLE_ALLOW;
			break;
		}
	}
	return best;
}

struct oracle_answer oracle_judge(const struct oracle *o, int egress, const json_t *pod,
				  const char *peer, const char *proto, int port)
{
	struct flow f = { o, egress, pod, oracle_pod(o, peer), NULL, peer, proto, port };
	struct oracle_answer a;

	f.peer_node = f.peer_pod ? NULL : oracle_node(o, peer);
	a = cnp_judge(&f, "Admin");
	if (a.verdict)
		return a;
	a = np_judge(&f);
	if (a.verdict)
		return a;
	a = cnp_judge(&f, "Baseline");
	return a.verdict ? a : (struct oracle_answer){ ORACLE_ALLOW };
}
