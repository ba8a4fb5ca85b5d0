// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/cleanup.h>
#include "sync_batch.h"

void sync_release_ranges(struct sync *s, struct sync_port *p)
{
	for (uint32_t i = 0; i < p->n_ranges; i++) {
		struct wag_src_range_key key = p->ranges[i];

		key.svc_id = p->svc_id;
		deltamap_unset_desired(&s->ranges, &key);
	}
	p->ranges = NULL;
	p->n_ranges = 0;
}

int sync_claim_ranges(struct sync *s, struct sync_port *p)
{
	const struct wag_src_range value = { 0 };
	int r = 0;

	p->ranges = p->want->ranges;
	for (; r == 0 && p->n_ranges < p->want->n_ranges; p->n_ranges++) {
		struct wag_src_range_key key = p->ranges[p->n_ranges];

		key.svc_id = p->svc_id;
		r = deltamap_set_desired(&s->ranges, &key, &value);
	}
	return r;
}

struct sync_port *sync_port_by_id(const struct sync *s, uint32_t svc_id)
{
	for (uint32_t i = 1; i < s->next_index; i++)
		if (s->ports[i] && s->ports[i]->svc_id == svc_id)
			return s->ports[i];
	return NULL;
}

static void range_done(struct sync *s, const void *key, const void *value, struct sync_port *p,
		       int err)
{
	const struct wag_src_range_key *range = key;

	if (!err) {
		(void)deltamap_set_actual(&s->ranges, key, value); /* it has an entry */
		return;
	}
	p = sync_port_by_id(s, range->svc_id);
	sync_fail(s, p ? p->svc : NULL, DP_SRC_RANGE, err);
}

static void range_gone(struct sync *s, const void *key, const void *value, struct sync_port *p,
		       int err)
{
	if (err) {
		sync_fail(s, NULL, DP_SRC_RANGE, err);
		return;
	}
	s->freed = true;
	deltamap_unset_actual(&s->ranges, key);
}

struct range_walk {
	struct batch *batch;
	struct wag_src_range_key *keys;
	size_t n;
};

static int collect_range(const void *key, const void *desired, const void *actual, void *ctx)
{
	struct range_walk *w = ctx;

	if (!desired == w->batch->deletes)
		memcpy(&w->keys[w->n++], key, sizeof(w->keys[0]));
	return 0;
}

int sync_apply_ranges(struct sync *s, bool deletes)
{
	size_t n = deltamap_pending(&s->ranges);
	_cleanup_free_ struct wag_src_range_key *keys = NULL;
	const struct wag_src_range value = { 0 };
	struct range_walk w;
	struct batch b;
	int r;

	if (n == 0)
		return 0;
	keys = calloc(n, sizeof(*keys));
	r = sync_batch_init(&b, s, DP_SRC_RANGE, deletes, deletes ? range_gone : range_done);
	if (r == 0 && keys) {
		w = (struct range_walk){ .batch = &b, .keys = keys };
		deltamap_visit_pending(&s->ranges, collect_range, &w);
		for (size_t i = 0; i < w.n; i++)
			sync_batch_add(&b, &keys[i], &value, NULL);
		sync_batch_flush(&b);
	}
	sync_batch_done(&b);
	return keys ? r : -ENOMEM;
}
