// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <waggle/addr.h>
#include "agent/compile_service.h"
#include "agent/model.h"

/*
 * Flags of an endpoint: n not ready, s serving, t terminating; nothing means ready and serving.
 * The node under test is n1 in zone z1.
 *
 * A table is told as "port/proto/family+flags: frontends > backends" for each port; flags: i, e for
 * the Local traffic policies, r for source ranges, d for DSR, m for Maglev. A frontend has for
 * flags: C clusterIP, N NodePort, E externalIP, L load balancer. A backend has none if it is for
 * everybody, else: c cluster set, l local set, - neither. Then " ?": endpoints, but not here;
 * " !i", " !e": none for internal or external traffic.
 */
#define MAX 4

struct ep_spec {
	const char *addr, *flags, *node, *zones, *nodes;
};

struct slice_spec {
	const char *port_name;
	uint8_t proto;
	uint16_t port;
	bool v6, fqdn;
	struct ep_spec eps[MAX];
};

struct svc_spec {
	struct service service; /* scalars */
	const char *cluster_ips[MAX], *external_ips[MAX], *lb_ips[MAX], *ranges[MAX];
	struct svc_port ports[MAX];
};

struct fixture {
	struct object svc, slices[MAX];
	const struct object *list[MAX];
	struct wag_addr cluster[MAX], external[MAX], eps[MAX][MAX];
	struct lb_ingress lb[MAX];
	struct source_range ranges[MAX];
	struct slice_port ports[MAX];
	struct slice_endpoint endpoints[MAX][MAX];
	size_t n;
};

static size_t parse_addrs(const char *const *from, struct wag_addr *to)
{
	size_t n;

	for (n = 0; n < MAX && from[n]; n++)
		assert_int_equal(wag_addr_parse(from[n], &to[n]), 0);
	return n;
}

static void make_slice(struct fixture *f, size_t i, const struct slice_spec *spec)
{
	struct slice *slice = &f->slices[i].slice;

	f->list[i] = &f->slices[i];
	slice->v6 = spec->v6;
	slice->fqdn = spec->fqdn;
	f->ports[i] = (struct slice_port){ (char *)spec->port_name, spec->proto, spec->port };
	slice->ports = &f->ports[i];
	slice->n_ports = 1;
	slice->endpoints = f->endpoints[i];
	for (size_t j = 0; j < MAX && spec->eps[j].addr; j++) {
		const char *flags = spec->eps[j].flags ? spec->eps[j].flags : "s";
		struct slice_endpoint *ep = &f->endpoints[i][j];

		assert_int_equal(wag_addr_parse(spec->eps[j].addr, &f->eps[i][j]), 0);
		ep->addrs = &f->eps[i][j];
		ep->n_addrs = 1;
		ep->ready = !strchr(flags, 'n');
		ep->serving = strchr(flags, 's') != NULL;
		ep->terminating = strchr(flags, 't') != NULL;
		ep->node_name = (char *)spec->eps[j].node;
		ep->hint_zones = (char *)spec->eps[j].zones;
		ep->hint_nodes = (char *)spec->eps[j].nodes;
		slice->n_endpoints++;
	}
}

static void make(struct fixture *f, const struct svc_spec *spec, const struct slice_spec *slices)
{
	struct service *svc = &f->svc.service;
	struct wag_addr lb[MAX];

	memset(f, 0, sizeof(*f));
	*svc = spec->service;
	svc->cluster_ips = f->cluster;
	svc->n_cluster_ips = parse_addrs(spec->cluster_ips, f->cluster);
	svc->external_ips = f->external;
	svc->n_external_ips = parse_addrs(spec->external_ips, f->external);
	svc->lb_ips = f->lb;
	svc->n_lb_ips = parse_addrs(spec->lb_ips, lb);
	for (size_t i = 0; i < svc->n_lb_ips; i++)
		f->lb[i] = (struct lb_ingress){ lb[i], i == 1 }; /* the second is ipMode Proxy */
	svc->source_ranges = f->ranges;
	for (size_t i = 0; i < MAX && spec->ranges[i]; i++, svc->n_source_ranges++)
		assert_int_equal(wag_cidr_parse(spec->ranges[i], &f->ranges[i].addr,
						&f->ranges[i].bits), 0);
	svc->ports = (struct svc_port *)spec->ports;
	while (svc->n_ports < MAX && svc->ports[svc->n_ports].name)
		svc->n_ports++;
	for (f->n = 0; f->n < MAX && slices[f->n].port_name; f->n++)
		make_slice(f, f->n, &slices[f->n]);
}

