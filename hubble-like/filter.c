// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "filter.h"
#include "filter_label.h"

struct cidr {
	struct wag_addr net;
	unsigned bits;
};

struct cidrs {
	struct cidr *v;
	size_t n;
};

struct filter {
	const Flow__FlowFilter *f;
	struct cidrs source, destination, xlated;
};

struct filter_list {
	size_t n;
	struct filter filters[];
};

void filter_list_free(struct filter_list *list)
{
	if (!list)
		return;
	for (size_t i = 0; i < list->n; i++) {
		free(list->filters[i].source.v);
		free(list->filters[i].destination.v);
		free(list->filters[i].xlated.v);
	}
	free(list);
}

void filter_list_freep(struct filter_list **list)
{
	filter_list_free(*list);
}

bool filter_list_empty(const struct filter_list *list)
{
	return !list || !list->n;
}

static int parse_cidrs(struct cidrs *ret, char *const *texts, size_t n, const char *field,
		       struct wag_err *err)
{
	if (!n)
		return 0;
	ret->v = calloc(n, sizeof(*ret->v));
	if (!ret->v)
		return wag_err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++) {
		if (wag_cidr_parse(texts[i], &ret->v[i].net, &ret->v[i].bits) < 0)
			return wag_err_set(err, -EINVAL,
					   "%s: \"%s\" is neither an address nor a CIDR", field,
					   texts[i]);
		ret->n++;
	}
	return 0;
}

static int check_ports(char *const *texts, size_t n, const char *field, struct wag_err *err)
{
	for (size_t i = 0; i < n; i++) {
		char *end;
		unsigned long port = strtoul(texts[i], &end, 10);

		if (texts[i][0] < '0' || texts[i][0] > '9' || *end || port > 65535)
			return wag_err_set(err, -EINVAL, "%s: \"%s\" is not a port", field,
					   texts[i]);
	}
	return 0;
}

static int check_protocols(const Flow__FlowFilter *f, struct wag_err *err)
{
	static const char *const known[] = { "icmp", "icmpv4", "icmpv6", "sctp", "tcp",	 "udp",
					     "vrrp", "igmp",   "dns",	 "http", "kafka" };

	for (size_t i = 0; i < f->n_protocol; i++) {
		size_t j = 0;

		while (j < sizeof(known) / sizeof(known[0]) && strcasecmp(known[j], f->protocol[i]))
			j++;
		if (j == sizeof(known) / sizeof(known[0]))
			return wag_err_set(err, -EINVAL, "protocol: \"%s\" is not known",
					   f->protocol[i]);
	}
	return 0;
}

static int check_labels(char *const *texts, size_t n, const char *field, struct wag_err *err)
{
	for (size_t i = 0; i < n; i++)
		if (filter_label_check(texts[i]) < 0)
			return wag_err_set(err, -EINVAL, "%s: selector \"%s\" is not supported",
					   field, texts[i]);
	return 0;
}

static int check_supported(const Flow__FlowFilter *f, struct wag_err *err)
{
	const struct {
		bool set;
		const char *name;
	} fields[] = {
		{ f->n_source_fqdn, "source_fqdn" },
		{ f->n_destination_fqdn, "destination_fqdn" },
		{ f->n_source_cluster_name, "source_cluster_name" },
		{ f->n_destination_cluster_name, "destination_cluster_name" },
		{ f->n_http_status_code, "http_status_code" },
		{ f->n_dns_query, "dns_query" },
		{ f->n_http_method, "http_method" },
		{ f->n_http_path, "http_path" },
		{ f->n_http_url, "http_url" },
		{ f->n_http_header, "http_header" },
		{ f->n_node_labels, "node_labels" },
		{ f->n_trace_id, "trace_id" },
		{ f->n_ip_trace_id, "ip_trace_id" },
		{ f->n_encrypted, "encrypted" },
		{ f->experimental != NULL, "experimental" },
	};

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		if (fields[i].set)
			return wag_err_set(err, -EINVAL, "filter %s is not supported",
					   fields[i].name);
	if (f->base.n_unknown_fields)
		return wag_err_set(err, -EINVAL, "filter field number %u is not supported",
				   f->base.unknown_fields[0].tag);
	return 0;
}

