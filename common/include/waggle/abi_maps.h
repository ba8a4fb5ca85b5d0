/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Keys and values of every pinned map, in dataflow order: the one place both the BPF programs and
 * userspace take them from. All padding is explicit and zero. Ports and addresses are in network
 * byte order, everything else in host order. Times are CLOCK_MONOTONIC nanoseconds.
 *
 * Changing a struct here changes the layout of a pinned map: the agent then makes a new map and
 * carries the live entries over by member name (docs/maps.md). A change that an older agent could
 * not survive raises WAG_ABI.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <waggle/abi_addr.h>
#include <waggle/abi_policy.h>

#define WAG_ABI 2 /* 2: the policies' tables have a third generation */
#define WAG_META_MAGIC 0x77616767U /* "wagg" */

/* ---- wag_meta: ARRAY[1], userspace only. What the CNI and the CLI need while no agent runs. ----
 */
enum wag_attach { WAG_ATTACH_TCX = 1, WAG_ATTACH_CLSACT = 2 };
enum wag_socket_lb { WAG_SOCKET_LB_OFF = 0, WAG_SOCKET_LB_HOST = 1, WAG_SOCKET_LB_FULL = 2 };

/* How packets that only pass through the node are turned round before the stack (XDP). */
enum wag_acceleration {
	WAG_ACCELERATION_DISABLED = 0,
	WAG_ACCELERATION_BEST_EFFORT = 1, /* native where the driver can */
	WAG_ACCELERATION_NATIVE = 2,
	WAG_ACCELERATION_GENERIC = 3, /* by the kernel, on any device; slower than none */
};

enum wag_routing { WAG_ROUTING_NATIVE = 0, WAG_ROUTING_TUNNEL = 1, WAG_ROUTING_AUTO = 2 };

struct wag_meta {
	__u32 magic;
	__u32 abi;
	__u32 attach;	 /* enum wag_attach in force for pod interfaces */
	__u32 socket_lb; /* enum wag_socket_lb in force */
	__u32 agent_pid; /* of the last agent that ran; may be dead */
	__u32 mtu;	 /* of pod interfaces */
	__u32 route_mtu; /* of a pod's default route, where less fits through a tunnel; 0: mtu */
	__u32 routing;	 /* enum wag_routing in force */
	__u64 started_ns; /* when that agent started */
	__u64 synced_ns;  /* when it last had synced every watch; 0: never */
	struct wag_addr node_v4, node_v6; /* zero: the node has none */
	char node_name[256];
	char version[32];
};

/* ---- wag_runtime: ARRAY[1]. Switches the agent turns while the programs run. ---- */
struct wag_runtime {
	__u32 trace;	 /* not 0: somebody asks for an event per packet */
	__u32 migrating; /* not 0: conntrack is being carried over; see WAG_DROP_CT_MIGRATING */
	__u32 policies;	 /* not 0: some policy is known in the cluster; see wag_policy_ns */
	__u32 pacing;	 /* not 0: fq sends on every device of the node; see stage_limit.h */
	__u32 nodes;	 /* not 0: wag_cidr is complete; see WAG_DROP_NODES_PENDING */
	/* Another one with every change of policies' tables (abi_policy.h); 0: none ever were. */
	__u32 policy_epoch;
};

/* ---- wag_pods: HASH wag_addr -> wag_pod. Every local pod address. Written by the CNI. ---- */
struct wag_pod {
	__u32 ifindex; /* of the host side of the veth */
	__u32 ep_id;   /* key of wag_endpoint */
	__u8 mac[6];	  /* of the pod's side */
	__u8 host_mac[6]; /* of the host's side */
	__u32 flags;
	__u32 pad;
	__u32 mtu;	  /* of its interface; 0: not known */
};
/*
 * Its policy is not known yet: new flows from and to it wait (WAG_DROP_POLICY_PENDING), but for
 * those of the node itself (probes). Set by the CNI, cleared by the agent.
 */
#define WAG_POD_PENDING 1U
/* Packets to it pass the egress hook of the host side: no bpf_redirect_peer. */
#define WAG_POD_NO_PEER 2U
#define WAG_POD_CHAINED 4U /* another CNI plugin made its interface */

