// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/cleanup.h>
#include <waggle/deltamap.h>
#include "dataplane_fake.h"

struct dataplane {
	struct deltamap tables[DP_TABLES]; /* only the actual side is used */
	size_t max[DP_TABLES];
	struct wag_svc_state *states, *crash_states, *next_states;
	struct wag_slot *slots, *crash_slots, *next_slots;
	size_t n_states, n_slots;
	uint64_t ops, table_ops[DP_TABLES], graces, errors[DP_TABLES];
	uint64_t fail_from, fail_n, crash_op;
	int fail_err, last_err[DP_TABLES], table_err[DP_TABLES];
	bool will_crash, crashed, stopped, freed, recycled, policies;
	/* Of the generations of policies' tables: who may read them, and who waits for them. */
	bool readers[WAG_POLICY_GENS], grace_begun[WAG_POLICY_GENS], hasty, impatient;
	uint32_t retired; /* was in force last */
	uint32_t policy_epoch;
	dataplane_fake_hook_fn hook;
	void *hook_ctx;
};

static const struct {
	const char *name;
	size_t key, value;
} layout[DP_TABLES] = {
	[DP_SVC] = { "wag_svc", sizeof(struct wag_svc_key), sizeof(struct wag_svc) },
	[DP_SVC_NAME] = { "wag_svc_name", sizeof(__u32), sizeof(struct wag_svc_name) },
	[DP_BACKEND] = { "wag_backend", sizeof(struct wag_backend_key),
			 sizeof(struct wag_backend) },
	[DP_SRC_RANGE] = { "wag_src_range", sizeof(struct wag_src_range_key),
			   sizeof(struct wag_src_range) },
	[DP_NODE_ADDR] = { "wag_node_addr", sizeof(struct wag_addr), sizeof(struct wag_node_addr) },
	[DP_POLICY_NS] = { "wag_policy_ns", sizeof(struct wag_policy_ns_key),
			   sizeof(struct wag_policy_ns) },
	[DP_CIDR] = { "wag_cidr", sizeof(struct wag_cidr_key), sizeof(struct wag_cidr) },
	[DP_NODES] = { "wag_nodes", sizeof(struct wag_addr), sizeof(struct wag_node) },
	[DP_DEVICE] = { "wag_device", sizeof(__u32), sizeof(struct wag_device) },
	[DP_IPCACHE] = { "wag_ipcache", sizeof(struct wag_ipcache_key),
			 sizeof(struct wag_ipcache) },
	[DP_POLICY] = { "wag_policy", sizeof(struct wag_policy_key), sizeof(struct wag_policy) },
	[DP_RULE] = { "wag_rule", sizeof(struct wag_rule_key), sizeof(__u32) },
	[DP_PORT] = { "wag_port", sizeof(struct wag_port_key), sizeof(__u32) },
	[DP_PORT_EXACT] = { "wag_port_exact", sizeof(struct wag_port_key), sizeof(__u32) },
	[DP_RULE_NAME] = { "wag_rule_name", sizeof(__u32), sizeof(struct wag_rule_name) },
};

const char *dataplane_table_name(enum dp_table table)
{
	return layout[table].name;
}

size_t dataplane_key_size(enum dp_table table)
{
	return layout[table].key;
}

size_t dataplane_value_size(enum dp_table table)
{
	return layout[table].value;
}

int dataplane_fake_new(const struct dataplane_fake_sizes *sizes, struct dataplane **ret)
{
	_cleanup_(dataplane_freep) struct dataplane *dp = calloc(1, sizeof(*dp));

	if (!dp)
		return -ENOMEM;
	dp->n_states = sizes && sizes->n_states ? sizes->n_states : 16384;
	dp->n_slots = sizes && sizes->n_slots ? sizes->n_slots : 131072;
	dp->states = calloc(dp->n_states, sizeof(*dp->states));
	dp->slots = calloc(dp->n_slots, sizeof(*dp->slots));
	for (int t = 0; t < DP_TABLES; t++) {
		dp->max[t] = sizes && sizes->max[t] ? sizes->max[t] : 65536;
		deltamap_init(&dp->tables[t], layout[t].key, layout[t].value);
	}
	if (!dp->states || !dp->slots)
		return -ENOMEM;
	*ret = TAKE_PTR(dp);
	return 0;
}

void dataplane_free(struct dataplane *dp)
{
	if (!dp)
		return;
	for (int t = 0; t < DP_TABLES; t++)
		deltamap_done(&dp->tables[t]);
	free(dp->states);
	free(dp->slots);
	free(dp->crash_states);
	free(dp->crash_slots);
	free(dp->next_states);
	free(dp->next_slots);
	free(dp);
}

