// SPDX-License-Identifier: Apache-2.0
/* Nodes, and the kinds of which little is read. */
#include <errno.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "kube_field.h"
#include "object.h"

/* InternalIPs first, then ExternalIPs; host names are of no use here. */
static int node_addrs(const struct reader *rd, const json_t *list, const char *want,
		      struct node *node)
{
	const json_t *value;
	size_t i;
	int r;

	json_array_foreach(list, i, value)
	{
		const char *type;
		char path[64];

		snprintf(path, sizeof(path), "status.addresses[%zu].", i);
		r = field_str(rd, value, path, "type", &type);
		if (r < 0)
			return r;
		if (strcmp(type, want) != 0)
			continue;
		snprintf(path, sizeof(path), "status.addresses[%zu].address", i);
		r = field_add_addr(rd, json_object_get(value, "address"), path, &node->addrs,
				   &node->n_addrs);
		if (r < 0)
			return r;
	}
	return 0;
}

static int node_cidr(const struct reader *rd, const json_t *at, const char *text, const char *path,
		     struct node *node)
{
	struct wag_addr addr;
	unsigned bits;
	char **cidr;

	if (!text || wag_cidr_parse(text, &addr, &bits) < 0)
		return field_bad(rd, at, "%s: is no CIDR", path);
	cidr = array_grow(&node->pod_cidrs, &node->n_pod_cidrs, sizeof(*cidr));
	return cidr ? field_copy(rd, text, cidr) : field_no_memory(rd);
}

/* What the controller manager gave the node. */
static int node_spec_cidrs(const struct reader *rd, const json_t *spec, struct node *node)
{
	const json_t *cidrs, *value;
	char path[48];
	size_t i;
	int r;

	r = field_typed(rd, spec, "spec.", "podCIDRs", JSON_ARRAY, &cidrs);
	if (r < 0)
		return r;
	json_array_foreach(cidrs, i, value)
	{
		snprintf(path, sizeof(path), "spec.podCIDRs[%zu]", i);
		r = node_cidr(rd, value, json_string_value(value), path, node);
		if (r < 0)
			return r;
	}
	value = field_member(spec, "podCIDR");
	if (json_array_size(cidrs) > 0 || !value || json_string_length(value) == 0)
		return 0;
	return node_cidr(rd, value, json_string_value(value), "spec.podCIDR", node);
}

