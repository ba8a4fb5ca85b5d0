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

static int svc_port(const struct reader *rd, const json_t *tree, size_t i, struct service *svc)
{
	json_int_t port, node_port;
	struct svc_port *at;
	const char *name;
	char path[48];
	int r;

	snprintf(path, sizeof(path), "spec.ports[%zu]", i);
	if (!json_is_object(tree))
		return field_bad(rd, tree, "%s: must be an object", path);
	snprintf(path, sizeof(path), "spec.ports[%zu].", i);
	at = array_grow(&svc->ports, &svc->n_ports, sizeof(*at));
	if (!at)
		return field_no_memory(rd);
	if ((r = field_str(rd, tree, path, "name", &name)) < 0 ||
	    (r = field_copy(rd, name, &at->name)) < 0 ||
	    (r = field_proto(rd, tree, path, &at->proto)) < 0 ||
	    (r = field_int(rd, tree, path, "port", 1, 65535, &port)) < 0 ||
	    (r = field_int(rd, tree, path, "nodePort", 0, 65535, &node_port)) < 0)
		return r;
	if (port == 0)
		return field_bad(rd, tree, "%sport: is missing", path);
	if (rd->sink->manifests && node_port == 0 && svc->type == SVC_NODE_PORT &&
	    !svc->other_proxy)
		return field_bad(rd, tree,
				 "%snodePort is empty: no API server allocates one here; set it",
				 path);
	at->port = port;
	at->node_port = node_port;
	return 0;
}

enum lb_mode kube_forwarding(const char *waggle, const char *cilium)
{
	const char *text = waggle && *waggle ? waggle : cilium ? cilium : "";

	if (strcmp(text, "dsr") == 0)
		return LB_MODE_DSR;
	return strcmp(text, "snat") == 0 ? LB_MODE_SNAT : LB_MODE_DEFAULT;
}

enum lb_algorithm kube_algorithm(const char *waggle, const char *cilium)
{
	const char *text = waggle && *waggle ? waggle : cilium ? cilium : "";

	if (!*text)
		return LB_ALGORITHM_DEFAULT;
	if (strcmp(text, "maglev") == 0)
		return LB_ALGORITHM_MAGLEV;
	return strcmp(text, "random") == 0 ? LB_ALGORITHM_RANDOM : LB_ALGORITHM_UNKNOWN;
}

int kube_svc_type(const char *text, enum svc_type *ret)
{
	static const char *const names[] = {
		[SVC_CLUSTER_IP] = "ClusterIP",
		[SVC_NODE_PORT] = "NodePort",
		[SVC_LOAD_BALANCER] = "LoadBalancer",
		[SVC_EXTERNAL_NAME] = "ExternalName",
	};

	*ret = SVC_CLUSTER_IP;
	if (!text[0])
		return 0;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(text, names[i]) == 0) {
			*ret = i;
			return 0;
		}
	}
	return -EINVAL;
}

static int svc_type(const struct reader *rd, const json_t *spec, enum svc_type *ret)
{
	const char *text;
	int r;

	r = field_str(rd, spec, "spec.", "type", &text);
	if (r < 0)
		return r;
	r = kube_svc_type(text, ret);
	if (r < 0)
		return field_bad(rd, field_member(spec, "type"),
				 "spec.type: \"%.32s\" is unknown", text);
	return 0;
}

/* Another proxy's, or nobody's to serve: kube-proxy watches Services and slices without these. */
static bool other_proxy(const json_t *tree)
{
	const json_t *labels = json_object_get(json_object_get(tree, "metadata"), "labels");

	return json_object_get(labels, "service.kubernetes.io/service-proxy-name") ||
	       json_object_get(labels, "service.kubernetes.io/headless");
}

