/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last flows seen. Every record has a sequence number; readers keep a sequence number as their
 * cursor, so that a slow one costs nothing and sees exactly how many it missed.
 */
#pragma once

#include <stdint.h>
#include <waggle/abi_event.h>
#include "flow_names.h"

enum flow_record_kind {
	FLOW_RECORD_PACKET, /* as it came, not translated, or dropped */
	FLOW_RECORD_PRE,    /* before its translation */
	FLOW_RECORD_POST,   /* after its translation */
	FLOW_RECORD_LOST,   /* events that never arrived */
	FLOW_RECORD_INGRESS, /* what policies say of it, in that direction */
	FLOW_RECORD_EGRESS,
};

struct flow_record {
	uint64_t time_ns; /* CLOCK_REALTIME */
	enum flow_record_kind kind;
	struct flow_name *source, *destination; /* owned; may be NULL, as the next */
	struct flow_name *source_service, *destination_service;
	struct flow_name *interface;
	struct flow_name *policy[2]; /* who decided, by direction, 0 ingress */
	union {
		struct wag_event event;
		struct {
			uint64_t count;
			uint64_t first_ns, last_ns; /* CLOCK_REALTIME */
		} lost;
	};
};

void flow_record_done(struct flow_record *rec); /* puts its names */

struct flow_ring;

int flow_ring_new(struct flow_ring **ret, size_t capacity); /* 0, -EINVAL, -ENOMEM */
void flow_ring_free(struct flow_ring *ring);
void flow_ring_freep(struct flow_ring **ring);

/* Takes over what rec owns; returns its sequence number. The oldest record makes room. */
uint64_t flow_ring_push(struct flow_ring *ring, const struct flow_record *rec);
uint64_t flow_ring_oldest(const struct flow_ring *ring); /* equals next when empty */
uint64_t flow_ring_next(const struct flow_ring *ring);	 /* of the record to come */
size_t flow_ring_capacity(const struct flow_ring *ring);
/* NULL unless oldest <= seq < next; valid until the next push. */
const struct flow_record *flow_ring_get(const struct flow_ring *ring, uint64_t seq);
