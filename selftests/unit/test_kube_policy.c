// SPDX-License-Identifier: Apache-2.0
/* Which policies are refused: those that an API server would not take, told as it tells them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <waggle/cleanup.h>

#include "agent/kube_parse.h"
#include "agent/object.h"

static struct object *read_from(bool manifests, enum model_kind kind, const char *spec)
{
	const struct kube_sink sink = { .default_ns = "default", .manifests = manifests };
	struct kube_ident ident;
	struct object *obj = NULL;
	struct wag_err err;
	char text[2048];
	json_t *tree;

	snprintf(text, sizeof(text), "{\"metadata\":{\"name\":\"p\"},\"spec\":{%s}}", spec);
	tree = json_loads(text, 0, NULL);
	assert_non_null(tree);
	assert_int_equal(kube_parse_object(kind, tree, &sink, &obj, &ident, &err), 0);
	json_decref(tree);
	return obj;
}

static struct object *read_policy(enum model_kind kind, const char *spec)
{
	return read_from(true, kind, spec);
}

/* why NULL: it is taken. */
static void expect(enum model_kind kind, const char *spec, const char *why)
{
	_cleanup_(object_freep) struct object *obj = read_policy(kind, spec);
	const char *got = obj->policy->unreadable;

	if (why ? !got || !strstr(got, why) : !!got)
		fail_msg("%s: \"%s\", not \"%s\"", spec, got ? got : "taken", why ? why : "taken");
}

#define FROM(peer) "\"ingress\":[{\"from\":[" peer "]}]"
#define BLOCK(cidr, except) FROM("{\"ipBlock\":{\"cidr\":\"" cidr "\",\"except\":[" except "]}}")
#define PORT(port) "\"ingress\":[{\"ports\":[{\"port\":" port "}]}]"

