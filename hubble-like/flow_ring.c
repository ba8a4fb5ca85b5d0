// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <waggle/cleanup.h>
#include "flow_ring.h"

#define CAPACITY_MAX (1U << 20)

struct flow_ring {
	uint64_t next;
	size_t capacity;
	struct flow_record records[];
};

void flow_record_done(struct flow_record *rec)
{
	flow_name_put(TAKE_PTR(rec->source));
	flow_name_put(TAKE_PTR(rec->destination));
	flow_name_put(TAKE_PTR(rec->source_service));
	flow_name_put(TAKE_PTR(rec->destination_service));
	flow_name_put(TAKE_PTR(rec->interface));
	flow_name_put(TAKE_PTR(rec->policy[0]));
	flow_name_put(TAKE_PTR(rec->policy[1]));
}

int flow_ring_new(struct flow_ring **ret, size_t capacity)
{
	struct flow_ring *ring;

	if (!capacity || capacity > CAPACITY_MAX)
		return -EINVAL;
	ring = calloc(1, sizeof(*ring) + capacity * sizeof(ring->records[0]));
	if (!ring)
		return -ENOMEM;
	ring->capacity = capacity;
	*ret = ring;
	return 0;
}

void flow_ring_free(struct flow_ring *ring)
{
	if (!ring)
		return;
	for (size_t i = 0; i < ring->capacity; i++)
		flow_record_done(&ring->records[i]);
	free(ring);
}

void flow_ring_freep(struct flow_ring **ring)
{
	flow_ring_free(*ring);
}

uint64_t flow_ring_push(struct flow_ring *ring, const struct flow_record *rec)
{
	struct flow_record *slot = &ring->records[ring->next % ring->capacity];

	flow_record_done(slot);
	*slot = *rec;
	return ring->next++;
}

uint64_t flow_ring_oldest(const struct flow_ring *ring)
{
	return ring->next > ring->capacity ? ring->next - ring->capacity : 0;
}

uint64_t flow_ring_next(const struct flow_ring *ring)
{
	return ring->next;
}

size_t flow_ring_capacity(const struct flow_ring *ring)
{
	return ring->capacity;
}

const struct flow_record *flow_ring_get(const struct flow_ring *ring, uint64_t seq)
{
	if (seq < flow_ring_oldest(ring) || seq >= ring->next)
		return NULL;
	return &ring->records[seq % ring->capacity];
}
