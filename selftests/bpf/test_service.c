// SPDX-License-Identifier: Apache-2.0
/*
 * Services as compile_service() makes them: which endpoints a client gets and by which address it
 * is known there, for every kind of frontend and client; affinity, source ranges.
 */
#include <bpf/bpf.h>
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/cleanup.h>
#include "agent/compile_service.h"
#include "agent/model.h"
#include "cases.h"
#include "hook_pod.skel.h"

#define LB VIP2
#define EXTERNAL_IP ROUTER
#define BASE 64 /* of the slots */
#define SVC_ID 1001
#define EPS_MAX 3

/* A Service with every kind of frontend; who: NOBODY for the end. */
struct service_spec {
	bool external_local, internal_local;
	enum lb_algorithm algorithm;
	struct {
		enum who who;
		bool local, going;
	} eps[EPS_MAX];
	__u8 proto; /* 0: TCP */
	__u32 affinity_s;
	enum who ranges[2]; /* source ranges: single addresses */
};

static void make_slice(const struct service_spec *spec, bool v6, struct object *obj,
		       struct slice_endpoint *eps, struct wag_addr *addrs)
{
	obj->slice.v6 = v6;
	obj->slice.endpoints = eps;
	for (; obj->slice.n_endpoints < EPS_MAX; obj->slice.n_endpoints++, eps++, addrs++) {
		size_t i = obj->slice.n_endpoints;

		if (!spec->eps[i].who)
			break;
		*addrs = addr_of(spec->eps[i].who, v6);
		*eps = (struct slice_endpoint){
			.addrs = addrs, .n_addrs = 1, .ready = !spec->eps[i].going,
			.serving = true, .terminating = spec->eps[i].going,
			.node_name = spec->eps[i].local ? "n1" : "n2",
		};
	}
}

static struct svc_table *compile(const struct service_spec *spec, bool v6)
{
	const struct compile_facts facts = { .node_name = "n1" };
	struct svc_port port = { .name = "", .proto = spec->proto ? spec->proto : IPPROTO_TCP,
				 .port = 80, .node_port = 30080 };
	struct slice_port slice_port = { .name = "", .proto = port.proto, .port = 8080 };
	struct wag_addr vip = addr_of(VIP, v6), external = addr_of(EXTERNAL_IP, v6);
	struct wag_addr addrs[EPS_MAX];
	struct lb_ingress lb = { .addr = addr_of(LB, v6) };
	struct source_range ranges[2];
	struct slice_endpoint eps[EPS_MAX];
	struct object slice = {
		.kind = MODEL_SLICE, .slice = { .ports = &slice_port, .n_ports = 1 }
	};
	const struct object *slices[] = { &slice };
	struct object svc = {
		.kind = MODEL_SERVICE,
		.service = {
			.type = SVC_LOAD_BALANCER,
			.external_local = spec->external_local,
			.internal_local = spec->internal_local,
			.algorithm = spec->algorithm,
			.affinity_s = spec->affinity_s,
			.cluster_ips = &vip, .n_cluster_ips = 1,
			.external_ips = &external, .n_external_ips = 1,
			.lb_ips = &lb, .n_lb_ips = 1,
			.ports = &port, .n_ports = 1,
			.source_ranges = ranges,
		},
	};
	struct svc_table *table = NULL;

	for (int i = 0; i < 2 && spec->ranges[i]; i++)
		ranges[svc.service.n_source_ranges++] = (struct source_range){
			addr_of(spec->ranges[i], v6), v6 ? 128 : 32
		};
	make_slice(spec, v6, &slice, eps, addrs);
	expect(compile_service(&svc, slices, 1, &facts, &table) == 0 && table, "no table");
	return table;
}

