// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "sync_batch.h"

/* ---- names: first, so that whatever comes after can be told apart by the next agent ---- */

static void name_done(struct sync *s, const void *key, const void *value, struct sync_port *p,
		      int err)
{
	if (err)
		sync_fail(s, p->svc, DP_SVC_NAME, err);
	else
		p->name_ok = true;
}

static void fill_name(const struct sync_port *p, struct wag_svc_name *name)
{
	memset(name, 0, sizeof(*name));
	name->svc_id = p->svc_id;
	name->proto = p->proto;
	name->family = p->family;
	name->node_port = p->node_port;
	memcpy(name->ns, p->svc->ns, strlen(p->svc->ns));
	memcpy(name->name, p->svc->name, strlen(p->svc->name));
	memcpy(name->port_name, p->name, strlen(p->name));
	memcpy(name->type, p->type, sizeof(name->type));
}

static int apply_names(struct sync *s)
{
	struct batch b;
	int r = sync_batch_init(&b, s, DP_SVC_NAME, false, name_done);

	for (size_t i = 0; r == 0 && i < s->n_dirty; i++) {
		for (struct sync_port *p = s->dirty[i]->ports; p; p = p->next) {
			struct wag_svc_name name;

			if (p->name_ok || !p->want)
				continue;
			fill_name(p, &name);
			sync_batch_add(&b, &p->index, &name, p);
		}
	}
	if (r == 0)
		sync_batch_flush(&b);
	sync_batch_done(&b);
	return r;
}

/* ---- backends ---- */

static void backend_key(const struct sync_port *p, const struct wag_addr *addr, __be16 port,
			struct wag_backend_key *ret)
{
	*ret = (struct wag_backend_key){
		.addr = *addr, .svc_id = p->svc_id, .port = port, .proto = p->proto
	};
}

static int slot_compare(const void *key, const void *elem)
{
	const struct wag_slot *slot = elem;
	struct svc_backend other = {
		.addr = slot->addr, .port = slot->port, .flags = slot->flags
	};

	return svc_backend_compare(key, &other);
}

/* They are sorted, unless an adopted range proved wrong. */
const struct wag_slot *sync_port_slot(const struct sync *s, const struct sync_port *p,
				      const struct wag_addr *addr, __be16 port)
{
	const struct wag_slot *slots = &s->slots[sync_port_first(p)], *found = NULL;
	struct svc_backend key = { .addr = *addr, .port = port };
	size_t n = p->published ? sync_port_backends(p) : 0;

	for (size_t i = 0; p->repair && i < n; i++)
		if (slots[i].port == port && !memcmp(&slots[i].addr, addr, sizeof(*addr)))
			return &slots[i];
	for (; !p->repair && n && !found && key.flags <= (WAG_BACKEND_LOCAL | WAG_BACKEND_CLUSTER);
	     key.flags++)
		found = bsearch(&key, slots, n, sizeof(*slots), slot_compare);
	return found;
}

static bool is_new(const struct sync *s, const struct sync_port *p, const struct svc_backend *b)
{
	const struct wag_slot *slot = sync_port_slot(s, p, &b->addr, b->port);

	return p->repair || !slot || slot->flags != b->flags;
}

static void backend_done(struct sync *s, const void *key, const void *value, struct sync_port *p,
			 int err)
{
	if (!err)
		return;
	p->failed = true;
	sync_fail(s, p->svc, DP_BACKEND, err);
}

static int apply_backends(struct sync *s)
{
	struct batch b;
	int r = sync_batch_init(&b, s, DP_BACKEND, false, backend_done);

	for (size_t i = 0; r == 0 && i < s->n_changing; i++) {
		struct sync_port *p = s->changing[i];

		if (!p->name_ok)
			p->failed = true; /* the error is the Service's already */
		for (uint32_t j = 0; !p->failed && j < p->want->n_backends; j++) {
			const struct svc_backend *want = &p->want->backends[j];
			struct wag_backend value = { .flags = want->flags };
			struct wag_backend_key key;

			if (!is_new(s, p, want))
				continue;
			backend_key(p, &want->addr, want->port, &key);
			sync_batch_add(&b, &key, &value, p);
		}
	}
	if (r == 0)
		sync_batch_flush(&b);
	sync_batch_done(&b);
	return r;
}

