// SPDX-License-Identifier: Apache-2.0
/*
 * What wag_from_pod costs per packet (BPF_PROG_TEST_RUN, over an empty program), by kind of packet:
 * a throw-away copy of the programs and maps, 10,000 Services of 4 endpoints, nothing is sent.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <linux/if_ether.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/abi_config.h>
#include <waggle/abi_maps.h>
#include <waggle/abi_reason.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bench_testgen.skel.h"
#include "hook_pod.skel.h"

#define FRAME_BYTES 54
#define BACKENDS 4
#define CHUNK 16384 /* its events fit the ring */
#define FEW_FLOWS 4096
#define MANY_FLOWS 65536
#define SEC_NS 1000000000ULL
#define SVC_BASE 0x0a600000U	/* 10.96.0.0 */
#define POD_BASE 0x0af40100U	/* 10.244.1.0 */
#define MORE_CLIENTS 0x0af48000U /* 10.244.128.0 */
#define CLIENTS 1024 /* of FLOWS_PER_ADDR flows each */
#define PORT 80
#define TARGET_PORT 8080

struct bench {
	struct hook_pod *hook;
	struct bench_testgen *gen;
	struct ring_buffer *events;
	uint32_t services, table, fill_percent, next_new;
	bool flow_cache;
	int rounds;
};

struct row {
	const char *name;
	bool is_new, service;
	uint32_t flows;
	double best_ns;
};

static struct wag_addr v4(uint32_t host_order)
{
	struct wag_addr a = {};

	a.w[2] = htonl(WAG_V4MAPPED_W2);
	a.w[3] = htonl(host_order);
	return a;
}

static int put(struct bpf_map *map, const void *key, const void *value)
{
	return bpf_map_update_elem(bpf_map__fd(map), key, value, BPF_ANY) < 0 ? -errno : 0;
}

static int add_service(struct hook_pod *h, uint32_t i, uint32_t services)
{
	struct wag_svc_key key = { .addr = v4(SVC_BASE + i + 1), .port = htons(PORT),
				   .proto = IPPROTO_TCP };
	struct wag_svc svc = { .index = i, .flags = WAG_SVC_CLUSTER_IP };
	struct wag_svc_state state = { .slots = WAG_SLOTS(i * BACKENDS, BACKENDS, 0),
				       .svc_id = i + 1 };
	int r = 0;

	for (uint32_t j = 0; r == 0 && j < BACKENDS; j++) {
		uint32_t n = i * BACKENDS + j;
		struct wag_slot slot = { .port = htons(TARGET_PORT), .svc_id = i + 1 };
		struct wag_backend_key bkey = { .svc_id = i + 1, .port = slot.port,
						.proto = IPPROTO_TCP };
		struct wag_backend backend = {};

		slot.addr = v4(i + 1 == services ? POD_BASE + 2 + j : 0x0af50000U + n);
		bkey.addr = slot.addr;
		r = put(h->maps.wag_backend, &bkey, &backend);
		if (r == 0)
			r = put(h->maps.wag_slot, &n, &slot);
	}
	if (r == 0)
		r = put(h->maps.wag_svc_state, &i, &state);
	return r ? r : put(h->maps.wag_svc, &key, &svc);
}

static int add_pod(struct hook_pod *h, uint32_t addr, uint32_t ep_id)
{
	struct wag_pod pod = { .ifindex = 1, .ep_id = ep_id };
	struct wag_addr key = v4(addr);

	return put(h->maps.wag_pods, &key, &pod);
}

/* The backends, the client, and clients enough for the flows of every round. */
static int add_pods(struct hook_pod *h)
{
	int r = add_pod(h, POD_BASE + 10, BACKENDS + 1);

	for (uint32_t i = 0; r == 0 && i < BACKENDS; i++)
		r = add_pod(h, POD_BASE + 2 + i, i + 1);
	for (uint32_t i = 0; r == 0 && i < CLIENTS; i++)
		r = add_pod(h, MORE_CLIENTS + i, BACKENDS + 2 + i);
	return r;
}

