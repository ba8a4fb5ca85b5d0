// SPDX-License-Identifier: Apache-2.0
/*
 * The agent's side of address management without a dataplane, for test_ipam.py.
 *
 *   ipam_driver SERVERS NODE STATE-DIR [KEY=VALUE ...]
 *
 * Keys: ipam ns v4 v4mask v6 v6mask relist_ms gc_delay_ms gc_sweep_ms backoff_max_ms. SIGUSR1: the
 * leases changed. Prints "log LEVEL TEXT", and after SIGUSR2 and at its end "stats KEY=VALUE ...".
 */
#include <event2/event.h>
#include <signal.h>
#include <string.h>
#include <waggle/cleanup.h>

#include "agent/ipam_node.h"
#include "agent/source.h"

struct driver {
	struct event_base *base;
	struct model *model;
	struct source *source;
	struct ipam_node *ipam;
	bool due;
};

static void say(void *ctx, enum wag_log_level level, const char *msg)
{
	printf("log %d %s\n", level, msg);
	fflush(stdout);
}

static void poke(evutil_socket_t fd, short what, void *ctx)
{
	struct driver *d = ctx;

	d->due = false;
	for (int k = 0; k < MODEL_KINDS; k++)
		model_take_dirty(d->model, k);
	ipam_node_poke(d->ipam);
}

static int ignore(const char *ns, const char *name, void *ctx)
{
	return 0;
}

static void on_dirty(void *ctx)
{
	const struct timeval soon = { .tv_usec = 1000 };
	struct driver *d = ctx;

	model_take_dirty_services(d->model, ignore, NULL);
	if (!d->due)
		event_base_once(d->base, -1, EV_TIMEOUT, poke, d, &soon);
	d->due = true;
}

static void print_stats(const struct driver *d)
{
	struct ipam_node_stats s;

	ipam_node_stats(d->ipam, &s);
	printf("stats");
	for (int f = 0; f < 2; f++)
		printf(" blocks%d=%zu used%d=%llu quarantined%d=%llu capacity%d=%llu", f,
		       s.family[f].blocks, f, (unsigned long long)s.family[f].usage.used, f,
		       (unsigned long long)s.family[f].usage.quarantined, f,
		       (unsigned long long)s.family[f].usage.capacity);
	printf(" draining=%zu claimed=%llu conflicts=%llu errors=%llu\n", s.draining,
	       (unsigned long long)s.claimed, (unsigned long long)s.conflicts,
	       (unsigned long long)s.errors);
	fflush(stdout);
}

static void on_signal(evutil_socket_t sig, short what, void *ctx)
{
	struct driver *d = ctx;

	if (sig == SIGUSR1)
		ipam_node_count(d->ipam);
	else if (sig == SIGUSR2)
		print_stats(d);
	else
		event_base_loopbreak(d->base);
}

static void set(struct ipam_node_options *o, struct kube_options *k, const char *key, char *value)
{
	unsigned n = strtoul(value, NULL, 10);

	if (strcmp(key, "ipam") == 0)
		o->cluster_pool = strcmp(value, "cluster-pool") == 0;
	else if (strcmp(key, "ns") == 0)
		o->ns = value;
	else if (strcmp(key, "v4") == 0)
		o->pool_cidrs[0] = value;
	else if (strcmp(key, "v6") == 0)
		o->pool_cidrs[1] = value;
	else if (strcmp(key, "v4mask") == 0)
		o->pool_masks[0] = n;
	else if (strcmp(key, "v6mask") == 0)
		o->pool_masks[1] = n;
	else if (strcmp(key, "relist_ms") == 0)
		o->relist_ms = n;
	else if (strcmp(key, "gc_delay_ms") == 0)
		o->gc_delay_ms = n;
	else if (strcmp(key, "gc_sweep_ms") == 0)
		o->gc_sweep_ms = n;
	else if (strcmp(key, "backoff_max_ms") == 0)
		k->backoff_max_ms = n;
	else
		exit(2);
}

int main(int argc, char **argv)
{
	struct kube_options k = { .reporter = { .fn = say },
				  .backoff_min_ms = 20,
				  .backoff_max_ms = 200 };
	struct ipam_node_options o = { .ns = "kube-system",
				       .pool_cidrs = { "10.0.0.0/8" },
				       .pool_masks = { 24, 120 },
				       .reporter = { .fn = say },
				       .settle_ms = 20 };
	static const int signals[] = { SIGTERM, SIGUSR1, SIGUSR2 };
	struct event *events[3];
	struct driver d = { 0 };
	struct wag_err err = { 0 };

	if (argc < 4)
		return 2;
	k.api_servers = argv[1];
	k.node_name = o.node_name = argv[2];
	o.state_dir = argv[3];
	k.sa_dir = getenv("SA_DIR");
	k.kubeconfig = getenv("KUBECONFIG");
	for (int i = 4; i < argc; i++) {
		char *value = strchr(argv[i], '=');

		if (!value)
			return 2;
		*value = 0;
		set(&o, &k, argv[i], value + 1);
	}
	d.base = event_base_new();
	if (!d.base || model_new(&d.model) < 0)
		return 1;
	model_on_dirty(d.model, on_dirty, &d);
	for (int i = 0; i < 3; i++) {
		events[i] = evsignal_new(d.base, signals[i], on_signal, &d);
		event_add(events[i], NULL);
	}
	if (source_new_kube(&d.source, d.base, d.model, &k, &err) < 0 ||
	    ipam_node_new(&d.ipam, d.base, d.model, d.source, &o, &err) < 0) {
		printf("error %s\n", err.msg);
		return 1;
	}
	event_base_dispatch(d.base);
	print_stats(&d);
	ipam_node_free(d.ipam);
	source_free(d.source);
	model_free(d.model);
	for (int i = 0; i < 3; i++)
		event_free(events[i]);
	event_base_free(d.base);
	return 0;
}
