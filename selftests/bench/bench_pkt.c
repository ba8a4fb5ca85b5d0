// SPDX-License-Identifier: Apache-2.0
/*
 * Live frames through a node: sends packets into a client pod's interface, so that they arrive at
 * the node's end of its veth, and counts every one of them at the backends. Reads commands from
 * stdin and answers each with one line:
 *   open FIRST COUNT        opens flows by a handshake (SYN, SYN-ACK, ACK), untimed: "ok", or
 *                           "of SENT, SEEN arrived" where some packets were lost every time
 *   run syn|ack FIRST COUNT TIMES   sends COUNT flows' packets TIMES over: "NS SENT SEEN"
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bench_gen.skel.h"

#define OUTER_BYTES 50
#define FRAME_BYTES 54
#define BATCH 64
#define OPEN_BLOCK 65536 /* setting up frames costs some 20 ms a call */
#define OPEN_TRIES 5	 /* an ordinary task may be kept from the queues until they are full */
#define BACKENDS_MAX 8
#define CPUS_MAX 1024

enum { SEEN_BACKEND, SEEN_CLIENT };
enum { TUNNEL_NONE, TUNNEL_AT_CLIENT, TUNNEL_AT_BACKEND };

struct options {
	const char *node_ns, *node_if, *client_ns, *client_if;
	const char *backends[BACKENDS_MAX];
	int backend_count, cpu;
	bool fifo;
	bool at_wire;	   /* client and backend are at the client's link, and counted in XDP */
	bool node_has_xdp;
	uint32_t client_addr, more_addrs, target_addr;
	uint16_t target_port;
	uint32_t tunnel_at; /* bench_frame.h TUNNEL_* */
	uint8_t outer[OUTER_BYTES], src_mac[6], dst_mac[6];
	bool has_macs;
};

static int enter_ns(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = setns(fd, CLONE_NEWNET) < 0 ? -errno : 0;
	close(fd);
	return r;
}

static int read_mac(const char *ifname, uint8_t *mac)
{
	struct ifreq ifr = {};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r = 0;

	if (fd < 0)
		return -errno;
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", ifname);
	if (ioctl(fd, SIOCGIFHWADDR, &ifr) < 0)
		r = -errno;
	memcpy(mac, ifr.ifr_hwaddr.sa_data, 6);
	close(fd);
	return r;
}

/* Where both are at one interface, a timed packet meets at_backend only. */
enum { PRIORITY_BACKEND = 1, PRIORITY_CLIENT };

static int attach_tc(const char *ns, const char *ifname, struct bpf_program *prog,
		     uint32_t priority)
{
	DECLARE_LIBBPF_OPTS(bpf_tc_hook, hook, .attach_point = BPF_TC_INGRESS);
	DECLARE_LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = bpf_program__fd(prog),
			    .priority = priority);
	int r = enter_ns(ns);

	if (r < 0)
		return r;
	hook.ifindex = if_nametoindex(ifname);
	r = bpf_tc_hook_create(&hook);
	if (r < 0 && r != -EEXIST)
		return r;
	return bpf_tc_attach(&hook, &opts);
}

static void detach_tc(const char *ns, const char *ifname)
{
	DECLARE_LIBBPF_OPTS(bpf_tc_hook, hook,
			    .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);

	if (enter_ns(ns) < 0)
		return;
	hook.ifindex = if_nametoindex(ifname);
	bpf_tc_hook_destroy(&hook);
}

static int load(const struct options *o, struct bench_gen **ret)
{
	struct bench_gen *skel = bench_gen__open();
	int r;

	if (!skel)
		return -errno;
	r = enter_ns(o->node_ns);
	if (r == 0)
		r = read_mac(o->node_if, (uint8_t *)skel->rodata->dst_mac);
	if (r == 0)
		r = enter_ns(o->client_ns);
	if (r == 0)
		r = read_mac(o->client_if, (uint8_t *)skel->rodata->src_mac);
	skel->rodata->out_ifindex = if_nametoindex(o->client_if);
	skel->rodata->client_addr = o->client_addr;
	skel->rodata->more_addrs = o->more_addrs;
	skel->rodata->target_addr = o->target_addr;
	skel->rodata->target_port = o->target_port;
	skel->rodata->tunnel_at = o->tunnel_at;
	memcpy((void *)skel->rodata->outer, o->outer, sizeof(o->outer));
	if (o->has_macs) {
		memcpy((void *)skel->rodata->src_mac, o->src_mac, 6);
		memcpy((void *)skel->rodata->dst_mac, o->dst_mac, 6);
	}
	if (r == 0)
		r = bench_gen__load(skel);
	if (r < 0) {
		bench_gen__destroy(skel);
		return r;
	}
	*ret = skel;
	return 0;
}

