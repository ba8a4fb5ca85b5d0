// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "sync_internal.h"

/* What the table before had, as far as it is this Service's: frontends are free for anybody. */
static void release_table(struct sync *s, struct sync_svc *svc)
{
	const struct svc_table *old = svc->old;

	for (struct sync_port *p = svc->ports; p; p = p->next)
		sync_release_ranges(s, p);
	for (uint32_t i = 0; old && i < old->n_ports; i++) {
		for (uint32_t j = 0; j < old->ports[i].n_frontends; j++) {
			const struct wag_svc_key *key = &old->ports[i].frontends[j].key;
			const struct wag_svc *desired = deltamap_desired(&s->frontends, key);

			if (desired && s->ports[desired->index] &&
			    s->ports[desired->index]->svc == svc)
				deltamap_unset_desired(&s->frontends, key);
		}
	}
	free(svc->old);
	svc->old = NULL;
}

static struct sync_port *find_port(struct sync_svc *svc, const struct svc_table_port *want)
{
	for (struct sync_port *p = svc->ports; p; p = p->next)
		if (!p->want && p->proto == want->proto && p->family == want->family &&
		    strcmp(p->name, want->name) == 0)
			return p;
	return NULL;
}

static int take_index(struct sync *s, uint32_t *ret)
{
	int r;

	if (s->n_free_indices == 0 && s->next_index == s->n_states && s->n_old_indices)
		sync_grace(s);
	if (s->n_free_indices) {
		*ret = s->free_indices[--s->n_free_indices];
		return 0;
	}
	if (s->next_index == s->n_states)
		return -ENOSPC;
	r = dataplane_reach(s->dp, s->next_index + 1, 0);
	if (r < 0)
		return r;
	*ret = s->next_index++;
	return 0;
}

static struct sync_port *add_port(struct sync *s, struct sync_svc *svc,
				  const struct svc_table_port *want)
{
	struct sync_port *p = sync_port_new(want->name, want->proto, want->family);
	struct sync_port **at = &svc->ports;
	int r;

	if (!p) {
		sync_fail(s, svc, SYNC_MAP_NONE, -ENOMEM);
		return NULL;
	}
	r = take_index(s, &p->index);
	if (r < 0) {
		free(p);
		sync_fail(s, svc, SYNC_MAP_STATE, r);
		return NULL;
	}
	p->svc_id = s->next_svc_id++;
	if (s->next_svc_id == 0)
		s->next_svc_id = 1;
	p->svc = svc;
	while (*at)
		at = &(*at)->next;
	*at = p;
	s->ports[p->index] = p;
	s->stats.ports++;
	return p;
}

void sync_doom(struct sync *s, struct sync_port *p)
{
	sync_release_ranges(s, p);
	p->svc = NULL;
	p->want = NULL;
	p->next = s->doomed;
	s->doomed = p;
}

static void doom_unwanted(struct sync *s, struct sync_svc *svc)
{
	struct sync_port **at = &svc->ports;

	while (*at) {
		struct sync_port *p = *at;

		if (p->want) {
			at = &p->next;
			continue;
		}
		*at = p->next;
		sync_doom(s, p);
	}
}

static bool slots_current(const struct sync *s, const struct sync_port *p)
{
	const struct wag_slot *slot = &s->slots[sync_port_first(p)];

	if (!p->published || p->repair || p->count != svc_slots(p->want) ||
	    sync_port_backends(p) != p->want->n_backends || p->slots_flags != p->want->slots_flags)
		return false;
	for (uint32_t i = 0; i < p->want->n_backends; i++, slot++) {
		const struct svc_backend *b = &p->want->backends[i];

		if (memcmp(&slot->addr, &b->addr, sizeof(b->addr)) != 0 || slot->port != b->port ||
		    slot->flags != b->flags)
			return false;
	}
	return true;
}

static int take_range(struct sync *s, uint32_t len, uint32_t *ret)
{
	int r = slot_alloc_get(&s->alloc, len, ret);

	if (r == -ENOSPC && s->alloc.n_quarantine) {
		sync_grace(s);
		r = slot_alloc_get(&s->alloc, len, ret);
	}
	if (r < 0)
		return r;
	r = dataplane_reach(s->dp, 0, *ret + len);
	if (r < 0)
		slot_alloc_release(&s->alloc, *ret, len);
	return r;
}

static int plan_slots(struct sync *s, struct sync_port *p)
{
	uint32_t wanted;
	int r;

	p->failed = false;
	p->new_base = 0;
	if (slots_current(s, p))
		return 0;
	r = sync_reserve(&s->changing, sizeof(*s->changing), s->n_changing + 1, &s->cap_changing);
	if (r < 0)
		return r;
	wanted = svc_slots(p->want);
	if (wanted) {
		r = take_range(s, wanted, &p->new_base);
		if (r < 0) {
			sync_fail(s, p->svc, r == -ENOSPC ? SYNC_MAP_SLOT : SYNC_MAP_NONE, r);
			return 0;
		}
		p->new_count = wanted;
	}
	s->changing[s->n_changing++] = p;
	return 0;
}

