// SPDX-License-Identifier: Apache-2.0
/* ClusterNetworkPolicy as JSON -> struct policy. */
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "kube_policy_internal.h"
#include "kube_selector.h"
#include "object.h"

/* The API has the keys as one choice: whatever were left out here would be lost. */
static int cnp_one_of(const struct reader *rd, const json_t *tree, const char *path,
		      const char *const *keys)
{
	const char *found = NULL;
	int r = field_known(rd, tree, path, keys);

	if (r < 0)
		return r;
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
	static const char *const keys[] = { "namespaceSelector", "podSelector", NULL };
	int r = field_known(rd, pods, path, keys);

	if (r == 0)
		r = kube_member_selector(rd, pods, path, "namespaceSelector", ns, NULL);
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
		struct policy_peer *peer = kube_policy_peer(rule, PEER_CIDR);

		snprintf(where, sizeof(where), "%.120snetworks[%zu]", path, i);
		if (!peer)
			return field_no_memory(rd);
		r = kube_policy_cidr(rd, value, where, &peer->cidr);
		if (r < 0)
			return r;
	}
	return 0;
}

static int cnp_peer(const struct reader *rd, const json_t *tree, const char *path,
		    struct policy_rule *rule)
{
	static const char *const kinds[] = { "namespaces", "pods",	 "nodes",
					     "networks",   "domainNames", NULL };
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
	peer = kube_policy_peer(rule, nodes ? PEER_NODES : PEER_PODS);
	if (!peer)
		return field_no_memory(rd);
	if (nodes)
		return kube_read_selector(rd, nodes, path, &peer->obj);
	return namespaces ? kube_read_selector(rd, namespaces, path, &peer->ns) :
			    cnp_pods(rd, pods, path, &peer->ns, &peer->obj);
}

static int cnp_range(const struct reader *rd, const json_t *range, const char *path,
		     json_int_t *first, json_int_t *last)
{
	static const char *const keys[] = { "start", "end", NULL };
	int r;

	if ((r = field_known(rd, range, path, keys)) < 0 ||
	    (r = field_int(rd, range, path, "start", 1, 65535, first)) < 0 ||
	    (r = field_int(rd, range, path, "end", 1, 65535, last)) < 0)
		return r;
	return *first && *first <= *last ?
		       0 :
		       field_bad(rd, range, "%send: is less than start", path);
}

/* destinationPort of tcp, udp or sctp: a number, a range, or (absent) every port. */
static int cnp_port(const struct reader *rd, const json_t *tree, const char *path, uint8_t proto,
		    struct policy_rule *rule)
{
	static const char *const keys[] = { "destinationPort", NULL };
	static const char *const forms[] = { "number", "range", NULL };
	json_int_t number = 0, first = 0, last = 65535;
	const json_t *port, *range;
	char where[PATH_MAX_LEN];
	int r;

	snprintf(where, sizeof(where), "%.100sdestinationPort.", path);
	if ((r = field_known(rd, tree, path, keys)) < 0 ||
	    (r = field_typed(rd, tree, path, "destinationPort", JSON_OBJECT, &port)) < 0 ||
	    (r = cnp_one_of(rd, port, where, forms)) < 0 ||
	    (r = field_int(rd, port, where, "number", 1, 65535, &number)) < 0 ||
	    (r = field_typed(rd, port, where, "range", JSON_OBJECT, &range)) < 0)
		return r;
	if (port && !range && !number)
		return cnp_unknown(rule);
	snprintf(where, sizeof(where), "%.100sdestinationPort.range.", path);
	if (range && (r = cnp_range(rd, range, where, &first, &last)) < 0)
		return r;
	if (number)
		first = last = number;
	return kube_policy_port(rule, proto, first, last) ? 0 : field_no_memory(rd);
}

