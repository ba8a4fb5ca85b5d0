// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <waggle/abi_reason.h>
#include <waggle/addr.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include "endpoint.h"
#include "metrics.h"

static const char *const kind_names[MODEL_KINDS] = {
	[MODEL_SERVICE] = "services", [MODEL_SLICE] = "endpointslices",
	[MODEL_NODE] = "nodes",	      [MODEL_NAMESPACE] = "namespaces",
	[MODEL_POD] = "pods",	      [MODEL_POLICY] = "networkpolicies",
	[MODEL_CLUSTER_POLICY] = "clusternetworkpolicies",
};

void text_done(struct text *t)
{
	free(t->data);
	*t = (struct text){ 0 };
}

void text_add(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0 || t->err)
		return;
	if (t->len + (size_t)n + 1 > t->room) {
		size_t room = (t->len + (size_t)n + 1) * 2;
		char *data = realloc(t->data, room);

		if (!data) {
			t->err = -ENOMEM;
			return;
		}
		t->data = data;
		t->room = room;
	}
	va_start(ap, fmt);
	vsnprintf(t->data + t->len, t->room - t->len, fmt, ap);
	va_end(ap);
	t->len += (size_t)n;
}

void metric_family(struct text *t, const char *name, const char *type, const char *help)
{
	text_add(t, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void add_escaped(struct text *t, const char *value)
{
	for (; *value; value++) {
		if (*value == '\\' || *value == '"')
			text_add(t, "\\%c", *value);
		else if (*value == '\n')
			text_add(t, "\\n");
		else
			text_add(t, "%c", *value);
	}
}

void metric_labels(struct text *t, const char *name, const char *const *pairs, size_t n)
{
	text_add(t, "%s", name);
	for (size_t i = 0; i < n; i++) {
		text_add(t, "%s%s=\"", i ? "," : "{", pairs[i * 2]);
		add_escaped(t, pairs[i * 2 + 1]);
		text_add(t, "\"");
	}
	text_add(t, n ? "} " : " ");
}

void metric_u64(struct text *t, uint64_t value)
{
	text_add(t, "%" PRIu64 "\n", value);
}

void metric_double(struct text *t, double value)
{
	text_add(t, "%.9g\n", value);
}

void metric_simple(struct text *t, const char *name, const char *type, const char *help,
		   uint64_t value)
{
	metric_family(t, name, type, help);
	metric_labels(t, name, NULL, 0);
	metric_u64(t, value);
}

void metric_histogram(struct text *t, const char *name, const char *help, const struct histogram *h)
{
	uint64_t sum = 0;

	metric_family(t, name, "histogram", help);
	for (size_t i = 0; i <= h->n; i++) {
		sum += h->counts[i];
		if (i < h->n)
			text_add(t, "%s_bucket{le=\"%g\"} %" PRIu64 "\n", name, h->bounds[i], sum);
		else
			text_add(t, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, sum);
	}
	text_add(t, "%s_sum %.9g\n%s_count %" PRIu64 "\n", name, h->sum, name, sum);
}

void sync_histogram(const struct sync_stats *s, struct histogram *ret)
{
	static const double bounds[SYNC_BUCKETS - 1] = { 0.00025, 0.0005, 0.001, 0.002,
							 0.004,	  0.008,  0.016, 0.032,
							 0.064,	  0.128,  0.256 };

	*ret = (struct histogram){ .bounds = bounds, .n = SYNC_BUCKETS - 1,
				   .sum = (double)s->run_ns / 1e9 };
	for (size_t i = 0; i < SYNC_BUCKETS; i++)
		ret->counts[i] = s->buckets[i];
}

/* ---- packets ---- */

static const char *direction(unsigned point)
{
	return point == WAG_POINT_TO_POD || point == WAG_POINT_FROM_NET ||
			       point == WAG_POINT_FROM_TUNNEL || point == WAG_POINT_XDP
		       ? "INGRESS"
		       : "EGRESS";
}

static bool read_stat(int fd, struct wag_stat *cpus, size_t n, uint32_t index, struct wag_stat *ret)
{
	struct wag_stat sum = { 0 };

	if (bpfsys_map_lookup(fd, &index, cpus) < 0)
		return false;
	for (size_t i = 0; i < n; i++) {
		sum.packets += cpus[i].packets;
		sum.bytes += cpus[i].bytes;
	}
	*ret = sum;
	return sum.packets != 0;
}

static void add_packets(struct text *t, const struct agent_view *v, const char *name, bool drops,
			bool bytes)
{
	int fd = dataplane_map_fd(v->dp, "wag_stats");
	size_t cpus = dataplane_n_cpus();
	_cleanup_free_ struct wag_stat *room = calloc(cpus, sizeof(*room));
	struct wag_stat sum;

	for (unsigned point = 0; room && point < WAG_POINTS; point++) {
		for (unsigned reason = drops ? 1 : 0; reason < (drops ? WAG_REASON_COUNT : 1);
		     reason++) {
			const char *labels[] = { "direction", direction(point),
						 "point",     wag_point_name(point),
						 "reason",    wag_reason_text(reason) };

			if (!read_stat(fd, room, cpus, WAG_STAT_INDEX(point, reason), &sum))
				continue;
			metric_labels(t, name, labels, drops ? 3 : 2);
			metric_u64(t, bytes ? sum.bytes : sum.packets);
		}
	}
}

static void packets(struct text *t, const struct agent_view *v)
{
	metric_family(t, "waggle_drop_count_total", "counter", "Packets dropped, by reason");
	add_packets(t, v, "waggle_drop_count_total", true, false);
	metric_family(t, "waggle_drop_bytes_total", "counter", "Bytes dropped, by reason");
	add_packets(t, v, "waggle_drop_bytes_total", true, true);
	metric_family(t, "waggle_forward_count_total", "counter", "Packets forwarded");
	add_packets(t, v, "waggle_forward_count_total", false, false);
	metric_family(t, "waggle_forward_bytes_total", "counter", "Bytes forwarded");
	add_packets(t, v, "waggle_forward_bytes_total", false, true);
}

/* ---- maps ---- */

static uint64_t map_used(const struct agent_view *v, const struct sync_stats *s, const char *name,
			 bool *ret_known)
{
	struct wag_ct_clock clock;
	uint32_t zero = 0;

	*ret_known = true;
	if (strcmp(name, "wag_svc") == 0)
		return s->frontends;
	if (strcmp(name, "wag_svc_state") == 0 || strcmp(name, "wag_svc_name") == 0)
		return s->ports;
	if (strcmp(name, "wag_slot") == 0)
		return s->slots_used + s->slots_quarantined;
	if (strcmp(name, "wag_backend") == 0)
		return s->backends;
	if (strcmp(name, "wag_endpoint") == 0)
		return endpoint_count(v->dp);
	if (strcmp(name, "wag_ct") == 0 &&
	    bpfsys_map_lookup(dataplane_map_fd(v->dp, "wag_ct_clock"), &zero, &clock) == 0)
		return clock.used;
	*ret_known = false;
	return 0;
}

static void map_operations(struct text *t, const struct agent_view *v)
{
	const char *name = "waggle_bpf_map_ops_total";

	metric_family(t, name, "counter", "Operations on BPF maps by the agent");
	for (unsigned i = 0; i < DP_TABLES; i++) {
		const char *map = dataplane_table_name((enum dp_table)i);
		const char *const ok[][6] = {
			{ "map_name", map, "operation", "update", "outcome", "success" },
			{ "map_name", map, "operation", "delete", "outcome", "success" },
			{ "map_name", map, "operation", "any", "outcome", "fail" },
		};
		struct dp_ops ops;

		dataplane_ops(v->dp, (enum dp_table)i, &ops);
		metric_labels(t, name, ok[0], 3);
		metric_u64(t, ops.updated);
		metric_labels(t, name, ok[1], 3);
		metric_u64(t, ops.deleted);
		metric_labels(t, name, ok[2], 3);
		metric_u64(t, ops.failed);
	}
}

/* What the programs could not write. */
static void program_errors(struct text *t, const struct agent_view *v)
{
	static const char *const maps[WAG_MAP_IDS] = {
		[WAG_MAP_CT] = "wag_ct",	     [WAG_MAP_CT_RING] = "wag_ct_ring",
		[WAG_MAP_SOCK] = "wag_sock",	     [WAG_MAP_FRAG] = "wag_frag",
		[WAG_MAP_EVENTS] = "wag_events",     [WAG_MAP_NETNS_LEARN] = "wag_netns_learn",
		[WAG_MAP_AFFINITY] = "wag_affinity",
	};
	const char *name = "waggle_bpf_program_map_errors_total";
	int fd = dataplane_map_fd(v->dp, "wag_map_errors");
	size_t cpus = dataplane_n_cpus();
	_cleanup_free_ uint64_t *room = calloc(cpus, sizeof(*room));

	metric_family(t, name, "counter", "Map operations of BPF programs that failed");
	for (uint32_t i = 0; room && i < WAG_MAP_IDS * WAG_MAP_ERRNOS; i++) {
		const char *map = maps[i / WAG_MAP_ERRNOS];
		const char *labels[] = { "map_name", map, "errno",
					 strerrorname_np((int)(i % WAG_MAP_ERRNOS)) };
		uint64_t sum = 0;

		if (!map || bpfsys_map_lookup(fd, &i, room) < 0)
			continue;
		for (size_t cpu = 0; cpu < cpus; cpu++)
			sum += room[cpu];
		if (!sum)
			continue;
		labels[3] = labels[3] ? labels[3] : "?";
		metric_labels(t, name, labels, 2);
		metric_u64(t, sum);
	}
}

static void no_local_endpoints(struct text *t, const struct sync_stats *s)
{
	const char *name = "waggle_service_ports_without_local_endpoints";
	static const char *const internal[] = { "traffic_policy", "internal" };
	static const char *const external[] = { "traffic_policy", "external" };

	metric_family(t, name, "gauge",
		      "Service ports with endpoints, but none here for a Local traffic policy");
	metric_labels(t, name, internal, 1);
	metric_u64(t, s->no_local_internal);
	metric_labels(t, name, external, 1);
	metric_u64(t, s->no_local_external);
}

static void maps(struct text *t, const struct agent_view *v, const struct sync_stats *s)
{
	bool known;

	metric_family(t, "waggle_bpf_map_capacity", "gauge", "Entries a BPF map can hold");
	for (size_t i = 0; i < dataplane_n_maps(v->dp); i++) {
		const char *labels[] = { "map_name", dataplane_map_name(v->dp, i) };

		metric_labels(t, "waggle_bpf_map_capacity", labels, 1);
		metric_u64(t, dataplane_map_capacity(v->dp, i));
	}
	metric_family(t, "waggle_bpf_map_pressure", "gauge", "Share of a BPF map's entries in use");
	for (size_t i = 0; i < dataplane_n_maps(v->dp); i++) {
		const char *labels[] = { "map_name", dataplane_map_name(v->dp, i) };
		uint64_t used = map_used(v, s, labels[1], &known);
		uint32_t capacity = dataplane_map_capacity(v->dp, i);

		if (!known || !capacity)
			continue;
		metric_labels(t, "waggle_bpf_map_pressure", labels, 1);
		metric_double(t, (double)used / capacity);
	}
	map_operations(t, v);
	program_errors(t, v);
}

/* ---- Kubernetes side ---- */

static void sync_metrics(struct text *t, const struct sync_stats *s)
{
	struct histogram h;

	metric_simple(t, "waggle_services", "gauge", "Services in the dataplane", s->services);
	metric_simple(t, "waggle_service_ports", "gauge", "Service ports, by family", s->ports);
	metric_simple(t, "waggle_backends", "gauge", "Backends in the dataplane", s->backends);
	metric_simple(t, "waggle_frontends", "gauge",
		      "Service frontends in the dataplane", s->frontends);
	metric_simple(t, "waggle_service_conflicts", "gauge", "Frontends claimed by two Services",
		      s->conflicts);
	no_local_endpoints(t, s);
	sync_histogram(s, &h);
	metric_histogram(t, "waggle_sync_duration_seconds",
			 "Time of a run that had something to apply", &h);
}

static void endpoints(struct text *t, const struct agent_view *v)
{
	struct endpoint_watch_stats s;

	endpoint_watch_get_stats(v->endpoints, &s);
	metric_simple(t, "waggle_endpoints", "gauge",
		      "Local pod interfaces", endpoint_count(v->dp));
	metric_simple(t, "waggle_endpoints_healed_total", "counter",
		      "Pods whose lost map entries or programs were made anew", s.healed);
	metric_simple(t, "waggle_endpoints_released_total", "counter",
		      "Pod addresses that waited until their policy was known", s.released);
	metric_simple(t, "waggle_endpoints_orphaned_total", "counter",
		      "Pods that vanished without a DEL and were removed", s.orphans);
}

static void watch_metric(struct text *t, const struct source_status *s, const char *name,
			 const char *type, const char *help, size_t offset)
{
	metric_family(t, name, type, help);
	for (unsigned k = 0; k < MODEL_KINDS; k++) {
		const char *labels[] = { "kind", kind_names[k] };
		uint64_t value;

		memcpy(&value, (const char *)&s->kinds[k] + offset, sizeof(value));
		metric_labels(t, name, labels, 1);
		metric_u64(t, value);
	}
}

static void watch_flag(struct text *t, const struct source_status *s, const char *name,
		       const char *help, size_t offset)
{
	metric_family(t, name, "gauge", help);
	for (unsigned k = 0; k < MODEL_KINDS; k++) {
		const char *labels[] = { "kind", kind_names[k] };

		metric_labels(t, name, labels, 1);
		metric_u64(t, *(const bool *)((const char *)&s->kinds[k] + offset));
	}
}

static void watches(struct text *t, const struct agent_view *v)
{
	struct source_status s;

	source_status(v->source, &s);
	watch_metric(t, &s, "waggle_watch_events_total", "counter", "Objects received",
		     offsetof(struct source_kind_status, events));
	watch_metric(t, &s, "waggle_watch_bytes_total", "counter", "Bytes received",
		     offsetof(struct source_kind_status, bytes));
	watch_metric(t, &s, "waggle_watch_relists_total", "counter", "Complete lists fetched",
		     offsetof(struct source_kind_status, relists));
	watch_metric(t, &s, "waggle_watch_reconnects_total", "counter", "Watches opened anew",
		     offsetof(struct source_kind_status, reconnects));
	watch_metric(t, &s, "waggle_watch_bad_objects_total", "counter", "Objects not understood",
		     offsetof(struct source_kind_status, bad_objects));
	watch_flag(t, &s, "waggle_watch_synced", "1 once the first list is complete",
		   offsetof(struct source_kind_status, synced));
	watch_flag(t, &s, "waggle_watch_protobuf", "1 where the last answer was protobuf, 0: JSON",
		   offsetof(struct source_kind_status, protobuf));
}

static void ipam_gauge(struct text *t, const char *name, const char *family, const char *state,
		       uint64_t value)
{
	const char *labels[] = { "family", family, "state", state };

	metric_labels(t, name, labels, state ? 2 : 1);
	metric_u64(t, value);
}

static void addresses(struct text *t, const struct agent_view *v)
{
	static const char *const families[2] = { "ipv4", "ipv6" };
	struct ipam_node_stats s;

	ipam_node_stats(v->ipam, &s);
	metric_family(t, "waggle_ipam_addresses", "gauge", "Pod addresses of the node, by state");
	for (int f = 0; f < 2; f++) {
		const struct ipam_usage *u = &s.family[f].usage;

		ipam_gauge(t, "waggle_ipam_addresses", families[f], "used", u->used);
		ipam_gauge(t, "waggle_ipam_addresses", families[f], "quarantined", u->quarantined);
		ipam_gauge(t, "waggle_ipam_addresses", families[f], "free",
			   u->capacity - u->used - u->quarantined);
	}
	metric_family(t, "waggle_ipam_capacity", "gauge", "Pod addresses the node can give");
	for (int f = 0; f < 2; f++)
		ipam_gauge(t, "waggle_ipam_capacity", families[f], NULL,
			   s.family[f].usage.capacity);
	metric_family(t, "waggle_ipam_blocks", "gauge", "Pod ranges of the node");
	for (int f = 0; f < 2; f++)
		ipam_gauge(t, "waggle_ipam_blocks", families[f], NULL, s.family[f].blocks);
	metric_simple(t, "waggle_ipam_draining_blocks", "gauge",
		      "Ranges that are the node's no more, with pods still in them", s.draining);
	metric_simple(t, "waggle_ipam_claimed_total", "counter", "Blocks claimed", s.claimed);
	metric_simple(t, "waggle_ipam_conflicts_total", "counter",
		      "Blocks another node had already", s.conflicts);
	metric_simple(t, "waggle_ipam_errors_total", "counter",
		      "Claims that failed and were retried", s.errors);
}

static void nodes(struct text *t, const struct agent_view *v)
{
	struct node_net_stats s;

	node_net_get_stats(v->net, &s);
	metric_family(t, "waggle_nodes", "gauge", "Remote nodes with pods, by the way to them");
	text_add(t, "waggle_nodes{link=\"direct\"} %zu\nwaggle_nodes{link=\"tunnel\"} %zu\n",
		 s.direct, s.tunnel);
	metric_simple(t, "waggle_nodes_unreachable", "gauge",
		      "Remote nodes with pods and no way to them", s.unreachable);
	metric_simple(t, "waggle_node_routes", "gauge",
		      "Kernel routes to other nodes' pods", s.routes);
	metric_simple(t, "waggle_node_routes_failed", "gauge", "Such routes that could not be made",
		      s.failed_routes);
}

static void stale_sockets(struct text *t, const struct agent_view *v)
{
	struct stale_sock_stats s;

	stale_sock_get_stats(v->stale, &s);
	metric_simple(t, "waggle_stale_sockets_closed_total", "counter",
		      "Connected UDP sockets closed because their backend had left", s.closed);
	metric_simple(t, "waggle_stale_sockets_failed_total", "counter",
		      "Pods whose such sockets could not be closed", s.failed);
}

static void flows(struct text *t, const struct agent_view *v)
{
	struct flow_stats s;

	flow_server_stats(v->flow, &s);
	metric_simple(t, "waggle_flow_events_total", "counter", "Flow events read", s.seen);
	metric_family(t, "waggle_flow_lost_events_total", "counter", "Flow events lost, by place");
	text_add(t, "waggle_flow_lost_events_total{source=\"ring_buffer\"} %" PRIu64 "\n",
		 s.lost_ring);
	text_add(t, "waggle_flow_lost_events_total{source=\"queue\"} %" PRIu64 "\n", s.lost_queue);
	metric_simple(t, "waggle_flow_clients", "gauge", "Flow streams open", s.clients);
}

static void process(struct text *t, const struct agent_view *v)
{
	const char *labels[] = { "version", WAGGLE_VERSION, "node", v->node_name };
	_cleanup_fclose_ FILE *f = fopen("/proc/self/statm", "re");
	unsigned long size, resident = 0;
	struct timespec cpu;

	metric_family(t, "waggle_version", "gauge", "Always 1; the labels say which version runs");
	metric_labels(t, "waggle_version", labels, 2);
	metric_u64(t, 1);
	if (f && fscanf(f, "%lu %lu", &size, &resident) == 2)
		metric_simple(t, "process_resident_memory_bytes", "gauge",
			      "Resident memory in bytes",
			      (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE));
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
	metric_family(t, "process_cpu_seconds_total", "counter", "CPU time used, in seconds");
	metric_labels(t, "process_cpu_seconds_total", NULL, 0);
	metric_double(t, (double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9);
}

static void add_policies(struct text *t, const struct policy_sync *p)
{
	struct policy_stats s;

	policy_compiler_stats(p->apply.compiler, &s);
	text_add(t,
		 "# HELP waggle_policies Policies known.\n# TYPE waggle_policies gauge\n"
		 "waggle_policies %zu\n"
		 "# HELP waggle_policies_refused Policies that are not in force as they stand.\n"
		 "# TYPE waggle_policies_refused gauge\nwaggle_policies_refused %zu\n"
		 "# HELP waggle_policy_identities Classes of addresses that rules tell apart.\n"
		 "# TYPE waggle_policy_identities gauge\nwaggle_policy_identities %zu\n"
		 "# HELP waggle_policy_epoch Which tables are in force.\n"
		 "# TYPE waggle_policy_epoch counter\nwaggle_policy_epoch %u\n",
		 s.policies, s.refused, s.identities, p->apply.epoch);
}

void metrics_collect(struct text *t, const struct agent_view *v)
{
	struct sync_stats s = { 0 };

	if (v->sync)
		sync_get_stats(v->sync, &s);
	process(t, v);
	packets(t, v);
	maps(t, v, &s);
	sync_metrics(t, &s);
	if (v->endpoints)
		endpoints(t, v);
	if (v->net)
		nodes(t, v);
	if (v->source)
		watches(t, v);
	if (v->policies)
		add_policies(t, v->policies);
	if (v->ipam)
		addresses(t, v);
	if (v->flow)
		flows(t, v);
	if (v->stale)
		stale_sockets(t, v);
	if (v->service_health)
		metrics_kube_proxy(t, v, &s);
}

/* ---- readiness ---- */

static void add_pending(const char *ns, const char *name, const char *map, int err, void *ctx)
{
	if (ns[0] || name[0])
		text_add(ctx, "map %s: Service %s/%s: %s\n", map, ns, name, strerror(err));
	else
		text_add(ctx, "map %s: %s\n", map, strerror(err));
}

#define REFUSED_TOLD 20

struct refusals {
	struct text *text;
	size_t n;
};

static void add_refused(const char *ns, const char *name, const char *why, bool old, void *ctx)
{
	struct refusals *r = ctx;

	if (r->n++ < REFUSED_TOLD)
		text_add(r->text, "policies: %s %s%s%s is not in force%s: %s\n",
			 ns[0] ? "NetworkPolicy" : "ClusterNetworkPolicy", ns, ns[0] ? "/" : "",
			 name, old ? " as it stands" : "", why);
}

static void policy_readiness(struct text *t, const struct policy_sync *p)
{
	struct refusals refusals = { t, 0 };

	if (p->apply.err)
		text_add(t, "policies: %s: %s: the last ones are in force\n", p->apply.err_map,
			 strerror(p->apply.err));
	if (p->waits)
		text_add(t, "policies: waiting for the Pods of the cluster\n");
	policy_compiler_visit_refused(p->apply.compiler, add_refused, &refusals);
	if (refusals.n > REFUSED_TOLD)
		text_add(t, "policies: and %zu more\n", refusals.n - REFUSED_TOLD);
	if (policy_compiler_full(p->apply.compiler))
		text_add(t, "policies: not all of them fit\n");
}

bool readiness_collect(struct text *t, const struct agent_view *v)
{
	struct source_status s = { 0 };
	struct node_net_stats net;

	if (v->source)
		source_status(v->source, &s);
	else
		text_add(t, "source: not started\n");
	for (unsigned k = 0; v->source && k < MODEL_KINDS; k++) {
		const struct source_kind_status *kind = &s.kinds[k];

		if (kind->required && !kind->synced)
			text_add(t, "watch %s: not synced%s%s\n", kind_names[k],
				 kind->error[0] ? ": " : "", kind->error);
	}
	if (v->sync && sync_pending(v->sync))
		sync_visit_pending(v->sync, add_pending, t);
	if (v->policies && v->policies->err)
		text_add(t, "map wag_policy_ns: %s\n", strerror(v->policies->err));
	if (v->policies)
		policy_readiness(t, v->policies);
	if (v->net) {
		node_net_get_stats(v->net, &net);
		if (net.error[0])
			text_add(t, "other nodes: %s\n", net.error);
	}
	if (!t->len && !v->swept)
		text_add(t, "sync: the first run is not over\n");
	return t->len == 0;
}