/*
 * ---- wag_policy_ns: HASH wag_policy_ns_key -> wag_policy_ns. Namespaces the agent has seen, so
 * that the CNI can tell without it whether a new pod may send at once.
 */
struct wag_policy_ns_key {
	char ns[64];
};

struct wag_policy_ns {
	__u32 flags; /* WAG_POLICY_NS_* */
	__u32 pad;
};
#define WAG_POLICY_NS_SELECTS 1U /* some policy selects pods here */

/* ---- wag_endpoint: HASH __u32 ep_id -> wag_endpoint, userspace only. Written by the CNI. ---- */
struct wag_endpoint {
	__u32 ifindex;
	__u32 pad;
	__u64 netns_cookie; /* 0: unknown (before Linux 5.14 until learnt) */
	struct wag_addr v4, v6; /* zero: none */
	char ifname[16];	/* host side */
	char pod_ifname[16];
	char container_id[128];
	char ns[64];   /* Kubernetes namespace; empty: not given in CNI_ARGS */
	char pod[256]; /* Kubernetes pod name */
};

/* ---- wag_node_addr: HASH wag_addr -> wag_node_addr. Every address of the node itself. ---- */
struct wag_node_addr {
	__u32 ifindex;
	__u32 flags; /* WAG_NODE_ADDR_* */
};
#define WAG_NODE_ADDR_LOOPBACK 1U
#define WAG_NODE_ADDR_NO_NODE_PORT 2U /* not one of --nodeport-addresses */

/*
 * ---- wag_cidr: LPM_TRIE wag_cidr_key -> wag_cidr. What an address that is not of this node is.
 * Where nothing matches, the address is outside of the cluster.
 */
struct wag_cidr_key {
	__u32 bits; /* of the 128: 96 more than an IPv4 prefix length */
	__be32 addr[4]; /* wag_addr.w: the trie wants no padding before it */
};

struct wag_cidr {
	struct wag_addr tunnel; /* the node to send it to packed; zero: there is no tunnel */
	__u32 flags;		/* WAG_CIDR_* */
	__u32 mtu;		/* of what fits through the tunnel; 0: no tunnel */
};
#define WAG_CIDR_PODS 1U	  /* of another node */
#define WAG_CIDR_NODE 2U	  /* another node's address */
#define WAG_CIDR_NO_MASQUERADE 4U /* pods keep their address */
#define WAG_CIDR_DIRECT 8U	  /* the node's routes lead there: packed is only what must be */

/* ---- wag_nodes: HASH wag_addr -> wag_node. Underlay addresses of the other nodes. ---- */
struct wag_node {
	__u32 flags;
	__u32 pad;
};

/* ---- wag_device: HASH __u32 ifindex -> wag_device. The devices the node is served on. ---- */
struct wag_device {
	struct wag_addr v4, v6; /* source address of what is masqueraded there; zero: none */
	__u32 mtu;
	__u32 pad;
};

/*
 * ---- wag_xdp_dev: HASH __u32 ifindex -> __u32 (1). Devices that take packets which another one's
 * XDP program sends on.
 */

/* ---- wag_netns: HASH __u64 netns cookie -> wag_netns. Whose sockets we translate. ---- */
struct wag_netns {
	__u32 flags; /* WAG_NETNS_* */
	__u32 ep_id; /* of the pod; 0 for the node itself */
};
#define WAG_NETNS_HOST 1U
#define WAG_NETNS_POD 2U

/*
 * ---- wag_netns_learn: HASH __u32 token -> __u64 cookie. Before Linux 5.14 only BPF can read a
 * namespace's cookie: whoever wants it stores token -> 0, then, inside the namespace and below the
 * agent's cgroup, connects a UDP socket to 192.0.2.x (RFC 5737) port p with
 * token = x << 16 | p (host order, p != 0), and reads the cookie from the map.
 */
#define WAG_LEARN_V4 0xc0000200U /* 192.0.2.0/24, host order: low 8 bits + port are the token */
#define WAG_LEARN_MASK 0xffffff00U

