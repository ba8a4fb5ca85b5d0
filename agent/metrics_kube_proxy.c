// SPDX-License-Identifier: Apache-2.0
/* kube-proxy's names of what its dashboards show, where the agent has the number. */
#include <inttypes.h>
#include "metrics.h"

static void coded(struct text *t, const char *name, const char *help, const uint64_t count[2])
{
	for (int i = 0; i < 2; i++) {
		if (i == 0)
			metric_family(t, name, "counter", help);
		text_add(t, "%s{code=\"%s\"} %" PRIu64 "\n", name, i ? "503" : "200", count[i]);
	}
}

static void ports(struct text *t, const struct service_health_stats *s)
{
	const char *name = "waggle_health_check_ports";

	metric_family(t, name, "gauge", "healthCheckNodePorts of Services, by family and state");
	text_add(t, "%s{state=\"listening\"} %zu\n%s{state=\"failed\"} %zu\n", name, s->listening,
		 name, s->failed);
	metric_simple(t, "waggle_healthz_failed", "gauge",
		      "1 while --healthz-bind-address cannot be had", s->node_failed);
	coded(t, "kubeproxy_proxy_healthz_total", "Answers of /healthz to load balancers",
	      s->healthz);
	coded(t, "kubeproxy_proxy_livez_total", "Answers of /livez", s->livez);
}

static void local(struct text *t, const struct sync_stats *s)
{
	const char *name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total";

	metric_family(t, name, "gauge",
		      "Service ports of traffic policy Local that have endpoints, but none here");
	text_add(t,
		 "%s{traffic_policy=\"internal\"} %zu\n"
		 "%s{traffic_policy=\"external\"} %zu\n",
		 name, s->no_local_internal, name, s->no_local_external);
}

void metrics_kube_proxy(struct text *t, const struct agent_view *v, const struct sync_stats *sync)
{
	const char *name = "kubeproxy_sync_proxy_rules_last_timestamp_seconds";
	const struct timespec *updated = &v->proxy_health->updated;
	struct service_health_stats s;
	struct histogram h;

	service_health_get_stats(v->service_health, &s);
	ports(t, &s);
	local(t, sync);
	sync_histogram(sync, &h);
	metric_histogram(t, "kubeproxy_sync_proxy_rules_duration_seconds",
			 "Time of a run that had something to apply", &h);
	metric_histogram(t, "kubeproxy_network_programming_duration_seconds",
			 "From a change of endpoints in the cluster until it is in the maps",
			 v->programming);
	metric_family(t, name, "gauge", "When all was applied last");
	text_add(t, "%s %.3f\n", name, (double)updated->tv_sec + (double)updated->tv_nsec / 1e9);
}
