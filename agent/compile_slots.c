// SPDX-License-Identifier: Apache-2.0
/* A port's range of slots: the head, the endpoints, the lookup tables of the two sets. */
#include <string.h>
#include "compile_service.h"

static uint32_t table_slots(uint32_t entries)
{
	return entries / WAG_SLOT_ENTRIES + (entries % WAG_SLOT_ENTRIES != 0);
}

void svc_slot_head(const struct svc_table_port *port, uint32_t svc_id, struct wag_slot_head *ret)
{
	*ret = (struct wag_slot_head){ .cluster_first = 1, .svc_id = svc_id };
	for (uint32_t i = 0; i < port->n_backends; i++) {
		uint16_t flags = port->backends[i].flags;

		ret->local_count += !!(flags & WAG_BACKEND_LOCAL);
		ret->cluster_count += !!(flags & WAG_BACKEND_CLUSTER);
		ret->cluster_first += flags == WAG_BACKEND_LOCAL;
	}
	if (!(port->slots_flags & WAG_SLOTS_MAGLEV))
		return;
	ret->local_entries = maglev_entries(ret->local_count);
	ret->cluster_entries = maglev_entries(ret->cluster_count);
	ret->local_table = 1 + port->n_backends;
	ret->cluster_table = ret->local_table + table_slots(ret->local_entries);
}

uint32_t svc_slots(const struct svc_table_port *port)
{
	struct wag_slot_head head;

	svc_slot_head(port, 0, &head);
	return (port->slots_flags & WAG_SLOTS_HEAD ? 1 : 0) + port->n_backends +
	       table_slots(head.local_entries) + table_slots(head.cluster_entries);
}

static int write_table(const struct svc_table_port *port, uint16_t set, uint32_t entries,
		       uint32_t svc_id, struct wag_slot *at)
{
	struct wag_slot_entries *table = (struct wag_slot_entries *)at;

	for (uint32_t i = 0; i < table_slots(entries); i++)
		table[i] = (struct wag_slot_entries){ .svc_id = svc_id };
	return maglev_fill(port, set, table, entries);
}

int svc_slots_write(const struct svc_table_port *port, uint32_t svc_id, struct wag_slot *slots)
{
	struct wag_slot *at = slots;
	struct wag_slot_head head;
	int r = 0;

	svc_slot_head(port, svc_id, &head);
	if (port->slots_flags & WAG_SLOTS_HEAD)
		memcpy(at++, &head, sizeof(head));
	for (uint32_t i = 0; i < port->n_backends; i++) {
		const struct svc_backend *b = &port->backends[i];

		*at++ = (struct wag_slot){
			.addr = b->addr, .port = b->port, .flags = b->flags, .svc_id = svc_id
		};
	}
	if (port->slots_flags & WAG_SLOTS_MAGLEV) {
		r = write_table(port, WAG_BACKEND_LOCAL, head.local_entries, svc_id,
				slots + head.local_table);
		if (r == 0)
			r = write_table(port, WAG_BACKEND_CLUSTER, head.cluster_entries, svc_id,
					slots + head.cluster_table);
	}
	return r;
}
