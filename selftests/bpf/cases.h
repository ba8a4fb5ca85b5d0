/* SPDX-License-Identifier: Apache-2.0 */
/* One row a case: packets in order, and what each must become. */
#pragma once

#include <netinet/in.h>
#include "world.h"

#define STEPS_MAX 9
#define ONLY_V4 1
#define ONLY_V6 2

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

void cases_parse(struct world *w);
void cases_flow(struct world *w);
void cases_masq(struct world *w);
void cases_hostport(struct world *w);