/* clusterIPs, or clusterIP where an old or hand-written object has only that; "None": headless. */
static int svc_cluster_ips(const struct reader *rd, const json_t *spec, struct service *svc)
{
	const char *single;
	const json_t *list, *value;
	size_t i;
	int r;

	r = field_str(rd, spec, "spec.", "clusterIP", &single);
	if (r < 0)
		return r;
	r = field_typed(rd, spec, "spec.", "clusterIPs", JSON_ARRAY, &list);
	if (r < 0)
		return r;
	json_array_foreach(list, i, value)
	{
		if (json_is_string(value) && strcmp(json_string_value(value), "None") == 0)
			svc->headless = true;
	}
	if (strcmp(single, "None") == 0)
		svc->headless = true;
	if (svc->headless || svc->type == SVC_EXTERNAL_NAME)
		return 0;
	if (json_array_size(list) > 0)
		return field_addrs(rd, spec, "spec.", "clusterIPs", &svc->cluster_ips,
				   &svc->n_cluster_ips);
	if (single[0])
		return field_add_addr(rd, field_member(spec, "clusterIP"), "spec.clusterIP",
				      &svc->cluster_ips, &svc->n_cluster_ips);
	if (rd->sink->manifests && !svc->other_proxy)
		return field_bad(
			rd, spec,
			"spec.clusterIP is empty: no API server allocates one here; set it");
	return 0;
}

static int svc_lb_ips(const struct reader *rd, const json_t *tree, struct service *svc)
{
	const json_t *status, *lb, *list, *value;
	size_t i;
	int r;

	if ((r = field_typed(rd, tree, "", "status", JSON_OBJECT, &status)) < 0 ||
	    (r = field_typed(rd, status, "status.", "loadBalancer", JSON_OBJECT, &lb)) < 0 ||
	    (r = field_typed(rd, lb, "status.loadBalancer.", "ingress", JSON_ARRAY, &list)) < 0)
		return r;
	json_array_foreach(list, i, value)
	{
		const char *ip, *mode;
		struct lb_ingress *at;
		struct wag_addr addr;
		char path[64];

		snprintf(path, sizeof(path), "status.loadBalancer.ingress[%zu].", i);
		if ((r = field_str(rd, value, path, "ip", &ip)) < 0 ||
		    (r = field_str(rd, value, path, "ipMode", &mode)) < 0)
			return r;
		if (!ip[0])
			continue; /* a hostname only */
		if (wag_addr_parse(ip, &addr) < 0)
			return field_bad(rd, value, "%sip: \"%.64s\" is no IP address", path, ip);
		at = array_grow(&svc->lb_ips, &svc->n_lb_ips, sizeof(*at));
		if (!at)
			return field_no_memory(rd);
		at->addr = addr;
		at->proxy = strcmp(mode, "Proxy") == 0;
	}
	return 0;
}

int kube_source_range(const char *text, struct source_range *ret)
{
	char cidr[64];

	if (sscanf(text, " %63s", cidr) != 1)
		return -EINVAL;
	return wag_cidr_parse(cidr, &ret->addr, &ret->bits) < 0 ? -EINVAL : 0;
}

static int svc_source_ranges(const struct reader *rd, const json_t *spec, struct service *svc)
{
	const json_t *list, *value;
	size_t i;
	int r;

	r = field_typed(rd, spec, "spec.", "loadBalancerSourceRanges", JSON_ARRAY, &list);
	if (r < 0)
		return r;
	json_array_foreach(list, i, value)
	{
		const char *text = json_string_value(value);
		struct source_range *at;

		at = array_grow(&svc->source_ranges, &svc->n_source_ranges, sizeof(*at));
		if (!at)
			return field_no_memory(rd);
		if (kube_source_range(text ? text : "", at) < 0)
			return field_bad(rd, value,
					 "spec.loadBalancerSourceRanges[%zu]: \"%.64s\" is no CIDR",
					 i, text ? text : "");
	}
	return 0;
}

/* Of manifests: what an API server sends was looked at, and may be newer than this. */
static int svc_word(const struct reader *rd, const json_t *spec, const char *key, const char *usual,
		    const char *other, bool *ret)
{
	const char *text;
	int r = field_str(rd, spec, "spec.", key, &text);

	if (r < 0)
		return r;
	*ret = strcmp(text, other) == 0;
	if (*ret || !text[0] || strcmp(text, usual) == 0 || !rd->sink->manifests)
		return 0;
	return field_bad(rd, field_member(spec, key), "spec.%s: \"%.32s\" is not %s or %s", key,
			 text, usual, other);
}

