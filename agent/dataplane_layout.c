// SPDX-License-Identifier: Apache-2.0
/* Two BTF layouts of one map's key or value: the same, or how to turn one into the other. */
#include <bpf/btf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "dataplane_internal.h"

#define DEPTH_MAX 16

static const struct btf_type *resolve(const struct btf *btf, uint32_t *id)
{
	const struct btf_type *t = btf__type_by_id(btf, *id);

	while (t && (btf_is_mod(t) || btf_is_typedef(t))) {
		*id = t->type;
		t = btf__type_by_id(btf, *id);
	}
	return t;
}

static bool equal(const struct btf *a, uint32_t a_id, const struct btf *b, uint32_t b_id,
		  unsigned depth);

static bool members_equal(const struct btf *a, const struct btf_type *ta, const struct btf *b,
			  const struct btf_type *tb, unsigned depth)
{
	const struct btf_member *ma = btf_members(ta), *mb = btf_members(tb);

	if (btf_vlen(ta) != btf_vlen(tb))
		return false;
	for (uint16_t i = 0; i < btf_vlen(ta); i++) {
		if (strcmp(btf__name_by_offset(a, ma[i].name_off),
			   btf__name_by_offset(b, mb[i].name_off)) != 0 ||
		    ma[i].offset != mb[i].offset || !equal(a, ma[i].type, b, mb[i].type, depth))
			return false;
	}
	return true;
}

static bool equal(const struct btf *a, uint32_t a_id, const struct btf *b, uint32_t b_id,
		  unsigned depth)
{
	const struct btf_type *ta = resolve(a, &a_id), *tb = resolve(b, &b_id);

	if (!ta || !tb || depth > DEPTH_MAX || btf_kind(ta) != btf_kind(tb))
		return false;
	switch (btf_kind(ta)) {
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
		return ta->size == tb->size && members_equal(a, ta, b, tb, depth + 1);
	case BTF_KIND_ARRAY:
		return btf_array(ta)->nelems == btf_array(tb)->nelems &&
		       equal(a, btf_array(ta)->type, b, btf_array(tb)->type, depth + 1);
	default:
		return btf__resolve_size(a, a_id) == btf__resolve_size(b, b_id);
	}
}

bool dp_layout_equal(const struct btf *a, uint32_t a_id, const struct btf *b, uint32_t b_id)
{
	return equal(a, a_id, b, b_id, 0);
}

static int add_copy(struct dp_plan *plan, uint32_t from, uint32_t to, uint32_t size)
{
	struct dp_copy *copies = reallocarray(plan->copies, plan->n + 1, sizeof(*copies));

	if (!copies)
		return -ENOMEM;
	plan->copies = copies;
	copies[plan->n++] = (struct dp_copy){ from, to, size };
	return 0;
}

static int plan_type(struct dp_plan *plan, const struct btf *a, uint32_t a_id, uint32_t a_off,
		     const struct btf *b, uint32_t b_id, uint32_t b_off, unsigned depth);

static int plan_members(struct dp_plan *plan, const struct btf *a, const struct btf_type *ta,
			uint32_t a_off, const struct btf *b, const struct btf_type *tb,
			uint32_t b_off, unsigned depth)
{
	const struct btf_member *ma = btf_members(ta), *mb = btf_members(tb);
	int r = 0;

	for (uint16_t j = 0; j < btf_vlen(tb) && r == 0; j++) {
		const char *name = btf__name_by_offset(b, mb[j].name_off);

		for (uint16_t i = 0; i < btf_vlen(ta); i++) {
			if (strcmp(btf__name_by_offset(a, ma[i].name_off), name) != 0)
				continue;
			if (btf_member_bitfield_size(ta, i) || btf_member_bitfield_size(tb, j))
				return -EOPNOTSUPP;
			r = plan_type(plan, a, ma[i].type, a_off + ma[i].offset / 8, b, mb[j].type,
				      b_off + mb[j].offset / 8, depth);
			break;
		}
	}
	return r;
}

/* A number that grew keeps its value only on a little-endian machine by copying its low bytes. */
static uint32_t number_shift(uint32_t wide, uint32_t narrow)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	return wide - narrow;
#else
	(void)wide;
	(void)narrow;
	return 0;
#endif
}

static int plan_type(struct dp_plan *plan, const struct btf *a, uint32_t a_id, uint32_t a_off,
		     const struct btf *b, uint32_t b_id, uint32_t b_off, unsigned depth)
{
	const struct btf_type *ta = resolve(a, &a_id), *tb = resolve(b, &b_id);
	int64_t sa, sb;
	uint32_t size;

	if (!ta || !tb || depth > DEPTH_MAX)
		return -EINVAL;
	sa = btf__resolve_size(a, a_id);
	sb = btf__resolve_size(b, b_id);
	if (sa < 0 || sb < 0)
		return -EINVAL;
	if (equal(a, a_id, b, b_id, depth))
		return add_copy(plan, a_off, b_off, (uint32_t)sa);
	if (btf_kind(ta) != btf_kind(tb))
		return 0; /* another kind of thing under the same name: starts at zero */
	if (btf_is_composite(ta))
		return plan_members(plan, a, ta, a_off, b, tb, b_off, depth + 1);
	size = (uint32_t)(sa < sb ? sa : sb);
	if (btf_is_array(ta)) {
		if (!equal(a, btf_array(ta)->type, b, btf_array(tb)->type, depth + 1))
			return 0;
		return add_copy(plan, a_off, b_off, size);
	}
	return add_copy(plan, a_off + number_shift((uint32_t)sa, size),
			b_off + number_shift((uint32_t)sb, size), size);
}

int dp_plan_make(struct dp_plan *ret, const struct btf *a, uint32_t a_id, const struct btf *b,
		 uint32_t b_id)
{
	struct dp_plan plan = { 0 };
	int r = plan_type(&plan, a, a_id, 0, b, b_id, 0, 0);

	if (r < 0) {
		free(plan.copies);
		return r;
	}
	*ret = plan;
	return 0;
}

void dp_plan_apply(const struct dp_plan *plan, const void *from, void *to, size_t to_size)
{
	memset(to, 0, to_size);
	for (size_t i = 0; i < plan->n; i++)
		memcpy((char *)to + plan->copies[i].to, (const char *)from + plan->copies[i].from,
		       plan->copies[i].size);
}
