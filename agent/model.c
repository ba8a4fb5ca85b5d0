// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <uthash.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "addr_index.h"
#include "ns_index.h"
#include "object.h"

#define KEY_MAX 1024 /* "ns\0name": Kubernetes allows 63 + 253 */

struct svc_ref;

struct entry {
	struct object *obj;  /* packed */
	uint64_t generation; /* of the relist that saw it last */
	struct svc_ref *svc; /* slices: the Service they belong to */
	struct entry *svc_next, *svc_prev;
	UT_hash_handle hh;
};

/* Everything known about one Service name: its slices, and whether it waits for the compiler. */
struct svc_ref {
	struct entry *slices;
	struct svc_ref *dirty_next, *dirty_prev;
	bool dirty;
	UT_hash_handle hh;
	size_t key_len;
	char key[]; /* "ns\0name" */
};

struct model {
	struct entry *kinds[MODEL_KINDS];
	uint64_t generation[MODEL_KINDS];
	bool relisting[MODEL_KINDS];
	bool synced[MODEL_KINDS];
	bool dirty[MODEL_KINDS]; /* not Services and slices */
	uint64_t changes[MODEL_KINDS];
	struct ns_index namespaces;
	struct svc_ref *services;
	struct svc_ref *dirty_head, *dirty_tail;
	struct addr_index addrs;
	/* addrs and the objects it leads to change under it: names are asked from another thread */
	pthread_mutex_t names_lock;
	void (*on_dirty)(void *ctx);
	void *on_dirty_ctx;
	model_change_fn on_change;
	void *on_change_ctx;
};

static int make_key(char buf[KEY_MAX], const char *ns, const char *name, size_t *ret_len)
{
	size_t ns_len = strlen(ns), name_len = strlen(name);

	if (ns_len + name_len + 2 > KEY_MAX)
		return -ENAMETOOLONG;
	memcpy(buf, ns, ns_len + 1);
	memcpy(buf + ns_len + 1, name, name_len + 1);
	*ret_len = ns_len + 1 + name_len;
	return 0;
}

static bool model_is_dirty(const struct model *m)
{
	for (int k = 0; k < MODEL_KINDS; k++) {
		if (m->dirty[k])
			return true;
	}
	return m->dirty_head;
}

static void tell_dirty(struct model *m, bool was_dirty)
{
	if (!was_dirty && m->on_dirty)
		m->on_dirty(m->on_dirty_ctx);
}

static struct svc_ref *svc_find(const struct model *m, const char *ns, const char *name)
{
	struct svc_ref *ref = NULL;
	char key[KEY_MAX];
	size_t len;

	if (make_key(key, ns, name, &len) == 0)
		HASH_FIND(hh, m->services, key, len, ref);
	return ref;
}

static int svc_get(struct model *m, const char *ns, const char *name, struct svc_ref **ret)
{
	struct svc_ref *ref;
	char key[KEY_MAX];
	size_t len;
	int r;

	r = make_key(key, ns, name, &len);
	if (r < 0)
		return r;
	HASH_FIND(hh, m->services, key, len, ref);
	if (!ref) {
		ref = calloc(1, sizeof(*ref) + len + 1);
		if (!ref)
			return -ENOMEM;
		memcpy(ref->key, key, len + 1);
		ref->key_len = len;
		HASH_ADD_KEYPTR(hh, m->services, ref->key, len, ref);
	}
	*ret = ref;
	return 0;
}

static void svc_put(struct model *m, struct svc_ref *ref)
{
	if (ref->slices || ref->dirty)
		return;
	HASH_DEL(m->services, ref);
	free(ref);
}

static void svc_mark(struct model *m, struct svc_ref *ref)
{
	if (ref->dirty)
		return;
	ref->dirty = true;
	ref->dirty_prev = m->dirty_tail;
	ref->dirty_next = NULL;
	if (m->dirty_tail)
		m->dirty_tail->dirty_next = ref;
	else
		m->dirty_head = ref;
	m->dirty_tail = ref;
}

static void svc_unmark(struct model *m, struct svc_ref *ref)
{
	if (ref->dirty_prev)
		ref->dirty_prev->dirty_next = ref->dirty_next;
	else
		m->dirty_head = ref->dirty_next;
	if (ref->dirty_next)
		ref->dirty_next->dirty_prev = ref->dirty_prev;
	else
		m->dirty_tail = ref->dirty_prev;
	ref->dirty_next = ref->dirty_prev = NULL;
	ref->dirty = false;
}

static void slice_unlink(struct model *m, struct entry *e)
{
	struct svc_ref *ref = e->svc;

	if (!ref)
		return;
	if (e->svc_prev)
		e->svc_prev->svc_next = e->svc_next;
	else
		ref->slices = e->svc_next;
	if (e->svc_next)
		e->svc_next->svc_prev = e->svc_prev;
	e->svc = NULL;
	e->svc_next = e->svc_prev = NULL;
	svc_mark(m, ref);
}

