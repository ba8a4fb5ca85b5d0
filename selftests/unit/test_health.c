// SPDX-License-Identifier: Apache-2.0
/* What load balancers are told: the counts, and the answers that carry them. */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <waggle/addr.h>
#include "agent/compile_health.h"
#include "agent/compile_service.h"
#include "agent/model.h"
#include "agent/proxy_health.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))
#define MAX 4

struct ep_spec {
	const char *addr, *node;
	bool not_ready, serving, terminating;
};

struct slice_spec {
	uint16_t port; /* 0: a slice without ports */
	bool v6;
	struct ep_spec eps[MAX];
};

/* A LoadBalancer of both families with policy Local and health check port 32000. */
static struct service a_service(struct wag_addr ips[2], struct svc_port *port)
{
	assert_int_equal(wag_addr_parse("10.96.0.1", &ips[0]), 0);
	assert_int_equal(wag_addr_parse("fd00:10:96::1", &ips[1]), 0);
	*port = (struct svc_port){ "http", IPPROTO_TCP, 80, 30080 };
	return (struct service){ .type = SVC_LOAD_BALANCER,
				 .external_local = true,
				 .health_check_node_port = 32000,
				 .cluster_ips = ips,
				 .n_cluster_ips = 2,
				 .ports = port,
				 .n_ports = 1 };
}

static struct health_check compile(const struct service *svc, const struct slice_spec *specs,
				   size_t n)
{
	const struct compile_facts facts = { .node_name = "node-1" };
	struct object obj = { .kind = MODEL_SERVICE, .service = *svc }, slices[MAX];
	const struct object *list[MAX];
	struct slice_endpoint eps[MAX][MAX];
	struct wag_addr addrs[MAX][MAX];
	struct slice_port ports[MAX];
	struct health_check check;

	memset(eps, 0, sizeof(eps));
	for (size_t i = 0; i < n; i++) {
		ports[i] = (struct slice_port){ "http", IPPROTO_TCP, specs[i].port };
		slices[i] = (struct object){ .kind = MODEL_SLICE,
					     .slice = { .v6 = specs[i].v6,
							.ports = &ports[i],
							.n_ports = specs[i].port != 0,
							.endpoints = eps[i] } };
		list[i] = &slices[i];
		for (size_t k = 0; k < MAX && specs[i].eps[k].addr; k++) {
			const struct ep_spec *from = &specs[i].eps[k];

			assert_int_equal(wag_addr_parse(from->addr, &addrs[i][k]), 0);
			eps[i][k] = (struct slice_endpoint){ .addrs = &addrs[i][k],
							     .n_addrs = 1,
							     .ready = !from->not_ready,
							     .serving = from->serving,
							     .terminating = from->terminating,
							     .node_name = (char *)from->node };
			slices[i].slice.n_endpoints++;
		}
	}
	assert_int_equal(compile_health(&obj, list, n, &facts, &check), 0);
	return check;
}

static void test_counts_ready_local_endpoints_once_a_family(void **state)
{
	const struct slice_spec slices[] = {
		{ 8080, false, { { "10.244.0.1", "node-1" }, { "10.244.0.2", "node-1" },
				 { "10.244.1.1", "node-2" }, { "10.244.0.9", NULL } } },
		{ 8443, false, { { "10.244.0.1", "node-1" } } }, /* once more, by another port */
		{ 8080, true, { { "fd00:10:244::1", "node-1" } } },
		{ 0, false, { { "10.244.0.7", "node-1" } } }, /* nothing that could be asked */
	};
	struct wag_addr ips[2];
	struct svc_port port;
	struct service svc = a_service(ips, &port);
	struct health_check check = compile(&svc, slices, N(slices));

	assert_int_equal(check.port, 32000);
	assert_true(check.family[HEALTH_V4].serves && check.family[HEALTH_V6].serves);
	assert_int_equal(check.family[HEALTH_V4].local, 2);
	assert_int_equal(check.family[HEALTH_V6].local, 1);
	svc.n_cluster_ips = 1;
	check = compile(&svc, slices, N(slices));
	assert_false(check.family[HEALTH_V6].serves);
	assert_int_equal(check.family[HEALTH_V6].local, 0);
}