static void put_backends(struct world *w, const struct svc_table_port *p)
{
	_cleanup_free_ struct wag_slot *slots = calloc(svc_slots(p) + 1, sizeof(*slots));

	expect(slots && svc_slots_write(p, SVC_ID, slots) == 0, "no slots");
	for (__u32 i = 0; slots && i < svc_slots(p); i++) {
		__u32 at = BASE + i;

		bpf_map_update_elem(w->slot, &at, &slots[i], BPF_ANY);
	}
	for (__u32 i = 0; i < p->n_backends; i++) {
		const struct svc_backend *b = &p->backends[i];
		const struct wag_backend_key key = {
			.addr = b->addr, .svc_id = SVC_ID, .port = b->port, .proto = p->proto
		};
		const struct wag_backend value = { .flags = b->flags };

		bpf_map_update_elem(w->backend, &key, &value, BPF_ANY);
	}
}

static void put_ranges(struct world *w, const struct svc_table_port *p)
{
	const struct wag_src_range any = {};

	for (__u32 i = 0; i < p->n_ranges; i++) {
		struct wag_src_range_key key = p->ranges[i];

		key.svc_id = SVC_ID;
		bpf_map_update_elem(bpf_map__fd(w->pod->maps.wag_src_range), &key, &any, BPF_ANY);
	}
}

/* What sync would write; backends of an earlier one stay. */
static void program(struct world *w, const struct service_spec *spec)
{
	struct svc_table *table = compile(spec, w->v6);
	const struct svc_table_port *p = &table->ports[0];
	struct wag_svc_state state = { .svc_id = SVC_ID, .affinity_s = p->affinity_s };
	__u32 index = 1;

	put_backends(w, p);
	state.slots = WAG_SLOTS(BASE, svc_slots(p), p->slots_flags);
	bpf_map_update_elem(w->svc_state, &index, &state, BPF_ANY);
	put_ranges(w, p);
	for (__u32 i = 0; i < p->n_frontends; i++) {
		const struct wag_svc svc = { .index = index, .flags = p->frontends[i].flags };

		bpf_map_update_elem(w->svc, &p->frontends[i].key, &svc, BPF_ANY);
	}
	free(table);
}

static struct wag_addr addr_at(struct world *w, const struct frame *f, bool dst)
{
	struct wag_addr addr = addr_of(ANYBODY, w->v6);

	if (w->v6)
		memcpy(&addr, f->data + FRAME_L3 + (dst ? 24 : 8), 16);
	else
		memcpy(&addr.w[3], f->data + FRAME_L3 + (dst ? 16 : 12), 4);
	return addr;
}

static bool is_addr(struct world *w, const struct frame *f, bool dst, enum who who)
{
	struct wag_addr got = addr_at(w, f, dst), want = addr_of(who, w->v6);

	return !memcmp(&got, &want, sizeof(got));
}

/* One packet that opens a flow. */
static int opens(struct world *w, enum hook hook, enum who src, enum who dst, __u8 proto,
		 __u16 sport, struct frame *ret_out)
{
	const struct spec s = {
		src, dst, sport, dst == NODE || dst == EGRESS ? 30080 : 80, proto, F_SYN,
		.payload = 8
	};
	struct frame in;

	frame_build(&in, &s, w->v6);
	return world_run(w, hook, &in, ret_out);
}

/* ---- the matrix ---- */

static const struct client {
	const char *name;
	enum hook hook;
	enum who src;
} clients[] = {
	{ "pod", FROM_POD, POD_A },
	{ "node", TO_NET, NODE },
	{ "external", FROM_NET, OUTSIDE },
};

static const struct {
	const char *name;
	enum who dst;
} frontends[] = { { "ClusterIP", VIP }, { "NodePort", NODE }, { "LB", LB },
		  { "externalIP", EXTERNAL_IP } };

/*
 * kube-proxy's TestInternalExternalMasquerade. A: all endpoints, L: this node's; m: known to them
 * by an address of the node, -: by its own. The node's own address is its own.
 */
