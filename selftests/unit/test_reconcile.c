// SPDX-License-Identifier: Apache-2.0
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
#include <waggle/addr.h>
#include "agent/dataplane_fake.h"
#include "agent/model.h"
#include "agent/reconcile.h"

static struct dataplane *dp;
static struct model *m;
static struct sync *sy;
static int refused;
static struct compile_facts facts;

static void on_refused(const char *ns, const char *name, int err, void *ctx)
{
	refused = err;
}

static int64_t programmed[8];
static size_t n_programmed;

static void on_programmed(int64_t trigger_ms, void *ctx)
{
	assert_true(n_programmed < 8);
	programmed[n_programmed++] = trigger_ms;
}

static int checks, last_local;

static int on_checked(const char *ns, const char *name, const struct health_check *check, void *ctx)
{
	checks++;
	last_local = check ? (int)check->family[HEALTH_V4].local : -1;
	return 0;
}

static int n_remarks;

static void on_remarked(const char *ns, const char *name, const char *remark, void *ctx)
{
	assert_non_null(strstr(remark, "lb-algorithm"));
	n_remarks++;
}

static const struct reconcile_listener listener = { on_refused, on_remarked, on_checked,
						    on_programmed, NULL };

static uint64_t run(void)
{
	uint64_t before = dataplane_fake_ops(dp);

	assert_int_equal(reconcile_run(m, &facts, sy, 1000, &listener), 0);
	return dataplane_fake_ops(dp) - before;
}

static void add_service(const char *name, const char *vip)
{
	struct object *obj = object_new(MODEL_SERVICE, "ns", name);

	assert_non_null(obj);
	obj->service.cluster_ips = calloc(1, sizeof(struct wag_addr));
	obj->service.n_cluster_ips = 1;
	assert_int_equal(wag_addr_parse(vip, obj->service.cluster_ips), 0);
	obj->service.ports = calloc(1, sizeof(struct svc_port));
	obj->service.n_ports = 1;
	obj->service.ports[0] = (struct svc_port){ strdup(""), IPPROTO_TCP, 80, 0 };
	assert_true(model_upsert(m, obj) >= 0);
}

static struct object *slice_of(const char *service, const char *addr)
{
	struct object *obj = object_new(MODEL_SLICE, "ns", "slice");

	assert_non_null(obj);
	obj->slice.service = strdup(service);
	obj->slice.ports = calloc(1, sizeof(struct slice_port));
	obj->slice.n_ports = 1;
	obj->slice.ports[0] = (struct slice_port){ strdup(""), IPPROTO_TCP, 8080 };
	obj->slice.endpoints = calloc(1, sizeof(struct slice_endpoint));
	obj->slice.n_endpoints = 1;
	obj->slice.endpoints[0].ready = obj->slice.endpoints[0].serving = true;
	obj->slice.endpoints[0].addrs = calloc(1, sizeof(struct wag_addr));
	obj->slice.endpoints[0].n_addrs = 1;
	assert_int_equal(wag_addr_parse(addr, obj->slice.endpoints[0].addrs), 0);
	return obj;
}

static void add_slice(const char *service, const char *addr)
{
	assert_true(model_upsert(m, slice_of(service, addr)) >= 0);
}

/* Endpoints 10.1.0.1 and 10.1.0.2, hinted for zones a and b. */
static void add_zoned_slice(const char *service)
{
	struct object *obj = object_new(MODEL_SLICE, "ns", service);

	assert_non_null(obj);
	obj->slice.service = strdup(service);
	obj->slice.ports = calloc(1, sizeof(struct slice_port));
	obj->slice.n_ports = 1;
	obj->slice.ports[0] = (struct slice_port){ strdup(""), IPPROTO_TCP, 8080 };
	obj->slice.endpoints = calloc(2, sizeof(struct slice_endpoint));
	obj->slice.n_endpoints = 2;
	for (int i = 0; i < 2; i++) {
		struct slice_endpoint *ep = &obj->slice.endpoints[i];

		ep->ready = ep->serving = true;
		ep->hint_zones = strdup(i ? "b" : "a");
		ep->addrs = calloc(1, sizeof(struct wag_addr));
		ep->n_addrs = 1;
		assert_int_equal(wag_addr_parse(i ? "10.1.0.2" : "10.1.0.1", ep->addrs), 0);
	}
	assert_true(model_upsert(m, obj) >= 0);
}

static void set_zone(const char *zone)
{
	struct object *obj = object_new(MODEL_NODE, "", "n1");

	assert_non_null(obj);
	obj->node.zone = zone ? strdup(zone) : NULL;
	assert_true(model_upsert(m, obj) >= 0);
}

static void start(void)
{
	facts = (struct compile_facts){ .node_name = "n1" };
	assert_int_equal(model_new(&m), 0);
	assert_int_equal(sync_new(dp, &sy), 0);
	assert_int_equal(sync_adopt(sy), 0);
}

static void stop(void)
{
	sync_free(sy);
	model_free(m);
}

