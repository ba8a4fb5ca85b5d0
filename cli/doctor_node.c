// SPDX-License-Identifier: Apache-2.0
/* What an on-call person would look at first. */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <waggle/cleanup.h>
#include <waggle/netlink.h>
#include "bpf_features.h"
#include "bpf_foreign.h"
#include "bpf_maps.h"
#include "doctor.h"
#include "http_get.h"
#include "map_fill.h"

#define FULL_PERCENT 90

static void agent(const struct cli *cli, json_t *findings)
{
	_cleanup_free_ char *body = NULL;
	int r = http_get(cli->health_addr, "/readyz", &body);
	char *save;

	if (r < 0) {
		doctor_add(findings, DOCTOR_PROBLEM, "agent",
			   json_sprintf("no agent answers on %s: %s", cli->health_addr,
					strerror(-r)),
			   "start it, or give its --health-addr; what is pinned forwards "
			   "meanwhile, but no change of the cluster arrives");
		return;
	}
	if (r == 200 || !body)
		return;
	for (char *line = strtok_r(body, "\r\n", &save); line;
	     line = strtok_r(NULL, "\r\n", &save))
		doctor_add(findings, DOCTOR_PROBLEM, "agent",
			   json_sprintf("not ready: %s", line),
			   "the agent tries again; its log has the first occurrence");
}

static void maps(const struct cli *cli, json_t *findings)
{
	_cleanup_json_ json_t *list = map_fill(cli);
	const char *remedy;
	json_t *map;
	size_t i;

	json_array_foreach(list, i, map) {
		const char *name = json_string_value(json_object_get(map, "name"));
		json_int_t used = json_integer_value(json_object_get(map, "entries"));
		json_int_t max = json_integer_value(json_object_get(map, "maxEntries"));

		if (!max || used * 100 < max * FULL_PERCENT)
			continue;
		if (strcmp(name, "wag_ct") == 0)
			remedy = "raise --ct-max (bpf.ctTcpMax): new flows are refused when it is "
				 "full";
		else if (strcmp(name, "wag_sock") == 0)
			continue; /* LRU: it is meant to be full */
		else if (strncmp(name, "wag_svc", 7) == 0 || strcmp(name, "wag_backend") == 0)
			remedy = "raise --svc-max and --slot-max (bpf.lbMapMax): further Services "
				 "do not fit";
		else
			remedy = "its size is fixed: fewer pods or nodes fit than there are";
		doctor_add(findings, DOCTOR_PROBLEM, "maps",
			   json_sprintf("%s is nearly full: %lld of %lld", name, used, max),
			   remedy);
	}
}

struct error_sum {
	uint64_t counts[WAG_MAP_IDS * WAG_MAP_ERRNOS];
	size_t cpus;
};

static int add_error(const void *key, const void *value, void *ctx)
{
	struct error_sum *sum = ctx;
	const uint64_t *cpus = value;
	uint32_t index;

	memcpy(&index, key, sizeof(index));
	for (size_t i = 0; index < WAG_MAP_IDS * WAG_MAP_ERRNOS && i < sum->cpus; i++)
		sum->counts[index] += cpus[i];
	return 0;
}

