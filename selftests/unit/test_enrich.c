// SPDX-License-Identifier: Apache-2.0
/* What an event of the datapath looks like as Hubble's flow. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <waggle/abi_policy.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "hubble-like/enrich.h"
#include "hubble-like/flow_build.h"
#include "hubble-like/json_out.h"

static int endpoint(void *ctx, const struct wag_addr *addr, struct flow_endpoint *ret)
{
	char text[WAG_ADDR_TEXT];

	wag_addr_format(addr, text);
	if (strcmp(text, "10.0.0.1") && strcmp(text, "10.0.0.9"))
		return -ENOENT;
	ret->identity = 1000;
	ret->id = 5;
	strcpy(ret->ns, "ns");
	strcpy(ret->pod, strcmp(text, "10.0.0.1") ? "backend" : "client");
	return 0;
}

static int endpoint_by_id(void *ctx, uint32_t id, struct flow_endpoint *ret)
{
	strcpy(ret->pod, "by-id");
	ret->id = id;
	return 0;
}

static int service_by_index(void *ctx, uint32_t index, uint32_t id, struct flow_service *ret)
{
	if (index != 3 || id != 4)
		return -ENOENT;
	strcpy(ret->ns, "ns");
	strcpy(ret->name, "web");
	return 0;
}

static int policy(void *ctx, uint32_t rule, struct flow_policy *ret)
{
	if (rule != 7)
		return -ENOENT;
	strcpy(ret->ns, "ns");
	strcpy(ret->name, "closed");
	return 0;
}

static const struct flow_resolver resolver = {
	.endpoint = endpoint,
	.endpoint_by_id = endpoint_by_id,
	.service_by_index = service_by_index,
	.policy = policy,
};

static struct wag_event packet(uint8_t type, uint8_t point)
{
	struct wag_event e = {
		.type = type, .point = point, .ct = WAG_EVENT_CT_NEW, .tcp_flags = 2
	};

	wag_addr_parse("10.0.0.1", &e.orig.saddr);
	wag_addr_parse("10.96.0.1", &e.orig.daddr);
	e.orig.sport = htons(1234);
	e.orig.dport = htons(80);
	e.orig.proto = IPPROTO_TCP;
	e.xlat = e.orig;
	wag_addr_parse("10.0.0.9", &e.xlat.daddr);
	e.xlat.dport = htons(8080);
	e.svc_index = 3;
	e.svc_id = 4;
	return e;
}

/* The JSON of record i without what differs from run to run. */
static char *json(const struct wag_event *e, int want_n, int i)
{
	struct flow_record rec[ENRICH_RECORDS];
	_cleanup_(flow_names_freep) struct flow_names *names = NULL;
	struct enricher enricher;
	struct flow_msg msg;
	char *text = NULL;
	size_t len;
	FILE *f;
	int n;

	assert_int_equal(flow_names_new(&names), 0);
	enrich_init(&enricher, names, &resolver);
	n = enrich_event(&enricher, e, rec);
	assert_int_equal(n, want_n);
	flow_build(&msg, &rec[i], "n1", 1, 2);
	msg.flow.time = NULL;
	msg.flow.emitter = NULL;
	assert_int_equal(strlen(msg.flow.uuid), 36);
	msg.flow.uuid = (char *)"";
	assert_true(flow__flow__get_packed_size(&msg.flow) > 0);
	f = open_memstream(&text, &len);
	json_out_message(f, &msg.flow.base);
	fclose(f);
	for (int j = 0; j < n; j++)
		flow_record_done(&rec[j]);
	assert_int_equal(flow_names_count(names), 0);
	return text;
}

#define ENDS(dst, sport, dport)                                                                    \
	"\"IP\":{\"source\":\"10.0.0.1\",\"destination\":\"" dst "\",\"ipVersion\":\"IPv4\"},"     \
	"\"l4\":{\"TCP\":{\"source_port\":" sport ",\"destination_port\":" dport                   \
	",\"flags\":{\"SYN\":true}}},\"source\":{\"ID\":5,\"identity\":1000,\"namespace\":\"ns\"," \
	"\"pod_name\":\"client\"},"
#define WORLD "\"destination\":{\"identity\":2},"
#define BACKEND                                                                                    \
	"\"destination\":{\"ID\":5,\"identity\":1000,\"namespace\":\"ns\",\"pod_name\":"           \
	"\"backend\"},"
#define WEB "\"destination_service\":{\"name\":\"web\",\"namespace\":\"ns\"},"

static void drop(void **state)
{
	struct wag_event e = packet(WAG_EVENT_DROP, WAG_POINT_FROM_POD);
	_cleanup_free_ char *text = NULL;

	e.reason = WAG_DROP_NO_BACKEND;
	e.ct = WAG_EVENT_CT_NONE;
	e.line = 99;
	text = json(&e, 1, 0);
	assert_string_equal(
		text, "{\"verdict\":\"DROPPED\",\"drop_reason\":158," ENDS("10.96.0.1", "1234",
									   "80") WORLD
		"\"Type\":\"L3_L4\",\"node_name\":\"n1\",\"event_type\":{\"type\":1,"
		"\"sub_type\":158}," WEB "\"traffic_direction\":\"EGRESS\",\"file\":{"
		"\"name\":\"stage_service.h\",\"line\":99},\"drop_reason_desc\":"
		"\"SERVICE_BACKEND_NOT_FOUND\",\"is_reply\":false,\"Summary\":\"TCP Flags: "
		"SYN\"}");
}

