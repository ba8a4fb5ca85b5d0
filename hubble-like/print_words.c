// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <string.h>
#include <time.h>
#include "filter_label.h"
#include "print.h"

#define EVENT_DROP 1
#define EVENT_CAPTURE 3
#define EVENT_TRACE 4
#define EVENT_POLICY_VERDICT 5
#define EVENT_SOCK 7

void print_safe(FILE *f, const char *text)
{
	for (; *text; text++) {
		unsigned char c = *text;

		if (c < 0x20 || c == 0x7f)
			fprintf(f, "\\x%02x", c);
		else
			fputc(c, f);
	}
}

int print_time_parse(const char *text, enum print_time *ret)
{
	static const char *const names[] = { "StampMilli",   "RFC3339",	    "RFC3339Milli",
					     "RFC3339Micro", "RFC3339Nano", "RFC1123Z" };

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!strcmp(names[i], text)) {
			*ret = i;
			return 0;
		}
	}
	return -EINVAL;
}

void print_time_format(enum print_time format, const Google__Protobuf__Timestamp *ts, char *buf,
		       size_t size)
{
	static const char *const dates[] = { "%b %e %H:%M:%S",	  "%Y-%m-%dT%H:%M:%S",
					     "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S",
					     "%Y-%m-%dT%H:%M:%S", "%a, %d %b %Y %H:%M:%S" };
	time_t seconds = ts ? ts->seconds : 0;
	char date[64], fraction[16];
	struct tm tm;

	if (!ts || ts->nanos < 0 || ts->nanos > 999999999 || !gmtime_r(&seconds, &tm) ||
	    !strftime(date, sizeof(date), dates[format], &tm)) {
		snprintf(buf, size, "N/A");
		return;
	}
	snprintf(fraction, sizeof(fraction), "%09d", ts->nanos);
	switch (format) {
	case PRINT_STAMP_MILLI:
		snprintf(buf, size, "%s.%.3s", date, fraction);
		break;
	case PRINT_RFC3339:
		snprintf(buf, size, "%sZ", date);
		break;
	case PRINT_RFC3339_MILLI:
		snprintf(buf, size, "%s.%.3sZ", date, fraction);
		break;
	case PRINT_RFC3339_MICRO:
		snprintf(buf, size, "%s.%.6sZ", date, fraction);
		break;
	case PRINT_RFC3339_NANO:
		snprintf(buf, size, "%s.%.9sZ", date, fraction);
		break;
	case PRINT_RFC1123Z:
		snprintf(buf, size, "%s +0000", date);
		break;
	}
}

/* One end as a person calls it: pod, Service, DNS names, or address; then the port. */
static void host(const struct printer *p, const char *ip, uint32_t port, const Flow__Endpoint *ep,
		 const Flow__Service *svc, char *const *names, size_t n_names, char *buf,
		 size_t size)
{
	const char *ns = svc ? svc->namespace_ : ep ? ep->namespace_ : "";
	const char *name = ep && *ep->pod_name ? ep->pod_name : svc ? svc->name : "";
	size_t len = 0;

	buf[0] = '\0';
	if (p->numeric || (!*name && !n_names))
		len = snprintf(buf, size, port && strchr(ip, ':') ? "[%s]" : "%s", ip);
	else if (*name)
		len = snprintf(buf, size, "%s%s%s", ns, *ns ? "/" : "", name);
	else
		for (size_t i = 0; i < n_names && len < size; i++)
			len += snprintf(buf + len, size - len, "%s%s", i ? "," : "", names[i]);
	if (port && len < size)
		snprintf(buf + len, size - len, ":%u", port);
}

static void ports(const Flow__Layer4 *l4, uint32_t *ret_source, uint32_t *ret_destination)
{
	*ret_source = *ret_destination = 0;
	if (!l4)
		return;
	if (l4->protocol_case == FLOW__LAYER4__PROTOCOL_TCP) {
		*ret_source = l4->tcp->source_port;
		*ret_destination = l4->tcp->destination_port;
	} else if (l4->protocol_case == FLOW__LAYER4__PROTOCOL_UDP) {
		*ret_source = l4->udp->source_port;
		*ret_destination = l4->udp->destination_port;
	} else if (l4->protocol_case == FLOW__LAYER4__PROTOCOL_SCTP) {
		*ret_source = l4->sctp->source_port;
		*ret_destination = l4->sctp->destination_port;
	}
}

void print_hosts(const struct printer *p, const Flow__Flow *flow, char *source, char *destination,
		 size_t size)
{
	uint32_t source_port, destination_port;

	source[0] = destination[0] = '\0';
	if (!flow->ip && flow->ethernet) {
		snprintf(source, size, "%s", flow->ethernet->source);
		snprintf(destination, size, "%s", flow->ethernet->destination);
	}
	if (!flow->ip)
		return;
	ports(flow->l4, &source_port, &destination_port);
	host(p, flow->ip->source, source_port, flow->source, flow->source_service,
	     flow->source_names, flow->n_source_names, source, size);
	host(p, flow->ip->destination, destination_port, flow->destination,
	     flow->destination_service, flow->destination_names, flow->n_destination_names,
	     destination, size);
}

