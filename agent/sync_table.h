/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One hash table of the dataplane against what it should hold, for those of which no entry depends
 * on another: new and changed entries first, then what nobody wants any more. Services, where the
 * order matters, have sync.h. One thread.
 */
#pragma once

#include <waggle/deltamap.h>
#include "dataplane.h"

struct sync_table {
	struct dataplane *dp; /* borrowed */
	enum dp_table table;
	struct deltamap map; /* desired and actual */
	bool swept;	     /* all that should exist has been set: the rest goes */
	bool room_first;     /* deletes before updates: nobody reads the table meanwhile */
};

/* Takes over what the table holds. 0 or -errno, and then there is nothing to free. */
int sync_table_init(struct sync_table *t, struct dataplane *dp, enum dp_table table);
void sync_table_done(struct sync_table *t); /* leaves the table as it is; zeroed: fine */

/* Exactly the desired entries of fresh (same sizes) are desired from now on. 0 or -ENOMEM. */
int sync_table_replace(struct sync_table *t, const struct deltamap *fresh);
/* The difference; 0, or the first -errno: what failed stays pending for the next call. */
int sync_table_apply(struct sync_table *t);
size_t sync_table_pending(const struct sync_table *t);