/* ---- slots and states ---- */

static void trash_backend(struct sync *s, const struct sync_port *p, const struct wag_addr *addr,
			  __be16 port)
{
	struct sync_trash *t = &s->trash[s->n_trash++];

	t->index = p->index;
	backend_key(p, addr, port, &t->key);
}

static int reserve_trash(struct sync *s, size_t n)
{
	return sync_reserve(&s->trash, sizeof(*s->trash), s->n_trash + n, &s->cap_trash);
}

/* The Service stays as it was; what was already added for it goes again. */
static int roll_back(struct sync *s, struct sync_port *p)
{
	uint32_t n = p->name_ok ? p->want->n_backends : 0; /* else none was tried */
	int r = reserve_trash(s, n);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < n; i++)
		trash_backend(s, p, &p->want->backends[i].addr, p->want->backends[i].port);
	if (p->new_count)
		slot_alloc_release(&s->alloc, p->new_base, p->new_count);
	p->new_count = 0;
	p->repair |= n && p->published; /* flags of those that stay may have been changed */
	return 0;
}

/* What is still a backend is found again when the trash is emptied. */
static void trash_leavers(struct sync *s, const struct sync_port *p)
{
	const struct wag_slot *slot = &s->slots[sync_port_first(p)];

	for (uint32_t i = 0; p->published && i < sync_port_backends(p); i++, slot++)
		if (!p->want || !svc_backend_find(p->want->backends, p->want->n_backends,
						  &slot->addr, slot->port))
			trash_backend(s, p, &slot->addr, slot->port);
}

static int publish(struct sync *s, struct sync_port *p)
{
	struct wag_svc_state *st = &s->states[p->index];
	uint32_t old_count = p->published ? p->count : 0;
	int r = reserve_trash(s, old_count ? p->n_backends : 0);

	if (r == 0)
		r = svc_slots_write(p->want, p->svc_id, &s->slots[p->new_base]);
	if (r < 0)
		return r;
	if (!p->published) {
		sync_store_u32(&st->affinity_s, p->want->affinity_s);
		sync_store_u32(&st->svc_id, p->svc_id);
	}
	sync_store_slots(st, WAG_SLOTS(p->new_base, p->new_count, p->want->slots_flags));
	trash_leavers(s, p);
	if (old_count) {
		slot_alloc_release(&s->alloc, p->base, old_count);
		s->stats.backends -= sync_port_backends(p);
	}
	s->freed |= old_count != 0;
	p->base = p->new_base;
	p->count = p->new_count;
	p->n_backends = p->want->n_backends;
	p->slots_flags = p->want->slots_flags;
	s->stats.backends += sync_port_backends(p);
	p->new_count = 0;
	p->published = true;
	p->repair = false;
	return 0;
}

static int apply_states(struct sync *s)
{
	for (size_t i = 0; i < s->n_changing; i++) {
		struct sync_port *p = s->changing[i];
		int r = p->failed ? roll_back(s, p) : publish(s, p);

		if (r < 0)
			return r;
	}
	s->n_changing = 0;
	for (size_t i = 0; i < s->n_dirty; i++) {
		for (struct sync_port *p = s->dirty[i]->ports; p; p = p->next) {
			struct wag_svc_state *st = &s->states[p->index];

			if (p->published && p->want && st->affinity_s != p->want->affinity_s)
				sync_store_u32(&st->affinity_s, p->want->affinity_s);
		}
	}
	return 0;
}

/* ---- frontends ---- */

static void frontend_done(struct sync *s, const void *key, const void *value, struct sync_port *p,
			  int err)
{
	const struct wag_svc *before = deltamap_actual(&s->frontends, key);

	if (err) {
		sync_fail(s, p->svc, DP_SVC, err);
		return;
	}
	if (before) {
		s->recycled = true;
		if (before->index < s->n_states && s->ports[before->index])
			s->ports[before->index]->n_frontends--;
	}
	p->n_frontends++;
	(void)deltamap_set_actual(&s->frontends, key, value); /* it has an entry: cannot fail */
}

static void frontend_gone(struct sync *s, const void *key, const void *value, struct sync_port *p,
			  int err)
{
	if (err) {
		sync_fail(s, NULL, DP_SVC, err);
		return;
	}
	s->recycled = true;
	s->freed = true;
	if (p)
		p->n_frontends--;
	deltamap_unset_actual(&s->frontends, key);
}