void print_identity(const Flow__Endpoint *ep, char *buf, size_t size)
{
	uint32_t identity = ep ? ep->identity : 0;
	const char *name = filter_reserved_name(identity);

	if (name)
		snprintf(buf, size, "(%s)", name);
	else
		snprintf(buf, size, "(ID:%u)", identity);
}

static void trace_type(int sub_type, char *buf, size_t size)
{
	static const char *const names[] = {
		"to-endpoint",	 "to-proxy",   "to-host",     "to-stack",   "to-overlay",
		"from-endpoint", "from-proxy", "from-host",   "from-stack", "from-overlay",
		"from-network",	 "to-network", "from-crypto", "to-crypto",
	};

	if (sub_type >= 0 && sub_type < (int)(sizeof(names) / sizeof(names[0])))
		snprintf(buf, size, "%s", names[sub_type]);
	else
		snprintf(buf, size, "%d", sub_type);
}

static const char *enum_name(const ProtobufCEnumDescriptor *desc, int value)
{
	const ProtobufCEnumValue *found = protobuf_c_enum_descriptor_get_value(desc, value);

	return found ? found->name : "UNKNOWN";
}

static const char *sock_type(int point)
{
	static const char *const names[] = { NULL, "pre-xlate-fwd", "post-xlate-fwd",
					     "pre-xlate-rev", "post-xlate-rev" };

	return point > 0 && point < 5 ? names[point] : "SOCK_XLATE_POINT_UNKNOWN";
}

static void l7_type(const Flow__Layer7 *l7, char *buf, size_t size)
{
	static const char *const types[] = { "unknown_l7_type", "request", "response", "sample" };
	const char *type = l7->type <= 3 ? types[l7->type] : "unknown_l7_type";

	if (l7->record_case == FLOW__LAYER7__RECORD_DNS)
		snprintf(buf, size, "dns-%s %s", type, l7->dns->observation_source);
	else
		snprintf(buf, size, "%s-%s",
			 l7->record_case == FLOW__LAYER7__RECORD_HTTP ? "http" : "l7", type);
}

void print_type(const Flow__Flow *flow, char *buf, size_t size)
{
	static const char *const matches[] = { "none", "L3-Only",  "L3-L4",	"L4-Only",
					       "all",  "L3-Proto", "Proto-Only" };
	int type = flow->event_type ? flow->event_type->type : 0;
	int sub_type = flow->event_type ? flow->event_type->sub_type : 0;
	const char *drop;

	if (flow->l7) {
		l7_type(flow->l7, buf, size);
		return;
	}
	switch (type) {
	case EVENT_TRACE:
		trace_type(sub_type, buf, size);
		break;
	case EVENT_DROP:
		drop = print_drop_text(flow);
		if (drop)
			snprintf(buf, size, "%s", drop);
		else
			snprintf(buf, size, "%d", sub_type);
		break;
	case EVENT_POLICY_VERDICT:
		snprintf(buf, size, "policy-verdict:%s %s",
			 flow->policy_match_type < 7 ? matches[flow->policy_match_type] : "none",
			 enum_name(&flow__traffic_direction__descriptor, flow->traffic_direction));
		break;
	case EVENT_CAPTURE:
		snprintf(buf, size, "%s",
			 enum_name(&flow__debug_capture_point__descriptor,
				   flow->debug_capture_point));
		break;
	case EVENT_SOCK:
		snprintf(buf, size, "%s", sock_type(flow->sock_xlate_point));
		break;
	default:
		snprintf(buf, size, "UNKNOWN");
	}
}

static size_t policy_names(Flow__Policy *const *policies, size_t n, char *buf, size_t size,
			   size_t len)
{
	for (size_t i = 0; i < n && len < size; i++)
		len += snprintf(buf + len, size - len, "%s%s (%s)", i ? ", " : " BY ",
				policies[i]->name, policies[i]->kind);
	return len;
}

void print_verdict(const struct printer *p, const Flow__Flow *flow, char *buf, size_t size)
{
	bool policy = flow->event_type && flow->event_type->type == EVENT_POLICY_VERDICT;
	const char *text = enum_name(&flow__verdict__descriptor, flow->verdict), *color = "33";
	size_t len;

	if (flow->verdict == FLOW__VERDICT__FORWARDED ||
	    flow->verdict == FLOW__VERDICT__REDIRECTED) {
		text = policy ? "ALLOWED" : text;
		color = "32";
	} else if (flow->verdict == FLOW__VERDICT__DROPPED ||
		   flow->verdict == FLOW__VERDICT__ERROR) {
		text = policy ? "DENIED" : text;
		color = "31";
	} else if (flow->verdict == FLOW__VERDICT__AUDIT) {
		text = policy ? "AUDITED" : text;
	}
	len = p->color ? snprintf(buf, size, "\033[%sm%s\033[0m", color, text)
		       : snprintf(buf, size, "%s", text);
	if (!p->policy_names || (!policy && flow->verdict != FLOW__VERDICT__DROPPED))
		return;
	len = policy_names(flow->egress_denied_by, flow->n_egress_denied_by, buf, size, len);
	len = policy_names(flow->ingress_denied_by, flow->n_ingress_denied_by, buf, size, len);
	len = policy_names(flow->egress_allowed_by, flow->n_egress_allowed_by, buf, size, len);
	policy_names(flow->ingress_allowed_by, flow->n_ingress_allowed_by, buf, size, len);
}
