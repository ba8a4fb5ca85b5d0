// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <stdio.h>
#include <string.h>
#include <waggle/abi_policy.h>
#include <waggle/addr.h>
#include "flow_build.h"

#define EVENT_DROP 1
#define EVENT_TRACE 4
#define EVENT_POLICY_VERDICT 5
#define EVENT_SOCK 7

/* Bits of byte 13 of the TCP header. */
enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16, URG = 32, ECE = 64, CWR = 128 };

void flow_time(Google__Protobuf__Timestamp *ret, uint64_t time_ns)
{
	google__protobuf__timestamp__init(ret);
	ret->seconds = time_ns / 1000000000ULL;
	ret->nanos = time_ns % 1000000000ULL;
}

static char *part(const struct flow_name *name, unsigned i)
{
	return (char *)flow_name_part(name, i); /* protobuf-c knows no const; nobody writes */
}

static void build_endpoint(struct flow_msg_end *end, const struct flow_name *name)
{
	flow__endpoint__init(&end->endpoint);
	end->endpoint.id = flow_name_id(name);
	end->endpoint.identity = flow_name_identity(name);
	end->endpoint.namespace_ = part(name, FLOW_NAME_NS);
	end->endpoint.pod_name = part(name, FLOW_NAME_NAME);
	for (unsigned i = 0; i < FLOW_NAME_LABELS; i++) {
		char *label = part(name, FLOW_NAME_LABEL + i);

		if (*label)
			end->labels[end->endpoint.n_labels++] = label;
	}
	end->endpoint.labels = end->labels;
	if (*part(name, FLOW_NAME_WORKLOAD)) {
		flow__workload__init(&end->workload);
		end->workload.name = part(name, FLOW_NAME_WORKLOAD);
		end->workload.kind = part(name, FLOW_NAME_WORKLOAD_KIND);
		end->workloads[0] = &end->workload;
		end->endpoint.workloads = end->workloads;
		end->endpoint.n_workloads = 1;
	}
}

static Flow__Service *build_service(struct flow_msg_end *end, const struct flow_name *name)
{
	if (!name)
		return NULL;
	flow__service__init(&end->service);
	end->service.name = part(name, FLOW_NAME_NAME);
	end->service.namespace_ = part(name, FLOW_NAME_NS);
	return &end->service;
}

static void tcp_summary(char *buf, size_t size, uint8_t flags)
{
	static const struct {
		uint8_t bit;
		const char *name;
	} names[] = { { SYN, "SYN" }, { ACK, "ACK" }, { RST, "RST" }, { FIN, "FIN" },
		      { PSH, "PSH" }, { URG, "URG" }, { ECE, "ECE" }, { CWR, "CWR" } };
	size_t len = snprintf(buf, size, "TCP Flags: ");
	const char *sep = "";

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!(flags & names[i].bit))
			continue;
		len += snprintf(buf + len, size - len, "%s%s", sep, names[i].name);
		sep = ", ";
	}
}

static void build_tcp(struct flow_msg *msg, const struct wag_event *event)
{
	flow__tcp__init(&msg->tcp);
	flow__tcpflags__init(&msg->tcp_flags);
	msg->l4.protocol_case = FLOW__LAYER4__PROTOCOL_TCP;
	msg->l4.tcp = &msg->tcp;
	if (event->point >= WAG_POINT_CONNECT) { /* a system call, not a packet */
		strcpy(msg->summary, "TCP");
		return;
	}
	msg->tcp_flags.fin = !!(event->tcp_flags & FIN);
	msg->tcp_flags.syn = !!(event->tcp_flags & SYN);
	msg->tcp_flags.rst = !!(event->tcp_flags & RST);
	msg->tcp_flags.psh = !!(event->tcp_flags & PSH);
	msg->tcp_flags.ack = !!(event->tcp_flags & ACK);
	msg->tcp_flags.urg = !!(event->tcp_flags & URG);
	msg->tcp_flags.ece = !!(event->tcp_flags & ECE);
	msg->tcp_flags.cwr = !!(event->tcp_flags & CWR);
	msg->tcp.flags = &msg->tcp_flags;
	tcp_summary(msg->summary, sizeof(msg->summary), event->tcp_flags);
}