/*
 * ---- Services (docs/maps.md "Atomic service update"):
 *   wag_svc        HASH  frontend (address, port, protocol) -> index of wag_svc_state; stable while
 *                  the Service port lives
 *   wag_svc_state  ARRAY (mmapable) one aligned u64 {base, count, flags}: stored once, loaded once
 *   wag_slot       ARRAY (mmapable) wag_svc_state.slots names a range of it
 * An element freed from wag_svc, a state index or a slot range is not used again before every BPF
 * reader has left (a membarrier by the agent). A slot carries its svc_id all the same.
 */
struct wag_svc_key {
	struct wag_addr addr; /* NodePort: ::ffff:0.0.0.0 for IPv4, :: for IPv6 */
	__be16 port;
	__u8 proto;
	__u8 scope; /* 0 */
	__u32 pad;
};

struct wag_svc {
	__u32 index; /* of wag_svc_state */
	__u32 flags; /* WAG_SVC_* */
};
#define WAG_SVC_CLUSTER_IP 1U
#define WAG_SVC_NODE_PORT 2U
#define WAG_SVC_EXTERNAL_IP 4U
#define WAG_SVC_LOAD_BALANCER 8U
/* Meant for clients outside of the cluster: another traffic policy, another masquerade. */
#define WAG_SVC_EXTERNAL (WAG_SVC_NODE_PORT | WAG_SVC_EXTERNAL_IP | WAG_SVC_LOAD_BALANCER)

struct wag_svc_state {
	__u64 slots;  /* WAG_SLOTS(): base, count, flags in one word */
	__u32 svc_id; /* never used twice in one boot; 0: free */
	__u32 affinity_s; /* seconds, 0: none */
	__u64 pad[2];
};

#define WAG_SLOTS(base, count, flags) \
	((__u64)(__u32)(base) | (__u64)(__u16)(count) << 32 | (__u64)(__u16)(flags) << 48)
#define WAG_SLOTS_BASE(slots) ((__u32)(slots))
#define WAG_SLOTS_COUNT(slots) ((__u16)((slots) >> 32))
#define WAG_SLOTS_FLAGS(slots) ((__u16)((slots) >> 48))

/* The range begins with a wag_slot_head; else every slot of it is for everybody. */
#define WAG_SLOTS_HEAD 1U
/* The Service has endpoints somewhere: who finds none here is dropped, not refused. */
#define WAG_SLOTS_ANY 2U
#define WAG_SLOTS_INTERNAL_LOCAL 4U /* internalTrafficPolicy */
#define WAG_SLOTS_EXTERNAL_LOCAL 8U /* externalTrafficPolicy, of a port that has such a frontend */
#define WAG_SLOTS_SOURCE_RANGES 16U /* wag_src_range says who may ask the load balancer's */
/*
 * Clients outside of the cluster are answered by the endpoint's node (docs/services.md "DSR"),
 * through frontends that are meant for them.
 */
#define WAG_SLOTS_DSR 32U
#define WAG_SLOTS_MAGLEV 64U /* with WAG_SLOTS_HEAD: the sets have lookup tables */

struct wag_slot {
	struct wag_addr addr;
	__be16 port;
	__u16 flags;  /* WAG_BACKEND_* */
	__u32 svc_id; /* equals wag_svc_state.svc_id of the range's owner */
};

/*
 * Stands in a slot's place. The sets overlap: slots are sorted by who may have them, this node's
 * only ones first, then those of both sets, then the cluster's only ones, then those of neither.
 */
struct wag_slot_head {
	__u16 local_count, cluster_count; /* local ones begin right behind the head */
	__u32 cluster_first;		  /* from the head */
	/* WAG_SLOTS_MAGLEV: how many a set's lookup table has. 0: any slot of the set. */
	__u32 local_entries, cluster_entries;
	__u16 local_table, cluster_table; /* from the head, behind the last backend */
	__u32 svc_id;
};

