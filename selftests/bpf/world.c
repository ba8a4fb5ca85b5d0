// SPDX-License-Identifier: Apache-2.0
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <endian.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "world.h"
/* They name struct wag_config. */
#include "hook_net.skel.h"
#include "hook_pod.skel.h"
#include "hook_tunnel.skel.h"
#include "packed.skel.h"

#define SLOTS_PER_SERVICE 8
#define ENTRIES_MAX 16384

/* wag_pod stands for a pod's host side, wag_net and wag_out for devices, wag_tun for the tunnel. */
static const char setup[] =
	"PATH=$PATH:/usr/sbin:/sbin; set -e\n"
	"ip link set lo up\n"
	"for d in wag_pod wag_net wag_out wag_tun; do\n"
	"	ip link add $d type veth peer name ${d}1\n"
	"	echo 0 >/proc/sys/net/ipv6/conf/$d/accept_dad\n"
	"	ip link set $d up; ip link set ${d}1 up\n"
	"done\n"
	"echo 1 >/proc/sys/net/ipv4/ip_forward\n"
	"echo 1 >/proc/sys/net/ipv6/conf/all/forwarding\n"
	"ip addr add 172.16.0.1/24 dev wag_net; ip -6 addr add fd00:172::1/64 dev wag_net nodad\n"
	"ip addr add 172.16.0.2/24 dev wag_net; ip -6 addr add fd00:172::2/64 dev wag_net nodad\n"
	"ip route add 169.254.0.0/16 dev wag_net\n"
	"ip route add 198.51.100.0/24 via 172.16.0.254 dev wag_net\n"
	"ip route add 10.1.9.0/24 dev wag_out\n"
	"ip neigh add 172.16.0.3 lladdr 02:00:00:00:00:10 dev wag_net nud permanent\n"
	"ip route add unreachable 10.9.9.9/32\n"
	"ip -6 route add 2001:db8::/64 via fd00:172::fe dev wag_net\n"
	"ip -6 route add fd00:1:9::/64 dev wag_out\n"
	"ip -6 route add unreachable fd00:9::9/128\n";

int world_enter(void)
{
	struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };

	setrlimit(RLIMIT_MEMLOCK, &unlimited);
	if (unshare(CLONE_NEWNET) < 0)
		return -errno;
	return system(setup) ? -EIO : 0;
}

__u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * SEC_NS + ts.tv_nsec;
}

/* Short enough for a machine that has just booted, long enough for one that stalls. */
void world_defaults(struct wag_config *cfg)
{
	*cfg = (struct wag_config){
		.node_v4 = addr_of(NODE, false),
		.node_v6 = addr_of(NODE, true),
		.tcp_established_ns = 40 * SEC_NS,
		.tcp_syn_ns = 20 * SEC_NS,
		.tcp_closing_ns = 10 * SEC_NS,
		.udp_ns = 20 * SEC_NS,
		.udp_stream_ns = 30 * SEC_NS,
		.other_ns = 20 * SEC_NS,
		.ct_entries = 1024,
		.socket_lb = WAG_SOCKET_LB_OFF,
		.events = 1,
		.host_routing = 1,
		.flow_cache_mask = 63,
		.policy = WAG_POLICY_CFG_NODE,
	};
}

static int on_event(void *ctx, void *data, size_t size)
{
	struct world *w = ctx;

	if (w->n_events < EVENTS_KEPT)
		memcpy(&w->events[w->n_events], data, sizeof(w->events[0]));
	w->n_events++;
	return 0;
}

void world_drain(struct world *w)
{
	w->n_events = 0;
	ring_buffer__consume(w->ring);
}

/* Other objects use hook_pod's maps; the scratch and .rodata are an object's own. */
int world_share_maps(struct world *w, struct bpf_object *obj)
{
	struct bpf_map *map, *theirs;

	bpf_object__for_each_map(map, obj)
	{
		const char *name = bpf_map__name(map);

		theirs = bpf_object__find_map_by_name(w->pod->obj, name);
		if (strncmp(name, "wag_", 4) != 0 || !strcmp(name, "wag_scratch") || !theirs)
			continue;
		if (bpf_map__reuse_fd(map, bpf_map__fd(theirs)) < 0)
			return -errno;
	}
	return 0;
}