static const struct icmp_name {
	uint8_t type;
	const char *name;
} icmp4_names[] = {
	{ ICMP_ECHOREPLY, "EchoReply" },
	{ ICMP_DEST_UNREACH, "DestinationUnreachable" },
	{ ICMP_REDIRECT, "Redirect" },
	{ ICMP_ECHO, "EchoRequest" },
	{ ICMP_TIME_EXCEEDED, "TimeExceeded" },
	{ ICMP_PARAMETERPROB, "ParameterProblem" },
	{ ICMP_TIMESTAMP, "TimestampRequest" },
	{ ICMP_TIMESTAMPREPLY, "TimestampReply" },
}, icmp6_names[] = {
	{ ICMP6_DST_UNREACH, "DestinationUnreachable" },
	{ ICMP6_PACKET_TOO_BIG, "PacketTooBig" },
	{ ICMP6_TIME_EXCEEDED, "TimeExceeded" },
	{ ICMP6_PARAM_PROB, "ParameterProblem" },
	{ ICMP6_ECHO_REQUEST, "EchoRequest" },
	{ ICMP6_ECHO_REPLY, "EchoReply" },
	{ 133, "RouterSolicitation" },
	{ 134, "RouterAdvertisement" },
	{ 135, "NeighborSolicitation" },
	{ 136, "NeighborAdvertisement" },
};

static const char *icmp_code_name(bool v6, uint8_t type, uint8_t code)
{
	static const char *const unreach4[] = {
		"Net", "Host", "Protocol", "Port", "FragmentationNeeded", "SourceRoutingFailed"
	};
	static const char *const unreach6[] = { "NoRouteToDst", "AdminProhibited", "BeyondScope",
						"AddressUnreachable", "PortUnreachable" };

	if (!v6 && type == ICMP_DEST_UNREACH && code < sizeof(unreach4) / sizeof(unreach4[0]))
		return unreach4[code];
	if (v6 && type == ICMP6_DST_UNREACH && code < sizeof(unreach6) / sizeof(unreach6[0]))
		return unreach6[code];
	if (!v6 && type == ICMP_TIME_EXCEEDED && code < 2)
		return code ? "FragmentReassemblyTimeExceeded" : "TTLExceeded";
	if (v6 && type == ICMP6_TIME_EXCEEDED && code < 2)
		return code ? "FragmentReassemblyTimeExceeded" : "HopLimitExceeded";
	return NULL;
}

static void icmp_summary(char *buf, size_t size, const char *proto, const struct icmp_name *names,
			 size_t n, uint8_t type, uint8_t code)
{
	const char *code_name = icmp_code_name(names == icmp6_names, type, code);

	for (size_t i = 0; i < n; i++) {
		if (names[i].type != type)
			continue;
		if (code_name)
			snprintf(buf, size, "%s %s(%s)", proto, names[i].name, code_name);
		else if (code)
			snprintf(buf, size, "%s %s(%u)", proto, names[i].name, code);
		else
			snprintf(buf, size, "%s %s", proto, names[i].name);
		return;
	}
	snprintf(buf, size, "%s %u(%u)", proto, type, code);
}

