// SPDX-License-Identifier: Apache-2.0
/*
 * One row, one cluster as node "a" sees it: its nodes in words, and every table entry, route and
 * warning that must come of it, in words too.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "agent/compile_node.h"
#include "agent/compile_range.h"

#define TUNNEL_IFINDEX 9
#define N(a) (sizeof(a) / sizeof((a)[0]))

enum { NATIVE, DIRECT, QUIET, TUNNEL, AUTO };

/*
 * Our own devices: 2 with 10.0.0.1/24 and fd00::1/64, MTU 1500. We are a, with pods 10.1.1.0/24.
 * A node: NAME ADDRESSES POD_CIDRS [CREATED]; "-" for none, "+" before an ExternalIP.
 */
#define SELF "a 10.0.0.1,fd00::1 10.1.1.0/24,fd01:1::/64 2026-01-01T00:00:00Z"
#define OWN "10.1.1.0/24 keep; fd01:1::/64 keep; "
#define B_NEAR "b 10.0.0.2,fd00::2 10.1.2.0/24,fd01:2::/64"
#define B_FAR "b 10.9.0.2,fd09::2 10.1.2.0/24,fd01:2::/64"

static const struct row {
	const char *what;
	int mode;
	unsigned underlay;
	const char *nodes; /* besides ours; separated by ";" */
	const char *want;  /* cidrs, peers, routes, sorted, "; " after each */
	const char *warns; /* pieces of the only warning; "" for none */
	const char *no_masquerade;
	uint32_t mtu; /* 0: 1500 */
	bool no_v4, no_v6, no_device;
} rows[] = {
	{ "alone", TUNNEL, 0, "", OWN, "" },
	{ "native: the network routes", NATIVE, 0, B_FAR,
	  "10.1.1.0/24 keep; 10.1.2.0/24 pods; 10.9.0.2/32 node; fd01:1::/64 keep; "
	  "fd01:2::/64 pods; fd09::2/128 node; ", "" },
	{ "direct: both in our subnets", DIRECT, 0, B_NEAR,
	  "10.0.0.2/32 node; 10.1.1.0/24 keep; 10.1.2.0/24 pods; fd00::2/128 node; "
	  "fd01:1::/64 keep; fd01:2::/64 pods; "
	  "route 10.1.2.0/24 via 10.0.0.2 dev 2; route fd01:2::/64 via fd00::2 dev 2; ", "" },
	{ "direct: a node in no subnet of ours", DIRECT, 0, "b 10.9.0.2 10.1.2.0/24",
	  "10.1.1.0/24 keep; 10.1.2.0/24 pods; 10.9.0.2/32 node; fd01:1::/64 keep; ",
	  "node b|IPv4|routing-mode=auto|direct-routing-skip-unreachable" },
	{ "direct: the same, and nobody wants to know", QUIET, 0, "b 10.9.0.2 10.1.2.0/24",
	  "10.1.1.0/24 keep; 10.1.2.0/24 pods; 10.9.0.2/32 node; fd01:1::/64 keep; ", "" },
	{ "direct: IPv6 pods of a node without IPv6", DIRECT, 0,
	  "b 10.0.0.2 10.1.2.0/24,fd01:2::/64",
	  "10.0.0.2/32 node; 10.1.1.0/24 keep; 10.1.2.0/24 pods; fd01:1::/64 keep; "
	  "fd01:2::/64 pods; route 10.1.2.0/24 via 10.0.0.2 dev 2; ", "node b|no IPv6" },
	{ "direct: its second address is in our subnet", DIRECT, 0,
	  "b 10.9.0.2,10.0.0.2 10.1.2.0/24",
	  "10.0.0.2/32 node; 10.1.1.0/24 keep; 10.1.2.0/24 pods; 10.9.0.2/32 node; "
	  "fd01:1::/64 keep; route 10.1.2.0/24 via 10.0.0.2 dev 2; ", "" },
	{ "direct: an ExternalIP in our subnet is no way", DIRECT, 0,
	  "b 10.9.0.2,+10.0.0.2 10.1.2.0/24",
	  "10.1.1.0/24 keep; 10.1.2.0/24 pods; 10.9.0.2/32 node; fd01:1::/64 keep; ", "node b" },
	{ "direct: a smaller MTU than the device's", DIRECT, 0, "b 10.0.0.2 10.1.2.0/24",
	  "10.0.0.2/32 node; 10.1.1.0/24 keep; 10.1.2.0/24 pods; fd01:1::/64 keep; "
	  "route 10.1.2.0/24 via 10.0.0.2 dev 2 mtu 1400; ", "", NULL, 1400 },
	{ "direct: no device at all", DIRECT, 0, "b 10.0.0.2 10.1.2.0/24",
	  "10.0.0.2/32 node; 10.1.1.0/24 keep; 10.1.2.0/24 pods; fd01:1::/64 keep; ",
	  "node b", NULL, 0, false, false, true },
	{ "tunnel: one family", TUNNEL, 0, "b 10.9.0.2 10.1.2.0/24",
	  "10.1.1.0/24 keep; 10.1.2.0/24 pods 10.9.0.2 1450; 10.9.0.2/32 node 10.9.0.2 1450; "
	  "fd01:1::/64 keep; peer 10.9.0.2; "
	  "route 10.1.2.0/24 dev 9 mtu 1450 src 10.0.0.1; ", "" },
	{ "tunnel: two families, outside is IPv4", TUNNEL, 0, B_FAR,
	  "10.1.1.0/24 keep; 10.1.2.0/24 pods 10.9.0.2 1450; 10.9.0.2/32 node 10.9.0.2 1450; "
	  "fd01:1::/64 keep; fd01:2::/64 pods 10.9.0.2 1450; fd09::2/128 node 10.9.0.2 1450; "
	  "peer 10.9.0.2; peer fd09::2; route 10.1.2.0/24 dev 9 mtu 1450 src 10.0.0.1; "
	  "route fd01:2::/64 dev 9 mtu 1450 src fd00::1; ", "" },
	{ "tunnel: outside is IPv6 as told", TUNNEL, 6, "b 10.9.0.2,fd09::2 10.1.2.0/24",
	  "10.1.1.0/24 keep; 10.1.2.0/24 pods fd09::2 1430; 10.9.0.2/32 node fd09::2 1430; "
	  "fd01:1::/64 keep; fd09::2/128 node fd09::2 1430; peer 10.9.0.2; peer fd09::2; "
	  "route 10.1.2.0/24 dev 9 mtu 1430 src 10.0.0.1; ", "" },
	{ "tunnel: outside is IPv6 where the other has no IPv4", TUNNEL, 0, "b fd09::2 10.1.2.0/24",
	  "10.1.1.0/24 keep; 10.1.2.0/24 pods fd09::2 1430; fd01:1::/64 keep; "
	  "fd09::2/128 node fd09::2 1430; peer fd09::2; "
	  "route 10.1.2.0/24 dev 9 mtu 1430 src 10.0.0.1; ", "" },
	{ "tunnel: outside is IPv6 where we have no IPv4", TUNNEL, 0,
	  "b 10.9.0.2,fd09::2 fd01:2::/64",
	  "10.1.1.0/24 keep; 10.9.0.2/32 node fd09::2 1430; fd01:1::/64 keep; "
	  "fd01:2::/64 pods fd09::2 1430; fd09::2/128 node fd09::2 1430; peer 10.9.0.2; "
	  "peer fd09::2; route fd01:2::/64 dev 9 mtu 1430 src fd00::1; ", "", NULL, 0, true },
	{ "tunnel: no family in common", TUNNEL, 0, "b fd09::2 10.1.2.0/24",
	  "10.1.1.0/24 keep; 10.1.2.0/24 pods; fd01:1::/64 keep; fd09::2/128 node; peer fd09::2; ",
	  "node b|no InternalIP of one family", NULL, 0, false, true },
	{ "tunnel: the family wanted is not there", TUNNEL, 6, "b 10.9.0.2 10.1.2.0/24",
	  "10.1.1.0/24 keep; 10.1.2.0/24 pods; 10.9.0.2/32 node; fd01:1::/64 keep; peer 10.9.0.2; ",
	  "node b|--underlay-protocol" },
	{ "tunnel: also in our own subnet", TUNNEL, 0, "b 10.0.0.2 10.1.2.0/24",
	  "10.0.0.2/32 node 10.0.0.2 1450; 10.1.1.0/24 keep; 10.1.2.0/24 pods 10.0.0.2 1450; "
	  "fd01:1::/64 keep; peer 10.0.0.2; route 10.1.2.0/24 dev 9 mtu 1450 src 10.0.0.1; ", "" },
	{ "tunnel: jumbo frames", TUNNEL, 0, "b 10.9.0.2 10.1.2.0/24",
	  "10.1.1.0/24 keep; 10.1.2.0/24 pods 10.9.0.2 8950; 10.9.0.2/32 node 10.9.0.2 8950; "
	  "fd01:1::/64 keep; peer 10.9.0.2; "
	  "route 10.1.2.0/24 dev 9 mtu 8950 src 10.0.0.1; ", "", NULL, 9000 },
	{ "tunnel: too narrow for IPv6", TUNNEL, 0, "b 10.9.0.2 10.1.2.0/24,fd01:2::/64",
	  "10.1.1.0/24 keep; 10.1.2.0/24 pods 10.9.0.2 1250; 10.9.0.2/32 node 10.9.0.2 1250; "
	  "fd01:1::/64 keep; fd01:2::/64 pods; peer 10.9.0.2; "
	  "route 10.1.2.0/24 dev 9 mtu 1250 src 10.0.0.1; ", "1250 bytes|1280|--mtu", NULL, 1300 },
	{ "tunnel: no IPv6 of our own, but IPv6 pods", TUNNEL, 0, "b 10.9.0.2 fd01:2::/64",
	  "10.1.1.0/24 keep; 10.9.0.2/32 node 10.9.0.2 1450; fd01:1::/64 keep; "
	  "fd01:2::/64 pods 10.9.0.2 1450; peer 10.9.0.2; route fd01:2::/64 dev 9 mtu 1450; ",
	  "", NULL, 0, false, true },
	{ "tunnel: an ExternalIP is outside, but may send", TUNNEL, 0,
	  "b 10.9.0.2,+192.0.2.7 10.1.2.0/24",
	  "10.1.1.0/24 keep; 10.1.2.0/24 pods 10.9.0.2 1450; 10.9.0.2/32 node 10.9.0.2 1450; "
	  "fd01:1::/64 keep; peer 10.9.0.2; peer 192.0.2.7; "
	  "route 10.1.2.0/24 dev 9 mtu 1450 src 10.0.0.1; ", "" },
	{ "tunnel: nothing but an ExternalIP", TUNNEL, 0, "b +192.0.2.7 10.1.2.0/24",
	  "10.1.1.0/24 keep; 10.1.2.0/24 pods 192.0.2.7 1450; 192.0.2.7/32 node 192.0.2.7 1450; "
	  "fd01:1::/64 keep; peer 192.0.2.7; "
	  "route 10.1.2.0/24 dev 9 mtu 1450 src 10.0.0.1; ", "" },
	{ "auto: near direct, far through the tunnel", AUTO, 0,
	  "b 10.0.0.2 10.1.2.0/24;c 10.9.0.3 10.1.3.0/24",
	  "10.0.0.2/32 node direct 10.0.0.2 1450; 10.1.1.0/24 keep; "
	  "10.1.2.0/24 pods direct 10.0.0.2 1450; 10.1.3.0/24 pods 10.9.0.3 1450; "
	  "10.9.0.3/32 node 10.9.0.3 1450; fd01:1::/64 keep; peer 10.0.0.2; peer 10.9.0.3; "
	  "route 10.1.2.0/24 via 10.0.0.2 dev 2; route 10.1.3.0/24 dev 9 mtu 1450 src 10.0.0.1; ",
	  "" },
	{ "auto: IPv4 direct, IPv6 through the tunnel", AUTO, 0,
	  "b 10.0.0.2,fd09::2 10.1.2.0/24,fd01:2::/64",
	  "10.0.0.2/32 node direct 10.0.0.2 1450; 10.1.1.0/24 keep; "
	  "10.1.2.0/24 pods direct 10.0.0.2 1450; fd01:1::/64 keep; "
	  "fd01:2::/64 pods 10.0.0.2 1450; fd09::2/128 node 10.0.0.2 1450; peer 10.0.0.2; "
	  "peer fd09::2; route 10.1.2.0/24 via 10.0.0.2 dev 2; "
	  "route fd01:2::/64 dev 9 mtu 1450 src fd00::1; ", "" },
	{ "auto: IPv6 direct, IPv4 through the tunnel", AUTO, 0,
	  "b 10.9.0.2,fd00::2 10.1.2.0/24,fd01:2::/64",
	  "10.1.1.0/24 keep; 10.1.2.0/24 pods 10.9.0.2 1450; 10.9.0.2/32 node 10.9.0.2 1450; "
	  "fd00::2/128 node direct 10.9.0.2 1450; fd01:1::/64 keep; "
	  "fd01:2::/64 pods direct 10.9.0.2 1450; peer 10.9.0.2; peer fd00::2; "
	  "route 10.1.2.0/24 dev 9 mtu 1450 src 10.0.0.1; route fd01:2::/64 via fd00::2 dev 2; ",
	  "" },
	{ "auto: IPv6 alone", AUTO, 0, "b fd00::2 fd01:2::/64;c fd09::3 fd01:3::/64",
	  "10.1.1.0/24 keep; fd00::2/128 node direct fd00::2 1430; fd01:1::/64 keep; "
	  "fd01:2::/64 pods direct fd00::2 1430; "
	  "fd01:3::/64 pods fd09::3 1430; fd09::3/128 node fd09::3 1430; peer fd00::2; "
	  "peer fd09::3; route fd01:2::/64 via fd00::2 dev 2; "
	  "route fd01:3::/64 dev 9 mtu 1430 src fd00::1; ", "", NULL, 0, true },
	{ "auto: our device has no subnet", AUTO, 0, "b 10.0.0.2 10.1.2.0/24",
	  "10.0.0.2/32 node 10.0.0.2 1450; 10.1.1.0/24 keep; 10.1.2.0/24 pods 10.0.0.2 1450; "
	  "fd01:1::/64 keep; peer 10.0.0.2; route 10.1.2.0/24 dev 9 mtu 1450 src 10.0.0.1; ",
	  "", NULL, 0, false, false, true },
	{ "several ranges of one node", TUNNEL, 0, "b 10.9.0.2 10.1.2.0/24,10.1.7.0/26",
	  "10.1.1.0/24 keep; 10.1.2.0/24 pods 10.9.0.2 1450; 10.1.7.0/26 pods 10.9.0.2 1450; "
	  "10.9.0.2/32 node 10.9.0.2 1450; fd01:1::/64 keep; peer 10.9.0.2; "
	  "route 10.1.2.0/24 dev 9 mtu 1450 src 10.0.0.1; "
	  "route 10.1.7.0/26 dev 9 mtu 1450 src 10.0.0.1; ", "" },
	{ "one range twice, with other host bits", DIRECT, 0, "b 10.0.0.2 10.1.2.0/24,10.1.2.9/24",
	  "10.0.0.2/32 node; 10.1.1.0/24 keep; 10.1.2.0/24 pods; fd01:1::/64 keep; "
	  "route 10.1.2.0/24 via 10.0.0.2 dev 2; ", "" },
	{ "a node without pod ranges is outside", TUNNEL, 0, "b 10.9.0.2 -", OWN, "" },
	{ "a node without addresses", TUNNEL, 0, "b - 10.1.2.0/24",
	  "10.1.1.0/24 keep; 10.1.2.0/24 pods; fd01:1::/64 keep; ", "node b|no InternalIP" },
	{ "two nodes, one range: the older keeps it", DIRECT, 0,
	  "b 10.0.0.2 10.1.2.0/24 2026-03-01T00:00:00Z;c 10.0.0.3 10.1.2.0/24 2026-02-01T00:00:00Z",
	  "10.0.0.3/32 node; 10.0.0.2/32 node; 10.1.1.0/24 keep; 10.1.2.0/24 pods; "
	  "fd01:1::/64 keep; route 10.1.2.0/24 via 10.0.0.3 dev 2; ",
	  "node b|10.1.2.0/24|node c|older" },
	{ "two nodes, one range inside the other's", DIRECT, 0,
	  "b 10.0.0.2 10.1.2.128/25 2026-03-01T00:00:00Z;"
	  "c 10.0.0.3 10.1.2.0/24 2026-02-01T00:00:00Z",
	  "10.0.0.2/32 node; 10.0.0.3/32 node; 10.1.1.0/24 keep; 10.1.2.0/24 pods; "
	  "fd01:1::/64 keep; route 10.1.2.0/24 via 10.0.0.3 dev 2; ",
	  "node b|10.1.2.128/25|node c|10.1.2.0/24" },
	{ "two nodes, the younger one's around the other's", DIRECT, 0,
	  "b 10.0.0.2 10.1.0.0/16 2026-03-01T00:00:00Z;c 10.0.0.3 10.1.2.0/24 2026-02-01T00:00:00Z",
	  "10.0.0.2/32 node; 10.0.0.3/32 node; 10.1.1.0/24 keep; 10.1.2.0/24 pods; "
	  "fd01:1::/64 keep; route 10.1.2.0/24 via 10.0.0.3 dev 2; ",
	  "node b|10.1.0.0/16|keeps it" },
	{ "a refused range takes nothing from a third node", DIRECT, 0,
	  "b 10.0.0.2 10.1.0.0/16 2026-03-01T00:00:00Z;c 10.0.0.3 10.1.2.0/24 2026-02-01T00:00:00Z;"
	  "d 10.0.0.4 10.1.9.0/24 2026-04-01T00:00:00Z",
	  "10.0.0.2/32 node; 10.0.0.3/32 node; 10.0.0.4/32 node; 10.1.1.0/24 keep; "
	  "10.1.2.0/24 pods; 10.1.9.0/24 pods; fd01:1::/64 keep; "
	  "route 10.1.2.0/24 via 10.0.0.3 dev 2; route 10.1.9.0/24 via 10.0.0.4 dev 2; ",
	  "node b|10.1.0.0/16" },
	{ "of one age: by name", DIRECT, 0, "c 10.0.0.3 10.1.2.0/24;b 10.0.0.2 10.1.2.0/24",
	  "10.0.0.2/32 node; 10.0.0.3/32 node; 10.1.1.0/24 keep; 10.1.2.0/24 pods; "
	  "fd01:1::/64 keep; route 10.1.2.0/24 via 10.0.0.2 dev 2; ", "node c|node b" },
	{ "our own range is ours, however old the other", DIRECT, 0,
	  "b 10.0.0.2 10.1.1.0/25 2020-01-01T00:00:00Z",
	  "10.0.0.2/32 node; 10.1.1.0/24 keep; fd01:1::/64 keep; ", "node b|10.1.1.0/25|node a" },
	{ "hostile: everything", TUNNEL, 0, "b 10.9.0.2 0.0.0.0/0",
	  OWN, "node b|0.0.0.0/0|refused" },
	{ "hostile: everything of IPv6", TUNNEL, 0, "b 10.9.0.2 ::/0", OWN, "node b|::/0|refused" },
	{ "hostile: half of everything", TUNNEL, 0, "b 10.9.0.2 0.0.0.0/1", OWN,
	  "node b|0.0.0.0/1|refused" },
	{ "hostile: around our own address", TUNNEL, 0, "b 10.9.0.2 10.0.0.0/28", OWN,
	  "node b|10.0.0.0/28|10.0.0.1" },
	{ "hostile: our own address", TUNNEL, 0, "b 10.9.0.2 10.0.0.1/32", OWN,
	  "node b|10.0.0.1/32|covers" },
	{ "hostile: our router's address", TUNNEL, 0, "b 10.9.0.2 10.0.0.254/32", OWN,
	  "node b|10.0.0.254|router" },
	{ "hostile: around the tunnel's other end", TUNNEL, 0, "b 10.9.0.2 10.9.0.0/24", OWN,
	  "node b|10.9.0.0/24|10.9.0.2" },
	{ "hostile: around a third node", DIRECT, 0,
	  "b 10.0.0.2 10.9.0.0/16;c 10.9.9.9 10.1.3.0/24",
	  "10.1.1.0/24 keep; 10.1.3.0/24 pods; 10.9.9.9/32 node; fd01:1::/64 keep; ", NULL },
	{ "hostile: loopback", TUNNEL, 0, "b 10.9.0.2 127.0.0.0/24", OWN, "node b|127.0.0.0/24" },
	{ "hostile: multicast", TUNNEL, 0, "b 10.9.0.2 ff02::/16", OWN, "node b|ff02::/16" },
	{ "hostile: link-local", TUNNEL, 0, "b 10.9.0.2 fe80::/64", OWN, "node b|fe80::/64" },
	{ "hostile: IPv4 as IPv6", TUNNEL, 0, "b 10.9.0.2 ::ffff:0:0/96", OWN, "node b|refused" },
	{ "hostile: our address as its own", TUNNEL, 0, "b 10.0.0.1,10.9.0.2 10.1.2.0/24",
	  "10.1.1.0/24 keep; 10.1.2.0/24 pods 10.9.0.2 1450; 10.9.0.2/32 node 10.9.0.2 1450; "
	  "fd01:1::/64 keep; peer 10.9.0.2; "
	  "route 10.1.2.0/24 dev 9 mtu 1450 src 10.0.0.1; ", "" },
	{ "hostile: loopback as its address", TUNNEL, 0, "b 127.0.0.1,10.9.0.2 10.1.2.0/24",
	  "10.1.1.0/24 keep; 10.1.2.0/24 pods 10.9.0.2 1450; 10.9.0.2/32 node 10.9.0.2 1450; "
	  "fd01:1::/64 keep; peer 10.9.0.2; "
	  "route 10.1.2.0/24 dev 9 mtu 1450 src 10.0.0.1; ", "" },
	{ "hostile: another node's address: the older is believed", TUNNEL, 0,
	  "b 10.9.0.2 10.1.2.0/24 2026-02-01T00:00:00Z;"
	  "c 10.9.0.3,10.9.0.2 10.1.3.0/24 2026-03-01T00:00:00Z",
	  "10.1.1.0/24 keep; 10.1.2.0/24 pods 10.9.0.2 1450; 10.1.3.0/24 pods 10.9.0.3 1450; "
	  "10.9.0.2/32 node 10.9.0.2 1450; 10.9.0.3/32 node 10.9.0.3 1450; fd01:1::/64 keep; "
	  "peer 10.9.0.2; peer 10.9.0.3; route 10.1.2.0/24 dev 9 mtu 1450 src 10.0.0.1; "
	  "route 10.1.3.0/24 dev 9 mtu 1450 src 10.0.0.1; ", "" },
	{ "our router may be a node", DIRECT, 0, "b 10.0.0.254 10.1.2.0/24",
	  "10.0.0.254/32 node; 10.1.1.0/24 keep; 10.1.2.0/24 pods; fd01:1::/64 keep; "
	  "route 10.1.2.0/24 via 10.0.0.254 dev 2; ", "" },
	{ "no masquerade: beside what nodes have", NATIVE, 0, "b 10.9.0.2 10.1.2.0/24",
	  "10.0.0.0/8 keep; 10.1.1.0/24 keep; 10.1.2.0/24 pods; 10.9.0.2/32 node; "
	  "192.168.0.0/16 keep; fd01:1::/64 keep; ", "", "10.0.0.0/8,192.168.0.0/16" },
	{ "no masquerade: hides no tunnel", TUNNEL, 0, "b 10.9.0.2 10.1.2.0/24",
	  "10.1.1.0/24 keep; 10.1.2.0/24 pods 10.9.0.2 1450; 10.9.0.2/32 node 10.9.0.2 1450; "
	  "fd01:1::/64 keep; peer 10.9.0.2; "
	  "route 10.1.2.0/24 dev 9 mtu 1450 src 10.0.0.1; ", "",
	  "10.1.2.0/24,10.1.2.128/25,10.9.0.2/32" },
	{ "no masquerade: all of IPv4", NATIVE, 0, "", "0.0.0.0/0 keep; " OWN, "", "0.0.0.0/0" },
};