static void slice_link(struct model *m, struct entry *e, struct svc_ref *ref)
{
	e->svc = ref;
	e->svc_prev = NULL;
	e->svc_next = ref->slices;
	if (ref->slices)
		ref->slices->svc_prev = e;
	ref->slices = e;
	svc_mark(m, ref);
}

static struct entry *entry_find(const struct model *m, enum model_kind kind, const char *ns,
				const char *name)
{
	struct entry *e = NULL;
	char key[KEY_MAX];
	size_t len;

	if (kind < MODEL_KINDS && make_key(key, ns, name, &len) == 0)
		HASH_FIND(hh, m->kinds[kind], key, len, e);
	return e;
}

/* Takes e's object out of the indexes; what it touched is marked. */
static void entry_detach(struct model *m, struct entry *e)
{
	struct svc_ref *ref;

	addr_index_change(&m->addrs, e->obj, false);
	ns_index_change(&m->namespaces, e->obj, false);
	if (m->on_change)
		m->on_change(e->obj, true, m->on_change_ctx);
	m->changes[e->obj->kind]++;
	HASH_DEL(m->kinds[e->obj->kind], e);
	if (e->obj->kind == MODEL_SLICE) {
		slice_unlink(m, e);
	} else if (e->obj->kind == MODEL_SERVICE) {
		/* A failure can only be memory, and then the next full compile still sees it. */
		if (svc_get(m, e->obj->ns, e->obj->name, &ref) == 0)
			svc_mark(m, ref);
	} else {
		m->dirty[e->obj->kind] = true;
	}
}

static int entry_attach(struct model *m, struct entry *e)
{
	const struct object *obj = e->obj;
	struct svc_ref *ref = NULL;
	const char *svc_name = NULL;
	int r;

	if (obj->kind == MODEL_SLICE)
		svc_name = obj->slice.service;
	else if (obj->kind == MODEL_SERVICE)
		svc_name = obj->name;
	if (svc_name) {
		r = svc_get(m, obj->ns, svc_name, &ref);
		if (r < 0)
			return r;
	}
	r = addr_index_change(&m->addrs, obj, true);
	if (r == 0)
		r = ns_index_change(&m->namespaces, obj, true);
	if (r < 0) {
		addr_index_change(&m->addrs, e->obj, false);
		if (ref)
			svc_put(m, ref);
		return r;
	}
	m->changes[obj->kind]++;
	HASH_ADD_KEYPTR(hh, m->kinds[obj->kind], obj->ns, strlen(obj->ns) + 1 + strlen(obj->name),
			e);
	if (obj->kind == MODEL_SLICE && ref)
		slice_link(m, e, ref);
	else if (ref)
		svc_mark(m, ref);
	else if (obj->kind != MODEL_SLICE)
		m->dirty[obj->kind] = true;
	if (m->on_change)
		m->on_change(obj, false, m->on_change_ctx);
	return 0;
}

static void entry_free(struct entry *e)
{
	object_free(e->obj);
	free(e);
}

int model_new(struct model **ret)
{
	struct model *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	pthread_mutex_init(&m->names_lock, NULL);
	*ret = m;
	return 0;
}

void model_free(struct model *m)
{
	struct svc_ref *ref, *ref_tmp;
	struct entry *e, *tmp;

	if (!m)
		return;
	for (int k = 0; k < MODEL_KINDS; k++) {
		HASH_ITER (hh, m->kinds[k], e, tmp) {
			HASH_DEL(m->kinds[k], e);
			entry_free(e);
		}
	}
	HASH_ITER (hh, m->services, ref, ref_tmp) {
		HASH_DEL(m->services, ref);
		free(ref);
	}
	ns_index_done(&m->namespaces);
	addr_index_done(&m->addrs);
	pthread_mutex_destroy(&m->names_lock);
	free(m);
}

void model_freep(struct model **m)
{
	model_free(*m);
}

int model_put(struct model *m, const struct object *given)
{
	struct object *packed;
	struct entry *e, *old;
	bool was_dirty;
	char key[KEY_MAX];
	size_t len;
	int r;

	r = make_key(key, given->ns, given->name, &len);
	if (r < 0)
		return r;
	old = entry_find(m, given->kind, given->ns, given->name);
	if (old && object_equal(old->obj, given)) {
		old->generation = m->generation[given->kind];
		old->obj->origin = given->origin;
		return 0;
	}
	e = calloc(1, sizeof(*e));
	packed = object_pack(given);
	if (!e || !packed) {
		free(e);
		free(packed);
		return -ENOMEM;
	}
	e->obj = packed;
	e->generation = m->generation[given->kind];
	was_dirty = model_is_dirty(m);
	pthread_mutex_lock(&m->names_lock);
	if (old) {
		entry_detach(m, old);
		entry_free(old);
	}
	r = entry_attach(m, e);
	pthread_mutex_unlock(&m->names_lock);
	if (r < 0)
		entry_free(e);
	if (r == 0 || old)
		if (model_is_dirty(m))
			tell_dirty(m, was_dirty);
	return r < 0 ? r : 1;
}

