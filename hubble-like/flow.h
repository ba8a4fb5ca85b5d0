/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one door between the agent and the flow exporter: a thread drains the wag_events ring
 * buffer, enriches the events with names, keeps the last of them, and serves Hubble's
 * observer.Observer over gRPC on a unix socket.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <waggle/abi_addr.h>
#include <waggle/err.h>

struct flow_endpoint {
	char ns[64], pod[256]; /* empty: unknown */
	uint32_t id;	       /* endpoint id, 0: not local */
	uint32_t identity; /* reserved: 1 host, 2 world, 6 remote-node, 7 kube-apiserver; 0: none */
	char labels[4][64]; /* empty: unused */
	char workload[128], workload_kind[32];
	struct wag_addr v4, v6; /* of a local pod; zero: none */
};

struct flow_policy {
	char ns[64], name[256]; /* ns empty: a ClusterNetworkPolicy */
	char rule[104];	       /* its own name, or its number; empty: the policy's isolation */
};

struct flow_service {
	char ns[64], name[64];
};

/*
 * Names, asked from the exporter's thread: the callee must be thread safe. Each returns 0 and fills
 * *ret, or -ENOENT.
 */
struct flow_resolver {
	void *ctx;
	int (*endpoint)(void *ctx, const struct wag_addr *addr, struct flow_endpoint *ret);
	/* by frontend address, port (network order) and protocol */
	int (*service)(void *ctx, const struct wag_addr *addr, __be16 port, uint8_t proto,
		       struct flow_service *ret);
	/* by wag_event.svc_index / svc_id */
	int (*service_by_index)(void *ctx, uint32_t index, uint32_t svc_id,
				struct flow_service *ret);
	/* by endpoint id, for sockets that have no address yet; may be NULL */
	int (*endpoint_by_id)(void *ctx, uint32_t ep_id, struct flow_endpoint *ret);
	/* by the rule of wag_event.policy; may be NULL */
	int (*policy)(void *ctx, uint32_t rule, struct flow_policy *ret);
};

struct flow_config {
	const char *socket_path; /* unix socket; its directory is made, a stale socket replaced */
	const char *node_name;
	int events_fd;	 /* wag_events ring buffer; borrowed */
	int runtime_fd;	 /* wag_runtime: trace is set while an observer wants every packet; borrowed
			  */
	int stats_fd;	 /* wag_map_errors: lost events; borrowed; -1: none */
	size_t capacity; /* flows kept; Hubble's 2^n - 1; 0: 4095 */
	struct flow_resolver resolver;
};

struct flow_stats {
	uint64_t seen, lost_ring, lost_queue;
	uint64_t clients; /* streams open now */
};

struct flow_server;

int flow_server_new(struct flow_server **ret, const struct flow_config *config,
		    struct wag_err *err);
int flow_server_start(struct flow_server *s, struct wag_err *err); /* starts the thread */
void flow_server_stats(const struct flow_server *s, struct flow_stats *ret);
void flow_server_free(
	struct flow_server *s); /* stops and joins; removes the socket; NULL is fine */
void flow_server_freep(struct flow_server **s);
