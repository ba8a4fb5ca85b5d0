// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <waggle/abi_reason.h>
#include <waggle/addr.h>

struct wag_addr wag_addr_from_v4(__be32 v4)
{
	struct wag_addr addr = { .w = { 0, 0, htonl(WAG_V4MAPPED_W2), v4 } };

	return addr;
}

bool wag_addr_is_v4(const struct wag_addr *addr)
{
	return addr->d[0] == 0 && addr->w[2] == htonl(WAG_V4MAPPED_W2);
}

bool wag_addr_is_zero(const struct wag_addr *addr)
{
	return addr->d[0] == 0 && addr->d[1] == 0;
}

bool wag_addr_equal(const struct wag_addr *a, const struct wag_addr *b)
{
	return a->d[0] == b->d[0] && a->d[1] == b->d[1];
}

int wag_addr_parse(const char *text, struct wag_addr *ret)
{
	struct in6_addr v6;
	struct in_addr v4;

	if (inet_pton(AF_INET, text, &v4) == 1) {
		*ret = wag_addr_from_v4(v4.s_addr);
		return 0;
	}
	if (inet_pton(AF_INET6, text, &v6) == 1) {
		memcpy(ret, &v6, sizeof(*ret));
		return 0;
	}
	return -EINVAL;
}

int wag_cidr_parse(const char *text, struct wag_addr *ret, unsigned *ret_bits)
{
	const char *slash = strchr(text, '/');
	char host[WAG_ADDR_TEXT];
	struct wag_addr addr;
	unsigned long bits;
	unsigned max;
	char *end;

	if (!slash)
		slash = text + strlen(text);
	if ((size_t)(slash - text) >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, slash - text);
	host[slash - text] = '\0';
	if (wag_addr_parse(host, &addr) < 0)
		return -EINVAL;
	max = strchr(host, ':') ? 128 : 32;
	bits = max;
	if (*slash == '/') {
		if (slash[1] < '0' || slash[1] > '9')
			return -EINVAL;
		bits = strtoul(slash + 1, &end, 10);
		if (*end || bits > max)
			return -EINVAL;
	}
	if (max == 128 && wag_addr_is_v4(&addr)) { /* ::ffff:a.b.c.d: bits of the own family */
		if (bits < 96)
			return -EINVAL;
		bits -= 96;
	}
	*ret = addr;
	*ret_bits = bits;
	return 0;
}

bool wag_addr_in_cidr(const struct wag_addr *addr, const struct wag_addr *net, unsigned bits)
{
	if (wag_addr_is_v4(addr) != wag_addr_is_v4(net))
		return false;
	if (wag_addr_is_v4(net))
		bits += 96;
	for (unsigned i = 0; i < 16 && bits; i++) {
		unsigned n = bits < 8 ? bits : 8;
		__u8 mask = (__u8)(0xff << (8 - n));

		if ((addr->b[i] ^ net->b[i]) & mask)
			return false;
		bits -= n;
	}
	return true;
}

const char *wag_addr_format(const struct wag_addr *addr, char buf[WAG_ADDR_TEXT])
{
	if (wag_addr_is_v4(addr))
		inet_ntop(AF_INET, &addr->w[3], buf, WAG_ADDR_TEXT);
	else
		inet_ntop(AF_INET6, addr, buf, WAG_ADDR_TEXT);
	return buf;
}

const char *wag_addr_port_format(const struct wag_addr *addr, __be16 port, char *buf, size_t size)
{
	char text[WAG_ADDR_TEXT];

	snprintf(buf, size, wag_addr_is_v4(addr) ? "%s:%u" : "[%s]:%u", wag_addr_format(addr, text),
		 ntohs(port));
	return buf;
}

static const struct {
	__u8 proto;
	const char *name;
} protos[] = {
	{ IPPROTO_TCP, "TCP" },	  { IPPROTO_UDP, "UDP" },	{ IPPROTO_SCTP, "SCTP" },
	{ IPPROTO_ICMP, "ICMP" }, { IPPROTO_ICMPV6, "ICMPv6" },
};

const char *wag_proto_name(__u8 proto)
{
	for (size_t i = 0; i < sizeof(protos) / sizeof(protos[0]); i++)
		if (protos[i].proto == proto)
			return protos[i].name;
	return "?";
}

int wag_proto_parse(const char *text, __u8 *ret)
{
	for (size_t i = 0; i < sizeof(protos) / sizeof(protos[0]); i++) {
		if (strcasecmp(protos[i].name, text) == 0) {
			*ret = protos[i].proto;
			return 0;
		}
	}
	return -EINVAL;
}

int wag_port_parse(const char *text, __u16 *ret)
{
	unsigned long port;
	char *end;

	if (*text < '0' || *text > '9') /* strtoul() also takes signs and blanks */
		return -EINVAL;
	port = strtoul(text, &end, 10);
	if (*end || port < 1 || port > UINT16_MAX)
		return -EINVAL;
	*ret = port;
	return 0;
}

static const struct {
	unsigned hubble;
	const char *text;
} reasons[] = {
#define ROW(name, hubble, text) { hubble, text },
	WAG_REASONS(ROW)
#undef ROW
};

const char *wag_reason_text(unsigned reason)
{
	return reason < WAG_REASON_COUNT ? reasons[reason].text : "Unknown reason";
}

unsigned wag_reason_hubble(unsigned reason)
{
	return reason < WAG_REASON_COUNT ? reasons[reason].hubble : 0;
}

const char *wag_point_name(unsigned point)
{
	static const char *const names[] = { "none",	"from-pod",   "to-pod",	 "from-net",
					     "to-net",	"xdp",	      "connect", "sendmsg",
					     "recvmsg", "getpeername",
					     [WAG_POINT_FROM_TUNNEL] = "from-tunnel",
					     [WAG_POINT_TO_TUNNEL] = "to-tunnel" };

	return point < sizeof(names) / sizeof(names[0]) ? names[point] : "unknown";
}
