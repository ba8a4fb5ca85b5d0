// SPDX-License-Identifier: Apache-2.0
/* Tunnel devices that collect metadata: VXLAN (RFC 7348) and Geneve (RFC 8926). */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <string.h>

#include <waggle/cleanup.h>

#include "netlink_wire.h"

/* The two kinds say the same things under numbers of their own. */
struct words {
	const char *kind;
	uint16_t port, external, zero_tx, zero_rx;
};

static const struct words kinds[] = {
	{ "vxlan", IFLA_VXLAN_PORT, IFLA_VXLAN_COLLECT_METADATA, IFLA_VXLAN_UDP_ZERO_CSUM6_TX,
	  IFLA_VXLAN_UDP_ZERO_CSUM6_RX },
	{ "geneve", IFLA_GENEVE_PORT, IFLA_GENEVE_COLLECT_METADATA, IFLA_GENEVE_UDP_ZERO_CSUM6_TX,
	  IFLA_GENEVE_UDP_ZERO_CSUM6_RX },
};

static const struct words *words_of(const char *kind)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kinds[i].kind, kind) == 0)
			return &kinds[i];
	return NULL;
}

static void put_u8(struct nl_msg *m, uint16_t type, uint8_t v)
{
	nl_put(m, type, &v, sizeof(v));
}

static void put_sports(struct nl_msg *m, const struct nl_tunnel *t)
{
	const struct ifla_vxlan_port_range range = { .low = htons(t->sport_min),
						     .high = htons(t->sport_max) };

	nl_put(m, IFLA_VXLAN_PORT_RANGE, &range, sizeof(range));
}

int nl_tunnel_add(struct nl *nl, const char *name, const struct nl_tunnel *t, uint32_t mtu)
{
	struct ifinfomsg ifi = { .ifi_family = AF_UNSPEC };
	const struct words *w = words_of(t->kind);
	uint16_t port = htons(t->port);
	struct rtattr *info, *data;
	struct nl_msg m;

	if (!w || !*name || strlen(name) >= IFNAMSIZ)
		return -EINVAL;
	nl_msg_init(&m, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &ifi, sizeof(ifi));
	nl_put_str(&m, IFLA_IFNAME, name);
	nl_put_u32(&m, IFLA_MTU, mtu);
	info = nl_nest(&m, IFLA_LINKINFO);
	nl_put_str(&m, IFLA_INFO_KIND, t->kind);
	data = nl_nest(&m, IFLA_INFO_DATA);
	nl_put(&m, w->port, &port, sizeof(port));
	if (w == &kinds[0]) {
		put_u8(&m, w->external, t->external);
		put_u8(&m, IFLA_VXLAN_LEARNING, 0);
		if (t->sport_max)
			put_sports(&m, t);
	} else if (t->external) {
		nl_put(&m, w->external, NULL, 0); /* a flag */
	}
	put_u8(&m, w->zero_tx, t->zero_csum6);
	put_u8(&m, w->zero_rx, t->zero_csum6);
	nl_nest_end(&m, data);
	nl_nest_end(&m, info);
	return nl_call(nl, &m, NULL, NULL);
}

/* The first attribute of a type in a nest, or NULL. Stops at anything malformed. */
static const struct rtattr *nested(const struct rtattr *nest, unsigned type)
{
	size_t left = nest ? RTA_PAYLOAD(nest) : 0;
	const char *p = nest ? RTA_DATA(nest) : NULL;

	while (left >= sizeof(struct rtattr)) {
		const struct rtattr *rta = (const struct rtattr *)p;

		if (rta->rta_len < sizeof(*rta) || rta->rta_len > left)
			return NULL;
		if ((rta->rta_type & NLA_TYPE_MASK) == type)
			return rta;
		if (RTA_ALIGN(rta->rta_len) >= left)
			return NULL;
		p += RTA_ALIGN(rta->rta_len);
		left -= RTA_ALIGN(rta->rta_len);
	}
	return NULL;
}

static bool nested_on(const struct rtattr *data, uint16_t type)
{
	const struct rtattr *rta = nested(data, type);

	return rta && RTA_PAYLOAD(rta) >= 1 && *(const uint8_t *)RTA_DATA(rta);
}

