/* SPDX-License-Identifier: Apache-2.0 */
/* The packet programs over maps of their own, in a network namespace of their own. */
#pragma once

#include <linux/bpf.h>
#include <waggle/abi_config.h>
#include <waggle/abi_event.h>
#include <waggle/abi_maps.h>
#include <waggle/abi_reason.h>

#include "frame.h"

#define V_PASS (-1)
#define V_DROP 2
#define V_REDIRECT 7

#define SEC_NS 1000000000ULL
#define EVENTS_KEPT 64

#define TUNNEL_VNI 1
#define TUNNEL_PORT 8472

enum hook { FROM_POD, TO_POD, FROM_NET, TO_NET, FROM_TUNNEL, TO_TUNNEL, ADOPT, HOOKS };

struct hook_pod;
struct hook_net;
struct hook_tunnel;
struct packed;
struct ring_buffer;

struct world {
	struct wag_config cfg;
	bool v6; /* the family of the test that runs */
	struct hook_pod *pod;
	struct hook_net *net;
	struct hook_tunnel *tunnel;
	struct packed *packed;
	struct ring_buffer *ring;
	struct wag_event events[EVENTS_KEPT]; /* since the last world_drain */
	unsigned n_events;
	int prog[HOOKS];
	int ct, ct_ring, ct_clock, svc, svc_state, slot, backend, pods, node_addr, cidr, device,
		hostport, nodes, frag, frag_hold, stats, map_errors, runtime, ipcache, policy, rule,
		port_rule, port_exact, rule_stat;
	/* Of what comes in by the tunnel: who packed it, or (plain) that nobody did. */
	enum who packer;
	__u32 packer_vni;
	bool plain;
	__u16 port; /* the source port the programs chose last */
	__u32 mark;    /* of the last packet */
	__u64 tstamp;
};

struct backend {
	enum who who;
	__u16 port;
};

struct stats {
	__u64 packets[WAG_REASON_COUNT];
	__u64 bytes[WAG_REASON_COUNT];
};

/* A namespace with devices and routes; both of the process's life. */
int world_enter(void);

void world_defaults(struct wag_config *cfg);
int world_open(struct world *w, const struct wag_config *cfg);
void world_close(struct world *w);
struct bpf_object;
/* Before obj is loaded: it uses the world's maps. 0 or -errno. */
int world_share_maps(struct world *w, struct bpf_object *obj);

/* Empties every map, then puts in the pods and the node's addresses. */
void world_reset(struct world *w, bool v6);

/* Returns the verdict or -errno below -1. ingress: the packet was forwarded from another device. */
int world_run(struct world *w, enum hook hook, const struct frame *in, struct frame *ret_out);
int world_run_ctx(struct world *w, enum hook hook, const struct frame *in, struct frame *ret_out,
		  struct __sk_buff *ctx);
/* The packet has this queue_mapping when it meets the hook. */
int world_run_queued(struct world *w, enum hook hook, const struct frame *in, __u32 queue,
		     struct __sk_buff *ctx);
__u32 world_ifindex(enum hook hook);

void world_service(struct world *w, __u32 index, enum who who, __u16 port, __u8 proto, __u32 flags);
void world_backends(struct world *w, __u32 index, __u8 proto, const struct backend *backends,
		    unsigned n);
void world_backend_gone(struct world *w, __u32 index, __u8 proto, enum who who, __u16 port);
/* Where pods leave for outside: their source address there; NOBODY: the device has none. */
void world_device(struct world *w, enum who who);
/* bits of the 128; tunnel NOBODY: none. */
void world_cidr(struct world *w, enum who who, unsigned bits, __u32 flags, enum who tunnel);
void world_cidr_mtu(struct world *w, enum who who, unsigned bits, __u32 flags, enum who tunnel,
		    __u32 mtu);
void world_node(struct world *w, enum who underlay);
/* The tunnel key that the hook's last packet was given. */
void world_tunnel_key(struct world *w, enum hook hook, struct bpf_tunnel_key *ret_key);
/* Of an earlier packet; what the scratch knows besides of the flow cache's luck stays. */
void world_forget_key(struct world *w, enum hook hook);
void world_hostport(struct world *w, enum who at, __u16 port, __u8 proto, enum who pod,
		    __u16 pod_port);
void world_pod_flags(struct world *w, enum who who, __u32 flags);
void world_pod_mtu(struct world *w, enum who who, __u32 mtu);
__u64 world_rule_packets(struct world *w, __u32 rule);
void world_runtime(struct world *w, bool trace, bool migrating);

void world_stats(struct world *w, enum wag_point point, struct stats *ret_stats);
__u64 world_map_errors(struct world *w, enum wag_map_id map, int err);
void world_drain(struct world *w);
unsigned world_ct_count(struct world *w);
__u32 world_ct_used(struct world *w);
struct wag_ct_key ct_key(const struct wag_tuple *t, bool *ret_hi);
bool world_ct_get(struct world *w, const struct spec *s, bool alias, struct wag_ct *ret_ct);
/* As if every flow had its last packet so long ago. */
void world_age(struct world *w, __u64 ns);
struct wag_tuple tuple_of(const struct spec *s, bool v6);
__u64 now_ns(void);

/* ---- results ---- */
bool expect(bool ok, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void test_begin(void);
void test_end(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool test_failed(void);
unsigned tests_failed(void); /* how many of all */

/* ---- suites, one file each ---- */
void suite_cases(struct world *w);
void suite_refuse(struct world *w);
void suite_icmp(struct world *w);
void suite_adopt(struct world *w);
void suite_config(struct world *w);
void suite_fragment(struct world *w);
void suite_limit(struct world *w);
void suite_flow_cache(struct world *w);
void suite_random(struct world *w);
void suite_policy_random(struct world *w);
void suite_service(struct world *w);
void suite_tunnel(void);     /* opens a world with a tunnel */
void suite_dsr(void);
void suite_pack(void);
void suite_xdp(struct world *w);
void random_hook(struct world *w, enum hook hook, const char *name, void (*setup)(struct world *));
void suite_masquerade(void); /* opens a world that masquerades */
void suite_conntrack(void); /* opens tables of its own size */
