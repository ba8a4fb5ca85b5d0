// SPDX-License-Identifier: Apache-2.0
/* The objects, and which map each of them works on. */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <waggle/cleanup.h>
#include "dataplane_internal.h"
#include "hook_limit.skel.h"
#include "hook_net.skel.h"
#include "hook_pod.skel.h"
#include "hook_sock.skel.h"
#include "hook_tunnel.skel.h"
#include "hook_xdp.skel.h"

#define SEC_NS 1000000000ULL
#define OBJECTS 6
#define FLOW_CACHE_MIN 512
#define FLOW_CACHE_BYTES_MAX (32U << 20) /* of all CPUs together */

/* ---- what libbpf says while it loads ---- */

struct load_log {
	char *text;
	size_t len, room;
};

/* libbpf's print function has no context argument; one thread loads at a time. */
static __thread struct load_log *load_log;

static int keep_line(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	struct load_log *log = load_log;
	va_list again;
	int n;

	if (!log || level == LIBBPF_DEBUG)
		return 0;
	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, again);
	va_end(again);
	if (n > 0 && log->len + (size_t)n + 1 > log->room) {
		size_t room = (log->len + (size_t)n + 1) * 2;
		char *text = realloc(log->text, room);

		if (!text)
			return 0;
		log->text = text;
		log->room = room;
	}
	if (n > 0)
		log->len += (size_t)vsnprintf(log->text + log->len, log->room - log->len, fmt, ap);
	return n;
}

/* The last lines that say something: libbpf's own "failed to load object" comes after them. */
static const char *last_lines(const struct load_log *log, size_t want)
{
	const char *end, *p;

	if (!log->text)
		return "no log";
	end = strstr(log->text, "-- END PROG LOAD LOG --");
	if (end)
		log->text[end - log->text] = 0;
	p = log->text + strlen(log->text);
	end = p;
	while (p > log->text && (size_t)(end - p) < want)
		p--;
	while (p > log->text && p < end && p[-1] != '\n')
		p++;
	return p;
}

static int load_failed(const char *name, int r, const struct load_log *log, struct wag_err *err)
{
	struct utsname uts;
	const char *prog, *hint = "report these lines with the kernel's version";

	uname(&uts);
	prog = log->text ? strstr(log->text, "prog '") : NULL;
	prog = prog ? prog + strlen("prog '") : NULL;
	if (r == -EPERM)
		hint = "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";
	else if (strstr(log->text ? log->text : "", "BPF program is too large"))
		hint = "this kernel's verifier gives up: see docs/testing.md for the kernels tried";
	else if (r == -ENOMEM || r == -E2BIG)
		hint = "lower --ct-max, --svc-max or --slot-max, or free memory";
	else if (strstr(log->text ? log->text : "", "BTF is required"))
		hint = "a kernel with CONFIG_DEBUG_INFO_BTF is needed";
	return wag_err_set(err, r, "%s%s%.*s does not load on Linux %s: %s (%s):\n%s", name,
			   prog ? " " : "", prog ? (int)strcspn(prog, "'") : 0, prog ? prog : "",
			   uts.release, strerror(-r), hint, last_lines(log, 240));
}

/* ---- objects ---- */

struct bpf_object *dp_object(const struct dataplane *dp, unsigned i)
{
	switch (i) {
	case 0:
		return dp->pod ? dp->pod->obj : NULL;
	case 1:
		return dp->net ? dp->net->obj : NULL;
	case 2:
		return dp->sock ? dp->sock->obj : NULL;
	case 3:
		return dp->tunnel ? dp->tunnel->obj : NULL;
	case 4:
		return dp->limit ? dp->limit->obj : NULL;
	case 5:
		return dp->xdp ? dp->xdp->obj : NULL;
	default:
		return NULL;
	}
}

int dp_prog_fd(const struct dataplane *dp, const char *name)
{
	for (unsigned i = 0; i < OBJECTS; i++) {
		struct bpf_object *obj = dp_object(dp, i);
		struct bpf_program *prog = obj ? bpf_object__find_program_by_name(obj, name) : NULL;

		if (prog)
			return bpf_program__fd(prog);
	}
	return -ENOENT;
}

size_t dataplane_n_programs(const struct dataplane *dp)
{
	struct bpf_program *prog;
	size_t n = 0;

	for (unsigned i = 0; i < OBJECTS; i++) {
		struct bpf_object *obj = dp_object(dp, i);

		if (!obj)
			continue;
		bpf_object__for_each_program(prog, obj) n++;
	}
	return n;
}