static const struct {
	const char *name;
	bool external_local, internal_local;
	const char *want[3][4]; /* by client and frontend */
} matrix[] = {
	{ "plain", false, false,
	  { { "A-", "Am", "Am", "Am" }, { "Am", "Am", "Am", "Am" }, { "Am", "Am", "Am", "Am" } } },
	{ "eTP:Local", true, false,
	  { { "A-", "A-", "A-", "A-" }, { "Am", "Am", "Am", "Am" }, { "Am", "L-", "L-", "L-" } } },
	{ "iTP:Local", false, true,
	  { { "L-", "Am", "Am", "Am" }, { "Lm", "Am", "Am", "Am" }, { "Lm", "Am", "Am", "Am" } } },
	{ "both Local", true, true,
	  { { "L-", "A-", "A-", "A-" }, { "Lm", "Am", "Am", "Am" }, { "Lm", "L-", "L-", "L-" } } },
};

static void one_cell(struct world *w, const struct client *from, enum who dst, const char *want,
		     const char *name)
{
	unsigned local = 0, remote = 0, node = 0, own = 0;

	for (__u16 i = 0; i < 40; i++) {
		struct frame out;
		int v = opens(w, from->hook, from->src, dst, IPPROTO_TCP, 4000 + i, &out);

		if (!expect(v == V_REDIRECT, "%s: verdict %d", name, v))
			return;
		local += is_addr(w, &out, true, POD_B);
		remote += is_addr(w, &out, true, PEER);
		node += is_addr(w, &out, false, NODE) || is_addr(w, &out, false, EGRESS);
		own += is_addr(w, &out, false, from->src) && from->src != NODE;
	}
	expect(local + remote == 40, "%s: somebody else got it", name);
	expect(node + own == 40, "%s: it seems to come from somebody else", name);
	expect(local && !remote == (want[0] == 'L'), "%s: %u local, %u remote", name, local,
	       remote);
	expect(want[1] == 'm' ? node == 40 : own == 40, "%s: %u of 40 with the node's address",
	       name, node);
}

static void masquerade_matrix(struct world *w)
{
	for (size_t m = 0; m < sizeof(matrix) / sizeof(matrix[0]); m++) {
		const struct service_spec spec = {
			.external_local = matrix[m].external_local,
			.internal_local = matrix[m].internal_local,
			.eps = { { POD_B, true }, { PEER, false } },
		};

		for (int c = 0; c < 3; c++) {
			for (int f = 0; f < 4; f++) {
				char name[64];

				world_reset(w, w->v6);
				world_device(w, EGRESS);
				program(w, &spec);
				snprintf(name, sizeof(name), "%s, %s to %s", matrix[m].name,
					 clients[c].name, frontends[f].name);
				one_cell(w, &clients[c], frontends[f].dst, matrix[m].want[c][f],
					 name);
			}
		}
	}
}

/* ---- who gets nothing ---- */

static __u64 dropped(struct world *w, enum wag_point point, enum wag_reason reason)
{
	struct stats stats;

	world_stats(w, point, &stats);
	return stats.packets[reason];
}

static void no_local(struct world *w)
{
	const struct service_spec spec = {
		.external_local = true, .internal_local = true, .eps = { { REMOTE, false } }
	};
	struct frame out;

	program(w, &spec);
	for (int f = 0; f < 4; f++)
		expect(opens(w, FROM_NET, OUTSIDE, frontends[f].dst, IPPROTO_TCP, 4000, &out) ==
			       V_DROP, "%s from outside went on", frontends[f].name);
	expect(dropped(w, WAG_POINT_FROM_NET, WAG_DROP_NO_LOCAL_BACKEND) == 4, "not counted");
	world_drain(w);
	expect(w->n_events == 4 && w->events[0].svc_id == SVC_ID &&
		       !(w->events[0].flags & WAG_EVENT_F_REFUSED), "no event that tells it");
	for (int c = 0; c < 2; c++)
		expect(opens(w, clients[c].hook, clients[c].src, VIP, IPPROTO_TCP, 4000, &out) ==
			       V_DROP, "ClusterIP from the %s went on", clients[c].name);
	expect(opens(w, FROM_POD, POD_A, NODE, IPPROTO_TCP, 4000, &out) == V_REDIRECT &&
		       is_addr(w, &out, true, REMOTE), "a pod has no short cut");
}

