// SPDX-License-Identifier: Apache-2.0
/* Messages of kube.proto -> struct object, by the rules of kube_parse.c. */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <waggle/addr.h>

#include "kube_pb_field.h"
#include "kube_pb_internal.h"
#include "kube_pb_policy.h"

/* As in kube_parse.c: another proxy's, or nobody's to serve. */
static bool other_proxy(const struct pb_reader *rd)
{
	return pb_label(rd, "service.kubernetes.io/service-proxy-name") ||
	       pb_label(rd, "service.kubernetes.io/headless");
}

/* ---- Service ---- */

static int svc_ports(const struct pb_reader *rd, const Kube__ServiceSpec *spec, struct service *svc)
{
	char path[48];
	int r;

	svc->ports = kube_arena_zalloc(rd->arena, spec->n_ports, sizeof(*svc->ports));
	if (!svc->ports)
		return pb_too_big(rd);
	for (size_t i = 0; i < spec->n_ports; i++) {
		const Kube__ServicePort *from = spec->ports[i];
		struct svc_port *at = &svc->ports[i];
		const char *name;

		snprintf(path, sizeof(path), "spec.ports[%zu].", i);
		if (from->port == 0)
			return field_bad(&rd->to, NULL, "%sport: is missing", path);
		if ((r = pb_text(rd, from->name, "spec.ports: name", &name)) < 0 ||
		    (r = pb_proto(rd, from->protocol, path, &at->proto)) < 0 ||
		    (r = pb_int(rd, from->port, 1, 65535, path, "port")) < 0 ||
		    (r = pb_int(rd, from->node_port, 0, 65535, path, "nodePort")) < 0)
			return r;
		at->name = (char *)name;
		at->port = from->port;
		at->node_port = from->node_port;
	}
	svc->n_ports = spec->n_ports;
	return 0;
}

static int svc_cluster_ips(const struct pb_reader *rd, Kube__ServiceSpec *spec, struct service *svc)
{
	svc->headless = pb_is(spec->cluster_ip, "None");
	for (size_t i = 0; i < spec->n_cluster_ips; i++)
		svc->headless |= pb_is(spec->cluster_ips[i], "None");
	if (svc->headless || svc->type == SVC_EXTERNAL_NAME)
		return 0;
	if (spec->n_cluster_ips > 0)
		return pb_addrs(rd, spec->cluster_ips, spec->n_cluster_ips, "spec.clusterIPs", -1,
				 &svc->cluster_ips, &svc->n_cluster_ips);
	if (!spec->cluster_ip || !spec->cluster_ip[0])
		return 0;
	svc->cluster_ips = kube_arena_zalloc(rd->arena, 1, sizeof(*svc->cluster_ips));
	if (!svc->cluster_ips)
		return pb_too_big(rd);
	svc->n_cluster_ips = 1;
	return pb_addr(rd, spec->cluster_ip, "spec.clusterIP", svc->cluster_ips);
}

static int svc_lb_ips(const struct pb_reader *rd, const Kube__LoadBalancerStatus *lb,
		      struct service *svc)
{
	char path[64];
	int r;

	svc->lb_ips = kube_arena_zalloc(rd->arena, lb->n_ingress, sizeof(*svc->lb_ips));
	if (!svc->lb_ips)
		return pb_too_big(rd);
	for (size_t i = 0; i < lb->n_ingress; i++) {
		const Kube__LoadBalancerIngress *from = lb->ingress[i];
		struct lb_ingress *at = &svc->lb_ips[svc->n_lb_ips];

		if (!from->ip || !from->ip[0])
			continue; /* a hostname only */
		snprintf(path, sizeof(path), "status.loadBalancer.ingress[%zu].ip", i);
		r = pb_addr(rd, from->ip, path, &at->addr);
		if (r < 0)
			return r;
		at->proxy = pb_is(from->ip_mode, "Proxy");
		svc->n_lb_ips++;
	}
	return 0;
}

static int svc_source_ranges(const struct pb_reader *rd, const Kube__ServiceSpec *spec,
			     struct service *svc)
{
	size_t n = spec->n_load_balancer_source_ranges;