/* What the node took for itself, told by its own agent. */
static int node_own_cidrs(const struct reader *rd, const json_t *tree, struct node *node)
{
	_cleanup_free_ char *list = NULL;
	char *save, *cidr;
	int r;

	r = field_copy(rd, node->published, &list);
	if (r < 0)
		return r;
	for (cidr = strtok_r(list, ", ", &save); cidr; cidr = strtok_r(NULL, ", ", &save)) {
		r = node_cidr(rd, tree, cidr, "metadata.annotations." MODEL_POD_CIDRS, node);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The marks of a node that is about to go: KEP-3836. */
static int node_leaving(const struct reader *rd, const json_t *meta, const json_t *spec,
			struct node *node)
{
	const json_t *taints, *value;
	const char *key, *deleted;
	size_t i;
	int r;

	if ((r = field_str(rd, meta, "metadata.", "deletionTimestamp", &deleted)) < 0 ||
	    (r = field_typed(rd, spec, "spec.", "taints", JSON_ARRAY, &taints)) < 0)
		return r;
	node->leaving = deleted[0];
	json_array_foreach(taints, i, value)
	{
		r = field_str(rd, value, "spec.taints[].", "key", &key);
		if (r < 0)
			return r;
		if (strcmp(key, MODEL_NODE_TAINT_DELETED) == 0)
			node->leaving = true;
	}
	return 0;
}

int kube_read_node(const struct reader *rd, const json_t *tree, struct object *obj)
{
	const json_t *meta = field_member(tree, "metadata"), *spec, *status, *addrs;
	struct node *node = &obj->node;
	const char *zone, *published;
	int r;

	if ((r = field_typed(rd, tree, "", "spec", JSON_OBJECT, &spec)) < 0 ||
	    (r = field_typed(rd, tree, "", "status", JSON_OBJECT, &status)) < 0 ||
	    (r = field_typed(rd, status, "status.", "addresses", JSON_ARRAY, &addrs)) < 0 ||
	    (r = field_label(rd, tree, "topology.kubernetes.io/zone", &zone)) < 0 ||
	    (r = field_annotation(rd, tree, MODEL_POD_CIDRS, &published)) < 0 ||
	    (r = field_labels(rd, tree, &node->labels, &node->n_labels)) < 0 ||
	    (r = field_dup(rd, meta, "metadata.", "uid", &node->uid)) < 0 ||
	    (r = field_dup(rd, meta, "metadata.", "creationTimestamp", &node->created)) < 0 ||
	    (r = node_leaving(rd, meta, spec, node)) < 0 ||
	    (r = node_addrs(rd, addrs, "InternalIP", node)) < 0)
		return r;
	node->n_internal = node->n_addrs;
	r = node_addrs(rd, addrs, "ExternalIP", node);
	if (r < 0)
		return r;
	if (published[0] && (r = field_copy(rd, published, &node->published)) < 0)
		return r;
	r = node->published ? node_own_cidrs(rd, tree, node) : node_spec_cidrs(rd, spec, node);
	if (r < 0)
		return r;
	return zone[0] ? field_copy(rd, zone, &node->zone) : 0;
}

/* "true" or not: a switch that one object carries. */
static int audit(const struct reader *rd, const json_t *tree, bool *ret)
{
	const char *text;
	int r = field_annotation(rd, tree, MODEL_AUDIT, &text);

	*ret = r == 0 && strcmp(text, "true") == 0;
	return r;
}

/* The named ports of one container. */
static int container_ports(const struct reader *rd, const json_t *container, const char *path,
			   struct pod *pod)
{
	const json_t *ports, *value;
	struct pod_port *at;
	json_int_t port;
	const char *name;
	size_t i;
	int r = field_typed(rd, container, path, "ports", JSON_ARRAY, &ports);

	if (r < 0)
		return r;
	json_array_foreach(ports, i, value)
	{
		if ((r = field_str(rd, value, path, "name", &name)) < 0 ||
		    (r = field_int(rd, value, path, "containerPort", 1, 65535, &port)) < 0)
			return r;
		if (!name[0] || !port)
			continue;
		at = array_grow(&pod->ports, &pod->n_ports, sizeof(*at));
		if (!at)
			return field_no_memory(rd);
		at->port = port;
		if ((r = field_proto(rd, value, path, &at->proto)) < 0 ||
		    (r = field_copy(rd, name, &at->name)) < 0)
			return r;
	}
	return 0;
}

/* Containers, and init containers that go on running beside them. */
static int pod_ports(const struct reader *rd, const json_t *spec, const char *key, struct pod *pod)
{
	bool init = strcmp(key, "initContainers") == 0;
	const json_t *list, *value;
	const char *restart;
	char path[64];
	size_t i;
	int r = field_typed(rd, spec, "spec.", key, JSON_ARRAY, &list);

	if (r < 0)
		return r;
	json_array_foreach(list, i, value)
	{
		snprintf(path, sizeof(path), "spec.%s[%zu].", key, i);
		r = field_str(rd, value, path, "restartPolicy", &restart);
		if (r == 0 && (!init || strcmp(restart, "Always") == 0))
			r = container_ports(rd, value, path, pod);
		if (r < 0)
			return r;
	}
	return 0;
}

int kube_read_pod(const struct reader *rd, const json_t *tree, struct object *obj)
{
	const json_t *spec, *status, *ips, *value;
	struct pod *pod = &obj->pod;
	char path[64];
	size_t i;
	int r;

	if ((r = field_typed(rd, tree, "", "spec", JSON_OBJECT, &spec)) < 0 ||
	    (r = field_typed(rd, tree, "", "status", JSON_OBJECT, &status)) < 0 ||
	    (r = field_typed(rd, status, "status.", "podIPs", JSON_ARRAY, &ips)) < 0 ||
	    (r = field_dup(rd, spec, "spec.", "nodeName", &pod->node_name)) < 0 ||
	    (r = field_bool(rd, spec, "spec.", "hostNetwork", false, &pod->host_network)) < 0 ||
	    (r = field_dup(rd, status, "status.", "phase", &pod->phase)) < 0 ||
	    (r = field_labels(rd, tree, &pod->labels, &pod->n_labels)) < 0 ||
	    (r = pod_ports(rd, spec, "containers", pod)) < 0 ||
	    (r = pod_ports(rd, spec, "initContainers", pod)) < 0 ||
	    (r = audit(rd, tree, &pod->audit)) < 0)
		return r;
	json_array_foreach(ips, i, value)
	{
		snprintf(path, sizeof(path), "status.podIPs[%zu].ip", i);
		r = field_add_addr(rd, json_object_get(value, "ip"), path, &pod->addrs,
				   &pod->n_addrs);
		if (r < 0)
			return r;
	}
	if (!ips && (value = field_member(status, "podIP")) && json_string_length(value) > 0)
		return field_add_addr(rd, value, "status.podIP", &pod->addrs, &pod->n_addrs);
	return 0;
}

int kube_read_namespace(const struct reader *rd, const json_t *tree, struct object *obj)
{
	int r = field_labels(rd, tree, &obj->namespace.labels, &obj->namespace.n_labels);

	return r < 0 ? r : audit(rd, tree, &obj->namespace.audit);
}