/* For each CPU; a machine with many gets less for each. */
static uint32_t flow_cache_entries(void)
{
	uint64_t of_each = (uint64_t)libbpf_num_possible_cpus() * WAG_FLOW_CACHE_BYTES;
	uint32_t n = WAG_FLOW_CACHE;

	while (n > FLOW_CACHE_MIN && n * of_each > FLOW_CACHE_BYTES_MAX)
		n /= 2;
	return n;
}

static struct wag_config make_config(const struct dataplane_options *o)
{
	return (struct wag_config){
		.node_v4 = o->node_v4,
		.node_v6 = o->node_v6,
		.tcp_established_ns = 8000 * SEC_NS,
		.tcp_syn_ns = 60 * SEC_NS,
		.tcp_closing_ns = 10 * SEC_NS,
		.udp_ns = 60 * SEC_NS,
		.udp_stream_ns = 180 * SEC_NS,
		.other_ns = 60 * SEC_NS,
		.ct_entries = o->ct_max,
		.socket_lb = o->socket_lb,
		.has_set_retval = libbpf_probe_bpf_helper(BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
							  BPF_FUNC_set_retval, NULL) == 1,
		.has_coarse_clock =
			libbpf_probe_bpf_helper(BPF_PROG_TYPE_SCHED_CLS,
						BPF_FUNC_ktime_get_coarse_ns, NULL) == 1,
		.events = 1,
		.host_routing = o->host_routing,
		.flow_cache_mask = flow_cache_entries() - 1,
		.loopback_node_ports = o->loopback_node_ports,
		.masquerade_v4 = o->masquerade_v4,
		.masquerade_v6 = o->masquerade_v6,
		.policy = (o->allow_localhost ? WAG_POLICY_CFG_NODE : 0) |
			  (o->policy_audit ? WAG_POLICY_CFG_AUDIT : 0),
		.tunnel_ifindex = o->tunnel.dev.ifindex,
		.tunnel_vni = o->tunnel.vni,
		.tunnel_port = htons(o->tunnel.port),
		.tunnel_sport_min = o->tunnel.sport_min,
		.tunnel_sport_max = o->tunnel.sport_max,
		.tunnel_head = htonl(o->tunnel.head),
	};
}

static int open_objects(struct dataplane *dp, const struct dataplane_options *o)
{
	const struct wag_config config = make_config(o);

	dp->pod = hook_pod__open();
	if (!dp->pod)
		return -errno;
	memcpy((void *)&dp->pod->rodata->cfg, &config, sizeof(config));
	dp->net = hook_net__open();
	if (!dp->net)
		return -errno;
	memcpy((void *)&dp->net->rodata->cfg, &config, sizeof(config));
	if (o->tunnel.dev.ifindex) {
		dp->tunnel = hook_tunnel__open();
		if (!dp->tunnel)
			return -errno;
		memcpy((void *)&dp->tunnel->rodata->cfg, &config, sizeof(config));
	}
	dp->limit = hook_limit__open();
	if (!dp->limit)
		return -errno;
	memcpy((void *)&dp->limit->rodata->cfg, &config, sizeof(config));
	if (o->acceleration) {
		dp->xdp = hook_xdp__open();
		if (!dp->xdp)
			return -errno;
		memcpy((void *)&dp->xdp->rodata->cfg, &config, sizeof(config));
	}
	if (o->socket_lb == WAG_SOCKET_LB_OFF)
		return 0;
	dp->sock = hook_sock__open();
	if (!dp->sock)
		return -errno;
	memcpy((void *)&dp->sock->rodata->cfg, &config, sizeof(config));
	return 0;
}

static void set_sizes(struct bpf_object *obj, const struct dataplane_options *o)
{
	const struct {
		const char *name;
		uint32_t max;
	} sizes[] = {
		{ "wag_ct", o->ct_max },	{ "wag_ct_ring", o->ct_max },
		{ "wag_svc", o->svc_max },	{ "wag_svc_state", o->svc_max },
		{ "wag_slot", o->slot_max },	{ "wag_backend", o->slot_max },
		{ "wag_svc_name", o->svc_max },
		{ "wag_flow_cache", flow_cache_entries() * libbpf_num_possible_cpus() },
		{ "wag_flow_xlat", flow_cache_entries() * libbpf_num_possible_cpus() },
		{ "wag_flow_hop", WAG_FLOW_HOPS * libbpf_num_possible_cpus() },
	};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct bpf_map *map = bpf_object__find_map_by_name(obj, sizes[i].name);

		if (map)
			bpf_map__set_max_entries(map, sizes[i].max);
	}
}