static void map_errors(const struct cli *cli, json_t *findings)
{
	static const char *const names[WAG_MAP_IDS] = {
		[WAG_MAP_CT] = "wag_ct",	 [WAG_MAP_CT_RING] = "wag_ct_ring",
		[WAG_MAP_SOCK] = "wag_sock",	 [WAG_MAP_FRAG] = "wag_frag",
		[WAG_MAP_EVENTS] = "wag_events", [WAG_MAP_NETNS_LEARN] = "wag_netns_learn",
	};
	_cleanup_map_ struct pinned_map map = PINNED_MAP_NONE;
	static struct error_sum sum;

	if (pinned_map_open_typed(cli, "wag_map_errors", sizeof(uint32_t), sizeof(uint64_t), &map,
				  NULL) < 0)
		return;
	sum = (struct error_sum){ .cpus = pinned_map_value_bytes(&map) / sizeof(uint64_t) };
	pinned_map_each(&map, add_error, &sum);
	for (size_t i = 0; i < WAG_MAP_IDS * WAG_MAP_ERRNOS; i++) {
		const char *name = names[i / WAG_MAP_ERRNOS];

		if (sum.counts[i])
			doctor_add(findings, DOCTOR_NOTE, "maps",
				   json_sprintf("%s: %llu writes by the programs failed: %s",
						name ? name : "a map",
						(unsigned long long)sum.counts[i],
						strerror((int)(i % WAG_MAP_ERRNOS))),
				   "a count since the programs were loaded: look whether it rises "
				   "(waggle metrics)");
	}
}

static void datapath(const struct cli *cli, json_t *findings)
{
	struct wag_err err = { 0 };
	struct wag_meta meta;

	if (meta_read(cli, &meta, &err) < 0) {
		doctor_add(findings, DOCTOR_PROBLEM, "datapath", json_string(err.msg),
			   "start the agent: it loads and pins the programs");
		return;
	}
	if (!meta.synced_ns)
		doctor_add(findings, DOCTOR_PROBLEM, "datapath",
			   json_string("the cluster's Services are not all in the maps yet"),
			   "wait; if it stays so, /readyz of the agent says what is missing");
	maps(cli, findings);
	map_errors(cli, findings);
}

static void kernel(json_t *findings)
{
	static const struct {
		const char *key, *lost;
	} wanted[] = {
		{ "tcx", "no TCX (Linux 6.6): programs are attached by clsact" },
		{ "setRetval", "no bpf_set_retval (Linux 5.18): a refused connect() is refused by "
			       "the packet path" },
		{ "netnsCookie", "no SO_NETNS_COOKIE (Linux 5.14): the socket hooks learn "
				 "namespaces another way" },
		{ "sockDestroy", "no CONFIG_INET_DIAG_DESTROY: connected UDP clients of a backend "
				 "that left have to notice themselves" },
		{ "membarrier", "no membarrier(GLOBAL): many changes at once take 100 ms more" },
	};
	_cleanup_json_ json_t *have = kernel_features();

	for (size_t i = 0; have && i < sizeof(wanted) / sizeof(wanted[0]); i++)
		if (json_is_false(json_object_get(have, wanted[i].key)))
			doctor_add(findings, DOCTOR_NOTE, "kernel", json_string(wanted[i].lost),
				   "none needed; a newer kernel has it");
}

/* ---- other networks ---- */

static const struct {
	const char *prefix, *whose;
} devices[] = {
	{ "flannel", "Flannel" },     { "cilium_", "Cilium" },
	{ "lxc", "Cilium" },	      { "cali", "Calico" },
	{ "vxlan.calico", "Calico" }, { "wireguard.cali", "Calico" },
	{ "weave", "Weave Net" },     { "vethwe", "Weave Net" },
	{ "kube-bridge", "kube-router" }, { "antrea-gw", "Antrea" },
	{ "ovn-k8s-mp", "OVN-Kubernetes" },
};

#define N_DEVICES (sizeof(devices) / sizeof(devices[0]))

struct seen {
	size_t count[N_DEVICES];
	char name[N_DEVICES][16]; /* the first one's */
};

static int see_device(const struct nl_link *link, void *ctx)
{
	struct seen *seen = ctx;

	for (size_t i = 0; i < N_DEVICES; i++)
		if (strncmp(link->name, devices[i].prefix, strlen(devices[i].prefix)) == 0 &&
		    seen->count[i]++ == 0)
			memcpy(seen->name[i], link->name, sizeof(link->name));
	return 0;
}

