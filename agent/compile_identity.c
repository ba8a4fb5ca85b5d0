// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "compile_policy_internal.h"

/* ---- identities ---- */

static bool has_name(const struct policy_compiler *c, const char *name)
{
	struct used_name *u;

	HASH_FIND_STR(c->used_names, name, u);
	return u;
}

int identity_get(struct policy_compiler *c, const struct bits *a, const struct bits *b,
		 const struct port_names *names, struct identity **ret)
{
	uint32_t n_b = b ? b->n : 0, n = a->n > n_b ? a->n : n_b;
	size_t size = n * sizeof(uint64_t) + names->len + sizeof(uint32_t);
	struct identity *id = calloc(1, sizeof(*id) + size), *known;
	uint64_t *words;
	int r;

	if (!id)
		return -ENOMEM;
	words = (uint64_t *)id->key;
	for (uint32_t i = 0; i < n; i++)
		words[i] = (i < a->n ? a->words[i] : 0) | (i < n_b ? b->words[i] : 0);
	while (n && !words[n - 1])
		n--;
	id->bits = (struct bits){ words, n };
	id->key_len = n * sizeof(uint64_t) + names->len + sizeof(uint32_t);
	id->names = (struct port_names){ id->key + n * sizeof(uint64_t), names->len };
	if (names->len)
		memcpy(id->key + n * sizeof(uint64_t), names->data, names->len);
	memcpy(id->key + id->key_len - sizeof(uint32_t), &n, sizeof(n));
	HASH_FIND(hh, c->identities, id->key, id->key_len, known);
	if (known || (!n && !names->len)) {
		free(id);
		if (known)
			known->refs++;
		*ret = known;
		return 0;
	}
	r = number_take(&c->id_numbers, &id->id);
	if (r < 0) {
		free(id);
		return r;
	}
	id->id++; /* 0 is nobody's */
	id->refs = 1;
	id->fresh = true;
	c->ids_fresh = true;
	HASH_ADD_KEYPTR(hh, c->identities, id->key, id->key_len, id);
	*ret = id;
	return 0;
}

void identities_sweep(struct policy_compiler *c)
{
	struct identity *id, *tmp;

	HASH_ITER(hh, c->identities, id, tmp) {
		if (id->refs)
			continue;
		rulesets_forget(c, id->id);
		number_give(&c->id_numbers, id->id - 1);
		HASH_DEL(c->identities, id);
		free(id);
	}
}

/* ---- addresses ---- */

static struct address *address_find(const struct policy_compiler *c, const struct wag_addr *addr)
{
	struct address *a;

	HASH_FIND(hh, c->addresses, addr, sizeof(*addr), a);
	return a;
}

bool address_known(const struct policy_compiler *c, const struct wag_addr *addr)
{
	return address_find(c, addr);
}

uint32_t address_identity(const struct policy_compiler *c, const struct wag_addr *addr)
{
	const struct address *a = address_find(c, addr);

	return a && a->id ? a->id->id : 0;
}

static struct wag_ipcache_key address_key(const struct wag_addr *addr)
{
	struct wag_ipcache_key key = { .bits = 32 + 128 };

	memcpy(key.addr, addr->w, sizeof(key.addr));
	return key;
}

static int address_claim(struct policy_compiler *c, struct subject *s, const struct wag_addr *addr)
{
	struct address *a = address_find(c, addr);
	struct subject **bigger;

	if (!a) {
		a = calloc(1, sizeof(*a));
		if (!a)
			return -ENOMEM;
		a->addr = *addr;
		HASH_ADD(hh, c->addresses, addr, sizeof(a->addr), a);
	}
	bigger = reallocarray(a->owners, a->n_owners + 1, sizeof(struct subject *));
	if (!bigger)
		return -ENOMEM;
	a->owners = bigger;
	a->owners[a->n_owners++] = s;
	return 0;
}

static struct subject *address_owner(const struct address *a)
{
	for (size_t i = a->n_owners; i > 0; i--)
		if (a->owners[i - 1]->ep)
			return a->owners[i - 1];
	return a->owners[a->n_owners - 1];
}

static int address_gone(struct policy_compiler *c, struct address *a)
{
	const struct region *region = region_find(c, &a->addr);
	struct wag_ipcache_key key = address_key(&a->addr);
	struct wag_ipcache value = { 0 };
	int r = 0;

	if (region && region->cidr.bits == 128 && !c->regions.stale) {
		value.identity = region->id ? region->id->id : 0;
		value.flags = region->unknown ? WAG_IPCACHE_UNKNOWN : 0;
		r = deltamap_set_desired(&c->tables[POLICY_IPCACHE], &key, &value);
	} else {
		deltamap_unset_desired(&c->tables[POLICY_IPCACHE], &key);
	}
	if (a->id)
		a->id->refs--;
	HASH_DEL(c->addresses, a);
	free(a->owners);
	free(a);
	return r;
}