static int load_hook(struct bench *b)
{
	struct wag_config config = {
		.tcp_established_ns = 8000 * SEC_NS,
		.tcp_syn_ns = 60 * SEC_NS,
		.tcp_closing_ns = 10 * SEC_NS,
		.udp_ns = 60 * SEC_NS,
		.udp_stream_ns = 180 * SEC_NS,
		.other_ns = 60 * SEC_NS,
		.ct_entries = b->table,
		.events = 1,
		.host_routing = 1,
		.flow_cache_mask = b->flow_cache ? WAG_FLOW_CACHE - 1 : 0,
	};
	int r;

	b->hook = hook_pod__open();
	if (!b->hook)
		return -errno;
	memcpy((void *)&b->hook->rodata->cfg, &config, sizeof(config));
	bpf_map__set_max_entries(b->hook->maps.wag_ct, b->table);
	bpf_map__set_max_entries(b->hook->maps.wag_ct_ring, b->table);
	bpf_map__set_max_entries(b->hook->maps.wag_flow_cache,
				 WAG_FLOW_CACHE * libbpf_num_possible_cpus());
	bpf_map__set_max_entries(b->hook->maps.wag_flow_hop,
				 WAG_FLOW_HOPS * libbpf_num_possible_cpus());
	bpf_map__set_max_entries(b->hook->maps.wag_flow_xlat,
				 WAG_FLOW_CACHE * libbpf_num_possible_cpus());
	r = hook_pod__load(b->hook);
	if (r == 0)
		r = add_pods(b->hook);
	for (uint32_t i = 0; r == 0 && i < b->services; i++)
		r = add_service(b->hook, i, b->services);
	return r;
}

static int on_event(void *ctx, void *data, size_t size)
{
	return 0;
}

static int load(struct bench *b)
{
	int r = load_hook(b);

	if (r < 0)
		return r;
	b->events = ring_buffer__new(bpf_map__fd(b->hook->maps.wag_events), on_event, NULL, NULL);
	b->gen = bench_testgen__open();
	if (!b->events || !b->gen)
		return -errno;
	b->gen->rodata->client_addr = POD_BASE + 10;
	b->gen->rodata->more_addrs = MORE_CLIENTS;
	return bench_testgen__load(b->gen);
}

static int aim(struct bench *b, struct bpf_program *prog)
{
	uint32_t zero = 0;
	int fd = bpf_program__fd(prog);

	return put(b->gen->maps.target, &zero, &fd);
}

/* One chunk of packets; *ret_ns is per packet. */
static int send_chunk(struct bench *b, bool syn, uint32_t first, uint32_t flows, uint32_t packets,
		      double *ret_ns)
{
	/* The kernel takes the protocol from here; the rest the generator writes. */
	uint8_t data[FRAME_BYTES] = { [12] = ETH_P_IP >> 8, [13] = ETH_P_IP & 0xff };
	DECLARE_LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = data, .data_size_in = sizeof(data),
			    .repeat = packets);

	b->gen->bss->next_flow = 0;
	b->gen->bss->first_flow = first;
	b->gen->bss->flow_count = flows;
	b->gen->bss->syn = syn;
	if (bpf_prog_test_run_opts(bpf_program__fd(b->gen->progs.generate), &opts) < 0)
		return -errno;
	ring_buffer__consume(b->events);
	if (b->gen->bss->passed)
		return -EPROTO; /* the tail call failed */
	*ret_ns = opts.duration;
	return 0;
}

static void aim_at(struct bench *b, bool service)
{
	b->gen->bss->target_addr = service ? SVC_BASE + b->services : POD_BASE + 2;
	b->gen->bss->target_port = service ? PORT : TARGET_PORT;
}

/* Opens flows: a SYN each, then the ACK that ends the handshake. */
static int open_flows(struct bench *b, uint32_t first, uint32_t count)
{
	int r = 0;
	double ns;

	for (uint32_t done = 0; r == 0 && done < count; done += CHUNK) {
		uint32_t n = count - done < CHUNK ? count - done : CHUNK;

		r = send_chunk(b, true, first + done, n, n, &ns);
		if (r == 0)
			r = send_chunk(b, false, first + done, n, n, &ns);
	}
	return r;
}

static uint32_t entries_used(struct bench *b)
{
	struct wag_ct_clock clock = {};
	uint32_t zero = 0;

	bpf_map_lookup_elem(bpf_map__fd(b->hook->maps.wag_ct_clock), &zero, &clock);
	return clock.used;
}

/* The flows that are measured, then others up to the wished fill: two entries each. */
static int fill(struct bench *b)
{
	uint32_t wished = (uint64_t)b->table * b->fill_percent / 100, used;
	int r;

	aim_at(b, false);
	r = open_flows(b, 0, FEW_FLOWS);
	aim_at(b, true);
	if (r == 0)
		r = open_flows(b, 0, MANY_FLOWS);
	used = entries_used(b);
	if (r == 0 && used < wished)
		r = open_flows(b, 1 << 20, (wished - used) / 2);
	if (r == 0 && entries_used(b) + 1 < wished) {
		fprintf(stderr, "bench_testrun: %u entries, not %u\n", entries_used(b), wished);
		r = -EPROTO;
	}
	return r;
}