enum frontend_pass { INSERT, REPLACE, DELETE };

struct frontend_walk {
	struct sync *s;
	enum frontend_pass pass;
	struct frontend_change {
		struct wag_svc_key key;
		struct wag_svc value;
		struct sync_port *port;
	} *changes;
	size_t n, cap;
};

static int collect_frontend(const void *key, const void *desired, const void *actual, void *ctx)
{
	struct frontend_walk *w = ctx;
	const struct wag_svc *svc = desired ? desired : actual;
	struct sync_port *p = svc->index < w->s->n_states ? w->s->ports[svc->index] : NULL;
	int r;

	if ((desired ? (actual ? REPLACE : INSERT) : DELETE) != w->pass)
		return 0;
	/* One whose retry is not due yet, or that leads nowhere yet, waits. */
	if (desired && (!p || !p->published || (p->svc->err && !p->svc->dirty)))
		return 0;
	r = sync_reserve(&w->changes, sizeof(*w->changes), w->n + 1, &w->cap);
	if (r < 0)
		return r;
	memcpy(&w->changes[w->n].key, key, sizeof(w->changes[0].key));
	w->changes[w->n].value = *svc;
	w->changes[w->n++].port = p;
	return 0;
}

/*
 * An element of wag_svc that is freed (a delete, or the old value of a replaced one) may be read by
 * a program that is just running: it must have finished before the element is used again.
 */
static int apply_frontends(struct sync *s, enum frontend_pass pass)
{
	struct frontend_walk w = { .s = s, .pass = pass };
	struct batch b;
	int r;

	if (deltamap_pending(&s->frontends) == 0)
		return 0;
	r = deltamap_visit_pending(&s->frontends, collect_frontend, &w);
	if (r < 0 || w.n == 0) {
		free(w.changes);
		return r;
	}
	r = sync_batch_init(&b, s, DP_SVC, pass == DELETE,
		       pass == DELETE ? frontend_gone : frontend_done);
	for (size_t i = 0; r == 0 && i < w.n; i++) {
		if (pass != DELETE && s->recycled)
			sync_grace(s);
		sync_batch_add(&b, &w.changes[i].key, &w.changes[i].value, w.changes[i].port);
		if (pass == REPLACE)
			sync_batch_flush(&b);
	}
	if (r == 0)
		sync_batch_flush(&b);
	sync_batch_done(&b);
	free(w.changes);
	return r;
}

/* ---- what is no longer wanted ---- */

static int free_doomed(struct sync *s)
{
	struct sync_port **at = &s->doomed;

	while (*at) {
		struct sync_port *p = *at;
		struct wag_svc_state *st = &s->states[p->index];
		uint32_t count = p->published ? p->count : 0;
		int r = reserve_trash(s, count);

		if (r < 0)
			return r;
		if (p->n_frontends) { /* a delete failed: not yet */
			at = &p->next;
			continue;
		}
		*at = p->next;
		sync_store_slots(st, 0);
		sync_store_u32(&st->svc_id, 0);
		sync_store_u32(&st->affinity_s, 0);
		p->want = NULL;
		trash_leavers(s, p);
		if (count) {
			slot_alloc_release(&s->alloc, p->base, count);
			s->stats.backends -= sync_port_backends(p);
		}
		s->stats.ports--;
		s->ports[p->index] = NULL;
		s->dead_indices[s->n_dead_indices++] = p->index;
		free(p);
	}
	return 0;
}

static void trash_done(struct sync *s, const void *key, const void *value, struct sync_port *owner,
		       int err)
{
	struct sync_trash *t;

	if (!err) {
		if (s->on_gone)
			s->on_gone(key, s->gone_ctx);
		return;
	}
	sync_fail(s, NULL, DP_BACKEND, err);
	t = &s->trash[s->n_trash++]; /* behind what is being read: see empty_trash() */
	memcpy(&t->key, key, sizeof(t->key));
	owner = sync_port_by_id(s, t->key.svc_id);
	t->index = owner ? owner->index : 0;
}

