// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <waggle/abi_config.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "bpf_maps.h"
#include "bpf_trace.h"
#include "hook_net.skel.h"
#include "hook_pod.skel.h"

#define FRAME 128
#define NET_IP_ALIGN 2

/* ---- the agent's configuration, as its running program has it ---- */

static int read_rodata(uint32_t id, struct wag_config *ret)
{
	_cleanup_close_ int fd = bpf_map_get_fd_by_id(id);
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info), zero = 0;
	_cleanup_free_ char *value = NULL;

	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return -errno;
	/* cfg comes first, then the constants that the compiler has put there. */
	if (!strstr(info.name, ".rodata") || info.value_size < sizeof(*ret))
		return -ENOENT;
	value = malloc(info.value_size);
	if (!value)
		return -ENOMEM;
	if (bpf_map_lookup_elem(fd, &zero, value) < 0)
		return -errno;
	memcpy(ret, value, sizeof(*ret));
	return 0;
}

static int read_config(const struct cli *cli, struct wag_config *ret, struct wag_err *err)
{
	struct bpf_prog_info info = { 0 };
	uint32_t ids[64], len = sizeof(info);
	_cleanup_close_ int fd = -1;
	char path[4096];
	int r = -ENOENT;

	snprintf(path, sizeof(path), "%s/progs/wag_from_pod", cli->pin_dir);
	fd = bpf_obj_get(path);
	if (fd < 0)
		return wag_err_set(err, -errno, "%s: %s: has the agent run since boot?", path,
				   strerror(errno));
	info.nr_map_ids = sizeof(ids) / sizeof(ids[0]);
	info.map_ids = (uintptr_t)ids;
	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return wag_err_set(err, -errno, "%s: %s", path, strerror(errno));
	for (uint32_t i = 0; i < info.nr_map_ids && r != 0; i++)
		r = read_rodata(ids[i], ret);
	if (r < 0)
		return wag_err_set(err, r, "%s: its configuration cannot be read: use the waggle "
				   "of the running agent's version", path);
	return 0;
}

/* ---- the packet ---- */

static size_t l4(uint8_t *at, const struct wag_tuple *t)
{
	struct tcphdr *tcp = (struct tcphdr *)at;

	memset(at, 0, sizeof(*tcp));
	if (t->proto == IPPROTO_TCP) {
		tcp->doff = sizeof(*tcp) / 4;
		tcp->syn = 1;
	} else {
		((struct udphdr *)at)->len = htons(sizeof(struct udphdr));
	}
	memcpy(at, &t->sport, sizeof(t->sport));
	memcpy(at + 2, &t->dport, sizeof(t->dport));
	return sizeof(*tcp);
}

static void frame(uint8_t *buf, const struct wag_tuple *t)
{
	struct ethhdr *eth = (struct ethhdr *)buf;
	struct ip6_hdr *ip6 = (struct ip6_hdr *)(eth + 1);
	struct iphdr *ip = (struct iphdr *)(eth + 1);
	size_t len;

	if (wag_addr_is_v4(&t->saddr)) {
		len = l4((uint8_t *)(ip + 1), t);
		eth->h_proto = htons(ETH_P_IP);
		*ip = (struct iphdr){ .version = 4, .ihl = 5, .ttl = 64, .protocol = t->proto,
				      .tot_len = htons(sizeof(*ip) + len),
				      .saddr = t->saddr.w[3], .daddr = t->daddr.w[3] };
		return;
	}
	len = l4((uint8_t *)(ip6 + 1), t);
	eth->h_proto = htons(ETH_P_IPV6);
	ip6->ip6_flow = htonl(6U << 28);
	ip6->ip6_plen = htons(len);
	ip6->ip6_nxt = t->proto;
	ip6->ip6_hlim = 64;
	memcpy(&ip6->ip6_src, &t->saddr, sizeof(ip6->ip6_src));
	memcpy(&ip6->ip6_dst, &t->daddr, sizeof(ip6->ip6_dst));
}

/* ---- the programs ---- */

