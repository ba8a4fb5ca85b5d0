/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's double for tests: dataplane.h in memory, and what a test may do to it. */
#pragma once

#include "dataplane.h"

struct dataplane_fake_sizes {
	size_t max[DP_TABLES]; /* entries; 0: 65536 */
	size_t n_states, n_slots; /* 0: 16384 and 131072 */
};

int dataplane_fake_new(const struct dataplane_fake_sizes *sizes, struct dataplane **ret);

/* Counted from 0 and per key, also inside a batch. */
uint64_t dataplane_fake_ops(const struct dataplane *dp);
uint64_t dataplane_fake_table_ops(const struct dataplane *dp, enum dp_table table);
uint64_t dataplane_fake_graces(const struct dataplane *dp);
size_t dataplane_fake_count(const struct dataplane *dp, enum dp_table table);
const void *dataplane_fake_get(const struct dataplane *dp, enum dp_table table, const void *key);
bool dataplane_fake_policies(const struct dataplane *dp);
/* Operation number op (and the n - 1 after it) fails with -err, without effect. */
void dataplane_fake_fail(struct dataplane *dp, uint64_t op, uint64_t n, int err);
/* Every operation on the table fails with -err; 0: works again. */
void dataplane_fake_fail_table(struct dataplane *dp, enum dp_table table, int err);
/*
 * The agent dies right after operation number op: later ones fail with -EIO, and revive() brings
 * back what the arrays held then, with the first n of the stores made before the next operation.
 */
void dataplane_fake_crash(struct dataplane *dp, uint64_t op);
bool dataplane_fake_crashed(const struct dataplane *dp);
void dataplane_fake_revive(struct dataplane *dp, size_t n);
/* Called after every operation on a key. */
typedef void (*dataplane_fake_hook_fn)(struct dataplane *dp, void *ctx);
void dataplane_fake_hook(struct dataplane *dp, dataplane_fake_hook_fn fn, void *ctx);
/* Was a policies' table written after a flip, before a grace begun since had ended? */
bool dataplane_fake_hasty(const struct dataplane *dp);
/* Was ever waited for those who read what had been in force until the last flip? */
bool dataplane_fake_impatient(const struct dataplane *dp);
/* Was an insert into wag_svc ever made after a delete from it without a grace between? */
bool dataplane_fake_recycled(const struct dataplane *dp);