	svc->source_ranges = kube_arena_zalloc(rd->arena, n, sizeof(*svc->source_ranges));
	if (!svc->source_ranges)
		return pb_too_big(rd);
	for (size_t i = 0; i < n; i++) {
		const char *text = spec->load_balancer_source_ranges[i];

		if (kube_source_range(text, &svc->source_ranges[i]) < 0)
			return field_bad(&rd->to, NULL,
					 "spec.loadBalancerSourceRanges[%zu]: \"%.64s\" is no CIDR",
					 i, pb_is_utf8(text) ? text : "");
	}
	svc->n_source_ranges = n;
	return 0;
}

static int svc_affinity(const struct pb_reader *rd, const Kube__ServiceSpec *spec,
			struct service *svc)
{
	const Kube__SessionAffinityConfig *config = spec->session_affinity_config;
	int r;

	if (!pb_is(spec->session_affinity, "ClientIP"))
		return 0;
	svc->affinity_s = 10800;
	if (!config || !config->client_ip || !config->client_ip->has_timeout_seconds)
		return 0;
	r = pb_int(rd, config->client_ip->timeout_seconds, 1, 86400,
		    "spec.sessionAffinityConfig.clientIP.", "timeoutSeconds");
	svc->affinity_s = config->client_ip->timeout_seconds;
	return r;
}

static int read_service(const struct pb_reader *rd, const void *message, struct object *obj)
{
	static Kube__ServiceSpec no_spec = KUBE__SERVICE_SPEC__INIT;
	const Kube__Service *from = message;
	Kube__ServiceSpec *spec = from->spec ? from->spec : &no_spec;
	struct service *svc = &obj->service;
	int r;

	if (kube_svc_type(spec->type ? spec->type : "", &svc->type) < 0)
		return field_bad(&rd->to, NULL, "spec.type: \"%.32s\" is unknown",
				 pb_is_utf8(spec->type) ? spec->type : "");
	svc->other_proxy = other_proxy(rd);
	svc->forwarding = kube_forwarding(pb_annotation(rd, MODEL_FORWARDING),
					  pb_annotation(rd, MODEL_FORWARDING_CILIUM));
	svc->algorithm = kube_algorithm(pb_annotation(rd, MODEL_ALGORITHM),
					pb_annotation(rd, MODEL_ALGORITHM_CILIUM));
	svc->external_local = pb_is(spec->external_traffic_policy, "Local");
	svc->internal_local = pb_is(spec->internal_traffic_policy, "Local");
	svc->publish_not_ready = spec->publish_not_ready_addresses;
	svc->health_check_node_port = spec->health_check_node_port;
	if ((r = pb_int(rd, spec->health_check_node_port, 0, 65535, "spec.",
			"healthCheckNodePort")) < 0 ||
	    (spec->health_check_node_port &&
	     (r = pb_opt(rd, rd->meta->uid, "metadata.uid", &svc->uid)) < 0) ||
	    (r = svc_affinity(rd, spec, svc)) < 0 || (r = svc_cluster_ips(rd, spec, svc)) < 0 ||
	    (r = pb_addrs(rd, spec->external_ips, spec->n_external_ips, "spec.externalIPs", -1,
			   &svc->external_ips, &svc->n_external_ips)) < 0 ||
	    (r = svc_source_ranges(rd, spec, svc)) < 0)
		return r;
	if (from->status && from->status->load_balancer) {
		r = svc_lb_ips(rd, from->status->load_balancer, svc);
		if (r < 0)
			return r;
	}
	return svc_ports(rd, spec, svc);
}

/* ---- EndpointSlice ---- */

static int slice_ports(const struct pb_reader *rd, const Kube__EndpointSlice *from,
		       struct slice *slice)
{
	char path[48];
	int r;

	slice->ports = kube_arena_zalloc(rd->arena, from->n_ports, sizeof(*slice->ports));
	if (!slice->ports)
		return pb_too_big(rd);
	for (size_t i = 0; i < from->n_ports; i++) {
		const Kube__EndpointPort *port = from->ports[i];
		struct slice_port *at = &slice->ports[i];
		const char *name;

		snprintf(path, sizeof(path), "ports[%zu].", i);
		if ((r = pb_text(rd, port->name, "ports: name", &name)) < 0 ||
		    (r = pb_proto(rd, port->protocol, path, &at->proto)) < 0 ||
		    (port->has_port &&
		     (r = pb_int(rd, port->port, 1, 65535, path, "port")) < 0))
			return r;
		at->name = (char *)name;
		at->port = port->port;
	}
	slice->n_ports = from->n_ports;
	return 0;
}

