// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/cleanup.h>
#include "sync_internal.h"

/*
 * An agent may have died between any two operations, and each leaves one of these:
 *   a name alone, or with backends             a port that was never published
 *   backends that no slot names                trash
 *   a state whose frontends are missing        set again, or removed by the sweep
 *   a state without a name, a frontend without either: a doomed port, so that they go in order
 */
struct adoption {
	struct sync *s;
	struct by_id {
		uint32_t svc_id;
		uint32_t n_backends; /* of its slots, found in wag_backend */
		struct sync_port *port;
	} * ids;
	size_t n_ids;
	struct slot_range *taken;
	size_t n_taken;
	uint32_t max_index, max_svc_id;
};

static void saw_id(struct adoption *a, uint32_t svc_id)
{
	if (svc_id > a->max_svc_id)
		a->max_svc_id = svc_id;
}

static void put_port(struct adoption *a, struct sync_port *p, uint32_t index, uint32_t svc_id)
{
	p->index = index;
	p->svc_id = svc_id;
	a->s->ports[index] = p;
	a->s->stats.ports++;
	if (index > a->max_index)
		a->max_index = index;
	saw_id(a, svc_id);
}

static int doom_new(struct adoption *a, uint32_t index, uint32_t svc_id)
{
	struct sync_port *p = sync_port_new("", 0, 0);

	if (!p)
		return -ENOMEM;
	put_port(a, p, index, svc_id);
	sync_doom(a->s, p);
	return 0;
}

static bool terminated(const char *text, size_t size)
{
	return memchr(text, '\0', size) != NULL;
}

static bool name_valid(const struct wag_svc_name *name)
{
	return name->svc_id && name->name[0] && terminated(name->ns, sizeof(name->ns)) &&
	       terminated(name->name, sizeof(name->name)) &&
	       terminated(name->port_name, sizeof(name->port_name)) &&
	       terminated(name->type, sizeof(name->type));
}

/* Of two ports of one identity the younger stays: the older was on its way out. */
static void link_port(struct sync *s, struct sync_svc *svc, struct sync_port *p)
{
	struct sync_port **at = &svc->ports;

	for (; *at; at = &(*at)->next) {
		struct sync_port *old = *at;

		if (old->proto != p->proto || old->family != p->family ||
		    strcmp(old->name, p->name) != 0)
			continue;
		if (old->svc_id > p->svc_id) {
			sync_doom(s, p);
			return;
		}
		*at = old->next;
		sync_doom(s, old);
		break;
	}
	p->next = svc->ports;
	p->svc = svc;
	svc->ports = p;
}

static int adopt_name(const void *key, const void *value, void *ctx)
{
	struct adoption *a = ctx;
	struct sync *s = a->s;
	struct wag_svc_name name;
	struct sync_svc *svc;
	struct sync_port *p;
	uint32_t index;
	int r;

	memcpy(&index, key, sizeof(index));
	memcpy(&name, value, sizeof(name));
	if (index == 0 || index >= s->n_states)
		return 0;
	r = dataplane_reach(s->dp, index + 1, 0);
	if (r < 0)
		return r;
	if (!name_valid(&name) ||
	    (s->states[index].svc_id && s->states[index].svc_id != name.svc_id))
		return doom_new(a, index, s->states[index].svc_id);
	svc = sync_svc_get(s, name.ns, name.name);
	p = sync_port_new(name.port_name, name.proto, name.family);
	if (!svc || !p) {
		free(p);
		return -ENOMEM;
	}
	p->node_port = name.node_port;
	memcpy(p->type, name.type, sizeof(p->type));
	p->name_ok = true;
	put_port(a, p, index, name.svc_id);
	link_port(s, svc, p);
	return 0;
}

static int adopt_frontend(const void *key, const void *value, void *ctx)
{
	struct adoption *a = ctx;
	struct sync *s = a->s;
	struct wag_svc svc;
	int r;

	memcpy(&svc, value, sizeof(svc));
	if (svc.index && svc.index < s->n_states) {
		r = dataplane_reach(s->dp, svc.index + 1, 0);
		if (r < 0)
			return r;
		if (!s->ports[svc.index]) {
			r = doom_new(a, svc.index, s->states[svc.index].svc_id);
			if (r < 0)
				return r;
		}
		s->ports[svc.index]->n_frontends++;
	}
	return deltamap_set_actual(&s->frontends, key, value);
}

