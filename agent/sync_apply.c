// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "sync_internal.h"

/* One table's operations collected into packed arrays, each with the port it is for. */
struct batch;
typedef void (*batch_done_fn)(struct sync *s, const void *key, const void *value,
			      struct sync_port *owner, int err);

struct batch {
	struct sync *s;
	enum dp_table table;
	bool deletes;
	batch_done_fn done; /* told about each operation, err 0 or -errno; may be NULL */
	size_t key_size, value_size, n, max;
	unsigned char *keys, *values;
	struct sync_port **owners;
};

static void batch_done(struct batch *b)
{
	free(b->keys);
	free(b->values);
	free(b->owners);
}

static int batch_init(struct batch *b, struct sync *s, enum dp_table table, bool deletes,
		      batch_done_fn done)
{
	size_t max = table == DP_SVC_NAME ? 512 : 4096;

	*b = (struct batch){
		.s = s,
		.table = table,
		.deletes = deletes,
		.done = done,
		.key_size = dataplane_key_size(table),
		.value_size = dataplane_value_size(table),
		.max = max,
	};
	b->keys = malloc(max * b->key_size);
	b->values = malloc(max * b->value_size);
	b->owners = malloc(max * sizeof(*b->owners));
	return b->keys && b->values && b->owners ? 0 : -ENOMEM;
}

static void batch_report(struct batch *b, size_t i, int err)
{
	struct sync_stats *st = &b->s->stats;

	if (b->deletes)
		(err ? st->failed_deletes : st->deletes)[b->table]++;
	else
		(err ? st->failed_updates : st->updates)[b->table]++;
	if (b->done)
		b->done(b->s, b->keys + i * b->key_size, b->values + i * b->value_size,
			b->owners[i], err);
}

/* An operation that fails does not hold up those behind it. */
static void batch_flush(struct batch *b)
{
	size_t at = 0;

	while (at < b->n) {
		const void *keys = b->keys + at * b->key_size;
		size_t n = 0;
		int r;

		if (b->deletes)
			r = dataplane_delete(b->s->dp, b->table, keys, b->n - at, &n);
		else
			r = dataplane_update(b->s->dp, b->table, keys,
					     b->values + at * b->value_size, b->n - at, &n);
		if (r == 0)
			n = b->n - at;
		for (size_t i = 0; i < n; i++)
			batch_report(b, at + i, 0);
		at += n;
		if (r < 0 && at < b->n)
			batch_report(b, at++, r);
	}
	b->n = 0;
}

static void batch_add(struct batch *b, const void *key, const void *value, struct sync_port *owner)
{
	memcpy(b->keys + b->n * b->key_size, key, b->key_size);
	if (value)
		memcpy(b->values + b->n * b->value_size, value, b->value_size);
	b->owners[b->n] = owner;
	if (++b->n == b->max)
		batch_flush(b);
}

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
	int r = batch_init(&b, s, DP_SVC_NAME, false, name_done);

	for (size_t i = 0; r == 0 && i < s->n_dirty; i++) {
		for (struct sync_port *p = s->dirty[i]->ports; p; p = p->next) {
			struct wag_svc_name name;

			if (p->name_ok || !p->want)
				continue;
			fill_name(p, &name);
			batch_add(&b, &p->index, &name, p);
		}
	}
	if (r == 0)
		batch_flush(&b);
	batch_done(&b);
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

static int slot_compare(const struct wag_slot *slot, const struct svc_backend *b)
{
	struct svc_backend other = { .addr = slot->addr, .port = slot->port };

	return svc_backend_compare(&other, b);
}

/* Is it among the published slots? They are sorted, unless an adopted range proved wrong. */
bool sync_port_has(const struct sync *s, const struct sync_port *p, const struct svc_backend *b,
		   uint16_t *ret_flags)
{
	uint32_t lo = 0, hi = p->published ? p->count : 0;

	while (lo < hi) {
		uint32_t mid = p->repair ? lo : lo + (hi - lo) / 2;
		int r = slot_compare(&s->slots[p->base + mid], b);

		if (r == 0) {
			if (ret_flags)
				*ret_flags = s->slots[p->base + mid].flags;
			return true;
		}
		if (r < 0 || p->repair)
			lo = mid + 1;
		else
			hi = mid;
	}
	return false;
}

static bool is_new(const struct sync *s, const struct sync_port *p, const struct svc_backend *b)
{
	uint16_t flags;

	return p->repair || !sync_port_has(s, p, b, &flags) || flags != b->flags;
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
	int r = batch_init(&b, s, DP_BACKEND, false, backend_done);

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
			batch_add(&b, &key, &value, p);
		}
	}
	if (r == 0)
		batch_flush(&b);
	batch_done(&b);
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

static void trash_slot(struct sync *s, const struct sync_port *p, const struct wag_slot *slot)
{
	trash_backend(s, p, &slot->addr, slot->port);
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
	return 0;
}