void dataplane_freep(struct dataplane **dp)
{
	dataplane_free(*dp);
}

static void snapshot(struct dataplane *dp, struct wag_svc_state **states, struct wag_slot **slots)
{
	*states = malloc(dp->n_states * sizeof(**states));
	*slots = malloc(dp->n_slots * sizeof(**slots));
	if (!*states || !*slots)
		abort();
	memcpy(*states, dp->states, dp->n_states * sizeof(**states));
	memcpy(*slots, dp->slots, dp->n_slots * sizeof(**slots));
}

/* 0: the operation may go on. */
static int begin(struct dataplane *dp, enum dp_table table)
{
	uint64_t op = dp->ops++;
	int err = dp->table_err[table];

	if (dp->crashed) {
		if (!dp->stopped)
			snapshot(dp, &dp->next_states, &dp->next_slots);
		dp->stopped = true;
		return -EIO;
	}
	dp->table_ops[table]++;
	if (op >= dp->fail_from && op - dp->fail_from < dp->fail_n)
		err = dp->fail_err;
	if (err) {
		dp->errors[table]++;
		dp->last_err[table] = err;
	}
	return -err;
}

static void end(struct dataplane *dp)
{
	if (dp->hook)
		dp->hook(dp, dp->hook_ctx);
	if (dp->will_crash && dp->ops > dp->crash_op) {
		snapshot(dp, &dp->crash_states, &dp->crash_slots);
		dp->will_crash = false;
		dp->crashed = true;
	}
}

/* Writing a generation that programs may still read. */
static void note_haste(struct dataplane *dp, enum dp_table table, const void *key)
{
	size_t at = dataplane_gen_offset(table);
	uint32_t gen;

	if (!at)
		return;
	memcpy(&gen, (const char *)key + at, sizeof(gen));
	dp->hasty |= gen >= WAG_POLICY_GENS || dp->readers[gen];
}

static int update_one(struct dataplane *dp, enum dp_table t, const void *key, const void *value)
{
	struct deltamap *m = &dp->tables[t];
	const void *old;
	int r = begin(dp, t);

	if (r < 0)
		return r;
	note_haste(dp, t, key);
	old = deltamap_actual(m, key);
	if (!old && m->n_actual >= dp->max[t]) {
		dp->errors[t]++;
		dp->last_err[t] = E2BIG;
		return -E2BIG;
	}
	if (t == DP_SVC && dp->freed)
		dp->recycled = true;
	if (t == DP_SVC && old)
		dp->freed = true;
	r = deltamap_set_actual(m, key, value);
	end(dp);
	return r;
}

static int delete_one(struct dataplane *dp, enum dp_table t, const void *key)
{
	int r = begin(dp, t);

	if (r < 0)
		return r;
	note_haste(dp, t, key);
	if (t == DP_SVC && deltamap_actual(&dp->tables[t], key))
		dp->freed = true;
	deltamap_unset_actual(&dp->tables[t], key);
	end(dp);
	return 0;
}

int dataplane_update(struct dataplane *dp, enum dp_table table, const void *keys,
		     const void *values, size_t n, size_t *ret_done)
{
	int r = 0;
	size_t i;

	for (i = 0; i < n && r == 0; i++)
		r = update_one(dp, table, (const char *)keys + i * layout[table].key,
			       (const char *)values + i * layout[table].value);
	if (ret_done)
		*ret_done = r < 0 ? i - 1 : i;
	return r;
}

int dataplane_delete(struct dataplane *dp, enum dp_table table, const void *keys, size_t n,
		     size_t *ret_done)
{
	int r = 0;
	size_t i;

	for (i = 0; i < n && r == 0; i++)
		r = delete_one(dp, table, (const char *)keys + i * layout[table].key);
	if (ret_done)
		*ret_done = r < 0 ? i - 1 : i;
	return r;
}

struct visit {
	dataplane_visit_fn fn;
	void *ctx;
};

static int visit_actual(const void *key, const void *desired, const void *actual, void *ctx)
{
	struct visit *v = ctx;

	return actual ? v->fn(key, actual, v->ctx) : 0;
}

int dataplane_visit(struct dataplane *dp, enum dp_table table, dataplane_visit_fn fn, void *ctx)
{
	struct visit v = { fn, ctx };

	return deltamap_visit(&dp->tables[table], visit_actual, &v);
}

struct wag_svc_state *dataplane_svc_state(struct dataplane *dp, size_t *ret_n)
{
	*ret_n = dp->n_states;
	return dp->states;
}

struct wag_slot *dataplane_slots(struct dataplane *dp, size_t *ret_n)
{
	*ret_n = dp->n_slots;
	return dp->slots;
}

