// SPDX-License-Identifier: Apache-2.0
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "object.h"

struct object *object_new(enum model_kind kind, const char *ns, const char *name)
{
	_cleanup_(object_freep) struct object *obj = calloc(1, sizeof(*obj));

	if (!obj)
		return NULL;
	obj->kind = kind;
	obj->ns = strdup(ns);
	obj->name = strdup(name);
	if (!obj->ns || !obj->name)
		return NULL;
	return TAKE_PTR(obj);
}

void *array_grow(void *array_ptr, size_t *n, size_t elem_size)
{
	char **array = array_ptr;
	char *grown;

	grown = reallocarray(*array, *n + 1, elem_size);
	if (!grown)
		return NULL;
	*array = grown;
	memset(grown + *n * elem_size, 0, elem_size);
	return grown + (*n)++ * elem_size;
}

static void labels_free(struct label *labels, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(labels[i].key);
		free(labels[i].value);
	}
	free(labels);
}

static void service_done(struct service *svc)
{
	for (size_t i = 0; i < svc->n_ports; i++)
		free(svc->ports[i].name);
	free(svc->uid);
	free(svc->ports);
	free(svc->cluster_ips);
	free(svc->external_ips);
	free(svc->lb_ips);
	free(svc->source_ranges);
}

static void slice_done(struct slice *slice)
{
	for (size_t i = 0; i < slice->n_ports; i++)
		free(slice->ports[i].name);
	for (size_t i = 0; i < slice->n_endpoints; i++) {
		struct slice_endpoint *ep = &slice->endpoints[i];

		free(ep->addrs);
		free(ep->node_name);
		free(ep->zone);
		free(ep->target_ns);
		free(ep->target_name);
		free(ep->hint_zones);
		free(ep->hint_nodes);
	}
	free(slice->ports);
	free(slice->endpoints);
	free(slice->service);
}

static void node_done(struct node *node)
{
	for (size_t i = 0; i < node->n_pod_cidrs; i++)
		free(node->pod_cidrs[i]);
	free(node->pod_cidrs);
	free(node->addrs);
	free(node->published);
	free(node->uid);
	free(node->created);
	free(node->zone);
	labels_free(node->labels, node->n_labels);
}

static void pod_done(struct pod *pod)
{
	free(pod->node_name);
	free(pod->phase);
	free(pod->addrs);
	labels_free(pod->labels, pod->n_labels);
	for (size_t i = 0; i < pod->n_ports; i++)
		free(pod->ports[i].name);
	free(pod->ports);
}

static bool is_policy(const struct object *obj)
{
	return obj->kind == MODEL_POLICY || obj->kind == MODEL_CLUSTER_POLICY;
}

bool object_is_unreadable(const struct object *obj)
{
	return is_policy(obj) && obj->policy && obj->policy->unreadable;
}

void object_drop(const struct object *obj)
{
	if (obj && is_policy(obj))
		policy_unref(obj->policy);
}

void object_free(struct object *obj)
{
	if (!obj)
		return;
	object_drop(obj);
	if (obj->packed) {
		free(obj);
		return;
	}
	switch (obj->kind) {
	case MODEL_SERVICE:
		service_done(&obj->service);
		break;
	case MODEL_SLICE:
		slice_done(&obj->slice);
		break;
	case MODEL_NODE:
		node_done(&obj->node);
		break;
	case MODEL_NAMESPACE:
		labels_free(obj->namespace.labels, obj->namespace.n_labels);
		break;
	case MODEL_POD:
		pod_done(&obj->pod);
		break;
	case MODEL_POLICY:
	case MODEL_CLUSTER_POLICY:
	case MODEL_KINDS:
		break;
	}
	free(obj->ns);
	free(obj->name);
	free(obj->resource_version);
	free(obj);
}

void object_freep(struct object **obj)
{
	object_free(*obj);
}

/* Run twice over an object: first with base NULL to learn the size, then to fill the block. */
struct packer {
	char *base;
	size_t used;
};

static void *pack_bytes(struct packer *p, const void *src, size_t size, size_t align)
{
	void *at = NULL;

	p->used = (p->used + align - 1) & ~(align - 1);
	if (p->base) {
		at = p->base + p->used;
		if (size)
			memcpy(at, src, size);
	}
	p->used += size;
	return at;
}

static void *pack_array(struct packer *p, const void *src, size_t n, size_t elem_size)
{
	return n ? pack_bytes(p, src, n * elem_size, 8) : NULL;
}