static void build_l4(struct flow_msg *msg, const struct wag_event *event, uint32_t sport,
		     uint32_t dport)
{
	flow__layer4__init(&msg->l4);
	msg->flow.l4 = &msg->l4;
	switch (event->orig.proto) {
	case IPPROTO_TCP:
		build_tcp(msg, event);
		msg->tcp.source_port = sport;
		msg->tcp.destination_port = dport;
		break;
	case IPPROTO_UDP:
		flow__udp__init(&msg->udp);
		msg->udp.source_port = sport;
		msg->udp.destination_port = dport;
		msg->l4.protocol_case = FLOW__LAYER4__PROTOCOL_UDP;
		msg->l4.udp = &msg->udp;
		strcpy(msg->summary, "UDP");
		break;
	case IPPROTO_SCTP:
		flow__sctp__init(&msg->sctp);
		msg->sctp.source_port = sport;
		msg->sctp.destination_port = dport;
		msg->l4.protocol_case = FLOW__LAYER4__PROTOCOL_SCTP;
		msg->l4.sctp = &msg->sctp;
		strcpy(msg->summary, "SCTP");
		break;
	case IPPROTO_ICMP:
		flow__icmpv4__init(&msg->icmp4);
		msg->icmp4.type = event->icmp_type;
		msg->icmp4.code = event->icmp_code;
		msg->l4.protocol_case = FLOW__LAYER4__PROTOCOL_ICMPV4;
		msg->l4.icmpv4 = &msg->icmp4;
		icmp_summary(msg->summary, sizeof(msg->summary), "ICMPv4", icmp4_names,
			     sizeof(icmp4_names) / sizeof(icmp4_names[0]), event->icmp_type,
			     event->icmp_code);
		break;
	case IPPROTO_ICMPV6:
		flow__icmpv6__init(&msg->icmp6);
		msg->icmp6.type = event->icmp_type;
		msg->icmp6.code = event->icmp_code;
		msg->l4.protocol_case = FLOW__LAYER4__PROTOCOL_ICMPV6;
		msg->l4.icmpv6 = &msg->icmp6;
		icmp_summary(msg->summary, sizeof(msg->summary), "ICMPv6", icmp6_names,
			     sizeof(icmp6_names) / sizeof(icmp6_names[0]), event->icmp_type,
			     event->icmp_code);
		break;
	default:
		msg->flow.l4 = NULL;
		strcpy(msg->summary, event->flags & WAG_EVENT_F_IPV6 ? "IPv6" : "IPv4");
	}
}

static void build_addresses(struct flow_msg *msg, const struct flow_record *rec)
{
	const struct wag_event *event = &rec->event;
	const struct wag_tuple *to = rec->kind == FLOW_RECORD_POST ? &event->xlat : &event->orig;

	flow__ip__init(&msg->ip);
	if (!wag_addr_is_zero(&event->orig.saddr)) {
		wag_addr_format(&event->orig.saddr, msg->source_text);
		msg->ip.source = msg->source_text;
	}
	if (!wag_addr_is_zero(&to->daddr)) {
		wag_addr_format(&to->daddr, msg->destination_text);
		msg->ip.destination = msg->destination_text;
	}
	if (rec->kind == FLOW_RECORD_POST && event->type == WAG_EVENT_TRACE &&
	    !wag_addr_equal(&event->orig.saddr, &event->xlat.saddr)) {
		wag_addr_format(&event->xlat.saddr, msg->xlated_text);
		msg->ip.source_xlated = msg->xlated_text;
	}
	msg->ip.ipversion =
		event->flags & WAG_EVENT_F_IPV6 ? FLOW__IPVERSION__IPv6 : FLOW__IPVERSION__IPv4;
	msg->flow.ip = &msg->ip;
	build_l4(msg, event, ntohs(event->orig.sport), ntohs(to->dport));
}

static int trace_point(const struct flow_record *rec)
{
	const struct wag_event *event = &rec->event;

	switch (event->point) {
	case WAG_POINT_TO_POD:
		return FLOW__TRACE_OBSERVATION_POINT__TO_ENDPOINT;
	case WAG_POINT_TO_NET:
		return FLOW__TRACE_OBSERVATION_POINT__TO_NETWORK;
	case WAG_POINT_TO_TUNNEL:
		return FLOW__TRACE_OBSERVATION_POINT__TO_OVERLAY;
	case WAG_POINT_FROM_TUNNEL:
		if (rec->kind != FLOW_RECORD_POST)
			return FLOW__TRACE_OBSERVATION_POINT__FROM_OVERLAY;
		break;
	case WAG_POINT_FROM_NET:
	case WAG_POINT_XDP:
		if (rec->kind != FLOW_RECORD_POST)
			return FLOW__TRACE_OBSERVATION_POINT__FROM_NETWORK;
		break;
	case WAG_POINT_FROM_POD:
		if (rec->kind == FLOW_RECORD_PRE)
			return FLOW__TRACE_OBSERVATION_POINT__FROM_ENDPOINT;
		break;
	}
	switch (event->next) {
	case WAG_NEXT_POD:
		return FLOW__TRACE_OBSERVATION_POINT__TO_ENDPOINT;
	case WAG_NEXT_NET:
		return FLOW__TRACE_OBSERVATION_POINT__TO_NETWORK;
	case WAG_NEXT_TUNNEL:
		return FLOW__TRACE_OBSERVATION_POINT__TO_OVERLAY;
	case WAG_NEXT_HOST:
		return FLOW__TRACE_OBSERVATION_POINT__TO_HOST;
	}
	return FLOW__TRACE_OBSERVATION_POINT__TO_STACK;
}

