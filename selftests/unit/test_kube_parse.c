// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "agent/kube_field.h"
#include "agent/kube_parse.h"

static const char *fixture(const char *name)
{
	static char path[512];

	snprintf(path, sizeof(path), "%s/k8s/fixtures/%s", WAGGLE_SELFTESTS, name);
	return path;
}

struct seen {
	struct model *model;
	int good, bad;
	char errors[4096];
};

static int keep(void *ctx, struct object *obj, const json_t *tree)
{
	struct seen *seen = ctx;

	seen->good++;
	return model_upsert(seen->model, obj) < 0 ? -EIO : 0;
}

static void complain(void *ctx, const struct kube_ident *ident, const struct wag_err *err)
{
	struct seen *seen = ctx;

	seen->bad++;
	snprintf(seen->errors + strlen(seen->errors), sizeof(seen->errors) - strlen(seen->errors),
		 "%s\n", err->msg);
}

static int walk(struct seen *seen, const char *text, bool manifests)
{
	const struct kube_sink sink = { keep, complain, seen, manifests ? "default" : NULL,
					manifests };
	json_error_t err;
	json_t *tree = json_loads(text, JSON_DECODE_ANY, &err);
	int r;

	assert_non_null(tree);
	r = kube_parse_any(tree, &sink);
	json_decref(tree);
	return r;
}

static void walk_file(struct seen *seen, const char *name)
{
	const struct kube_sink sink = { keep, complain, seen, NULL, false };
	json_error_t err;
	json_t *tree = json_load_file(fixture(name), 0, &err);

	assert_non_null(tree);
	assert_int_equal(kube_parse_any(tree, &sink), 0);
	json_decref(tree);
}

static void expect_addr(const struct wag_addr *addr, const char *want)
{
	char text[WAG_ADDR_TEXT];

	assert_string_equal(wag_addr_format(addr, text), want);
}

static void check_services(struct model *m)
{
	const struct service *svc;

	svc = &model_get(m, MODEL_SERVICE, "fx", "dual")->service;
	assert_int_equal(svc->n_cluster_ips, 2);
	expect_addr(&svc->cluster_ips[0], "fd00:10:96::7d30");
	expect_addr(&svc->cluster_ips[1], "10.96.238.47");
	svc = &model_get(m, MODEL_SERVICE, "fx", "np")->service;
	assert_int_equal(svc->type, SVC_NODE_PORT);
	assert_int_equal(svc->n_ports, 2);
	assert_int_equal(svc->ports[1].proto, 17);
	assert_int_equal(svc->ports[1].node_port, 30080);
	assert_string_equal(svc->ports[1].name, "u");
	assert_int_equal(model_get(m, MODEL_SERVICE, "fx", "aff")->service.affinity_s, 120);
	assert_true(model_get(m, MODEL_SERVICE, "fx", "headless")->service.headless);
	assert_true(model_get(m, MODEL_SERVICE, "fx", "headless")->service.publish_not_ready);
	svc = &model_get(m, MODEL_SERVICE, "fx", "lb")->service;
	assert_true(svc->external_local);
	assert_int_equal(svc->n_source_ranges, 2);
	expect_addr(&svc->source_ranges[1].addr, "172.31.0.0");
	assert_int_equal(svc->source_ranges[1].bits, 24);
	assert_int_equal(svc->health_check_node_port, 32380);
	assert_int_equal(model_get(m, MODEL_SERVICE, "fx", "ext")->service.type, SVC_EXTERNAL_NAME);
	assert_int_equal(model_get(m, MODEL_SERVICE, "fx", "extip")->service.n_external_ips, 1);
	assert_true(model_get(m, MODEL_SERVICE, "fx", "extip")->service.internal_local);
}

