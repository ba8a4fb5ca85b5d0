// SPDX-License-Identifier: Apache-2.0
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "agent/kube_parse.h"
#include "policy_world.h"

#define PODS 12
#define NODES 3
#define POLICIES 6
#define CLUSTER_POLICIES 4

static const char *const namespaces[] = { "red", "green", "blue" };
static const char *const keys[] = { "app", "tier", "größe" };
static const char *const values[] = { "a", "b", "c", "" };
static const char *const cidrs[][8] = {
	{ "0.0.0.0/0", "10.244.0.0/16", "10.244.1.0/24", "10.244.1.2/32", "192.0.2.0/24",
	  "192.0.2.128/25", "172.16.0.0/12", "10.0.0.0/8" },
	{ "::/0", "fd00:10:244::/48", "fd00:10:244:1::/64", "fd00:10:244:1::2/128", "2001:db8::/32",
	  "2001:db8::80/121", "fd00:16::/32", "fd00::/8" },
};
static const char *const outside[][5] = {
	{ "192.0.2.1", "192.0.2.200", "10.244.1.250", "10.9.9.9", "8.8.8.8" },
	{ "2001:db8::1", "2001:db8::c8", "fd00:10:244:1::fa", "fd00:9::9", "2002::8" },
};

uint32_t policy_world_random(struct policy_world *w, uint32_t below)
{
	w->seed = w->seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(w->seed >> 33) % below;
}

#define RND(n) policy_world_random(w, (n))
#define PICK(a) (a)[RND(sizeof(a) / sizeof((a)[0]))]

static json_t *labels(struct policy_world *w)
{
	json_t *map = json_object();

	for (size_t i = 0; i < 3; i++)
		if (RND(3))
			json_object_set_new(map, keys[i], json_string(PICK(values)));
	return map;
}

static json_t *selector(struct policy_world *w)
{
	static const char *const ops[] = { "In", "NotIn", "Exists", "DoesNotExist" };
	json_t *sel = json_object(), *list;

	if (RND(2)) {
		json_t *map = json_object();

		json_object_set_new(map, PICK(keys), json_string(PICK(values)));
		json_object_set_new(sel, "matchLabels", map);
	}
	if (RND(3))
		return sel;
	list = json_array();
	for (uint32_t n = 1 + RND(2); n > 0; n--) {
		const char *op = PICK(ops);
		json_t *e = json_pack("{s:s, s:s}", "key", PICK(keys), "operator", op);

		if (strstr(op, "In"))
			json_object_set_new(e, "values", RND(2) ?
				json_pack("[s]", PICK(values)) :
				json_pack("[s, s]", PICK(values), PICK(values)));
		json_array_append_new(list, e);
	}
	json_object_set_new(sel, "matchExpressions", list);
	return sel;
}

/* Of namespaces, now and then by name. */
static json_t *ns_selector(struct policy_world *w)
{
	if (RND(4))
		return selector(w);
	return json_pack("{s:{s:s}}", "matchLabels", "kubernetes.io/metadata.name",
			 PICK(namespaces));
}

static json_t *meta(const char *ns, const char *name, json_t *labels)
{
	json_t *m = json_pack("{s:s}", "name", name);

	if (ns)
		json_object_set_new(m, "namespace", json_string(ns));
	if (labels)
		json_object_set_new(m, "labels", labels);
	return m;
}

static json_t *namespace(struct policy_world *w, uint32_t i)
{
	json_t *l = labels(w);

	json_object_set_new(l, "kubernetes.io/metadata.name", json_string(namespaces[i]));
	return json_pack("{s:o}", "metadata", meta(NULL, namespaces[i], l));
}

static json_t *node(struct policy_world *w, uint32_t i)
{
	char name[16], v4[64], v6[64], cidr4[64], cidr6[64];

	snprintf(name, sizeof(name), "n%u", i);
	snprintf(v4, sizeof(v4), "172.16.0.%u", i + 1);
	snprintf(v6, sizeof(v6), "fd00:16::%x", i + 1);
	snprintf(cidr4, sizeof(cidr4), "10.244.%u.0/24", i);
	snprintf(cidr6, sizeof(cidr6), "fd00:10:244:%x::/64", i);
	return json_pack("{s:o, s:{s:[s, s]}, s:{s:[{s:s, s:s}, {s:s, s:s}]}}", "metadata",
			 meta(NULL, name, labels(w)), "spec", "podCIDRs", cidr4, cidr6, "status",
			 "addresses", "type", "InternalIP", "address", v4, "type", "InternalIP",
			 "address", v6);
}