/* Stands in a slot's place: a part of a lookup table. */
#define WAG_SLOT_ENTRIES 10
struct wag_slot_entries {
	__u16 at[WAG_SLOT_ENTRIES]; /* slots, from the head */
	__u32 svc_id;
};

/* ---- wag_backend: HASH. Is this address still a backend of this Service port? ---- */
struct wag_backend_key {
	struct wag_addr addr;
	__u32 svc_id;
	__be16 port;
	__u8 proto;
	__u8 pad;
};

struct wag_backend {
	__u32 flags; /* WAG_BACKEND_* */
	__u32 pad;
};
/* Who may get it for a new flow; without any it only keeps the flows it has. */
#define WAG_BACKEND_CLUSTER 1U
#define WAG_BACKEND_LOCAL 2U

/* ---- wag_src_range: LPM_TRIE. loadBalancerSourceRanges of Service ports. ---- */
struct wag_src_range_key {
	__u32 bits; /* 32, and of the 128 of addr: 96 more than an IPv4 prefix length */
	__u32 svc_id;
	__be32 addr[4]; /* wag_addr.w */
};

struct wag_src_range {
	__u32 flags; /* 0 */
};

/* ---- wag_affinity: LRU_HASH. sessionAffinity ClientIP: who a client was sent to last. ---- */
struct wag_affinity_key {
	struct wag_addr client; /* of the node itself: the address the cluster knows it by */
	__u32 svc_id;
	__u32 pad;
};

struct wag_affinity {
	struct wag_addr addr;
	__be16 port;
	__u16 pad[3];
	__u64 used_ns; /* of the client's last new flow */
};

/* ---- wag_svc_name: HASH __u32 state index -> wag_svc_name, userspace only. ---- */
struct wag_svc_name {
	__u32 svc_id;
	__u8 proto;
	__u8 family;	/* 4 or 6 */
	__u16 node_port; /* host order, 0: none */
	char ns[64];
	char name[64];
	char port_name[64];
	char type[16]; /* ClusterIP, NodePort, LoadBalancer */
};

/*
 * ---- wag_hostport: HASH wag_svc_key -> wag_hostport. Ports of the node that belong to one local
 * pod; the key's address is the one it was asked for, or a NodePort's. Written by the CNI.
 */
struct wag_hostport {
	struct wag_addr addr; /* the pod's */
	__be16 port;
	__u16 pad;
	__u32 ep_id;
};

/*
 * ---- Conntrack (docs/maps.md "Conntrack").
 * wag_ct: HASH wag_ct_key -> wag_ct. The key is the packet's tuple with its two ends in a canonical
 * order, so one entry serves both directions. A flow that is not translated has one entry. A
 * translated flow has two: the flow entry under (client', backend), which rewrites replies, and
 * the frontend entry under (client, VIP), which rewrites the original direction. Where the
 * endpoint's node translates (WAG_CT_DSR), the first node has one entry, under (client, VIP).
 */
struct wag_ct_key {
	struct wag_addr lo, hi; /* lo end sorts first: by address d[0], d[1], then port */
	__be16 lo_port, hi_port;
	__u8 proto;
	__u8 alias; /* 1: a direct flow whose tuple a translated flow already owns */
	__u16 pad;
};

enum wag_ct_flags {
	WAG_CT_ORIG_HI = 1 << 0,     /* the originator is the hi end of the key */
	WAG_CT_REWRITE_ORIG = 1 << 1,  /* frontend entry: rewrites the original direction */
	WAG_CT_REWRITE_REPLY = 1 << 2, /* flow entry of a translated flow: rewrites replies */
	WAG_CT_SEEN_REPLY = 1 << 3,
	WAG_CT_FIN_ORIG = 1 << 4,
	WAG_CT_FIN_REPLY = 1 << 5,
	WAG_CT_RST = 1 << 6,
	WAG_CT_SNAT = 1 << 7,	 /* the client's address or port was changed too */
	WAG_CT_NODE_PORT = 1 << 8,
	WAG_CT_ASSURED = 1 << 9, /* TCP: the handshake completed */
	WAG_CT_ALIASED = 1 << 10, /* flow entry whose frontend entry has key.alias set */
	WAG_CT_DSR = 1 << 11, /* goes as it is to the node of xdaddr, which answers past us */
};

