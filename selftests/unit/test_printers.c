// SPDX-License-Identifier: Apache-2.0
/* The shapes are Hubble's: the strings here are what its users' scripts read. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <waggle/cleanup.h>
#include "hubble-like/json_in.h"
#include "hubble-like/json_out.h"
#include "hubble-like/print.h"

#define FLOW_JSON                                                                                  \
	"{\"flow\":{\"time\":\"1970-01-01T00:20:34.567800Z\",\"verdict\":\"DROPPED\",\"IP\":{"     \
	"\"source\":\"1.1.1.1\",\"destination\":\"2.2.2.2\"},\"l4\":{\"TCP\":{\"source_port\":"    \
	"31793,"                                                                                   \
	"\"destination_port\":8080}},\"source\":{\"identity\":4},\"destination\":{\"identity\":"   \
	"12345},\"Type\":\"L3_L4\",\"node_name\":\"k8s1\",\"event_type\":{\"type\":1,\"sub_"       \
	"type\":"                                                                                  \
	"133},\"is_reply\":false,\"Summary\":\"TCP Flags: SYN\"}}"
#define REPLY_JSON                                                                                 \
	"{\"flow\":{\"time\":\"1970-01-01T00:20:34.567800Z\",\"verdict\":\"FORWARDED\",\"IP\":{"   \
	"\"source\":\"1.1.1.1\",\"destination\":\"fd00::2\"},\"l4\":{\"UDP\":{\"source_port\":53," \
	"\"destination_port\":9}},\"source\":{\"identity\":4},\"destination\":{\"identity\":2},"   \
	"\"event_type\":{\"type\":4},\"is_reply\":true,\"Summary\":\"UDP\"}}"
#define VERDICT_JSON                                                                               \
	"{\"flow\":{\"time\":\"1970-01-01T00:20:34.567Z\",\"verdict\":\"DROPPED\",\"IP\":{"        \
	"\"source\":\"1.1.1.1\",\"destination\":\"2.2.2.2\"},\"source\":{\"identity\":4},"         \
	"\"destination\":{\"identity\":12345},\"event_type\":{\"type\":5},\"traffic_direction\":"  \
	"\"EGRESS\",\"is_reply\":false,\"Summary\":\"TCP Flags: SYN\",\"egress_denied_by\":[{"     \
	"\"name\":\"my-policy\",\"kind\":\"CiliumNetworkPolicy\"}]}}"
#define SOCK_JSON                                                                                  \
	"{\"flow\":{\"time\":\"2022-01-13T13:47:20.932Z\",\"verdict\":\"TRACED\",\"IP\":{"         \
	"\"source\":\"10.0.0.1\",\"destination\":\"10.96.0.9\"},\"l4\":{\"TCP\":{"                 \
	"\"destination_port\":80}},\"source\":{\"identity\":5618,\"namespace\":\"default\","       \
	"\"pod_name\":\"mediabot\"},\"destination\":{\"identity\":2},\"Type\":\"SOCK\","           \
	"\"event_type\":{\"type\":7},\"destination_service\":{\"name\":\"nginx-service\","         \
	"\"namespace\":\"default\"},\"sock_xlate_point\":\"SOCK_XLATE_POINT_PRE_DIRECTION_FWD\","  \
	"\"Summary\":\"TCP\"}}"
#define LOST_JSON                                                                                  \
	"{\"lost_events\":{\"source\":\"HUBBLE_RING_BUFFER\",\"num_events_lost\":\"1\",\"cpu\":0," \
	"\"first\":\"1970-01-01T00:00:01Z\",\"last\":\"1970-01-01T00:00:02Z\"},\"time\":"          \
	"\"1970-01-01T00:00:00Z\"}"
#define NODE_JSON                                                                                  \
	"{\"node_status\":{\"state_change\":\"NODE_UNAVAILABLE\",\"node_names\":[\"a\",\"b\"]},"   \
	"\"node_name\":\"node\",\"time\":\"1970-01-01T00:20:34.567Z\"}"
/* As an observer without a name sends it, and one whose nodes have none. */
#define NAMELESS_JSON                                                                              \
	"{\"node_status\":{\"state_change\":\"NODE_UNAVAILABLE\",\"node_names\":[\"a\",\"\"]}}"
#define NO_NODES_JSON                                                                              \
	"{\"node_status\":{\"state_change\":\"NODE_ERROR\",\"message\":\"x\"},"			   \
	"\"node_name\":\"n\",\"time\":\"1970-01-01T00:20:34.567Z\"}"

