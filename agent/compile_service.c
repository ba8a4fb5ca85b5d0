// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include "compile_service.h"
#include "model.h"

/* The table is one block: header and ports, frontends, backends, source ranges, ports' names. */
struct builder {
	const struct service *svc;
	const struct object *const *slices;
	size_t n_slices;
	const struct compile_facts *facts;
	struct svc_table *table;
	struct svc_frontend *frontends;
	struct svc_backend *backends;
	struct wag_src_range_key *ranges;
	char *text;
};

/* Of NodePorts, by "IPv6?". */
static const struct wag_addr any_addrs[2] = {
	{ .b = { [10] = 0xff, [11] = 0xff } },
	{ .w = { 0 } },
};

static bool has_family(const struct service *svc, bool v6)
{
	for (size_t i = 0; i < svc->n_cluster_ips; i++)
		if (wag_addr_is_v4(&svc->cluster_ips[i]) != v6)
			return true;
	return false;
}

/* Where a slot stands in its range: wag_slot_head. */
static int rank(const struct svc_backend *b)
{
	static const uint8_t ranks[] = {
		[WAG_BACKEND_LOCAL] = 0,
		[WAG_BACKEND_LOCAL | WAG_BACKEND_CLUSTER] = 1,
		[WAG_BACKEND_CLUSTER] = 2,
		[0] = 3,
	};

	return ranks[b->flags & (WAG_BACKEND_LOCAL | WAG_BACKEND_CLUSTER)];
}

int svc_backend_compare(const void *a, const void *b)
{
	const struct svc_backend *x = a, *y = b;
	int r = rank(x) - rank(y);

	if (r == 0)
		r = memcmp(&x->addr, &y->addr, sizeof(x->addr));
	return r ? r : (int)ntohs(x->port) - (int)ntohs(y->port);
}

const struct svc_backend *svc_backend_find(const struct svc_backend *list, size_t n,
					   const struct wag_addr *addr, __be16 port)
{
	struct svc_backend key = { .addr = *addr, .port = port };
	const struct svc_backend *found = NULL;

	for (; n && !found && key.flags <= (WAG_BACKEND_LOCAL | WAG_BACKEND_CLUSTER); key.flags++)
		found = bsearch(&key, list, n, sizeof(key), svc_backend_compare);
	return found;
}

static void add_frontend(struct builder *b, struct svc_table_port *port,
			 const struct wag_addr *addr, uint16_t number, uint32_t flags)
{
	struct wag_svc_key key = { .addr = *addr, .port = htons(number), .proto = port->proto };

	for (uint32_t i = 0; i < port->n_frontends; i++) {
		if (memcmp(&port->frontends[i].key, &key, sizeof(key)) == 0) {
			port->frontends[i].flags |= flags;
			return;
		}
	}
	port->frontends[port->n_frontends++] = (struct svc_frontend){ .key = key, .flags = flags };
	b->frontends++;
}

/* An address of the Service: of the family, and not the one that stands for all of the node's. */
static void add_address(struct builder *b, struct svc_table_port *port,
			const struct wag_addr *addr, uint16_t number, uint32_t flag)
{
	bool v6 = port->family == 6;

	if (wag_addr_is_v4(addr) == v6)
		return;
	if (wag_addr_equal(addr, &any_addrs[v6]))
		b->table->remark = "0.0.0.0 and :: are no addresses of a Service: not served";
	else
		add_frontend(b, port, addr, number, flag);
}

static void add_frontends(struct builder *b, struct svc_table_port *port,
			  const struct svc_port *from)
{
	const struct service *svc = b->svc;

	for (size_t i = 0; i < svc->n_cluster_ips; i++)
		add_address(b, port, &svc->cluster_ips[i], from->port, WAG_SVC_CLUSTER_IP);
	if (port->node_port)
		add_frontend(b, port, &any_addrs[port->family == 6], port->node_port,
			     WAG_SVC_NODE_PORT);
	for (size_t i = 0; i < svc->n_external_ips; i++)
		add_address(b, port, &svc->external_ips[i], from->port, WAG_SVC_EXTERNAL_IP);
	for (size_t i = 0; svc->type == SVC_LOAD_BALANCER && i < svc->n_lb_ips; i++)
		if (!svc->lb_ips[i].proxy)
			add_address(b, port, &svc->lb_ips[i].addr, from->port,
				    WAG_SVC_LOAD_BALANCER);
}

static int range_compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct wag_src_range_key));
}