static json_t *container(struct policy_world *w)
{
	static const char *const protos[] = { "TCP", "UDP", "SCTP" };
	json_t *ports = json_array();

	if (RND(2))
		json_array_append_new(ports, json_pack("{s:s, s:i}", "name", "web", "containerPort",
						       80 + (int)RND(3)));
	if (RND(2))
		json_array_append_new(ports, json_pack("{s:s, s:i, s:s}", "name", "dns",
						       "containerPort", 53 + (int)RND(30),
						       "protocol", PICK(protos)));
	return json_pack("{s:o}", "ports", ports);
}

static json_t *pod(struct policy_world *w, uint32_t i)
{
	static const char *const phases[] = { "Running", "Running", "Running", "Failed" };
	char name[16], v4[64], v6[64], node[16];
	json_t *obj;

	snprintf(name, sizeof(name), "p%u", i);
	snprintf(v4, sizeof(v4), "10.244.%u.%u", i % NODES, i / NODES + 2);
	snprintf(v6, sizeof(v6), "fd00:10:244:%x::%x", i % NODES, i / NODES + 2);
	snprintf(node, sizeof(node), "n%u", i % NODES);
	if (i % NODES && RND(10) == 0) /* on its node's own network */
		return json_pack("{s:o, s:{s:s, s:b}, s:{s:s, s:[{s:s}]}}", "metadata",
				 meta(namespaces[i % 3 * (i % 2)], name, labels(w)), "spec",
				 "nodeName", node, "hostNetwork", 1, "status", "phase", "Running",
				 "podIPs", "ip", i % NODES == 1 ? "172.16.0.2" : "172.16.0.3");
	obj = json_pack("{s:o, s:{s:s, s:[o]}, s:{s:s, s:[{s:s}, {s:s}]}}", "metadata",
			meta(namespaces[i % 3 * (i % 2)], name, labels(w)), "spec", "nodeName",
			node, "containers", container(w), "status", "phase",
			i % NODES ? PICK(phases) : "Running", "podIPs", "ip", v4, "ip", v6);
	return obj;
}

/* Up to two parts of the cidr: an API server takes no others. */
static json_t *np_excepts(struct policy_world *w, uint32_t family, const char *cidr)
{
	json_t *list = json_array();
	struct wag_addr outer, inner;
	unsigned bits, inner_bits;

	wag_cidr_parse(cidr, &outer, &bits);
	for (int i = 0; i < 2; i++) {
		const char *part = cidrs[family][1 + RND(7)];

		wag_cidr_parse(part, &inner, &inner_bits);
		if (inner_bits > bits && wag_addr_in_cidr(&inner, &outer, bits))
			json_array_append_new(list, json_string(part));
	}
	return list;
}

static json_t *np_peers(struct policy_world *w)
{
	json_t *list = json_array();

	for (uint32_t n = RND(3); n > 0; n--) {
		uint32_t kind = RND(4), family = RND(2);
		json_t *peer = json_object();

		if (kind == 0 || kind == 2)
			json_object_set_new(peer, "podSelector", selector(w));
		if (kind == 1 || kind == 2)
			json_object_set_new(peer, "namespaceSelector", ns_selector(w));
		if (kind == 3) {
			const char *cidr = cidrs[family][RND(8)];
			json_t *block = json_pack("{s:s}", "cidr", cidr);

			if (RND(2))
				json_object_set_new(block, "except", np_excepts(w, family, cidr));
			json_object_set_new(peer, "ipBlock", block);
		}
		json_array_append_new(list, peer);
	}
	return list;
}

static json_t *np_ports(struct policy_world *w)
{
	static const char *const protos[] = { "TCP", "UDP", "SCTP" };
	json_t *list = json_array();

	for (uint32_t n = RND(3); n > 0; n--) {
		json_t *port = json_object();
		int first = 75 + (int)RND(12);

		if (RND(3))
			json_object_set_new(port, "protocol", json_string(PICK(protos)));
		switch (RND(4)) {
		case 0:
			json_object_set_new(port, "port", json_string(RND(2) ? "web" : "dns"));
			break;
		case 1:
			json_object_set_new(port, "endPort", json_integer(first + (int)RND(9)));
			/* fall through */
		case 2:
			json_object_set_new(port, "port", json_integer(first));
			break;
		}
		json_array_append_new(list, port);
	}
	return list;
}