static void set_attach_types(struct bpf_object *obj, uint32_t attach)
{
	struct bpf_program *prog;

	bpf_object__for_each_program(prog, obj)
	{
		const char *name = bpf_program__name(prog);
		bool egress = strncmp(name, "wag_to_", 7) == 0 ||
			      strcmp(name, "wag_limit_ingress") == 0;
		int type = 0;

		if (bpf_program__type(prog) != BPF_PROG_TYPE_SCHED_CLS)
			continue;
		if (attach == WAG_ATTACH_TCX)
			type = egress ? DP_TCX_EGRESS : DP_TCX_INGRESS;
		bpf_program__set_expected_attach_type(prog, (enum bpf_attach_type)type);
	}
}

/* ---- which map ---- */

static bool compatible(const struct bpf_map *map, const struct btf *btf, int fd)
{
	struct bpf_map_info info;
	struct btf *theirs;
	bool same;

	if (dp_map_info(fd, &info) < 0 || info.type != bpf_map__type(map) ||
	    info.key_size != bpf_map__key_size(map) ||
	    info.value_size != bpf_map__value_size(map) ||
	    info.max_entries != bpf_map__max_entries(map) ||
	    info.map_flags != bpf_map__map_flags(map))
		return false;
	if (!bpf_map__btf_value_type_id(map))
		return true;
	if (!info.btf_id)
		return false;
	theirs = btf__load_from_kernel_by_id(info.btf_id);
	if (!theirs)
		return false;
	same = dp_layout_equal(theirs, info.btf_key_type_id, btf, bpf_map__btf_key_type_id(map)) &&
	       dp_layout_equal(theirs, info.btf_value_type_id, btf,
			       bpf_map__btf_value_type_id(map));
	btf__free(theirs);
	return same;
}

static int open_pin(const struct dataplane *dp, const char *sub, const char *name)
{
	char path[4096];
	int r = dp_path(path, sizeof(path), dp->pin_dir, sub, name);

	if (r < 0)
		return r;
	r = bpf_obj_get(path);
	return r < 0 ? -errno : r;
}

/* Conntrack's three maps tell one truth together: all are taken over, or none. */
static bool in_ct_group(const char *name)
{
	return strcmp(name, "wag_ct") == 0 || strcmp(name, "wag_ct_ring") == 0 ||
	       strcmp(name, "wag_ct_clock") == 0;
}

static int add_map(struct dataplane *dp, const struct bpf_map *map, const struct btf *btf)
{
	struct dp_map *m = &dp->maps[dp->n_maps];
	int fd = open_pin(dp, "maps", bpf_map__name(map));

	if (dp->n_maps == DP_MAPS_MAX)
		return -E2BIG;
	if (fd < 0 && fd != -ENOENT)
		return fd;
	snprintf(m->name, sizeof(m->name), "%s", bpf_map__name(map));
	m->fd = m->old_fd = -1;
	if (fd < 0)
		m->fresh = true;
	else if (compatible(map, btf, fd))
		m->fd = fd;
	else {
		m->fresh = true;
		m->old_fd = fd;
	}
	dp->n_maps++;
	return 0;
}

static void take_aside(struct dataplane *dp, struct bpf_object *obj, const struct btf *btf)
{
	static const char *const group[] = { "wag_ct", "wag_ct_ring", "wag_ct_clock" };
	int fds[3] = { -1, -1, -1 };
	bool all = true;

	for (size_t i = 0; i < 3; i++) {
		struct bpf_map *map = bpf_object__find_map_by_name(obj, group[i]);
		const struct dp_map *m = dp_map_find(dp, group[i]);

		if (!map || !m)
			return;
		fds[i] = open_pin(dp, DP_ASIDE, group[i]);
		if (i == 0 && fds[i] < 0)
			return;
		/* Absent beside wag_ct: it was renamed already, and is what stands in maps/. */
		if (fds[i] >= 0 ? !compatible(map, btf, fds[i]) : m->fd < 0)
			all = false;
	}
	for (size_t i = 0; i < 3; i++) {
		struct dp_map *m = dp_map_find(dp, group[i]);

		if (!all || fds[i] < 0) {
			closep(&fds[i]);
			continue;
		}
		if (m->old_fd < 0)
			m->old_fd = m->fd;
		m->fd = fds[i];
		m->fresh = true;
	}
	if (all)
		dp_note(dp, "an upgrade was interrupted: going on with it");
}