static int filter_init(struct filter *filter, const Flow__FlowFilter *f, struct wag_err *err)
{
	int r;

	filter->f = f;
	if ((r = check_supported(f, err)) < 0 || (r = check_protocols(f, err)) < 0 ||
	    (r = check_ports(f->source_port, f->n_source_port, "source_port", err)) < 0 ||
	    (r = check_ports(f->destination_port, f->n_destination_port, "destination_port", err)) <
		    0 ||
	    (r = check_labels(f->source_label, f->n_source_label, "source_label", err)) < 0 ||
	    (r = check_labels(f->destination_label, f->n_destination_label, "destination_label",
			      err)) < 0 ||
	    (r = parse_cidrs(&filter->source, f->source_ip, f->n_source_ip, "source_ip", err)) <
		    0 ||
	    (r = parse_cidrs(&filter->destination, f->destination_ip, f->n_destination_ip,
			     "destination_ip", err)) < 0 ||
	    (r = parse_cidrs(&filter->xlated, f->source_ip_xlated, f->n_source_ip_xlated,
			     "source_ip_xlated", err)) < 0)
		return r;
	return 0;
}

int filter_list_new(struct filter_list **ret, Flow__FlowFilter *const *filters, size_t n,
		    struct wag_err *err)
{
	_cleanup_(filter_list_freep) struct filter_list *list =
		calloc(1, sizeof(*list) + n * sizeof(list->filters[0]));

	if (!list)
		return wag_err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++) {
		int r;

		list->n++;
		r = filter_init(&list->filters[i], filters[i], err);
		if (r < 0)
			return r;
	}
	*ret = TAKE_PTR(list);
	return 0;
}

static bool match_ip(const struct cidrs *cidrs, const char *text)
{
	struct wag_addr addr;

	if (!cidrs->n)
		return true;
	if (wag_addr_parse(text, &addr) < 0)
		return false;
	for (size_t i = 0; i < cidrs->n; i++)
		if (wag_addr_in_cidr(&addr, &cidrs->v[i].net, cidrs->v[i].bits))
			return true;
	return false;
}

/* "ns/prefix", "prefix" (namespace default), "ns/" (all of it), "/prefix" (any namespace). */
static bool match_name(char *const *wanted, size_t n, const char *ns, const char *name)
{
	if (!n)
		return true;
	for (size_t i = 0; i < n; i++) {
		const char *slash = strchr(wanted[i], '/');
		const char *prefix = slash ? slash + 1 : wanted[i];
		const char *in = slash ? wanted[i] : "default";
		size_t len = slash ? (size_t)(slash - wanted[i]) : strlen(in);

		if (!*ns || (len && (strlen(ns) != len || memcmp(ns, in, len))))
			continue;
		if (strncmp(name, prefix, strlen(prefix)) == 0)
			return true;
	}
	return false;
}

static bool match_endpoint_name(char *const *wanted, size_t n, const Flow__Endpoint *ep)
{
	return !n || (ep && match_name(wanted, n, ep->namespace_, ep->pod_name));
}

static bool match_service(char *const *wanted, size_t n, const Flow__Service *svc)
{
	return !n || (svc && match_name(wanted, n, svc->namespace_, svc->name));
}

static bool match_workload(Flow__Workload *const *wanted, size_t n, const Flow__Endpoint *ep)
{
	if (!n)
		return true;
	for (size_t i = 0; ep && i < n; i++) {
		for (size_t j = 0; j < ep->n_workloads; j++) {
			const Flow__Workload *have = ep->workloads[j];

			if ((!*wanted[i]->name || !strcmp(wanted[i]->name, have->name)) &&
			    (!*wanted[i]->kind || !strcmp(wanted[i]->kind, have->kind)))
				return true;
		}
	}
	return false;
}

static bool match_label(char *const *wanted, size_t n, const Flow__Endpoint *ep)
{
	if (!n)
		return true;
	for (size_t i = 0; ep && i < n; i++)
		if (filter_label_match(wanted[i], ep))
			return true;
	return false;
}

static bool match_u32(const uint32_t *wanted, size_t n, uint32_t value)
{
	for (size_t i = 0; i < n; i++)
		if (wanted[i] == value)
			return true;
	return !n;
}

