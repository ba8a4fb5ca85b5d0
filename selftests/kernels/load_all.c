// SPDX-License-Identifier: Apache-2.0
/*
 * Loads every program of every object, one at a time, in every shape the agent may give it, and
 * prints the verifier's count of instructions:
 *   ok PROGRAM SHAPE insns=N      FAIL PROGRAM SHAPE: why
 * load_all [SHAPE [PROGRAM]] loads only those; VERBOSE=1 adds what libbpf says.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <waggle/abi_config.h>
#include <waggle/abi_maps.h>

#include "hook_limit.skel.h"
#include "hook_net.skel.h"
#include "hook_pod.skel.h"
#include "hook_sock.skel.h"
#include "hook_tunnel.skel.h"
#include "hook_xdp.skel.h"

#define LOG_SIZE (1 << 24)
#define LOG_TAIL_LINES 25
#define LOG_STATS 4U /* the kernel's BPF_LOG_STATS: only the closing summary */
#define TCX_INGRESS 46
#define TCX_EGRESS 47

static char *log_buf;
static const char *only_program;
static bool verbose;

struct shape {
	const char *name;
	__u32 socket_lb;
	bool dry_run, tcx, events;
	bool by_stack; /* which forwards, and there is no tunnel */
};

static const struct shape shapes[] = {
	{ "full", WAG_SOCKET_LB_FULL, false, false, true },
	{ "host", WAG_SOCKET_LB_HOST, false, false, true, true },
	{ "off", WAG_SOCKET_LB_OFF, false, false, false },
	{ "dry-run", WAG_SOCKET_LB_FULL, true, false, true },
	{ "tcx", WAG_SOCKET_LB_FULL, false, true, true },
};

/* An opened object, its skeleton to free, and its configuration. */
struct opened {
	struct bpf_object *obj;
	struct wag_config *cfg;
	void *skel;
	void (*destroy)(void *skel);
};

static void destroy_pod(void *skel)
{
	hook_pod__destroy(skel);
}

static void destroy_net(void *skel)
{
	hook_net__destroy(skel);
}

static void destroy_sock(void *skel)
{
	hook_sock__destroy(skel);
}

static int open_pod(struct opened *o)
{
	struct hook_pod *s = hook_pod__open();

	if (!s)
		return -errno;
	*o = (struct opened){ s->obj, (struct wag_config *)&s->rodata->cfg, s, destroy_pod };
	return 0;
}

static int open_net(struct opened *o)
{
	struct hook_net *s = hook_net__open();

	if (!s)
		return -errno;
	*o = (struct opened){ s->obj, (struct wag_config *)&s->rodata->cfg, s, destroy_net };
	return 0;
}

static void destroy_tunnel(void *skel)
{
	hook_tunnel__destroy(skel);
}

static int open_tunnel(struct opened *o)
{
	struct hook_tunnel *s = hook_tunnel__open();

	if (!s)
		return -errno;
	*o = (struct opened){ s->obj, (struct wag_config *)&s->rodata->cfg, s, destroy_tunnel };
	return 0;
}

static void destroy_limit(void *skel)
{
	hook_limit__destroy(skel);
}

static int open_limit(struct opened *o)
{
	struct hook_limit *s = hook_limit__open();

	if (!s)
		return -errno;
	*o = (struct opened){ s->obj, (struct wag_config *)&s->rodata->cfg, s, destroy_limit };
	return 0;
}

static void destroy_xdp(void *skel)
{
	hook_xdp__destroy(skel);
}

static int open_xdp(struct opened *o)
{
	struct hook_xdp *s = hook_xdp__open();

	if (!s)
		return -errno;
	*o = (struct opened){ s->obj, (struct wag_config *)&s->rodata->cfg, s, destroy_xdp };
	return 0;
}

static int open_sock(struct opened *o)
{
	struct hook_sock *s = hook_sock__open();

	if (!s)
		return -errno;
	*o = (struct opened){ s->obj, (struct wag_config *)&s->rodata->cfg, s, destroy_sock };
	return 0;
}

static int (*const objects[])(struct opened *) = { open_pod, open_net, open_tunnel, open_limit,
						open_xdp, open_sock };

static int keep_error(enum libbpf_print_level level, const char *fmt, va_list args)
{
	return level == LIBBPF_WARN && verbose ? vfprintf(stderr, fmt, args) : 0;
}

/* The verifier walks the same code whatever a map's size: small ones fit a small guest. */
static void shrink_maps(struct bpf_object *obj)
{
	struct bpf_map *map;

	bpf_object__for_each_map(map, obj) {
		__u32 n = bpf_map__max_entries(map);

		if (bpf_map__type(map) != BPF_MAP_TYPE_RINGBUF && (!n || n > 4096))
			bpf_map__set_max_entries(map, 4096);
		else if (bpf_map__type(map) == BPF_MAP_TYPE_RINGBUF)
			bpf_map__set_max_entries(map, 1 << 16);
	}
}

static bool is_tc(const struct bpf_program *prog)
{
	return bpf_program__type(prog) == BPF_PROG_TYPE_SCHED_CLS;
}

