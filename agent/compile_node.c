// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "compile_node.h"
#include "compile_range.h"

#define OVERHEAD_V4 50 /* Ethernet 14, VXLAN or Geneve 8, UDP 8, IPv4 20 */
#define OVERHEAD_V6 70
#define V6_MTU_MIN 1280 /* RFC 8200, 5 */

unsigned node_underlay_family(const struct node_compile *in)
{
	if (in->underlay)
		return in->underlay;
	return wag_addr_is_zero(&in->v4) ? 6 : 4;
}

uint32_t node_tunnel_mtu(uint32_t mtu, unsigned family)
{
	uint32_t overhead = family == 6 ? OVERHEAD_V6 : OVERHEAD_V4;

	return mtu > overhead ? mtu - overhead : 0;
}

void node_plan_free(struct node_plan *plan)
{
	if (!plan)
		return;
	for (size_t i = 0; i < plan->n_warnings; i++)
		free(plan->warnings[i]);
	free(plan->warnings);
	free(plan->cidrs);
	free(plan->nodes);
	free(plan->routes);
	free(plan);
}

void node_plan_freep(struct node_plan **plan)
{
	node_plan_free(*plan);
}

static int add_cidr(struct node_plan *plan, const struct cidr_range *range, uint32_t flags,
		    const struct wag_addr *tunnel, uint32_t mtu)
{
	struct node_cidr *c = node_list_add(&plan->cidrs, sizeof(*c), &plan->n_cidrs,
					    &plan->cap_cidrs);

	if (!c)
		return -ENOMEM;
	c->order = (uint32_t)plan->n_cidrs;
	c->key.bits = range->bits;
	memcpy(c->key.addr, range->net.w, sizeof(c->key.addr));
	c->value.flags = flags;
	if (tunnel) {
		c->value.tunnel = *tunnel;
		c->value.mtu = mtu;
	}
	return 0;
}

/*
 * An IPv6 prefix that holds ::ffff:0:0/96, where the maps keep IPv4, is cut into those beside it:
 * ::/0 says nothing about IPv4.
 */
static int add_no_masquerade(struct node_plan *plan, const struct cidr_range *range)
{
	const struct wag_addr mapped = wag_addr_from_v4(0);
	int r = 0;

	if (range->bits >= 96 || !cidr_range_has(range, &mapped))
		return add_cidr(plan, range, WAG_CIDR_NO_MASQUERADE, NULL, 0);
	for (unsigned i = range->bits; i < 96 && r == 0; i++) {
		struct cidr_range part = { .net = mapped };

		part.net.b[i / 8] ^= 0x80 >> i % 8;
		part = cidr_range_cut(&part.net, i + 1);
		r = add_cidr(plan, &part, WAG_CIDR_NO_MASQUERADE, NULL, 0);
	}
	return r;
}

/* ---- the link to a node ---- */

enum link_kind { LINK_UNREACHABLE, LINK_NETWORK, LINK_DIRECT, LINK_TUNNEL };

struct link {
	enum link_kind kind;
	struct wag_addr via; /* LINK_DIRECT: its address in our subnet; LINK_TUNNEL: outside */
	uint32_t ifindex;    /* LINK_DIRECT */
	uint32_t mtu;	     /* what fits; LINK_DIRECT: 0 for the device's */
	/* LINK_DIRECT: the tunnel there is beside it, for what must be packed; MTU 0: none. */
	struct wag_addr outside;
	uint32_t outside_mtu;
};

static unsigned family_of(const struct wag_addr *addr)
{
	return wag_addr_is_v4(addr) ? 4 : 6;
}

static bool is_own(const struct node_compile *in, const struct wag_addr *addr)
{
	for (size_t i = 0; i < in->n_own; i++)
		if (wag_addr_equal(&in->own[i], addr))
			return true;
	return false;
}

/* An address packets for that node may be sent to: not one of ours, not everybody's. */
static bool usable(const struct node_compile *in, const struct wag_addr *addr)
{
	const struct cidr_range r = cidr_range_of(addr, wag_addr_is_v4(addr) ? 32 : 128);

	return !cidr_range_special(&r) && !is_own(in, addr);
}

static const struct wag_addr *addr_of(const struct node_compile *in, const struct object *node,
				      unsigned family)
{
	for (size_t i = 0; i < node_internal(node); i++)
		if (family_of(&node->node.addrs[i]) == family && usable(in, &node->node.addrs[i]))
			return &node->node.addrs[i];
	return NULL;
}