static bool match_port(char *const *wanted, size_t n, int64_t port)
{
	for (size_t i = 0; i < n; i++)
		if (strtol(wanted[i], NULL, 10) == port)
			return true;
	return !n;
}

static bool match_ports(const Flow__FlowFilter *f, const Flow__Layer4 *l4)
{
	int64_t source = -1, destination = -1;

	if (l4 && l4->protocol_case == FLOW__LAYER4__PROTOCOL_TCP) {
		source = l4->tcp->source_port;
		destination = l4->tcp->destination_port;
	} else if (l4 && l4->protocol_case == FLOW__LAYER4__PROTOCOL_UDP) {
		source = l4->udp->source_port;
		destination = l4->udp->destination_port;
	} else if (l4 && l4->protocol_case == FLOW__LAYER4__PROTOCOL_SCTP) {
		source = l4->sctp->source_port;
		destination = l4->sctp->destination_port;
	}
	return match_port(f->source_port, f->n_source_port, source) &&
	       match_port(f->destination_port, f->n_destination_port, destination);
}

static bool is_protocol(const char *name, const Flow__Flow *flow)
{
	Flow__Layer4__ProtocolCase l4 = flow->l4 ? flow->l4->protocol_case : 0;

	if (!strcasecmp(name, "tcp"))
		return l4 == FLOW__LAYER4__PROTOCOL_TCP;
	if (!strcasecmp(name, "udp"))
		return l4 == FLOW__LAYER4__PROTOCOL_UDP;
	if (!strcasecmp(name, "sctp"))
		return l4 == FLOW__LAYER4__PROTOCOL_SCTP;
	if (!strcasecmp(name, "icmpv4"))
		return l4 == FLOW__LAYER4__PROTOCOL_ICMPV4;
	if (!strcasecmp(name, "icmpv6"))
		return l4 == FLOW__LAYER4__PROTOCOL_ICMPV6;
	if (!strcasecmp(name, "icmp"))
		return l4 == FLOW__LAYER4__PROTOCOL_ICMPV4 || l4 == FLOW__LAYER4__PROTOCOL_ICMPV6;
	if (!strcasecmp(name, "dns"))
		return flow->l7 && flow->l7->record_case == FLOW__LAYER7__RECORD_DNS;
	if (!strcasecmp(name, "http"))
		return flow->l7 && flow->l7->record_case == FLOW__LAYER7__RECORD_HTTP;
	return false;
}

static bool match_protocol(const Flow__FlowFilter *f, const Flow__Flow *flow)
{
	for (size_t i = 0; i < f->n_protocol; i++)
		if (is_protocol(f->protocol[i], flow))
			return true;
	return !f->n_protocol;
}

static bool match_event_type(const Flow__FlowFilter *f, const Flow__CiliumEventType *type)
{
	for (size_t i = 0; type && i < f->n_event_type; i++) {
		const Flow__EventTypeFilter *want = f->event_type[i];

		if (want->type == type->type &&
		    (!want->match_sub_type || want->sub_type == type->sub_type))
			return true;
	}
	return !f->n_event_type;
}

static bool has_flags(const Flow__TCPFlags *want, const Flow__TCPFlags *have)
{
	return (!want->fin || have->fin) && (!want->syn || have->syn) &&
	       (!want->rst || have->rst) && (!want->psh || have->psh) &&
	       (!want->ack || have->ack) && (!want->urg || have->urg) &&
	       (!want->ece || have->ece) && (!want->cwr || have->cwr) && (!want->ns || have->ns);
}

static bool match_tcp_flags(const Flow__FlowFilter *f, const Flow__Layer4 *l4)
{
	if (!f->n_tcp_flags)
		return true;
	if (!l4 || l4->protocol_case != FLOW__LAYER4__PROTOCOL_TCP || !l4->tcp->flags)
		return false;
	for (size_t i = 0; i < f->n_tcp_flags; i++)
		if (has_flags(f->tcp_flags[i], l4->tcp->flags))
			return true;
	return false;
}

static bool match_reply(const Flow__FlowFilter *f, const Flow__Flow *flow)
{
	for (size_t i = 0; flow->is_reply && i < f->n_reply; i++)
		if (!f->reply[i] == !flow->is_reply->value)
			return true;
	return !f->n_reply;
}