/* What comes in by the tunnel gets a tunnel key before it meets the hook. */
static int aim_packed(struct world *w)
{
	int target = bpf_map__fd(w->packed->maps.target);
	int fd = bpf_program__fd(w->tunnel->progs.wag_from_tunnel);
	__u32 zero = 0;

	return bpf_map_update_elem(target, &zero, &fd, BPF_ANY) ? -errno : 0;
}

static void find_fds(struct world *w)
{
	w->prog[FROM_TUNNEL] = bpf_program__fd(w->packed->progs.packed);
	w->prog[TO_TUNNEL] = bpf_program__fd(w->tunnel->progs.wag_to_tunnel);
	w->prog[FROM_POD] = bpf_program__fd(w->pod->progs.wag_from_pod);
	w->prog[TO_POD] = bpf_program__fd(w->pod->progs.wag_to_pod);
	w->prog[ADOPT] = bpf_program__fd(w->pod->progs.wag_ct_adopt);
	w->prog[FROM_NET] = bpf_program__fd(w->net->progs.wag_from_net);
	w->prog[TO_NET] = bpf_program__fd(w->net->progs.wag_to_net);
	w->ct = bpf_map__fd(w->pod->maps.wag_ct);
	w->ct_ring = bpf_map__fd(w->pod->maps.wag_ct_ring);
	w->ct_clock = bpf_map__fd(w->pod->maps.wag_ct_clock);
	w->svc = bpf_map__fd(w->pod->maps.wag_svc);
	w->svc_state = bpf_map__fd(w->pod->maps.wag_svc_state);
	w->slot = bpf_map__fd(w->pod->maps.wag_slot);
	w->backend = bpf_map__fd(w->pod->maps.wag_backend);
	w->pods = bpf_map__fd(w->pod->maps.wag_pods);
	w->node_addr = bpf_map__fd(w->pod->maps.wag_node_addr);
	w->cidr = bpf_map__fd(w->pod->maps.wag_cidr);
	w->device = bpf_map__fd(w->pod->maps.wag_device);
	w->nodes = bpf_map__fd(w->pod->maps.wag_nodes);
	w->hostport = bpf_map__fd(w->pod->maps.wag_hostport);
	w->frag = bpf_map__fd(w->pod->maps.wag_frag);
	w->frag_hold = bpf_map__fd(w->pod->maps.wag_frag_hold);
	w->stats = bpf_map__fd(w->pod->maps.wag_stats);
	w->map_errors = bpf_map__fd(w->pod->maps.wag_map_errors);
	w->runtime = bpf_map__fd(w->pod->maps.wag_runtime);
	w->ipcache = bpf_map__fd(w->pod->maps.wag_ipcache);
	w->policy = bpf_map__fd(w->pod->maps.wag_policy);
	w->rule = bpf_map__fd(w->pod->maps.wag_rule);
	w->port_rule = bpf_map__fd(w->pod->maps.wag_port);
	w->port_exact = bpf_map__fd(w->pod->maps.wag_port_exact);
	w->rule_stat = bpf_map__fd(w->pod->maps.wag_rule_stat);
}

int world_open(struct world *w, const struct wag_config *cfg)
{
	struct bpf_map *map;

	memset(w, 0, sizeof(*w));
	w->cfg = *cfg;
	w->pod = hook_pod__open();
	w->net = hook_net__open();
	w->tunnel = hook_tunnel__open();
	w->packed = packed__open_and_load();
	if (!w->pod || !w->net || !w->tunnel || !w->packed)
		return -EIO;
	memcpy((void *)&w->tunnel->rodata->cfg, cfg, sizeof(*cfg));
	memcpy((void *)&w->pod->rodata->cfg, cfg, sizeof(*cfg));
	memcpy((void *)&w->net->rodata->cfg, cfg, sizeof(*cfg));
	bpf_object__for_each_map(map, w->pod->obj) if (bpf_map__type(map) != BPF_MAP_TYPE_RINGBUF &&
						       bpf_map__max_entries(map) > ENTRIES_MAX)
		bpf_map__set_max_entries(map, ENTRIES_MAX);
	bpf_map__set_max_entries(w->pod->maps.wag_ct, cfg->ct_entries);
	bpf_map__set_max_entries(w->pod->maps.wag_ct_ring, cfg->ct_entries);
	bpf_map__set_max_entries(w->pod->maps.wag_flow_cache,
				 (cfg->flow_cache_mask + 1) * libbpf_num_possible_cpus());
	bpf_map__set_max_entries(w->pod->maps.wag_flow_hop,
				 WAG_FLOW_HOPS * libbpf_num_possible_cpus());
	bpf_map__set_max_entries(w->pod->maps.wag_flow_xlat,
				 (cfg->flow_cache_mask + 1) * libbpf_num_possible_cpus());
	if (hook_pod__load(w->pod) < 0 || world_share_maps(w, w->net->obj) < 0 ||
	    hook_net__load(w->net) < 0 || world_share_maps(w, w->tunnel->obj) < 0 ||
	    hook_tunnel__load(w->tunnel) < 0 || aim_packed(w) < 0)
		return -errno;
	find_fds(w);
	w->ring = ring_buffer__new(bpf_map__fd(w->pod->maps.wag_events), on_event, w, NULL);
	return w->ring ? 0 : -errno;
}