static struct object *make_node(char *text)
{
	char *save, *name = strtok_r(text, " ", &save), *list = strtok_r(NULL, " ", &save);
	char *cidrs = strtok_r(NULL, " ", &save), *created = strtok_r(NULL, " ", &save);
	struct object *obj = object_new(MODEL_NODE, "", name);
	struct node *node = &obj->node;

	assert_non_null(cidrs);
	node->addrs = calloc(8, sizeof(*node->addrs));
	node->pod_cidrs = calloc(8, sizeof(*node->pod_cidrs));
	for (char *p = strtok_r(list, ",", &save); p && *p != '-'; p = strtok_r(NULL, ",", &save)) {
		node->n_internal += *p != '+';
		assert_int_equal(wag_addr_parse(p + (*p == '+'), &node->addrs[node->n_addrs++]), 0);
	}
	for (char *p = strtok_r(cidrs, ",", &save); p && *p != '-'; p = strtok_r(NULL, ",", &save))
		node->pod_cidrs[node->n_pod_cidrs++] = strdup(p);
	if (created)
		node->created = strdup(created);
	return obj;
}

struct words {
	char *lines[256];
	size_t n;
};

static void say(struct words *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void say(struct words *w, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	assert_true(w->n < N(w->lines));
	assert_true(vasprintf(&w->lines[w->n++], fmt, ap) >= 0);
	va_end(ap);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static char *joined(struct words *w)
{
	char *text = calloc(1, 65536);

	qsort(w->lines, w->n, sizeof(*w->lines), by_text);
	for (size_t i = 0; i < w->n; i++) {
		strcat(strcat(text, w->lines[i]), "; ");
		free(w->lines[i]);
	}
	return text;
}

static void say_cidr(struct words *w, const struct node_cidr *c)
{
	static const char *const kinds[] = { "?", "pods", "node", "?", "keep" };
	struct cidr_range range = { .bits = c->key.bits };
	char text[WAG_ADDR_TEXT + 4], tunnel[WAG_ADDR_TEXT];

	uint32_t flags = c->value.flags & ~WAG_CIDR_DIRECT;

	assert_in_range(flags, 1, 4);
	memcpy(range.net.w, c->key.addr, sizeof(range.net.w));
	cidr_range_format(&range, text, sizeof(text));
	if (wag_addr_is_zero(&c->value.tunnel)) {
		assert_int_equal(c->value.mtu, 0);
		say(w, "%s %s", text, kinds[flags]);
	} else {
		say(w, "%s %s%s %s %u", text, kinds[flags],
		    c->value.flags & WAG_CIDR_DIRECT ? " direct" : "",
		    wag_addr_format(&c->value.tunnel, tunnel), c->value.mtu);
	}
}

static void say_route(struct words *w, const struct node_route *r)
{
	char dst[WAG_ADDR_TEXT], via[WAG_ADDR_TEXT], src[WAG_ADDR_TEXT], mtu[16] = "";
	bool has_via = !wag_addr_is_zero(&r->via), has_src = !wag_addr_is_zero(&r->src);

	if (r->mtu)
		snprintf(mtu, sizeof(mtu), " mtu %u", r->mtu);
	say(w, "route %s/%u%s%s dev %u%s%s%s", wag_addr_format(&r->dst, dst), r->bits,
	    has_via ? " via " : "", has_via ? wag_addr_format(&r->via, via) : "", r->ifindex, mtu,
	    has_src ? " src " : "", has_src ? wag_addr_format(&r->src, src) : "");
}

static char *words_of(const struct node_plan *plan)
{
	struct words w = { .n = 0 };
	char text[WAG_ADDR_TEXT];

	for (size_t i = 0; i < plan->n_cidrs; i++)
		say_cidr(&w, &plan->cidrs[i]);
	for (size_t i = 0; i < plan->n_nodes; i++)
		say(&w, "peer %s", wag_addr_format(&plan->nodes[i], text));
	for (size_t i = 0; i < plan->n_routes; i++)
		say_route(&w, &plan->routes[i]);
	return joined(&w);
}

/* The same order for both: the rows are written by kind, not by text. */
static char *sorted(const char *text)
{
	_cleanup_free_ char *copy = strdup(text);
	struct words w = { .n = 0 };
	char *save;

	for (char *p = strtok_r(copy, ";", &save); p; p = strtok_r(NULL, ";", &save)) {
		p += *p == ' ';
		if (*p)
			say(&w, "%s", p);
	}
	return joined(&w);
}

static void addr_of(const char *text, struct wag_addr *ret)
{
	assert_int_equal(wag_addr_parse(text, ret), 0);
}

static size_t prefixes_of(const char *text, struct node_prefix *ret)
{
	_cleanup_free_ char *copy = strdup(text ? text : "");
	size_t n = 0;
	char *save;

	for (char *p = strtok_r(copy, ",", &save); p; p = strtok_r(NULL, ",", &save), n++)
		assert_int_equal(wag_cidr_parse(p, &ret[n].addr, &ret[n].bits), 0);
	return n;
}

static void compile_row(const struct row *row, const char *nodes_text, struct node_plan **ret)
{
	_cleanup_free_ char *text = strdup(nodes_text);
	struct node_subnet subnets[2] = { { .ifindex = 2, .mtu = 1500 },
					  { .ifindex = 2, .mtu = 1500 } };
	struct node_prefix keep[8];
	struct wag_addr own[2], router;
	struct object *nodes[8];
	struct node_compile in = {
		.node_name = "a",
		.direct = row->mode == DIRECT || row->mode == QUIET || row->mode == AUTO,
		.tunnel = row->mode == TUNNEL || row->mode == AUTO,
		.quiet = row->mode == QUIET,
		.underlay = row->underlay,
		.tunnel_ifindex = row->mode == TUNNEL || row->mode == AUTO ? TUNNEL_IFINDEX : 0,
		.mtu = row->mtu ? row->mtu : 1500,
		.subnets = subnets,
		.n_subnets = row->no_device ? 0 : 2,
		.own = own,
		.n_own = 2,
		.routers = &router,
		.n_routers = 1,
		.no_masquerade = keep,
	};
	size_t n = 0;
	char *save;

	prefixes_of("10.0.0.1/24", &subnets[0].prefix);
	prefixes_of("fd00::1/64", &subnets[1].prefix);
	addr_of("10.0.0.1", &own[0]);
	addr_of("fd00::1", &own[1]);
	addr_of("10.0.0.254", &router);
	if (!row->no_v4)
		in.v4 = own[0];
	if (!row->no_v6)
		in.v6 = own[1];
	in.n_no_masquerade = prefixes_of(row->no_masquerade, keep);
	for (char *p = strtok_r(text, ";", &save); p; p = strtok_r(NULL, ";", &save))
		nodes[n++] = (struct object *)p;
	for (size_t i = 0; i < n; i++)
		nodes[i] = make_node((char *)nodes[i]);
	assert_int_equal(compile_nodes(&in, (const struct object *const *)nodes, n, ret), 0);
	for (size_t i = 0; i < n; i++)
		object_free(nodes[i]);
}

static bool warns_as(const struct row *row, const struct node_plan *plan)
{
	_cleanup_free_ char *pieces = strdup(row->warns ? row->warns : "");
	char *save;

	if (!row->warns)
		return true;
	if (!*row->warns)
		return plan->n_warnings == 0;
	for (char *p = strtok_r(pieces, "|", &save); p; p = strtok_r(NULL, "|", &save))
		if (plan->n_warnings != 1 || !strstr(plan->warnings[0], p))
			return false;
	return true;
}

static void test_rows(void **state)
{
	for (size_t i = 0; i < N(rows); i++) {
		_cleanup_(node_plan_freep) struct node_plan *plan = NULL;
		_cleanup_free_ char *got = NULL, *want = sorted(rows[i].want), *nodes = NULL;

		assert_true(asprintf(&nodes, "%s;%s", SELF, rows[i].nodes) > 0);
		compile_row(&rows[i], nodes, &plan);
		got = words_of(plan);
		if (strcmp(got, want) != 0)
			fail_msg("%s:\n  got  %s\n  want %s", rows[i].what, got, want);
		if (!warns_as(&rows[i], plan))
			fail_msg("%s: %zu warnings, first: %s", rows[i].what, plan->n_warnings,
				 plan->n_warnings ? plan->warnings[0] : "");
	}
}

static void test_counts(void **state)
{
	static const struct {
		int mode;
		size_t direct, tunnel, unreachable;
	} cases[] = { { NATIVE, 3, 0, 0 }, { DIRECT, 1, 0, 2 }, { TUNNEL, 0, 3, 0 },
		      { AUTO, 1, 2, 0 } };
	static const char nodes[] =
		SELF ";b 10.0.0.2,fd00::2 10.1.2.0/24,fd01:2::/64;"
		     "c 10.0.0.3 10.1.3.0/24,fd01:3::/64;d 10.9.0.4 10.1.4.0/24;e 10.9.0.5 -";

	for (size_t i = 0; i < N(cases); i++) {
		_cleanup_(node_plan_freep) struct node_plan *plan = NULL;
		const struct row row = { .mode = cases[i].mode };

		compile_row(&row, nodes, &plan);
		assert_int_equal(plan->n_direct, cases[i].direct);
		assert_int_equal(plan->n_tunnel, cases[i].tunnel);
		assert_int_equal(plan->n_unreachable, cases[i].unreachable);
	}
}

/* ::/0 is said of IPv6 alone: what is left of it has every IPv6 address and no IPv4 one. */
static void test_all_of_v6(void **state)
{
	static const char *const v6[] = { "::", "::1", "2001:db8::1", "fd00::1", "ff02::1",
					  "::fffe:1.2.3.4", "::1:0:0:0" };
	const struct row row = { .mode = NATIVE, .no_masquerade = "::/0" };
	_cleanup_(node_plan_freep) struct node_plan *plan = NULL;
	struct wag_addr addr;

	compile_row(&row, "x 10.9.0.9 -", &plan);
	for (size_t a = 0; a < N(v6) + 1; a++) {
		size_t hits = 0;

		addr_of(a < N(v6) ? v6[a] : "10.1.2.3", &addr);
		for (size_t i = 0; i < plan->n_cidrs; i++) {
			struct cidr_range range = { .bits = plan->cidrs[i].key.bits };

			memcpy(range.net.w, plan->cidrs[i].key.addr, sizeof(range.net.w));
			hits += cidr_range_has(&range, &addr);
		}
		assert_int_equal(hits, a < N(v6));
	}
}

/* As many as a cluster has, all alike but one: time stays far from a second. */
static void test_many(void **state)
{
	const size_t n = 5000;
	struct object **nodes = calloc(n, sizeof(struct object *));
	_cleanup_(node_plan_freep) struct node_plan *plan = NULL;
	struct node_compile in = { .node_name = "none", .tunnel = true, .tunnel_ifindex = 9,
				   .mtu = 1500 };
	char text[128];

	assert_non_null(nodes);
	addr_of("10.0.0.1", &in.v4);
	for (size_t i = 0; i < n; i++) {
		snprintf(text, sizeof(text), "n%zu 172.16.%zu.%zu 10.%zu.%zu.0/24", i, i / 250,
			 i % 250 + 1, i / 250, i % 250);
		nodes[i] = make_node(text);
	}
	assert_int_equal(compile_nodes(&in, (const struct object *const *)nodes, n, &plan), 0);
	assert_int_equal(plan->n_routes, n);
	assert_int_equal(plan->n_cidrs, 2 * n);
	assert_int_equal(plan->n_nodes, n);
	assert_int_equal(plan->n_warnings, 0);
	for (size_t i = 0; i < n; i++)
		object_free(nodes[i]);
	free(nodes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_counts),
		cmocka_unit_test(test_all_of_v6),
		cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