static void no_endpoints(struct world *w)
{
	static const __u8 protos[] = { IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP };

	for (int p = 0; p < 3; p++) {
		for (int local = 0; local < 2; local++) {
			const struct service_spec spec = {
				.proto = protos[p], .external_local = local,
				.internal_local = local,
			};
			__u64 before[3];

			program(w, &spec);
			for (int c = 0; c < 3; c++) {
				static const enum wag_point points[] = {
					WAG_POINT_FROM_POD, WAG_POINT_TO_NET, WAG_POINT_FROM_NET
				};

				before[c] = dropped(w, points[c], WAG_DROP_NO_BACKEND);
				world_drain(w);
				for (int f = 0; f < 4; f++) {
					struct frame out;
					int v = opens(w, clients[c].hook, clients[c].src,
						      frontends[f].dst, protos[p], 4000, &out);

					expect(v == V_REDIRECT && is_addr(w, &out, true,
									  clients[c].src),
					       "%s to %s: not refused", clients[c].name,
					       frontends[f].name);
				}
				expect(dropped(w, points[c], WAG_DROP_NO_BACKEND) ==
					       before[c] + 4, "not counted");
			}
		}
	}
}

static void source_ranges(struct world *w)
{
	const struct service_spec spec = {
		.eps = { { POD_B, true } }, .ranges = { OUTSIDE, NODE },
	};
	struct frame out;

	program(w, &spec);
	expect(opens(w, FROM_NET, OUTSIDE, LB, IPPROTO_TCP, 4000, &out) == V_REDIRECT,
	       "an allowed client is denied");
	expect(opens(w, TO_NET, EGRESS, LB, IPPROTO_TCP, 4000, &out) == V_REDIRECT,
	       "the node is denied, though its address is allowed");
	expect(opens(w, FROM_NET, PEER, LB, IPPROTO_TCP, 4000, &out) == V_DROP,
	       "somebody else is allowed");
	expect(dropped(w, WAG_POINT_FROM_NET, WAG_DROP_SOURCE_RANGE) == 1, "not counted");
	expect(opens(w, FROM_POD, POD_A, LB, IPPROTO_TCP, 4000, &out) == V_DROP,
	       "a pod is allowed");
	expect(opens(w, FROM_POD, POD_A, VIP, IPPROTO_TCP, 4001, &out) == V_REDIRECT,
	       "the ClusterIP is denied");
	for (int f = 1; f < 4; f += 2)
		expect(opens(w, FROM_NET, PEER, frontends[f].dst, IPPROTO_TCP, 4001, &out) ==
			       V_REDIRECT, "%s is denied", frontends[f].name);
}

static void node_port_addresses(struct world *w)
{
	const struct service_spec spec = { .eps = { { POD_B, true } } };
	const struct wag_node_addr without = { .ifindex = 1,
					       .flags = WAG_NODE_ADDR_NO_NODE_PORT };
	struct wag_addr egress = addr_of(EGRESS, w->v6);
	struct frame out;

	program(w, &spec);
	bpf_map_update_elem(w->node_addr, &egress, &without, BPF_ANY);
	expect(opens(w, FROM_NET, OUTSIDE, NODE, IPPROTO_TCP, 4000, &out) == V_REDIRECT,
	       "NodePort is not served");
	expect(opens(w, FROM_NET, OUTSIDE, EGRESS, IPPROTO_TCP, 4000, &out) == V_PASS,
	       "NodePort is served where it should not be");
	world_hostport(w, ANYBODY, 30080, IPPROTO_TCP, POD_C, 80);
	expect(opens(w, FROM_NET, OUTSIDE, EGRESS, IPPROTO_TCP, 4000, &out) == V_REDIRECT &&
		       is_addr(w, &out, true, POD_C), "a hostPort is not served there");
}