static int svc_affinity(const struct reader *rd, const json_t *spec, struct service *svc)
{
	const json_t *config, *client;
	json_int_t seconds = 0;
	bool affine;
	int r = svc_word(rd, spec, "sessionAffinity", "None", "ClientIP", &affine);

	if (r < 0 || !affine)
		return r;
	if ((r = field_typed(rd, spec, "spec.", "sessionAffinityConfig", JSON_OBJECT, &config)) <
		    0 ||
	    (r = field_typed(rd, config, "spec.sessionAffinityConfig.", "clientIP", JSON_OBJECT,
			     &client)) < 0 ||
	    (r = field_int(rd, client, "spec.sessionAffinityConfig.clientIP.", "timeoutSeconds", 1,
			   86400, &seconds)) < 0)
		return r;
	svc->affinity_s = seconds ? seconds : 10800;
	return 0;
}

static int parse_service(const struct reader *rd, const json_t *tree, struct object *obj)
{
	struct service *svc = &obj->service;
	const char *forwarding, *cilium, *algorithm, *cilium_algorithm;
	const json_t *spec, *ports, *value;
	json_int_t check_port;
	size_t i;
	int r;

	svc->other_proxy = other_proxy(tree);
	if ((r = field_typed(rd, tree, "", "spec", JSON_OBJECT, &spec)) < 0 ||
	    (r = svc_type(rd, spec, &svc->type)) < 0 ||
	    (r = svc_word(rd, spec, "externalTrafficPolicy", "Cluster", "Local",
			  &svc->external_local)) < 0 ||
	    (r = svc_word(rd, spec, "internalTrafficPolicy", "Cluster", "Local",
			  &svc->internal_local)) < 0 ||
	    (r = field_bool(rd, spec, "spec.", "publishNotReadyAddresses", false,
			    &svc->publish_not_ready)) < 0 ||
	    (r = field_int(rd, spec, "spec.", "healthCheckNodePort", 0, 65535, &check_port)) < 0 ||
	    (r = svc_affinity(rd, spec, svc)) < 0 || (r = svc_cluster_ips(rd, spec, svc)) < 0 ||
	    (r = field_addrs(rd, spec, "spec.", "externalIPs", &svc->external_ips,
			     &svc->n_external_ips)) < 0 ||
	    (r = svc_lb_ips(rd, tree, svc)) < 0 || (r = svc_source_ranges(rd, spec, svc)) < 0 ||
	    (r = field_annotation(rd, tree, MODEL_FORWARDING, &forwarding)) < 0 ||
	    (r = field_annotation(rd, tree, MODEL_FORWARDING_CILIUM, &cilium)) < 0 ||
	    (r = field_annotation(rd, tree, MODEL_ALGORITHM, &algorithm)) < 0 ||
	    (r = field_annotation(rd, tree, MODEL_ALGORITHM_CILIUM, &cilium_algorithm)) < 0 ||
	    (r = field_typed(rd, spec, "spec.", "ports", JSON_ARRAY, &ports)) < 0)
		return r;
	svc->forwarding = kube_forwarding(forwarding, cilium);
	svc->algorithm = kube_algorithm(algorithm, cilium_algorithm);
	svc->health_check_node_port = check_port;
	if (check_port && (r = field_dup(rd, json_object_get(tree, "metadata"), "metadata.", "uid",
					 &svc->uid)) < 0)
		return r;
	json_array_foreach(ports, i, value)
	{
		r = svc_port(rd, value, i, svc);
		if (r < 0)
			return r;
	}
	return 0;
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
	slice->other_proxy = other_proxy(tree);
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

int kube_check_ident(const struct reader *rd, const json_t *meta, bool namespaced)
{
	if (!rd->ident->name[0])
		return field_bad(rd, meta, "metadata.name: is missing");
	if (namespaced && !rd->ident->ns[0])
		return field_bad(rd, meta, "metadata.namespace: is missing");
	if (strlen(rd->ident->name) > KUBE_NAME_MAX || strlen(rd->ident->ns) > KUBE_NS_MAX)
		return field_bad(rd, meta, "metadata: name or namespace is too long");
	return 0;
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
		[MODEL_SERVICE] = parse_service, [MODEL_SLICE] = parse_slice,
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
