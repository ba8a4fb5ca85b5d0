/* SPDX-License-Identifier: Apache-2.0 */
/* One row a case: packets in order, and what each must become. */
#pragma once

#include <netinet/in.h>
#include "world.h"

#define STEPS_MAX 9
#define ONLY_V4 1
#define ONLY_V6 2

#define NEW .news = WAG_EVENT_CT_NEW
#define FIRST_REPLY .news = WAG_EVENT_CT_REPLY
#define TO(POD) .verdict = V_REDIRECT, .into = POD, .hops = 1
/* On through a device of the node, as a router does it. */
#define ON .verdict = V_REDIRECT, .hops = 1
#define T(S, SP, D, DP, FLAGS)                                                                     \
	{                                                                                          \
		S, D, SP, DP, IPPROTO_TCP, FLAGS, .payload = 11                                    \
	}
#define U(S, SP, D, DP)                                                                            \
	{                                                                                          \
		S, D, SP, DP, IPPROTO_UDP, .payload = 10                                           \
	}

/* A packet and its fate. What is zero is as in the packet that came. */
struct step {
	enum hook hook;
	struct spec in;
	bool to_chosen_port; /* in.dport is the source port chosen before */
	int verdict;
	enum wag_reason reason;
	enum who src, dst; /* as it leaves */
	__u16 sport, dport;
	bool any_sport;	   /* as it leaves: one that the programs chose */
	bool chosen_sport; /* as it leaves: the one chosen before */
	enum who into;	   /* the pod whose addresses the Ethernet header names */
	bool macs_zero;
	__u8 hops;		/* the TTL is lower by */
	enum wag_event_ct news; /* NEW, or REPLY: the first one */
	bool uncounted;
	__u8 entries; /* in conntrack afterwards */
	__u32 ingress, mark;
	enum who packed; /* with a tunnel key for this node */
	bool elsewhere;	 /* comes in at another device: wag_out */
	void (*before)(struct world *w);
};

struct one_case {
	const char *name;
	unsigned family; /* ONLY_*; 0: both */
	void (*setup)(struct world *w);
	struct step steps[STEPS_MAX];
};

void run_cases(struct world *w, const struct one_case *cases, unsigned n);
void run_step(struct world *w, const struct step *step);

void services_tcp(struct world *w);
/* VIP:80 or, for ANYBODY, NodePort 30080 -> who:8080, as Service number index. */
void one_service(struct world *w, enum who vip, __u8 proto, __u32 index, enum who who);
void to_remote(struct world *w);
void to_unrouted(struct world *w);

void cases_parse(struct world *w);
void cases_flow(struct world *w);
void cases_masq(struct world *w);
void cases_hostport(struct world *w);
void cases_route(struct world *w);
void cases_policy(struct world *w);