/* ---- affinity ---- */

static void used_ago(struct world *w, enum who client, enum who backend, __u64 ns)
{
	const struct wag_affinity_key key = { .client = addr_of(client, w->v6), .svc_id = SVC_ID };
	const struct wag_affinity value = {
		.addr = addr_of(backend, w->v6), .port = htobe16(8080), .used_ns = now_ns() - ns
	};

	bpf_map_update_elem(bpf_map__fd(w->pod->maps.wag_affinity), &key, &value, BPF_ANY);
}

static __u64 used_ns(struct world *w, enum who client)
{
	const struct wag_affinity_key key = { .client = addr_of(client, w->v6), .svc_id = SVC_ID };
	struct wag_affinity value;

	return bpf_map_lookup_elem(bpf_map__fd(w->pod->maps.wag_affinity), &key, &value) ?
		       0 : value.used_ns;
}

/* How many of 40 new flows get this backend. */
static unsigned gets(struct world *w, const struct client *from, enum who dst, enum who backend)
{
	static __u16 port = 10000;
	unsigned n = 0;

	for (int i = 0; i < 40; i++) {
		struct frame out;

		opens(w, from->hook, from->src, dst, IPPROTO_TCP, port++, &out);
		n += is_addr(w, &out, true, backend);
	}
	return n;
}

static void affinity(struct world *w)
{
	struct service_spec spec = {
		.eps = { { POD_B, true }, { POD_C, true }, { REMOTE, false } }, .affinity_s = 100
	};
	__u64 before;
	unsigned n;

	program(w, &spec);
	used_ago(w, OUTSIDE, POD_C, 50 * SEC_NS);
	before = used_ns(w, OUTSIDE);
	for (int f = 0; f < 4; f++)
		expect(gets(w, &clients[2], frontends[f].dst, POD_C) == 40,
		       "%s leads elsewhere", frontends[f].name);
	expect(used_ns(w, OUTSIDE) > before + 40 * SEC_NS, "a new flow does not renew it");
	n = gets(w, &clients[0], VIP, POD_B);
	expect(n == 0 || n == 40, "a pod's flows are spread: %u of 40", n);
	n = gets(w, &clients[1], VIP, POD_B);
	expect(n == 0 || n == 40, "the node's flows are spread: %u of 40", n);
	used_ago(w, NODE, POD_B, 0); /* one client, whichever address it has */
	expect(gets(w, &(struct client){ "node", TO_NET, EGRESS }, VIP, POD_B) == 40,
	       "the node is another client by its other address");
	for (n = 0; n < 30; n++) {
		used_ago(w, OUTSIDE, POD_C, 101 * SEC_NS);
		if (gets(w, &clients[2], NODE, POD_C) < 40)
			break;
	}
	expect(n < 30, "it outlives its time");
	used_ago(w, OUTSIDE, POD_A, 0);
	expect(gets(w, &clients[2], NODE, POD_A) == 0, "it outlives its backend");
	spec.external_local = true;
	program(w, &spec);
	used_ago(w, OUTSIDE, REMOTE, 0);
	expect(gets(w, &clients[2], NODE, REMOTE) == 0, "it is stronger than the policy");
	used_ago(w, OUTSIDE, REMOTE, 0);
	expect(gets(w, &clients[2], VIP, REMOTE) == 40, "the ClusterIP does not keep it");
	spec.affinity_s = 0;
	program(w, &spec);
	used_ago(w, OUTSIDE, REMOTE, 0);
	expect(gets(w, &clients[2], VIP, REMOTE) < 40, "it is there without being asked for");
}

/* ---- datagrams ---- */