/* "node*", "cluster/node*": a pattern without a cluster matches the node in any. */
static bool match_node(const Flow__FlowFilter *f, const char *name)
{
	const char *slash = strchr(name, '/');

	for (size_t i = 0; i < f->n_node_name; i++) {
		const char *pattern = f->node_name[i];

		if (!strchr(pattern, '/') && fnmatch(pattern, slash ? slash + 1 : name, 0) == 0)
			return true;
		if (slash && fnmatch(pattern, name, 0) == 0)
			return true;
		if (!slash && strncmp(pattern, "default/", 8) == 0 &&
		    !fnmatch(pattern + 8, name, 0))
			return true;
	}
	return !f->n_node_name;
}

static bool match_interface(const Flow__FlowFilter *f, const Flow__NetworkInterface *have)
{
	for (size_t i = 0; have && i < f->n_interface; i++) {
		const Flow__NetworkInterface *want = f->interface[i];

		if ((!want->index || want->index == have->index) &&
		    (!*want->name || !strcmp(want->name, have->name)))
			return true;
	}
	return !f->n_interface;
}

static bool match_uuid(const Flow__FlowFilter *f, const char *uuid)
{
	for (size_t i = 0; i < f->n_uuid; i++)
		if (!strcmp(f->uuid[i], uuid))
			return true;
	return !f->n_uuid;
}

static bool match_ends(const struct filter *filter, const Flow__Flow *flow)
{
	const Flow__FlowFilter *f = filter->f;
	const Flow__Endpoint *source = flow->source, *destination = flow->destination;

	return match_ip(&filter->source, flow->ip ? flow->ip->source : "") &&
	       match_ip(&filter->destination, flow->ip ? flow->ip->destination : "") &&
	       match_ip(&filter->xlated, flow->ip ? flow->ip->source_xlated : "") &&
	       match_endpoint_name(f->source_pod, f->n_source_pod, source) &&
	       match_endpoint_name(f->destination_pod, f->n_destination_pod, destination) &&
	       match_service(f->source_service, f->n_source_service, flow->source_service) &&
	       match_service(f->destination_service, f->n_destination_service,
			     flow->destination_service) &&
	       match_workload(f->source_workload, f->n_source_workload, source) &&
	       match_workload(f->destination_workload, f->n_destination_workload, destination) &&
	       match_label(f->source_label, f->n_source_label, source) &&
	       match_label(f->destination_label, f->n_destination_label, destination) &&
	       match_u32(f->source_identity, f->n_source_identity, source ? source->identity : 0) &&
	       match_u32(f->destination_identity, f->n_destination_identity,
			 destination ? destination->identity : 0);
}

static bool match(const struct filter *filter, const Flow__Flow *flow)
{
	const Flow__FlowFilter *f = filter->f;

	return match_u32((const uint32_t *)f->verdict, f->n_verdict, flow->verdict) &&
	       match_u32((const uint32_t *)f->drop_reason_desc, f->n_drop_reason_desc,
			 flow->drop_reason_desc) &&
	       match_u32((const uint32_t *)f->traffic_direction, f->n_traffic_direction,
			 flow->traffic_direction) &&
	       match_u32((const uint32_t *)f->ip_version, f->n_ip_version,
			 flow->ip ? flow->ip->ipversion : FLOW__IPVERSION__IP_NOT_USED) &&
	       match_event_type(f, flow->event_type) && match_reply(f, flow) &&
	       match_protocol(f, flow) && match_ports(f, flow->l4) && match_ends(filter, flow) &&
	       match_tcp_flags(f, flow->l4) && match_node(f, flow->node_name) &&
	       match_interface(f, flow->interface) && match_uuid(f, flow->uuid);
}

bool filter_list_match(const struct filter_list *list, const Flow__Flow *flow)
{
	for (size_t i = 0; list && i < list->n; i++)
		if (match(&list->filters[i], flow))
			return true;
	return false;
}

bool filter_pass(const struct filter_list *allow, const struct filter_list *deny,
		 const Flow__Flow *flow)
{
	return (filter_list_empty(allow) || filter_list_match(allow, flow)) &&
	       !filter_list_match(deny, flow);
}
