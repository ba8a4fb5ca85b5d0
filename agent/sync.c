// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <waggle/cleanup.h>
#include "sync_internal.h"

#define BACKOFF_MIN_MS 50
#define BACKOFF_MAX_MS 5000

int sync_reserve(void *list, size_t size, size_t want, size_t *cap)
{
	void **array = list, *bigger;
	size_t n = *cap ? *cap : 32;

	if (want <= *cap)
		return 0;
	while (n < want)
		n *= 2;
	bigger = realloc(*array, n * size);
	if (!bigger)
		return -ENOMEM;
	*array = bigger;
	*cap = n;
	return 0;
}

int sync_new(struct dataplane *dp, struct sync **ret)
{
	_cleanup_(sync_freep) struct sync *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->dp = dp;
	s->states = dataplane_svc_state(dp, &s->n_states);
	s->slots = dataplane_slots(dp, &s->n_slots);
	if (!s->states || !s->slots || s->n_states < 2 || s->n_slots > UINT32_MAX)
		return -EINVAL;
	s->ports = calloc(s->n_states, sizeof(*s->ports));
	s->free_indices = calloc(s->n_states, sizeof(uint32_t));
	s->old_indices = calloc(s->n_states, sizeof(uint32_t));
	s->dead_indices = calloc(s->n_states, sizeof(uint32_t));
	if (!s->ports || !s->free_indices || !s->old_indices || !s->dead_indices)
		return -ENOMEM;
	s->next_index = 1;
	s->next_svc_id = 1;
	r = deltamap_init(&s->frontends, sizeof(struct wag_svc_key), sizeof(struct wag_svc));
	if (r < 0)
		return r;
	r = deltamap_init(&s->ranges, sizeof(struct wag_src_range_key),
			  sizeof(struct wag_src_range));
	if (r < 0)
		return r;
	r = deltamap_init(&s->node_addrs, sizeof(struct wag_addr), sizeof(struct wag_node_addr));
	if (r < 0)
		return r;
	*ret = TAKE_PTR(s);
	return 0;
}

static void free_ports(struct sync_port *p)
{
	while (p) {
		struct sync_port *next = p->next;

		free(p);
		p = next;
	}
}

static void svc_free(struct sync_svc *svc)
{
	free_ports(svc->ports);
	free(svc->table);
	free(svc->old);
	free(svc);
}

void sync_free(struct sync *s)
{
	struct sync_svc *svc, *tmp;

	if (!s)
		return;
	HASH_ITER(hh, s->svcs, svc, tmp) {
		HASH_DEL(s->svcs, svc);
		svc_free(svc);
	}
	free_ports(s->doomed);
	slot_alloc_done(&s->alloc);
	deltamap_done(&s->frontends);
	deltamap_done(&s->ranges);
	deltamap_done(&s->node_addrs);
	free(s->ports);
	free(s->free_indices);
	free(s->old_indices);
	free(s->dead_indices);
	free(s->dirty);
	free(s->changing);
	free(s->trash);
	free(s);
}

void sync_freep(struct sync **s)
{
	sync_free(*s);
}

static struct sync_svc *find(struct sync *s, const char *key, size_t len)
{
	struct sync_svc *svc;

	HASH_FIND(hh, s->svcs, key, len, svc);
	return svc;
}

static size_t make_key(char *buf, size_t size, const char *ns, const char *name)
{
	size_t a = strlen(ns) + 1, b = strlen(name) + 1;

	if (a > sizeof(((struct wag_svc_name *)0)->ns) ||
	    b > sizeof(((struct wag_svc_name *)0)->name) || a + b > size)
		return 0;
	memcpy(buf, ns, a);
	memcpy(buf + a, name, b);
	return a + b;
}

struct sync_svc *sync_svc_get(struct sync *s, const char *ns, const char *name)
{
	struct sync_svc *svc;
	char key[256];
	size_t len = make_key(key, sizeof(key), ns, name);

	svc = find(s, key, len);
	if (svc)
		return svc;
	svc = calloc(1, sizeof(*svc) + len);
	if (!svc)
		return NULL;
	memcpy(svc->ns, key, len);
	svc->name = svc->ns + strlen(ns) + 1;
	HASH_ADD_KEYPTR(hh, s->svcs, svc->ns, len, svc);
	if (!svc->hh.tbl) {
		free(svc);
		return NULL;
	}
	return svc;
}

struct sync_port *sync_port_new(const char *name, uint8_t proto, uint8_t family)
{
	size_t len = strlen(name) + 1;
	struct sync_port *p = calloc(1, sizeof(*p) + len);

	if (!p)
		return NULL;
	p->proto = proto;
	p->family = family;
	memcpy(p->name, name, len);
	return p;
}

int sync_mark_dirty(struct sync *s, struct sync_svc *svc)
{
	int r;

	if (svc->dirty)
		return 0;
	r = sync_reserve(&s->dirty, sizeof(*s->dirty), s->n_dirty + 1, &s->cap_dirty);
	if (r < 0)
		return r;
	svc->dirty = true;
	s->dirty[s->n_dirty++] = svc;
	return 0;
}