void world_close(struct world *w)
{
	ring_buffer__free(w->ring);
	packed__destroy(w->packed);
	hook_tunnel__destroy(w->tunnel);
	hook_net__destroy(w->net);
	hook_pod__destroy(w->pod);
}

static void clear_hash(int fd)
{
	__u8 key[64];

	while (!bpf_map_get_next_key(fd, NULL, key))
		bpf_map_delete_elem(fd, key);
}

static void clear_array(int fd, __u32 n, size_t value_size)
{
	__u8 *zero = calloc(libbpf_num_possible_cpus(), value_size + 8);

	for (__u32 i = 0; zero && i < n; i++)
		bpf_map_update_elem(fd, &i, zero, BPF_ANY);
	free(zero);
}

/* What the programs kept of the packets of the last milliseconds. */
static void forget_flows(struct world *w)
{
	int fd = bpf_map__fd(w->pod->maps.wag_flow_cache);

	clear_array(fd, bpf_map__max_entries(w->pod->maps.wag_flow_cache),
		    bpf_map__value_size(w->pod->maps.wag_flow_cache));
}

static void add_pod(struct world *w, enum who who)
{
	struct wag_pod pod = { .ifindex = world_ifindex(FROM_POD), .ep_id = who };

	mac_of(who, false, pod.mac);
	mac_of(who, true, pod.host_mac);
	for (int v6 = 0; v6 < 2; v6++) {
		struct wag_addr addr = addr_of(who, v6);

		bpf_map_update_elem(w->pods, &addr, &pod, BPF_ANY);
	}
}

void world_pod_flags(struct world *w, enum who who, __u32 flags)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct wag_addr addr = addr_of(who, v6);
		struct wag_pod pod;

		if (bpf_map_lookup_elem(w->pods, &addr, &pod))
			continue;
		pod.flags = flags;
		bpf_map_update_elem(w->pods, &addr, &pod, BPF_ANY);
	}
}

void world_pod_mtu(struct world *w, enum who who, __u32 mtu)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct wag_addr addr = addr_of(who, v6);
		struct wag_pod pod;

		if (bpf_map_lookup_elem(w->pods, &addr, &pod))
			continue;
		pod.mtu = mtu;
		bpf_map_update_elem(w->pods, &addr, &pod, BPF_ANY);
	}
}

void world_reset(struct world *w, bool v6)
{
	const int hashes[] = { w->ct,	     w->svc,  w->backend, w->pods,
			       w->node_addr, w->frag, w->device,  w->hostport,
			       w->ipcache,   w->policy, w->rule,  w->port_rule,
			       w->port_exact };
	const struct wag_node_addr node = { .ifindex = 1 };

	for (size_t i = 0; i < sizeof(hashes) / sizeof(hashes[0]); i++)
		clear_hash(hashes[i]);
	clear_hash(w->cidr);
	clear_hash(bpf_map__fd(w->pod->maps.wag_src_range));
	clear_hash(bpf_map__fd(w->pod->maps.wag_affinity));
	clear_array(w->ct_ring, w->cfg.ct_entries, sizeof(struct wag_ct_slot));
	clear_array(w->frag_hold, WAG_FRAG_HOLD_SLOTS, sizeof(struct wag_frag_hold));
	clear_array(w->ct_clock, 1, sizeof(struct wag_ct_clock));
	forget_flows(w);
	clear_array(w->svc_state, 32, sizeof(struct wag_svc_state));
	clear_array(w->slot, 32 * SLOTS_PER_SERVICE, sizeof(struct wag_slot));
	clear_array(w->stats, WAG_POINTS * WAG_REASONS_MAX, sizeof(struct wag_stat));
	clear_array(w->map_errors, WAG_MAP_IDS * WAG_MAP_ERRNOS, sizeof(__u64));
	world_runtime(w, false, false);
	world_drain(w);
	add_pod(w, POD_A);
	add_pod(w, POD_B);
	add_pod(w, POD_C);
	for (int f = 0; f < 4; f++) {
		struct wag_addr addr = addr_of(f / 2 ? EGRESS : NODE, f % 2);

		bpf_map_update_elem(w->node_addr, &addr, &node, BPF_ANY);
	}
	clear_hash(w->nodes);
	w->v6 = v6;
	w->port = 0;
	w->packer = PEER2;
	w->packer_vni = TUNNEL_VNI;
	w->plain = false;
}

