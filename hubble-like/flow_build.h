/* SPDX-License-Identifier: Apache-2.0 */
/* A flow record as Hubble's Flow message, without an allocation. */
#pragma once

#include "flow.pb-c.h"
#include "flow_ring.h"
#include "observer.pb-c.h"

#define FLOW_TEXT 128

/* The response, everything it points to, and room for the texts. Holds pointers into the record. */
struct flow_msg {
	Observer__GetFlowsResponse response;
	Google__Protobuf__Timestamp time;
	Flow__Flow flow;
	Flow__Emitter emitter;
	Flow__IP ip;
	Flow__Layer4 l4;
	Flow__TCP tcp;
	Flow__TCPFlags tcp_flags;
	Flow__UDP udp;
	Flow__SCTP sctp;
	Flow__ICMPv4 icmp4;
	Flow__ICMPv6 icmp6;
	struct flow_msg_end {
		Flow__Endpoint endpoint;
		Flow__Workload workload, *workloads[1];
		char *labels[FLOW_NAME_LABELS];
		Flow__Service service;
	} source, destination;
	Flow__CiliumEventType event_type;
	Flow__FileInfo file;
	Flow__Policy policies[2], *policy_lists[2]; /* by direction */
	Google__Protobuf__BoolValue is_reply;
	Flow__NetworkInterface interface;
	Flow__LostEvent lost;
	Google__Protobuf__Int32Value cpu;
	Google__Protobuf__Timestamp first, last;
	char source_text[FLOW_TEXT], destination_text[FLOW_TEXT], xlated_text[FLOW_TEXT];
	char summary[FLOW_TEXT], uuid[40];
};

/* boot_id and seq together name the flow for ever. node_name must outlive msg. */
void flow_build(struct flow_msg *msg, const struct flow_record *rec, const char *node_name,
		uint64_t boot_id, uint64_t seq);
void flow_time(Google__Protobuf__Timestamp *ret, uint64_t time_ns);