static bool find_direct(const struct node_compile *in, const struct object *node, unsigned family,
			struct link *ret)
{
	for (size_t a = 0; a < node_internal(node); a++) {
		const struct wag_addr *addr = &node->node.addrs[a];

		if (family_of(addr) != family || !usable(in, addr))
			continue;
		for (size_t s = 0; s < in->n_subnets; s++) {
			const struct node_subnet *sub = &in->subnets[s];

			if (family_of(&sub->prefix.addr) != family ||
			    !wag_addr_in_cidr(addr, &sub->prefix.addr, sub->prefix.bits))
				continue;
			*ret = (struct link){ .kind = LINK_DIRECT,
					      .via = *addr,
					      .ifindex = sub->ifindex,
					      .mtu = in->mtu < sub->mtu ? in->mtu : 0 };
			return true;
		}
	}
	return false;
}

static bool find_tunnel(const struct node_compile *in, const struct object *node, struct link *ret)
{
	bool own4 = !wag_addr_is_zero(&in->v4), own6 = !wag_addr_is_zero(&in->v6);
	const struct wag_addr *outside = NULL;

	if (!in->tunnel_ifindex)
		return false;
	if (in->underlay != 6 && own4)
		outside = addr_of(in, node, 4);
	if (!outside && in->underlay != 4 && own6)
		outside = addr_of(in, node, 6);
	if (!outside)
		return false;
	*ret = (struct link){ .kind = LINK_TUNNEL,
			      .via = *outside,
			      .ifindex = in->tunnel_ifindex,
			      .mtu = node_tunnel_mtu(in->mtu, family_of(outside)) };
	return true;
}

/*
 * The one place where it is chosen how packets of a family reach a node. Encryption between nodes
 * would be one more kind of link here.
 */
static struct link link_choose(const struct node_compile *in, const struct object *node,
			       unsigned family)
{
	struct link link = { .kind = LINK_UNREACHABLE }, beside;

	if (in->direct && find_direct(in, node, family, &link)) {
		if (in->tunnel && find_tunnel(in, node, &beside) &&
		    (family == 4 || beside.mtu >= V6_MTU_MIN)) {
			link.outside = beside.via;
			link.outside_mtu = beside.mtu;
		}
		return link;
	}
	if (in->tunnel) {
		if (find_tunnel(in, node, &link) && family == 6 && link.mtu < V6_MTU_MIN)
			link.kind = LINK_UNREACHABLE;
		return link;
	}
	if (!in->direct)
		link.kind = LINK_NETWORK;
	return link;
}

static int warn_unreachable(struct node_plan *plan, const struct node_compile *in,
			    const struct object *node, const struct link *link, unsigned family)
{
	if (in->quiet)
		return 0;
	if (!in->tunnel)
		return node_plan_warn(
			plan, "node %s has no IPv%u address in a subnet of ours: its pods are not "
			"reached; --routing-mode=auto takes a tunnel there, and "
			"--direct-routing-skip-unreachable leaves it to your network",
			node->name, family);
	if (link->mtu)
		return node_plan_warn(
			plan, "node %s: the tunnel leaves %u bytes, IPv6 needs %u: its IPv6 pods "
			"are not reached; raise the MTU between the nodes (--mtu)", node->name,
			link->mtu, V6_MTU_MIN);
	if (!in->tunnel_ifindex)
		return 0; /* its own trouble says more */
	return node_plan_warn(
		plan, "node %s and this one have no InternalIP of one family%s: its pods are not "
		"reached", node->name,
		in->underlay ? " that --underlay-protocol allows" : "");
}

/* ---- a node ---- */

static int add_route(struct node_plan *plan, const struct node_compile *in,
		     const struct cidr_range *range, const struct link *link)
{
	bool v4 = range->bits >= 96 && wag_addr_is_v4(&range->net);
	struct node_route *route;

	if (link->kind != LINK_DIRECT && link->kind != LINK_TUNNEL)
		return 0;
	route = node_list_add(&plan->routes, sizeof(*route), &plan->n_routes, &plan->cap_routes);
	if (!route)
		return -ENOMEM;
	route->dst = range->net;
	route->bits = range->bits - (v4 ? 96 : 0);
	route->ifindex = link->ifindex;
	route->mtu = link->mtu;
	if (link->kind == LINK_DIRECT)
		route->via = link->via;
	else /* the tunnel's device has no address of its own */
		route->src = v4 ? in->v4 : in->v6;
	return 0;
}

static int add_range(struct node_plan *plan, const struct node_compile *in,
		     const struct cidr_range *range, uint32_t flags, const struct link *link)
{
	bool tunnel = link->kind == LINK_TUNNEL;

	if (link->kind == LINK_DIRECT && link->outside_mtu)
		return add_cidr(plan, range, flags | WAG_CIDR_DIRECT, &link->outside,
				link->outside_mtu);
	return add_cidr(plan, range, flags, tunnel ? &link->via : NULL, link->mtu);
}