__u32 world_ifindex(enum hook hook)
{
	return if_nametoindex(hook == FROM_POD || hook == TO_POD	  ? "wag_pod" :
			      hook == FROM_TUNNEL || hook == TO_TUNNEL ? "wag_tun" :
									 "wag_net");
}

/* local_*: in the kernel's view of a packet that arrived, the other end. */
static void pack(struct world *w)
{
	struct bpf_tunnel_key key = { .tunnel_id = w->packer_vni };
	struct wag_addr from = addr_of(w->packer, w->v6);

	if (w->v6)
		memcpy(key.local_ipv6, &from, sizeof(from));
	else
		key.local_ipv4 = be32toh(from.w[3]);
	w->packed->bss->key = key;
	w->packed->bss->flags = w->v6 ? BPF_F_TUNINFO_IPV6 : 0;
	w->packed->bss->plain = w->plain;
}

static int run_prog(struct world *w, int prog, enum hook hook, const struct frame *in,
		    struct frame *ret_out, struct __sk_buff *ctx)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts);
	struct __sk_buff ctx_out = {};

	pack(w);
	world_forget_key(w, hook);
	opts.data_in = in->data;
	opts.data_size_in = in->len;
	opts.data_out = ret_out->data;
	opts.data_size_out = sizeof(ret_out->data);
	opts.ctx_in = ctx;
	opts.ctx_size_in = sizeof(*ctx);
	opts.ctx_out = &ctx_out;
	opts.ctx_size_out = sizeof(ctx_out);
	opts.repeat = 1;
	if (bpf_prog_test_run_opts(prog, &opts) < 0)
		return -1000 - errno;
	ret_out->len = opts.data_size_out;
	ret_out->l4 = in->l4;
	w->mark = ctx_out.mark;
	w->tstamp = ctx_out.tstamp;
	return opts.retval;
}

int world_run_ctx(struct world *w, enum hook hook, const struct frame *in, struct frame *ret_out,
		  struct __sk_buff *ctx)
{
	return run_prog(w, w->prog[hook], hook, in, ret_out, ctx);
}

int world_run_queued(struct world *w, enum hook hook, const struct frame *in, __u32 queue,
		     struct __sk_buff *ctx)
{
	int target = bpf_map__fd(w->packed->maps.queue_target);
	struct frame out;
	__u32 zero = 0;

	w->packed->bss->queue = queue;
	if (bpf_map_update_elem(target, &zero, &w->prog[hook], BPF_ANY))
		return -1000 - errno;
	return run_prog(w, bpf_program__fd(w->packed->progs.queued), hook, in, &out, ctx);
}

int world_run(struct world *w, enum hook hook, const struct frame *in, struct frame *ret_out)
{
	struct __sk_buff ctx = { .ifindex = world_ifindex(hook) };

	return world_run_ctx(w, hook, in, ret_out, &ctx);
}

void world_service(struct world *w, __u32 index, enum who who, __u16 port, __u8 proto, __u32 flags)
{
	struct wag_svc_key key = {
		.addr = addr_of(who, w->v6),
		.port = htobe16(port),
		.proto = proto,
	};
	struct wag_svc svc = { .index = index, .flags = flags };

	bpf_map_update_elem(w->svc, &key, &svc, BPF_ANY);
}