static const char *letters(uint32_t flags, const char *names, char *buf)
{
	char *at = buf;

	for (; *names; names++, flags >>= 1)
		if (flags & 1)
			*at++ = *names;
	*at = '\0';
	return buf;
}

static char *tell_port(const struct svc_table_port *p, char *buf, char *end)
{
	char text[64], flags[16];

	letters(p->slots_flags >> 2, "ierdm", flags);
	buf += snprintf(buf, end - buf, "%s/%s/%u%s%s:", p->name, wag_proto_name(p->proto),
			p->family, *flags ? "+" : "", flags);
	for (uint32_t j = 0; j < p->n_frontends; j++)
		buf += snprintf(buf, end - buf, " %s=%s",
				wag_addr_port_format(&p->frontends[j].key.addr,
						     p->frontends[j].key.port, text, sizeof(text)),
				letters(p->frontends[j].flags, "CNEL", flags));
	buf += snprintf(buf, end - buf, " >");
	for (uint32_t j = 0; j < p->n_backends; j++) {
		uint16_t set = p->backends[j].flags;

		buf += snprintf(buf, end - buf, " %s",
				wag_addr_port_format(&p->backends[j].addr, p->backends[j].port,
						     text, sizeof(text)));
		if (p->slots_flags & WAG_SLOTS_HEAD)
			buf += snprintf(buf, end - buf, "=%s",
					set ? letters(set, "cl", flags) : "-");
	}
	if (p->slots_flags & WAG_SLOTS_ANY && p->n_backends == 0)
		buf += snprintf(buf, end - buf, " ?");
	for (uint32_t j = 0; j < p->n_ranges; j++) {
		struct wag_addr addr;

		memcpy(addr.w, p->ranges[j].addr, sizeof(addr.w));
		buf += snprintf(buf, end - buf, " from %s/%u", wag_addr_format(&addr, text),
				p->ranges[j].bits - 32 - (p->family == 4 ? 96 : 0));
	}
	buf += snprintf(buf, end - buf, "%s%s", p->no_local_internal ? " !i" : "",
			p->no_local_external ? " !e" : "");
	return buf;
}

static void tell(const struct svc_table *t, char *buf, size_t size)
{
	char *end = buf + size;

	buf[0] = '\0';
	for (uint32_t i = 0; t && i < t->n_ports; i++) {
		if (i)
			buf += snprintf(buf, end - buf, " | ");
		buf = tell_port(&t->ports[i], buf, end);
	}
}

#define PORT80 { { "p80", IPPROTO_TCP, 80, 0 } }