/* Each map that is pinned is the agent's; the packet's memory and what is told are our own. */
static int share_maps(const struct cli *cli, struct bpf_object *obj, struct wag_err *err)
{
	struct bpf_map *map;
	char path[4096];

	bpf_object__for_each_map(map, obj)
	{
		const char *name = bpf_map__name(map);
		_cleanup_close_ int fd = -1;

		if (strcmp(name, "wag_events") == 0 || strncmp(name, "wag_flow_", 9) == 0)
			continue;
		snprintf(path, sizeof(path), "%s/maps/%s", cli->pin_dir, name);
		fd = bpf_obj_get(path);
		if (fd < 0)
			continue;
		if (bpf_map__reuse_fd(map, fd) < 0)
			return wag_err_set(err, -errno, "map %s: use the waggle of the running "
					   "agent's version", name);
	}
	return 0;
}

static int on_event(void *ctx, void *data, size_t size)
{
	memcpy(ctx, data, size < sizeof(struct wag_event) ? size : sizeof(struct wag_event));
	return 0;
}

static int run(struct bpf_object *obj, const char *prog, const struct bpf_trace *t,
	       struct wag_event *ret, struct wag_err *err)
{
	struct bpf_program *p = bpf_object__find_program_by_name(obj, prog);
	struct bpf_map *events = bpf_object__find_map_by_name(obj, "wag_events");
	struct __sk_buff ctx = { .ifindex = t->ifindex };
	uint8_t room[NET_IP_ALIGN + FRAME] __attribute__((aligned(4))) = { 0 };
	uint8_t *in = room + NET_IP_ALIGN; /* what follows the Ethernet header is aligned */
	struct ring_buffer *ring;
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in, .data_size_in = FRAME,
		    .ctx_in = &ctx, .ctx_size_in = sizeof(ctx));
	int r;

	ring = ring_buffer__new(bpf_map__fd(events), on_event, ret, NULL);
	if (!ring)
		return wag_err_set(err, -errno, "ring buffer: %s", strerror(errno));
	frame(in, &t->tuple);
	opts.data_size_in = ETH_HLEN + (wag_addr_is_v4(&t->tuple.saddr) ?
						sizeof(struct iphdr) :
						sizeof(struct ip6_hdr)) + sizeof(struct tcphdr);
	r = bpf_prog_test_run_opts(bpf_program__fd(p), &opts) < 0 ? -errno : 0;
	if (r == 0)
		ring_buffer__consume(ring);
	ring_buffer__free(ring);
	return r < 0 ? wag_err_set(err, r, "running %s: %s", prog, strerror(-r)) : 0;
}

int bpf_trace_run(const struct cli *cli, const struct bpf_trace *t, struct wag_event *ret,
		  struct wag_err *err)
{
	const char *prog = t->from_pod ? "wag_from_pod" : "wag_from_net";
	struct hook_pod *pod = t->from_pod ? hook_pod__open() : NULL;
	struct hook_net *net = t->from_pod ? NULL : hook_net__open();
	struct bpf_object *obj = pod ? pod->obj : net ? net->obj : NULL;
	struct wag_config *cfg;
	int r = -ENOMEM;

	if (pod)
		r = read_config(cli, (void *)&pod->rodata->cfg, err);
	else if (net)
		r = read_config(cli, (void *)&net->rodata->cfg, err);
	if (r == 0) {
		cfg = (struct wag_config *)(pod ? &pod->rodata->cfg : &net->rodata->cfg);
		cfg->dry_run = 1;
		cfg->events = WAG_EVENTS_DRY;
		r = share_maps(cli, obj, err);
	}
	if (r == 0) {
		r = pod ? hook_pod__load(pod) : hook_net__load(net);
		if (r < 0)
			wag_err_set(err, r, "loading the programs: %s", strerror(-r));
	}
	memset(ret, 0, sizeof(*ret));
	if (r == 0)
		r = run(obj, prog, t, ret, err);
	hook_pod__destroy(pod);
	hook_net__destroy(net);
	return r;
}