/* The names of one list of hints, joined. */
static int hint_names(const struct pb_reader *rd, Kube__ForName *const *list, size_t n, char **ret)
{
	size_t len = 0;
	char *at;

	for (size_t i = 0; i < n; i++)
		len += list[i]->name && list[i]->name[0] ? strlen(list[i]->name) + 1 : 0;
	if (len == 0)
		return 0;
	*ret = at = kube_arena_get(rd->arena, len);
	if (!at)
		return pb_too_big(rd);
	for (size_t i = 0; i < n; i++) {
		const char *name;
		int r = pb_text(rd, list[i]->name, "endpoints: hints", &name);

		if (r < 0)
			return r;
		if (name[0])
			at = stpcpy(at == *ret ? at : stpcpy(at, ","), name);
	}
	return 0;
}

static int slice_endpoint(const struct pb_reader *rd, const Kube__Endpoint *from, size_t i,
			  const struct slice *slice, struct slice_endpoint *ep)
{
	const Kube__EndpointConditions *c = from->conditions;
	const Kube__ObjectReference *ref = from->target_ref;
	int r;

	ep->ready = !c || !c->has_ready || c->ready;
	ep->serving = c && c->has_serving ? c->serving : ep->ready;
	ep->terminating = c && c->terminating;
	if ((!slice->fqdn && (r = pb_addrs(rd, from->addresses, from->n_addresses,
					    "endpoints", i, &ep->addrs, &ep->n_addrs)) < 0) ||
	    (r = pb_opt(rd, from->node_name, "endpoints: nodeName", &ep->node_name)) < 0 ||
	    (r = pb_opt(rd, from->zone, "endpoints: zone", &ep->zone)) < 0)
		return r;
	if (from->hints &&
	    ((r = hint_names(rd, from->hints->for_zones, from->hints->n_for_zones,
			     &ep->hint_zones)) < 0 ||
	     (r = hint_names(rd, from->hints->for_nodes, from->hints->n_for_nodes,
			     &ep->hint_nodes)) < 0))
		return r;
	for (size_t k = 0; k < ep->n_addrs; k++) {
		if (wag_addr_is_v4(&ep->addrs[k]) == slice->v6)
			return field_bad(&rd->to, NULL,
					 "endpoints[%zu].addresses[%zu]: is not of addressType %s",
					 i, k, slice->v6 ? "IPv6" : "IPv4");
	}
	if (!ref || !pb_is(ref->kind, "Pod"))
		return 0;
	r = pb_opt(rd, ref->namespace_, "endpoints: targetRef.namespace", &ep->target_ns);
	return r < 0 ? r
		     : pb_opt(rd, ref->name, "endpoints: targetRef.name", &ep->target_name);
}