static void test_recorded_lists(void **state)
{
	static const char *const kinds[] = { "services", "endpointslices", "nodes", "namespaces",
					     "pods" };
	_cleanup_(model_freep) struct model *m = NULL;
	struct seen seen = { 0 };
	const struct slice *slice;
	char name[64];

	assert_int_equal(model_new(&m), 0);
	seen.model = m;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		snprintf(name, sizeof(name), "list-full-%s.json", kinds[i]);
		walk_file(&seen, name);
	}
	assert_string_equal(seen.errors, "");
	assert_int_equal(model_count(m, MODEL_SERVICE), 10);
	assert_int_equal(model_count(m, MODEL_SLICE), 11);
	assert_int_equal(model_count(m, MODEL_NODE), 2);
	check_services(m);
	slice = &model_get(m, MODEL_SLICE, "fx", "noselector-1")->slice;
	assert_string_equal(slice->service, "noselector");
	assert_int_equal(slice->n_endpoints, 2);
	assert_null(slice->endpoints[0].hint_zones);
	assert_string_equal(slice->endpoints[1].hint_zones, "z1");
	assert_int_equal(model_get(m, MODEL_NODE, "", "n1")->node.n_addrs > 0, 1);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		snprintf(name, sizeof(name), "list-terminating-%s.json", kinds[i]);
		walk_file(&seen, name);
	}
	assert_string_equal(seen.errors, "");
}

static int count_terminating(const struct object *obj, void *ctx)
{
	for (size_t i = 0; i < obj->slice.n_endpoints; i++) {
		const struct slice_endpoint *ep = &obj->slice.endpoints[i];

		if (ep->terminating && ep->serving)
			(*(int *)ctx)++;
	}
	return 0;
}

static void test_terminating(void **state)
{
	_cleanup_(model_freep) struct model *m = NULL;
	struct seen seen = { 0 };
	int n = 0;

	assert_int_equal(model_new(&m), 0);
	seen.model = m;
	walk_file(&seen, "list-terminating-endpointslices.json");
	model_visit_slices(m, "fx", "cip", count_terminating, &n);
	assert_int_equal(n, 4);
}

#define META "\"metadata\":{\"name\":\"x\",\"namespace\":\"a\"}"
#define SLICE "\"kind\":\"EndpointSlice\",\"apiVersion\":\"discovery.k8s.io/v1\"," META
#define SVC "\"kind\":\"Service\",\"apiVersion\":\"v1\"," META