static bool names_fit(const struct svc_table *table)
{
	for (uint32_t i = 0; table && i < table->n_ports; i++)
		if (strlen(table->ports[i].name) >= sizeof(((struct wag_svc_name *)0)->port_name) ||
		    table->ports[i].n_backends >= UINT16_MAX)
			return false;
	return true;
}

static void count_no_local(struct sync *s, const struct svc_table *table, int sign)
{
	for (uint32_t i = 0; table && i < table->n_ports; i++) {
		s->stats.no_local_internal += sign * table->ports[i].no_local_internal;
		s->stats.no_local_external += sign * table->ports[i].no_local_external;
	}
}

const struct svc_table *sync_get_service(struct sync *s, const char *ns, const char *name)
{
	struct sync_svc *svc;
	char key[256];
	size_t len = make_key(key, sizeof(key), ns, name);

	svc = len ? find(s, key, len) : NULL;
	return svc ? svc->table : NULL;
}

int sync_set_service(struct sync *s, const char *ns, const char *name, struct svc_table *table)
{
	_cleanup_free_ struct svc_table *mine = table;
	struct sync_svc *svc;
	char key[256];
	size_t len = make_key(key, sizeof(key), ns, name);

	if (len == 0 || !names_fit(table))
		return -ENAMETOOLONG;
	svc = find(s, key, len);
	if (!svc && !table)
		return 0;
	if (svc && (svc->planned || svc->table) && svc_table_equal(svc->table, table))
		return 0;
	if (!svc)
		svc = sync_svc_get(s, ns, name);
	if (!svc || sync_mark_dirty(s, svc) < 0)
		return -ENOMEM;
	s->stats.services += !!table - !!svc->table;
	count_no_local(s, svc->table, -1);
	count_no_local(s, table, 1);
	if (svc->planned)
		svc->old = svc->table;
	else
		free(svc->table);
	svc->planned = false;
	svc->table = TAKE_PTR(mine);
	return 1;
}

void sync_sweep(struct sync *s)
{
	struct sync_svc *svc, *tmp;

	if (s->swept)
		return;
	s->swept = true;
	s->retry_at_ms = 0; /* what was held back is due */
	HASH_ITER(hh, s->svcs, svc, tmp)
		if (!svc->table && sync_mark_dirty(s, svc) < 0)
			s->swept = false;
}

bool sync_swept(const struct sync *s)
{
	return s->swept;
}

struct leaving {
	const struct deltamap *fresh;
	struct wag_addr *addrs;
	size_t n;
};

static int collect_leaving(const void *key, const void *desired, const void *actual, void *ctx)
{
	struct leaving *l = ctx;

	if (desired && !deltamap_desired(l->fresh, key))
		memcpy(&l->addrs[l->n++], key, sizeof(l->addrs[0]));
	return 0;
}

int sync_set_node_addrs(struct sync *s, const struct sync_node_addr *addrs, size_t n)
{
	_cleanup_free_ struct wag_addr *gone = calloc(s->node_addrs.n_desired + 1, sizeof(*gone));
	struct deltamap fresh;
	struct leaving l = { .fresh = &fresh, .addrs = gone };
	int r = 0;

	if (!gone)
		return -ENOMEM;
	deltamap_init(&fresh, sizeof(struct wag_addr), sizeof(struct wag_node_addr));
	for (size_t i = 0; i < n && r == 0; i++)
		r = deltamap_set_desired(&fresh, &addrs[i].addr, &addrs[i].value);
	if (r == 0)
		deltamap_visit(&s->node_addrs, collect_leaving, &l);
	for (size_t i = 0; i < n && r == 0; i++)
		r = deltamap_set_desired(&s->node_addrs, &addrs[i].addr, &addrs[i].value);
	for (size_t i = 0; i < l.n && r == 0; i++)
		deltamap_unset_desired(&s->node_addrs, &gone[i]);
	deltamap_done(&fresh);
	return r;
}

void sync_fail(struct sync *s, struct sync_svc *svc, unsigned map, int err)
{
	if (!svc) {
		s->left_err = -err;
		s->left_map = map;
		return;
	}
	if (!svc->err)
		s->n_err++;
	svc->err = -err;
	svc->err_map = map;
}

void sync_grace(struct sync *s)
{
	dataplane_grace(s->dp);
	s->stats.graces++;
	slot_alloc_reclaim(&s->alloc);
	memcpy(s->free_indices + s->n_free_indices, s->old_indices,
	       s->n_old_indices * sizeof(*s->old_indices));
	s->n_free_indices += s->n_old_indices;
	s->n_old_indices = 0;
	s->recycled = false;
}

static bool leftovers(const struct sync *s)
{
	return s->left_err || deltamap_pending(&s->node_addrs) ||
	       (s->swept && (s->n_trash || s->n_dead_indices || s->doomed ||
			     deltamap_pending(&s->frontends) || deltamap_pending(&s->ranges)));
}