/* States nobody names any more. Above the mark nothing was ever written. */
static int adopt_states(struct adoption *a)
{
	struct sync *s = a->s;
	uint64_t end = s->states[0].pad[1];
	int r;

	if (end > s->n_states || end <= a->max_index)
		end = end || a->max_index ? s->n_states : 1;
	r = dataplane_reach(s->dp, end, 0);
	if (r < 0)
		return r;
	for (uint32_t i = 1; i < end; i++) {
		if (s->ports[i] || (s->states[i].svc_id == 0 && s->states[i].slots == 0))
			continue;
		r = doom_new(a, i, s->states[i].svc_id);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Are the slots of an adopted range what we would write? */
static bool range_valid(const struct sync *s, const struct sync_port *p)
{
	const struct wag_slot *first = &s->slots[sync_port_first(p)];
	struct svc_table_port port = {
		.n_backends = sync_port_backends(p), .slots_flags = p->slots_flags
	};
	_cleanup_free_ struct svc_backend *list = calloc(p->count + 1, sizeof(*list));
	_cleanup_free_ struct wag_slot *slots = calloc(p->count + 1, sizeof(*slots));

	if (!list || !slots)
		return false;
	for (uint32_t i = 0; i < port.n_backends; i++) {
		const struct wag_slot *slot = &first[i];

		list[i] = (struct svc_backend){
			.addr = slot->addr, .port = slot->port, .flags = slot->flags
		};
		if ((i && svc_backend_compare(&list[i - 1], &list[i]) >= 0) ||
		    (!(p->slots_flags & WAG_SLOTS_HEAD) && slot->flags != WAG_BACKEND_CLUSTER))
			return false;
	}
	port.backends = list;
	return svc_slots(&port) == p->count && svc_slots_write(&port, p->svc_id, slots) == 0 &&
	       memcmp(&s->slots[p->base], slots, p->count * sizeof(*slots)) == 0;
}

/* How many endpoints the range seems to have; what is behind them is the lookup tables'. */
static uint16_t endpoints_of(const struct sync *s, const struct sync_port *p)
{
	uint32_t n = p->base + p->count - sync_port_first(p);
	struct wag_slot_head head;

	if (!(p->slots_flags & WAG_SLOTS_MAGLEV))
		return n;
	memcpy(&head, &s->slots[p->base], sizeof(head));
	return head.local_table && head.local_table - 1U < n ? head.local_table - 1U : 0;
}

/* The published range of a port, if it is one. */
static int adopt_range(struct adoption *a, struct sync_port *p)
{
	struct sync *s = a->s;
	uint64_t slots = s->states[p->index].slots;
	uint32_t base = WAG_SLOTS_BASE(slots), count = WAG_SLOTS_COUNT(slots);
	int r;

	p->published = s->states[p->index].svc_id != 0 && s->states[p->index].svc_id == p->svc_id;
	p->slots_flags = p->published ? WAG_SLOTS_FLAGS(slots) : 0;
	if (count > s->n_slots || base > s->n_slots - count)
		count = 0;
	if (!p->published || count == 0) {
		p->repair = WAG_SLOTS_COUNT(slots) != 0;
		return 0;
	}
	r = dataplane_reach(s->dp, 0, base + count);
	if (r < 0)
		return r;
	p->base = base;
	p->count = count;
	p->n_backends = endpoints_of(s, p);
	p->repair = !range_valid(s, p);
	a->taken[a->n_taken++] = (struct slot_range){ base, count };
	return 0;
}

static int by_base(const void *x, const void *y)
{
	const struct sync_port *const *a = x, *const *b = y;

	return (*a)->base < (*b)->base ? -1 : (*a)->base > (*b)->base;
}

/* Of two ranges that overlap only the first is its port's; the other port is written anew. */
static void drop_overlaps(struct adoption *a, struct sync_port **list, size_t n)
{
	uint32_t end = 0;

	qsort(list, n, sizeof(*list), by_base);
	a->n_taken = 0;
	for (size_t i = 0; i < n; i++) {
		struct sync_port *p = list[i];

		if (p->count == 0)
			continue;
		if (p->base < end) {
			p->count = 0;
			p->repair = true;
			continue;
		}
		end = p->base + p->count;
		a->taken[a->n_taken++] = (struct slot_range){ p->base, p->count };
		a->s->stats.backends += sync_port_backends(p);
	}
}

static int by_svc_id(const void *x, const void *y)
{
	const struct by_id *a = x, *b = y;

	return a->svc_id < b->svc_id ? -1 : a->svc_id > b->svc_id;
}

static void unlink_port(struct sync *s, struct sync_port *p)
{
	struct sync_port **at;

	if (!p->svc)
		return;
	for (at = &p->svc->ports; *at != p; at = &(*at)->next)
		;
	*at = p->next;
	sync_doom(s, p);
}

/* Ports that share an id share backends, and one would take the other's away: all are made anew. */
static void doom_shared_ids(struct adoption *a)
{
	for (size_t i = 1; i < a->n_ids; i++) {
		if (a->ids[i].svc_id != a->ids[i - 1].svc_id)
			continue;
		unlink_port(a->s, a->ids[i - 1].port);
		unlink_port(a->s, a->ids[i].port);
	}
}

static int adopt_ranges(struct adoption *a)
{
	struct sync *s = a->s;
	struct sync_port **list = calloc(s->stats.ports + 1, sizeof(struct sync_port *));
	size_t n = 0;
	int r = 0;

	a->ids = calloc(s->stats.ports + 1, sizeof(*a->ids));
	a->taken = calloc(s->stats.ports + 1, sizeof(*a->taken));
	if (!list || !a->ids || !a->taken) {
		free(list);
		return -ENOMEM;
	}
	for (uint32_t i = 1; i <= a->max_index && r == 0; i++) {
		struct sync_port *p = s->ports[i];

		if (!p)
			continue;
		r = adopt_range(a, p);
		list[n++] = p;
		a->ids[a->n_ids++] = (struct by_id){ .svc_id = p->svc_id, .port = p };
	}
	drop_overlaps(a, list, n);
	free(list);
	if (r < 0)
		return r;
	qsort(a->ids, a->n_ids, sizeof(*a->ids), by_svc_id);
	doom_shared_ids(a);
	return slot_alloc_init(&s->alloc, s->n_slots, a->taken, a->n_taken);
}

static int adopt_backend(const void *key, const void *value, void *ctx)
{
	struct adoption *a = ctx;
	struct sync *s = a->s;
	struct by_id wanted = { 0 }, *found;
	struct wag_backend_key k;
	const struct wag_slot *slot;
	struct wag_backend backend;
	int r;

	memcpy(&k, key, sizeof(k));
	saw_id(a, k.svc_id);
	wanted.svc_id = k.svc_id;
	found = bsearch(&wanted, a->ids, a->n_ids, sizeof(*a->ids), by_svc_id);
	if (found && !found->port->svc)
		found = NULL; /* of a doomed port: goes with it */
	slot = found && k.proto == found->port->proto ?
		       sync_port_slot(s, found->port, &k.addr, k.port) : NULL;
	if (slot) {
		memcpy(&backend, value, sizeof(backend));
		found->n_backends += backend.flags == slot->flags; /* else it is written again */
		return 0;
	}
	r = sync_reserve(&s->trash, sizeof(*s->trash), s->n_trash + 1, &s->cap_trash);
	if (r < 0)
		return r;
	s->trash[s->n_trash].key = k;
	s->trash[s->n_trash++].index = found ? found->port->index : 0;
	return 0;
}

/* Whoever still wants it says so; until the sweep nothing is removed. */
static int adopt_src_range(const void *key, const void *value, void *ctx)
{
	struct adoption *a = ctx;

	return deltamap_set_actual(&a->s->ranges, key, value);
}

static int adopt_node_addr(const void *key, const void *value, void *ctx)
{
	struct sync *s = ctx;

	return deltamap_set_actual(&s->node_addrs, key, value);
}

static void adopt_counters(struct adoption *a)
{
	struct sync *s = a->s;

	for (size_t i = 0; i < a->n_ids; i++)
		if (a->ids[i].n_backends != sync_port_backends(a->ids[i].port))
			a->ids[i].port->repair = true;
	s->next_index = a->max_index + 1;
	for (uint32_t i = 1; i < s->next_index; i++)
		if (!s->ports[i])
			s->free_indices[s->n_free_indices++] = i;
	if (s->states[0].pad[0] > s->next_svc_id)
		s->next_svc_id = s->states[0].pad[0];
	if (a->max_svc_id >= s->next_svc_id)
		s->next_svc_id = a->max_svc_id + 1;
	if (s->next_svc_id == 0)
		s->next_svc_id = 1;
}

int sync_adopt(struct sync *s)
{
	struct adoption a = { .s = s };
	int r;

	r = dataplane_visit(s->dp, DP_SVC_NAME, adopt_name, &a);
	if (r == 0)
		r = dataplane_visit(s->dp, DP_SVC, adopt_frontend, &a);
	if (r == 0)
		r = adopt_states(&a);
	if (r == 0)
		r = adopt_ranges(&a);
	if (r == 0)
		r = dataplane_visit(s->dp, DP_BACKEND, adopt_backend, &a);
	if (r == 0)
		r = dataplane_visit(s->dp, DP_SRC_RANGE, adopt_src_range, &a);
	if (r == 0)
		r = dataplane_visit(s->dp, DP_NODE_ADDR, adopt_node_addr, s);
	if (r == 0)
		adopt_counters(&a);
	free(a.ids);
	free(a.taken);
	if (r == 0 && a.max_svc_id)
		sync_grace(s); /* for what the agent before freed last */
	return r;
}
