// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Socket-level service translation at the cgroup: a local client's packets carry the backend from
 * the first byte. Cgroup hooks ignore network namespaces, so everything starts with whose socket
 * it is; foreign ones pass untouched.
 */
#include <asm-generic/errno-base.h>
#include <asm-generic/errno.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"
#include "packet.h"
#include "service.h"

#define SOCK_DGRAM 2
#define SYS_REJECT 0
#define SYS_PROCEED 1

struct sock_call {
	struct wag_addr addr;
	__be16 port;
	__u8 proto;
	__u8 point;
	__u32 ep_id; /* of the pod the socket belongs to */
	bool host;   /* it is the node's own */
};

/* v6 is a constant of each program: the verifier lets a hook touch its own family's fields only. */
static __always_inline void sock_get_addr(struct bpf_sock_addr *ctx, struct sock_call *call,
					  const bool v6)
{
	if (v6) {
		call->addr.w[0] = ctx->user_ip6[0];
		call->addr.w[1] = ctx->user_ip6[1];
		call->addr.w[2] = ctx->user_ip6[2];
		call->addr.w[3] = ctx->user_ip6[3];
	} else {
		addr_from_v4(&call->addr, ctx->user_ip4);
	}
	call->port = ctx->user_port;
	call->proto = ctx->protocol;
}

static __always_inline void sock_set_addr(struct bpf_sock_addr *ctx, const struct wag_addr *addr,
					  __be16 port, const bool v6)
{
	if (v6) {
		ctx->user_ip6[0] = addr->w[0];
		ctx->user_ip6[1] = addr->w[1];
		ctx->user_ip6[2] = addr->w[2];
		ctx->user_ip6[3] = addr->w[3];
	} else {
		ctx->user_ip4 = addr->w[3];
	}
	ctx->user_port = port;
}

/* Is this socket's network namespace one whose sockets we translate? */
static __always_inline bool sock_is_ours(struct bpf_sock_addr *ctx, struct sock_call *call)
{
	__u64 cookie = bpf_get_netns_cookie(ctx);
	struct wag_netns *netns = bpf_map_lookup_elem(&wag_netns, &cookie);

	if (!netns)
		return false;
	call->ep_id = netns->ep_id;
	call->host = netns->flags & WAG_NETNS_HOST;
	return cfg.socket_lb == WAG_SOCKET_LB_FULL ||
	       (cfg.socket_lb == WAG_SOCKET_LB_HOST && netns->flags & WAG_NETNS_HOST);
}

/* Tells userspace the cookie of the caller's namespace (wag_netns_learn). */
static __always_inline void sock_learn(struct bpf_sock_addr *ctx)
{
	__u32 ip = bpf_ntohl(ctx->user_ip4);
	__u64 cookie, *wanted;
	__u32 token;

	if ((ip & WAG_LEARN_MASK) != WAG_LEARN_V4 || ctx->type != SOCK_DGRAM)
		return;
	token = (ip & ~WAG_LEARN_MASK) << 16 | bpf_ntohs(ctx->user_port);
	wanted = bpf_map_lookup_elem(&wag_netns_learn, &token);
	if (!wanted)
		return;
	cookie = bpf_get_netns_cookie(ctx);
	bpf_map_update_elem(&wag_netns_learn, &token, &cookie, BPF_EXIST);
}