/* Services that wait for a frontend are looked at with every change: whoever held it may go. */
static int collect(struct sync *s, bool due)
{
	struct sync_svc *svc, *tmp;

	for (svc = s->n_dirty ? s->waiters : NULL; svc; svc = svc->next)
		if (sync_mark_dirty(s, svc) < 0)
			return -ENOMEM;
	if (!due || s->n_err == 0)
		return 0;
	HASH_ITER(hh, s->svcs, svc, tmp)
		if (svc->err && sync_mark_dirty(s, svc) < 0)
			return -ENOMEM;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	const struct sync_svc *const *x = a, *const *y = b;
	int r = strcmp((*x)->ns, (*y)->ns);

	return r ? r : strcmp((*x)->name, (*y)->name);
}

void sync_stop_waiting(struct sync *s, struct sync_svc *svc)
{
	if (!svc->waiting)
		return;
	svc->waiting = false;
	DL_DELETE(s->waiters, svc);
	s->stats.conflicts--;
}

/* Nothing is dirty any more; Services of which nothing is left go. */
static void settle(struct sync *s)
{
	for (size_t i = 0; i < s->n_dirty; i++) {
		struct sync_svc *svc = s->dirty[i];

		svc->dirty = false;
		if (svc->table || svc->ports || svc->err)
			continue;
		sync_stop_waiting(s, svc);
		HASH_DEL(s->svcs, svc);
		svc_free(svc);
	}
	s->n_dirty = 0;
}

static void schedule(struct sync *s, uint64_t now_ms)
{
	if (sync_pending(s) == 0 || s->freed) {
		s->backoff_ms = 0;
	} else {
		s->backoff_ms = s->backoff_ms ? s->backoff_ms * 2 : BACKOFF_MIN_MS;
		if (s->backoff_ms > BACKOFF_MAX_MS)
			s->backoff_ms = BACKOFF_MAX_MS;
	}
	s->retry_at_ms = now_ms + s->backoff_ms;
}

static void count_run(struct sync *s, const struct timespec *from)
{
	unsigned bucket = 0;
	struct timespec to;
	uint64_t ns;

	clock_gettime(CLOCK_MONOTONIC, &to);
	ns = (to.tv_sec - from->tv_sec) * 1000000000ULL + to.tv_nsec - from->tv_nsec;
	while (bucket < SYNC_BUCKETS - 1 && ns > 250000ULL << bucket)
		bucket++;
	s->stats.runs++;
	s->stats.run_ns += ns;
	s->stats.buckets[bucket]++;
}

int sync_run(struct sync *s, uint64_t now_ms)
{
	bool due = now_ms >= s->retry_at_ms;
	struct timespec from;
	int r;

	r = collect(s, due);
	if (r < 0)
		return r;
	if (s->n_dirty == 0 && !(due && leftovers(s)) && !deltamap_pending(&s->node_addrs))
		return 0;
	clock_gettime(CLOCK_MONOTONIC, &from);
	s->freed = false;
	s->left_err = 0;
	if (s->n_dirty)
		qsort(s->dirty, s->n_dirty, sizeof(*s->dirty), by_name);
	r = sync_plan(s);
	if (r == 0)
		r = sync_apply(s);
	if (r == 0)
		r = sync_apply_node_addrs(s);
	if (r < 0)
		return r;
	settle(s);
	schedule(s, now_ms);
	count_run(s, &from);
	return 0;
}

size_t sync_pending(const struct sync *s)
{
	return s->n_err + (s->left_err != 0);
}

int sync_retry_ms(const struct sync *s, uint64_t now_ms)
{
	if (sync_pending(s) == 0)
		return -1;
	return now_ms >= s->retry_at_ms ? 0 : (int)(s->retry_at_ms - now_ms);
}

static const char *map_name(unsigned map)
{
	switch (map) {
	case SYNC_MAP_STATE:
		return "wag_svc_state";
	case SYNC_MAP_SLOT:
		return "wag_slot";
	case SYNC_MAP_NONE:
		return "memory";
	default:
		return dataplane_table_name(map);
	}
}

void sync_visit_pending(const struct sync *s, sync_pending_fn fn, void *ctx)
{
	struct sync_svc *svc, *tmp;

	if (s->left_err)
		fn("", "", map_name(s->left_map), s->left_err, ctx);
	if (s->n_err == 0)
		return;
	HASH_ITER(hh, s->svcs, svc, tmp)
		if (svc->err)
			fn(svc->ns, svc->name, map_name(svc->err_map), svc->err, ctx);
}

void sync_on_conflict(struct sync *s, sync_conflict_fn fn, void *ctx)
{
	s->on_conflict = fn;
	s->conflict_ctx = ctx;
}

void sync_on_backend_gone(struct sync *s, sync_gone_fn fn, void *ctx)
{
	s->on_gone = fn;
	s->gone_ctx = ctx;
}

void sync_get_stats(const struct sync *s, struct sync_stats *ret)
{
	*ret = s->stats;
	ret->frontends = s->frontends.n_actual;
	ret->slots_used = s->alloc.used;
	ret->slots_quarantined = s->alloc.quarantined;
	ret->slots_capacity = s->n_slots;
}
