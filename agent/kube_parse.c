// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "kube_field.h"
#include "kube_parse.h"
#include "object.h"

static const char *const kind_names[MODEL_KINDS] = {
	[MODEL_SERVICE] = "Service", [MODEL_SLICE] = "EndpointSlice",
	[MODEL_NODE] = "Node",	     [MODEL_NAMESPACE] = "Namespace",
	[MODEL_POD] = "Pod",	     [MODEL_POLICY] = "NetworkPolicy",
	[MODEL_CLUSTER_POLICY] = "ClusterNetworkPolicy",
};

static const char *const kind_apis[MODEL_KINDS] = {
	[MODEL_SERVICE] = "v1", [MODEL_SLICE] = "discovery.k8s.io/v1",
	[MODEL_NODE] = "v1",	[MODEL_NAMESPACE] = "v1",
	[MODEL_POD] = "v1",	[MODEL_POLICY] = "networking.k8s.io/v1",
	[MODEL_CLUSTER_POLICY] = "policy.networking.k8s.io/v1alpha2",
};

const char *kube_kind_name(enum model_kind kind)
{
	return kind < MODEL_KINDS ? kind_names[kind] : "?";
}

const char *kube_kind_api(enum model_kind kind)
{
	return kind < MODEL_KINDS ? kind_apis[kind] : "?";
}

int kube_read_port(const struct reader *rd, const json_t *tree, const char *path,
		   struct slice *slice)
{
	struct slice_port *at;
	const char *name;
	json_int_t port;
	int r;

	if (!json_is_object(tree))
		return field_bad(rd, tree, "%s: must be an object", path);
	at = array_grow(&slice->ports, &slice->n_ports, sizeof(*at));
	if (!at)
		return field_no_memory(rd);
	if ((r = field_str(rd, tree, path, "name", &name)) < 0 ||
	    (r = field_copy(rd, name, &at->name)) < 0 ||
	    (r = field_proto(rd, tree, path, &at->proto)) < 0 ||
	    (r = field_int(rd, tree, path, "port", 1, 65535, &port)) < 0)
		return r;
	at->port = port;
	return 0;
}

int kube_read_target(const struct reader *rd, const json_t *tree, const char *path,
		     struct slice_endpoint *ep)
{
	const json_t *ref;
	const char *kind;
	char where[96];
	int r;

	r = field_typed(rd, tree, path, "targetRef", JSON_OBJECT, &ref);
	if (r < 0 || !ref)
		return r;
	snprintf(where, sizeof(where), "%stargetRef.", path);
	r = field_str(rd, ref, where, "kind", &kind);
	if (r < 0 || strcmp(kind, "Pod") != 0)
		return r;
	r = field_dup(rd, ref, where, "namespace", &ep->target_ns);
	if (r < 0)
		return r;
	return field_dup(rd, ref, where, "name", &ep->target_name);
}

/* The names of one list of hints, joined. */
static int hint_names(const struct reader *rd, const json_t *hints, const char *path,
		      const char *key, char **ret)
{
	const json_t *list, *value;
	char *joined = NULL;
	const char *name;
	size_t i;
	int r;

	r = field_typed(rd, hints, path, key, JSON_ARRAY, &list);
	json_array_foreach(list, i, value)
	{
		r = field_str(rd, value, path, "name", &name);
		if (r < 0)
			break;
		if (!name[0])
			continue;
		if (asprintf(ret, "%s%s%s", joined ? joined : "", joined ? "," : "", name) < 0) {
			*ret = NULL;
			r = field_no_memory(rd);
			break;
		}
		free(joined);
		joined = TAKE_PTR(*ret);
	}
	*ret = joined;
	return r;
}

static int endpoint_hints(const struct reader *rd, const json_t *tree, const char *path,
			  struct slice_endpoint *ep)
{
	const json_t *hints;
	char where[96];
	int r;

	snprintf(where, sizeof(where), "%shints.", path);
	r = field_typed(rd, tree, path, "hints", JSON_OBJECT, &hints);
	if (r < 0 || !hints)
		return r;
	r = hint_names(rd, hints, where, "forZones", &ep->hint_zones);
	return r < 0 ? r : hint_names(rd, hints, where, "forNodes", &ep->hint_nodes);
}