/* Those of the family; without any of it everybody is let in, as by kube-proxy. */
static void add_ranges(struct builder *b, struct svc_table_port *port, bool v6)
{
	const struct service *svc = b->svc;
	uint32_t kept = 0;

	for (size_t i = 0; svc->type == SVC_LOAD_BALANCER && i < svc->n_source_ranges; i++) {
		const struct source_range *from = &svc->source_ranges[i];
		unsigned bits = from->bits + (v6 ? 0 : 96);
		struct wag_src_range_key *key;

		if (wag_addr_is_v4(&from->addr) == v6)
			continue;
		key = &port->ranges[port->n_ranges++];
		*key = (struct wag_src_range_key){ .bits = 32 + bits };
		for (unsigned w = 0; w < 4; w++) {
			unsigned n = bits > 32 * w ? bits - 32 * w : 0;

			key->addr[w] = from->addr.w[w] & (n == 0   ? 0 :
							  n >= 32 ? UINT32_MAX :
								    htonl(~(UINT32_MAX >> n)));
		}
	}
	qsort(port->ranges, port->n_ranges, sizeof(port->ranges[0]), range_compare);
	for (uint32_t i = 0; i < port->n_ranges; i++)
		if (i == 0 || range_compare(&port->ranges[kept - 1], &port->ranges[i]) != 0)
			port->ranges[kept++] = port->ranges[i];
	port->n_ranges = kept;
	b->ranges += kept;
}

static bool is_external(const struct svc_table_port *port)
{
	for (uint32_t i = 0; i < port->n_frontends; i++)
		if (port->frontends[i].flags & WAG_SVC_EXTERNAL)
			return true;
	return false;
}

/* Are clients outside answered by the endpoint's own node? Under Local it is this one anyway. */
static bool serves_dsr(const struct builder *b, uint8_t proto)
{
	const struct compile_facts *facts = b->facts;
	enum lb_mode mode = b->svc->forwarding;

	if (!facts || !facts->tunnel || b->svc->external_local)
		return false;
	if (mode == LB_MODE_DEFAULT)
		mode = facts->lb_mode;
	return mode == LB_MODE_DSR || (mode == LB_MODE_HYBRID && proto == IPPROTO_TCP);
}

/* Tables for the endpoints chosen, if a range can hold them. */
static void add_maglev(struct builder *b, struct svc_table_port *port)
{
	enum lb_algorithm algorithm = b->svc->algorithm;
	uint16_t without = port->slots_flags;

	if (algorithm == LB_ALGORITHM_UNKNOWN)
		b->table->remark = "annotation lb-algorithm is neither random nor maglev: the "
				   "agent's --lb-algorithm counts";
	if (algorithm == LB_ALGORITHM_DEFAULT || algorithm == LB_ALGORITHM_UNKNOWN)
		algorithm = b->facts ? b->facts->lb_algorithm : LB_ALGORITHM_RANDOM;
	if (algorithm != LB_ALGORITHM_MAGLEV || port->n_backends == 0)
		return;
	port->slots_flags |= WAG_SLOTS_HEAD | WAG_SLOTS_MAGLEV;
	if (svc_slots(port) <= UINT16_MAX)
		return;
	port->slots_flags = without;
	b->table->remark = "too many endpoints for Maglev's table (5242 at most, fewer where many "
			   "are on this node): they are chosen at random";
}

static int choose_backends(struct builder *b, struct svc_table_port *port,
			   const struct svc_port *from, bool v6)
{
	const struct service *svc = b->svc;
	bool external = is_external(port), any, head_needed;
	bool dsr = external && serves_dsr(b, port->proto);
	struct endpoints_want want = {
		.slices = b->slices,
		.n_slices = b->n_slices,
		.port = from,
		.v6 = v6,
		/* Also under externalTrafficPolicy Local: for the node's own clients. */
		.uses_cluster = !svc->internal_local || external,
		.uses_local = svc->internal_local || (svc->external_local && external) || dsr,
		.facts = b->facts,
	};
	struct wag_slot_head head;
	int r = endpoints_choose(&want, port->backends, &port->n_backends, &any);

	if (r < 0)
		return r;
	/* With a local policy always: then no endpoint of it is here, if the set is empty. */
	head_needed = want.uses_local && port->n_backends;
	for (uint32_t i = 0; i < port->n_backends; i++)
		head_needed |= port->backends[i].flags != WAG_BACKEND_CLUSTER;
	port->slots_flags = (head_needed ? WAG_SLOTS_HEAD : 0) | (any ? WAG_SLOTS_ANY : 0) |
			    (svc->internal_local ? WAG_SLOTS_INTERNAL_LOCAL : 0) |
			    (svc->external_local && external ? WAG_SLOTS_EXTERNAL_LOCAL : 0) |
			    (port->n_ranges ? WAG_SLOTS_SOURCE_RANGES : 0) |
			    (dsr ? WAG_SLOTS_DSR : 0);
	add_maglev(b, port);
	svc_slot_head(port, 0, &head);
	any = any && head.local_count == 0;
	port->no_local_internal = any && svc->internal_local;
	port->no_local_external = any && svc->external_local && external;
	b->backends += port->n_backends;
	return 0;
}

