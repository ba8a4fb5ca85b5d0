// SPDX-License-Identifier: Apache-2.0
/*
 * How long the agent takes from objects in memory to maps: N Services of 4 endpoints through
 * model -> compile -> sync, from nothing; then nothing changed; then one endpoint of one Service;
 * then a restart on the same maps. Built once over the test double (our own part of the time) and
 * once over real maps. Prints one JSON object.
 */
#include <arpa/inet.h>
#include <malloc.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "agent/model.h"
#include "agent/reconcile.h"
#include "agent/sync.h"
#include "bench_program.h"

#define ENDPOINTS 4
#define CHANGES 101

static double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e3 + ts.tv_nsec / 1e6;
}

static double cpu_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return ts.tv_sec * 1e3 + ts.tv_nsec / 1e6;
}

static void check(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "bench_program: %s failed\n", what);
	exit(1);
}

static void *zalloc(size_t n, size_t size)
{
	void *p = calloc(n, size);

	check(p != NULL, "memory");
	return p;
}

static struct wag_addr address(uint32_t v4)
{
	return (struct wag_addr){ .w = { 0, 0, htonl(WAG_V4MAPPED_W2), htonl(v4) } };
}

static struct object *make_service(unsigned i)
{
	char name[32];
	struct object *obj;

	snprintf(name, sizeof(name), "svc-%u", i);
	obj = object_new(MODEL_SERVICE, "bench", name);
	check(obj != NULL, "memory");
	obj->service.cluster_ips = zalloc(1, sizeof(struct wag_addr));
	obj->service.cluster_ips[0] = address(0x0a600001 + i);
	obj->service.n_cluster_ips = 1;
	obj->service.ports = zalloc(1, sizeof(struct svc_port));
	obj->service.ports[0] = (struct svc_port){ strdup("http"), IPPROTO_TCP, 80, 0 };
	obj->service.n_ports = 1;
	return obj;
}

static struct object *make_slice(unsigned i, unsigned first)
{
	char name[32], svc[32];
	struct object *obj;

	snprintf(svc, sizeof(svc), "svc-%u", i);
	snprintf(name, sizeof(name), "svc-%u-abcde", i);
	obj = object_new(MODEL_SLICE, "bench", name);
	check(obj != NULL, "memory");
	obj->slice.service = strdup(svc);
	obj->slice.ports = zalloc(1, sizeof(struct slice_port));
	obj->slice.ports[0] = (struct slice_port){ strdup("http"), IPPROTO_TCP, 8080 };
	obj->slice.n_ports = 1;
	obj->slice.endpoints = zalloc(ENDPOINTS, sizeof(struct slice_endpoint));
	obj->slice.n_endpoints = ENDPOINTS;
	for (unsigned j = 0; j < ENDPOINTS; j++) {
		struct slice_endpoint *ep = &obj->slice.endpoints[j];

		ep->addrs = zalloc(1, sizeof(struct wag_addr));
		ep->addrs[0] = address(0x0b000000 + i * 64 + first + j);
		ep->n_addrs = 1;
		ep->ready = ep->serving = true;
	}
	return obj;
}

static double heap_mb(void)
{
	struct mallinfo2 info = mallinfo2();

	return (info.uordblks + info.hblkhd) / (double)(1 << 20);
}

static double run(struct model *m, struct sync *s)
{
	double begin = now_ms();

	check(reconcile_run(m, NULL, s, (uint64_t)begin, NULL) == 0, "reconcile_run");
	check(sync_pending(s) == 0, "programming: some operations");
	return now_ms() - begin;
}

static void fill(struct model *m, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		check(model_upsert(m, make_service(i)) == 1, "model_upsert");
		check(model_upsert(m, make_slice(i, 0)) == 1, "model_upsert");
	}
	model_set_synced(m, MODEL_SERVICE);
	model_set_synced(m, MODEL_SLICE);
}

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static double change_one(struct model *m, struct sync *s, unsigned n)
{
	double times[CHANGES];

	for (unsigned i = 0; i < CHANGES; i++) {
		check(model_upsert(m, make_slice(i % n, 1 + i / n % 2)) == 1, "model_upsert");
		times[i] = run(m, s);
	}
	qsort(times, CHANGES, sizeof(times[0]), by_value);
	return times[CHANGES / 2];
}

static void start(struct dataplane *dp, struct sync **ret)
{
	check(sync_new(dp, ret) == 0, "sync_new");
	check(sync_adopt(*ret) == 0, "sync_adopt");
}

int main(int argc, char **argv)
{
	unsigned n = argc > 1 ? atoi(argv[1]) : 10000;
	double program, cpu, idle, change, adopt, heap;
	struct sync_stats st;
	struct dataplane *dp;
	struct model *m;
	struct sync *s;

	check(n > 0 && n <= 60000, "the number of Services: 1 to 60000; it");
	check(bench_dataplane_open(&dp, argc > 2 ? argv[2] : NULL) == 0, "opening the maps");
	check(model_new(&m) == 0, "model_new");
	start(dp, &s);
	fill(m, n);
	cpu = cpu_ms();
	program = run(m, s);
	cpu = cpu_ms() - cpu;
	idle = run(m, s);
	change = change_one(m, s, n);
	sync_get_stats(s, &st);
	check(st.services == n && st.backends == (size_t)n * ENDPOINTS, "counting");
	heap = heap_mb();
	sync_free(s);
	heap -= heap_mb();
	adopt = now_ms();
	start(dp, &s);
	adopt = now_ms() - adopt;
	printf("{\"services\": %u, \"program_ms\": %.2f, \"program_cpu_ms\": %.2f, "
	       "\"idle_ms\": %.4f, \"change_ms\": %.4f, \"adopt_ms\": %.2f, "
	       "\"sync_heap_mb\": %.1f}\n",
	       n, program, cpu, idle, change, adopt, heap);
	sync_free(s);
	model_free(m);
	dataplane_free(dp);
	return 0;
}