static json_t *np_rules(struct policy_world *w, const char *peers)
{
	json_t *list = json_array();

	for (uint32_t n = RND(3); n > 0; n--) {
		json_t *rule = json_object();

		if (RND(5))
			json_object_set_new(rule, peers, np_peers(w));
		if (RND(2))
			json_object_set_new(rule, "ports", np_ports(w));
		json_array_append_new(list, rule);
	}
	return list;
}

static json_t *network_policy(struct policy_world *w, uint32_t i)
{
	json_t *spec = json_pack("{s:o}", "podSelector", selector(w));
	char name[16];

	snprintf(name, sizeof(name), "np%u", i);
	if (RND(3))
		json_object_set_new(spec, "ingress", np_rules(w, "from"));
	if (RND(2))
		json_object_set_new(spec, "egress", np_rules(w, "to"));
	switch (RND(4)) {
	case 0:
		json_object_set_new(spec, "policyTypes", json_pack("[s]", "Ingress"));
		break;
	case 1:
		json_object_set_new(spec, "policyTypes", json_pack("[s]", "Egress"));
		break;
	case 2:
		json_object_set_new(spec, "policyTypes", json_pack("[s, s]", "Ingress", "Egress"));
		break;
	}
	return json_pack("{s:o, s:o}", "metadata", meta(namespaces[i % 3], name, NULL), "spec",
			 spec);
}

static json_t *cnp_pods(struct policy_world *w)
{
	return json_pack("{s:{s:o, s:o}}", "pods", "namespaceSelector", ns_selector(w),
			 "podSelector", selector(w));
}

static json_t *cnp_peers(struct policy_world *w, bool egress)
{
	json_t *list = json_array();

	for (uint32_t n = 1 + RND(2); n > 0; n--) {
		uint32_t kind = RND(egress ? 4 : 2), family = RND(2);

		if (kind == 0)
			json_array_append_new(list,
					      json_pack("{s:o}", "namespaces", ns_selector(w)));
		else if (kind == 1)
			json_array_append_new(list, cnp_pods(w));
		else if (kind == 2)
			json_array_append_new(list, json_pack("{s:o}", "nodes", selector(w)));
		else
			json_array_append_new(list, json_pack("{s:[s, s]}", "networks",
							      cidrs[family][RND(8)],
							      cidrs[!family][RND(8)]));
	}
	return list;
}

static json_t *cnp_protocols(struct policy_world *w)
{
	static const char *const protos[] = { "tcp", "udp", "sctp" };
	json_t *list = json_array();

	for (uint32_t n = 1 + RND(2); n > 0; n--) {
		int first = 75 + (int)RND(12);

		switch (RND(4)) {
		case 0:
			json_array_append_new(list, json_pack("{s:s}", "destinationNamedPort",
							      RND(2) ? "web" : "dns"));
			break;
		case 1:
			json_array_append_new(list, json_pack("{s:{}}", PICK(protos)));
			break;
		case 2:
			json_array_append_new(list, json_pack("{s:{s:{s:i}}}", PICK(protos),
							      "destinationPort", "number", first));
			break;
		case 3:
			json_array_append_new(
				list, json_pack("{s:{s:{s:{s:i, s:i}}}}", PICK(protos),
						"destinationPort", "range", "start", first, "end",
						first + (int)RND(9)));
			break;
		}
	}
	return list;
}

static json_t *cnp_rules(struct policy_world *w, bool egress)
{
	static const char *const actions[] = { "Accept", "Deny", "Pass" };
	json_t *list = json_array();

	for (uint32_t n = RND(4); n > 0; n--) {
		json_t *rule = json_pack("{s:s, s:o}", "action", PICK(actions),
					 egress ? "to" : "from", cnp_peers(w, egress));

		if (RND(2))
			json_object_set_new(rule, "protocols", cnp_protocols(w));
		json_array_append_new(list, rule);
	}
	return list;
}

static json_t *cluster_policy(struct policy_world *w, uint32_t i)
{
	json_t *subject = RND(2) ? cnp_pods(w) : json_pack("{s:o}", "namespaces", ns_selector(w));
	char name[16];

	snprintf(name, sizeof(name), "cnp%u", i);
	return json_pack("{s:o, s:{s:s, s:i, s:o, s:o, s:o}}", "metadata", meta(NULL, name, NULL),
			 "spec", "tier", RND(2) ? "Admin" : "Baseline", "priority", (int)RND(4),
			 "subject", subject, "ingress", cnp_rules(w, false), "egress",
			 cnp_rules(w, true));
}

/* ---- the objects ---- */

static void no_object(void *ctx, const struct kube_ident *ident, const struct wag_err *err)
{
}