/* Its own addresses: pods keep theirs on the way there, and take the way its answers come back. */
static int add_addrs(struct node_plan *plan, const struct node_compile *in,
		     const struct object *node, const struct link links[2])
{
	for (size_t i = 0; i < node->node.n_addrs; i++) {
		const struct wag_addr *addr = &node->node.addrs[i];
		bool v6 = family_of(addr) == 6;
		const struct cidr_range range = cidr_range_of(addr, v6 ? 128 : 32);
		struct wag_addr *known;

		if (!usable(in, addr))
			continue;
		if (i < node_internal(node) &&
		    add_range(plan, in, &range, WAG_CIDR_NODE, &links[v6]) < 0)
			return -ENOMEM;
		if (!in->tunnel)
			continue;
		/* A tunnelled packet may leave it with any address its routes choose. */
		known = node_list_add(&plan->nodes, sizeof(*known), &plan->n_nodes,
				      &plan->cap_nodes);
		if (!known)
			return -ENOMEM;
		*known = *addr;
	}
	return 0;
}

static void count_node(struct node_plan *plan, const struct link links[2], const bool used[2])
{
	bool tunnel = false;

	for (int f = 0; f < 2; f++) {
		if (used[f] && links[f].kind == LINK_UNREACHABLE) {
			plan->n_unreachable++;
			return;
		}
		tunnel = tunnel || (used[f] && links[f].kind == LINK_TUNNEL);
	}
	if (tunnel)
		plan->n_tunnel++;
	else
		plan->n_direct++;
}

/* claims: those of this node. */
static int add_node(struct node_plan *plan, const struct node_compile *in,
		    const struct object *node, struct node_claim *const *claims, size_t n)
{
	const struct link links[2] = { link_choose(in, node, 4), link_choose(in, node, 6) };
	bool used[2] = { false, false };
	int r = add_addrs(plan, in, node, links);

	for (size_t i = 0; i < n && r == 0; i++) {
		const struct cidr_range *range = &claims[i]->range;
		bool v6 = range->bits < 96 || !wag_addr_is_v4(&range->net);

		if (claims[i]->refused)
			continue;
		used[v6] = true;
		r = add_range(plan, in, range, WAG_CIDR_PODS, &links[v6]);
		if (r == 0)
			r = add_route(plan, in, range, &links[v6]);
	}
	for (int f = 0; f < 2 && r == 0; f++)
		if (used[f] && links[f].kind == LINK_UNREACHABLE)
			r = warn_unreachable(plan, in, node, &links[f], f ? 6 : 4);
	count_node(plan, links, used);
	return r;
}

/* ---- all of it ---- */

struct aged {
	const struct object *node;
	bool own;
};

/* Ours first, then the older one: who keeps a range that two claim. */
static int by_age(const void *a, const void *b)
{
	const struct aged *x = a, *y = b;
	int r;

	if (x->own != y->own)
		return x->own ? -1 : 1;
	r = strcmp(x->node->node.created ? x->node->node.created : "",
		   y->node->node.created ? y->node->node.created : "");
	return r ? r : strcmp(x->node->name, y->node->name);
}

/* One more than n: ours at the start, NULL if it is not known yet. */
static const struct object **sort_nodes(const struct node_compile *in,
					const struct object *const *nodes, size_t n)
{
	_cleanup_free_ struct aged *aged = calloc(n + 1, sizeof(*aged));
	const struct object **sorted = calloc(n + 1, sizeof(*sorted));
	size_t at = 1;

	if (!aged || !sorted) {
		free(sorted);
		return NULL;
	}
	for (size_t i = 0; i < n; i++)
		aged[i] = (struct aged){ nodes[i], strcmp(nodes[i]->name, in->node_name) == 0 };
	if (n)
		qsort(aged, n, sizeof(*aged), by_age);
	for (size_t i = 0; i < n; i++)
		sorted[aged[i].own ? 0 : at++] = aged[i].node;
	return sorted;
}

static int by_rank(const void *a, const void *b)
{
	const struct node_claim *const *x = a, *const *y = b;

	if ((*x)->rank != (*y)->rank)
		return (*x)->rank < (*y)->rank ? -1 : 1;
	return cidr_range_compare(&(*x)->range, &(*y)->range);
}

