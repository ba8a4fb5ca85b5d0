// SPDX-License-Identifier: Apache-2.0
/*
 * An API client without a dataplane, for test_watch.py: prints what the model learns.
 *
 *   kube_driver KUBECONFIG|- API-SERVERS|- NODE [stall_ms [line_max_bytes [page_limit
 *               [backoff_min_ms backoff_max_ms]]]]
 *
 * SIGUSR1: wants the Pods of all nodes from then on. SIGUSR2: two hundred Events about one object,
 * and one each about a hundred others.
 *
 * svc NS/NAME PORTS READY   a Service changed: its ports, its ready endpoints ("gone" if deleted)
 * synced KIND, log LEVEL TEXT, pods N, rss KB
 */
#include <event2/event.h>
#include <signal.h>
#include <string.h>
#include <waggle/cleanup.h>

#include "agent/kube_recorder.h"
#include "agent/source.h"

struct driver {
	struct model *model;
	struct source *source;
	struct event_base *base;
	bool synced[MODEL_KINDS];
	size_t pods, cluster_policies;
};

static const char *const kinds[MODEL_KINDS] = { "services", "slices", "nodes", "namespaces",
						"pods",	    "policies", "cluster-policies" };

static void say(void *ctx, enum wag_log_level level, const char *msg)
{
	printf("log %d %s\n", level, msg);
	fflush(stdout);
}

static int count_ready(const struct object *slice, void *ctx)
{
	for (size_t i = 0; i < slice->slice.n_endpoints; i++)
		*(size_t *)ctx += slice->slice.endpoints[i].ready;
	return 0;
}

static int print_service(const char *ns, const char *name, void *ctx)
{
	struct driver *d = ctx;
	const struct object *svc = model_get(d->model, MODEL_SERVICE, ns, name);
	size_t ready = 0;

	model_visit_slices(d->model, ns, name, count_ready, &ready);
	printf("svc %s/%s ", ns, name);
	if (!svc)
		printf("gone");
	for (size_t i = 0; svc && i < svc->service.n_ports; i++)
		printf("%s%u", i ? "," : "", svc->service.ports[i].port);
	if (svc && !svc->service.n_ports)
		printf("-");
	printf(" %zu\n", ready);
	return 0;
}

static void print_rss(void)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/statm", "re");
	unsigned long total, resident;

	if (f && fscanf(f, "%lu %lu", &total, &resident) == 2)
		printf("rss %lu\n", resident * 4);
}

static void flush_model(evutil_socket_t fd, short what, void *ctx)
{
	struct driver *d = ctx;

	model_take_dirty_services(d->model, print_service, d);
	for (int k = 0; k < MODEL_KINDS; k++) {
		model_take_dirty(d->model, k);
		if (model_synced(d->model, k) && !d->synced[k]) {
			d->synced[k] = true;
			printf("synced %s\n", kinds[k]);
			print_rss();
		}
	}
	if (model_count(d->model, MODEL_POD) != d->pods) {
		d->pods = model_count(d->model, MODEL_POD);
		printf("pods %zu\n", d->pods);
	}
	if (model_count(d->model, MODEL_CLUSTER_POLICY) != d->cluster_policies) {
		d->cluster_policies = model_count(d->model, MODEL_CLUSTER_POLICY);
		printf("cluster-policies %zu\n", d->cluster_policies);
	}
	fflush(stdout);
}

static void on_dirty(void *ctx)
{
	const struct timeval soon = { .tv_usec = 1000 };
	struct driver *d = ctx;

	event_base_once(d->base, -1, EV_TIMEOUT, flush_model, d, &soon);
}

static void on_term(evutil_socket_t fd, short what, void *ctx)
{
	event_base_loopbreak(ctx);
}

static void on_usr1(evutil_socket_t fd, short what, void *ctx)
{
	source_want_all_pods(((struct driver *)ctx)->source);
}

static void on_usr2(evutil_socket_t fd, short what, void *ctx)
{
	const struct kube_cluster *cluster = source_cluster(((struct driver *)ctx)->source);
	struct kube_ref about = { MODEL_POLICY, "t", "loud", "uid-of-loud" };
	char name[32];

	for (int i = 1; i <= 200; i++)
		kube_warn(cluster, &about, "Loud", "for the %dth time", i);
	about = (struct kube_ref){ MODEL_CLUSTER_POLICY, "", name, NULL };
	for (int i = 1; i <= 100; i++) {
		snprintf(name, sizeof(name), "other-%d", i);
		kube_warn(cluster, &about, "Other", "\xc3 is cut");
	}
}

static void print_status(const struct driver *d)
{
	struct source_status st;

	source_status(d->source, &st);
	for (int k = 0; k < MODEL_KINDS; k++)
		printf("status %s synced=%d protobuf=%d relists=%llu reconnects=%llu events=%llu "
		       "bad=%llu %s\n",
		       kinds[k], st.kinds[k].synced, st.kinds[k].protobuf,
		       (unsigned long long)st.kinds[k].relists,
		       (unsigned long long)st.kinds[k].reconnects,
		       (unsigned long long)st.kinds[k].events,
		       (unsigned long long)st.kinds[k].bad_objects, st.kinds[k].error);
	print_rss();
}

int main(int argc, char **argv)
{
	struct kube_options o = { .reporter = { .fn = say },
				  .backoff_min_ms = 20,
				  .backoff_max_ms = 200 };
	struct driver d = { 0 };
	struct event *term, *usr1, *usr2;
	struct wag_err err;

	if (argc < 4)
		return 2;
	o.kubeconfig = strcmp(argv[1], "-") ? argv[1] : NULL;
	o.api_servers = strcmp(argv[2], "-") ? argv[2] : NULL;
	o.node_name = argv[3];
	o.sa_dir = getenv("SA_DIR");
	o.stall_ms = argc > 4 ? strtoul(argv[4], NULL, 10) : 0;
	o.line_max_bytes = argc > 5 ? strtoul(argv[5], NULL, 10) : 0;
	o.page_limit = argc > 6 ? strtoul(argv[6], NULL, 10) : 0;
	if (argc > 8) {
		o.backoff_min_ms = strtoul(argv[7], NULL, 10);
		o.backoff_max_ms = strtoul(argv[8], NULL, 10);
	}
	d.base = event_base_new();
	if (!d.base || model_new(&d.model) < 0)
		return 1;
	model_on_dirty(d.model, on_dirty, &d);
	term = evsignal_new(d.base, SIGTERM, on_term, d.base);
	event_add(term, NULL);
	usr1 = evsignal_new(d.base, SIGUSR1, on_usr1, &d);
	event_add(usr1, NULL);
	usr2 = evsignal_new(d.base, SIGUSR2, on_usr2, &d);
	event_add(usr2, NULL);
	if (source_new_kube(&d.source, d.base, d.model, &o, &err) < 0) {
		printf("error %s\n", err.msg);
		return 1;
	}
	event_base_dispatch(d.base);
	print_status(&d);
	source_free(d.source);
	model_free(d.model);
	event_free(term);
	event_free(usr1);
	event_free(usr2);
	event_base_free(d.base);
	return 0;
}