static int add_port(struct builder *b, const struct svc_port *from, bool v6)
{
	struct svc_table_port *port = &b->table->ports[b->table->n_ports++];
	bool node_port = b->svc->type == SVC_NODE_PORT || b->svc->type == SVC_LOAD_BALANCER;

	*port = (struct svc_table_port){
		.name = strcpy(b->text, from->name),
		.proto = from->proto,
		.family = v6 ? 6 : 4,
		.node_port = node_port ? from->node_port : 0,
		.affinity_s = b->svc->affinity_s,
		.frontends = b->frontends,
		.backends = b->backends,
		.ranges = b->ranges,
	};
	b->text += strlen(from->name) + 1;
	add_ranges(b, port, v6);
	add_frontends(b, port, from);
	return choose_backends(b, port, from, v6);
}

static int builder_init(struct builder *b)
{
	const struct service *svc = b->svc;
	size_t n_ports = 0, n_frontends = 0, n_backends = 0, n_ranges = 0, n_text = 0, head;

	for (int v6 = 0; v6 <= 1; v6++) {
		if (!has_family(svc, v6))
			continue;
		for (size_t i = 0; i < svc->n_ports; i++) {
			n_ports++;
			n_frontends += svc->n_cluster_ips + svc->n_external_ips + svc->n_lb_ips +
				       (svc->ports[i].node_port != 0);
			n_backends += endpoints_max(b->slices, b->n_slices, &svc->ports[i], v6);
			n_ranges += svc->n_source_ranges;
			n_text += strlen(svc->ports[i].name) + 1;
		}
	}
	if (n_ports == 0)
		return 0;
	head = sizeof(*b->table) + n_ports * sizeof(b->table->ports[0]);
	b->table = malloc(head + n_frontends * sizeof(*b->frontends) +
			  n_backends * sizeof(*b->backends) + n_ranges * sizeof(*b->ranges) +
			  n_text);
	if (!b->table)
		return -ENOMEM;
	b->table->n_ports = 0;
	b->table->remark = NULL;
	b->frontends = (struct svc_frontend *)((char *)b->table + head);
	b->backends = (struct svc_backend *)(b->frontends + n_frontends);
	b->ranges = (struct wag_src_range_key *)(b->backends + n_backends);
	b->text = (char *)(b->ranges + n_ranges);
	return 0;
}

int compile_service(const struct object *obj, const struct object *const *slices, size_t n_slices,
		    const struct compile_facts *facts, struct svc_table **ret)
{
	static const char *const types[] = { "ClusterIP", "NodePort", "LoadBalancer" };
	const struct service *svc = &obj->service;
	struct builder b = {
		.svc = svc, .slices = slices, .n_slices = n_slices, .facts = facts
	};
	int r;

	*ret = NULL;
	if (svc->headless || svc->other_proxy || svc->type == SVC_EXTERNAL_NAME)
		return 0;
	r = builder_init(&b);
	if (r < 0 || !b.table)
		return r;
	b.table->type = types[svc->type];
	for (int v6 = 0; v6 <= 1; v6++)
		for (size_t i = 0; r == 0 && has_family(svc, v6) && i < svc->n_ports; i++)
			r = add_port(&b, &svc->ports[i], v6);
	if (r < 0) {
		free(b.table);
		return r;
	}
	*ret = b.table;
	return 0;
}

static bool bytes_equal(const void *a, const void *b, size_t n, size_t size)
{
	return n == 0 || memcmp(a, b, n * size) == 0;
}

static bool port_equal(const struct svc_table_port *a, const struct svc_table_port *b)
{
	return a->proto == b->proto && a->family == b->family && a->node_port == b->node_port &&
	       a->affinity_s == b->affinity_s && a->slots_flags == b->slots_flags &&
	       a->no_local_internal == b->no_local_internal &&
	       a->no_local_external == b->no_local_external && a->n_frontends == b->n_frontends &&
	       a->n_backends == b->n_backends && a->n_ranges == b->n_ranges &&
	       strcmp(a->name, b->name) == 0 &&
	       bytes_equal(a->frontends, b->frontends, a->n_frontends, sizeof(*a->frontends)) &&
	       bytes_equal(a->backends, b->backends, a->n_backends, sizeof(*a->backends)) &&
	       bytes_equal(a->ranges, b->ranges, a->n_ranges, sizeof(*a->ranges));
}

int svc_table_equal(const struct svc_table *a, const struct svc_table *b)
{
	if (!a || !b)
		return a == b;
	if (a->type != b->type || a->remark != b->remark || a->n_ports != b->n_ports)
		return 0;
	for (uint32_t i = 0; i < a->n_ports; i++)
		if (!port_equal(&a->ports[i], &b->ports[i]))
			return 0;
	return 1;
}