static int slice_endpoint(const struct reader *rd, const json_t *tree, size_t i,
			  struct slice *slice)
{
	struct slice_endpoint *ep;
	const json_t *conditions;
	char path[64], where[96];
	int r;

	snprintf(path, sizeof(path), "endpoints[%zu]", i);
	if (!json_is_object(tree))
		return field_bad(rd, tree, "%s: must be an object", path);
	snprintf(path, sizeof(path), "endpoints[%zu].", i);
	snprintf(where, sizeof(where), "%sconditions.", path);
	ep = array_grow(&slice->endpoints, &slice->n_endpoints, sizeof(*ep));
	if (!ep)
		return field_no_memory(rd);
	if ((!slice->fqdn &&
	     (r = field_addrs(rd, tree, path, "addresses", &ep->addrs, &ep->n_addrs)) < 0) ||
	    (r = field_typed(rd, tree, path, "conditions", JSON_OBJECT, &conditions)) < 0 ||
	    (r = field_bool(rd, conditions, where, "ready", true, &ep->ready)) < 0 ||
	    (r = field_bool(rd, conditions, where, "serving", ep->ready, &ep->serving)) < 0 ||
	    (r = field_bool(rd, conditions, where, "terminating", false, &ep->terminating)) < 0 ||
	    (r = field_dup(rd, tree, path, "nodeName", &ep->node_name)) < 0 ||
	    (r = field_dup(rd, tree, path, "zone", &ep->zone)) < 0 ||
	    (r = endpoint_hints(rd, tree, path, ep)) < 0)
		return r;
	for (size_t k = 0; k < ep->n_addrs; k++) {
		if (wag_addr_is_v4(&ep->addrs[k]) == slice->v6)
			return field_bad(rd, field_member(tree, "addresses"),
					 "%saddresses[%zu]: is not of addressType %s", path, k,
					 slice->v6 ? "IPv6" : "IPv4");
	}
	return kube_read_target(rd, tree, path, ep);
}

static int parse_slice(const struct reader *rd, const json_t *tree, struct object *obj)
{
	struct slice *slice = &obj->slice;
	const json_t *ports, *endpoints, *value;
	const char *type, *service, *trigger;
	char path[48];
	size_t i;
	int r;

	if ((r = field_str(rd, tree, "", "addressType", &type)) < 0 ||
	    (r = field_label(rd, tree, "kubernetes.io/service-name", &service)) < 0 ||
	    (r = field_annotation(rd, tree, MODEL_SLICE_TRIGGER, &trigger)) < 0 ||
	    (r = field_typed(rd, tree, "", "ports", JSON_ARRAY, &ports)) < 0 ||
	    (r = field_typed(rd, tree, "", "endpoints", JSON_ARRAY, &endpoints)) < 0)
		return r;
	slice->other_proxy = field_other_proxy(tree);
	slice->trigger_ms = field_time_ms(trigger);
	slice->v6 = strcmp(type, "IPv6") == 0;
	slice->fqdn = strcmp(type, "FQDN") == 0;
	if (!slice->v6 && !slice->fqdn && strcmp(type, "IPv4") != 0)
		return field_bad(rd, field_member(tree, "addressType"),
				 "addressType: \"%.32s\" is not IPv4, IPv6 or FQDN", type);
	if (service[0] && (r = field_copy(rd, service, &slice->service)) < 0)
		return r;
	json_array_foreach(ports, i, value)
	{
		snprintf(path, sizeof(path), "ports[%zu].", i);
		r = kube_read_port(rd, value, path, slice);
		if (r < 0)
			return r;
	}
	json_array_foreach(endpoints, i, value)
	{
		r = slice_endpoint(rd, value, i, slice);
		if (r < 0)
			return r;
	}
	return 0;
}

bool kube_is_namespaced(enum model_kind kind)
{
	return kind != MODEL_NODE && kind != MODEL_NAMESPACE && kind != MODEL_CLUSTER_POLICY;
}

