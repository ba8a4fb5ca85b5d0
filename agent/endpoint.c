// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include "endpoint.h"

#define IDENTITY_HOST 1
#define IDENTITY_WORLD 2
#define IDENTITY_REMOTE_NODE 6

/* Open addressing over one block, names in another: little memory, and freed in two calls. */
struct slot {
	struct wag_addr addr;
	uint32_t ns, name; /* offsets in text; name 0: free */
	uint32_t identity;
};

struct snapshot {
	struct slot *slots;
	size_t mask, used;
	char *text;
	size_t text_len, text_room;
	uint32_t last_ns_at; /* the namespace written last, which is mostly the next one's too */
};

struct names {
	struct dataplane *dp;
	int pods, endpoints, node_addrs, svc, svc_names; /* borrowed fds */
	pthread_mutex_t lock;
	struct snapshot *snapshot; /* under lock; may be NULL */
};

static void snapshot_free(struct snapshot *s)
{
	if (!s)
		return;
	free(s->slots);
	free(s->text);
	free(s);
}

static size_t hash_addr(const struct wag_addr *a)
{
	uint64_t h = (a->d[0] ^ (a->d[1] * 0x9e3779b97f4a7c15ULL)) * 0xff51afd7ed558ccdULL;

	return (size_t)(h ^ h >> 29);
}

static struct slot *snapshot_slot(const struct snapshot *s, const struct wag_addr *addr)
{
	size_t i = hash_addr(addr) & s->mask;

	while (s->slots[i].name && !wag_addr_equal(&s->slots[i].addr, addr))
		i = (i + 1) & s->mask;
	return &s->slots[i];
}

static int add_text(struct snapshot *s, const char *text, uint32_t *ret)
{
	size_t n = strlen(text) + 1;

	if (s->text_len + n > s->text_room) {
		size_t room = (s->text_len + n) * 2 + 4096;
		char *grown = realloc(s->text, room);

		if (!grown)
			return -ENOMEM;
		s->text = grown;
		s->text_room = room;
	}
	memcpy(s->text + s->text_len, text, n);
	*ret = (uint32_t)s->text_len;
	s->text_len += n;
	return 0;
}

static int grow(struct snapshot *s)
{
	struct snapshot bigger = { .mask = s->mask * 2 + 1 };

	bigger.slots = calloc(bigger.mask + 1, sizeof(*bigger.slots));
	if (!bigger.slots)
		return -ENOMEM;
	for (size_t i = 0; i <= s->mask; i++)
		if (s->slots[i].name)
			*snapshot_slot(&bigger, &s->slots[i].addr) = s->slots[i];
	free(s->slots);
	s->slots = bigger.slots;
	s->mask = bigger.mask;
	return 0;
}

static int add_name(struct snapshot *s, const struct wag_addr *addr, const char *ns,
		    const char *name, uint32_t identity)
{
	struct slot *slot = snapshot_slot(s, addr);
	int r = 0;

	if (slot->name)
		return 0;
	if (!s->text_len || strcmp(s->text + s->last_ns_at, ns) != 0)
		r = add_text(s, ns, &s->last_ns_at);
	slot->addr = *addr;
	slot->ns = s->last_ns_at;
	slot->identity = identity;
	if (r == 0)
		r = add_text(s, name, &slot->name);
	if (r == 0 && ++s->used * 5 > s->mask * 4)
		r = grow(s);
	return r;
}

static int add_object(const struct object *obj, void *ctx)
{
	struct snapshot *s = ctx;
	int r = 0;

	if (obj->kind == MODEL_NODE) {
		for (size_t i = 0; i < obj->node.n_addrs && r == 0; i++)
			r = add_name(s, &obj->node.addrs[i], "", obj->name, IDENTITY_REMOTE_NODE);
		return r;
	}
	if (obj->kind == MODEL_POD) {
		for (size_t i = 0; i < obj->pod.n_addrs && r == 0 && !obj->pod.host_network; i++)
			r = add_name(s, &obj->pod.addrs[i], obj->ns, obj->name, 0);
		return r;
	}
	for (size_t e = 0; e < obj->slice.n_endpoints; e++) {
		const struct slice_endpoint *ep = &obj->slice.endpoints[e];

		for (size_t i = 0; ep->target_name && i < ep->n_addrs && r == 0; i++)
			r = add_name(s, &ep->addrs[i], ep->target_ns ? ep->target_ns : obj->ns,
				     ep->target_name, 0);
	}
	return r;
}

int names_renew(struct names *n, const struct model *model)
{
	struct snapshot *s = calloc(1, sizeof(*s)), *old;
	int r = s ? 0 : -ENOMEM;

	if (r == 0) {
		s->mask = 255;
		s->slots = calloc(s->mask + 1, sizeof(*s->slots));
		r = s->slots ? 0 : -ENOMEM;
	}
	/* Nodes first: a pod on the host's network has the node's address. */
	if (r == 0)
		r = model_visit(model, MODEL_NODE, add_object, s);
	if (r == 0)
		r = model_visit(model, MODEL_POD, add_object, s);
	if (r == 0)
		r = model_visit(model, MODEL_SLICE, add_object, s);
	if (r < 0) {
		snapshot_free(s);
		return r;
	}
	pthread_mutex_lock(&n->lock);
	old = n->snapshot;
	n->snapshot = s;
	pthread_mutex_unlock(&n->lock);
	snapshot_free(old);
	return 0;
}