static void translated_packet(void **state)
{
	struct wag_event e = packet(WAG_EVENT_TRACE, WAG_POINT_FROM_POD);
	_cleanup_free_ char *pre = NULL, *post = NULL;

	e.flags = WAG_EVENT_F_XLAT;
	e.next = WAG_NEXT_POD;
	pre = json(&e, 2, 0);
	post = json(&e, 2, 1);
	assert_string_equal(
		pre, "{\"verdict\":\"FORWARDED\"," ENDS("10.96.0.1", "1234", "80") WORLD
		"\"Type\":\"L3_L4\",\"node_name\":\"n1\",\"event_type\":{\"type\":4,"
		"\"sub_type\":5}," WEB "\"traffic_direction\":\"EGRESS\","
		"\"trace_observation_point\":\"FROM_ENDPOINT\",\"trace_reason\":\"NEW\","
		"\"is_reply\":false,\"Summary\":\"TCP Flags: SYN\"}");
	assert_string_equal(
		post, "{\"verdict\":\"FORWARDED\"," ENDS("10.0.0.9", "1234", "8080") BACKEND
		"\"Type\":\"L3_L4\",\"node_name\":\"n1\",\"event_type\":{\"type\":4},"
		"\"traffic_direction\":\"EGRESS\",\"trace_observation_point\":"
		"\"TO_ENDPOINT\",\"trace_reason\":\"NEW\",\"is_reply\":false,\"Summary\":"
		"\"TCP Flags: SYN\"}");
}

static void source_translated(void **state)
{
	struct wag_event e = packet(WAG_EVENT_TRACE, WAG_POINT_FROM_NET);
	_cleanup_free_ char *post = NULL;

	e.flags = WAG_EVENT_F_XLAT;
	e.next = WAG_NEXT_NET;
	wag_addr_parse("192.0.2.7", &e.xlat.saddr);
	post = json(&e, 2, 1);
	assert_non_null(strstr(post, "\"source_xlated\":\"192.0.2.7\""));
	assert_non_null(strstr(post, "\"source\":\"10.0.0.1\""));
	assert_non_null(strstr(post, "\"trace_observation_point\":\"TO_NETWORK\""));
}

static void reply(void **state)
{
	struct wag_event e = packet(WAG_EVENT_TRACE, WAG_POINT_FROM_POD);
	_cleanup_free_ char *text = NULL;

	e.flags = WAG_EVENT_F_XLAT | WAG_EVENT_F_REPLY | WAG_EVENT_F_FIRST_REPLY;
	e.ct = WAG_EVENT_CT_REPLY;
	text = json(&e, 1, 0);
	assert_non_null(strstr(text, "\"source_service\":{\"name\":\"web\""));
	assert_non_null(strstr(text, "\"reply\":true"));
	assert_non_null(strstr(text, "\"is_reply\":true"));
	assert_non_null(strstr(text, "\"trace_reason\":\"REPLY\""));
	assert_non_null(strstr(text, "\"traffic_direction\":\"INGRESS\""));
	assert_null(strstr(text, "destination_service"));
}

static void socket_translation(void **state)
{
	struct wag_event e = packet(WAG_EVENT_SOCK, WAG_POINT_CONNECT);
	_cleanup_free_ char *pre = NULL, *post = NULL;

	memset(&e.orig.saddr, 0, sizeof(e.orig.saddr));
	e.flags = WAG_EVENT_F_XLAT;
	e.cookie = 77;
	e.cgroup_id = 88;
	e.ep_id = 6;
	pre = json(&e, 2, 0);
	post = json(&e, 2, 1);
	assert_non_null(strstr(pre, "\"verdict\":\"TRACED\""));
	assert_non_null(strstr(pre, "\"event_type\":{\"type\":7,\"sub_type\":1}"));
	assert_non_null(strstr(pre, "SOCK_XLATE_POINT_PRE_DIRECTION_FWD"));
	assert_non_null(strstr(pre, "\"source\":{\"ID\":6,\"pod_name\":\"by-id\"}"));
	assert_non_null(strstr(pre, "\"socket_cookie\":\"77\",\"cgroup_id\":\"88\""));
	assert_null(strstr(pre, "is_reply"));
	assert_non_null(strstr(post, "\"verdict\":\"TRANSLATED\""));
	assert_non_null(strstr(post, "\"destination\":\"10.0.0.9\""));
	assert_non_null(strstr(post, "\"Summary\":\"TCP\""));
}

static void every_reason_has_words(void **state)
{
	for (int i = 1; i < WAG_REASON_COUNT; i++) {
		struct wag_event e = packet(WAG_EVENT_DROP, WAG_POINT_TO_NET);
		_cleanup_free_ char *text = NULL;
		char want[32];

		e.reason = i;
		text = json(&e, 1, 0);
		snprintf(want, sizeof(want), "\"drop_reason\":%u", wag_reason_hubble(i));
		assert_non_null(strstr(text, want));
	}
}

