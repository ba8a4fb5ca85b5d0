/* SPDX-License-Identifier: Apache-2.0 */
/* Which members of a Flow a client wants, two levels deep ("time", "source.pod_name"). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/err.h>
#include "flow.pb-c.h"

#define FIELD_MASK_FIELDS 64

struct field_mask {
	bool active;
	uint64_t fields;		     /* bit i: member i of the descriptor stays */
	uint64_t members[FIELD_MASK_FIELDS]; /* the same inside it; all ones: whole */
};

/* No path: everything stays. 0, or -EINVAL with the path that names nothing. */
int field_mask_init(struct field_mask *mask, char *const *paths, size_t n, struct wag_err *err);
/* Takes out what was not asked for. Nothing is freed: for messages that are not heap allocated. */
void field_mask_apply(const struct field_mask *mask, Flow__Flow *flow);