static bool is_reverse(const struct wag_event *event)
{
	return event->flags & WAG_EVENT_F_REPLY || event->ct == WAG_EVENT_CT_REPLY;
}

/* Hubble's rule: the direction of the connection as the local endpoint sees it. */
static int direction(const struct wag_event *event)
{
	switch (event->point) {
	case WAG_POINT_FROM_POD:
		return is_reverse(event) ? FLOW__TRAFFIC_DIRECTION__INGRESS
					 : FLOW__TRAFFIC_DIRECTION__EGRESS;
	case WAG_POINT_FROM_NET:
	case WAG_POINT_FROM_TUNNEL:
		if (event->next != WAG_NEXT_POD)
			break;
		/* fallthrough */
	case WAG_POINT_TO_POD:
		return is_reverse(event) ? FLOW__TRAFFIC_DIRECTION__EGRESS
					 : FLOW__TRAFFIC_DIRECTION__INGRESS;
	}
	return FLOW__TRAFFIC_DIRECTION__TRAFFIC_DIRECTION_UNKNOWN;
}

/* Where wag_drop() of the reason stands; two stages share some. */
static const char *drop_file(const struct wag_event *event)
{
	switch (event->reason) {
	case WAG_DROP_INVALID_PACKET:
	case WAG_DROP_TRUNCATED_L4:
	case WAG_DROP_IPV6_EXT_HEADER:
	case WAG_DROP_FRAG_NOT_FOUND:
		return "stage_parse.h";
	case WAG_DROP_NO_BACKEND:
	case WAG_DROP_SLOT_MISMATCH:
		return "stage_service.h";
	case WAG_DROP_CT_FULL:
	case WAG_DROP_CT_MIGRATING:
		return "stage_commit.h";
	case WAG_DROP_CSUM_ERROR:
		return "stage_nat.h";
	case WAG_DROP_POLICY_PENDING:
		return "stage_policy.h";
	case WAG_DROP_POLICY_DENIED:
	case WAG_DROP_POLICY_DENY:
	case WAG_DROP_IDENTITY_UNKNOWN:
		return "policy.h";
	case WAG_DROP_FIB_FAILED:
	case WAG_DROP_TTL_EXCEEDED:
	case WAG_DROP_FRAG_NEEDED:
	case WAG_DROP_NO_TUNNEL_ENDPOINT:
		return "stage_route.h";
	case WAG_DROP_UNKNOWN_TUNNEL_SOURCE:
		return "hook_tunnel.bpf.c";
	}
	return wag_point_name(event->point);
}

/* Some reasons only ever stop the first packet of a flow, before it is tracked. */
static bool drops_first(unsigned reason)
{
	return reason == WAG_DROP_NO_BACKEND || reason == WAG_DROP_SLOT_MISMATCH ||
	       reason == WAG_DROP_CT_FULL || reason == WAG_DROP_SNAT_EXHAUSTED ||
	       reason == WAG_DROP_POLICY_PENDING || reason == WAG_DROP_POLICY_DENIED ||
	       reason == WAG_DROP_POLICY_DENY || reason == WAG_DROP_IDENTITY_UNKNOWN;
}

static void build_drop(struct flow_msg *msg, const struct wag_event *event)
{
	unsigned hubble = wag_reason_hubble(event->reason);

	msg->flow.verdict = FLOW__VERDICT__DROPPED;
	msg->flow.type = FLOW__FLOW_TYPE__L3_L4;
	msg->flow.drop_reason = hubble;
	/* Numbers below 130 name facts that are no drops of Hubble's own. */
	if (protobuf_c_enum_descriptor_get_value(&flow__drop_reason__descriptor, hubble))
		msg->flow.drop_reason_desc = hubble;
	msg->event_type.type = EVENT_DROP;
	msg->event_type.sub_type = hubble;
	if (event->line) {
		flow__file_info__init(&msg->file);
		msg->file.name = (char *)drop_file(event);
		msg->file.line = event->line;
		msg->flow.file = &msg->file;
	}
}