static void serving_keeps_its_flows(struct world *w)
{
	struct service_spec spec = { .proto = IPPROTO_UDP, .eps = { { POD_B, true } } };
	struct frame out;

	program(w, &spec);
	opens(w, FROM_POD, POD_A, VIP, IPPROTO_UDP, 4000, &out);
	spec.eps[0].going = true;
	spec.eps[1].who = POD_C;
	program(w, &spec);
	opens(w, FROM_POD, POD_A, VIP, IPPROTO_UDP, 4000, &out);
	expect(is_addr(w, &out, true, POD_B), "the flow left what still serves it");
	for (__u16 i = 0; i < 20; i++) {
		opens(w, FROM_POD, POD_A, VIP, IPPROTO_UDP, 5000 + i, &out);
		expect(is_addr(w, &out, true, POD_C), "a new flow goes to what terminates");
	}
	world_backend_gone(w, 1, IPPROTO_UDP, POD_B, 8080);
	opens(w, FROM_POD, POD_A, VIP, IPPROTO_UDP, 4000, &out);
	expect(is_addr(w, &out, true, POD_C), "the flow stayed with what is gone");
}

/* ---- Maglev ---- */

#define FLOWS 120

/* Which endpoint each of a client's flows gets, on a node that knows of none of them. */
static void choices(struct world *w, const struct service_spec *spec, enum who dst,
		    enum who got[FLOWS])
{
	world_reset(w, w->v6);
	program(w, spec);
	for (__u16 i = 0; i < FLOWS; i++) {
		struct frame out;

		got[i] = NOBODY;
		if (opens(w, FROM_NET, OUTSIDE, dst, IPPROTO_TCP, 4000 + i, &out) != V_REDIRECT)
			continue;
		for (int e = 0; e < EPS_MAX && spec->eps[e].who; e++)
			if (is_addr(w, &out, true, spec->eps[e].who))
				got[i] = spec->eps[e].who;
	}
}

static unsigned same(const enum who *a, const enum who *b)
{
	unsigned n = 0;

	for (int i = 0; i < FLOWS; i++)
		n += a[i] == b[i];
	return n;
}

static unsigned count(const enum who *got, enum who who)
{
	unsigned n = 0;

	for (int i = 0; i < FLOWS; i++)
		n += got[i] == who;
	return n;
}

/* Conntrack is empty each time: what is the same is so by the table. */
static void maglev(struct world *w)
{
	struct service_spec spec = { .algorithm = LB_ALGORITHM_MAGLEV,
				     .eps = { { POD_B, true }, { PEER, false }, { POD_C, true } } };
	enum who first[FLOWS], again[FLOWS];
	unsigned kept;

	choices(w, &spec, LB, first);
	expect(count(first, POD_B) > 20 && count(first, POD_C) > 20 && count(first, PEER) > 20 &&
		       count(first, NOBODY) == 0, "%u, %u, %u: not spread", count(first, POD_B),
	       count(first, POD_C), count(first, PEER));
	choices(w, &spec, LB, again);
	expect(same(first, again) == FLOWS, "%u of %d flows again", same(first, again), FLOWS);
	spec.eps[0].local = spec.eps[2].local = false;
	spec.eps[1].local = true;
	spec.external_local = true; /* makes the order of slots another one */
	choices(w, &spec, LB, again);
	expect(count(again, PEER) == FLOWS, "not the one endpoint there is here");
	spec.external_local = false;
	spec.internal_local = true;
	choices(w, &spec, LB, again);
	expect(same(first, again) == FLOWS, "another node chose another one for %u flows",
	       FLOWS - same(first, again));
	spec.eps[2].who = NOBODY;
	choices(w, &spec, LB, again);
	kept = same(first, again);
	expect(count(again, NOBODY) == 0 && kept <= FLOWS - count(first, POD_C) &&
		       kept > FLOWS - count(first, POD_C) - FLOWS / 4,
	       "%u of %d flows stayed, %u had to go", kept, FLOWS, count(first, POD_C));
}

