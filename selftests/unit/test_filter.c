// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <waggle/cleanup.h>
#include "hubble-like/field_mask.h"
#include "hubble-like/filter.h"
#include "hubble-like/json_in.h"
#include "hubble-like/observe_args.h"

static const char flow_json[] =
	"{\"uuid\":\"u1\",\"verdict\":\"DROPPED\",\"IP\":{\"source\":\"10.0.0.1\",\"destination\":"
	"\"10.96.0.9\",\"ipVersion\":\"IPv4\"},\"l4\":{\"TCP\":{\"source_port\":40000,"
	"\"destination_port\":80,\"flags\":{\"SYN\":true,\"ACK\":true}}},\"source\":{\"identity\":"
	"5618,\"namespace\":\"default\",\"pod_name\":\"client-1\",\"labels\":[\"k8s:app=client\"]},"
	"\"destination\":{\"identity\":2},\"node_name\":\"node-a\",\"event_type\":{\"type\":1,"
	"\"sub_type\":158},\"destination_service\":{\"name\":\"web\",\"namespace\":\"shop\"},"
	"\"traffic_direction\":\"EGRESS\",\"drop_reason_desc\":\"SERVICE_BACKEND_NOT_FOUND\","
	"\"is_reply\":false,\"interface\":{\"name\":\"eth0\"}}";

static ProtobufCMessage *parse(const ProtobufCMessageDescriptor *desc, const char *text)
{
	ProtobufCMessage *msg = NULL;
	struct wag_err err;

	if (json_in_message(&msg, desc, text, strlen(text), true, &err) < 0)
		fail_msg("%s: %s", text, err.msg);
	return msg;
}

static const struct {
	const char *filter;
	bool match;
} cases[] = {
	{ "{}", true },
	{ "{\"source_ip\":[\"10.0.0.1\"]}", true },
	{ "{\"source_ip\":[\"10.0.0.2\",\"10.0.0.0/24\"]}", true },
	{ "{\"source_ip\":[\"10.0.1.0/24\"]}", false },
	{ "{\"destination_ip\":[\"::/0\"]}", false },
	{ "{\"source_pod\":[\"client\"]}", true },
	{ "{\"source_pod\":[\"default/client-1\"]}", true },
	{ "{\"source_pod\":[\"default/\"]}", true },
	{ "{\"source_pod\":[\"/\"]}", true },
	{ "{\"destination_pod\":[\"/\"]}", false },
	{ "{\"source_pod\":[\"other/client\"]}", false },
	{ "{\"destination_service\":[\"shop/web\"]}", true },
	{ "{\"destination_service\":[\"web\"]}", false },
	{ "{\"verdict\":[\"FORWARDED\",\"DROPPED\"]}", true },
	{ "{\"verdict\":[\"FORWARDED\"]}", false },
	{ "{\"drop_reason_desc\":[\"SERVICE_BACKEND_NOT_FOUND\"]}", true },
	{ "{\"drop_reason_desc\":[\"POLICY_DENIED\"]}", false },
	{ "{\"event_type\":[{\"type\":1}]}", true },
	{ "{\"event_type\":[{\"type\":1,\"match_sub_type\":true,\"sub_type\":133}]}", false },
	{ "{\"protocol\":[\"udp\",\"TCP\"]}", true },
	{ "{\"protocol\":[\"icmp\"]}", false },
	{ "{\"destination_port\":[\"80\"],\"source_port\":[\"40000\"]}", true },
	{ "{\"destination_port\":[\"80\"],\"source_port\":[\"1\"]}", false },
	{ "{\"reply\":[false]}", true },
	{ "{\"reply\":[true]}", false },
	{ "{\"ip_version\":[\"IPv6\"]}", false },
	{ "{\"traffic_direction\":[\"EGRESS\"]}", true },
	{ "{\"tcp_flags\":[{\"SYN\":true}]}", true },
	{ "{\"tcp_flags\":[{\"SYN\":true,\"FIN\":true}]}", false },
	{ "{\"node_name\":[\"node-*\"]}", true },
	{ "{\"node_name\":[\"default/node-a\"]}", true },
	{ "{\"node_name\":[\"x*\"]}", false },
	{ "{\"uuid\":[\"u1\"]}", true },
	{ "{\"uuid\":[\"u2\"]}", false },
	{ "{\"source_identity\":[1,5618]}", true },
	{ "{\"destination_identity\":[1]}", false },
	{ "{\"source_label\":[\"app=client\"]}", true },
	{ "{\"source_label\":[\"k8s:app\"]}", true },
	{ "{\"source_label\":[\"app!=client\"]}", false },
	{ "{\"source_label\":[\"app=client,!tier\"]}", true },
	{ "{\"destination_label\":[\"reserved:world\"]}", true },
	{ "{\"interface\":[{\"name\":\"eth0\"}]}", true },
	{ "{\"interface\":[{\"index\":3}]}", false },
};

