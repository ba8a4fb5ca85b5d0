// SPDX-License-Identifier: Apache-2.0
/*
 * Maglev's lookup table (Eisenbud et al., NSDI 2016): each endpoint likes the table's entries in an
 * order of its own, and takes the best one left when it is its turn. Who is in the set decides
 * everything, so that all nodes come to the same.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/cleanup.h>
#include "compile_service.h"

#define ENTRIES_PER_ENDPOINT 100 /* nobody has more than one percent above another */

struct member {
	const struct svc_backend *backend;
	uint16_t slot;
	uint32_t next, skip; /* the entry it likes best of those it did not ask for yet */
};

uint32_t maglev_entries(uint32_t n)
{
	/* Few sizes, for another size is another table: about four times the one before. */
	static const uint32_t primes[] = { 1021, 4093, 16381, 65521, 262139, 524287 };

	if (n < 2)
		return 0;
	for (size_t i = 0; i < sizeof(primes) / sizeof(primes[0]); i++)
		if ((uint64_t)n * ENTRIES_PER_ENDPOINT <= primes[i])
			return primes[i];
	return UINT32_MAX;
}

static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;

	while (n--)
		hash = (hash ^ *p++) * 0x100000001b3ULL; /* FNV-1a */
	return hash;
}

/* FNV's high bits are poor: MurmurHash3's last step. */
static uint64_t mix(uint64_t hash)
{
	hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccdULL;
	hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53ULL;
	return hash ^ hash >> 33;
}

static struct member make_member(const struct svc_backend *b, uint16_t slot, uint32_t entries)
{
	uint64_t hash = hash_bytes(0xcbf29ce484222325ULL, &b->addr, sizeof(b->addr));

	hash = mix(hash_bytes(hash, &b->port, sizeof(b->port)));
	return (struct member){
		.backend = b,
		.slot = slot,
		.next = (hash >> 32) % entries,
		.skip = 1 + (uint32_t)hash % (entries - 1),
	};
}

/* Whose turn it is must not depend on the range's order, which is each node's own. */
static int member_compare(const void *a, const void *b)
{
	const struct svc_backend *x = ((const struct member *)a)->backend;
	const struct svc_backend *y = ((const struct member *)b)->backend;
	int r = memcmp(&x->addr, &y->addr, sizeof(x->addr));

	return r ? r : (int)ntohs(x->port) - (int)ntohs(y->port);
}

static uint16_t *entry_at(struct wag_slot_entries *table, uint32_t i)
{
	return &table[i / WAG_SLOT_ENTRIES].at[i % WAG_SLOT_ENTRIES];
}

static void take_turns(struct member *members, size_t n, struct wag_slot_entries *table,
		       uint32_t entries)
{
	for (uint32_t taken = 0; taken < entries; taken++) {
		struct member *m = &members[taken % n];
		uint16_t *entry;

		do {
			entry = entry_at(table, m->next);
			m->next = (m->next + m->skip) % entries;
		} while (*entry);
		*entry = m->slot;
	}
}

int maglev_fill(const struct svc_table_port *port, uint16_t set, struct wag_slot_entries *table,
		uint32_t entries)
{
	_cleanup_free_ struct member *members = calloc(port->n_backends + 1, sizeof(*members));
	size_t n = 0;

	if (!members)
		return -ENOMEM;
	for (uint32_t i = 0; entries && i < port->n_backends; i++)
		if (port->backends[i].flags & set)
			members[n++] = make_member(&port->backends[i], i + 1, entries);
	qsort(members, n, sizeof(*members), member_compare);
	if (n)
		take_turns(members, n, table, entries);
	return 0;
}