static void test_who_terminates_does_not_count(void **state)
{
	const struct slice_spec slices[] = {
		{ 8080, false, { { "10.244.0.1", "node-1", true, true, true },
				 { "10.244.0.2", "node-1", true, false, false } } },
	};
	struct wag_addr ips[2];
	struct svc_port port;
	struct service svc = a_service(ips, &port);
	struct health_check check = compile(&svc, slices, N(slices));

	assert_int_equal(check.port, 32000);
	assert_int_equal(check.family[HEALTH_V4].local, 0);
}

static void test_only_a_local_load_balancer_has_a_port(void **state)
{
	struct wag_addr ips[2];
	struct svc_port port;
	struct service svc = a_service(ips, &port), other = svc;

	other.type = SVC_NODE_PORT;
	assert_int_equal(compile(&other, NULL, 0).port, 0);
	other = svc;
	other.external_local = false;
	assert_int_equal(compile(&other, NULL, 0).port, 0);
	other = svc;
	other.other_proxy = true;
	assert_int_equal(compile(&other, NULL, 0).port, 0);
	assert_int_equal(compile(&svc, NULL, 0).port, 32000);
}

static void test_late_is_unhealthy(void **state)
{
	struct proxy_health h = { 0 };

	assert_true(proxy_health_ok(&h, 1)); /* starting */
	proxy_health_queued(&h, 1000);
	assert_true(proxy_health_ok(&h, 1000 + PROXY_HEALTH_LATE_MS - 1));
	proxy_health_queued(&h, 50000); /* the oldest counts */
	assert_false(proxy_health_ok(&h, 1000 + PROXY_HEALTH_LATE_MS));
	proxy_health_applied(&h, (struct timespec){ 1, 0 });
	assert_true(proxy_health_ok(&h, 1000 + PROXY_HEALTH_LATE_MS));
}

static void test_answers_of_the_node(void **state)
{
	const struct timespec then = { 1700000000, 5 }, now = { 1700000060, 120000000 };
	struct proxy_health h = { 0 };
	struct proxy_answer a;

	proxy_health_applied(&h, then);
	proxy_health_healthz(&h, 9, now, true, &a);
	assert_int_equal(a.code, 200);
	assert_string_equal(a.body,
			    "{\"lastUpdated\": \"2023-11-14 22:14:20.120000000 +0000 UTC\","
			    "\"currentTime\": \"2023-11-14 22:14:20.120000000 +0000 UTC\", "
			    "\"nodeEligible\": true}");
	proxy_health_healthz(&h, 9, now, false, &a);
	assert_int_equal(a.code, 503);
	assert_string_equal(a.body,
			    "{\"lastUpdated\": \"2023-11-14 22:13:20.000000005 +0000 UTC\","
			    "\"currentTime\": \"2023-11-14 22:14:20.120000000 +0000 UTC\", "
			    "\"nodeEligible\": false}");
	proxy_health_livez(&h, 9, now, &a);
	assert_int_equal(a.code, 200);
	assert_null(strstr(a.body, "nodeEligible"));
	proxy_health_queued(&h, 9);
	proxy_health_livez(&h, 9 + PROXY_HEALTH_LATE_MS, now, &a);
	assert_int_equal(a.code, 503);
}

static void test_answers_of_a_service(void **state)
{
	struct proxy_answer a;

	proxy_health_service("shop", "cart", 2, true, &a);
	assert_int_equal(a.code, 200);
	assert_string_equal(a.body, "{\n\t\"service\": {\n\t\t\"namespace\": \"shop\",\n"
				    "\t\t\"name\": \"cart\"\n\t},\n\t\"localEndpoints\": 2,\n"
				    "\t\"serviceProxyHealthy\": true\n}");
	proxy_health_service("shop", "cart", 0, true, &a);
	assert_int_equal(a.code, 503);
	proxy_health_service("shop", "cart", 2, false, &a);
	assert_int_equal(a.code, 503);
	proxy_health_service("a\"b", "c\\\n", 1, true, &a);
	assert_non_null(strstr(a.body, "\"a\\\"b\""));
	assert_non_null(strstr(a.body, "\"c\\\\\\u000a\""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counts_ready_local_endpoints_once_a_family),
		cmocka_unit_test(test_who_terminates_does_not_count),
		cmocka_unit_test(test_only_a_local_load_balancer_has_a_port),
		cmocka_unit_test(test_late_is_unhealthy),
		cmocka_unit_test(test_answers_of_the_node),
		cmocka_unit_test(test_answers_of_a_service),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
