// SPDX-License-Identifier: Apache-2.0
/*
 * A NetworkPolicy's message as the JSON it stands for, which kube_policy.c reads: of policies there
 * are few, and one reader for both encodings has one set of rules and of errors.
 */
#include <jansson.h>
#include <string.h>

#include "kube_pb_policy.h"

/* Texts that are no UTF-8 make no JSON: NULL then, as out of memory. */
static int set(json_t *to, const char *key, json_t *value)
{
	return json_object_set_new(to, key, value);
}

static int set_text(json_t *to, const char *key, const char *text)
{
	return text && text[0] ? set(to, key, json_string(text)) : 0;
}

static json_t *texts(char *const *list, size_t n)
{
	json_t *array = json_array();

	for (size_t i = 0; i < n; i++)
		if (json_array_append_new(array, json_string(list[i])) < 0) {
			json_decref(array);
			return NULL;
		}
	return array;
}

static int add_expression(json_t *list, const Kube__LabelSelectorRequirement *from)
{
	json_t *to = json_object();

	if (set_text(to, "key", from->key) < 0 || set_text(to, "operator", from->operator_) < 0 ||
	    set(to, "values", texts(from->values, from->n_values)) < 0) {
		json_decref(to);
		return -1;
	}
	return json_array_append_new(list, to);
}

static json_t *selector(const Kube__LabelSelector *from)
{
	json_t *to = json_object(), *labels = json_object(), *list = json_array();
	int r = 0;

	for (size_t i = 0; i < from->n_match_labels && r == 0; i++) {
		const Kube__StringPair *pair = from->match_labels[i];

		r = set(labels, pair->key ? pair->key : "",
			json_string(pair->value ? pair->value : ""));
	}
	for (size_t i = 0; i < from->n_match_expressions && r == 0; i++)
		r = add_expression(list, from->match_expressions[i]);
	r |= set(to, "matchLabels", labels);
	r |= set(to, "matchExpressions", list);
	if (r == 0)
		return to;
	json_decref(to);
	return NULL;
}

static int add_peer(json_t *list, const Kube__NetworkPolicyPeer *from)
{
	json_t *to = json_object(), *block;
	int r = 0;

	if (from->pod_selector)
		r |= set(to, "podSelector", selector(from->pod_selector));
	if (from->namespace_selector)
		r |= set(to, "namespaceSelector", selector(from->namespace_selector));
	if (from->ip_block) {
		block = json_object();
		r |= set_text(block, "cidr", from->ip_block->cidr);
		r |= set(block, "except", texts(from->ip_block->except, from->ip_block->n_except));
		r |= set(to, "ipBlock", block);
	}
	if (r == 0)
		return json_array_append_new(list, to);
	json_decref(to);
	return -1;
}

static int add_port(json_t *list, const Kube__NetworkPolicyPort *from)
{
	json_t *to = json_object();
	int r = set_text(to, "protocol", from->protocol);

	if (from->port && from->port->type == 1)
		r |= set(to, "port", json_string(from->port->str_val ? from->port->str_val : ""));
	else if (from->port)
		r |= set(to, "port", json_integer(from->port->int_val));
	if (from->has_end_port)
		r |= set(to, "endPort", json_integer(from->end_port));
	if (r == 0)
		return json_array_append_new(list, to);
	json_decref(to);
	return -1;
}

static int add_rule(json_t *list, const Kube__NetworkPolicyRule *from, const char *key)
{
	json_t *to = json_object(), *peers = json_array(), *ports = json_array();
	int r = 0;

	for (size_t i = 0; i < from->n_peers && r == 0; i++)
		r = add_peer(peers, from->peers[i]);
	for (size_t i = 0; i < from->n_ports && r == 0; i++)
		r = add_port(ports, from->ports[i]);
	r |= set(to, key, peers);
	r |= set(to, "ports", ports);
	if (r == 0)
		return json_array_append_new(list, to);
	json_decref(to);
	return -1;
}

static int add_rules(json_t *spec, const char *key, const char *peers,
		     Kube__NetworkPolicyRule *const *rules, size_t n)
{
	json_t *list = json_array();
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		r = add_rule(list, rules[i], peers);
	return set(spec, key, list) | r;
}

static json_t *policy_tree(const char *uid, const Kube__NetworkPolicySpec *from)
{
	json_t *tree = json_object(), *spec = json_object(), *meta = json_object();
	int r = set_text(meta, "uid", uid);

	if (from && from->pod_selector)
		r |= set(spec, "podSelector", selector(from->pod_selector));
	if (from)
		r |= add_rules(spec, "ingress", "from", from->ingress, from->n_ingress) |
		     add_rules(spec, "egress", "to", from->egress, from->n_egress) |
		     set(spec, "policyTypes", texts(from->policy_types, from->n_policy_types));
	r |= set(tree, "metadata", meta);
	r |= set(tree, "spec", spec);
	if (r == 0)
		return tree;
	json_decref(tree);
	return NULL;
}

int kube_pb_read_policy(const struct pb_reader *rd, const void *message, struct object *obj)
{
	const Kube__NetworkPolicy *from = message;
	json_t *tree = policy_tree(rd->meta->uid, from->spec);
	int r;

	if (!tree) {
		field_bad(&rd->to, NULL, "spec: a text of it is no UTF-8");
		return kube_unreadable_policy(&rd->to, NULL, obj);
	}
	r = kube_read_policy(&rd->to, tree, obj);
	rd->to.ident->at = NULL; /* of the tree */
	json_decref(tree);
	return r;
}