/* Ports are matched by name, protocol and family: a port that stays keeps its state index. */
static int plan_ports(struct sync *s, struct sync_svc *svc)
{
	const struct svc_table *table = svc->table;
	int r;

	for (struct sync_port *p = svc->ports; p; p = p->next)
		p->want = NULL;
	for (uint32_t i = 0; table && i < table->n_ports; i++) {
		const struct svc_table_port *want = &table->ports[i];
		struct sync_port *p = find_port(svc, want);

		if (!p)
			p = add_port(s, svc, want);
		if (!p)
			continue;
		p->want = want;
		if (p->node_port != want->node_port || strcmp(p->type, table->type) != 0)
			p->name_ok = false;
		p->node_port = want->node_port;
		snprintf(p->type, sizeof(p->type), "%s", table->type);
		r = sync_claim_ranges(s, p);
		if (r == 0)
			r = plan_slots(s, p);
		if (r < 0)
			return r;
	}
	doom_unwanted(s, svc);
	return 0;
}

static void conflict(struct sync *s, struct sync_port *p, const struct wag_svc_key *key,
		     const struct sync_port *holder, bool was_waiting)
{
	if (!p->svc->waiting) {
		p->svc->waiting = true;
		DL_APPEND(s->waiters, p->svc);
		s->stats.conflicts++;
	}
	if (s->on_conflict && !was_waiting && holder && holder->svc)
		s->on_conflict(p->svc->ns, p->svc->name, key, holder->svc->ns, holder->svc->name,
			       s->conflict_ctx);
}

/* own: only what the map already shows as this port's, so that nobody loses a live frontend. */
static int claim(struct sync *s, struct sync_port *p, const struct svc_frontend *f, bool own,
		 bool was_waiting)
{
	const struct wag_svc *desired = deltamap_desired(&s->frontends, &f->key);
	const struct wag_svc *actual = deltamap_actual(&s->frontends, &f->key);
	struct wag_svc value = { .index = p->index, .flags = f->flags };

	if (desired && desired->index != p->index) {
		if (!own)
			conflict(s, p, &f->key, s->ports[desired->index], was_waiting);
		return 0;
	}
	if (own && !desired && (!actual || actual->index != p->index))
		return 0;
	return deltamap_set_desired(&s->frontends, &f->key, &value);
}

static int claim_frontends(struct sync *s, struct sync_svc *svc, bool own, bool was_waiting)
{
	for (struct sync_port *p = svc->ports; p; p = p->next) {
		for (uint32_t i = 0; i < p->want->n_frontends; i++) {
			int r = claim(s, p, &p->want->frontends[i], own, was_waiting);

			if (r < 0)
				return r;
		}
	}
	svc->planned = true;
	return 0;
}

/* Until the sweep a Service nobody has named yet may still come. */
static bool is_held(const struct sync *s, const struct sync_svc *svc)
{
	return !s->swept && !svc->table && !svc->old;
}

static void start(struct sync *s)
{
	for (size_t i = 0; i < s->n_changing; i++) { /* of a run that had to stop */
		if (s->changing[i]->new_count)
			slot_alloc_release(&s->alloc, s->changing[i]->new_base,
					   s->changing[i]->new_count);
		s->changing[i]->new_count = 0;
	}
	s->n_changing = 0;
	if (s->alloc.quarantined > s->alloc.capacity / 4)
		sync_grace(s);
	for (size_t i = 0; i < s->n_dirty; i++) {
		struct sync_svc *svc = s->dirty[i];

		if (svc->err)
			s->n_err--;
		svc->err = 0;
		release_table(s, svc);
	}
}

int sync_plan(struct sync *s)
{
	int r;

	start(s);
	for (size_t i = 0; i < s->n_dirty; i++) {
		if (is_held(s, s->dirty[i]))
			continue;
		r = plan_ports(s, s->dirty[i]);
		if (r < 0)
			return r;
	}
	for (int own = 1; own >= 0; own--) {
		for (size_t i = 0; i < s->n_dirty; i++) {
			struct sync_svc *svc = s->dirty[i];
			bool was_waiting = svc->waiting;

			if (is_held(s, svc))
				continue;
			if (!own)
				sync_stop_waiting(s, svc);
			r = claim_frontends(s, svc, own, was_waiting);
			if (r < 0)
				return r;
		}
	}
	sync_store_marks(s);
	return 0;
}