static const struct test_case {
	const char *name;
	struct svc_spec svc;
	struct slice_spec slices[MAX];
	const char *want;
} cases[] = {
	{ "ServiceHeadless", { { .headless = true }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 80, .eps = { { "10.1.0.1" } } } }, "" },
	{ "ServiceTypeExternalName",
	  { { .type = SVC_EXTERNAL_NAME }, .cluster_ips = { "10.96.0.1" }, .ports = PORT80 },
	  {}, "" },
	{ "service-proxy-name",
	  { { .other_proxy = true }, .cluster_ips = { "10.96.0.1" }, .ports = PORT80 }, {}, "" },
	{ "no cluster address", { .external_ips = { "192.0.2.1" }, .ports = PORT80 }, {}, "" },
	{ "ClusterIPReject", { .cluster_ips = { "10.96.0.1" }, .ports = PORT80 }, {},
	  "p80/TCP/4: 10.96.0.1:80=C >"},
	{ "ClusterIPEndpointsMore", { .cluster_ips = { "10.96.0.1" }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 8080, .eps = { { "10.1.0.2" }, { "10.1.0.1" } } },
	    { "p80", IPPROTO_TCP, 8080, .eps = { { "10.1.0.3" }, { "10.1.0.2" } } } },
	  "p80/TCP/4: 10.96.0.1:80=C > 10.1.0.1:8080 10.1.0.2:8080 10.1.0.3:8080"},
	{ "dual stack",
	  { .cluster_ips = { "fd00::1", "10.96.0.1" }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 81, .eps = { { "10.1.0.1" } } },
	    { "p80", IPPROTO_TCP, 82, .v6 = true, .eps = { { "fd01::1" } } } },
	  "p80/TCP/4: 10.96.0.1:80=C > 10.1.0.1:81 | p80/TCP/6: [fd00::1]:80=C > [fd01::1]:82"},
	{ "BadIPs: the slice lies about its family",
	  { .cluster_ips = { "10.96.0.1" }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 81, .eps = { { "fd01::1" }, { "0.0.0.0" }, { "10.1.0.1" } } },
	    { "p80", IPPROTO_TCP, 81, .fqdn = true, .eps = { { "10.1.0.9" } } } },
	  "p80/TCP/4: 10.96.0.1:80=C > 10.1.0.1:81"},
	{ "NodePorts",
	  { { .type = SVC_NODE_PORT }, .cluster_ips = { "10.96.0.1", "fd00::1" },
	    .ports = { { "p80", IPPROTO_TCP, 80, 30080 } } },
	  { { "p80", IPPROTO_TCP, 80, .eps = { { "10.1.0.1" } } } },
	  "p80/TCP/4: 10.96.0.1:80=C 0.0.0.0:30080=N > 10.1.0.1:80 | p80/TCP/6: [fd00::1]:80=C "
	  "[::]:30080=N >"},
	{ "a ClusterIP Service has no node port",
	  { .cluster_ips = { "10.96.0.1" }, .ports = { { "p80", IPPROTO_TCP, 80, 30080 } } }, {},
	  "p80/TCP/4: 10.96.0.1:80=C >"},
	{ "ExternalIPs of the family",
	  { .cluster_ips = { "10.96.0.1" }, .external_ips = { "192.0.2.1", "2001:db8::1" },
	    .ports = PORT80 }, {},
	  "p80/TCP/4: 10.96.0.1:80=C 192.0.2.1:80=E >"},
	{ "LoadBalancerIngressRouteTypeProxy",
	  { { .type = SVC_LOAD_BALANCER }, .cluster_ips = { "10.96.0.1" },
	    .lb_ips = { "192.0.2.1", "192.0.2.2", "192.0.2.3" }, .ports = PORT80 }, {},
	  "p80/TCP/4: 10.96.0.1:80=C 192.0.2.1:80=L 192.0.2.3:80=L >"},
	{ "the address of all NodePorts is no other frontend's",
	  { { .type = SVC_LOAD_BALANCER }, .cluster_ips = { "10.96.0.1", "::" },
	    .external_ips = { "0.0.0.0", "::" }, .lb_ips = { "0.0.0.0" },
	    .ports = { { "p22", IPPROTO_TCP, 22, 30022 } } }, {},
	  "p22/TCP/4: 10.96.0.1:22=C 0.0.0.0:30022=N > | p22/TCP/6: [::]:30022=N >"},
	{ "one address twice",
	  { { .type = SVC_LOAD_BALANCER }, .cluster_ips = { "10.96.0.1" },
	    .external_ips = { "192.0.2.1" }, .lb_ips = { "192.0.2.1" }, .ports = PORT80 }, {},
	  "p80/TCP/4: 10.96.0.1:80=C 192.0.2.1:80=EL >"},
	{ "ports match by name and protocol",
	  { .cluster_ips = { "10.96.0.1" },
	    .ports = { { "dns", IPPROTO_UDP, 53, 0 }, { "dns-tcp", IPPROTO_TCP, 53, 0 } } },
	  { { "dns", IPPROTO_UDP, 5353, .eps = { { "10.1.0.1" } } },
	    { "dns", IPPROTO_TCP, 1, .eps = { { "10.1.0.2" } } },
	    { "dns-tcp", IPPROTO_TCP, 5354, .eps = { { "10.1.0.1" } } },
	    { "", IPPROTO_UDP, 9, .eps = { { "10.1.0.3" } } } },
	  "dns/UDP/4: 10.96.0.1:53=C > 10.1.0.1:5353 | dns-tcp/TCP/4: 10.96.0.1:53=C > "
	  "10.1.0.1:5354"},
	{ "unnamed, SCTP; a null port is none",
	  { .cluster_ips = { "10.96.0.1" }, .ports = { { "", IPPROTO_SCTP, 80, 0 } } },
	  { { "", IPPROTO_SCTP, 0, .eps = { { "10.1.0.1" } } },
	    { "", IPPROTO_SCTP, 80, .eps = { { "10.1.0.2" } } } },
	  "/SCTP/4: 10.96.0.1:80=C > 10.1.0.2:80"},
	{ "TerminatingEndpoints: ready ones only",
	  { .cluster_ips = { "10.96.0.1" }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 80,
	      .eps = { { "10.1.0.1" }, { "10.1.0.2", "nst" }, { "10.1.0.3", "n" } } } },
	  "p80/TCP/4: 10.96.0.1:80=C > 10.1.0.1:80"},
	{ "TerminatingEndpoints: all terminating, the serving ones",
	  { .cluster_ips = { "10.96.0.1" }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 80, .eps = { { "10.1.0.2", "nst" }, { "10.1.0.3", "nt" } } },
	    { "p80", IPPROTO_TCP, 80, .eps = { { "10.1.0.1", "nst" }, { "10.1.0.4", "ns" } } } },
	  "p80/TCP/4: 10.96.0.1:80=C > 10.1.0.1:80 10.1.0.2:80"},
	{ "TerminatingEndpoints: none usable",
	  { .cluster_ips = { "10.96.0.1" }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 80, .eps = { { "10.1.0.2", "nt" }, { "10.1.0.3", "n" } } } },
	  "p80/TCP/4: 10.96.0.1:80=C >"},
	{ "TerminatingEndpoints: a datagram's flow stays while its endpoint serves",
	  { .cluster_ips = { "10.96.0.1" }, .ports = { { "p80", IPPROTO_UDP, 80, 0 } } },
	  { { "p80", IPPROTO_UDP, 80,
	      .eps = { { "10.1.0.1" }, { "10.1.0.2", "nst" }, { "10.1.0.3", "nt" } } } },
	  "p80/UDP/4: 10.96.0.1:80=C > 10.1.0.1:80=c 10.1.0.2:80=-"},
	{ "InternalTrafficPolicy: Local with local and remote endpoints",
	  { { .internal_local = true }, .cluster_ips = { "10.96.0.1" }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 80,
	      .eps = { { "10.1.0.1", NULL, "n1" }, { "10.1.0.2", NULL, "n2" } } } },
	  "p80/TCP/4+i: 10.96.0.1:80=C > 10.1.0.1:80=l"},
	{ "InternalTrafficPolicy: Local without local endpoints",
	  { { .internal_local = true }, .cluster_ips = { "10.96.0.1" }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 80, .eps = { { "10.1.0.2", NULL, "n2" }, { "10.1.0.3" } } } },
	  "p80/TCP/4+i: 10.96.0.1:80=C > ? !i"},
	{ "InternalTrafficPolicy: Local without any endpoints",
	  { { .internal_local = true }, .cluster_ips = { "10.96.0.1" }, .ports = PORT80 }, {},
	  "p80/TCP/4+i: 10.96.0.1:80=C >"},
	{ "InternalTrafficPolicy: Local, and a NodePort for everybody",
	  { { .type = SVC_NODE_PORT, .internal_local = true }, .cluster_ips = { "10.96.0.1" },
	    .ports = { { "p80", IPPROTO_TCP, 80, 30080 } } },
	  { { "p80", IPPROTO_TCP, 80,
	      .eps = { { "10.1.0.1", NULL, "n1" }, { "10.1.0.2", NULL, "n2" } } } },
	  "p80/TCP/4+i: 10.96.0.1:80=C 0.0.0.0:30080=N > 10.1.0.1:80=cl 10.1.0.2:80=c"},
	{ "OnlyLocalNodePorts",
	  { { .type = SVC_NODE_PORT, .external_local = true }, .cluster_ips = { "10.96.0.1" },
	    .ports = { { "p80", IPPROTO_TCP, 80, 30080 } } },
	  { { "p80", IPPROTO_TCP, 80,
	      .eps = { { "10.1.0.1", NULL, "n2" }, { "10.1.0.2", NULL, "n1" } } } },
	  "p80/TCP/4+e: 10.96.0.1:80=C 0.0.0.0:30080=N > 10.1.0.2:80=cl 10.1.0.1:80=c"},
	{ "OnlyLocalLoadBalancing",
	  { { .type = SVC_LOAD_BALANCER, .external_local = true }, .cluster_ips = { "10.96.0.1" },
	    .lb_ips = { "192.0.2.1" }, .ports = { { "p80", IPPROTO_TCP, 80, 30080 } } },
	  { { "p80", IPPROTO_TCP, 80,
	      .eps = { { "10.1.0.1", NULL, "n2" }, { "10.1.0.2", NULL, "n1" } } } },
	  "p80/TCP/4+e: 10.96.0.1:80=C 0.0.0.0:30080=N 192.0.2.1:80=L > 10.1.0.2:80=cl "
	  "10.1.0.1:80=c"},
	{ "LoadBalancer without node ports (allocateLoadBalancerNodePorts: false)",
	  { { .type = SVC_LOAD_BALANCER, .external_local = true }, .cluster_ips = { "10.96.0.1" },
	    .lb_ips = { "192.0.2.1" }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 80, .eps = { { "10.1.0.1", NULL, "n2" } } } },
	  "p80/TCP/4+e: 10.96.0.1:80=C 192.0.2.1:80=L > 10.1.0.1:80=c !e"},
	{ "OnlyLocalExternalIPs",
	  { { .external_local = true }, .cluster_ips = { "10.96.0.1" },
	    .external_ips = { "192.0.2.1" }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 80,
	      .eps = { { "10.1.0.1", NULL, "n1" }, { "10.1.0.2", NULL, "n2" } } } },
	  "p80/TCP/4+e: 10.96.0.1:80=C 192.0.2.1:80=E > 10.1.0.1:80=cl 10.1.0.2:80=c"},
	{ "NonLocalExternalIPs",
	  { .cluster_ips = { "10.96.0.1" }, .external_ips = { "192.0.2.1" }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 80,
	      .eps = { { "10.1.0.1", NULL, "n1" }, { "10.1.0.2", NULL, "n2" } } } },
	  "p80/TCP/4: 10.96.0.1:80=C 192.0.2.1:80=E > 10.1.0.1:80 10.1.0.2:80"},
	{ "externalTrafficPolicy of a Service that nobody outside can reach",
	  { { .external_local = true }, .cluster_ips = { "10.96.0.1" }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 80, .eps = { { "10.1.0.2", NULL, "n2" } } } },
	  "p80/TCP/4: 10.96.0.1:80=C > 10.1.0.2:80"},
	{ "both policies Local",
	  { { .type = SVC_NODE_PORT, .external_local = true, .internal_local = true },
	    .cluster_ips = { "10.96.0.1" }, .ports = { { "p80", IPPROTO_TCP, 80, 30080 } } },
	  { { "p80", IPPROTO_TCP, 80,
	      .eps = { { "10.1.0.1", NULL, "n2" }, { "10.1.0.2", "n", "n1" } } } },
	  "p80/TCP/4+ie: 10.96.0.1:80=C 0.0.0.0:30080=N > 10.1.0.1:80=c !i !e"},
	{ "NodePortReject, LoadBalancerReject, ExternalIPsReject",
	  { { .type = SVC_LOAD_BALANCER, .external_local = true }, .cluster_ips = { "10.96.0.1" },
	    .external_ips = { "192.0.2.9" }, .lb_ips = { "192.0.2.1" },
	    .ports = { { "p80", IPPROTO_TCP, 80, 30080 } } },
	  { { "p80", IPPROTO_TCP, 80, .eps = { { "10.1.0.1", "n", "n2" } } } },
	  "p80/TCP/4+e: 10.96.0.1:80=C 0.0.0.0:30080=N 192.0.2.9:80=E 192.0.2.1:80=L >"},
	{ "TerminatingEndpointsTrafficPolicyLocal: a ready local one",
	  { { .type = SVC_NODE_PORT, .external_local = true }, .cluster_ips = { "10.96.0.1" },
	    .ports = { { "p80", IPPROTO_TCP, 80, 30080 } } },
	  { { "p80", IPPROTO_TCP, 80,
	      .eps = { { "10.1.0.1", NULL, "n1" }, { "10.1.0.2", "nst", "n1" },
		       { "10.1.0.3", NULL, "n2" } } } },
	  "p80/TCP/4+e: 10.96.0.1:80=C 0.0.0.0:30080=N > 10.1.0.1:80=cl 10.1.0.3:80=c"},
	{ "TerminatingEndpointsTrafficPolicyLocal: only terminating ones are local",
	  { { .type = SVC_NODE_PORT, .external_local = true }, .cluster_ips = { "10.96.0.1" },
	    .ports = { { "p80", IPPROTO_TCP, 80, 30080 } } },
	  { { "p80", IPPROTO_TCP, 80,
	      .eps = { { "10.1.0.1", "nst", "n1" }, { "10.1.0.2", "nt", "n1" },
		       { "10.1.0.3", NULL, "n2" }, { "10.1.0.4", "nst", "n2" } } } },
	  "p80/TCP/4+e: 10.96.0.1:80=C 0.0.0.0:30080=N > 10.1.0.1:80=l 10.1.0.3:80=c"},
	{ "TerminatingEndpointsTrafficPolicyLocal: all terminating",
	  { { .type = SVC_NODE_PORT, .external_local = true }, .cluster_ips = { "10.96.0.1" },
	    .ports = { { "p80", IPPROTO_TCP, 80, 30080 } } },
	  { { "p80", IPPROTO_TCP, 80,
	      .eps = { { "10.1.0.1", "nst", "n1" }, { "10.1.0.3", "nst", "n2" } } } },
	  "p80/TCP/4+e: 10.96.0.1:80=C 0.0.0.0:30080=N > 10.1.0.1:80=cl 10.1.0.3:80=c"},
	{ "TerminatingEndpointsTrafficPolicyLocal: a remote terminating one",
	  { { .type = SVC_NODE_PORT, .external_local = true }, .cluster_ips = { "10.96.0.1" },
	    .ports = { { "p80", IPPROTO_TCP, 80, 30080 } } },
	  { { "p80", IPPROTO_TCP, 80, .eps = { { "10.1.0.3", "nst", "n2" } } } },
	  "p80/TCP/4+e: 10.96.0.1:80=C 0.0.0.0:30080=N > 10.1.0.3:80=c !e"},
	{ "CategorizeEndpoints: hints for this zone",
	  { .cluster_ips = { "10.96.0.1" }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 80,
	      .eps = { { "10.1.0.1", NULL, "n2", "z1" }, { "10.1.0.2", NULL, "n3", "z2" },
		       { "10.1.0.3", NULL, "n4", "z2,z1" }, { "10.1.0.4", "n", "n4" } } } },
	  "p80/TCP/4: 10.96.0.1:80=C > 10.1.0.1:80 10.1.0.3:80"},
	{ "CategorizeEndpoints: hints for other zones only",
	  { .cluster_ips = { "10.96.0.1" }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 80,
	      .eps = { { "10.1.0.1", NULL, "n2", "z2" }, { "10.1.0.2", NULL, "n3", "z12" } } } },
	  "p80/TCP/4: 10.96.0.1:80=C > 10.1.0.1:80 10.1.0.2:80"},
	{ "CategorizeEndpoints: a ready endpoint has no hint",
	  { .cluster_ips = { "10.96.0.1" }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 80,
	      .eps = { { "10.1.0.1", NULL, "n2", "z1" }, { "10.1.0.2", NULL, "n3" } } } },
	  "p80/TCP/4: 10.96.0.1:80=C > 10.1.0.1:80 10.1.0.2:80"},
	{ "CategorizeEndpoints: PreferSameNode",
	  { .cluster_ips = { "10.96.0.1" }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 80,
	      .eps = { { "10.1.0.1", NULL, "n1", "z1", "n1" },
		       { "10.1.0.2", NULL, "n2", "z1", "n2" } } } },
	  "p80/TCP/4: 10.96.0.1:80=C > 10.1.0.1:80"},
	{ "CategorizeEndpoints: PreferSameNode without one here: the zone",
	  { .cluster_ips = { "10.96.0.1" }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 80,
	      .eps = { { "10.1.0.1", NULL, "n3", "z2", "n3" },
		       { "10.1.0.2", NULL, "n2", "z1", "n2" } } } },
	  "p80/TCP/4: 10.96.0.1:80=C > 10.1.0.2:80"},
	{ "CategorizeEndpoints: hints, and Local policy that does not heed them",
	  { { .type = SVC_NODE_PORT, .external_local = true }, .cluster_ips = { "10.96.0.1" },
	    .ports = { { "p80", IPPROTO_TCP, 80, 30080 } } },
	  { { "p80", IPPROTO_TCP, 80,
	      .eps = { { "10.1.0.1", NULL, "n1", "z2" }, { "10.1.0.2", NULL, "n2", "z1" },
		       { "10.1.0.3", NULL, "n3", "z2" } } } },
	  "p80/TCP/4+e: 10.96.0.1:80=C 0.0.0.0:30080=N > 10.1.0.1:80=l 10.1.0.2:80=c"},
	{ "CategorizeEndpoints: hints do not apply to terminating ones",
	  { .cluster_ips = { "10.96.0.1" }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 80,
	      .eps = { { "10.1.0.1", "nst", "n1", "z1" }, { "10.1.0.2", "nst", "n2", "z2" } } } },
	  "p80/TCP/4: 10.96.0.1:80=C > 10.1.0.1:80 10.1.0.2:80"},
	{ "an endpoint in two slices: local and ready is believed",
	  { { .internal_local = true }, .cluster_ips = { "10.96.0.1" }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 80, .eps = { { "10.1.0.1", "n" }, { "10.1.0.2", NULL, "n2" } } },
	    { "p80", IPPROTO_TCP, 80, .eps = { { "10.1.0.1", NULL, "n1" } } } },
	  "p80/TCP/4+i: 10.96.0.1:80=C > 10.1.0.1:80=l"},
	{ "loadBalancerSourceRanges: of the family, on load-balancer addresses",
	  { { .type = SVC_LOAD_BALANCER }, .cluster_ips = { "10.96.0.1", "fd00::1" },
	    .external_ips = { "192.0.2.9" }, .lb_ips = { "192.0.2.1" },
	    .ranges = { "203.0.113.77/25", "10.0.0.0/8", "203.0.113.0/25", "2001:db8::/31" },
	    .ports = { { "p80", IPPROTO_TCP, 80, 30080 } } }, {},
	  "p80/TCP/4+r: 10.96.0.1:80=C 0.0.0.0:30080=N 192.0.2.9:80=E 192.0.2.1:80=L > from "
	  "10.0.0.0/8 from 203.0.113.0/25 | p80/TCP/6+r: [fd00::1]:80=C [::]:30080=N > from "
	  "2001:db8::/31"},
	{ "loadBalancerSourceRanges of the other family only let everybody in",
	  { { .type = SVC_LOAD_BALANCER }, .cluster_ips = { "10.96.0.1" },
	    .lb_ips = { "192.0.2.1" }, .ranges = { "2001:db8::/32" }, .ports = PORT80 }, {},
	  "p80/TCP/4: 10.96.0.1:80=C 192.0.2.1:80=L >"},
	{ "one port, several protocols",
	  { { .type = SVC_NODE_PORT }, .cluster_ips = { "10.96.0.1" },
	    .ports = { { "t", IPPROTO_TCP, 53, 30053 }, { "u", IPPROTO_UDP, 53, 30053 },
		       { "s", IPPROTO_SCTP, 53, 30053 } } }, {},
	  "t/TCP/4: 10.96.0.1:53=C 0.0.0.0:30053=N > | u/UDP/4: 10.96.0.1:53=C 0.0.0.0:30053=N "
	  "> | s/SCTP/4: 10.96.0.1:53=C 0.0.0.0:30053=N >"},
	{ "DSR by annotation: a local set beside the other; ranges as ever",
	  { { .type = SVC_LOAD_BALANCER, .forwarding = LB_MODE_DSR },
	    .cluster_ips = { "10.96.0.1" }, .lb_ips = { "192.0.2.1" }, .ranges = { "10.0.0.0/8" },
	    .ports = { { "p80", IPPROTO_TCP, 80, 30080 } } },
	  { { "p80", IPPROTO_TCP, 80,
	      .eps = { { "10.1.0.1", NULL, "n1" }, { "10.1.0.2", NULL, "n2" } } } },
	  "p80/TCP/4+rd: 10.96.0.1:80=C 0.0.0.0:30080=N 192.0.2.1:80=L > "
	  "10.1.0.1:80=cl 10.1.0.2:80=c from 10.0.0.0/8" },
	{ "DSR, and nothing here: the local set is empty, not missing",
	  { { .type = SVC_NODE_PORT, .forwarding = LB_MODE_DSR }, .cluster_ips = { "10.96.0.1" },
	    .ports = { { "p80", IPPROTO_TCP, 80, 30080 } } },
	  { { "p80", IPPROTO_TCP, 80, .eps = { { "10.1.0.2", NULL, "n2" } } } },
	  "p80/TCP/4+d: 10.96.0.1:80=C 0.0.0.0:30080=N > 10.1.0.2:80=c" },
	{ "DSR says nothing under externalTrafficPolicy Local",
	  { { .type = SVC_NODE_PORT, .forwarding = LB_MODE_DSR, .external_local = true },
	    .cluster_ips = { "10.96.0.1" }, .ports = { { "p80", IPPROTO_TCP, 80, 30080 } } },
	  { { "p80", IPPROTO_TCP, 80, .eps = { { "10.1.0.1", NULL, "n1" } } } },
	  "p80/TCP/4+e: 10.96.0.1:80=C 0.0.0.0:30080=N > 10.1.0.1:80=cl" },
	{ "DSR of a Service that has a clusterIP alone",
	  { { .forwarding = LB_MODE_DSR }, .cluster_ips = { "10.96.0.1" }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 80, .eps = { { "10.1.0.1", NULL, "n1" } } } },
	  "p80/TCP/4: 10.96.0.1:80=C > 10.1.0.1:80" },
	{ "publishNotReadyAddresses: ready is as the slice says",
	  { { .publish_not_ready = true }, .cluster_ips = { "10.96.0.1" }, .ports = PORT80 },
	  { { "p80", IPPROTO_TCP, 80, .eps = { { "10.1.0.1", "t" }, { "10.1.0.2", "n" } } } },
	  "p80/TCP/4: 10.96.0.1:80=C > 10.1.0.1:80"},
};

