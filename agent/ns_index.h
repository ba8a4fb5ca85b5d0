/* SPDX-License-Identifier: Apache-2.0 */
/* Which namespaces there are, by the objects that stand in them, and how many policies each has. */
#pragma once

#include "model.h"

struct ns_ref;

struct ns_index {
	struct ns_ref *refs;
	bool dirty; /* one came or went, or has its first policy, or has lost its last */
};

/* obj has come (add) or goes. 0 or -ENOMEM; what goes cannot fail. */
int ns_index_change(struct ns_index *index, const struct object *obj, bool add);
int ns_index_visit(const struct ns_index *index, model_ns_fn fn, void *ctx);
void ns_index_done(struct ns_index *index);