static int address_publish(struct policy_compiler *c, struct address *a)
{
	const struct region *region = region_find(c, &a->addr);
	const struct subject *s = address_owner(a);
	struct wag_ipcache_key key = address_key(&a->addr);
	struct wag_ipcache value = { 0 };
	struct identity *id;
	int r = identity_get(c, &s->bits, region ? &region->bits : NULL, &s->names, &id);

	if (r < 0)
		return r;
	if (a->id)
		a->id->refs--;
	a->id = id;
	value.identity = id ? id->id : 0;
	return deltamap_set_desired(&c->tables[POLICY_IPCACHE], &key, &value);
}

/* s does not own it any more. */
static int address_release(struct policy_compiler *c, struct subject *s,
			   const struct wag_addr *addr)
{
	struct address *a = address_find(c, addr);

	for (size_t i = 0; a && i < a->n_owners; i++) {
		if (a->owners[i] != s)
			continue;
		memmove(a->owners + i, a->owners + i + 1,
			(a->n_owners - i - 1) * sizeof(struct subject *));
		a->n_owners--;
		return a->n_owners ? address_publish(c, a) : address_gone(c, a);
	}
	return 0;
}

/* ---- pods and nodes ---- */

void subject_queue(struct policy_compiler *c, struct subject *s, bool stale)
{
	s->stale |= stale;
	if (s->queued)
		return;
	s->queued = true;
	s->queue_next = c->queue;
	c->queue = s;
}

void subjects_queue_all(struct policy_compiler *c, bool stale)
{
	struct subject *s, *tmp;

	HASH_ITER(hh, c->subjects, s, tmp)
		subject_queue(c, s, stale);
	HASH_ITER(hh, c->nodes, s, tmp)
		subject_queue(c, s, stale);
}

int subject_get(struct policy_compiler *c, const char *ns, const char *name, struct subject **ret)
{
	size_t n = strlen(ns), len = n + 1 + strlen(name);
	struct subject **list = ns[0] ? &c->subjects : &c->nodes;
	_cleanup_free_ struct subject *s = calloc(1, sizeof(*s) + len + 1);
	struct subject *known;
	int r;

	if (!s)
		return -ENOMEM;
	memcpy(s->key, ns, n);
	memcpy(s->key + n + 1, name, len - n - 1);
	HASH_FIND(hh, *list, s->key, len, known);
	if (known) {
		*ret = known;
		return 0;
	}
	r = ns[0] ? ns_get(c, ns, &s->ns) : 0;
	if (r < 0)
		return r;
	if (s->ns) {
		s->next = s->ns->pods;
		if (s->next)
			s->next->prev = s;
		s->ns->pods = s;
	}
	HASH_ADD_KEYPTR(hh, *list, s->key, len, s);
	*ret = TAKE_PTR(s);
	return 0;
}

static void subject_free(struct policy_compiler *c, struct subject *s)
{
	struct subject **list = s->ns ? &c->subjects : &c->nodes;

	HASH_DELETE(hh, *list, s);
	if (s->ns) {
		if (s->prev)
			s->prev->next = s->next;
		else
			s->ns->pods = s->next;
		if (s->next)
			s->next->prev = s->prev;
		ns_put(c, s->ns);
	}
	bits_done(&s->bits);
	free((char *)s->names.data);
	free(s->addrs);
	free(s);
}

static bool owns_addrs(const struct pod *pod)
{
	return !pod->host_network &&
	       (!pod->phase ||
		(strcmp(pod->phase, "Succeeded") != 0 && strcmp(pod->phase, "Failed") != 0));
}

/* Of its object, and of its endpoint where it is a pod of this node. */
static int wanted_addrs(const struct subject *s, struct wag_addr **ret, size_t *ret_n)
{
	const struct wag_addr *of_obj = NULL;
	size_t n_obj = 0, n_ep = s->ep ? s->ep->n_addrs : 0, n = 0;
	struct wag_addr *addrs;

	if (s->obj && !s->ns) {
		of_obj = s->obj->node.addrs;
		n_obj = s->obj->node.n_addrs;
	} else if (s->obj && owns_addrs(&s->obj->pod)) {
		of_obj = s->obj->pod.addrs;
		n_obj = s->obj->pod.n_addrs;
	}
	addrs = calloc(n_obj + n_ep + 1, sizeof(*addrs));
	if (!addrs)
		return -ENOMEM;
	for (size_t i = 0; i < n_obj + n_ep; i++) {
		const struct wag_addr *a = i < n_obj ? &of_obj[i] : &s->ep->addrs[i - n_obj];
		bool twice = false;

		for (size_t k = 0; k < n; k++)
			twice |= wag_addr_equal(a, &addrs[k]);
		if (!twice)
			addrs[n++] = *a;
	}
	*ret = addrs;
	*ret_n = n;
	return 0;
}