/* reason 0: translated to choice; else refused. */
static __always_inline void sock_emit(struct bpf_sock_addr *ctx, const struct sock_call *call,
				      const struct svc_choice *choice, enum wag_reason reason)
{
	struct wag_event *e;

	if (!cfg.events)
		return;
	e = bpf_ringbuf_reserve(&wag_events, sizeof(*e), 0);
	if (!e) {
		count_map_error(WAG_MAP_EVENTS, -ENOSPC);
		return;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->time_ns = bpf_ktime_get_ns();
	e->type = reason ? WAG_EVENT_DROP : WAG_EVENT_SOCK;
	e->point = call->point;
	e->reason = reason;
	e->flags = (reason ? WAG_EVENT_F_REFUSED : WAG_EVENT_F_XLAT) |
		   (addr_is_v4(&call->addr) ? 0 : WAG_EVENT_F_IPV6);
	e->line = reason ? __LINE__ : 0;
	e->svc_index = choice->svc_index;
	e->svc_id = choice->svc_id;
	e->ep_id = call->ep_id;
	e->orig.daddr = call->addr;
	e->orig.dport = call->port;
	e->orig.proto = call->proto;
	e->xlat.daddr = choice->addr;
	e->xlat.dport = choice->port;
	e->xlat.proto = call->proto;
	e->cookie = bpf_get_socket_cookie(ctx);
	e->cgroup_id = bpf_get_current_cgroup_id();
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

/* What an unconnected UDP socket chose before for this frontend, if that backend still serves it.
 */
static __always_inline bool sock_recall(const struct sock_call *call, __u64 cookie,
					struct svc_choice *choice)
{
	struct wag_sock_key key = {
		.cookie = cookie, .addr = call->addr, .port = call->port,
		.proto = call->proto, .dir = WAG_SOCK_FWD,
	};
	struct wag_sock *known = bpf_map_lookup_elem(&wag_sock, &key);
	struct wag_backend_key backend = {};

	if (!known)
		return false;
	backend.addr = known->addr;
	backend.port = known->port;
	backend.svc_id = known->svc_id;
	backend.proto = call->proto;
	if (!bpf_map_lookup_elem(&wag_backend, &backend))
		return false;
	choice->addr = known->addr;
	choice->port = known->port;
	choice->svc_index = known->svc_index;
	choice->svc_id = known->svc_id;
	return true;
}

static __always_inline void sock_store(struct wag_sock_key *key, const struct wag_sock *value)
{
	long err = bpf_map_update_elem(&wag_sock, key, value, BPF_ANY);

	if (err)
		count_map_error(WAG_MAP_SOCK, err);
}

/*
 * Remembers for whom the backend stands: for replies and getpeername. Returns false if an
 * unconnected socket already talks to this backend through another frontend: nobody could tell the
 * replies apart, so this frontend is left to the packet path.
 */
static __always_inline bool sock_remember_reply(const struct sock_call *call, __u64 cookie,
						const struct svc_choice *choice)
{
	struct wag_sock_key key = {
		.cookie = cookie,
		.addr = choice->addr,
		.port = choice->port,
		.proto = call->proto,
		.dir = WAG_SOCK_REV,
	};
	struct wag_sock value = {
		.addr = call->addr,
		.port = call->port,
		.svc_index = choice->svc_index,
		.svc_id = choice->svc_id,
		.ep_id = call->ep_id,
	};
	struct wag_sock *known;

	if (call->point == WAG_POINT_SENDMSG) {
		known = bpf_map_lookup_elem(&wag_sock, &key);
		if (known)
			return known->port == call->port && addr_equal(&known->addr, &call->addr);
	}
	sock_store(&key, &value);
	return true;
}

/* An unconnected socket's next message to this frontend goes to the same backend. */
static __always_inline void sock_remember_choice(const struct sock_call *call, __u64 cookie,
						 const struct svc_choice *choice)
{
	struct wag_sock_key key = {
		.cookie = cookie,
		.addr = call->addr,
		.port = call->port,
		.proto = call->proto,
		.dir = WAG_SOCK_FWD,
	};
	struct wag_sock value = {
		.addr = choice->addr,
		.port = choice->port,
		.svc_index = choice->svc_index,
		.svc_id = choice->svc_id,
		.ep_id = call->ep_id,
	};

	sock_store(&key, &value);
}

/* The socket now talks to this address itself: its answers are no frontend's any more. */
static __always_inline void sock_forget(const struct sock_call *call, __u64 cookie)
{
	struct wag_sock_key key = {
		.cookie = cookie,
		.addr = call->addr,
		.port = call->port,
		.proto = call->proto,
		.dir = WAG_SOCK_REV,
	};

	if (bpf_map_lookup_elem(&wag_sock, &key))
		bpf_map_delete_elem(&wag_sock, &key);
}

/* By which address the packet path would know the client; zero: nobody knows. */
static __always_inline void sock_client(const struct sock_call *call, struct svc_client *client)
{
	bool v6 = !addr_is_v4(&call->addr);
	struct wag_endpoint *ep;

	client->now = bpf_ktime_get_ns();
	if (call->host) {
		node_addr_of(v6, &client->addr);
		return;
	}
	ep = bpf_map_lookup_elem(&wag_endpoint, &call->ep_id);
	if (ep)
		client->addr = v6 ? ep->v6 : ep->v4;
}

static __always_inline int sock_no_backend(struct bpf_sock_addr *ctx, const struct sock_call *call,
					   const struct svc_choice *choice)
{
	/* A datagram socket hears of it by ICMP, as from kube-proxy: the packet path refuses. */
	if (call->proto != IPPROTO_TCP || !cfg.has_set_retval)
		return SYS_PROCEED;
	count_packet(call->point, WAG_DROP_NO_BACKEND, 0);
	sock_emit(ctx, call, choice, WAG_DROP_NO_BACKEND);
	bpf_set_retval(-ECONNREFUSED);
	return SYS_REJECT;
}

/*
 * Sockets bound to one port may reach one backend through two frontends: translated here, both
 * would be the same connection ("cannot assign address"). The packet path can tell them apart.
 */
static __always_inline bool sock_is_bound(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	return sk && sk->src_port;
}

/*
 * An IPv6 socket that is connected to ::ffff:a.b.c.d comes by at each message, with the peer it
 * has: the backend, which goes on standing for its frontend.
 */
static __always_inline bool sock_is_connected(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	return sk && sk->state == BPF_TCP_ESTABLISHED;
}

/* connect and sendmsg: frontend -> backend. */
static __always_inline int sock_forward(struct bpf_sock_addr *ctx, struct sock_call *call,
					 const bool v6)
{
	struct svc_choice choice = {};
	struct svc_client client = {};
	struct svc_frontend front;
	bool loopback;
	__u64 cookie;

	if (ctx->protocol != IPPROTO_TCP && ctx->protocol != IPPROTO_UDP)
		return SYS_PROCEED;
	if (!sock_is_ours(ctx, call) || (call->point == WAG_POINT_CONNECT && sock_is_bound(ctx)))
		return SYS_PROCEED;
	sock_get_addr(ctx, call, v6);
	loopback = addr_is_loopback(&call->addr);
	if (loopback && !call->host)
		return SYS_PROCEED; /* a pod's loopback is its own */
	svc_lookup(&front, &call->addr, call->port, call->proto, loopback);
	if (front.of_node)
		hostport_lookup(&front, &call->addr, call->port, call->proto);
	cookie = bpf_get_socket_cookie(ctx);
	if (!front.svc && !front.hostport) {
		if (call->point == WAG_POINT_SENDMSG && !sock_is_connected(ctx))
			sock_forget(call, cookie);
		return SYS_PROCEED;
	}
	if (call->point == WAG_POINT_SENDMSG && sock_recall(call, cookie, &choice)) {
		if (sock_remember_reply(call, cookie, &choice))
			sock_set_addr(ctx, &choice.addr, choice.port, v6);
		return SYS_PROCEED;
	}
	if (svc_asks_client(&front)) {
		sock_client(call, &client);
		if (addr_is_zero(&client.addr))
			return SYS_PROCEED; /* the packet path will know it */
	}
	client.hash = bpf_get_prandom_u32(); /* it has no port yet that its flow could be told by */
	switch (svc_select(&front, &client, call->proto, &choice)) {
	case SVC_NO_BACKEND:
		return sock_no_backend(ctx, call, &choice);
	case SVC_FOUND:
		break;
	default:
		return SYS_PROCEED;
	}
	if (!sock_remember_reply(call, cookie, &choice))
		return SYS_PROCEED;
	if (call->point == WAG_POINT_SENDMSG && front.svc)
		sock_remember_choice(call, cookie, &choice);
	count_packet(call->point, WAG_DROP_FORWARDED, 0);
	sock_set_addr(ctx, &choice.addr, choice.port, v6);
	sock_emit(ctx, call, &choice, WAG_DROP_FORWARDED);
	return SYS_PROCEED;
}

/* recvmsg and getpeername: backend -> the frontend this socket asked for. */
static __always_inline int sock_reverse(struct bpf_sock_addr *ctx, struct sock_call *call,
					 const bool v6)
{
	struct wag_sock_key key = { .dir = WAG_SOCK_REV };
	struct wag_sock *known;

	if (!sock_is_ours(ctx, call))
		return SYS_PROCEED;
	sock_get_addr(ctx, call, v6);
	key.cookie = bpf_get_socket_cookie(ctx);
	key.addr = call->addr;
	key.port = call->port;
	key.proto = call->proto;
	known = bpf_map_lookup_elem(&wag_sock, &key);
	if (known)
		sock_set_addr(ctx, &known->addr, known->port, v6);
	return SYS_PROCEED;
}

SEC("cgroup/connect4")
int wag_connect4(struct bpf_sock_addr *ctx)
{
	struct sock_call call = { .point = WAG_POINT_CONNECT };

	sock_learn(ctx);
	return sock_forward(ctx, &call, false);
}

SEC("cgroup/connect6")
int wag_connect6(struct bpf_sock_addr *ctx)
{
	struct sock_call call = { .point = WAG_POINT_CONNECT };

	return sock_forward(ctx, &call, true);
}

SEC("cgroup/sendmsg4")
int wag_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct sock_call call = { .point = WAG_POINT_SENDMSG };

	return sock_forward(ctx, &call, false);
}

SEC("cgroup/sendmsg6")
int wag_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct sock_call call = { .point = WAG_POINT_SENDMSG };

	return sock_forward(ctx, &call, true);
}

SEC("cgroup/recvmsg4")
int wag_recvmsg4(struct bpf_sock_addr *ctx)
{
	struct sock_call call = { .point = WAG_POINT_RECVMSG };

	return sock_reverse(ctx, &call, false);
}

SEC("cgroup/recvmsg6")
int wag_recvmsg6(struct bpf_sock_addr *ctx)
{
	struct sock_call call = { .point = WAG_POINT_RECVMSG };

	return sock_reverse(ctx, &call, true);
}

SEC("cgroup/getpeername4")
int wag_getpeer4(struct bpf_sock_addr *ctx)
{
	struct sock_call call = { .point = WAG_POINT_GETPEER };

	return sock_reverse(ctx, &call, false);
}

SEC("cgroup/getpeername6")
int wag_getpeer6(struct bpf_sock_addr *ctx)
{
	struct sock_call call = { .point = WAG_POINT_GETPEER };

	return sock_reverse(ctx, &call, true);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