static void test_cases(void **state)
{
	const struct compile_facts facts = { .node_name = "n1", .zone = "z1",
					     .lb_mode = LB_MODE_SNAT, .tunnel = true };

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct svc_table *table, *again;
		struct fixture f;
		char text[1024];

		make(&f, &cases[i].svc, cases[i].slices);
		assert_int_equal(compile_service(&f.svc, f.list, f.n, &facts, &table), 0);
		tell(table, text, sizeof(text));
		if (strcmp(text, cases[i].want) != 0)
			print_error("case: %s\n", cases[i].name);
		assert_string_equal(text, cases[i].want);
		for (size_t j = 0; j < f.n / 2; j++) { /* the order of the slices says nothing */
			const struct object *tmp = f.list[j];

			f.list[j] = f.list[f.n - 1 - j];
			f.list[f.n - 1 - j] = tmp;
		}
		assert_int_equal(compile_service(&f.svc, f.list, f.n, &facts, &again), 0);
		assert_true(svc_table_equal(table, again));
		free(table);
		free(again);
	}
}

static void test_affinity_and_type(void **state)
{
	static const struct svc_spec spec = {
		{ .type = SVC_NODE_PORT, .affinity_s = 10800 },
		.cluster_ips = { "10.96.0.1" },
		.ports = { { "p80", IPPROTO_TCP, 80, 30080 } },
	};
	struct slice_spec none[MAX] = { 0 };
	struct svc_table *table, *other;
	struct fixture f;

	make(&f, &spec, none);
	assert_int_equal(compile_service(&f.svc, f.list, 0, NULL, &table), 0);
	assert_string_equal(table->type, "NodePort");
	assert_int_equal(table->ports[0].affinity_s, 10800);
	assert_int_equal(table->ports[0].node_port, 30080);
	f.svc.service.affinity_s = 1;
	assert_int_equal(compile_service(&f.svc, f.list, 0, NULL, &other), 0);
	assert_false(svc_table_equal(table, other));
	assert_false(svc_table_equal(table, NULL));
	assert_true(svc_table_equal(NULL, NULL));
	free(table);
	free(other);
}