static int resolve_local(const struct names *n, const struct wag_addr *addr,
			 struct flow_endpoint *ret)
{
	struct wag_endpoint ep;
	struct wag_pod pod;

	if (bpfsys_map_lookup(n->pods, addr, &pod) < 0)
		return -ENOENT;
	ret->id = pod.ep_id;
	if (bpfsys_map_lookup(n->endpoints, &pod.ep_id, &ep) < 0 || !ep.pod[0])
		return 1; /* local, but its name must come from elsewhere */
	memcpy(ret->ns, ep.ns, sizeof(ret->ns));
	memcpy(ret->pod, ep.pod, sizeof(ret->pod));
	ret->ns[sizeof(ret->ns) - 1] = 0;
	ret->pod[sizeof(ret->pod) - 1] = 0;
	return 0;
}

static int resolve_endpoint(void *ctx, const struct wag_addr *addr, struct flow_endpoint *ret)
{
	struct flow_endpoint found = { 0 };
	struct wag_node_addr node;
	struct names *n = ctx;
	int r = resolve_local(n, addr, &found);

	if (r < 0 && bpfsys_map_lookup(n->node_addrs, addr, &node) == 0) {
		found.identity = IDENTITY_HOST;
		r = 0;
	}
	if (r != 0) {
		pthread_mutex_lock(&n->lock);
		if (n->snapshot) {
			const struct slot *slot = snapshot_slot(n->snapshot, addr);

			found.identity = slot->name ? slot->identity : r < 0 ? IDENTITY_WORLD : 0;
			if (slot->name && slot->identity == 0) {
				snprintf(found.ns, sizeof(found.ns), "%s",
					 n->snapshot->text + slot->ns);
				snprintf(found.pod, sizeof(found.pod), "%s",
					 n->snapshot->text + slot->name);
			}
		}
		pthread_mutex_unlock(&n->lock);
	}
	*ret = found;
	return 0;
}

static int resolve_by_index(void *ctx, uint32_t index, uint32_t svc_id, struct flow_service *ret)
{
	const struct names *n = ctx;
	struct wag_svc_name name;

	if (bpfsys_map_lookup(n->svc_names, &index, &name) < 0 || (svc_id && name.svc_id != svc_id))
		return -ENOENT;
	memcpy(ret->ns, name.ns, sizeof(ret->ns));
	memcpy(ret->name, name.name, sizeof(ret->name));
	ret->ns[sizeof(ret->ns) - 1] = 0;
	ret->name[sizeof(ret->name) - 1] = 0;
	return 0;
}

static int resolve_service(void *ctx, const struct wag_addr *addr, __be16 port, uint8_t proto,
			   struct flow_service *ret)
{
	struct wag_svc_key key = { .addr = *addr, .port = port, .proto = proto };
	const struct names *n = ctx;
	struct wag_node_addr node;
	struct wag_svc svc;

	if (bpfsys_map_lookup(n->svc, &key, &svc) < 0) {
		if (bpfsys_map_lookup(n->node_addrs, addr, &node) < 0)
			return -ENOENT;
		key.addr = wag_addr_is_v4(addr) ? wag_addr_from_v4(0) : (struct wag_addr){ 0 };
		if (bpfsys_map_lookup(n->svc, &key, &svc) < 0)
			return -ENOENT;
	}
	return resolve_by_index(ctx, svc.index, 0, ret);
}

/* A socket that has no address yet is known by its pod's endpoint. */
static int resolve_by_id(void *ctx, uint32_t ep_id, struct flow_endpoint *ret)
{
	struct flow_endpoint found = { .id = ep_id };
	const struct names *n = ctx;
	struct wag_endpoint ep;

	if (bpfsys_map_lookup(n->endpoints, &ep_id, &ep) < 0)
		return -ENOENT;
	memcpy(found.ns, ep.ns, sizeof(found.ns));
	memcpy(found.pod, ep.pod, sizeof(found.pod));
	found.ns[sizeof(found.ns) - 1] = 0;
	found.pod[sizeof(found.pod) - 1] = 0;
	*ret = found;
	return 0;
}

struct flow_resolver names_resolver(struct names *n)
{
	return (struct flow_resolver){ n, resolve_endpoint, resolve_service, resolve_by_index,
				       resolve_by_id };
}

int names_new(struct names **ret, struct dataplane *dp)
{
	struct names *n = calloc(1, sizeof(*n));

	if (!n)
		return -ENOMEM;
	n->dp = dp;
	n->pods = dataplane_map_fd(dp, "wag_pods");
	n->endpoints = dataplane_map_fd(dp, "wag_endpoint");
	n->node_addrs = dataplane_map_fd(dp, "wag_node_addr");
	n->svc = dataplane_map_fd(dp, "wag_svc");
	n->svc_names = dataplane_map_fd(dp, "wag_svc_name");
	pthread_mutex_init(&n->lock, NULL);
	*ret = n;
	return 0;
}

void names_free(struct names *n)
{
	if (!n)
		return;
	snapshot_free(n->snapshot);
	pthread_mutex_destroy(&n->lock);
	free(n);
}

void names_freep(struct names **n)
{
	names_free(*n);
}

size_t endpoint_count(const struct dataplane *dp)
{
	int fd = dataplane_map_fd(dp, "wag_endpoint");
	uint32_t key = 0;
	size_t n = 0;

	for (int r = bpfsys_map_next_key(fd, NULL, &key); r == 0;
	     r = bpfsys_map_next_key(fd, &key, &key))
		n++;
	return n;
}