/* The named ports that some rule names, as struct port_names has them. */
static int subject_names(struct policy_compiler *c, struct subject *s)
{
	const struct pod *pod = s->ns && s->obj ? &s->obj->pod : NULL;
	size_t size = 1, at = 0;
	char *data;

	for (size_t i = 0; pod && i < pod->n_ports; i++)
		size += 3 + strlen(pod->ports[i].name) + 1;
	data = calloc(1, size);
	if (!data)
		return -ENOMEM;
	for (size_t i = 0; pod && i < pod->n_ports; i++) {
		const struct pod_port *port = &pod->ports[i];

		if (!has_name(c, port->name))
			continue;
		data[at] = (char)port->proto;
		memcpy(data + at + 1, &port->port, sizeof(port->port));
		memcpy(data + at + 3, port->name, strlen(port->name));
		at += 3 + strlen(port->name) + 1;
	}
	free((char *)s->names.data);
	s->names = (struct port_names){ data, at };
	return 0;
}

static int subject_bits(struct policy_compiler *c, struct subject *s)
{
	struct peer_set *set, *tmp;
	int r = 0;

	bits_done(&s->bits);
	HASH_ITER(hh, c->sets, set, tmp)
		if (r == 0 && set->labels && subject_in(s, set))
			r = bits_set(&s->bits, set->bit);
	return r;
}

static int subject_move(struct policy_compiler *c, struct subject *s)
{
	struct wag_addr *addrs = NULL;
	size_t n = 0;
	int r = wanted_addrs(s, &addrs, &n);

	for (size_t i = 0; i < s->n_addrs && r == 0; i++)
		r = address_release(c, s, &s->addrs[i]);
	free(s->addrs);
	s->addrs = addrs;
	s->n_addrs = n;
	for (size_t i = 0; i < n && r == 0; i++)
		r = address_claim(c, s, &addrs[i]);
	return r;
}

static int subject_update(struct policy_compiler *c, struct subject *s)
{
	bool gone = !s->obj && !s->ep;
	int r = 0;

	if (s->stale || gone) {
		r = subject_names(c, s);
		if (r == 0 && !gone)
			r = subject_bits(c, s);
		if (r == 0)
			r = subject_move(c, s);
		if (s->ep)
			s->ep->stale = c->endpoints_stale = true;
	}
	for (size_t i = 0; i < s->n_addrs && r == 0; i++)
		r = address_publish(c, address_find(c, &s->addrs[i]));
	if (r < 0)
		return r;
	s->stale = false;
	if (gone)
		subject_free(c, s);
	return 0;
}

int identities_update(struct policy_compiler *c)
{
	bool regions = c->regions.stale;
	int r = 0;

	if (c->names_stale)
		subjects_queue_all(c, true);
	c->names_stale = false;
	if (c->sets_fresh)
		r = peer_sets_judge(c);
	if (r == 0 && regions) {
		r = regions_update(c);
		subjects_queue_all(c, false);
	}
	while (c->queue && r == 0) {
		struct subject *s = c->queue;

		c->queue = s->queue_next;
		s->queued = false;
		r = subject_update(c, s);
	}
	return r;
}

void identities_done(struct policy_compiler *c)
{
	struct subject *s, *tmp;
	struct address *a, *a_tmp;
	struct identity *id, *id_tmp;
	struct ns *ns, *ns_tmp;

	HASH_ITER(hh, c->addresses, a, a_tmp) {
		HASH_DEL(c->addresses, a);
		free(a->owners);
		free(a);
	}
	HASH_ITER(hh, c->subjects, s, tmp)
		subject_free(c, s);
	HASH_ITER(hh, c->nodes, s, tmp)
		subject_free(c, s);
	HASH_ITER(hh, c->namespaces, ns, ns_tmp) {
		HASH_DEL(c->namespaces, ns);
		bits_done(&ns->sels);
		free(ns);
	}
	HASH_ITER(hh, c->identities, id, id_tmp) {
		HASH_DEL(c->identities, id);
		free(id);
	}
	bits_done(&c->ns_numbers.used);
	bits_done(&c->set_numbers.used);
	bits_done(&c->id_numbers.used);
	bits_done(&c->ruleset_numbers.used);
}