/* What the agent is told, what the Service says, and whether there is a tunnel. */
static void test_forwarding(void **state)
{
	static const struct svc_spec spec = {
		{ .type = SVC_NODE_PORT },
		.cluster_ips = { "10.96.0.1" },
		.ports = { { "t", IPPROTO_TCP, 53, 30053 }, { "u", IPPROTO_UDP, 53, 30053 },
			   { "s", IPPROTO_SCTP, 53, 30053 } },
	};
	static const struct {
		enum lb_mode told, says;
		bool no_tunnel, tcp, others;
	} rows[] = {
		{ LB_MODE_SNAT, LB_MODE_DEFAULT },
		{ LB_MODE_DSR, LB_MODE_DEFAULT, .tcp = true, .others = true },
		{ LB_MODE_HYBRID, LB_MODE_DEFAULT, .tcp = true },
		{ LB_MODE_SNAT, LB_MODE_DSR, .tcp = true, .others = true },
		{ LB_MODE_DSR, LB_MODE_SNAT },
		{ LB_MODE_HYBRID, LB_MODE_SNAT },
		{ LB_MODE_HYBRID, LB_MODE_DSR, .tcp = true, .others = true },
		{ LB_MODE_SNAT, LB_MODE_DSR, .no_tunnel = true },
	};
	struct slice_spec none[MAX] = { 0 };

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct compile_facts facts = { .node_name = "n1", .lb_mode = rows[i].told,
						     .tunnel = !rows[i].no_tunnel };
		struct svc_table *table;
		struct fixture f;

		make(&f, &spec, none);
		f.svc.service.forwarding = rows[i].says;
		assert_int_equal(compile_service(&f.svc, f.list, 0, &facts, &table), 0);
		for (uint32_t p = 0; p < table->n_ports; p++) {
			bool want = table->ports[p].proto == IPPROTO_TCP ? rows[i].tcp :
									   rows[i].others;

			assert_int_equal(!!(table->ports[p].slots_flags & WAG_SLOTS_DSR),
					 want);
		}
		free(table);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cases),
		cmocka_unit_test(test_affinity_and_type),
		cmocka_unit_test(test_forwarding),
	};

	return cmocka_run_group_tests_name("compile_service", tests, NULL, NULL);
}