int dataplane_reach(struct dataplane *dp, size_t n_states, size_t n_slots)
{
	return n_states > dp->n_states || n_slots > dp->n_slots ? -EINVAL : 0;
}

void dataplane_grace(struct dataplane *dp)
{
	dp->graces++;
	dp->freed = false;
}

void dataplane_grace_begin(struct dataplane *dp, uint32_t gen)
{
	dp->grace_begun[gen] = true;
}

void dataplane_grace_end(struct dataplane *dp, uint32_t gen)
{
	if (!dp->grace_begun[gen])
		return;
	dp->readers[gen] = false;
	dp->grace_begun[gen] = false;
	dp->impatient |= gen == dp->retired;
}

bool dataplane_fake_hasty(const struct dataplane *dp)
{
	return dp->hasty;
}

bool dataplane_fake_impatient(const struct dataplane *dp)
{
	return dp->impatient;
}

int dataplane_set_policies(struct dataplane *dp, bool on)
{
	dp->policies = on;
	return 0;
}

int dataplane_set_policy_epoch(struct dataplane *dp, uint32_t epoch)
{
	dp->retired = wag_policy_gen(dp->policy_epoch);
	dp->grace_begun[dp->retired] = false;
	dp->policy_epoch = epoch;
	dp->readers[wag_policy_gen(epoch)] = true;
	return 0;
}

int dataplane_policy_epoch(struct dataplane *dp, uint32_t *ret)
{
	*ret = dp->policy_epoch;
	return 0;
}

int dataplane_reset_rule(struct dataplane *dp, uint32_t rule)
{
	return 0;
}

bool dataplane_fake_policies(const struct dataplane *dp)
{
	return dp->policies;
}

void dataplane_visit_errors(struct dataplane *dp, dataplane_error_fn fn, void *ctx)
{
	for (int t = 0; t < DP_TABLES; t++)
		if (dp->errors[t])
			fn(layout[t].name, dp->last_err[t], dp->errors[t], ctx);
}

uint64_t dataplane_fake_ops(const struct dataplane *dp)
{
	return dp->ops;
}

uint64_t dataplane_fake_table_ops(const struct dataplane *dp, enum dp_table table)
{
	return dp->table_ops[table];
}

uint64_t dataplane_fake_graces(const struct dataplane *dp)
{
	return dp->graces;
}

size_t dataplane_fake_count(const struct dataplane *dp, enum dp_table table)
{
	return dp->tables[table].n_actual;
}

const void *dataplane_fake_get(const struct dataplane *dp, enum dp_table table, const void *key)
{
	return deltamap_actual(&dp->tables[table], key);
}

void dataplane_fake_fail(struct dataplane *dp, uint64_t op, uint64_t n, int err)
{
	dp->fail_from = op;
	dp->fail_n = n;
	dp->fail_err = err;
}

void dataplane_fake_fail_table(struct dataplane *dp, enum dp_table table, int err)
{
	dp->table_err[table] = err;
}

void dataplane_fake_crash(struct dataplane *dp, uint64_t op)
{
	dp->crash_op = op;
	dp->will_crash = true;
}

bool dataplane_fake_crashed(const struct dataplane *dp)
{
	return dp->crashed;
}

/* Stores come in the order slots, then states. */
void dataplane_fake_revive(struct dataplane *dp, size_t n)
{
	if (!dp->crashed)
		return;
	if (!dp->stopped)
		snapshot(dp, &dp->next_states, &dp->next_slots);
	for (size_t i = 0; i < dp->n_slots; i++) {
		dp->slots[i] = dp->crash_slots[i];
		if (memcmp(&dp->slots[i], &dp->next_slots[i], sizeof(dp->slots[i])) == 0 || n == 0)
			continue;
		dp->slots[i] = dp->next_slots[i];
		n--;
	}
	for (size_t i = 0; i < dp->n_states; i++) {
		dp->states[i] = dp->crash_states[i];
		if (n == 0 || memcmp(&dp->states[i], &dp->next_states[i],
				     sizeof(dp->states[i])) == 0)
			continue;
		dp->states[i] = dp->next_states[i];
		n--;
	}
	free(dp->crash_states);
	free(dp->crash_slots);
	free(dp->next_states);
	free(dp->next_slots);
	dp->crash_states = dp->next_states = NULL;
	dp->crash_slots = dp->next_slots = NULL;
	dp->crashed = dp->stopped = dp->will_crash = false;
	dp->fail_n = 0;
}

void dataplane_fake_hook(struct dataplane *dp, dataplane_fake_hook_fn fn, void *ctx)
{
	dp->hook = fn;
	dp->hook_ctx = ctx;
}

bool dataplane_fake_recycled(const struct dataplane *dp)
{
	return dp->recycled;
}