static int setup(void **state)
{
	refused = 0;
	assert_int_equal(dataplane_fake_new(NULL, &dp), 0);
	start();
	return 0;
}

static int teardown(void **state)
{
	stop();
	dataplane_free(dp);
	return 0;
}

static void test_nothing_before_both_kinds_are_complete(void **state)
{
	add_service("a", "10.96.0.1");
	assert_int_equal(run(), 0);
	model_set_synced(m, MODEL_SERVICE);
	assert_int_equal(run(), 0);
	add_slice("a", "10.1.0.1");
	model_set_synced(m, MODEL_SLICE);
	assert_int_equal(run(), 3); /* name, backend, frontend */
	assert_int_equal(run(), 0);
}

static void test_a_change_of_endpoints_is_told_once_when_it_is_in_the_maps(void **state)
{
	struct object *slice;

	n_programmed = 0;
	add_service("a", "10.96.0.1");
	slice = slice_of("a", "10.1.0.1");
	slice->slice.trigger_ms = 5000;
	assert_int_equal(model_upsert(m, slice), 1);
	run();
	assert_int_equal(n_programmed, 0); /* not all is listed */
	model_set_synced(m, MODEL_SERVICE);
	model_set_synced(m, MODEL_SLICE);
	dataplane_fake_fail_table(dp, DP_BACKEND, EBUSY);
	run();
	assert_int_equal(n_programmed, 0); /* failed */
	dataplane_fake_fail_table(dp, DP_BACKEND, 0);
	slice = slice_of("a", "10.1.0.2");
	slice->slice.trigger_ms = 6000;
	assert_int_equal(model_upsert(m, slice), 1);
	assert_int_equal(reconcile_run(m, NULL, sy, 100000, &listener), 0);
	assert_int_equal(n_programmed, 1);
	assert_int_equal(programmed[0], 6000);
	assert_int_equal(model_delete(m, MODEL_SERVICE, "ns", "a"), 1);
	add_service("a", "10.96.0.1");
	run();
	assert_int_equal(n_programmed, 1); /* the same slice again is no news */
}

static size_t n_gone;
static struct wag_backend_key gone;

static void on_gone(const struct wag_backend_key *key, void *ctx)
{
	n_gone++;
	gone = *key;
}

static void test_a_backend_that_left_is_told(void **state)
{
	n_gone = 0;
	sync_on_backend_gone(sy, on_gone, NULL);
	model_set_synced(m, MODEL_SERVICE);
	model_set_synced(m, MODEL_SLICE);
	add_service("a", "10.96.0.1");
	add_slice("a", "10.1.0.1");
	run();
	assert_int_equal(n_gone, 0);
	dataplane_fake_fail_table(dp, DP_BACKEND, EBUSY);
	add_slice("a", "10.1.0.2");
	run();
	assert_int_equal(n_gone, 0); /* it is in the map yet */
	dataplane_fake_fail_table(dp, DP_BACKEND, 0);
	assert_int_equal(reconcile_run(m, &facts, sy, 100000, &listener), 0);
	assert_int_equal(n_gone, 1);
	assert_int_equal(gone.addr.b[15], 1);
	assert_int_equal(model_delete(m, MODEL_SERVICE, "ns", "a"), 1);
	assert_int_equal(reconcile_run(m, &facts, sy, 200000, &listener), 0);
	assert_int_equal(n_gone, 2);
	assert_int_equal(gone.addr.b[15], 2);
}

static void test_checks_are_told_for_what_changed(void **state)
{
	checks = 0;
	model_set_synced(m, MODEL_SERVICE);
	model_set_synced(m, MODEL_SLICE);
	add_service("a", "10.96.0.1");
	add_service("b", "10.96.0.2");
	run();
	assert_int_equal(checks, 2);
	add_slice("a", "10.1.0.1");
	run();
	assert_int_equal(checks, 3);
	assert_int_equal(model_delete(m, MODEL_SERVICE, "ns", "a"), 1);
	run();
	assert_int_equal(checks, 4);
	assert_int_equal(last_local, -1);
}

static void test_endpoints_and_deletion(void **state)
{
	model_set_synced(m, MODEL_SERVICE);
	model_set_synced(m, MODEL_SLICE);
	add_service("a", "10.96.0.1");
	assert_int_equal(run(), 2);
	add_slice("a", "10.1.0.1");
	assert_int_equal(run(), 1);
	add_slice("a", "10.1.0.2");
	assert_int_equal(run(), 2);
	assert_int_equal(model_delete(m, MODEL_SERVICE, "ns", "a"), 1);
	assert_int_equal(run(), 3);
	for (int t = 0; t < DP_TABLES; t++)
		assert_int_equal(dataplane_fake_count(dp, t), 0);
}

static void test_restart_deletes_only_when_complete(void **state)
{
	model_set_synced(m, MODEL_SERVICE);
	model_set_synced(m, MODEL_SLICE);
	add_service("a", "10.96.0.1");
	add_service("b", "10.96.0.2");
	run();
	stop();
	start();
	model_set_synced(m, MODEL_SERVICE);
	assert_int_equal(run(), 0);
	add_service("a", "10.96.0.1");
	assert_int_equal(run(), 0);
	model_set_synced(m, MODEL_SLICE);
	assert_int_equal(run(), 2); /* b's frontend and name */
	assert_int_equal(dataplane_fake_count(dp, DP_SVC), 1);
}

