// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/hash.h>
#include "addr_index.h"

static uint32_t bucket_of(const struct wag_addr *addr, uint32_t n)
{
	return wag_hash(addr, sizeof(*addr)) & (n - 1);
}

static const struct wag_addr *claim_addr(const struct claim *claim)
{
	const struct object *obj = claim->obj;

	if (obj->kind == MODEL_SLICE)
		return &obj->slice.endpoints[claim->endpoint].addrs[claim->addr];
	if (obj->kind == MODEL_POD)
		return &obj->pod.addrs[claim->addr];
	return &obj->node.addrs[claim->addr];
}

static int index_grow(struct addr_index *index)
{
	uint32_t n = index->n_buckets ? index->n_buckets * 2 : 64;
	struct claim *claims = reallocarray(index->claims, n, sizeof(*claims));
	uint32_t *buckets;

	if (!claims)
		return -ENOMEM;
	index->claims = claims;
	buckets = calloc(n, sizeof(*buckets));
	if (!buckets)
		return -ENOMEM;
	for (uint32_t b = 0; b < index->n_buckets; b++) {
		for (uint32_t i = index->buckets[b]; i;) {
			struct claim *claim = &claims[i - 1];
			uint32_t next = claim->next, *head;

			head = &buckets[bucket_of(claim_addr(claim), n)];
			claim->next = *head;
			*head = i;
			i = next;
		}
	}
	free(index->buckets);
	index->buckets = buckets;
	index->n_buckets = n;
	return 0;
}

static int index_add(struct addr_index *index, struct claim claim)
{
	uint32_t i, *head;
	int r;

	if (index->free_head) {
		i = index->free_head;
		index->free_head = index->claims[i - 1].next;
	} else {
		if (index->n_alloc == index->n_buckets) {
			r = index_grow(index);
			if (r < 0)
				return r;
		}
		i = ++index->n_alloc;
	}
	head = &index->buckets[bucket_of(claim_addr(&claim), index->n_buckets)];
	claim.next = *head;
	index->claims[i - 1] = claim;
	*head = i;
	return 0;
}

static void index_remove(struct addr_index *index, struct claim claim)
{
	uint32_t *link;

	if (!index->n_buckets)
		return;
	link = &index->buckets[bucket_of(claim_addr(&claim), index->n_buckets)];
	while (*link) {
		struct claim *at = &index->claims[*link - 1];
		uint32_t i = *link;

		if (at->obj == claim.obj && at->endpoint == claim.endpoint &&
		    at->addr == claim.addr) {
			*link = at->next;
			at->next = index->free_head;
			index->free_head = i;
			return;
		}
		link = &at->next;
	}
}

static bool pod_owns_addrs(const struct pod *pod)
{
	if (pod->host_network)
		return false;
	return !pod->phase ||
	       (strcmp(pod->phase, "Succeeded") != 0 && strcmp(pod->phase, "Failed") != 0);
}

static int claim_change(struct addr_index *index, const struct object *obj, size_t endpoint,
			size_t n, bool add)
{
	int r;

	for (size_t i = 0; i < n; i++) {
		struct claim claim = { .obj = obj, .endpoint = endpoint, .addr = i };

		if (!add) {
			index_remove(index, claim);
			continue;
		}
		r = index_add(index, claim);
		if (r < 0)
			return r;
	}
	return 0;
}

int addr_index_change(struct addr_index *index, const struct object *obj, bool add)
{
	int r = 0;

	if (obj->kind == MODEL_NODE)
		return claim_change(index, obj, 0, obj->node.n_addrs, add);
	if (obj->kind == MODEL_POD && pod_owns_addrs(&obj->pod))
		return claim_change(index, obj, 0, obj->pod.n_addrs, add);
	if (obj->kind != MODEL_SLICE)
		return 0;
	for (size_t i = 0; i < obj->slice.n_endpoints && r == 0; i++) {
		if (obj->slice.endpoints[i].target_name)
			r = claim_change(index, obj, i, obj->slice.endpoints[i].n_addrs, add);
	}
	return r;
}

void addr_index_done(struct addr_index *index)
{
	free(index->claims);
	free(index->buckets);
	*index = (struct addr_index){ 0 };
}

static uint32_t first_claim(const struct addr_index *index, const struct wag_addr *addr)
{
	if (!index->n_buckets)
		return 0;
	return index->buckets[bucket_of(addr, index->n_buckets)];
}

const struct object *addr_index_pod(const struct addr_index *index, const struct wag_addr *addr)
{
	for (uint32_t i = first_claim(index, addr); i; i = index->claims[i - 1].next) {
		const struct claim *claim = &index->claims[i - 1];

		if (claim->obj->kind == MODEL_POD && wag_addr_equal(claim_addr(claim), addr))
			return claim->obj;
	}
	return NULL;
}

int addr_index_name(const struct addr_index *index, const struct wag_addr *addr, const char **ns,
		     const char **name)
{
	bool found_pod = false;

	for (uint32_t i = first_claim(index, addr); i; i = index->claims[i - 1].next) {
		const struct claim *claim = &index->claims[i - 1];
		const struct object *obj = claim->obj;

		if (!wag_addr_equal(claim_addr(claim), addr))
			continue;
		/* The node's own address is shared by every host-network pod: the node's, then. */
		if (obj->kind == MODEL_NODE) {
			*ns = "";
			*name = obj->name;
			return 1;
		}
		if (obj->kind == MODEL_POD) {
			found_pod = true;
			*ns = obj->ns;
			*name = obj->name;
		} else if (!found_pod) {
			const struct slice_endpoint *ep = &obj->slice.endpoints[claim->endpoint];

			*ns = ep->target_ns ? ep->target_ns : obj->ns;
			*name = ep->target_name;
		}
	}
	return *name ? 0 : -ENOENT;
}