static void test_one_object(void **state)
{
	static const struct {
		const char *text, *error; /* "" : good; NULL: passed over */
		bool manifests;
	} cases[] = {
		{ "{" SLICE ",\"addressType\":\"IPv4\",\"endpoints\":null,\"ports\":null}", "" },
		{ "{" SLICE
		  ",\"addressType\":\"IPv4\",\"endpoints\":[{\"addresses\":[\"10.0.0.1\"],"
		  "\"conditions\":{}}],\"ports\":[{\"port\":null,\"name\":null}]}",
		  "" },
		{ "{" SLICE ",\"addressType\":\"FQDN\",\"endpoints\":[{\"addresses\":[\"a.b\"]}]}",
		  "" },
		{ "{" SLICE
		  ",\"addressType\":\"IPv4\",\"endpoints\":[{\"addresses\":[\"fd00::1\"]}]}",
		  "EndpointSlice a/x: endpoints[0].addresses[0]: is not of addressType IPv4\n" },
		{ "{" SLICE ",\"addressType\":\"IPv5\"}",
		  "EndpointSlice a/x: addressType: \"IPv5\" is not IPv4, IPv6 or FQDN\n" },
		{ "{" SLICE ",\"addressType\":\"IPv4\",\"endpoints\":[7]}",
		  "EndpointSlice a/x: endpoints[0]: must be an object\n" },
		{ "{" SLICE ",\"addressType\":\"IPv4\",\"endpoints\":{}}",
		  "EndpointSlice a/x: endpoints: must be a list, is an object\n" },
		{ "{" SLICE
		  ",\"addressType\":\"IPv4\",\"endpoints\":[{\"addresses\":[\"10.0.0.1\"],"
		  "\"hints\":{\"forZones\":[{\"name\":7}]}}]}",
		  "EndpointSlice a/x: endpoints[0].hints.name: must be a string, is an integer\n" },
		{ "{" SVC ",\"spec\":{\"loadBalancerSourceRanges\":[\" 10.0.0.0/8 \"]}}", "" },
		{ "{" SVC ",\"spec\":{\"loadBalancerSourceRanges\":[\"10.0.0.0/33\"]}}",
		  "Service a/x: spec.loadBalancerSourceRanges[0]: \"10.0.0.0/33\" is no CIDR\n" },
		{ "{" SVC "}", "" },
		{ "{" SVC ",\"spec\":{\"ports\":[{\"port\":70000}]}}",
		  "Service a/x: spec.ports[0].port: 70000 is not in 1..65535\n" },
		{ "{" SVC ",\"spec\":{\"ports\":[{\"port\":\"80\"}]}}",
		  "Service a/x: spec.ports[0].port: must be an integer, is a string\n" },
		{ "{" SVC ",\"spec\":{\"ports\":[{}]}}",
		  "Service a/x: spec.ports[0].port: is missing\n" },
		{ "{" SVC ",\"spec\":{\"ports\":[{\"port\":1,\"protocol\":\"ICMP\"}]}}",
		  "Service a/x: spec.ports[0].protocol: \"ICMP\" is not TCP, UDP or SCTP\n" },
		{ "{" SVC ",\"spec\":{\"clusterIP\":\"10.0.0.300\"}}",
		  "Service a/x: spec.clusterIP: \"10.0.0.300\" is no IP address\n" },
		{ "{" SVC ",\"spec\":[]}", "Service a/x: spec: must be an object, is a list\n" },
		{ "{" SVC "}",
		  "Service a/x: spec.clusterIP is empty: no API server allocates one here; set "
		  "it\n",
		  true },
		{ "{" SVC ",\"spec\":{\"type\":\"NodePort\",\"clusterIP\":\"10.0.0.1\","
		  "\"ports\":[{\"port\":1}]}}",
		  "Service a/x: spec.ports[0].nodePort is empty: no API server allocates one here; "
		  "set it\n",
		  true },
		{ "{" SVC ",\"spec\":{\"type\":\"ExternalName\"}}", "", true },
		{ "{\"kind\":\"Service\",\"metadata\":null}",
		  "Service (no name): metadata.name: is missing\n" },
		{ "{\"kind\":\"Service\",\"metadata\":{\"name\":\"x\"}}",
		  "Service x: metadata.namespace: is missing\n" },
		{ "{\"kind\":\"Deployment\",\"metadata\":{\"name\":\"x\"},\"spec\":7}", NULL },
		{ "{\"kind\":\"Service\",\"apiVersion\":\"serving.knative.dev/v1\"}", NULL },
		{ "7", "not a Kubernetes object: it is no mapping\n" },
		{ "{\"a\":1}", "not a Kubernetes object: kind is missing\n" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		_cleanup_(model_freep) struct model *m = NULL;
		struct seen seen = { 0 };

		assert_int_equal(model_new(&m), 0);
		seen.model = m;
		assert_int_equal(walk(&seen, cases[i].text, cases[i].manifests), 0);
		assert_string_equal(seen.errors, cases[i].error ? cases[i].error : "");
		assert_int_equal(seen.good, cases[i].error && !cases[i].error[0]);
	}
}

/* Whose word counts: the node's own, then the controller manager's list, then its old field. */
static void test_pod_cidrs_of_a_node(void **state)
{
#define NODE(meta, spec)                                                                  \
	"{\"kind\":\"Node\",\"metadata\":{\"name\":\"n\",\"uid\":\"u-1\"" meta "},\"spec\":{" spec \
	"}}"
#define OWN(text) ",\"annotations\":{\"waggle.io/pod-cidrs\":\"" text "\"}"
	static const struct {
		const char *text, *cidrs, *published, *error;
	} cases[] = {
		{ NODE("", ""), "", NULL, "" },
		{ NODE("", "\"podCIDR\":\"\""), "", NULL, "" },
		{ NODE("", "\"podCIDR\":\"10.0.1.0/24\""), "10.0.1.0/24 ", NULL, "" },
		{ NODE("", "\"podCIDR\":\"10.0.1.0/24\",\"podCIDRs\":[]"), "10.0.1.0/24 ", NULL,
		  "" },
		{ NODE("",
		       "\"podCIDR\":\"10.0.1.0/24\",\"podCIDRs\":[\"10.0.2.0/24\",\"fd00::/64\"]"),
		  "10.0.2.0/24 fd00::/64 ", NULL, "" },
		{ NODE(OWN("10.9.0.0/24, 10.9.1.0/24,fd09::/120"), "\"podCIDR\":\"10.0.1.0/24\""),
		  "10.9.0.0/24 10.9.1.0/24 fd09::/120 ", "10.9.0.0/24, 10.9.1.0/24,fd09::/120",
		  "" },
		{ NODE(OWN(""), "\"podCIDR\":\"10.0.1.0/24\""), "10.0.1.0/24 ", NULL, "" },
		{ NODE(OWN("10.9.0.0/33"), ""), NULL, NULL,
		  "Node n: metadata.annotations.waggle.io/pod-cidrs: is no CIDR\n" },
		{ NODE("", "\"podCIDRs\":[7]"), NULL, NULL,
		  "Node n: spec.podCIDRs[0]: is no CIDR\n" },
	};
#undef NODE
#undef OWN

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		_cleanup_(model_freep) struct model *m = NULL;
		struct seen seen = { 0 };
		const struct object *obj;
		char cidrs[128] = "";

		assert_int_equal(model_new(&m), 0);
		seen.model = m;
		assert_int_equal(walk(&seen, cases[i].text, false), 0);
		assert_string_equal(seen.errors, cases[i].error);
		obj = model_get(m, MODEL_NODE, "", "n");
		assert_int_equal(!obj, !cases[i].cidrs);
		for (size_t k = 0; obj && k < obj->node.n_pod_cidrs; k++)
			strcat(strcat(cidrs, obj->node.pod_cidrs[k]), " ");
		if (!obj)
			continue;
		assert_string_equal(cidrs, cases[i].cidrs);
		assert_string_equal(obj->node.uid, "u-1");
		assert_int_equal(!obj->node.published, !cases[i].published);
		if (cases[i].published)
			assert_string_equal(obj->node.published, cases[i].published);
	}
}