static void test_the_zone_of_the_node_chooses_anew(void **state)
{
	model_set_synced(m, MODEL_SERVICE);
	model_set_synced(m, MODEL_SLICE);
	add_service("a", "10.96.0.1");
	add_service("b", "10.96.0.2");
	add_zoned_slice("a");
	assert_int_equal(run(), 4 + 2);
	assert_int_equal(dataplane_fake_count(dp, DP_BACKEND), 2); /* no zone: all */
	set_zone("a");
	assert_int_equal(run(), 1);
	assert_int_equal(dataplane_fake_count(dp, DP_BACKEND), 1);
	set_zone("b");
	assert_int_equal(run(), 2);
	assert_int_equal(run(), 0);
	set_zone("c");
	assert_int_equal(run(), 1);
	assert_int_equal(dataplane_fake_count(dp, DP_BACKEND), 2);
	assert_int_equal(model_delete(m, MODEL_NODE, "", "n1"), 1);
	assert_int_equal(run(), 0);
}

static void test_sync_proxy_rules_repeated(void **state)
{
	model_set_synced(m, MODEL_SERVICE);
	model_set_synced(m, MODEL_SLICE);
	for (int i = 0; i < 100; i++) {
		char name[8], vip[16];

		snprintf(name, sizeof(name), "s%d", i);
		snprintf(vip, sizeof(vip), "10.96.0.%d", i + 1);
		add_service(name, vip);
		add_zoned_slice(name);
	}
	assert_int_equal(run(), 100 * (1 + 2 + 1));
	assert_int_equal(run(), 0);
	add_service("s5", "10.96.0.6"); /* the same again */
	add_zoned_slice("s5");
	assert_int_equal(run(), 0);
	assert_int_equal(model_delete(m, MODEL_SLICE, "ns", "s5"), 1);
	assert_int_equal(run(), 2); /* its two backends */
	add_zoned_slice("s5");
	assert_int_equal(run(), 2);
	add_service("s6", "10.96.1.6"); /* another address: one frontend in, one out */
	assert_int_equal(run(), 2);
}

static void set_algorithm(enum lb_algorithm algorithm)
{
	struct object *obj = object_new(MODEL_SERVICE, "ns", "a");
	struct wag_addr vip;

	assert_non_null(obj);
	assert_int_equal(wag_addr_parse("10.96.0.1", &vip), 0);
	obj->service.cluster_ips = malloc(sizeof(vip));
	obj->service.cluster_ips[0] = vip;
	obj->service.n_cluster_ips = 1;
	obj->service.ports = calloc(1, sizeof(struct svc_port));
	obj->service.n_ports = 1;
	obj->service.ports[0] = (struct svc_port){ strdup(""), IPPROTO_TCP, 80, 0 };
	obj->service.algorithm = algorithm;
	assert_true(model_upsert(m, obj) >= 0);
}

static void test_an_algorithm_nobody_knows_is_told_once(void **state)
{
	model_set_synced(m, MODEL_SERVICE);
	model_set_synced(m, MODEL_SLICE);
	n_remarks = 0;
	set_algorithm(LB_ALGORITHM_RANDOM);
	run();
	assert_int_equal(n_remarks, 0);
	set_algorithm(LB_ALGORITHM_UNKNOWN);
	run();
	assert_int_equal(n_remarks, 1);
	assert_true(model_upsert(m, slice_of("a", "10.1.0.1")) >= 0);
	run();
	assert_int_equal(n_remarks, 1);
	set_algorithm(LB_ALGORITHM_MAGLEV);
	run();
	set_algorithm(LB_ALGORITHM_UNKNOWN);
	run();
	assert_int_equal(n_remarks, 2);
}

static void test_a_name_that_does_not_fit_is_told(void **state)
{
	char name[100];

	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	model_set_synced(m, MODEL_SERVICE);
	model_set_synced(m, MODEL_SLICE);
	add_service(name, "10.96.0.1");
	add_service("a", "10.96.0.2");
	assert_int_equal(run(), 2);
	assert_int_equal(refused, -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_nothing_before_both_kinds_are_complete),
		T(test_endpoints_and_deletion),
		T(test_a_change_of_endpoints_is_told_once_when_it_is_in_the_maps),
		T(test_a_backend_that_left_is_told),
		T(test_checks_are_told_for_what_changed),
		T(test_restart_deletes_only_when_complete),
		T(test_the_zone_of_the_node_chooses_anew),
		T(test_sync_proxy_rules_repeated),
		T(test_an_algorithm_nobody_knows_is_told_once),
		T(test_a_name_that_does_not_fit_is_told),
#undef T
	};

	return cmocka_run_group_tests_name("reconcile", tests, NULL, NULL);
}