struct shape {
	const char *name;
	enum print_output output;
	bool node_name;
	const char *json[2];
	const char *want, *want_err;
};

static const struct shape shapes[] = {
	{ "compact",
	  PRINT_COMPACT,
	  false,
	  { FLOW_JSON },
	  "Jan  1 00:20:34.567: 1.1.1.1:31793 (health) -> 2.2.2.2:8080 (ID:12345) Policy denied "
	  "DROPPED (TCP Flags: SYN)\n",
	  "" },
	{ "compact with node",
	  PRINT_COMPACT,
	  true,
	  { FLOW_JSON },
	  "Jan  1 00:20:34.567 [k8s1]: 1.1.1.1:31793 (health) -> 2.2.2.2:8080 (ID:12345) Policy "
	  "denied DROPPED (TCP Flags: SYN)\n",
	  "" },
	{ "a reply is flipped, IPv6 is bracketed",
	  PRINT_COMPACT,
	  false,
	  { REPLY_JSON },
	  "Jan  1 00:20:34.567: [fd00::2]:9 (world) <- 1.1.1.1:53 (health) to-endpoint FORWARDED "
	  "(UDP)\n",
	  "" },
	{ "policy verdict",
	  PRINT_COMPACT,
	  false,
	  { VERDICT_JSON },
	  "Jan  1 00:20:34.567: 1.1.1.1 (health) -> 2.2.2.2 (ID:12345) policy-verdict:none EGRESS "
	  "DENIED BY my-policy (CiliumNetworkPolicy) (TCP Flags: SYN)\n",
	  "" },
	{ "socket",
	  PRINT_COMPACT,
	  false,
	  { SOCK_JSON },
	  "Jan 13 13:47:20.932: default/mediabot (ID:5618) <> default/nginx-service:80 (world) "
	  "pre-xlate-fwd TRACED (TCP)\n",
	  "" },
	{ "lost",
	  PRINT_COMPACT,
	  false,
	  { LOST_JSON },
	  "Jan  1 00:00:00.000 EVENTS LOST: HUBBLE_RING_BUFFER CPU(0) 1 (first: Jan  1 "
	  "00:00:01.000, last: Jan  1 00:00:02.000)\n",
	  "" },
	{ "node status",
	  PRINT_COMPACT,
	  false,
	  { NODE_JSON },
	  "",
	  "Jan  1 00:20:34.567 [node]: 2 nodes are unavailable: a, b\n" },
	{ "node status without names",
	  PRINT_COMPACT,
	  false,
	  { NAMELESS_JSON, NO_NODES_JSON },
	  "",
	  "N/A: 2 nodes are unavailable: a, (no name)\n"
	  "Jan  1 00:20:34.567 [n]: Error \"x\" on 0 nodes\n" },
	{ "table",
	  PRINT_TABLE,
	  false,
	  { FLOW_JSON },
	  "TIMESTAMP             SOURCE          DESTINATION    TYPE            VERDICT   SUMMARY\n"
	  "Jan  1 00:20:34.567   1.1.1.1:31793   2.2.2.2:8080   Policy denied   DROPPED   TCP "
	  "Flags: "
	  "SYN\n",
	  "" },
	{ "table with node",
	  PRINT_TABLE,
	  true,
	  { FLOW_JSON },
	  "TIMESTAMP             NODE   SOURCE          DESTINATION    TYPE            VERDICT   "
	  "SUMMARY\n"
	  "Jan  1 00:20:34.567   k8s1   1.1.1.1:31793   2.2.2.2:8080   Policy denied   DROPPED   "
	  "TCP "
	  "Flags: SYN\n",
	  "" },
	{ "dict",
	  PRINT_DICT,
	  true,
	  { FLOW_JSON, REPLY_JSON },
	  "  TIMESTAMP: Jan  1 00:20:34.567\n"
	  "       NODE: k8s1\n"
	  "     SOURCE: 1.1.1.1:31793\n"
	  "DESTINATION: 2.2.2.2:8080\n"
	  "       TYPE: Policy denied\n"
	  "    VERDICT: DROPPED\n"
	  "    SUMMARY: TCP Flags: SYN\n"
	  "------------\n"
	  "  TIMESTAMP: Jan  1 00:20:34.567\n"
	  "       NODE: \n"
	  "     SOURCE: 1.1.1.1:53\n"
	  "DESTINATION: [fd00::2]:9\n"
	  "       TYPE: to-endpoint\n"
	  "    VERDICT: FORWARDED\n"
	  "    SUMMARY: UDP\n",
	  "" },
	{ "jsonpb",
	  PRINT_JSONPB,
	  false,
	  { FLOW_JSON, LOST_JSON },
	  FLOW_JSON "\n" LOST_JSON "\n",
	  "" },
};