void world_backend_gone(struct world *w, __u32 index, __u8 proto, enum who who, __u16 port)
{
	struct wag_backend_key key = {
		.addr = addr_of(who, w->v6),
		.svc_id = 1000 + index,
		.port = htobe16(port),
		.proto = proto,
	};

	bpf_map_delete_elem(w->backend, &key);
}

/* The Service's slots from now on, and wag_backend gains them (nothing leaves it). */
void world_backends(struct world *w, __u32 index, __u8 proto, const struct backend *backends,
		    unsigned n)
{
	struct wag_svc_state state = { .svc_id = 1000 + index };
	struct wag_backend present = {};

	state.slots = WAG_SLOTS(index * SLOTS_PER_SERVICE, n, 0);
	for (unsigned i = 0; i < n; i++) {
		__u32 at = index * SLOTS_PER_SERVICE + i;
		struct wag_slot slot = {
			.addr = addr_of(backends[i].who, w->v6),
			.port = htobe16(backends[i].port),
			.svc_id = state.svc_id,
		};
		struct wag_backend_key key = {
			.addr = slot.addr,
			.svc_id = state.svc_id,
			.port = slot.port,
			.proto = proto,
		};

		bpf_map_update_elem(w->slot, &at, &slot, BPF_ANY);
		bpf_map_update_elem(w->backend, &key, &present, BPF_ANY);
	}
	bpf_map_update_elem(w->svc_state, &index, &state, BPF_ANY);
}

void world_device(struct world *w, enum who who)
{
	__u32 ifindex = world_ifindex(FROM_NET);
	struct wag_device device = {};

	if (who) {
		device.v4 = addr_of(who, false);
		device.v6 = addr_of(who, true);
	}

	bpf_map_update_elem(w->device, &ifindex, &device, BPF_ANY);
}

void world_node(struct world *w, enum who underlay)
{
	struct wag_addr addr = addr_of(underlay, w->v6);
	const struct wag_node node = {};

	bpf_map_update_elem(bpf_map__fd(w->pod->maps.wag_nodes), &addr, &node, BPF_ANY);
}

void world_cidr(struct world *w, enum who who, unsigned bits, __u32 flags, enum who tunnel)
{
	world_cidr_mtu(w, who, bits, flags, tunnel, 0);
}

void world_cidr_mtu(struct world *w, enum who who, unsigned bits, __u32 flags, enum who tunnel,
		    __u32 mtu)
{
	struct wag_cidr_key key = { .bits = bits };
	struct wag_addr addr = addr_of(who, w->v6);
	struct wag_cidr cidr = { .flags = flags, .mtu = mtu };

	memcpy(key.addr, addr.w, sizeof(key.addr));
	if (tunnel)
		cidr.tunnel = addr_of(tunnel, w->v6);
	bpf_map_update_elem(w->cidr, &key, &cidr, BPF_ANY);
}

void world_hostport(struct world *w, enum who at, __u16 port, __u8 proto, enum who pod,
		    __u16 pod_port)
{
	struct wag_svc_key key = {
		.addr = addr_of(at, w->v6),
		.port = htobe16(port),
		.proto = proto,
	};
	struct wag_hostport value = {
		.addr = addr_of(pod, w->v6),
		.port = htobe16(pod_port),
		.ep_id = pod,
	};

	bpf_map_update_elem(w->hostport, &key, &value, BPF_ANY);
}

__u64 world_rule_packets(struct world *w, __u32 rule)
{
	int cpus = libbpf_num_possible_cpus();
	struct wag_stat *each = calloc(cpus, sizeof(*each));
	__u64 sum = 0;

	if (each && !bpf_map_lookup_elem(w->rule_stat, &rule, each))
		for (int i = 0; i < cpus; i++)
			sum += each[i].packets;
	free(each);
	return sum;
}

void world_runtime(struct world *w, bool trace, bool migrating)
{
	struct wag_runtime runtime = { .trace = trace, .migrating = migrating, .nodes = 1 };
	__u32 zero = 0;

	bpf_map_update_elem(w->runtime, &zero, &runtime, BPF_ANY);
}