static int read_slice(const struct pb_reader *rd, const void *message, struct object *obj)
{
	const Kube__EndpointSlice *from = message;
	const char *service = pb_label(rd, "kubernetes.io/service-name");
	const char *trigger = pb_annotation(rd, MODEL_SLICE_TRIGGER);
	struct slice *slice = &obj->slice;
	int r;

	slice->trigger_ms = trigger ? field_time_ms(trigger) : 0;
	slice->other_proxy = other_proxy(rd);
	slice->v6 = pb_is(from->address_type, "IPv6");
	slice->fqdn = pb_is(from->address_type, "FQDN");
	if (!slice->v6 && !slice->fqdn && !pb_is(from->address_type, "IPv4"))
		return field_bad(&rd->to, NULL, "addressType: \"%.32s\" is not IPv4, IPv6 or FQDN",
				 from->address_type && pb_is_utf8(from->address_type)
					 ? from->address_type
					 : "");
	if ((r = pb_opt(rd, service, "metadata.labels", &slice->service)) < 0 ||
	    (r = slice_ports(rd, from, slice)) < 0)
		return r;
	slice->endpoints =
		kube_arena_zalloc(rd->arena, from->n_endpoints, sizeof(*slice->endpoints));
	if (!slice->endpoints)
		return pb_too_big(rd);
	slice->n_endpoints = from->n_endpoints;
	for (size_t i = 0; i < from->n_endpoints; i++) {
		r = slice_endpoint(rd, from->endpoints[i], i, slice, &slice->endpoints[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- Node, Pod and the rest ---- */

/* InternalIPs first, then ExternalIPs; host names are of no use here. */
static int node_addrs(const struct pb_reader *rd, const Kube__NodeStatus *status, const char *want,
		      struct node *node)
{
	char path[64];
	int r;

	for (size_t i = 0; i < status->n_addresses; i++) {
		if (!pb_is(status->addresses[i]->type, want))
			continue;
		snprintf(path, sizeof(path), "status.addresses[%zu].address", i);
		r = pb_addr(rd, status->addresses[i]->address, path, &node->addrs[node->n_addrs]);
		if (r < 0)
			return r;
		node->n_addrs++;
	}
	return 0;
}

static int node_cidr(const struct pb_reader *rd, const char *text, const char *path,
		     struct node *node)
{
	struct wag_addr addr;
	unsigned bits;

	if (!text || wag_cidr_parse(text, &addr, &bits) < 0)
		return field_bad(&rd->to, NULL, "%s: is no CIDR", path);
	node->pod_cidrs[node->n_pod_cidrs++] = (char *)text;
	return 0;
}

/* What the controller manager gave the node. */
static int node_spec_cidrs(const struct pb_reader *rd, const Kube__NodeSpec *spec,
			   struct node *node)
{
	char path[48];
	int r;

	node->pod_cidrs =
		kube_arena_zalloc(rd->arena, spec->n_pod_cidrs + 1, sizeof(*node->pod_cidrs));
	if (!node->pod_cidrs)
		return pb_too_big(rd);
	for (size_t i = 0; i < spec->n_pod_cidrs; i++) {
		snprintf(path, sizeof(path), "spec.podCIDRs[%zu]", i);
		r = node_cidr(rd, spec->pod_cidrs[i], path, node);
		if (r < 0)
			return r;
	}
	if (spec->n_pod_cidrs > 0 || !spec->pod_cidr || !spec->pod_cidr[0])
		return 0;
	return node_cidr(rd, spec->pod_cidr, "spec.podCIDR", node);
}

/* What the node took for itself, told by its own agent. */
static int node_own_cidrs(const struct pb_reader *rd, struct node *node)
{
	size_t len = strlen(node->published);
	char *list = kube_arena_get(rd->arena, len + 1), *save, *cidr;
	int r;

	node->pod_cidrs = kube_arena_zalloc(rd->arena, len / 2 + 1, sizeof(*node->pod_cidrs));
	if (!list || !node->pod_cidrs)
		return pb_too_big(rd);
	memcpy(list, node->published, len + 1);
	for (cidr = strtok_r(list, ", ", &save); cidr; cidr = strtok_r(NULL, ", ", &save)) {
		r = node_cidr(rd, cidr, "metadata.annotations." MODEL_POD_CIDRS, node);
		if (r < 0)
			return r;
	}
	return 0;
}

static int node_created(const struct pb_reader *rd, struct node *node)
{
	const Kube__Time *created = rd->meta->creation_timestamp;
	const size_t size = sizeof("2006-01-02T15:04:05Z");
	time_t at = created ? created->seconds : 0;
	struct tm tm;

	/* A time that is not set is the first of the year 1 there, and null in JSON. */
	if (at <= 0 || !gmtime_r(&at, &tm) || tm.tm_year > 9999 - 1900)
		return 0;
	node->created = kube_arena_get(rd->arena, size);
	if (!node->created)
		return pb_too_big(rd);
	strftime(node->created, size, "%Y-%m-%dT%H:%M:%SZ", &tm);
	return 0;
}

/* The marks of a node that is about to go: KEP-3836. */
static bool node_leaving(const struct pb_reader *rd, const Kube__NodeSpec *spec)
{
	for (size_t i = 0; i < spec->n_taints; i++)
		if (pb_is(spec->taints[i]->key, MODEL_NODE_TAINT_DELETED))
			return true;
	return rd->meta->deletion_timestamp;
}

static int read_node(const struct pb_reader *rd, const void *message, struct object *obj)
{
	static const Kube__NodeSpec no_spec = KUBE__NODE_SPEC__INIT;
	static const Kube__NodeStatus no_status = KUBE__NODE_STATUS__INIT;
	const Kube__Node *from = message;
	const Kube__NodeStatus *status = from->status ? from->status : &no_status;
	const Kube__NodeSpec *spec = from->spec ? from->spec : &no_spec;
	struct node *node = &obj->node;
	int r;

	node->addrs = kube_arena_zalloc(rd->arena, status->n_addresses, sizeof(*node->addrs));
	if (!node->addrs)
		return pb_too_big(rd);
	if ((r = pb_opt(rd, pb_label(rd, "topology.kubernetes.io/zone"), "metadata.labels",
			&node->zone)) < 0 ||
	    (r = pb_opt(rd, pb_annotation(rd, MODEL_POD_CIDRS), "metadata.annotations",
			&node->published)) < 0 ||
	    (r = pb_opt(rd, rd->meta->uid, "metadata.uid", &node->uid)) < 0 ||
	    (r = pb_labels(rd, &node->labels, &node->n_labels)) < 0 ||
	    (r = node_created(rd, node)) < 0 ||
	    (r = node_addrs(rd, status, "InternalIP", node)) < 0)
		return r;
	node->n_internal = node->n_addrs;
	node->leaving = node_leaving(rd, spec);
	r = node_addrs(rd, status, "ExternalIP", node);
	if (r < 0)
		return r;
	return node->published ? node_own_cidrs(rd, node) : node_spec_cidrs(rd, spec, node);
}

static int pod_addrs(const struct pb_reader *rd, const Kube__PodStatus *status, struct pod *pod)
{
	char path[64];
	int r;

	pod->addrs = kube_arena_zalloc(rd->arena, status->n_pod_ips + 1, sizeof(*pod->addrs));
	if (!pod->addrs)
		return pb_too_big(rd);
	for (size_t i = 0; i < status->n_pod_ips; i++) {
		snprintf(path, sizeof(path), "status.podIPs[%zu].ip", i);
		r = pb_addr(rd, status->pod_ips[i]->ip, path, &pod->addrs[i]);
		if (r < 0)
			return r;
	}
	pod->n_addrs = status->n_pod_ips;
	if (pod->n_addrs || !status->pod_ip || !status->pod_ip[0])
		return 0;
	pod->n_addrs = 1;
	return pb_addr(rd, status->pod_ip, "status.podIP", pod->addrs);
}

static int container_ports(const struct pb_reader *rd, const Kube__Container *from,
			   struct pod *pod)
{
	int r;

	for (size_t i = 0; i < from->n_ports; i++) {
		const Kube__ContainerPort *port = from->ports[i];
		struct pod_port *at = &pod->ports[pod->n_ports];
		const char *name;

		if ((r = pb_text(rd, port->name, "spec.containers: port name", &name)) < 0 ||
		    (r = pb_int(rd, port->container_port, 0, 65535, "spec.containers: ",
				"containerPort")) < 0)
			return r;
		if (!name[0] || !port->container_port)
			continue;
		r = pb_proto(rd, port->protocol, "spec.containers: ", &at->proto);
		if (r < 0)
			return r;
		at->name = (char *)name;
		at->port = port->container_port;
		pod->n_ports++;
	}
	return 0;
}

/* Named ports of containers, and of init containers that go on running beside them. */
static int pod_ports(const struct pb_reader *rd, const Kube__PodSpec *spec, struct pod *pod)
{
	size_t n = 0;
	int r = 0;

	for (size_t i = 0; i < spec->n_containers; i++)
		n += spec->containers[i]->n_ports;
	for (size_t i = 0; i < spec->n_init_containers; i++)
		n += spec->init_containers[i]->n_ports;
	if (!n)
		return 0;
	pod->ports = kube_arena_zalloc(rd->arena, n, sizeof(*pod->ports));
	if (!pod->ports)
		return pb_too_big(rd);
	for (size_t i = 0; i < spec->n_containers && r == 0; i++)
		r = container_ports(rd, spec->containers[i], pod);
	for (size_t i = 0; i < spec->n_init_containers && r == 0; i++)
		if (pb_is(spec->init_containers[i]->restart_policy, "Always"))
			r = container_ports(rd, spec->init_containers[i], pod);
	return r;
}

static int read_pod(const struct pb_reader *rd, const void *message, struct object *obj)
{
	const Kube__Pod *from = message;
	struct pod *pod = &obj->pod;
	int r = 0;

	if (from->spec) {
		pod->host_network = from->spec->host_network;
		r = pb_opt(rd, from->spec->node_name, "spec.nodeName", &pod->node_name);
		if (r == 0)
			r = pod_ports(rd, from->spec, pod);
	}
	pod->audit = pb_is(pb_annotation(rd, MODEL_AUDIT), "true");
	if (r == 0 && from->status &&
	    (r = pb_opt(rd, from->status->phase, "status.phase", &pod->phase)) == 0)
		r = pod_addrs(rd, from->status, pod);
	return r < 0 ? r : pb_labels(rd, &pod->labels, &pod->n_labels);
}

static int read_namespace(const struct pb_reader *rd, const void *message, struct object *obj)
{
	obj->namespace.audit = pb_is(pb_annotation(rd, MODEL_AUDIT), "true");
	return pb_labels(rd, &obj->namespace.labels, &obj->namespace.n_labels);
}

static const struct {
	const ProtobufCMessageDescriptor *message; /* its metadata is where Partial has it */
	int (*read)(const struct pb_reader *rd, const void *message, struct object *obj);
} readers[MODEL_KINDS] = {
	[MODEL_SERVICE] = { &kube__service__descriptor, read_service },
	[MODEL_SLICE] = { &kube__endpoint_slice__descriptor, read_slice },
	[MODEL_NODE] = { &kube__node__descriptor, read_node },
	[MODEL_NAMESPACE] = { &kube__partial__descriptor, read_namespace },
	[MODEL_POD] = { &kube__pod__descriptor, read_pod },
	[MODEL_POLICY] = { &kube__network_policy__descriptor, kube_pb_read_policy },
};

static int read_ident(const struct pb_reader *rd, bool namespaced)
{
	const char *ns = "", *name;
	int r;

	if ((r = pb_text(rd, rd->meta->name, "metadata.name", &name)) < 0 ||
	    (namespaced &&
	     (r = pb_text(rd, rd->meta->namespace_, "metadata.namespace", &ns)) < 0))
		return r;
	rd->to.ident->name = name;
	rd->to.ident->ns = ns;
	return kube_check_ident(&rd->to, NULL, namespaced);
}

int kube_pb_object(enum model_kind kind, const char *bytes, size_t n, struct kube_arena *arena,
		   const struct object **ret, struct kube_ident *ident, struct wag_err *err)
{
	static const Kube__ObjectMeta no_meta = KUBE__OBJECT_META__INIT;
	struct pb_reader rd = { .to = { NULL, ident, err }, .arena = arena };
	Kube__Partial *message;
	struct object *obj;
	int r;

	*ident = (struct kube_ident){ .kind = kube_kind_name(kind), .ns = "", .name = "" };
	if (!readers[kind].message)
		return wag_err_set(err, -EBADMSG, "%s: has no protobuf", ident->kind);
	r = kube_pb_unpack(readers[kind].message, bytes, n, arena, &message);
	if (r < 0)
		return wag_err_set(err, r, "%s: %s", ident->kind,
				   r == -EBADMSG ? "cannot be decoded"
						 : "it is larger than allowed");
	rd.meta = message->metadata ? message->metadata : &no_meta;
	r = read_ident(&rd, kube_is_namespaced(kind));
	if (r < 0)
		return r;
	obj = kube_arena_zalloc(arena, 1, sizeof(*obj));
	if (!obj)
		return pb_too_big(&rd);
	obj->kind = kind;
	obj->ns = (char *)ident->ns;
	obj->name = (char *)ident->name;
	obj->resource_version = rd.meta->resource_version;
	r = readers[kind].read(&rd, message, obj);
	if (r < 0) {
		policy_unref(kind == MODEL_POLICY ? obj->policy : NULL);
		return r;
	}
	*ret = obj;
	return 0;
}