static void one_shape(void **state)
{
	const struct shape *shape = *state;
	char *out = NULL, *err = NULL;
	size_t out_len, err_len;
	struct printer p;
	FILE *f = open_memstream(&out, &out_len), *g = open_memstream(&err, &err_len);

	printer_init(&p, f, g);
	p.output = shape->output;
	p.node_name = shape->node_name;
	p.policy_names = true;
	for (size_t i = 0; i < 2 && shape->json[i]; i++) {
		ProtobufCMessage *msg = NULL;
		struct wag_err why;

		if (json_in_message(&msg, &observer__get_flows_response__descriptor, shape->json[i],
				    strlen(shape->json[i]), true, &why) < 0)
			fail_msg("%s", why.msg);
		assert_int_equal(print_response(&p, (Observer__GetFlowsResponse *)msg), 0);
		protobuf_c_message_free_unpacked(msg, NULL);
	}
	assert_int_equal(printer_finish(&p), 0);
	printer_done(&p);
	fclose(f);
	fclose(g);
	assert_string_equal(out, shape->want);
	assert_string_equal(err, shape->want_err);
	free(out);
	free(err);
}

static void status_line(void **state)
{
	Observer__ServerStatusResponse status = OBSERVER__SERVER_STATUS_RESPONSE__INIT;
	Google__Protobuf__Int32Value two = GOOGLE__PROTOBUF__INT32_VALUE__INIT;
	char *out = NULL;
	size_t len;
	struct printer p;
	FILE *f = open_memstream(&out, &len);

	two.value = 2;
	status.num_flows = status.max_flows = 4095;
	status.flows_rate = 12.34;
	status.num_connected_nodes = &two;
	printer_init(&p, f, stderr);
	assert_int_equal(print_status(&p, &status), 0);
	fclose(f);
	assert_string_equal(out, "Current/Max Flows: 4095/4095 (100.00%)\nFlows/s: 12.34\n"
				 "Connected Nodes: 2/2\n");
	free(out);
}

static void terminal_is_safe(void **state)
{
	char *out = NULL;
	size_t len;
	FILE *f = open_memstream(&out, &len);

	print_safe(f, "a\033[31mb\n");
	json_out_string(f, "q\"\\\n\001<\xc3\xa4\xff");
	fclose(f);
	assert_string_equal(out, "a\\x1b[31mb\\x0a\"q\\\"\\\\\\n\\u0001\\u003c\xc3\xa4\\ufffd\"");
	free(out);
}

static void bad_json(void **state)
{
	static const char *const bad[] = {
		"",
		"{",
		"[]",
		"{\"flow\":1}",
		"{\"flow\":{}",
		"{\"flow\":{\"verdict\":\"NO\"}}",
		"{\"flow\":{},\"flow\":{}}",
		"{\"nope\":1}",
		"{} x",
		"{\"time\":\"yesterday\"}",
		"{\"time\":\"2026-02-31T00:00:00Z\"}",
		"{\"flow\":{\"uuid\":\"\\ud800\"}}",
		"{\"flow\":{\"drop_reason\":\"x\"}}",
		"{\"flow\":{\"node_labels\":[\"a\",]}}",
		"{\"node_name\":null,}",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ProtobufCMessage *msg = NULL;

		assert_int_equal(json_in_message(&msg, &observer__get_flows_response__descriptor,
						 bad[i], strlen(bad[i]), true, NULL),
				 -EINVAL);
		assert_null(msg);
	}
}

int main(void)
{
	struct CMUnitTest tests[sizeof(shapes) / sizeof(shapes[0])];
	const struct CMUnitTest more[] = {
		cmocka_unit_test(status_line),
		cmocka_unit_test(terminal_is_safe),
		cmocka_unit_test(bad_json),
	};

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		tests[i] = (struct CMUnitTest){ shapes[i].name, one_shape, NULL, NULL,
						(void *)&shapes[i] };
	return cmocka_run_group_tests_name("shapes", tests, NULL, NULL) +
	       cmocka_run_group_tests_name("more", more, NULL, NULL);
}