/* Nodes without pod ranges are not part of the pods' network: packets there are masqueraded. */
static int add_nodes(struct node_plan *plan, const struct node_compile *in,
		     const struct node_claims *claims)
{
	_cleanup_free_ struct node_claim **sorted = calloc(claims->n + 1, sizeof(*sorted));
	size_t to;
	int r = 0;

	if (!sorted)
		return -ENOMEM;
	for (size_t i = 0; i < claims->n; i++)
		sorted[i] = &claims->list[i];
	if (claims->n)
		qsort(sorted, claims->n, sizeof(struct node_claim *), by_rank);
	for (size_t from = 0; from < claims->n && r == 0; from = to) {
		for (to = from; to < claims->n && sorted[to]->rank == sorted[from]->rank;)
			to++;
		if (sorted[from]->rank) {
			r = add_node(plan, in, sorted[from]->node, sorted + from, to - from);
			continue;
		}
		for (size_t i = from; i < to && r == 0; i++)
			r = add_no_masquerade(plan, &sorted[i]->range);
	}
	return r;
}

/* ---- the lists, each key once ---- */

static struct cidr_range key_range(const struct node_cidr *c)
{
	struct cidr_range r = { .bits = c->key.bits };

	memcpy(r.net.w, c->key.addr, sizeof(r.net.w));
	return r;
}

static bool is_place(const struct node_cidr *c)
{
	return c->value.flags & (WAG_CIDR_PODS | WAG_CIDR_NODE);
}

/* Parents first. Of one key, what says where to comes first, and what an older node said. */
static int compare_cidrs(const void *a, const void *b)
{
	const struct node_cidr *x = a, *y = b;
	const struct cidr_range rx = key_range(x), ry = key_range(y);
	int r = cidr_range_compare(&rx, &ry);

	if (r == 0)
		r = is_place(y) - is_place(x);
	return r ? r : (x->order > y->order) - (x->order < y->order);
}

static void merge_cidrs(struct node_plan *plan)
{
	struct cidr_range outer = { .bits = 129 }; /* of pods or a node */
	size_t n = 0;

	if (plan->n_cidrs)
		qsort(plan->cidrs, plan->n_cidrs, sizeof(*plan->cidrs), compare_cidrs);
	for (size_t i = 0; i < plan->n_cidrs; i++) {
		const struct node_cidr c = plan->cidrs[i], *last = n ? &plan->cidrs[n - 1] : NULL;
		const struct cidr_range range = key_range(&c);

		if (last && memcmp(&last->key, &c.key, sizeof(c.key)) == 0)
			continue;
		/* The longest prefix alone counts: inside of a node's, it would hide that. */
		if (!is_place(&c) && outer.bits <= 128 && cidr_range_has(&outer, &range.net))
			continue;
		if (is_place(&c))
			outer = range;
		plan->cidrs[n++] = c;
	}
	plan->n_cidrs = n;
}

static int compare_addrs(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct wag_addr));
}

static int compare_routes(const void *a, const void *b)
{
	const struct node_route *x = a, *y = b;
	int r = memcmp(&x->dst, &y->dst, sizeof(x->dst));

	return r ? r : (x->bits > y->bits) - (x->bits < y->bits);
}

/* A node may name a range twice, two nodes the same address. */
static void drop_doubles(struct node_plan *plan)
{
	size_t n = 0;

	if (plan->n_nodes)
		qsort(plan->nodes, plan->n_nodes, sizeof(*plan->nodes), compare_addrs);
	for (size_t i = 0; i < plan->n_nodes; i++)
		if (n == 0 || compare_addrs(&plan->nodes[n - 1], &plan->nodes[i]) != 0)
			plan->nodes[n++] = plan->nodes[i];
	plan->n_nodes = n;
	n = 0;
	if (plan->n_routes)
		qsort(plan->routes, plan->n_routes, sizeof(*plan->routes), compare_routes);
	for (size_t i = 0; i < plan->n_routes; i++)
		if (n == 0 || compare_routes(&plan->routes[n - 1], &plan->routes[i]) != 0)
			plan->routes[n++] = plan->routes[i];
	plan->n_routes = n;
}

int compile_nodes(const struct node_compile *in, const struct object *const *nodes, size_t n,
		  struct node_plan **ret)
{
	_cleanup_(node_plan_freep) struct node_plan *plan = calloc(1, sizeof(*plan));
	_cleanup_free_ const struct object **sorted = sort_nodes(in, nodes, n);
	_cleanup_(node_claims_done) struct node_claims claims = { 0 };
	int r;

	if (!plan || !sorted)
		return -ENOMEM;
	r = node_claims_make(&claims, in, sorted, n + 1, plan);
	if (r == 0)
		r = add_nodes(plan, in, &claims);
	for (size_t i = 0; i < in->n_no_masquerade && r == 0; i++) {
		const struct node_prefix *p = &in->no_masquerade[i];
		const struct cidr_range range = cidr_range_of(&p->addr, p->bits);

		r = add_no_masquerade(plan, &range);
	}
	if (r < 0)
		return r;
	merge_cidrs(plan);
	drop_doubles(plan);
	*ret = TAKE_PTR(plan);
	return 0;
}