struct wag_ct {
	__u64 seen_ns;
	__u64 created_ns;
	struct wag_addr xsaddr, xdaddr; /* what a packet of the rewritten direction leaves as */
	__be16 xsport, xdport;
	__u32 flags;
	__u32 svc_index; /* valid when svc_id is not 0 */
	__u32 svc_id;
	__u32 policy_epoch; /* under which the flow was judged last */
	__u32 pad2;
	__u32 slot; /* flow entry: its index in wag_ct_ring, which it alone is found by */
	/*
	 * Host side of the local pod that may send the original direction, and the reply; 0: not
	 * seen yet. Who else sends it is looked at closely (WAG_DROP_SPOOFED_SOURCE).
	 */
	__u32 orig_ifindex, reply_ifindex;
	__u32 pad;
};

/* ---- wag_ct_ring: ARRAY of wag_ct_slot; wag_ct_clock: ARRAY[1]. Ageing without the agent. ---- */
struct wag_ct_slot {
	struct wag_ct_key key; /* of a flow entry; proto 0: free */
	__u64 check_ns;	       /* no need to look at the flow before this time */
};

struct wag_ct_clock {
	struct bpf_spin_lock lock;
	__u32 hand;  /* next slot to look at */
	__u32 used;  /* entries in wag_ct, flow and frontend ones */
	__u32 pad;
};

/* ---- wag_sock: LRU_HASH. What a socket's peer was translated from and to. ---- */
struct wag_sock_key {
	__u64 cookie;
	struct wag_addr addr;
	__be16 port;
	__u8 proto;
	__u8 dir; /* WAG_SOCK_FWD: addr is a frontend, WAG_SOCK_REV: addr is a backend */
	__u32 pad;
};
#define WAG_SOCK_FWD 0
#define WAG_SOCK_REV 1

struct wag_sock {
	struct wag_addr addr; /* FWD: the backend chosen; REV: the frontend it stands for */
	__be16 port;
	__u16 pad;
	__u32 svc_index;
	__u32 svc_id;
	__u32 ep_id; /* of the pod the socket belongs to; 0: the node's own */
};

/*
 * skb->mark of a packet that is done when it meets wag_to_net, wag_to_tunnel or wag_to_pod: what we
 * sent there ourselves, and what the stack forwards to a pod after we translated it. Never leaves
 * the node.
 */
#define WAG_MARK_TRANSLATED 0x77000000U
#define WAG_MARK_MASK 0xff000000U
/* What wag_from_pod has translated for the stack: a second one of it lets it by. */
#define WAG_MARK_FROM_POD 0x79000000U
/* A fragment put back at a tunnel's ingress, where it has no tunnel key any more: it was judged. */
#define WAG_MARK_PUT_BACK 0x78000000U

/* ---- wag_frag: LRU_HASH. The ports of a datagram whose first fragment was seen. ---- */
struct wag_frag_key {
	struct wag_addr saddr, daddr;
	__be32 id; /* IPv4: the 16-bit identification in the low bits of a host-order u32, htonl */
	__u8 proto; /* IPv6: 0, the later ones may name another header */
	__u8 pad[3];
};

struct wag_frag {
	__be16 sport, dport;
	__u8 proto;
	__u8 pad[3];
	__u64 time_ns;
};

/*
 * ---- wag_frag_hold: ARRAY of wag_frag_hold. Later fragments that came before their first one,
 * held until it comes (docs/packet-walk.md "Fragments"). A datagram's stand in one set of ways.
 */
#define WAG_FRAG_HOLD_MAX 9232 /* bytes of one frame: a jumbo one */
#define WAG_FRAG_HOLD_SETS 4
#define WAG_FRAG_HOLD_WAYS 32
#define WAG_FRAG_HOLD_SLOTS (WAG_FRAG_HOLD_SETS * WAG_FRAG_HOLD_WAYS)