static char *pack_str(struct packer *p, const char *src)
{
	return src ? pack_bytes(p, src, strlen(src) + 1, 1) : NULL;
}

/* Endpoints of a slice tend to repeat the string of the endpoint before: share it. */
static char *pack_shared(struct packer *p, const char *src, const char *prev_src, char *prev)
{
	if (src && prev_src && strcmp(src, prev_src) == 0)
		return prev;
	return pack_str(p, src);
}

static void pack_labels(struct packer *p, struct label **ret, const struct label *labels, size_t n)
{
	struct label *out = pack_array(p, labels, n, sizeof(*labels));

	for (size_t i = 0; i < n; i++) {
		char *key = pack_str(p, labels[i].key);
		char *value = pack_str(p, labels[i].value);

		if (out)
			out[i] = (struct label){ key, value };
	}
	*ret = out;
}

static void pack_service(struct packer *p, struct service *out, const struct service *svc)
{
	out->uid = pack_str(p, svc->uid);
	out->cluster_ips =
		pack_array(p, svc->cluster_ips, svc->n_cluster_ips, sizeof(*svc->cluster_ips));
	out->external_ips =
		pack_array(p, svc->external_ips, svc->n_external_ips, sizeof(*svc->external_ips));
	out->lb_ips = pack_array(p, svc->lb_ips, svc->n_lb_ips, sizeof(*svc->lb_ips));
	out->source_ranges = pack_array(p, svc->source_ranges, svc->n_source_ranges,
					sizeof(*svc->source_ranges));
	out->ports = pack_array(p, svc->ports, svc->n_ports, sizeof(*svc->ports));
	for (size_t i = 0; i < svc->n_ports; i++) {
		char *name = pack_str(p, svc->ports[i].name);

		if (out->ports)
			out->ports[i].name = name;
	}
}

static void pack_endpoint(struct packer *p, struct slice_endpoint *out,
			  const struct slice_endpoint *ep, const struct slice_endpoint *prev,
			  const struct slice_endpoint *prev_out)
{
	out->addrs = pack_array(p, ep->addrs, ep->n_addrs, sizeof(*ep->addrs));
	out->node_name = pack_shared(p, ep->node_name, prev->node_name, prev_out->node_name);
	out->zone = pack_shared(p, ep->zone, prev->zone, prev_out->zone);
	out->target_ns = pack_shared(p, ep->target_ns, prev->target_ns, prev_out->target_ns);
	out->target_name = pack_str(p, ep->target_name);
	out->hint_zones = pack_shared(p, ep->hint_zones, prev->hint_zones, prev_out->hint_zones);
	out->hint_nodes = pack_shared(p, ep->hint_nodes, prev->hint_nodes, prev_out->hint_nodes);
}

static void pack_slice(struct packer *p, struct slice *out, const struct slice *slice)
{
	static const struct slice_endpoint none;
	struct slice_endpoint scratch = { 0 };

	out->ports = pack_array(p, slice->ports, slice->n_ports, sizeof(*slice->ports));
	out->endpoints =
		pack_array(p, slice->endpoints, slice->n_endpoints, sizeof(*slice->endpoints));
	for (size_t i = 0; i < slice->n_endpoints; i++)
		pack_endpoint(p, out->endpoints ? &out->endpoints[i] : &scratch,
			      &slice->endpoints[i], i ? &slice->endpoints[i - 1] : &none,
			      i && out->endpoints ? &out->endpoints[i - 1] : &none);
	for (size_t i = 0; i < slice->n_ports; i++) {
		char *name = pack_str(p, slice->ports[i].name);

		if (out->ports)
			out->ports[i].name = name;
	}
	out->service = pack_str(p, slice->service);
}

static void pack_node(struct packer *p, struct node *out, const struct node *node)
{
	out->addrs = pack_array(p, node->addrs, node->n_addrs, sizeof(*node->addrs));
	out->pod_cidrs =
		pack_array(p, node->pod_cidrs, node->n_pod_cidrs, sizeof(*node->pod_cidrs));
	for (size_t i = 0; i < node->n_pod_cidrs; i++) {
		char *cidr = pack_str(p, node->pod_cidrs[i]);

		if (out->pod_cidrs)
			out->pod_cidrs[i] = cidr;
	}
	out->published = pack_str(p, node->published);
	out->uid = pack_str(p, node->uid);
	out->created = pack_str(p, node->created);
	out->zone = pack_str(p, node->zone);
	pack_labels(p, &out->labels, node->labels, node->n_labels);
}

