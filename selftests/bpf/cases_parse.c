// SPDX-License-Identifier: Apache-2.0
/* What is not a flow, cannot be read, or comes in pieces. */
#include "cases.h"

#define V4_HDR 20
#define V6_HDR 40

void services_tcp(struct world *w)
{
	const struct backend b = { POD_B, 8080 };

	for (int i = 0; i < 3; i++) {
		const __u8 protos[] = { IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP };

		world_service(w, 1 + i, VIP, 80, protos[i], WAG_SVC_CLUSTER_IP);
		world_backends(w, 1 + i, protos[i], &b, 1);
	}
}

#define PASSES(HOOK, ...) { .hook = HOOK, .in = { __VA_ARGS__ }, .verdict = V_PASS }
#define DROPS(HOOK, WHY, ...) \
	{ .hook = HOOK, .in = { __VA_ARGS__ }, .verdict = V_DROP, .reason = WHY }

static const struct one_case cases[] = {
	{ "ARP and VLAN frames are the stack's", 0, NULL,
	  { PASSES(FROM_POD, POD_A, POD_B, .ether = 0x0806),
	    PASSES(TO_POD, POD_A, POD_B, .ether = 0x8100),
	    PASSES(FROM_NET, OUTSIDE, NODE, .ether = 0x88cc),
	    PASSES(TO_NET, NODE, OUTSIDE, .ether = 0x0806) } },
	{ "multicast is the stack's", 0, services_tcp,
	  { PASSES(FROM_POD, POD_A, MULTICAST, 5353, 5353, IPPROTO_UDP),
	    PASSES(TO_POD, POD_A, MULTICAST, 5353, 5353, IPPROTO_UDP),
	    PASSES(FROM_NET, OUTSIDE, MULTICAST, 5353, 5353, IPPROTO_UDP),
	    PASSES(TO_NET, NODE, MULTICAST, 5353, 5353, IPPROTO_UDP) } },
	{ "neighbour discovery and other ICMP questions are the stack's", 0, NULL,
	  { PASSES(FROM_POD, POD_A, NODE, .proto = IPPROTO_ICMP, .icmp_type = 135),
	    PASSES(TO_POD, NODE, POD_A, .proto = IPPROTO_ICMP, .icmp_type = 136) } },
	{ "an IPv4 header of another version or too short", ONLY_V4, NULL,
	  { DROPS(FROM_POD, WAG_DROP_INVALID_PACKET, POD_A, POD_B, 1, 2, IPPROTO_TCP,
		  .first = 0x44),
	    DROPS(TO_POD, WAG_DROP_INVALID_PACKET, POD_A, POD_B, 1, 2, IPPROTO_TCP,
		  .first = 0x65),
	    DROPS(FROM_NET, WAG_DROP_INVALID_PACKET, OUTSIDE, NODE, 1, 2, IPPROTO_TCP,
		  .first = 0x41),
	    DROPS(TO_NET, WAG_DROP_INVALID_PACKET, NODE, OUTSIDE, 1, 2, IPPROTO_TCP,
		  .first = 0x05) } },
	{ "an IPv6 header of another version, an extension header cut short", ONLY_V6, NULL,
	  { DROPS(FROM_POD, WAG_DROP_IPV6_EXT_HEADER, POD_A, POD_B, 1, 2, IPPROTO_TCP,
		  .first = 0x45),
	    DROPS(FROM_POD, WAG_DROP_IPV6_EXT_HEADER, POD_A, POD_B, 1, 2, IPPROTO_TCP,
		  .options = 1, .cut = V6_HDR + 7) } },
	{ "an L4 header cut short", ONLY_V4, NULL,
	  { DROPS(FROM_POD, WAG_DROP_TRUNCATED_L4, POD_A, POD_B, 1, 2, IPPROTO_TCP,
		  .cut = V4_HDR + 3),
	    DROPS(FROM_POD, WAG_DROP_TRUNCATED_L4, POD_A, POD_B, 1, 2, IPPROTO_TCP,
		  .cut = V4_HDR + 13),
	    DROPS(TO_POD, WAG_DROP_TRUNCATED_L4, POD_A, POD_B, 1, 2, IPPROTO_UDP,
		  .cut = V4_HDR + 2),
	    DROPS(FROM_NET, WAG_DROP_TRUNCATED_L4, POD_A, POD_B, .proto = IPPROTO_ICMP,
		  .icmp_type = 8, .cut = V4_HDR + 7) } },
	{ "an L4 header cut short", ONLY_V6, NULL,
	  { DROPS(FROM_POD, WAG_DROP_TRUNCATED_L4, POD_A, POD_B, 1, 2, IPPROTO_TCP,
		  .cut = V6_HDR + 13),
	    DROPS(TO_POD, WAG_DROP_TRUNCATED_L4, POD_A, POD_B, 1, 2, IPPROTO_SCTP,
		  .cut = V6_HDR + 2),
	    DROPS(TO_NET, WAG_DROP_TRUNCATED_L4, NODE, POD_B, .proto = IPPROTO_ICMP,
		  .icmp_type = 128, .cut = V6_HDR + 7) } },
	{ "five extension headers are walked", ONLY_V6, services_tcp,
	  { { FROM_POD, { POD_A, VIP, 4000, 80, IPPROTO_TCP, F_SYN, .options = 5 },
	      .verdict = V_REDIRECT, .dst = POD_B, .dport = 8080, .into = POD_B, .hops = 1,
	      .news = WAG_EVENT_CT_NEW, .entries = 2 } } },
	{ "six extension headers are too many", ONLY_V6, NULL,
	  { DROPS(FROM_POD, WAG_DROP_IPV6_EXT_HEADER, POD_A, POD_B, 1, 2, IPPROTO_TCP,
		  .options = 6) } },
	{ "IP options are stepped over", ONLY_V4, services_tcp,
	  { { FROM_POD, { POD_A, VIP, 4000, 80, IPPROTO_TCP, F_SYN, .options = 10 },
	      .verdict = V_REDIRECT, .dst = POD_B, .dport = 8080, .into = POD_B, .hops = 1,
	      .news = WAG_EVENT_CT_NEW, .entries = 2 } } },
	{ "fragments follow their first one", 0, services_tcp,
	  { { FROM_POD, { POD_A, VIP, 4000, 80, IPPROTO_UDP, .id = 77, .more = true, .payload = 64 },
	      .verdict = V_REDIRECT, .dst = POD_B, .dport = 8080, .into = POD_B, .hops = 1,
	      .news = WAG_EVENT_CT_NEW, .entries = 2 },
	    { FROM_POD, { POD_A, VIP, 0, 0, IPPROTO_UDP, .id = 77, .frag = 9, .more = true,
			  .payload = 64 },
	      .verdict = V_REDIRECT, .dst = POD_B, .into = POD_B, .hops = 1, .entries = 2 },
	    { FROM_POD, { POD_A, VIP, 0, 0, IPPROTO_UDP, .id = 77, .frag = 17, .payload = 3 },
	      .verdict = V_REDIRECT, .dst = POD_B, .into = POD_B, .hops = 1, .entries = 2 } } },
	{ "a fragment before its first one", 0, services_tcp,
	  { { FROM_POD, { POD_A, VIP, 0, 0, IPPROTO_UDP, .id = 78, .frag = 9, .payload = 3 },
	      .verdict = V_DROP, .reason = WAG_DROP_FRAG_NOT_FOUND },
	    { TO_POD, { OUTSIDE, POD_A, 0, 0, IPPROTO_UDP, .id = 78, .frag = 9, .payload = 3 },
	      .verdict = V_DROP, .reason = WAG_DROP_FRAG_NOT_FOUND },
	    PASSES(FROM_NET, OUTSIDE, NODE, 0, 0, IPPROTO_UDP, .id = 78, .frag = 9, .payload = 3),
	    PASSES(TO_NET, NODE, OUTSIDE, 0, 0, IPPROTO_UDP, .id = 78, .frag = 9,
		   .payload = 3) } },
	{ "a fragmented SCTP message whose port would change", 0, services_tcp,
	  { { FROM_POD, { POD_A, VIP, 4000, 80, IPPROTO_SCTP, .id = 5, .more = true, .payload = 20 },
	      .verdict = V_DROP, .reason = WAG_DROP_CSUM_ERROR, .entries = 2 } } },
	{ "a translated TCP header without room for its checksum", ONLY_V4, services_tcp,
	  { { FROM_POD, { POD_A, VIP, 4000, 80, IPPROTO_TCP, F_SYN, .cut = V4_HDR + 15 },
	      .verdict = V_DROP, .reason = WAG_DROP_WRITE_ERROR, .entries = 2 } } },
	{ "a translated TCP header without room for its checksum", ONLY_V6, services_tcp,
	  { { FROM_POD, { POD_A, VIP, 4000, 80, IPPROTO_TCP, F_SYN, .cut = V6_HDR + 15 },
	      .verdict = V_DROP, .reason = WAG_DROP_WRITE_ERROR, .entries = 2 } } },
	{ "what is forwarded or marked has met its hook before", 0, services_tcp,
	  { { TO_NET, { NODE, VIP, 4000, 80, IPPROTO_TCP, F_SYN }, .verdict = V_PASS,
	      .ingress = 1, .uncounted = true },
	    { TO_NET, { NODE, VIP, 4000, 80, IPPROTO_TCP, F_SYN }, .verdict = V_PASS,
	      .mark = WAG_MARK_TRANSLATED | 5, .uncounted = true },
	    { TO_NET, { LOOPBACK, VIP, 4000, 80, IPPROTO_TCP, F_SYN }, .verdict = V_PASS,
	      .uncounted = true } } },
};

void cases_parse(struct world *w)
{
	run_cases(w, cases, sizeof(cases) / sizeof(cases[0]));
}