enum wag_frag_state {
	WAG_FRAG_FREE,
	WAG_FRAG_BUSY, /* one CPU writes or reads the frame */
	WAG_FRAG_FULL,
};

struct wag_frag_hold {
	struct bpf_spin_lock lock; /* of state */
	__u32 state;
	struct wag_frag_key key;
	__u64 time_ns;
	__u32 held;    /* first way of a set only: how many of its ways are not free */
	__u32 ifindex; /* where it came in */
	__u32 len;
	__u8 point;
	__u8 proto;
	__u8 pad[2];
	__u8 frame[WAG_FRAG_HOLD_MAX];
};

/* ---- wag_limit: HASH wag_limit_key -> wag_limit. Bandwidth of a pod. Written by the CNI. ---- */
struct wag_limit_key {
	__u32 ifindex;	 /* host side */
	__u32 direction; /* WAG_LIMIT_* as the pod sees it */
};
#define WAG_LIMIT_EGRESS 0U
#define WAG_LIMIT_INGRESS 1U

struct wag_limit {
	__u64 bytes_per_s;
	__u64 burst_bytes;
	__u64 next_ns; /* when the last packet let through will be over at that rate */
	__u64 departs_ns; /* the same of what leaves the node paced, which is counted apart */
	struct bpf_spin_lock lock; /* of next_ns and departs_ns */
	__u32 pad;
};

/* ---- wag_stats: PERCPU_ARRAY, index WAG_STAT_INDEX(point, reason). ---- */
struct wag_stat {
	__u64 packets;
	__u64 bytes;
};

/* ---- wag_map_errors: PERCPU_ARRAY of __u64, index WAG_MAP_ERROR_INDEX(map, errno). ---- */
enum wag_map_id {
	WAG_MAP_CT,
	WAG_MAP_CT_RING,
	WAG_MAP_SOCK,
	WAG_MAP_FRAG,
	WAG_MAP_EVENTS,
	WAG_MAP_NETNS_LEARN,
	WAG_MAP_AFFINITY,
	WAG_MAP_IDS = 8,
};
#define WAG_MAP_ERRNOS 160
#define WAG_MAP_ERROR_INDEX(map, err) ((map) * WAG_MAP_ERRNOS + (err))

_Static_assert(sizeof(struct wag_pod) == 32, "wag_pod");
_Static_assert(sizeof(struct wag_svc_key) == 24, "wag_svc_key");
_Static_assert(sizeof(struct wag_svc_state) == 32, "wag_svc_state");
_Static_assert(sizeof(struct wag_slot) == 24, "wag_slot");
_Static_assert(sizeof(struct wag_slot_head) == 24, "wag_slot_head");
_Static_assert(sizeof(struct wag_slot_entries) == 24, "wag_slot_entries");
_Static_assert(sizeof(struct wag_backend_key) == 24, "wag_backend_key");
_Static_assert(sizeof(struct wag_src_range_key) == 24, "wag_src_range_key");
_Static_assert(sizeof(struct wag_affinity_key) == 24, "wag_affinity_key");
_Static_assert(sizeof(struct wag_affinity) == 32, "wag_affinity");
_Static_assert(sizeof(struct wag_ct_key) == 40, "wag_ct_key");
_Static_assert(sizeof(struct wag_ct) == 88, "wag_ct");
_Static_assert(sizeof(struct wag_ct_slot) == 48, "wag_ct_slot");
_Static_assert(sizeof(struct wag_sock_key) == 32, "wag_sock_key");
_Static_assert(sizeof(struct wag_sock) == 32, "wag_sock");
_Static_assert(sizeof(struct wag_frag_key) == 40, "wag_frag_key");
_Static_assert(sizeof(struct wag_frag) == 16, "wag_frag");
_Static_assert(sizeof(struct wag_cidr_key) == 20, "wag_cidr_key");
_Static_assert(sizeof(struct wag_cidr) == 24, "wag_cidr");
_Static_assert(sizeof(struct wag_device) == 40, "wag_device");
_Static_assert(sizeof(struct wag_hostport) == 24, "wag_hostport");
_Static_assert(sizeof(struct wag_limit) == 40, "wag_limit");
