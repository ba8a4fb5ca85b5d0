// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "compile_service.h"
#include "model.h"

/* The table is one block: header and ports, then frontends, backends and the ports' names. */
struct builder {
	const struct service *svc;
	const struct object *const *slices;
	size_t n_slices;
	struct svc_table *table;
	struct svc_frontend *frontends;
	struct svc_backend *backends;
	char *text;
};

static bool is_v4(const struct wag_addr *addr)
{
	return addr->d[0] == 0 && addr->w[2] == htonl(WAG_V4MAPPED_W2);
}

static bool has_family(const struct service *svc, bool v6)
{
	for (size_t i = 0; i < svc->n_cluster_ips; i++)
		if (is_v4(&svc->cluster_ips[i]) != v6)
			return true;
	return false;
}

int svc_backend_compare(const void *a, const void *b)
{
	const struct svc_backend *x = a, *y = b;
	int r = memcmp(&x->addr, &y->addr, sizeof(x->addr));

	return r ? r : (int)ntohs(x->port) - (int)ntohs(y->port);
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

static void add_frontends(struct builder *b, struct svc_table_port *port,
			  const struct svc_port *from, bool v6)
{
	const struct service *svc = b->svc;
	struct wag_addr any = { .w = { 0, 0, v6 ? 0 : htonl(WAG_V4MAPPED_W2), 0 } };

	for (size_t i = 0; i < svc->n_cluster_ips; i++)
		if (is_v4(&svc->cluster_ips[i]) != v6)
			add_frontend(b, port, &svc->cluster_ips[i], from->port, WAG_SVC_CLUSTER_IP);
	if (port->node_port)
		add_frontend(b, port, &any, port->node_port, WAG_SVC_NODE_PORT);
	for (size_t i = 0; i < svc->n_external_ips; i++)
		if (is_v4(&svc->external_ips[i]) != v6)
			add_frontend(b, port, &svc->external_ips[i], from->port,
				     WAG_SVC_EXTERNAL_IP);
	for (size_t i = 0; svc->type == SVC_LOAD_BALANCER && i < svc->n_lb_ips; i++)
		if (!svc->lb_ips[i].proxy && is_v4(&svc->lb_ips[i].addr) != v6)
			add_frontend(b, port, &svc->lb_ips[i].addr, from->port,
				     WAG_SVC_LOAD_BALANCER);
}

static const struct slice_port *match_port(const struct slice *slice, const struct svc_port *port,
					   bool v6)
{
	if (slice->fqdn || slice->v6 != v6)
		return NULL;
	for (size_t i = 0; i < slice->n_ports; i++) {
		const struct slice_port *p = &slice->ports[i];

		if (p->proto == port->proto && p->port != 0 && strcmp(p->name, port->name) == 0)
			return p;
	}
	return NULL;
}

/* As in kube-proxy only the first address of an endpoint counts. */
static bool endpoint_fits(const struct slice_endpoint *ep, bool v6)
{
	if (ep->n_addrs == 0 || is_v4(&ep->addrs[0]) == v6)
		return false;
	return ep->addrs[0].w[3] != 0 || (v6 && (ep->addrs[0].d[0] != 0 || ep->addrs[0].w[2] != 0));
}

/* The endpoints of one of the two rounds: the ready, else those that serve while terminating. */
static void add_backends(struct builder *b, struct svc_table_port *port,
			 const struct svc_port *from, bool v6, bool ready)
{
	for (size_t i = 0; i < b->n_slices; i++) {
		const struct slice *slice = &b->slices[i]->slice;
		const struct slice_port *p = match_port(slice, from, v6);

		for (size_t j = 0; p && j < slice->n_endpoints; j++) {
			const struct slice_endpoint *ep = &slice->endpoints[j];

			if (!endpoint_fits(ep, v6))
				continue;
			if (ready ? !ep->ready : !(ep->serving && ep->terminating))
				continue;
			port->backends[port->n_backends++] =
				(struct svc_backend){ .addr = ep->addrs[0],
						      .port = htons(p->port) };
		}
	}
}

/* Which of the usable endpoints this node may use: the traffic policies' place. Today all. */
static void choose_backends(struct builder *b, struct svc_table_port *port,
			    const struct svc_port *from, bool v6)
{
	struct svc_backend *list = port->backends;
	uint32_t kept = 0;

	add_backends(b, port, from, v6, true);
	if (port->n_backends == 0)
		add_backends(b, port, from, v6, false);
	qsort(list, port->n_backends, sizeof(*list), svc_backend_compare);
	for (uint32_t i = 0; i < port->n_backends; i++)
		if (i == 0 || svc_backend_compare(&list[kept - 1], &list[i]) != 0)
			list[kept++] = list[i];
	port->n_backends = kept;
	b->backends += kept;
}

static void add_port(struct builder *b, const struct svc_port *from, bool v6)
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
	};
	b->text += strlen(from->name) + 1;
	add_frontends(b, port, from, v6);
	choose_backends(b, port, from, v6);
}