static void matches(void **state)
{
	Flow__Flow *flow = (Flow__Flow *)parse(&flow__flow__descriptor, flow_json);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		_cleanup_(filter_list_freep) struct filter_list *list = NULL;
		Flow__FlowFilter *f =
			(Flow__FlowFilter *)parse(&flow__flow_filter__descriptor, cases[i].filter);
		struct wag_err err = { 0 };

		if (filter_list_new(&list, &f, 1, &err) < 0)
			fail_msg("%s: %s", cases[i].filter, err.msg);
		if (filter_list_match(list, flow) != cases[i].match)
			fail_msg("%s", cases[i].filter);
		assert_int_equal(filter_pass(list, NULL, flow), cases[i].match);
		assert_int_equal(filter_pass(NULL, list, flow), !cases[i].match);
		flow__flow_filter__free_unpacked(f, NULL);
	}
	flow__flow__free_unpacked(flow, NULL);
}

static void refuses(void **state)
{
	static const struct {
		const char *filter, *names;
	} bad[] = {
		{ "{\"source_ip\":[\"10.0.0.300\"]}", "source_ip" },
		{ "{\"destination_ip\":[\"10.0.0.0/33\"]}", "destination_ip" },
		{ "{\"source_port\":[\"http\"]}", "source_port" },
		{ "{\"destination_port\":[\"65536\"]}", "destination_port" },
		{ "{\"protocol\":[\"nope\"]}", "protocol" },
		{ "{\"source_fqdn\":[\"a\"]}", "source_fqdn" },
		{ "{\"http_path\":[\"a\"]}", "http_path" },
		{ "{\"source_label\":[\"a in (b)\"]}", "source_label" },
		{ "{\"experimental\":{\"cel_expression\":[\"true\"]}}", "experimental" },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		Flow__FlowFilter *f =
			(Flow__FlowFilter *)parse(&flow__flow_filter__descriptor, bad[i].filter);
		struct filter_list *list = NULL;
		struct wag_err err = { 0 };

		assert_int_equal(filter_list_new(&list, &f, 1, &err), -EINVAL);
		assert_non_null(strstr(err.msg, bad[i].names));
		assert_null(list);
		flow__flow_filter__free_unpacked(f, NULL);
	}
}

static void masks(void **state)
{
	Flow__Flow *flow = (Flow__Flow *)parse(&flow__flow__descriptor, flow_json);
	char *paths[] = { "verdict", "source.pod_name", "IP" }, *bad[] = { "source.nope" };
	Flow__Endpoint source = *flow->source;
	Flow__Flow copy = *flow;
	struct field_mask mask;
	struct wag_err err;

	copy.source = &source;
	assert_int_equal(field_mask_init(&mask, bad, 1, &err), -EINVAL);
	assert_int_equal(field_mask_init(&mask, paths, 3, &err), 0);
	field_mask_apply(&mask, &copy);
	assert_int_equal(copy.verdict, FLOW__VERDICT__DROPPED);
	assert_string_equal(copy.ip->source, "10.0.0.1");
	assert_string_equal(copy.source->pod_name, "client-1");
	assert_string_equal(copy.source->namespace_, "");
	assert_int_equal(copy.source->n_labels, 0);
	assert_null(copy.l4);
	assert_null(copy.is_reply);
	assert_string_equal(copy.uuid, "");
	flow__flow__free_unpacked(flow, NULL);
}