static void pack_pod(struct packer *p, struct pod *out, const struct pod *pod)
{
	out->addrs = pack_array(p, pod->addrs, pod->n_addrs, sizeof(*pod->addrs));
	pack_labels(p, &out->labels, pod->labels, pod->n_labels);
	out->node_name = pack_str(p, pod->node_name);
	out->phase = pack_str(p, pod->phase);
	out->ports = pack_array(p, pod->ports, pod->n_ports, sizeof(*pod->ports));
	for (size_t i = 0; i < pod->n_ports; i++) {
		char *name = pack_str(p, pod->ports[i].name);

		if (out->ports)
			out->ports[i].name = name;
	}
}

static void pack_object(struct packer *p, struct object *out, const struct object *obj)
{
	struct object *head = pack_bytes(p, obj, sizeof(*obj), 8);

	if (head)
		out = head;
	switch (obj->kind) {
	case MODEL_SERVICE:
		pack_service(p, &out->service, &obj->service);
		break;
	case MODEL_SLICE:
		pack_slice(p, &out->slice, &obj->slice);
		break;
	case MODEL_NODE:
		pack_node(p, &out->node, &obj->node);
		break;
	case MODEL_NAMESPACE:
		pack_labels(p, &out->namespace.labels, obj->namespace.labels,
			    obj->namespace.n_labels);
		break;
	case MODEL_POD:
		pack_pod(p, &out->pod, &obj->pod);
		break;
	case MODEL_POLICY:
	case MODEL_CLUSTER_POLICY:
	case MODEL_KINDS:
		break;
	}
	out->ns = pack_str(p, obj->ns);
	out->name = pack_str(p, obj->name);
	out->resource_version = NULL;
	out->packed = true;
}

struct object *object_pack(const struct object *obj)
{
	struct object scratch = *obj;
	struct packer p = { 0 };

	pack_object(&p, &scratch, obj);
	p.base = malloc(p.used);
	if (!p.base)
		return NULL;
	p.used = 0;
	pack_object(&p, NULL, obj);
	if (is_policy(obj))
		policy_ref(obj->policy);
	return (struct object *)p.base;
}

int64_t object_take_trigger(const struct object *slice)
{
	struct object *own = (struct object *)slice; /* a note about it, not what it says */
	int64_t ms = own->slice.trigger_ms;

	own->slice.trigger_ms = 0;
	return ms;
}