static void foreign_devices(json_t *findings)
{
	_cleanup_(nl_freep) struct nl *nl = NULL;
	struct seen seen = { 0 };

	if (nl_new(&nl) < 0 || nl_link_list(nl, see_device, &seen) < 0)
		return;
	for (size_t i = 0; i < N_DEVICES; i++)
		if (seen.count[i])
			doctor_add(findings, DOCTOR_NOTE, "other networks",
				   json_sprintf("%zu devices of %s, such as %.15s", seen.count[i],
						devices[i].whose, seen.name[i]),
				   "if that network is gone: ip link del NAME, or restart the "
				   "node");
}

static void foreign_programs(json_t *findings)
{
	static const struct {
		const char *prefix, *whose;
		enum doctor_severity severity;
	} known[] = {
		/* Two of them at connect() would both choose a backend. */
		{ "cil_sock", "Cilium's socket load balancer", DOCTOR_PROBLEM },
		{ "cil_from", "Cilium", DOCTOR_NOTE },
		{ "cali", "Calico", DOCTOR_NOTE },
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		size_t n = bpf_programs_named(known[i].prefix);

		if (n)
			doctor_add(findings, known[i].severity, "other networks",
				   json_sprintf("%zu BPF programs of %s are loaded (%s...)", n,
						known[i].whose, known[i].prefix),
				   "if that network is gone, its own clean-up removes them (cilium "
				   "cleanup, calico-node), or a restart of the node");
	}
}

/* ---- sysctls ---- */

/* -1: there is none. */
static int sysctl_of(const char *format, const char *dev)
{
	char path[256];
	FILE *f;
	int value = -1;

	snprintf(path, sizeof(path), format, dev);
	f = fopen(path, "re");
	if (f && fscanf(f, "%d", &value) != 1)
		value = -1;
	if (f)
		fclose(f);
	return value;
}

static void forwarding(json_t *findings)
{
	if (sysctl_of("/proc/sys/net/ipv4/%s", "ip_forward") == 0)
		doctor_add(findings, DOCTOR_PROBLEM, "sysctl",
			   json_string("net.ipv4.ip_forward is 0: what the stack forwards for pods "
				       "is dropped"),
			   "sysctl -w net.ipv4.ip_forward=1, and look who resets it (sysctl.d)");
	if (sysctl_of("/proc/sys/net/ipv6/conf/%s/forwarding", "all") == 0)
		doctor_add(findings, DOCTOR_PROBLEM, "sysctl",
			   json_string("net.ipv6.conf.all.forwarding is 0: what the stack forwards "
				       "for pods is dropped"),
			   "sysctl -w net.ipv6.conf.all.forwarding=1, and look who resets it");
}

/* The kernel takes the larger of the two; 1 is strict. Of pods' devices one speaks for all. */
static void rp_filter(json_t *findings)
{
	static const char format[] = "/proc/sys/net/ipv4/conf/%s/rp_filter";
	struct if_nameindex *list = if_nameindex();
	int all = sysctl_of(format, "all");
	char names[256] = "";
	size_t n = 0;

	for (struct if_nameindex *i = list; i && i->if_index; i++) {
		int own = sysctl_of(format, i->if_name);

		if ((own > all ? own : all) != 1 || strcmp(i->if_name, "lo") == 0)
			continue;
		if (n++ < 8)
			snprintf(names + strlen(names), sizeof(names) - strlen(names), " %s",
				 i->if_name);
	}
	if (list)
		if_freenameindex(list);
	if (n)
		doctor_add(findings, DOCTOR_NOTE, "sysctl",
			   json_sprintf("rp_filter is strict on %zu devices:%s%s", n, names,
					n > 8 ? " ..." : ""),
			   "2 where packets may come back another way than they went (several "
			   "uplinks, routing-mode=auto)");
}

void doctor_node(const struct cli *cli, json_t *findings)
{
	agent(cli, findings);
	datapath(cli, findings);
	kernel(findings);
	foreign_devices(findings);
	foreign_programs(findings);
	forwarding(findings);
	rp_filter(findings);
}
