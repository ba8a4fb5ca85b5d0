// SPDX-License-Identifier: Apache-2.0
/* Services as JSON -> struct service. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "kube_field.h"
#include "kube_parse.h"
#include "object.h"

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
	int type = text[0] ? field_word(text, names, sizeof(names) / sizeof(names[0])) :
			     SVC_CLUSTER_IP;

	*ret = type < 0 ? SVC_CLUSTER_IP : type;
	return type < 0 ? -EINVAL : 0;
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

/* Notes that port i has this; bad if an earlier one has. */
static int svc_port_new(const struct reader *rd, const json_t *ports, json_t *seen, size_t i,
			const char *what, const char *text)
{
	const json_t *before = json_object_get(seen, text);

	if (before)
		return field_bad(rd, json_array_get(ports, i),
				 "spec.ports[%zu].%s: %.32s is that of [%" JSON_INTEGER_FORMAT "]",
				 i, what, text, json_integer_value(before));
	return json_object_set_new(seen, text, json_integer((json_int_t)i)) < 0 ?
		       field_no_memory(rd) :
		       0;
}

/* As an API server has it: several ports have names, and no two are the same. */
static int svc_ports_differ(const struct reader *rd, const json_t *ports, const struct service *svc)
{
	_cleanup_(json_decrefp) json_t *names = NULL, *numbers = NULL;
	int r;

	if (svc->n_ports < 2)
		return 0;
	names = json_object();
	numbers = json_object();
	r = names && numbers ? 0 : field_no_memory(rd);
	for (size_t i = 0; i < svc->n_ports && r == 0; i++) {
		const struct svc_port *port = &svc->ports[i];
		char text[32];

		snprintf(text, sizeof(text), "%u/%s", port->port, wag_proto_name(port->proto));
		if (!port->name[0])
			r = field_bad(rd, json_array_get(ports, i),
				      "spec.ports[%zu].name: is missing; of several ports each has "
				      "one",
				      i);
		if (r == 0)
			r = svc_port_new(rd, ports, names, i, "name", port->name);
		if (r == 0)
			r = svc_port_new(rd, ports, numbers, i, "port", text);
	}
	return r;
}

int kube_read_service(const struct reader *rd, const json_t *tree, struct object *obj)
{
	struct service *svc = &obj->service;
	const char *forwarding, *cilium, *algorithm, *cilium_algorithm;
	const json_t *spec, *ports, *value;
	json_int_t check_port;
	size_t i;
	int r;

	svc->other_proxy = field_other_proxy(tree);
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
	return rd->sink->manifests ? svc_ports_differ(rd, ports, svc) : 0;
}