static int measure_row(struct bench *b, struct row *row, double empty_ns)
{
	uint32_t first = row->is_new ? b->next_new : 0, count = row->is_new ? CHUNK : row->flows;
	double ns;
	int r;

	aim_at(b, row->service);
	/* Its flows are known again. */
	r = row->is_new ? 0 : send_chunk(b, false, 0, row->flows, row->flows, &ns);
	if (r == 0)
		r = send_chunk(b, row->is_new, first, count,
			       row->flows > CHUNK ? row->flows : CHUNK, &ns);
	if (row->is_new)
		b->next_new += CHUNK;
	if (r == 0 && (!row->best_ns || ns - empty_ns < row->best_ns))
		row->best_ns = ns - empty_ns;
	return r;
}

static uint64_t drops_for(struct bench *b, uint32_t reason)
{
	struct wag_stat per_cpu[1024];
	uint32_t key = WAG_STAT_INDEX(WAG_POINT_FROM_POD, reason);
	uint64_t sum = 0;

	if (bpf_map_lookup_elem(bpf_map__fd(b->hook->maps.wag_stats), &key, per_cpu) < 0)
		return 0;
	for (int i = 0; i < libbpf_num_possible_cpus(); i++)
		sum += per_cpu[i].packets;
	return sum;
}

/* Says every reason that dropped a packet; the figures count packets that went through. */
static int report_drops(struct bench *b)
{
	static const char *const texts[] = {
#define WAG_REASON_TEXT(name, hubble, text) text,
		WAG_REASONS(WAG_REASON_TEXT)
#undef WAG_REASON_TEXT
	};
	int r = 0;

	for (uint32_t reason = 1; reason < WAG_REASON_COUNT; reason++) {
		uint64_t n = drops_for(b, reason);

		if (!n)
			continue;
		printf("%-36s %8lu packets dropped\n", texts[reason], n);
		r = -ENOSPC;
	}
	return r;
}

static int measure(struct bench *b)
{
	struct row rows[] = {
		{ "service, established, 1 flow", false, true, 1 },
		{ "service, established, 4k flows", false, true, FEW_FLOWS },
		{ "service, established, 64k flows", false, true, MANY_FLOWS },
		{ "service, new flow", true, true, 1 },
		{ "no service, established, 1 flow", false, false, 1 },
		{ "no service, established, 4k flows", false, false, FEW_FLOWS },
		{ "no service, new flow", true, false, 1 },
	};
	int n = sizeof(rows) / sizeof(rows[0]), r = 0;
	double empty_ns = 0, ns;

	r = aim(b, b->hook->progs.wag_from_pod);
	if (r == 0)
		r = fill(b);
	for (int round = 0; r == 0 && round < b->rounds; round++) {
		r = aim(b, b->gen->progs.empty);
		if (r == 0)
			r = send_chunk(b, true, 0, CHUNK, CHUNK * 4, &ns);
		if (r == 0 && (!empty_ns || ns < empty_ns))
			empty_ns = ns;
		if (r == 0)
			r = aim(b, b->hook->progs.wag_from_pod);
		for (int i = 0; r == 0 && i < n; i++)
			r = measure_row(b, &rows[i], empty_ns);
	}
	if (r < 0)
		return r;
	printf("%-36s %8.0f ns (generator and empty program)\n", "empty", empty_ns);
	for (int i = 0; i < n; i++)
		printf("%-36s %8.0f ns over empty\n", rows[i].name, rows[i].best_ns);
	printf("%-36s %8u entries of %u\n", "conntrack", entries_used(b), b->table);
	return report_drops(b);
}

int main(int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "services", required_argument, NULL, 's' },
		{ "table", required_argument, NULL, 't' },
		{ "fill", required_argument, NULL, 'f' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "no-flow-cache", no_argument, NULL, 'n' },
		{},
	};
	struct bench b = { .services = 10000, .table = 1 << 20, .fill_percent = 90, .rounds = 9,
			   .next_new = 1 << 22, .flow_cache = true };
	int c, r = 0;

	while ((c = getopt_long(argc, argv, "", longopts, NULL)) != -1) {
		if (c == 'n')
			b.flow_cache = false;
		else if (c == 's')
			b.services = atoi(optarg);
		else if (c == 't')
			b.table = atoi(optarg);
		else if (c == 'f')
			b.fill_percent = atoi(optarg);
		else if (c == 'r')
			b.rounds = atoi(optarg);
		else
			return 2;
	}
	libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
	r = load(&b);
	if (r == 0)
		r = measure(&b);
	if (r < 0)
		fprintf(stderr, "bench_testrun: %s\n", strerror(-r));
	ring_buffer__free(b.events);
	bench_testgen__destroy(b.gen);
	hook_pod__destroy(b.hook);
	return r < 0;
}