static int cnp_protocol(const struct reader *rd, const json_t *tree, const char *path,
			struct policy_rule *rule)
{
	static const struct {
		const char *key;
		uint8_t proto;
	} protos[] = { { "tcp", IPPROTO_TCP }, { "udp", IPPROTO_UDP }, { "sctp", IPPROTO_SCTP } };
	static const char *const forms[] = { "destinationNamedPort", "tcp", "udp", "sctp", NULL };
	char where[PATH_MAX_LEN];
	struct policy_port *at;
	const json_t *proto;
	const char *name;
	int r;

	if ((r = cnp_one_of(rd, tree, path, forms)) < 0 ||
	    (r = field_str(rd, tree, path, "destinationNamedPort", &name)) < 0)
		return r;
	if (name[0]) {
		at = kube_policy_port(rule, 0, 0, 0);
		return at ? field_copy(rd, name, &at->name) : field_no_memory(rd);
	}
	for (size_t i = 0; i < sizeof(protos) / sizeof(protos[0]); i++) {
		r = field_typed(rd, tree, path, protos[i].key, JSON_OBJECT, &proto);
		if (r < 0)
			return r;
		snprintf(where, sizeof(where), "%.120s%s.", path, protos[i].key);
		if (proto)
			return cnp_port(rd, proto, where, protos[i].proto, rule);
	}
	return cnp_unknown(rule);
}

static int cnp_action(const struct reader *rd, const json_t *tree, const char *path,
		      enum policy_action *ret)
{
	static const char *const names[] = { [POLICY_ACCEPT] = "Accept",
					     [POLICY_DENY] = "Deny",
					     [POLICY_PASS] = "Pass" };
	int action = POLICY_ACCEPT;
	int r = field_choice(rd, tree, path, "action", names, sizeof(names) / sizeof(names[0]),
			     "Accept, Deny or Pass", &action);

	*ret = action;
	return r;
}

static int cnp_rule(const struct reader *rd, const json_t *tree, const char *path,
		    const char *peers, struct policy_rule *rule)
{
	const char *const keys[] = { "name", "action", peers, "protocols", NULL };
	const json_t *list, *protocols;
	int r;

	if ((r = field_known(rd, tree, path, keys)) < 0 ||
	    (r = field_dup(rd, tree, path, "name", &rule->name)) < 0 ||
	    (r = cnp_action(rd, tree, path, &rule->action)) < 0 ||
	    (r = field_typed(rd, tree, path, peers, JSON_ARRAY, &list)) < 0 ||
	    (r = field_typed(rd, tree, path, "protocols", JSON_ARRAY, &protocols)) < 0)
		return r;
	if (json_array_size(list) == 0)
		return field_bad(rd, tree,
				 "%s%s: must name a peer; {\"namespaces\": {}} is every pod", path,
				 peers);
	if (protocols && json_array_size(protocols) == 0)
		return field_bad(rd, tree,
				 "%sprotocols: must not be empty; without it all are meant", path);
	rule->any_port = !protocols;
	r = kube_policy_each(rd, list, path, peers, cnp_peer, rule);
	return r < 0 ? r : kube_policy_each(rd, protocols, path, "protocols", cnp_protocol, rule);
}

static int cnp_head(const struct reader *rd, const json_t *spec, struct policy *p)
{
	static const char *const keys[] = { "tier",    "priority", "subject",
					    "ingress", "egress",   NULL };
	static const char *const kinds[] = { "namespaces", "pods", NULL };
	const json_t *subject, *namespaces, *pods;
	json_int_t priority;
	const char *tier;
	int r;

	if ((r = field_known(rd, spec, "spec.", keys)) < 0 ||
	    (r = field_str(rd, spec, "spec.", "tier", &tier)) < 0 ||
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

int kube_read_cluster_policy(const struct reader *rd, const json_t *spec, struct policy *p)
{
	int r = cnp_head(rd, spec, p);

	for (enum policy_dir d = POLICY_INGRESS; d < POLICY_DIRS && r == 0; d++)
		r = kube_policy_rules(rd, spec, d, cnp_rule, p);
	return r;
}