static void test_nodes_that_are_about_to_go(void **state)
{
	static const struct {
		const char *meta, *spec;
		bool leaving;
	} cases[] = {
		{ "", "", false },
		{ "", "\"taints\":null", false },
		{ "", "\"taints\":[{\"key\":\"node.kubernetes.io/unschedulable\"}]", false },
		{ "",
		  "\"taints\":[{\"key\":\"a\"},{\"key\":\"ToBeDeletedByClusterAutoscaler\","
		  "\"effect\":\"NoSchedule\"}]",
		  true },
		{ ",\"deletionTimestamp\":\"2026-01-01T00:00:00Z\"", "", true },
	};
	_cleanup_(model_freep) struct model *m = NULL;
	struct seen seen = { 0 };
	char text[512];

	assert_int_equal(model_new(&m), 0);
	seen.model = m;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		snprintf(text, sizeof(text),
			 "{\"kind\":\"Node\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"n\"%s},"
			 "\"spec\":{%s}}",
			 cases[i].meta, cases[i].spec);
		assert_int_equal(walk(&seen, text, false), 0);
		assert_string_equal(seen.errors, "");
		assert_int_equal(model_get(m, MODEL_NODE, "", "n")->node.leaving,
				 cases[i].leaving);
	}
}

static void test_times(void **state)
{
	static const struct {
		const char *text;
		int64_t ms;
	} cases[] = {
		{ "1970-01-01T00:00:01Z", 1000 },
		{ "2023-11-14T22:13:20.123456789Z", 1700000000123 },
		{ "2023-11-14T22:13:20.5+00:00", 1700000000500 },
		{ "2023-11-15T00:13:20+02:00", 1700000000000 },
		{ "2023-11-14T16:43:20-05:30", 1700000000000 },
		{ "", 0 },
		{ "yesterday", 0 },
		{ "2023-11-14T22:13:20", 0 },
		{ "2023-11-14T22:13:20Zulu", 0 },
		{ "2023-11-14T22:13:20*02:00", 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(field_time_ms(cases[i].text), cases[i].ms);
}

static void test_nil_conditions_mean_ready(void **state)
{
	_cleanup_(model_freep) struct model *m = NULL;
	struct seen seen = { 0 };
	const struct slice *slice;

	assert_int_equal(model_new(&m), 0);
	seen.model = m;
	walk(&seen,
	     "{" SLICE ",\"addressType\":\"IPv4\",\"endpoints\":["
	     "{\"addresses\":[\"10.0.0.1\"],\"conditions\":{}},"
	     "{\"addresses\":[\"10.0.0.2\"],\"conditions\":{\"ready\":false}},"
	     "{\"addresses\":[\"10.0.0.3\"],\"conditions\":{\"ready\":false,\"serving\":true,"
	     "\"terminating\":true}}]}",
	     false);
	slice = &model_get(m, MODEL_SLICE, "a", "x")->slice;
	assert_true(slice->endpoints[0].ready && slice->endpoints[0].serving);
	assert_false(slice->endpoints[1].ready || slice->endpoints[1].serving);
	assert_true(slice->endpoints[2].serving && slice->endpoints[2].terminating);
}

static void test_a_bad_item_loses_no_other(void **state)
{
	_cleanup_(model_freep) struct model *m = NULL;
	struct seen seen = { 0 };

	assert_int_equal(model_new(&m), 0);
	seen.model = m;
	walk(&seen,
	     "{\"kind\":\"ServiceList\",\"items\":["
	     "{\"metadata\":{\"name\":\"a\",\"namespace\":\"n\"}},7,"
	     "{\"metadata\":{\"name\":\"b\",\"namespace\":\"n\"},\"spec\":{\"type\":\"Odd\"}},"
	     "{\"metadata\":{\"name\":\"c\",\"namespace\":\"n\"}}]}",
	     false);
	assert_int_equal(seen.good, 2);
	assert_int_equal(seen.bad, 2);
	assert_non_null(strstr(seen.errors, "Service n/b: spec.type: \"Odd\" is unknown"));
}

static void turn(char *text, char from, char to)
{
	for (; *text; text++)
		if (*text == from)
			*text = to;
}

/* Of manifests nobody has looked at the fields before; what is meant must not be lost silently. */
static void test_what_no_api_server_would_take(void **state)
{
#define A "'metadata':{'name':'a'}"
#define SERVICE(more) "{'kind':'Service'," A ",'spec':{'clusterIP':'10.0.0.1'" more "}}"
#define NAMED(name, ns) \
	"{'kind':'EndpointSlice','metadata':{'name':'" name "','namespace':'" ns "'}," \
	"'addressType':'IPv4','endpoints':[]}"
#define OF_API(kind, api) "{'kind':'" kind "','apiVersion':'" api "'," A "}"
	static const struct {
		const char *text, *why; /* NULL: taken, or passed over */
	} cases[] = {
		{ SERVICE(",'sessionAffinity':'None','externalTrafficPolicy':'Cluster'"), NULL },
		{ SERVICE(",'sessionAffinity':'clientip'"),
		  "Service default/a: spec.sessionAffinity: 'clientip' is not None or ClientIP" },
		{ SERVICE(",'externalTrafficPolicy':'local'"),
		  "spec.externalTrafficPolicy: 'local' is not Cluster or Local" },
		{ SERVICE(",'internalTrafficPolicy':'Node'"),
		  "spec.internalTrafficPolicy: 'Node' is not Cluster or Local" },
		{ "{'kind':'Service','metadata':{'name':'a','labels':{"
		  "'service.kubernetes.io/service-proxy-name':'x'}},"
		  "'spec':{'type':'NodePort','ports':[{'port':80}]}}",
		  NULL },
		{ "{'kind':'Service'," A ",'spec':{'clusterIP':'None'},"
		  "'status':{'loadBalancer':{'ingress':['1.2.3.4']}}}",
		  "status.loadBalancer.ingress[0]: must be an object, is a string" },
		{ "{'kind':'EndpointSlice'," A ",'addressType':'IPv4',"
		  "'endpoints':[{'addresses':['10.0.0.1'],'hints':{'forZones':['a']}}]}",
		  "endpoints[0].hints: must be an object" },
		{ "{'kind':'Pod'," A ",'spec':{'containers':[{'ports':['http']}]}}",
		  "spec.containers[0]: must be an object" },
		{ OF_API("NetworkPolicy", "networking.k8s.io/v1beta1"),
		  "NetworkPolicy a: apiVersion: 'networking.k8s.io/v1beta1' is not "
		  "networking.k8s.io/v1" },
		{ OF_API("NetworkPolicy", "v1"), "'v1' is not networking.k8s.io/v1" },
		{ OF_API("EndpointSlice", "discovery.k8s.io/v1beta1"),
		  "is not discovery.k8s.io/v1," },
		{ OF_API("ClusterNetworkPolicy", "policy.networking.k8s.io/v1alpha1"),
		  "is not policy.networking.k8s.io/v1alpha2" },
		{ OF_API("Service", "serving.knative.dev/v1"), NULL },
		{ SERVICE(",'ports':[{'port':80}]"), NULL },
		{ SERVICE(",'ports':[{'name':'a','port':53},"
			  "{'name':'b','port':53,'protocol':'UDP'}]"),
		  NULL },
		{ SERVICE(",'ports':[{'name':'a','port':80},{'port':81}]"),
		  "Service default/a: spec.ports[1].name: is missing" },
		{ SERVICE(",'ports':[{'name':'a','port':80},{'name':'a','port':81}]"),
		  "spec.ports[1].name: a is that of [0]" },
		{ SERVICE(",'ports':[{'name':'a','port':80},{'name':'b','port':80}]"),
		  "spec.ports[1].port: 80/TCP is that of [0]" },
		{ NAMED("x/y", "z"), "EndpointSlice z/(no name): metadata.name: 'x/y' is none" },
		{ NAMED("a", "z y"), "metadata.namespace: 'z?y' is none" },
		{ NAMED("a.b-c.0", "z-1"), NULL },
		{ NAMED("Имя", "z"), NULL },
		{ NAMED("..", "z"), "metadata.name: '..' is none" },
		{ NAMED("a%2fb", "z"), "metadata.name: 'a%2fb' is none" },
		{ NAMED("a\\u001b[2J", "z"), "metadata.name: 'a?[2J' is none" },
		{ OF_API("NetworkPolicy", "crd.projectcalico.org/v1"), NULL },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		_cleanup_(model_freep) struct model *m = NULL;
		struct seen seen = { 0 };
		char text[512];

		assert_int_equal(model_new(&m), 0);
		seen.model = m;
		snprintf(text, sizeof(text), "%s", cases[i].text);
		turn(text, '\'', '"');
		walk(&seen, text, true);
		turn(seen.errors, '"', '\'');
		assert_int_equal(seen.bad, cases[i].why != NULL);
		if (cases[i].why && !strstr(seen.errors, cases[i].why))
			fail_msg("\"%s\", not \"%s\"", seen.errors, cases[i].why);
	}
}

static void test_endpoints_become_slices(void **state)
{
	_cleanup_(model_freep) struct model *m = NULL;
	struct seen seen = { 0 };
	const struct slice *slice;

	assert_int_equal(model_new(&m), 0);
	seen.model = m;
	walk(&seen,
	     "{\"kind\":\"Endpoints\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"w\"},"
	     "\"subsets\":[{\"addresses\":[{\"ip\":\"10.0.0.1\"},{\"ip\":\"fd00::1\"}],"
	     "\"notReadyAddresses\":[{\"ip\":\"10.0.0.2\"}],"
	     "\"ports\":[{\"name\":\"http\",\"port\":8080}]}]}",
	     true);
	assert_string_equal(seen.errors, "");
	assert_int_equal(model_count(m, MODEL_SLICE), 2);
	slice = &model_get(m, MODEL_SLICE, "default", "w-endpoints-0")->slice;
	assert_string_equal(slice->service, "w");
	assert_int_equal(slice->n_endpoints, 2);
	assert_true(slice->endpoints[0].ready);
	assert_false(slice->endpoints[1].ready);
	assert_int_equal(slice->ports[0].port, 8080);
	assert_true(model_get(m, MODEL_SLICE, "default", "w-endpoints-0-v6")->slice.v6);
}

static void test_status(void **state)
{
	json_t *tree = json_loads("{\"kind\":\"Status\",\"code\":410,\"reason\":\"Expired\","
				  "\"message\":\"too old\",\"details\":{\"retryAfterSeconds\":3}}",
				  0, NULL);
	struct kube_status st;

	assert_true(kube_parse_status(tree, &st));
	assert_int_equal(st.code, 410);
	assert_int_equal(st.retry_after_s, 3);
	assert_string_equal(st.reason, "Expired");
	json_decref(tree);
	assert_false(kube_parse_status(NULL, &st));
}

static struct object *parse(const char *text)
{
	const struct kube_sink sink = { 0 };
	struct object *obj = NULL;
	struct kube_ident ident;
	struct wag_err err;
	json_t *tree = json_loads(text, 0, NULL);

	assert_non_null(tree);
	assert_int_equal(kube_parse_object(strstr(text, "Slice") ? MODEL_SLICE : MODEL_SERVICE,
					   tree, &sink, &obj, &ident, &err), 0);
	json_decref(tree);
	return obj;
}

static void test_labels_and_hints(void **state)
{
	static const char *const labels[] = { "service-proxy-name", "headless", "other" };
	_cleanup_(object_freep) struct object *slice = NULL;

	for (size_t i = 0; i < 3; i++) {
		char text[256];
		struct object *obj;

		for (int k = 0; k < 2; k++) {
			snprintf(text, sizeof(text),
				 "{\"kind\":\"%s\",\"addressType\":\"IPv4\",\"metadata\":{"
				 "\"name\":\"x\",\"namespace\":\"a\",\"labels\":{"
				 "\"service.kubernetes.io/%s\":\"\"}}}",
				 k ? "EndpointSlice" : "Service", labels[i]);
			obj = parse(text);
			assert_int_equal(k ? obj->slice.other_proxy : obj->service.other_proxy,
					 i < 2);
			object_free(obj);
		}
	}
	slice = parse("{" SLICE ",\"addressType\":\"IPv4\",\"endpoints\":[{\"addresses\":"
		      "[\"10.0.0.1\"],\"hints\":{\"forZones\":[{\"name\":\"a\"},{\"name\":"
		      "\"b\"}],\"forNodes\":[{\"name\":\"n\"}]}}]}");
	assert_string_equal(slice->slice.endpoints[0].hint_zones, "a,b");
	assert_string_equal(slice->slice.endpoints[0].hint_nodes, "n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_recorded_lists),
		cmocka_unit_test(test_terminating),
		cmocka_unit_test(test_one_object),
		cmocka_unit_test(test_pod_cidrs_of_a_node),
		cmocka_unit_test(test_nodes_that_are_about_to_go),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_nil_conditions_mean_ready),
		cmocka_unit_test(test_a_bad_item_loses_no_other),
		cmocka_unit_test(test_what_no_api_server_would_take),
		cmocka_unit_test(test_endpoints_become_slices),
		cmocka_unit_test(test_status),
		cmocka_unit_test(test_labels_and_hints),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