static void write_slots(struct sync *s, const struct sync_port *p)
{
	for (uint32_t i = 0; i < p->want->n_backends; i++) {
		const struct svc_backend *b = &p->want->backends[i];

		s->slots[p->new_base + i] = (struct wag_slot){
			.addr = b->addr, .port = b->port, .flags = b->flags, .svc_id = p->svc_id
		};
	}
}

static int publish(struct sync *s, struct sync_port *p)
{
	struct wag_svc_state *st = &s->states[p->index];
	uint32_t old_base = p->base, old_count = p->published ? p->count : 0;
	int r = reserve_trash(s, old_count);

	if (r < 0)
		return r;
	write_slots(s, p);
	if (!p->published) {
		sync_store_u32(&st->affinity_s, p->want->affinity_s);
		sync_store_u32(&st->svc_id, p->svc_id);
	}
	sync_store_slots(st, WAG_SLOTS(p->new_base, p->new_count, 0));
	/* What is still a backend is found again when the trash is emptied. */
	for (uint32_t i = 0; i < old_count; i++) {
		const struct wag_slot *slot = &s->slots[old_base + i];
		struct svc_backend key = { .addr = slot->addr, .port = slot->port };

		if (!p->want->n_backends ||
		    !bsearch(&key, p->want->backends, p->want->n_backends, sizeof(key),
			     svc_backend_compare))
			trash_slot(s, p, slot);
	}
	if (old_count)
		slot_alloc_release(&s->alloc, old_base, old_count);
	s->freed |= old_count != 0;
	s->stats.backends += p->new_count - (size_t)old_count;
	p->base = p->new_base;
	p->count = p->new_count;
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
	r = batch_init(&b, s, DP_SVC, pass == DELETE,
		       pass == DELETE ? frontend_gone : frontend_done);
	for (size_t i = 0; r == 0 && i < w.n; i++) {
		if (pass != DELETE && s->recycled)
			sync_grace(s);
		batch_add(&b, &w.changes[i].key, &w.changes[i].value, w.changes[i].port);
		if (pass == REPLACE)
			batch_flush(&b);
	}
	if (r == 0)
		batch_flush(&b);
	batch_done(&b);
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
		for (uint32_t i = 0; i < count; i++)
			trash_slot(s, p, &s->slots[p->base + i]);
		if (count)
			slot_alloc_release(&s->alloc, p->base, count);
		s->stats.backends -= count;
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

	if (!err)
		return;
	sync_fail(s, NULL, DP_BACKEND, err);
	t = &s->trash[s->n_trash++]; /* behind what is being read: see empty_trash() */
	memcpy(&t->key, key, sizeof(t->key));
	t->index = 0;
	for (uint32_t i = 1; i < s->next_index; i++)
		if (s->ports[i] && s->ports[i]->svc_id == t->key.svc_id)
			t->index = i;
}

static bool is_backend_again(const struct sync *s, const struct sync_trash *t)
{
	const struct sync_port *p = s->ports[t->index];
	struct svc_backend b = { .addr = t->key.addr, .port = t->key.port };

	return p && p->svc_id == t->key.svc_id && sync_port_has(s, p, &b, NULL);
}

static int empty_trash(struct sync *s)
{
	size_t n = s->n_trash;
	struct batch b;
	int r;

	if (n == 0)
		return 0;
	r = batch_init(&b, s, DP_BACKEND, true, trash_done);
	if (r == 0)
		s->n_trash = 0; /* a failed one is put back, never beyond what has been read */
	for (size_t i = 0; r == 0 && i < n; i++) {
		struct sync_trash t = s->trash[i];

		if (!is_backend_again(s, &t))
			batch_add(&b, &t.key, NULL, s->ports[t.index]);
	}
	if (r == 0)
		batch_flush(&b);
	batch_done(&b);
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
	r = batch_init(&b, s, DP_SVC_NAME, true, name_gone);
	if (r == 0)
		s->n_dead_indices = 0;
	for (uint32_t i = 0; r == 0 && i < n; i++)
		batch_add(&b, &s->dead_indices[i], NULL, NULL);
	if (r == 0)
		batch_flush(&b);
	batch_done(&b);
	return r;
}

int sync_apply(struct sync *s)
{
	int r;

	r = apply_names(s);
	if (r == 0)
		r = apply_backends(s);
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
		batch_add(b, key, desired, NULL);
	return 0;
}

int sync_apply_node_addrs(struct sync *s)
{
	struct batch updates, deletes = { 0 };
	struct addr_walk w = { &updates, &deletes };
	int r;

	if (deltamap_pending(&s->node_addrs) == 0)
		return 0;
	r = batch_init(&updates, s, DP_NODE_ADDR, false, addr_done);
	if (r == 0)
		r = batch_init(&deletes, s, DP_NODE_ADDR, true, addr_gone);
	if (r == 0) {
		deltamap_visit_pending(&s->node_addrs, collect_addr, &w);
		batch_flush(&updates);
		batch_flush(&deletes);
	}
	batch_done(&updates);
	batch_done(&deletes);
	return r;
}