static void build_trace(struct flow_msg *msg, const struct flow_record *rec)
{
	int point = trace_point(rec);

	msg->flow.verdict = FLOW__VERDICT__FORWARDED;
	msg->flow.type = FLOW__FLOW_TYPE__L3_L4;
	msg->flow.trace_observation_point = point;
	msg->flow.trace_reason = rec->event.ct; /* the same numbers */
	msg->event_type.type = EVENT_TRACE;
	msg->event_type.sub_type = point == FLOW__TRACE_OBSERVATION_POINT__TO_ENDPOINT ? 0 : point;
}

static void build_sock(struct flow_msg *msg, const struct flow_record *rec)
{
	const struct wag_event *event = &rec->event;
	bool rev = event->point == WAG_POINT_RECVMSG || event->point == WAG_POINT_GETPEER;
	bool post = rec->kind == FLOW_RECORD_POST;

	msg->flow.verdict = post ? FLOW__VERDICT__TRANSLATED : FLOW__VERDICT__TRACED;
	msg->flow.type = FLOW__FLOW_TYPE__SOCK;
	msg->flow.sock_xlate_point = 1 + post + 2 * rev;
	msg->flow.socket_cookie = event->cookie;
	msg->flow.cgroup_id = event->cgroup_id;
	msg->event_type.type = EVENT_SOCK;
	msg->event_type.sub_type = msg->flow.sock_xlate_point;
}

/* Who decided: what allows it, or what denies it. */
static void build_policy(struct flow_msg *msg, const struct flow_record *rec, unsigned dir)
{
	Flow__Policy *policy = &msg->policies[dir], **list = &msg->policy_lists[dir];
	uint32_t verdict = rec->event.policy[dir];
	bool allowed = WAG_VERDICT_ACTION(verdict) == WAG_VERDICT_ALLOW;
	Flow__Flow *flow = &msg->flow;

	if (!rec->policy[dir])
		return;
	flow__policy__init(policy);
	policy->name = part(rec->policy[dir], FLOW_NAME_NAME);
	policy->namespace_ = part(rec->policy[dir], FLOW_NAME_NS);
	policy->kind = part(rec->policy[dir], FLOW_NAME_WORKLOAD_KIND);
	*list = policy;
	if (dir == 0 && allowed)
		flow->ingress_allowed_by = list, flow->n_ingress_allowed_by = 1;
	else if (dir == 0)
		flow->ingress_denied_by = list, flow->n_ingress_denied_by = 1;
	else if (allowed)
		flow->egress_allowed_by = list, flow->n_egress_allowed_by = 1;
	else
		flow->egress_denied_by = list, flow->n_egress_denied_by = 1;
}

/* What policies said of one direction. Match types: 0 none, 4 all, as Hubble has them. */
static void build_verdict(struct flow_msg *msg, const struct flow_record *rec)
{
	unsigned dir = rec->kind == FLOW_RECORD_EGRESS, action;
	Flow__Flow *flow = &msg->flow;

	action = WAG_VERDICT_ACTION(rec->event.policy[dir]);
	build_policy(msg, rec, dir);
	flow->type = FLOW__FLOW_TYPE__L3_L4;
	flow->traffic_direction = dir ? FLOW__TRAFFIC_DIRECTION__EGRESS :
					FLOW__TRAFFIC_DIRECTION__INGRESS;
	flow->policy_match_type = action == WAG_VERDICT_ISOLATED ? 0 : 4;
	msg->event_type.type = EVENT_POLICY_VERDICT;
	if (action == WAG_VERDICT_ALLOW) {
		flow->verdict = FLOW__VERDICT__FORWARDED;
		return;
	}
	if (rec->event.flags & WAG_EVENT_F_AUDIT) {
		flow->verdict = FLOW__VERDICT__AUDIT;
		return;
	}
	flow->verdict = FLOW__VERDICT__DROPPED;
	flow->drop_reason_desc = wag_reason_hubble(
		action == WAG_VERDICT_DENY ? WAG_DROP_POLICY_DENY : WAG_DROP_POLICY_DENIED);
	flow->drop_reason = flow->drop_reason_desc;
}