static void parse_sports(const struct rtattr *data, const struct words *w, struct nl_tunnel *t)
{
	const struct rtattr *rta = w == &kinds[0] ? nested(data, IFLA_VXLAN_PORT_RANGE) : NULL;
	struct ifla_vxlan_port_range range;

	if (w != &kinds[0]) {
		t->sport_min = NL_GENEVE_SPORT_MIN;
		t->sport_max = NL_GENEVE_SPORT_MAX;
	} else if (rta && RTA_PAYLOAD(rta) >= sizeof(range)) {
		memcpy(&range, RTA_DATA(rta), sizeof(range));
		t->sport_min = ntohs(range.low);
		t->sport_max = ntohs(range.high);
	}
}

int nl_parse_tunnel(const struct nlmsghdr *h, struct nl_tunnel *ret)
{
	const struct rtattr *a[IFLA_LINKINFO + 1], *kind, *data, *rta;
	struct nl_tunnel t = { 0 };
	const struct words *w;
	uint16_t port;
	int r;

	r = nl_attrs_index(h, sizeof(struct ifinfomsg), a, IFLA_LINKINFO);
	if (r < 0)
		return r;
	kind = nested(a[IFLA_LINKINFO], IFLA_INFO_KIND);
	if (kind && RTA_PAYLOAD(kind) < sizeof(t.kind))
		memcpy(t.kind, RTA_DATA(kind), RTA_PAYLOAD(kind));
	w = words_of(t.kind);
	data = w ? nested(a[IFLA_LINKINFO], IFLA_INFO_DATA) : NULL;
	if (data) {
		rta = nested(data, w->external);
		/* VXLAN: a number; Geneve: a flag, there or not */
		t.external = rta && (RTA_PAYLOAD(rta) == 0 || nested_on(data, w->external));
		/* Of a Geneve device without a peer the kernel does not tell the first: it counts
		 * by packet there. */
		t.zero_csum6 = nested_on(data, w->zero_rx) &&
			       (!nested(data, w->zero_tx) || nested_on(data, w->zero_tx));
		parse_sports(data, w, &t);
		rta = nested(data, w->port);
		if (rta && RTA_PAYLOAD(rta) >= sizeof(port)) {
			memcpy(&port, RTA_DATA(rta), sizeof(port));
			t.port = ntohs(port);
		}
	}
	*ret = t;
	return 0;
}

static int on_tunnel(const struct nlmsghdr *h, void *ctx)
{
	return h->nlmsg_type == RTM_NEWLINK ? nl_parse_tunnel(h, ctx) : 0;
}

int nl_tunnel_get(struct nl *nl, const char *name, struct nl_tunnel *ret)
{
	struct ifinfomsg ifi = { .ifi_family = AF_UNSPEC };
	struct nl_tunnel t = { 0 };
	struct nl_msg m;
	int r;

	if (!*name || strlen(name) >= IFNAMSIZ)
		return -EINVAL;
	nl_msg_init(&m, RTM_GETLINK, 0, &ifi, sizeof(ifi));
	nl_put_str(&m, IFLA_IFNAME, name);
	nl_put_u32(&m, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	r = nl_call(nl, &m, on_tunnel, &t);
	if (r == 0)
		*ret = t;
	return r;
}

int nl_link_up_noarp(struct nl *nl, uint32_t ifindex)
{
	struct ifinfomsg ifi = { .ifi_family = AF_UNSPEC,
				 .ifi_index = ifindex,
				 .ifi_flags = IFF_UP | IFF_NOARP,
				 .ifi_change = IFF_UP | IFF_NOARP };
	struct nl_msg m;

	nl_msg_init(&m, RTM_NEWLINK, 0, &ifi, sizeof(ifi));
	return nl_call(nl, &m, NULL, NULL);
}

int nl_link_set_mtu(struct nl *nl, uint32_t ifindex, uint32_t mtu)
{
	struct ifinfomsg ifi = { .ifi_family = AF_UNSPEC, .ifi_index = ifindex };
	struct nl_msg m;

	nl_msg_init(&m, RTM_NEWLINK, 0, &ifi, sizeof(ifi));
	nl_put_u32(&m, IFLA_MTU, mtu);
	return nl_call(nl, &m, NULL, NULL);
}
