/* SPDX-License-Identifier: Apache-2.0 */
/* An event of the datapath becomes one or two flow records with names and a wall-clock time. */
#pragma once

#include <stdint.h>
#include "flow_ring.h"

#define ENRICH_RECORDS 4
#define ENRICH_IFNAMES 64

struct enricher {
	struct flow_names *names;      /* borrowed */
	struct flow_resolver resolver; /* members may be NULL */
	int64_t wall_offset_ns;	       /* CLOCK_REALTIME - CLOCK_MONOTONIC */
	struct {
		uint32_t ifindex;
		uint64_t until_ns; /* CLOCK_MONOTONIC of an event */
		char name[16];
	} ifnames[ENRICH_IFNAMES];
};

void enrich_init(struct enricher *e, struct flow_names *names,
		 const struct flow_resolver *resolver);
void enrich_set_clock(struct enricher *e); /* clocks drift: call once for every batch of events */

/*
 * A translated packet or socket gives two records, before and after; everything else one. What a
 * policy decided of it is told before, in a record for each direction. The
 * caller owns what ret[] holds. Returns their number, -EINVAL for an event that makes no sense.
 */
int enrich_event(struct enricher *e, const struct wag_event *event,
		 struct flow_record ret[ENRICH_RECORDS]);