/*
 * What no name has, whatever the kind: it would not be one part of a URL's path. A name that has it
 * is not shown as it is: it could be anything.
 */
static int check_name(const struct reader *rd, const json_t *meta, const char *key,
		      const char **name)
{
	char shown[40];
	size_t n = 0;
	const char *p;

	for (p = *name; *p; p++)
		if ((unsigned char)*p <= ' ' || *p == 0x7f || *p == '/' || *p == '%')
			break;
	if (!*p && strcmp(*name, ".") != 0 && strcmp(*name, "..") != 0)
		return 0;
	for (p = *name; *p && n < sizeof(shown) - 1; p++)
		shown[n++] = *p > ' ' && *p < 0x7f ? *p : '?';
	shown[n] = 0;
	*name = "";
	return field_bad(rd, meta,
			 "metadata.%s: \"%s\" is none: no space, slash, %% or control "
			 "character may be in it",
			 key, shown);
}

int kube_check_ident(const struct reader *rd, const json_t *meta, bool namespaced)
{
	int r;

	if (!rd->ident->name[0])
		return field_bad(rd, meta, "metadata.name: is missing");
	if (namespaced && !rd->ident->ns[0])
		return field_bad(rd, meta, "metadata.namespace: is missing");
	if (strlen(rd->ident->name) > KUBE_NAME_MAX || strlen(rd->ident->ns) > KUBE_NS_MAX)
		return field_bad(rd, meta, "metadata: name or namespace is too long");
	if (!rd->sink || !rd->sink->manifests)
		return 0; /* an API server's */
	if ((r = check_name(rd, meta, "namespace", &rd->ident->ns)) < 0)
		return r;
	return check_name(rd, meta, "name", &rd->ident->name);
}

/* Fills ident; checks what makes an object an object: a name, and a namespace where one belongs. */
int kube_read_ident(const struct reader *rd, const json_t *tree, bool namespaced)
{
	const json_t *meta;
	int r;

	rd->ident->at = tree;
	if (!json_is_object(tree))
		return field_bad(rd, tree, "must be an object");
	r = field_typed(rd, tree, "", "metadata", JSON_OBJECT, &meta);
	if (r < 0)
		return r;
	if ((r = field_str(rd, meta, "metadata.", "name", &rd->ident->name)) < 0)
		return r;
	if (namespaced && (r = field_str(rd, meta, "metadata.", "namespace", &rd->ident->ns)) < 0)
		return r;
	if (namespaced && !rd->ident->ns[0] && rd->sink->default_ns)
		rd->ident->ns = rd->sink->default_ns;
	return kube_check_ident(rd, meta ? meta : tree, namespaced);
}

int kube_parse_object(enum model_kind kind, const json_t *tree, const struct kube_sink *sink,
		      struct object **ret, struct kube_ident *ident, struct wag_err *err)
{
	static int (*const parsers[MODEL_KINDS])(const struct reader *, const json_t *,
						 struct object *) = {
		[MODEL_SERVICE] = kube_read_service, [MODEL_SLICE] = parse_slice,
		[MODEL_NODE] = kube_read_node,	 [MODEL_NAMESPACE] = kube_read_namespace,
		[MODEL_POD] = kube_read_pod,	 [MODEL_POLICY] = kube_read_policy,
		[MODEL_CLUSTER_POLICY] = kube_read_policy,
	};
	_cleanup_(object_freep) struct object *obj = NULL;
	const struct reader rd = { .sink = sink, .ident = ident, .err = err };
	int r;

	*ident = (struct kube_ident){ .kind = kube_kind_name(kind), .ns = "", .name = "" };
	r = kube_read_ident(&rd, tree, kube_is_namespaced(kind));
	if (r < 0)
		return r;
	obj = object_new(kind, ident->ns, ident->name);
	if (!obj)
		return field_no_memory(&rd);
	r = field_dup(&rd, json_object_get(tree, "metadata"), "metadata.", "resourceVersion",
		      &obj->resource_version);
	if (r < 0)
		return r;
	r = parsers[kind](&rd, tree, obj);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(obj);
	return 0;
}
