// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1 /* an element that was not added has no table */
#include <uthash.h>

#include "ns_index.h"

struct ns_ref {
	UT_hash_handle hh;
	size_t objects, policies;
	char name[];
};

static struct ns_ref *add_ref(struct ns_index *index, const char *name)
{
	size_t len = strlen(name);
	struct ns_ref *ref = calloc(1, sizeof(*ref) + len + 1);

	if (!ref)
		return NULL;
	memcpy(ref->name, name, len);
	HASH_ADD_KEYPTR(hh, index->refs, ref->name, len, ref);
	if (ref->hh.tbl)
		return ref;
	free(ref);
	return NULL;
}

int ns_index_change(struct ns_index *index, const struct object *obj, bool add)
{
	const char *name = obj->kind == MODEL_NAMESPACE ? obj->name : obj->ns;
	struct ns_ref *ref;

	if (!name[0])
		return 0;
	HASH_FIND(hh, index->refs, name, strlen(name), ref);
	if (!ref && add)
		ref = add_ref(index, name);
	if (!ref)
		return add ? -ENOMEM : 0;
	if (obj->kind == MODEL_POLICY) {
		index->dirty |= ref->policies == !add;
		ref->policies += add ? 1 : -1;
	}
	index->dirty |= ref->objects == !add;
	ref->objects += add ? 1 : -1;
	if (ref->objects == 0) {
		HASH_DEL(index->refs, ref);
		free(ref);
	}
	return 0;
}

int ns_index_visit(const struct ns_index *index, model_ns_fn fn, void *ctx)
{
	int r = 0;

	for (struct ns_ref *ref = index->refs; ref && r == 0; ref = ref->hh.next)
		r = fn(ref->name, ref->policies, ctx);
	return r;
}

void ns_index_done(struct ns_index *index)
{
	struct ns_ref *ref, *tmp;

	HASH_ITER(hh, index->refs, ref, tmp) {
		HASH_DEL(index->refs, ref);
		free(ref);
	}
}