static const struct {
	const char *args[8];
	size_t allow, deny;
	const char *error; /* NULL: fine */
} lines[] = {
	{ { NULL }, 0, 0, NULL },
	{ { "--pod", "a/b" }, 2, 0, NULL },
	{ { "--pod", "a/b", "--port", "80" }, 4, 0, NULL },
	{ { "--from-pod", "a/b", "--verdict", "dropped" }, 1, 0, NULL },
	{ { "--not", "--ip", "10.0.0.1", "-4" }, 1, 2, NULL },
	{ { "-n", "shop", "--pod", "web" }, 2, 0, NULL },
	{ { "-t", "trace:to-endpoint", "-t", "drop" }, 1, 0, NULL },
	{ { "--not", "--not", "-4" }, 0, 0, "consecutive --not statements" },
	{ { "--verdict", "DROPPED", "--not" }, 0, 0, "trailing --not found in the arguments" },
	{ { "--ip", "10.0.0.1", "--from-ip", "10.0.0.2" },
	  0,
	  0,
	  "filters --ip and --from-ip cannot be combined" },
	{ { "--first", "1", "--last", "2" }, 0, 0, "cannot be combined" },
	{ { "--first", "1", "-f" }, 0, 0, "--follow" },
	{ { "-f", "-o", "table" }, 0, 0, "--follow" },
	{ { "--verdict", "NOPE" }, 0, 0, "--verdict" },
	{ { "--nope" }, 0, 0, "--nope" },
	{ { "--since", "soon" }, 0, 0, "--since" },
	{ { "frobnicate" }, 0, 0, "frobnicate" },
	{ { "list" }, 0, 0, "list nodes" },
	{ { "observe", "agent-events" }, 0, 0, "argument \"agent-events\"" },
	{ { "--verdct", "DROPPED" }, 0, 0, "did you mean --verdict?" },
	{ { "--nod-name=x" }, 0, 0, "did you mean --node-name?" },
	{ { "-xf" }, 0, 0, "unknown flag -x" },
	{ { "--http-status", "200" }, 0, 0, "flag --http-status is Hubble's" },
	{ { "--to-fqdn=x" }, 0, 0, "flag --to-fqdn is Hubble's" },
	{ { "--numeric=maybe" }, 0, 0, "--numeric: \"maybe\"" },
	{ { "--reply=maybe" }, 0, 0, "--reply: \"maybe\"" },
	{ { "--not=maybe", "-4" }, 0, 0, "--not: \"maybe\"" },
	{ { "--not=F", "-4", "--reply=T" }, 1, 0, NULL },
	{ { "-A", "--all-namespaces=false" }, 2, 0, NULL },
	{ { "--last", "99999999999999999999" }, 0, 0, "--last" },
	{ { "--identity", "4294967299" }, 0, 0, "--identity" },
	{ { "--identity", "-1" }, 0, 0, "--identity" },
	{ { "--to-identity", "remote-node", "--from-identity", "4294967295" }, 1, 0, NULL },
	{ { "--type", "4294967300" }, 0, 0, "--type" },
	{ { "--type", "-1" }, 0, 0, "--type" },
	{ { "--type", "drop:-3" }, 0, 0, "--type" },
	{ { "--type", "1:4294967429" }, 0, 0, "--type" },
	{ { "--type", "1:133", "--type", "trace:0" }, 1, 0, NULL },
	{ { "--tcp-flags", "" }, 0, 0, "--tcp-flags" },
	{ { "--tcp-flags", "syn,ack" }, 1, 0, NULL },
	{ { "--since", "nans" }, 0, 0, "--since" },
	{ { "--since", "2026-02-31T00:00:00Z" }, 0, 0, "--since: \"2026-02-31T00:00:00Z\" is " },
	{ { "--until", "2026-02-31" }, 0, 0, "--until: \"2026-02-31\" is neither" },
	{ { "--timeout", "0x5s" }, 0, 0, "--timeout" },
};

