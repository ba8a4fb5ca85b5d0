// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "compile_service.h"
#include "model.h"

struct candidate {
	const struct slice_endpoint *ep;
	__be16 port;
	bool local;
	uint16_t flags;
};

struct candidates {
	struct candidate *list;
	size_t n;
};

typedef bool (*candidate_fn)(const struct candidate *c, const char *name);

static const struct slice_port *match_port(const struct slice *slice, const struct svc_port *port,
					   bool v6)
{
	if (slice->fqdn || slice->other_proxy || slice->v6 != v6)
		return NULL;
	for (size_t i = 0; i < slice->n_ports; i++) {
		const struct slice_port *p = &slice->ports[i];

		if (p->proto == port->proto && p->port != 0 && strcmp(p->name, port->name) == 0)
			return p;
	}
	return NULL;
}

size_t endpoints_max(const struct object *const *slices, size_t n_slices,
		     const struct svc_port *port, bool v6)
{
	size_t n = 0;

	for (size_t i = 0; i < n_slices; i++)
		if (match_port(&slices[i]->slice, port, v6))
			n += slices[i]->slice.n_endpoints;
	return n;
}

/* As in kube-proxy only the first address of an endpoint counts. */
static bool endpoint_fits(const struct slice_endpoint *ep, bool v6)
{
	if (ep->n_addrs == 0 || wag_addr_is_v4(&ep->addrs[0]) == v6)
		return false;
	return ep->addrs[0].w[3] != 0 || (v6 && (ep->addrs[0].d[0] != 0 || ep->addrs[0].w[2] != 0));
}

static bool is_ready(const struct candidate *c, const char *name)
{
	return c->ep->ready;
}

static bool is_going(const struct candidate *c, const char *name)
{
	return !c->ep->ready && c->ep->serving && c->ep->terminating;
}

/* Is name in a list like "a,b"? */
static bool hinted(const char *list, const char *name)
{
	size_t len = strlen(name);

	while (list && len) {
		if (strncmp(list, name, len) == 0 && (list[len] == ',' || !list[len]))
			return true;
		list = strchr(list, ',');
		if (list)
			list++;
	}
	return false;
}

static bool is_ready_for_node(const struct candidate *c, const char *name)
{
	return c->ep->ready && hinted(c->ep->hint_nodes, name);
}

static bool is_ready_for_zone(const struct candidate *c, const char *name)
{
	return c->ep->ready && hinted(c->ep->hint_zones, name);
}

static int text_compare(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "");
}

/* By address; of one address that several slices tell of, whom to believe first. */
static int candidate_compare(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;
	int r = memcmp(&x->ep->addrs[0], &y->ep->addrs[0], sizeof(struct wag_addr));

	if (r == 0)
		r = (int)ntohs(x->port) - (int)ntohs(y->port);
	if (r == 0)
		r = y->local - x->local;
	if (r == 0)
		r = y->ep->ready - x->ep->ready;
	if (r == 0)
		r = y->ep->serving - x->ep->serving;
	if (r == 0)
		r = x->ep->terminating - y->ep->terminating;
	if (r == 0)
		r = text_compare(y->ep->hint_nodes, x->ep->hint_nodes);
	return r ? r : text_compare(y->ep->hint_zones, x->ep->hint_zones);
}

static bool same_address(const struct candidate *a, const struct candidate *b)
{
	return a->port == b->port && wag_addr_equal(&a->ep->addrs[0], &b->ep->addrs[0]);
}

static void collect(const struct endpoints_want *want, struct candidates *c)
{
	const char *node = want->facts ? want->facts->node_name : NULL;
	size_t kept = 0;

	for (size_t i = 0; i < want->n_slices; i++) {
		const struct slice *slice = &want->slices[i]->slice;
		const struct slice_port *p = match_port(slice, want->port, want->v6);

		for (size_t j = 0; p && j < slice->n_endpoints; j++) {
			const struct slice_endpoint *ep = &slice->endpoints[j];

			if (!endpoint_fits(ep, want->v6))
				continue;
			c->list[c->n++] = (struct candidate){
				.ep = ep,
				.port = htons(p->port),
				.local = node && ep->node_name && strcmp(node, ep->node_name) == 0,
			};
		}
	}
	qsort(c->list, c->n, sizeof(*c->list), candidate_compare);
	for (size_t i = 0; i < c->n; i++)
		if (i == 0 || !same_address(&c->list[kept - 1], &c->list[i]))
			c->list[kept++] = c->list[i];
	c->n = kept;
}

/* Puts those into a set that pass; how many did. */
static size_t mark(struct candidates *c, uint16_t flag, bool local, candidate_fn fn,
		   const char *name)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n; i++) {
		if ((local && !c->list[i].local) || !fn(&c->list[i], name))
			continue;
		c->list[i].flags |= flag;
		n++;
	}
	return n;
}

/* Hints count only if every ready endpoint has one. */
static bool all_hinted(const struct candidates *c, bool nodes)
{
	for (size_t i = 0; i < c->n; i++) {
		const struct slice_endpoint *ep = c->list[i].ep;

		if (ep->ready && !(nodes ? ep->hint_nodes : ep->hint_zones))
			return false;
	}
	return true;
}

/* The ready ones hinted for this node, else for its zone, else all; else what still serves. */
static size_t mark_cluster(struct candidates *c, const struct compile_facts *facts)
{
	const char *node = facts && facts->node_name ? facts->node_name : "";
	const char *zone = facts ? facts->zone : "";
	size_t n = 0;

	if (all_hinted(c, true))
		n = mark(c, WAG_BACKEND_CLUSTER, false, is_ready_for_node, node);
	if (n == 0 && all_hinted(c, false))
		n = mark(c, WAG_BACKEND_CLUSTER, false, is_ready_for_zone, zone);
	if (n == 0)
		n = mark(c, WAG_BACKEND_CLUSTER, false, is_ready, NULL);
	return n ? n : mark(c, WAG_BACKEND_CLUSTER, false, is_going, NULL);
}

/* A flow of datagrams stays with what still serves; connections end by themselves. */
static bool keeps_flows(const struct endpoints_want *want, const struct candidate *c)
{
	return want->port->proto == IPPROTO_UDP && (c->ep->ready || c->ep->serving) &&
	       (want->uses_cluster || c->local);
}

int endpoints_choose(const struct endpoints_want *want, struct svc_backend *list, uint32_t *ret_n,
		     bool *ret_any)
{
	size_t max = endpoints_max(want->slices, want->n_slices, want->port, want->v6);
	_cleanup_free_ struct candidate *memory = calloc(max + 1, sizeof(*memory));
	struct candidates c = { .list = memory };
	uint32_t n = 0;

	if (!memory)
		return -ENOMEM;
	collect(want, &c);
	*ret_any = mark_cluster(&c, want->facts) > 0;
	if (want->uses_local && mark(&c, WAG_BACKEND_LOCAL, true, is_ready, NULL) == 0)
		mark(&c, WAG_BACKEND_LOCAL, true, is_going, NULL);
	for (size_t i = 0; i < c.n; i++) {
		if (!want->uses_cluster)
			c.list[i].flags &= ~WAG_BACKEND_CLUSTER;
		if (!c.list[i].flags && !keeps_flows(want, &c.list[i]))
			continue;
		list[n++] = (struct svc_backend){ .addr = c.list[i].ep->addrs[0],
						  .port = c.list[i].port,
						  .flags = c.list[i].flags };
	}
	qsort(list, n, sizeof(*list), svc_backend_compare);
	*ret_n = n;
	return 0;
}