static void summaries(void **state)
{
	static const struct {
		uint8_t proto, flags, type, code;
		const char *want;
	} rows[] = {
		{ IPPROTO_TCP, 0x12, 0, 0, "TCP Flags: SYN, ACK" },
		{ IPPROTO_TCP, 0x11, 0, 0, "TCP Flags: ACK, FIN" },
		{ IPPROTO_TCP, 0x18, 0, 0, "TCP Flags: ACK, PSH" },
		{ IPPROTO_UDP, 0, 0, 0, "UDP" },
		{ IPPROTO_SCTP, 0, 0, 0, "SCTP" },
		{ IPPROTO_ICMP, 0, 8, 0, "ICMPv4 EchoRequest" },
		{ IPPROTO_ICMP, 0, 3, 3, "ICMPv4 DestinationUnreachable(Port)" },
		{ IPPROTO_ICMPV6, 0, 129, 0, "ICMPv6 EchoReply" },
		{ 47, 0, 0, 0, "IPv4" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct wag_event e = packet(WAG_EVENT_TRACE, WAG_POINT_TO_POD);
		_cleanup_free_ char *text = NULL;
		char want[96];

		e.orig.proto = rows[i].proto;
		e.tcp_flags = rows[i].flags;
		e.icmp_type = rows[i].type;
		e.icmp_code = rows[i].code;
		text = json(&e, 1, 0);
		snprintf(want, sizeof(want), "\"Summary\":\"%s\"", rows[i].want);
		if (!strstr(text, want))
			fail_msg("%s lacks %s", text, want);
	}
}

static void nonsense(void **state)
{
	_cleanup_(flow_names_freep) struct flow_names *names = NULL;
	struct wag_event e = packet(0, 0);
	struct flow_record rec[ENRICH_RECORDS];
	struct enricher enricher;

	assert_int_equal(flow_names_new(&names), 0);
	enrich_init(&enricher, names, &(struct flow_resolver){ 0 });
	assert_int_equal(enrich_event(&enricher, &e, rec), -EINVAL);
	e = packet(9, 1);
	assert_int_equal(enrich_event(&enricher, &e, rec), -EINVAL);
	e = packet(WAG_EVENT_DROP, 200);
	assert_int_equal(enrich_event(&enricher, &e, rec), -EINVAL);
}

/* A flow that no rule of an isolating policy allows is told twice: verdict, and drop. */
static void policy_denied(void **state)
{
	struct wag_event e = packet(WAG_EVENT_DROP, WAG_POINT_FROM_POD);
	_cleanup_free_ char *verdict = NULL, *dropped = NULL;

	e.reason = WAG_DROP_POLICY_DENIED;
	e.ct = WAG_EVENT_CT_NONE;
	e.policy[0] = WAG_VERDICT(WAG_VERDICT_ISOLATED, 7);
	verdict = json(&e, 2, 0);
	assert_non_null(strstr(verdict, "\"verdict\":\"DROPPED\""));
	assert_non_null(strstr(verdict, "\"event_type\":{\"type\":5}"));
	assert_non_null(strstr(verdict, "\"traffic_direction\":\"INGRESS\""));
	assert_non_null(strstr(verdict, "\"ingress_denied_by\":[{\"name\":\"closed\","
					"\"namespace\":\"ns\",\"kind\":\"NetworkPolicy\"}]"));
	dropped = json(&e, 2, 1);
	assert_non_null(strstr(dropped, "\"drop_reason_desc\":\"POLICY_DENIED\""));
	assert_non_null(strstr(dropped, "\"ingress_denied_by\":[{\"name\":\"closed\""));
}

static void policy_allowed_and_audited(void **state)
{
	struct wag_event e = packet(WAG_EVENT_TRACE, WAG_POINT_FROM_POD);
	_cleanup_free_ char *out = NULL, *in = NULL;

	e.policy[1] = WAG_VERDICT(WAG_VERDICT_ALLOW, 7);
	e.policy[0] = WAG_VERDICT(WAG_VERDICT_DENY, 7);
	e.flags |= WAG_EVENT_F_AUDIT;
	out = json(&e, 3, 0);
	assert_non_null(strstr(out, "\"verdict\":\"FORWARDED\""));
	assert_non_null(strstr(out, "\"egress_allowed_by\":[{\"name\":\"closed\""));
	in = json(&e, 3, 1);
	assert_non_null(strstr(in, "\"verdict\":\"AUDIT\""));
	assert_non_null(strstr(in, "\"ingress_denied_by\":[{\"name\":\"closed\""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(policy_denied),
		cmocka_unit_test(policy_allowed_and_audited),
		cmocka_unit_test(drop),
		cmocka_unit_test(translated_packet),
		cmocka_unit_test(source_translated),
		cmocka_unit_test(reply),
		cmocka_unit_test(socket_translation),
		cmocka_unit_test(every_reason_has_words),
		cmocka_unit_test(summaries),
		cmocka_unit_test(nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