static bool is_backend_again(const struct sync *s, const struct sync_trash *t)
{
	const struct sync_port *p = s->ports[t->index];

	return p && p->svc_id == t->key.svc_id &&
	       sync_port_slot(s, p, &t->key.addr, t->key.port);
}

static int empty_trash(struct sync *s)
{
	size_t n = s->n_trash;
	struct batch b;
	int r;

	if (n == 0)
		return 0;
	r = sync_batch_init(&b, s, DP_BACKEND, true, trash_done);
	if (r == 0)
		s->n_trash = 0; /* a failed one is put back, never beyond what has been read */
	for (size_t i = 0; r == 0 && i < n; i++) {
		struct sync_trash t = s->trash[i];

		if (!is_backend_again(s, &t))
			sync_batch_add(&b, &t.key, NULL, s->ports[t.index]);
	}
	if (r == 0)
		sync_batch_flush(&b);
	sync_batch_done(&b);
	return r;
}

static void name_gone(struct sync *s, const void *key, const void *value, struct sync_port *owner,
		      int err)
{
	uint32_t index;

	memcpy(&index, key, sizeof(index));
	if (err) {
		sync_fail(s, NULL, DP_SVC_NAME, err);
		s->dead_indices[s->n_dead_indices++] = index;
	} else {
		s->old_indices[s->n_old_indices++] = index;
		s->freed = true;
	}
}

static int drop_names(struct sync *s)
{
	uint32_t n = s->n_dead_indices;
	struct batch b;
	int r;

	if (n == 0)
		return 0;
	r = sync_batch_init(&b, s, DP_SVC_NAME, true, name_gone);
	if (r == 0)
		s->n_dead_indices = 0;
	for (uint32_t i = 0; r == 0 && i < n; i++)
		sync_batch_add(&b, &s->dead_indices[i], NULL, NULL);
	if (r == 0)
		sync_batch_flush(&b);
	sync_batch_done(&b);
	return r;
}

int sync_apply(struct sync *s)
{
	int r;

	r = apply_names(s);
	if (r == 0)
		r = apply_backends(s);
	if (r == 0)
		r = sync_apply_ranges(s, false);
	if (r == 0)
		r = apply_states(s);
	if (r == 0)
		r = apply_frontends(s, INSERT);
	if (r == 0)
		r = apply_frontends(s, REPLACE);
	if (r < 0 || !s->swept)
		return r;
	r = apply_frontends(s, DELETE);
	if (r == 0)
		r = sync_apply_ranges(s, true);
	if (r == 0)
		r = free_doomed(s);
	if (r == 0)
		r = empty_trash(s);
	if (r == 0)
		r = drop_names(s);
	return r;
}

/* ---- the node's addresses ---- */

static void addr_done(struct sync *s, const void *key, const void *value, struct sync_port *owner,
		      int err)
{
	if (err)
		sync_fail(s, NULL, DP_NODE_ADDR, err);
	else
		(void)deltamap_set_actual(&s->node_addrs, key, value);
}

static void addr_gone(struct sync *s, const void *key, const void *value, struct sync_port *owner,
		      int err)
{
	if (err)
		sync_fail(s, NULL, DP_NODE_ADDR, err);
	else
		deltamap_unset_actual(&s->node_addrs, key);
}

struct addr_walk {
	struct batch *updates, *deletes;
};

static int collect_addr(const void *key, const void *desired, const void *actual, void *ctx)
{
	struct addr_walk *w = ctx;
	struct batch *b = desired ? w->updates : w->deletes;

	if (b->n + 1 < b->max) /* the rest at the next run */
		sync_batch_add(b, key, desired, NULL);
	return 0;
}

int sync_apply_node_addrs(struct sync *s)
{
	struct batch updates, deletes = { 0 };
	struct addr_walk w = { &updates, &deletes };
	int r;

	if (deltamap_pending(&s->node_addrs) == 0)
		return 0;
	r = sync_batch_init(&updates, s, DP_NODE_ADDR, false, addr_done);
	if (r == 0)
		r = sync_batch_init(&deletes, s, DP_NODE_ADDR, true, addr_gone);
	if (r == 0) {
		deltamap_visit_pending(&s->node_addrs, collect_addr, &w);
		sync_batch_flush(&updates);
		sync_batch_flush(&deletes);
	}
	sync_batch_done(&updates);
	sync_batch_done(&deletes);
	return r;
}