static bool wanted(const struct bpf_program *prog, const struct shape *shape)
{
	if (only_program && strcmp(only_program, bpf_program__name(prog)) != 0)
		return false;
	return !shape->tcx || is_tc(prog);
}

static bool loads_as(__u32 attach_type)
{
	const struct bpf_insn insns[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = attach_type);
	int fd = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "probe", "GPL", insns, 2, &opts);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* Kernels without TCX do not look at the attach type at all, so that a wrong one loads as well. */
static bool has_tcx(void)
{
	return loads_as(TCX_INGRESS) && !loads_as(BPF_SK_LOOKUP);
}

static void print_tail(const char *log)
{
	const char *p = log + strlen(log);

	for (int lines = 0; p > log && lines <= LOG_TAIL_LINES; p--)
		lines += p[-1] == '\n';
	for (const char *nl; *p; p = nl + (*nl != 0)) {
		nl = strchrnul(p, '\n');
		printf("    | %.*s\n", (int)(nl - p), p);
	}
}

static void configure(struct wag_config *cfg, const struct shape *shape)
{
	cfg->node_v4.w[2] = htobe32(WAG_V4MAPPED_W2);
	cfg->node_v4.w[3] = htobe32(0x0a5a0001);
	cfg->node_v6.b[0] = 0xfd;
	cfg->ct_entries = 4096;
	cfg->socket_lb = shape->socket_lb;
	cfg->dry_run = shape->dry_run;
	cfg->events = shape->events;
	cfg->flow_cache_mask = WAG_FLOW_CACHE - 1;
	cfg->masquerade_v4 = cfg->masquerade_v6 = 1;
	if (!shape->by_stack) {
		cfg->host_routing = 1;
		cfg->tunnel_ifindex = 7;
		cfg->tunnel_vni = 1;
		cfg->tunnel_port = htobe16(8472);
		cfg->tunnel_head = htobe32(0x08000000);
		cfg->tunnel_sport_min = 32768;
		cfg->tunnel_sport_max = 60999;
	}
	cfg->has_set_retval = libbpf_probe_bpf_helper(BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
						      BPF_FUNC_set_retval, NULL) == 1;
	cfg->has_coarse_clock = libbpf_probe_bpf_helper(BPF_PROG_TYPE_SCHED_CLS,
							BPF_FUNC_ktime_get_coarse_ns, NULL) == 1;
}

/* Loads the object with only its nth program; false when there is no nth program. */
static bool load_one(int (*open)(struct opened *), int nth, const struct shape *shape, int *failed)
{
	struct bpf_program *prog, *mine = NULL;
	struct opened o;
	const char *count;
	int i = 0, r = open(&o);

	if (r < 0) {
		printf("FAIL object %s: does not open: %s\n", shape->name, strerror(-r));
		(*failed)++;
		return false;
	}
	configure(o.cfg, shape);
	shrink_maps(o.obj);
	bpf_object__for_each_program(prog, o.obj) {
		bpf_program__set_autoload(prog, i == nth);
		if (i++ == nth)
			mine = prog;
	}
	if (mine && wanted(mine, shape)) {
		memset(log_buf, 0, 4096);
		bpf_program__set_log_buf(mine, log_buf, LOG_SIZE);
		bpf_program__set_log_level(mine, verbose ? 1 | LOG_STATS : LOG_STATS);
		if (shape->tcx)
			bpf_program__set_expected_attach_type(
				mine, strstr(bpf_program__name(mine), "_to_") ? TCX_EGRESS :
										TCX_INGRESS);
		r = bpf_object__load(o.obj);
		count = strstr(log_buf, "processed ");
		if (r < 0) {
			printf("FAIL %s %s: %s\n", bpf_program__name(mine), shape->name,
			       strerror(-r));
			print_tail(log_buf);
			(*failed)++;
		} else {
			printf("ok %s %s insns=%d\n", bpf_program__name(mine), shape->name,
			       count ? atoi(count + strlen("processed ")) : 0);
		}
	}
	o.destroy(o.skel);
	return mine != NULL;
}

int main(int argc, char **argv)
{
	struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	bool tcx = has_tcx();
	int failed = 0;

	/* Before 5.11 maps count against this limit. */
	setrlimit(RLIMIT_MEMLOCK, &unlimited);
	verbose = getenv("VERBOSE") != NULL;
	only_program = argc > 2 ? argv[2] : NULL;
	setvbuf(stdout, NULL, _IOLBF, 0);
	libbpf_set_print(keep_error);
	log_buf = calloc(1, LOG_SIZE);
	if (!log_buf)
		return 2;
	for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
		if ((shapes[s].tcx && !tcx) || (argc > 1 && strcmp(argv[1], shapes[s].name) != 0))
			continue;
		for (size_t i = 0; i < sizeof(objects) / sizeof(objects[0]); i++)
			for (int n = 0; load_one(objects[i], n, &shapes[s], &failed);)
				n++;
	}
	free(log_buf);
	return failed ? 1 : 0;
}