static json_t *list_of(struct policy_world *w, enum model_kind kind)
{
	switch (kind) {
	case MODEL_NAMESPACE:
		return w->o.namespaces;
	case MODEL_NODE:
		return w->o.nodes;
	case MODEL_POD:
		return w->o.pods;
	case MODEL_POLICY:
		return w->o.policies;
	default:
		return w->o.cluster_policies;
	}
}

static const char *meta_of(const json_t *obj, const char *key)
{
	const char *s = json_string_value(json_object_get(json_object_get(obj, "metadata"), key));

	return s ? s : "";
}

static void take(struct policy_world *w, enum model_kind kind, const char *name)
{
	json_t *list = list_of(w, kind);

	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *obj = json_array_get(list, i);

		if (strcmp(meta_of(obj, "name"), name) != 0)
			continue;
		model_delete(w->model, kind, meta_of(obj, "namespace"), name);
		json_array_remove(list, i);
		return;
	}
}

static void put(struct policy_world *w, enum model_kind kind, json_t *tree)
{
	const struct kube_sink sink = { .bad = no_object };
	json_t *list = list_of(w, kind);
	struct kube_ident ident;
	struct wag_err err = { 0 };
	struct object *obj;
	size_t i;

	assert(tree);
	if (kube_parse_object(kind, tree, &sink, &obj, &ident, &err) < 0) {
		fprintf(stderr, "%s: %s\n", err.msg, json_dumps(tree, 0));
		abort();
	}
	for (i = 0; i < json_array_size(list); i++)
		if (strcmp(meta_of(json_array_get(list, i), "name"), meta_of(tree, "name")) == 0)
			break;
	if (i < json_array_size(list))
		json_array_set_new(list, i, tree);
	else
		json_array_append_new(list, tree);
	if (model_upsert(w->model, obj) < 0)
		abort();
}

void policy_world_put(struct policy_world *w, enum model_kind kind, const char *json)
{
	put(w, kind, json_loads(json, 0, NULL));
}

void policy_world_init(struct policy_world *w, struct model *m, uint64_t seed)
{
	*w = (struct policy_world){
		.o = { json_array(), json_array(), json_array(), json_array(), json_array() },
		.model = m,
		.seed = seed,
	};
	for (uint32_t i = 0; i < 3; i++)
		put(w, MODEL_NAMESPACE, namespace(w, i));
	for (uint32_t i = 0; i < NODES; i++)
		put(w, MODEL_NODE, node(w, i));
	for (uint32_t i = 0; i < PODS; i++)
		put(w, MODEL_POD, pod(w, i));
}

void policy_world_done(struct policy_world *w)
{
	json_decref(w->o.namespaces);
	json_decref(w->o.pods);
	json_decref(w->o.nodes);
	json_decref(w->o.policies);
	json_decref(w->o.cluster_policies);
}

void policy_world_step(struct policy_world *w)
{
	uint32_t what = RND(20), i;
	char name[16];

	if (what < 8) {
		i = RND(POLICIES);
		snprintf(name, sizeof(name), "np%u", i);
		if (RND(4))
			put(w, MODEL_POLICY, network_policy(w, i));
		else
			take(w, MODEL_POLICY, name);
	} else if (what < 13) {
		i = RND(CLUSTER_POLICIES);
		snprintf(name, sizeof(name), "cnp%u", i);
		if (RND(3))
			put(w, MODEL_CLUSTER_POLICY, cluster_policy(w, i));
		else
			take(w, MODEL_CLUSTER_POLICY, name);
	} else if (what < 18) {
		i = RND(PODS);
		snprintf(name, sizeof(name), "p%u", i);
		if (RND(4) || i % NODES == 0)
			put(w, MODEL_POD, pod(w, i));
		else
			take(w, MODEL_POD, name);
	} else if (what == 18) {
		put(w, MODEL_NAMESPACE, namespace(w, RND(3)));
	} else {
		put(w, MODEL_NODE, node(w, RND(NODES)));
	}
}

const char *policy_world_address(struct policy_world *w, int family)
{
	static char text[64];
	uint32_t what = RND(8), i = RND(PODS), n = RND(NODES);

	if (what == 0)
		return outside[family][RND(5)];
	if (what == 1)
		snprintf(text, sizeof(text), family ? "fd00:16::%x" : "172.16.0.%u", n + 1);
	else
		snprintf(text, sizeof(text), family ? "fd00:10:244:%x::%x" : "10.244.%u.%u",
			 i % NODES, i / NODES + 2);
	return text;
}