static int attach(const struct options *o, struct bench_gen *skel)
{
	int r = enter_ns(o->node_ns);

	if (r < 0)
		return r;
	if (!o->node_has_xdp)
		skel->links.pass =
			bpf_program__attach_xdp(skel->progs.pass, if_nametoindex(o->node_if));
	if (!o->node_has_xdp && !skel->links.pass)
		return -errno;
	if (o->at_wire) {
		r = enter_ns(o->client_ns);
		if (r == 0)
			skel->links.at_wire = bpf_program__attach_xdp(
				skel->progs.at_wire, if_nametoindex(o->client_if));
		return r < 0 ? r : skel->links.at_wire ? 0 : -errno;
	}
	for (int i = 0; i < o->backend_count; i++) {
		r = attach_tc(o->backends[i], "eth0", skel->progs.at_backend, PRIORITY_BACKEND);
		if (r < 0)
			return r;
	}
	return attach_tc(o->client_ns, o->client_if, skel->progs.at_client, PRIORITY_CLIENT);
}

static void detach(const struct options *o)
{
	if (o->at_wire)
		return; /* links go with the program */
	for (int i = 0; i < o->backend_count; i++)
		detach_tc(o->backends[i], "eth0");
	detach_tc(o->client_ns, o->client_if);
}

static uint64_t seen(struct bench_gen *skel, uint32_t kind)
{
	uint64_t per_cpu[CPUS_MAX] = {}, sum = 0;

	if (bpf_map_lookup_elem(bpf_map__fd(skel->maps.seen), &kind, per_cpu) < 0)
		return 0;
	for (int i = 0; i < libbpf_num_possible_cpus(); i++)
		sum += per_cpu[i];
	return sum;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

struct burst {
	bool syn, reflect;
	uint32_t first, count, packets;
};

/*
 * *ret_ns is the kernel's own time (it leaves out setting up the frames) where all packets had
 * arrived when the call returned, else the time until they had.
 */
static int send_burst(struct bench_gen *skel, const struct burst *b, uint64_t *ret_ns,
		      uint64_t *ret_seen)
{
	uint8_t data[OUTER_BYTES + FRAME_BYTES] = {};
	size_t size = FRAME_BYTES + (skel->rodata->tunnel_at == TUNNEL_AT_CLIENT ? OUTER_BYTES : 0);
	DECLARE_LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = data, .data_size_in = size,
			    .repeat = b->packets, .flags = BPF_F_TEST_XDP_LIVE_FRAMES,
			    .batch_size = BATCH);
	uint64_t before = seen(skel, SEEN_BACKEND), start, arrived;
	int r;

	skel->bss->next_flow = 0;
	skel->bss->first_flow = b->first;
	skel->bss->flow_count = b->count;
	skel->bss->syn = b->syn;
	skel->bss->reflect = b->reflect;
	start = now_ns();
	r = bpf_prog_test_run_opts(bpf_program__fd(skel->progs.generate), &opts);
	if (r < 0)
		return -errno;
	*ret_ns = (uint64_t)opts.duration * b->packets;
	arrived = seen(skel, SEEN_BACKEND) - before;
	while (arrived < b->packets && now_ns() - start < 2000000000ULL) {
		usleep(100);
		arrived = seen(skel, SEEN_BACKEND) - before;
		*ret_ns = now_ns() - start;
	}
	*ret_seen = arrived;
	return 0;
}

/* Until all have arrived, as TCP would. *ret_seen: of the last try. */
static int send_whole(struct bench_gen *skel, const struct burst *b, uint64_t *ret_seen)
{
	for (int i = 0; i < OPEN_TRIES; i++) {
		uint64_t ns, arrived, answers = seen(skel, SEEN_CLIENT);
		int r = send_burst(skel, b, &ns, &arrived);

		if (r < 0)
			return r;
		answers = seen(skel, SEEN_CLIENT) - answers;
		*ret_seen = b->reflect && answers < arrived ? answers : arrived;
		if (*ret_seen >= b->packets)
			break;
	}
	return 0;
}

static int open_flows(struct bench_gen *skel, uint32_t first, uint32_t count)
{
	for (uint32_t done = 0; done < count;) {
		uint32_t n = count - done < OPEN_BLOCK ? count - done : OPEN_BLOCK;
		struct burst b = { .syn = true, .reflect = true, .first = first + done,
				   .count = n, .packets = n };
		uint64_t arrived;
		int r = send_whole(skel, &b, &arrived);

		if (r == 0 && arrived >= n) {
			b.syn = b.reflect = false;
			r = send_whole(skel, &b, &arrived);
		}
		if (r < 0)
			return r;
		if (arrived < n) {
			printf("of %u, %lu arrived\n", n, arrived);
			return 0;
		}
		done += n;
	}
	printf("ok\n");
	return 0;
}

static int command(struct bench_gen *skel, char *line)
{
	uint32_t first, count, times;
	uint64_t ns, arrived;
	char kind[8];
	int r;

	if (sscanf(line, "open %u %u", &first, &count) == 2)
		return open_flows(skel, first, count);
	if (sscanf(line, "run %7s %u %u %u", kind, &first, &count, &times) == 4) {
		struct burst b = { .syn = !strcmp(kind, "syn"), .first = first, .count = count,
				   .packets = count * times };

		r = send_burst(skel, &b, &ns, &arrived);
		if (r < 0)
			return r;
		printf("%lu %u %lu\n", ns, b.packets, arrived);
		return 0;
	}
	return -EINVAL;
}