static void settle_ct_group(struct dataplane *dp)
{
	bool whole = true;

	for (size_t i = 0; i < dp->n_maps; i++)
		if (in_ct_group(dp->maps[i].name) && dp->maps[i].fd < 0)
			whole = false;
	for (size_t i = 0; i < dp->n_maps && !whole; i++) {
		struct dp_map *m = &dp->maps[i];

		if (!in_ct_group(m->name) || m->fd < 0)
			continue;
		if (m->old_fd >= 0)
			closep(&m->fd);
		else
			m->old_fd = m->fd;
		m->fd = -1;
		m->fresh = true;
	}
}

static int choose_maps(struct dataplane *dp, struct bpf_object *obj)
{
	const struct btf *btf = bpf_object__btf(obj);
	struct bpf_map *map;
	int r;

	bpf_object__for_each_map(map, obj)
	{
		if (bpf_map__is_internal(map))
			continue;
		r = add_map(dp, map, btf);
		if (r < 0)
			return r;
	}
	take_aside(dp, obj, btf);
	settle_ct_group(dp);
	return 0;
}

/* The first object makes what is not there yet; the others share it. */
static int load_object(struct dataplane *dp, struct bpf_object_skeleton *skeleton)
{
	struct bpf_object *obj = *skeleton->obj;
	struct bpf_map *map;
	int r;

	bpf_object__for_each_map(map, obj)
	{
		struct dp_map *m =
			bpf_map__is_internal(map) ? NULL : dp_map_find(dp, bpf_map__name(map));

		if (m && m->fd >= 0) {
			r = bpf_map__reuse_fd(map, m->fd);
			if (r < 0)
				return r;
		}
	}
	r = bpf_object__load_skeleton(skeleton);
	if (r < 0)
		return r;
	bpf_object__for_each_map(map, obj)
	{
		struct dp_map *m =
			bpf_map__is_internal(map) ? NULL : dp_map_find(dp, bpf_map__name(map));

		if (m && m->fd < 0) {
			m->fd = dup(bpf_map__fd(map));
			if (m->fd < 0)
				return -errno;
		}
	}
	return 0;
}

static int load_all(struct dataplane *dp, const struct dataplane_options *o, struct wag_err *err,
		    struct load_log *log)
{
	struct bpf_object_skeleton *skeletons[OBJECTS];
	int r = open_objects(dp, o);

	if (r < 0)
		return load_failed("a BPF object", r, log, err);
	skeletons[0] = dp->pod->skeleton;
	skeletons[1] = dp->net->skeleton;
	skeletons[2] = dp->sock ? dp->sock->skeleton : NULL;
	skeletons[3] = dp->tunnel ? dp->tunnel->skeleton : NULL;
	skeletons[4] = dp->limit->skeleton;
	skeletons[5] = dp->xdp ? dp->xdp->skeleton : NULL;
	for (unsigned i = 0; i < OBJECTS; i++) {
		if (!skeletons[i])
			continue;
		set_sizes(dp_object(dp, i), o);
		/* A program made for TCX serves as a clsact filter too. */
		set_attach_types(dp_object(dp, i), dp->net_attach);
	}
	r = choose_maps(dp, dp->pod->obj);
	if (r < 0)
		return wag_err_set(err, r, "%s: %s", dp->pin_dir, strerror(-r));
	for (unsigned i = 0; i < OBJECTS; i++) {
		r = skeletons[i] ? load_object(dp, skeletons[i]) : 0;
		if (r < 0)
			return load_failed(skeletons[i]->name, r, log, err);
	}
	return 0;
}

int dp_load(struct dataplane *dp, const struct dataplane_options *o, struct wag_err *err)
{
	struct load_log log = { 0 };
	libbpf_print_fn_t before;
	int r;

	load_log = &log;
	before = libbpf_set_print(keep_line);
	r = load_all(dp, o, err, &log);
	libbpf_set_print(before);
	load_log = NULL;
	free(log.text);
	return r;
}

void dp_unload(struct dataplane *dp)
{
	hook_pod__destroy(dp->pod);
	hook_net__destroy(dp->net);
	hook_sock__destroy(dp->sock);
	hook_tunnel__destroy(dp->tunnel);
	hook_limit__destroy(dp->limit);
	hook_xdp__destroy(dp->xdp);
	for (size_t i = 0; i < dp->n_maps; i++) {
		closep(&dp->maps[i].fd);
		closep(&dp->maps[i].old_fd);
	}
}