static bool str_equal(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool addrs_equal(const struct wag_addr *a, size_t n_a, const struct wag_addr *b, size_t n_b)
{
	return n_a == n_b && (n_a == 0 || memcmp(a, b, n_a * sizeof(*a)) == 0);
}

static bool labels_equal(const struct label *a, size_t n_a, const struct label *b, size_t n_b)
{
	if (n_a != n_b)
		return false;
	for (size_t i = 0; i < n_a; i++) {
		if (!str_equal(a[i].key, b[i].key) || !str_equal(a[i].value, b[i].value))
			return false;
	}
	return true;
}

static bool svc_ports_equal(const struct service *a, const struct service *b)
{
	if (a->n_ports != b->n_ports)
		return false;
	for (size_t i = 0; i < a->n_ports; i++) {
		const struct svc_port *x = &a->ports[i], *y = &b->ports[i];

		if (x->proto != y->proto || x->port != y->port || x->node_port != y->node_port ||
		    !str_equal(x->name, y->name))
			return false;
	}
	return true;
}

static bool lb_equal(const struct service *a, const struct service *b)
{
	if (a->n_lb_ips != b->n_lb_ips || a->n_source_ranges != b->n_source_ranges)
		return false;
	for (size_t i = 0; i < a->n_lb_ips; i++) {
		if (a->lb_ips[i].proxy != b->lb_ips[i].proxy ||
		    !wag_addr_equal(&a->lb_ips[i].addr, &b->lb_ips[i].addr))
			return false;
	}
	for (size_t i = 0; i < a->n_source_ranges; i++) {
		if (a->source_ranges[i].bits != b->source_ranges[i].bits ||
		    !wag_addr_equal(&a->source_ranges[i].addr, &b->source_ranges[i].addr))
			return false;
	}
	return true;
}

static bool service_equal(const struct service *a, const struct service *b)
{
	if (a->type != b->type || a->headless != b->headless ||
	    a->publish_not_ready != b->publish_not_ready ||
	    a->external_local != b->external_local || a->internal_local != b->internal_local ||
	    a->affinity_s != b->affinity_s || a->other_proxy != b->other_proxy ||
	    a->health_check_node_port != b->health_check_node_port ||
	    a->forwarding != b->forwarding || a->algorithm != b->algorithm)
		return false;
	return lb_equal(a, b) &&
	       addrs_equal(a->cluster_ips, a->n_cluster_ips, b->cluster_ips, b->n_cluster_ips) &&
	       addrs_equal(a->external_ips, a->n_external_ips, b->external_ips,
			   b->n_external_ips) &&
	       svc_ports_equal(a, b);
}

static bool endpoint_equal(const struct slice_endpoint *a, const struct slice_endpoint *b)
{
	return a->ready == b->ready && a->serving == b->serving &&
	       a->terminating == b->terminating &&
	       addrs_equal(a->addrs, a->n_addrs, b->addrs, b->n_addrs) &&
	       str_equal(a->node_name, b->node_name) && str_equal(a->zone, b->zone) &&
	       str_equal(a->target_ns, b->target_ns) &&
	       str_equal(a->target_name, b->target_name) &&
	       str_equal(a->hint_zones, b->hint_zones) && str_equal(a->hint_nodes, b->hint_nodes);
}

static bool slice_equal(const struct slice *a, const struct slice *b)
{
	if (a->v6 != b->v6 || a->fqdn != b->fqdn || a->other_proxy != b->other_proxy ||
	    a->n_ports != b->n_ports ||
	    a->n_endpoints != b->n_endpoints || !str_equal(a->service, b->service))
		return false;
	for (size_t i = 0; i < a->n_ports; i++) {
		const struct slice_port *x = &a->ports[i], *y = &b->ports[i];

		if (x->proto != y->proto || x->port != y->port || !str_equal(x->name, y->name))
			return false;
	}
	for (size_t i = 0; i < a->n_endpoints; i++) {
		if (!endpoint_equal(&a->endpoints[i], &b->endpoints[i]))
			return false;
	}
	return true;
}

static bool node_equal(const struct node *a, const struct node *b)
{
	if (a->n_pod_cidrs != b->n_pod_cidrs || !str_equal(a->zone, b->zone) ||
	    !str_equal(a->uid, b->uid) || !str_equal(a->published, b->published) ||
	    !str_equal(a->created, b->created) || a->n_internal != b->n_internal ||
	    a->leaving != b->leaving ||
	    !addrs_equal(a->addrs, a->n_addrs, b->addrs, b->n_addrs))
		return false;
	for (size_t i = 0; i < a->n_pod_cidrs; i++) {
		if (!str_equal(a->pod_cidrs[i], b->pod_cidrs[i]))
			return false;
	}
	return labels_equal(a->labels, a->n_labels, b->labels, b->n_labels);
}

static bool pod_equal(const struct pod *a, const struct pod *b)
{
	if (a->n_ports != b->n_ports)
		return false;
	for (size_t i = 0; i < a->n_ports; i++)
		if (a->ports[i].proto != b->ports[i].proto ||
		    a->ports[i].port != b->ports[i].port ||
		    !str_equal(a->ports[i].name, b->ports[i].name))
			return false;
	return a->host_network == b->host_network && a->audit == b->audit &&
	       str_equal(a->node_name, b->node_name) && str_equal(a->phase, b->phase) &&
	       addrs_equal(a->addrs, a->n_addrs, b->addrs, b->n_addrs) &&
	       labels_equal(a->labels, a->n_labels, b->labels, b->n_labels);
}

bool object_equal(const struct object *a, const struct object *b)
{
	if (a->kind != b->kind || !str_equal(a->ns, b->ns) || !str_equal(a->name, b->name))
		return false;
	switch (a->kind) {
	case MODEL_SERVICE:
		return service_equal(&a->service, &b->service);
	case MODEL_SLICE:
		return slice_equal(&a->slice, &b->slice);
	case MODEL_NODE:
		return node_equal(&a->node, &b->node);
	case MODEL_NAMESPACE:
		return a->namespace.audit == b->namespace.audit &&
		       labels_equal(a->namespace.labels, a->namespace.n_labels, b->namespace.labels,
				    b->namespace.n_labels);
	case MODEL_POD:
		return pod_equal(&a->pod, &b->pod);
	case MODEL_POLICY:
	case MODEL_CLUSTER_POLICY:
		return policy_equal(a->policy, b->policy);
	case MODEL_KINDS:
		break;
	}
	return false;
}