static void test_network_policies(void **state)
{
	static const struct {
		const char *spec, *why;
	} cases[] = {
		{ BLOCK("10.0.0.0/8", ""), NULL },
		{ BLOCK("10.0.0.0/8", "\"10.1.0.0/16\",\"10.255.255.255/32\""), NULL },
		{ BLOCK("0.0.0.0/0", "\"10.0.0.0/8\""), NULL },
		{ BLOCK("::/0", "\"fd00::/8\""), NULL },
		{ BLOCK("10.0.0.0/8", "\"11.0.0.0/16\""),
		  "spec.ingress[0].from[0].ipBlock.except[0]: 11.0.0.0/16 is no part of the cidr "
		  "10.0.0.0/8: remove it" },
		{ BLOCK("10.0.0.0/8", "\"10.1.0.0/16\",\"10.0.0.0/8\""),
		  "except[1]: 10.0.0.0/8 is no part of" },
		{ BLOCK("10.9.0.0/16", "\"10.0.0.0/8\""), "except[0]: 10.0.0.0/8 is no part of" },
		{ BLOCK("0.0.0.0/0", "\"fd00::/8\""), "except[0]: fd00::/8 is no part of" },
		{ BLOCK("::/0", "\"10.0.0.0/8\""), "except[0]: 10.0.0.0/8 is no part of" },
		{ BLOCK("10.0.0.1", ""), "ipBlock.cidr: is no CIDR" },
		{ BLOCK("10.0.0.0/8", "\"10.0.0.1\""), "except[0]: is no CIDR" },
		{ FROM("{\"ipBlock\":{\"cidr\":\"::/0\",\"except\":{}}}"),
		  "ipBlock.except: must be a list" },
		{ PORT("80"), NULL },
		{ PORT("\"http\""), NULL },
		{ PORT("\"p-8080\""), NULL },
		{ PORT("null"), NULL },
		{ PORT("\"80\""),
		  "spec.ingress[0].ports[0].port: \"80\" is no name of a port: a number stands "
		  "without quotes" },
		{ PORT("\"\""), "port: \"\" is no name of a port" },
		{ PORT("\"HTTP\""), "port: \"HTTP\" is no name of a port" },
		{ PORT("\"-a\""), "port: \"-a\" is no name of a port" },
		{ PORT("\"a--b\""), "port: \"a--b\" is no name of a port" },
		{ PORT("\"longer-than-fifteen\""), "is no name of a port" },
		{ "\"ingress\":[{\"ports\":[{\"endPort\":90}]}]", "endPort: stands without port" },
		{ "\"egress\":{\"to\":[]}", "spec.egress: must be a list" },
		{ "\"policyTypes\":[\"Egress\"],\"ingress\":7", "spec.ingress: must be a list" },
		{ "\"egress\":null,\"ingress\":null,\"policyTypes\":null", NULL },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect(MODEL_POLICY, cases[i].spec, cases[i].why);
}

#define DENY(peers) ",\"ingress\":[{\"action\":\"Deny\"" peers "}]"
#define PROTOCOL(protocol) ",\"from\":[{\"namespaces\":{}}],\"protocols\":[{" protocol "}]"
#define HEAD "\"tier\":\"Admin\",\"priority\":1,\"subject\":{\"namespaces\":{}}"

static void test_cluster_network_policies(void **state)
{
	static const struct {
		const char *spec, *why;
	} cases[] = {
		{ HEAD, NULL },
		{ HEAD DENY(",\"from\":[{\"namespaces\":{}}]"), NULL },
		{ HEAD DENY(""),
		  "spec.ingress[0].from: must name a peer; {\"namespaces\": {}} is every pod" },
		{ HEAD DENY(",\"from\":[]"),
		  "spec.ingress[0].from: must name a peer" },
		{ HEAD ",\"egress\":[{\"action\":\"Deny\",\"to\":null}]",
		  "spec.egress[0].to: must name a peer" },
		{ HEAD ",\"egress\":[{\"action\":\"Deny\",\"to\":[{\"networks\":[]}]}]",
		  "spec.egress[0].to[0].networks: must not be empty" },
		{ HEAD DENY(",\"from\":[{\"namespaces\":{},\"pods\":{}}]"),
		  "spec.ingress[0].from[0].pods: stands beside namespaces, one is allowed" },
		{ HEAD DENY(",\"from\":[{\"pods\":{},\"networks\":[\"10.0.0.0/8\"]}]"),
		  "from[0].networks: stands beside pods" },
		{ HEAD DENY(PROTOCOL("\"tcp\":{},\"udp\":null")), NULL },
		{ HEAD DENY(",\"from\":[{\"namespaces\":{}}],\"protocols\":null"), NULL },
		{ HEAD DENY(",\"from\":[{\"namespaces\":{}}],\"protocols\":[]"),
		  "spec.ingress[0].protocols: must not be empty" },
		{ HEAD DENY(PROTOCOL("\"tcp\":{},\"udp\":{}")),
		  "protocols[0].udp: stands beside tcp" },
		{ HEAD DENY(PROTOCOL("\"destinationNamedPort\":\"web\",\"udp\":{}")),
		  "protocols[0].udp: stands beside destinationNamedPort" },
		{ HEAD DENY(PROTOCOL("\"tcp\":{\"destinationPort\":{\"number\":80,\"range\":"
				     "{\"start\":1,\"end\":9}}}")),
		  "protocols[0].tcp.destinationPort.range: stands beside number" },
		{ HEAD DENY(PROTOCOL("\"tcp\":{\"destinationPort\":{\"range\":"
				     "{\"start\":9,\"end\":1}}}")),
		  "protocols[0].tcp.destinationPort.range.end: is less than start" },
		{ "\"tier\":\"Admin\",\"priority\":1,\"subject\":{\"namespaces\":{},\"pods\":{}}",
		  "spec.subject.pods: stands beside namespaces" },
		{ "\"tier\":\"Admin\",\"subject\":{\"namespaces\":{}}",
		  "spec.priority: is missing" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect(MODEL_CLUSTER_POLICY, cases[i].spec, cases[i].why);
}

/* In a manifest; an API server has dropped them, or knows more than this version. */
static void test_unknown_fields(void **state)
{
	static const struct {
		enum model_kind kind;
		const char *spec, *why;
	} cases[] = {
		{ MODEL_POLICY, "\"ingress\":[{\"fron\":[{\"podSelector\":{}}]}]",
		  "spec.ingress[0].fron: no such field; did you mean from?" },
		{ MODEL_POLICY, "\"ingress\":[{\"to\":[]}]",
		  "spec.ingress[0].to: no such field" },
		{ MODEL_POLICY, "\"egress\":[{\"to\":[],\"port\":80}]",
		  "spec.egress[0].port: no such field; did you mean ports?" },
		{ MODEL_POLICY, "\"podSelectr\":{}", "spec.podSelectr: no such field" },
		{ MODEL_POLICY, FROM("{\"podSelector\":{},\"namespace\":\"x\"}"),
		  "spec.ingress[0].from[0].namespace: no such field" },
		{ MODEL_POLICY, FROM("{\"podSelector\":{\"app\":\"web\"}}"),
		  "spec.ingress[0].from[0].podSelector.app: no such field" },
		{ MODEL_POLICY,
		  FROM("{\"podSelector\":{\"matchExpressions\":[{\"key\":\"a\","
		       "\"operator\":\"Exists\",\"value\":\"b\"}]}}"),
		  "matchExpressions[0].value: no such field; did you mean values?" },
		{ MODEL_POLICY, FROM("{\"ipBlock\":{\"cidr\":\"::/0\",\"excepts\":[]}}"),
		  "from[0].ipBlock.excepts: no such field; did you mean except?" },
		{ MODEL_POLICY, "\"ingress\":[{\"ports\":[{\"port\":80,\"endport\":90}]}]",
		  "ports[0].endport: no such field; did you mean endPort?" },
		{ MODEL_CLUSTER_POLICY, HEAD ",\"ingres\":[]", "spec.ingres: no such field" },
		{ MODEL_CLUSTER_POLICY, HEAD DENY(",\"from\":[{\"namespace\":{}}]"),
		  "spec.ingress[0].from[0].namespace: no such field; did you mean namespaces?" },
		{ MODEL_CLUSTER_POLICY,
		  HEAD DENY(",\"from\":[{\"pods\":{\"podSelectr\":{}}}]"),
		  "podSelectr: no such field" },
		{ MODEL_CLUSTER_POLICY,
		  HEAD DENY(",\"ports\":[],\"from\":[{\"namespaces\":{}}]"),
		  "spec.ingress[0].ports: no such field" },
		{ MODEL_CLUSTER_POLICY, HEAD DENY(PROTOCOL("\"icmp\":{}")),
		  "protocols[0].icmp: no such field" },
		{ MODEL_CLUSTER_POLICY, HEAD DENY(PROTOCOL("\"tcp\":{\"port\":80}")),
		  "protocols[0].tcp.port: no such field" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		_cleanup_(object_freep) struct object *obj =
			read_from(false, cases[i].kind, cases[i].spec);

		expect(cases[i].kind, cases[i].spec, cases[i].why);
		if (obj->policy->unreadable)
			assert_null(strstr(obj->policy->unreadable, "no such field"));
	}
}

/* As the API server fills them in. */
static void test_policy_types(void **state)
{
	static const struct {
		const char *spec;
		bool ingress, egress;
	} cases[] = {
		{ "", true, false },
		{ "\"policyTypes\":[]", true, false },
		{ "\"egress\":[]", true, false },
		{ "\"egress\":[{}]", true, true },
		{ "\"egress\":[{}],\"policyTypes\":[\"Ingress\"]", true, false },
		{ "\"policyTypes\":[\"Egress\"]", false, true },
		{ "\"ingress\":[{}],\"policyTypes\":[\"Egress\",\"Egress\"]", false, true },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		_cleanup_(object_freep) struct object *obj =
			read_policy(MODEL_POLICY, cases[i].spec);

		assert_null(obj->policy->unreadable);
		assert_int_equal(obj->policy->isolates[POLICY_INGRESS], cases[i].ingress);
		assert_int_equal(obj->policy->isolates[POLICY_EGRESS], cases[i].egress);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_network_policies),
		cmocka_unit_test(test_cluster_network_policies),
		cmocka_unit_test(test_unknown_fields),
		cmocka_unit_test(test_policy_types),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