static void build_flow(struct flow_msg *msg, const struct flow_record *rec)
{
	const struct wag_event *event = &rec->event;
	Flow__Flow *flow = &msg->flow;

	flow__emitter__init(&msg->emitter);
	msg->emitter.name = (char *)"waggle";
	msg->emitter.version = (char *)WAGGLE_VERSION;
	flow->emitter = &msg->emitter;
	flow__cilium_event_type__init(&msg->event_type);
	flow->event_type = &msg->event_type;
	if (event->orig.proto || !wag_addr_is_zero(&event->orig.daddr))
		build_addresses(msg, rec);
	build_endpoint(&msg->source, rec->source);
	build_endpoint(&msg->destination, rec->destination);
	flow->source = &msg->source.endpoint;
	flow->destination = &msg->destination.endpoint;
	flow->source_service = build_service(&msg->source, rec->source_service);
	flow->destination_service = build_service(&msg->destination, rec->destination_service);
	flow->summary = msg->summary;
	flow->traffic_direction = direction(event);
	if (rec->interface) {
		flow__network_interface__init(&msg->interface);
		msg->interface.index = event->ifindex;
		msg->interface.name = part(rec->interface, FLOW_NAME_NAME);
		flow->interface = &msg->interface;
	}
	if (event->type != WAG_EVENT_SOCK &&
	    (event->ct != WAG_EVENT_CT_NONE || drops_first(event->reason))) {
		google__protobuf__bool_value__init(&msg->is_reply);
		msg->is_reply.value = is_reverse(event);
		flow->is_reply = &msg->is_reply;
		flow->reply = msg->is_reply.value;
	}
	if (rec->kind == FLOW_RECORD_INGRESS || rec->kind == FLOW_RECORD_EGRESS) {
		build_verdict(msg, rec);
		return;
	}
	build_policy(msg, rec, 0);
	build_policy(msg, rec, 1);
	if (event->type == WAG_EVENT_DROP)
		build_drop(msg, event);
	else if (event->type == WAG_EVENT_TRACE)
		build_trace(msg, rec);
	else
		build_sock(msg, rec);
}

static void build_lost(struct flow_msg *msg, const struct flow_record *rec)
{
	flow__lost_event__init(&msg->lost);
	msg->lost.source = FLOW__LOST_EVENT_SOURCE__PERF_EVENT_RING_BUFFER;
	msg->lost.num_events_lost = rec->lost.count;
	flow_time(&msg->first, rec->lost.first_ns);
	flow_time(&msg->last, rec->lost.last_ns);
	msg->lost.first = &msg->first;
	msg->lost.last = &msg->last;
	msg->response.response_types_case =
		OBSERVER__GET_FLOWS_RESPONSE__RESPONSE_TYPES_LOST_EVENTS;
	msg->response.lost_events = &msg->lost;
}

void flow_build(struct flow_msg *msg, const struct flow_record *rec, const char *node_name,
		uint64_t boot_id, uint64_t seq)
{
	msg->summary[0] = '\0';
	observer__get_flows_response__init(&msg->response);
	flow_time(&msg->time, rec->time_ns);
	msg->response.node_name = (char *)node_name;
	msg->response.time = &msg->time;
	if (rec->kind == FLOW_RECORD_LOST) {
		build_lost(msg, rec);
		return;
	}
	flow__flow__init(&msg->flow);
	msg->flow.time = &msg->time;
	msg->flow.node_name = (char *)node_name;
	snprintf(msg->uuid, sizeof(msg->uuid),
		 "%08" PRIx32 "-%04" PRIx32 "-4%03" PRIx32 "-8%03" PRIx32 "-%012" PRIx64,
		 (uint32_t)(boot_id >> 32), (uint32_t)(boot_id >> 16) & 0xffff,
		 (uint32_t)(boot_id >> 4) & 0xfff, (uint32_t)(seq >> 48) & 0xfff,
		 (uint64_t)(seq & 0xffffffffffff));
	msg->flow.uuid = msg->uuid;
	build_flow(msg, rec);
	msg->response.response_types_case = OBSERVER__GET_FLOWS_RESPONSE__RESPONSE_TYPES_FLOW;
	msg->response.flow = &msg->flow;
}