static void maglev_local(struct world *w)
{
	const struct service_spec spec = {
		.algorithm = LB_ALGORITHM_MAGLEV, .external_local = true,
		.eps = { { POD_B, true }, { PEER, false }, { POD_C, true } },
	};
	enum who first[FLOWS], again[FLOWS];

	choices(w, &spec, LB, first);
	choices(w, &spec, LB, again);
	expect(count(first, POD_B) > 30 && count(first, POD_B) + count(first, POD_C) == FLOWS,
	       "%u of %d, %u elsewhere", count(first, POD_B), FLOWS, count(first, PEER));
	expect(same(first, again) == FLOWS, "%u of %d flows again", same(first, again), FLOWS);
}

/* A client keeps the endpoint of its first flow, whatever the table says of the others. */
static void maglev_affinity(struct world *w)
{
	const struct service_spec spec = {
		.algorithm = LB_ALGORITHM_MAGLEV, .affinity_s = 10800,
		.eps = { { POD_B, true }, { PEER, false }, { POD_C, true } },
	};
	enum who got[FLOWS];

	choices(w, &spec, LB, got);
	expect(count(got, got[0]) == FLOWS && got[0] != NOBODY, "%u of %d", count(got, got[0]),
	       FLOWS);
}

/* A load balancer's address that the node has too: it calls from that very address. */
static void from_its_own_address(struct world *w)
{
	const struct service_spec spec = { .eps = { { PEER, false } } };
	struct frame out;

	program(w, &spec);
	expect(opens(w, TO_NET, LB, LB, IPPROTO_TCP, 4000, &out) == V_REDIRECT &&
		       is_addr(w, &out, true, PEER) && is_addr(w, &out, false, NODE),
	       "nobody could answer it");
	expect(opens(w, TO_NET, EGRESS, LB, IPPROTO_TCP, 4001, &out) == V_REDIRECT &&
		       is_addr(w, &out, false, EGRESS), "the node's own address is changed");
}

/* The stack would take a masqueraded packet for a martian: it is not asked. */
static void past_the_stack(struct world *w)
{
	const struct service_spec spec = { .eps = { { POD_B, true } } };
	struct frame out;

	program(w, &spec);
	expect(opens(w, FROM_NET, OUTSIDE, NODE, IPPROTO_TCP, 4000, &out) == V_REDIRECT &&
		       is_addr(w, &out, false, NODE), "it goes through the stack");
	expect(opens(w, FROM_POD, POD_A, VIP, IPPROTO_TCP, 4000, &out) == V_PASS,
	       "a pod's packet does not go through the stack");
}

static void run_both(struct world *w, const char *name, void (*run)(struct world *w))
{
	for (int v6 = 0; v6 < 2; v6++) {
		test_begin();
		world_reset(w, v6);
		run(w);
		test_end("service: %s, %s", name, v6 ? "IPv6" : "IPv4");
	}
}

void suite_service(struct world *w)
{
	struct wag_config cfg = w->cfg;
	struct world other;

	run_both(w, "who gets which endpoints by which address", masquerade_matrix);
	run_both(w, "no local endpoint: a silent drop", no_local);
	run_both(w, "no endpoints: refused on every frontend", no_endpoints);
	run_both(w, "loadBalancerSourceRanges", source_ranges);
	run_both(w, "NodePorts on some addresses only", node_port_addresses);
	run_both(w, "affinity", affinity);
	run_both(w, "Maglev: a flow's endpoint is the same on every node", maglev);
	run_both(w, "Maglev among the local endpoints", maglev_local);
	run_both(w, "Maglev: affinity goes first", maglev_affinity);
	run_both(w, "the node calls an address of its own", from_its_own_address);
	run_both(w, "a datagram's flow stays while its endpoint serves", serving_keeps_its_flows);
	cfg.host_routing = 0;
	if (!expect(world_open(&other, &cfg) == 0, "programs do not load"))
		return test_end("service: through the stack");
	run_both(&other, "masqueraded to a pod behind the stack", past_the_stack);
	world_close(&other);
}