static void command_lines(void **state)
{
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		Observer__GetFlowsRequest *request = NULL;
		char *argv[10] = { "flow-observe" };
		struct observe_args args;
		struct wag_err err = { 0 };
		int argc = 1, r;

		while (lines[i].args[argc - 1]) {
			argv[argc] = (char *)lines[i].args[argc - 1];
			argc++;
		}
		r = observe_args_parse(&args, argc, argv, &err);
		if (r == 0)
			r = observe_request(&args, &request, &err);
		if (lines[i].error) {
			if (r == 0)
				fail_msg("%s is taken", lines[i].args[0]);
			if (!strstr(err.msg, lines[i].error))
				fail_msg("\"%s\" lacks \"%s\"", err.msg, lines[i].error);
		} else {
			if (r < 0)
				fail_msg("%s", err.msg);
			assert_int_equal(request->n_whitelist, lines[i].allow);
			assert_int_equal(request->n_blacklist, lines[i].deny);
			observer__get_flows_request__free_unpacked(request, NULL);
		}
		observe_args_done(&args);
	}
}

#define NOW (1700000000ULL * 1000000000)

static void times(void **state)
{
	static const struct {
		const char *text;
		uint64_t ns; /* 0: refused */
	} moments[] = {
		{ "now", NOW },
		{ "5m", NOW - 300000000000ULL },
		{ "1h43m", NOW - 6180000000000ULL },
		{ "1.5s", NOW - 1500000000ULL },
		{ ".5s", NOW - 500000000ULL },
		{ "3us", NOW - 3000 },
		{ "3\u00b5s", NOW - 3000 },
		{ "1s3\u03bcs", NOW - 1000003000ULL },
		{ "1970-01-01T00:20:34.5Z", 1234500000000ULL },
		{ "1970-01-01T02:00:01+02:00", 1000000000ULL },
		{ "1970-01-02", 86400000000000ULL },
		{ "1970-01-02T01Z", 90000000000000ULL },
		{ "1970-01-02T03+02:00", 90000000000000ULL },
		{ "1970-01-02T01:01Z", 90060000000000ULL },
		{ "Fri, 02 Jan 1970 03:00:00 +0200", 90000000000000ULL },
		{ "1972-02-29", 68169600000000000ULL },
		{ "1972-02-29T12:00:00-01:30", 68218200000000000ULL },
		{ "2026-02-31", 0 },
		{ "2026-02-29", 0 },
		{ "2026-13-01", 0 },
		{ "2026-00-01", 0 },
		{ "2026-01-00", 0 },
		{ "2026-02-31T00:00:00Z", 0 },
		{ "2026-02-31T00Z", 0 },
		{ "2026-04-31T00:00Z", 0 },
		{ "Tue, 31 Feb 2026 00:00:00 +0000", 0 },
		{ "2026-02-03T24:00:00Z", 0 },
		{ "2026-02-03T25:00Z", 0 },
		{ "2026-02-03T23:60:00Z", 0 },
		{ "2026-02-03T23:59:60Z", 0 },
		{ "2026-02-03T00:00:00+24:00", 0 },
		{ "2026-02-03T00:00:00+01:60", 0 },
		{ "2026-02-03T00:00:00+-1:00", 0 },
		{ "3\u00b5", 0 },
		{ "5", 0 },
		{ "", 0 },
		{ "nans", 0 },
		{ "0x10s", 0 },
		{ "1e3s", 0 },
		{ ".s", 0 },
		{ "1h 3m", 0 },
		{ "-5m", 0 },
		{ "1970-01-01T00:00:00", 0 },
		{ "1960-01-01", 0 },
		{ "2600-01-01", 0 },
		{ "9999-12-31T00:00:00Z", 0 },
	};

	for (size_t i = 0; i < sizeof(moments) / sizeof(moments[0]); i++) {
		uint64_t ns = 0;
		int r = observe_time_parse(moments[i].text, NOW, &ns);

		if (r != (moments[i].ns ? 0 : -EINVAL) || ns != moments[i].ns)
			fail_msg("\"%s\": %d, %llu", moments[i].text, r, (unsigned long long)ns);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(matches), cmocka_unit_test(refuses),	    cmocka_unit_test(masks),
		cmocka_unit_test(times),   cmocka_unit_test(command_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