void world_stats(struct world *w, enum wag_point point, struct stats *ret_stats)
{
	int cpus = libbpf_num_possible_cpus();
	struct wag_stat *each = calloc(cpus, sizeof(*each));

	memset(ret_stats, 0, sizeof(*ret_stats));
	for (__u32 reason = 0; each && reason < WAG_REASON_COUNT; reason++) {
		__u32 key = WAG_STAT_INDEX(point, reason);

		if (bpf_map_lookup_elem(w->stats, &key, each))
			continue;
		for (int cpu = 0; cpu < cpus; cpu++) {
			ret_stats->packets[reason] += each[cpu].packets;
			ret_stats->bytes[reason] += each[cpu].bytes;
		}
	}
	free(each);
}

__u64 world_map_errors(struct world *w, enum wag_map_id map, int err)
{
	__u32 key = WAG_MAP_ERROR_INDEX(map, err);
	int cpus = libbpf_num_possible_cpus();
	__u64 *each = calloc(cpus, sizeof(*each)), sum = 0;

	if (each && !bpf_map_lookup_elem(w->map_errors, &key, each))
		for (int cpu = 0; cpu < cpus; cpu++)
			sum += each[cpu];
	free(each);
	return sum;
}

unsigned world_ct_count(struct world *w)
{
	struct wag_ct_key key, *prev = NULL;
	unsigned n = 0;

	while (!bpf_map_get_next_key(w->ct, prev, &key)) {
		prev = &key;
		n++;
	}
	return n;
}

__u32 world_ct_used(struct world *w)
{
	struct wag_ct_clock clock = {};
	__u32 zero = 0;

	bpf_map_lookup_elem(w->ct_clock, &zero, &clock);
	return clock.used;
}

struct wag_tuple tuple_of(const struct spec *s, bool v6)
{
	struct wag_tuple t = {
		.saddr = addr_of(s->src, v6),
		.daddr = addr_of(s->dst, v6),
		.sport = htobe16(s->sport),
		.dport = htobe16(s->dport),
		.proto = s->proto == IPPROTO_ICMP && v6 ? IPPROTO_ICMPV6 : s->proto,
	};

	return t;
}

struct wag_ct_key ct_key(const struct wag_tuple *t, bool *ret_hi)
{
	bool hi = t->saddr.d[1] != t->daddr.d[1]   ? t->saddr.d[1] > t->daddr.d[1]
		  : t->saddr.d[0] != t->daddr.d[0] ? t->saddr.d[0] > t->daddr.d[0]
						   : t->sport > t->dport;
	struct wag_ct_key key = {
		.lo = hi ? t->daddr : t->saddr,
		.hi = hi ? t->saddr : t->daddr,
		.lo_port = hi ? t->dport : t->sport,
		.hi_port = hi ? t->sport : t->dport,
		.proto = t->proto,
	};

	if (ret_hi)
		*ret_hi = hi;
	return key;
}

bool world_ct_get(struct world *w, const struct spec *s, bool alias, struct wag_ct *ret_ct)
{
	struct wag_tuple t = tuple_of(s, w->v6);
	struct wag_ct_key key = ct_key(&t, NULL);

	key.alias = alias;
	return !bpf_map_lookup_elem(w->ct, &key, ret_ct);
}

/* Keys first: an update moves its element within the bucket, and a walk would meet it again. */
static void age_entries(struct world *w, __u64 ns)
{
	struct wag_ct_key *keys = calloc(w->cfg.ct_entries, sizeof(*keys)), *prev = NULL;
	struct wag_ct ct;
	__u32 n = 0;

	while (keys && n < w->cfg.ct_entries && !bpf_map_get_next_key(w->ct, prev, &keys[n]))
		prev = &keys[n++];
	while (n--) {
		if (bpf_map_lookup_elem(w->ct, &keys[n], &ct))
			continue;
		ct.seen_ns = ct.seen_ns > ns ? ct.seen_ns - ns : 1;
		bpf_map_update_elem(w->ct, &keys[n], &ct, BPF_EXIST);
	}
	free(keys);
}

void world_age(struct world *w, __u64 ns)
{
	struct wag_ct_slot slot;

	age_entries(w, ns);
	forget_flows(w);
	for (__u32 i = 0; i < w->cfg.ct_entries; i++) {
		if (bpf_map_lookup_elem(w->ct_ring, &i, &slot) || !slot.key.proto)
			continue;
		/* The lowest bit says what the hand saw. */
		slot.check_ns = (slot.check_ns > ns ? slot.check_ns - ns : 0) | (slot.check_ns & 1);
		bpf_map_update_elem(w->ct_ring, &i, &slot, BPF_ANY);
	}
}