static int pin_here(const struct options *o)
{
	struct sched_param param = { .sched_priority = 1 };
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(o->cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		return -errno;
	if (o->fifo && sched_setscheduler(0, SCHED_FIFO, &param) < 0)
		return -errno;
	return 0;
}

static int parse_addr(const char *text, uint32_t *ret_host_order)
{
	struct in_addr a;

	if (inet_pton(AF_INET, text, &a) != 1)
		return -EINVAL;
	*ret_host_order = ntohl(a.s_addr);
	return 0;
}

static int parse_hex(const char *text, uint8_t *ret, size_t size)
{
	if (strlen(text) != 2 * size)
		return -EINVAL;
	for (size_t i = 0; i < size; i++)
		if (sscanf(text + 2 * i, "%2hhx", &ret[i]) != 1)
			return -EINVAL;
	return 0;
}

/* --tunnel client:OUTER (what to put before each frame, as hex) or backend */
static int parse_tunnel(const char *text, struct options *o)
{
	o->tunnel_at = strcmp(text, "backend") ? TUNNEL_AT_CLIENT : TUNNEL_AT_BACKEND;
	if (o->tunnel_at == TUNNEL_AT_BACKEND)
		return 0;
	return strncmp(text, "client:", 7) ? -EINVAL
					   : parse_hex(text + 7, o->outer, sizeof(o->outer));
}

/* --macs SOURCE and DESTINATION in one row of hex, where they are not those of the client's link */
static int parse_macs(const char *text, struct options *o)
{
	uint8_t both[12];
	int r = parse_hex(text, both, sizeof(both));

	memcpy(o->src_mac, both, 6);
	memcpy(o->dst_mac, both + 6, 6);
	o->has_macs = r == 0;
	return r;
}

static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option longopts[] = {
		{ "node-ns", required_argument, NULL, 'n' },
		{ "node-if", required_argument, NULL, 'i' },
		{ "client-ns", required_argument, NULL, 'c' },
		{ "backend-ns", required_argument, NULL, 'b' },
		{ "client-addr", required_argument, NULL, 'a' },
		{ "more-addrs", required_argument, NULL, 'm' },
		{ "target-addr", required_argument, NULL, 't' },
		{ "target-port", required_argument, NULL, 'p' },
		{ "cpu", required_argument, NULL, 'C' },
		{ "fifo", no_argument, NULL, 'F' },
		{ "at-wire", no_argument, NULL, 'W' },
		{ "node-has-xdp", no_argument, NULL, 'X' },
		{ "tunnel", required_argument, NULL, 'T' },
		{ "macs", required_argument, NULL, 'M' },
		{},
	};
	int c, r = 0;

	while (r == 0 && (c = getopt_long(argc, argv, "", longopts, NULL)) != -1) {
		switch (c) {
		case 'n': o->node_ns = optarg; break;
		case 'i': o->node_if = optarg; break;
		case 'c': o->client_ns = optarg; break;
		case 'b':
			if (o->backend_count == BACKENDS_MAX)
				return -E2BIG;
			o->backends[o->backend_count++] = optarg;
			break;
		case 'a': r = parse_addr(optarg, &o->client_addr); break;
		case 'm': r = parse_addr(optarg, &o->more_addrs); break;
		case 't': r = parse_addr(optarg, &o->target_addr); break;
		case 'p': o->target_port = atoi(optarg); break;
		case 'C': o->cpu = atoi(optarg); break;
		case 'F': o->fifo = true; break;
		case 'W': o->at_wire = true; break;
		case 'X': o->node_has_xdp = true; break;
		case 'T': r = parse_tunnel(optarg, o); break;
		case 'M': r = parse_macs(optarg, o); break;
		default: r = -EINVAL;
		}
	}
	if (r == 0 && (!o->node_ns || !o->node_if || !o->client_ns ||
		       (!o->backend_count && !o->at_wire)))
		r = -EINVAL;
	return r;
}

int main(int argc, char **argv)
{
	struct options o = { .client_if = "eth0" };
	struct bench_gen *skel = NULL;
	char line[256];
	int r = parse_options(argc, argv, &o);

	libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
	if (r == 0)
		r = load(&o, &skel);
	if (r == 0) {
		r = attach(&o, skel);
		if (r == 0)
			r = enter_ns(o.client_ns); /* where the frames are made */
		if (r == 0)
			r = pin_here(&o);
		if (r == 0)
			printf("ready\n");
		fflush(stdout);
		while (r == 0 && fgets(line, sizeof(line), stdin)) {
			r = command(skel, line);
			fflush(stdout);
		}
		detach(&o);
		bench_gen__destroy(skel);
	}
	if (r < 0)
		fprintf(stderr, "bench_pkt: %s\n", strerror(-r));
	return r < 0;
}