static void entry_delete(struct model *m, struct entry *e)
{
	bool was_dirty = model_is_dirty(m);

	pthread_mutex_lock(&m->names_lock);
	entry_detach(m, e);
	entry_free(e);
	pthread_mutex_unlock(&m->names_lock);
	if (model_is_dirty(m))
		tell_dirty(m, was_dirty);
}

int model_delete(struct model *m, enum model_kind kind, const char *ns, const char *name)
{
	struct entry *e = entry_find(m, kind, ns, name);

	if (!e)
		return 0;
	entry_delete(m, e);
	return 1;
}

void model_relist_begin(struct model *m, enum model_kind kind)
{
	m->generation[kind]++;
	m->relisting[kind] = true;
}

void model_relist_end(struct model *m, enum model_kind kind)
{
	struct entry *e, *tmp;

	if (!m->relisting[kind])
		return;
	m->relisting[kind] = false;
	HASH_ITER (hh, m->kinds[kind], e, tmp) {
		if (e->generation != m->generation[kind])
			entry_delete(m, e);
	}
}

void model_keep(struct model *m, enum model_kind kind, const char *ns, const char *name)
{
	struct entry *e = entry_find(m, kind, ns, name);

	if (e)
		e->generation = m->generation[kind];
}

void model_set_synced(struct model *m, enum model_kind kind)
{
	if (m->synced[kind])
		return;
	m->synced[kind] = true;
	if (m->on_dirty)
		m->on_dirty(m->on_dirty_ctx);
}

bool model_synced(const struct model *m, enum model_kind kind)
{
	return m->synced[kind];
}

const struct object *model_get(const struct model *m, enum model_kind kind, const char *ns,
			       const char *name)
{
	struct entry *e = entry_find(m, kind, ns, name);

	return e ? e->obj : NULL;
}

size_t model_count(const struct model *m, enum model_kind kind)
{
	return HASH_COUNT(m->kinds[kind]);
}

int model_visit(const struct model *m, enum model_kind kind, model_visit_fn fn, void *ctx)
{
	struct entry *e, *tmp;
	int r;

	HASH_ITER (hh, m->kinds[kind], e, tmp) {
		r = fn(e->obj, ctx);
		if (r)
			return r;
	}
	return 0;
}

int model_visit_slices(const struct model *m, const char *ns, const char *service,
		       model_visit_fn fn, void *ctx)
{
	struct svc_ref *ref = svc_find(m, ns, service);
	int r;

	for (struct entry *e = ref ? ref->slices : NULL; e; e = e->svc_next) {
		r = fn(e->obj, ctx);
		if (r)
			return r;
	}
	return 0;
}

int model_take_dirty_services(struct model *m, model_dirty_fn fn, void *ctx)
{
	struct svc_ref *ref;
	int r;

	while ((ref = m->dirty_head)) {
		r = fn(ref->key, ref->key + strlen(ref->key) + 1, ctx);
		if (r)
			return r;
		svc_unmark(m, ref);
		svc_put(m, ref);
	}
	return 0;
}

int model_touch_services(struct model *m)
{
	bool was_dirty = model_is_dirty(m);
	struct entry *e, *tmp;
	struct svc_ref *ref;
	int r;

	HASH_ITER (hh, m->kinds[MODEL_SERVICE], e, tmp) {
		r = svc_get(m, e->obj->ns, e->obj->name, &ref);
		if (r < 0)
			return r;
		svc_mark(m, ref);
	}
	if (model_is_dirty(m))
		tell_dirty(m, was_dirty);
	return 0;
}

bool model_take_dirty(struct model *m, enum model_kind kind)
{
	bool dirty = m->dirty[kind];

	m->dirty[kind] = false;
	return dirty;
}

bool model_take_dirty_namespaces(struct model *m)
{
	bool dirty = m->namespaces.dirty;

	m->namespaces.dirty = false;
	return dirty;
}

int model_visit_namespaces(const struct model *m, model_ns_fn fn, void *ctx)
{
	return ns_index_visit(&m->namespaces, fn, ctx);
}

uint64_t model_changes(const struct model *m, enum model_kind kind)
{
	return m->changes[kind];
}

void model_on_change(struct model *m, model_change_fn fn, void *ctx)
{
	m->on_change = fn;
	m->on_change_ctx = ctx;
}

void model_on_dirty(struct model *m, void (*fn)(void *ctx), void *ctx)
{
	m->on_dirty = fn;
	m->on_dirty_ctx = ctx;
}

const struct object *model_pod_by_addr(const struct model *m, const struct wag_addr *addr)
{
	return addr_index_pod(&m->addrs, addr);
}

int model_name_by_addr(struct model *m, const struct wag_addr *addr, char *ns, size_t ns_size,
		       char *name, size_t name_size)
{
	const char *found_ns = NULL, *found_name = NULL;
	int r;

	pthread_mutex_lock(&m->names_lock);
	r = addr_index_name(&m->addrs, addr, &found_ns, &found_name);
	if (r >= 0) {
		snprintf(ns, ns_size, "%s", found_ns);
		snprintf(name, name_size, "%s", found_name);
	}
	pthread_mutex_unlock(&m->names_lock);
	return r;
}