/* How many endpoints one port could have in one family: bounds the block's size. */
static size_t max_backends(const struct builder *b, const struct svc_port *port, bool v6)
{
	size_t n = 0;

	for (size_t i = 0; i < b->n_slices; i++)
		if (match_port(&b->slices[i]->slice, port, v6))
			n += b->slices[i]->slice.n_endpoints;
	return n;
}

static int builder_init(struct builder *b)
{
	const struct service *svc = b->svc;
	size_t n_ports = 0, n_frontends = 0, n_backends = 0, n_text = 0, head;

	for (int v6 = 0; v6 <= 1; v6++) {
		if (!has_family(svc, v6))
			continue;
		for (size_t i = 0; i < svc->n_ports; i++) {
			n_ports++;
			n_frontends += svc->n_cluster_ips + svc->n_external_ips + svc->n_lb_ips +
				       (svc->ports[i].node_port != 0);
			n_backends += max_backends(b, &svc->ports[i], v6);
			n_text += strlen(svc->ports[i].name) + 1;
		}
	}
	if (n_ports == 0)
		return 0;
	head = sizeof(*b->table) + n_ports * sizeof(b->table->ports[0]);
	b->table = malloc(head + n_frontends * sizeof(*b->frontends) +
			  n_backends * sizeof(*b->backends) + n_text);
	if (!b->table)
		return -ENOMEM;
	b->table->n_ports = 0;
	b->frontends = (struct svc_frontend *)((char *)b->table + head);
	b->backends = (struct svc_backend *)(b->frontends + n_frontends);
	b->text = (char *)(b->backends + n_backends);
	return 0;
}

int compile_service(const struct object *obj, const struct object *const *slices, size_t n_slices,
		    const struct compile_facts *facts, struct svc_table **ret)
{
	static const char *const types[] = { "ClusterIP", "NodePort", "LoadBalancer" };
	const struct service *svc = &obj->service;
	struct builder b = { .svc = svc, .slices = slices, .n_slices = n_slices };
	int r;

	*ret = NULL;
	if (svc->headless || svc->other_proxy || svc->type == SVC_EXTERNAL_NAME)
		return 0;
	r = builder_init(&b);
	if (r < 0 || !b.table)
		return r;
	b.table->type = types[svc->type];
	for (int v6 = 0; v6 <= 1; v6++)
		for (size_t i = 0; has_family(svc, v6) && i < svc->n_ports; i++)
			add_port(&b, &svc->ports[i], v6);
	*ret = b.table;
	return 0;
}

static bool port_equal(const struct svc_table_port *a, const struct svc_table_port *b)
{
	return a->proto == b->proto && a->family == b->family && a->node_port == b->node_port &&
	       a->affinity_s == b->affinity_s && a->n_frontends == b->n_frontends &&
	       a->n_backends == b->n_backends && strcmp(a->name, b->name) == 0 &&
	       memcmp(a->frontends, b->frontends, a->n_frontends * sizeof(*a->frontends)) == 0 &&
	       memcmp(a->backends, b->backends, a->n_backends * sizeof(*a->backends)) == 0;
}

int svc_table_equal(const struct svc_table *a, const struct svc_table *b)
{
	if (!a || !b)
		return a == b;
	if (a->type != b->type || a->n_ports != b->n_ports)
		return 0;
	for (uint32_t i = 0; i < a->n_ports; i++)
		if (!port_equal(&a->ports[i], &b->ports[i]))
			return 0;
	return 1;
}
