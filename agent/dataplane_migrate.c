// SPDX-License-Identifier: Apache-2.0
/*
 * An upgrade: a pinned map of another layout or size has a new one beside it, and its live entries
 * are carried over while traffic flows:
 *   1. everything is copied while the old programs still write the old maps;
 *   2. wag_runtime.migrating makes the new programs drop (not misroute) packets of flows they do
 *      not know yet, and each hook is switched;
 *   3. the flows that began since (1) are copied; migrating ends; the new pins replace the old.
 * Between setting and ending it there is nothing but the switch and that copy: everything was
 * loaded before, and what is no longer wanted on any device is collected after.
 */
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <errno.h>
#include <string.h>
#include <time.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include <waggle/map_walk.h>
#include "dataplane_internal.h"

#define ADOPT_MAX 16 /* pairs one run of wag_ct_adopt takes */

enum role {
	ROLE_NONE,  /* nobody has thought of it */
	ROLE_FRESH, /* nothing in it is worth carrying, or somebody writes all of it anew */
	ROLE_AGENT, /* written by the agent only: copied once, before the switch */
	ROLE_CNI,   /* written under the pin dir's lock: copied once it is held */
	ROLE_FLOW,  /* written by the programs: copied before and after the switch */
	ROLE_CT,    /* the same, through wag_ct_adopt, which fills the ring as well */
};

static enum role role_of(const char *name)
{
	static const struct {
		const char *name;
		enum role role;
	} roles[] = {
		{ "wag_meta", ROLE_AGENT },
		{ "wag_runtime", ROLE_AGENT },
		{ "wag_node_addr", ROLE_AGENT },
		{ "wag_policy_ns", ROLE_AGENT },
		{ "wag_ipcache", ROLE_AGENT },
		{ "wag_policy", ROLE_AGENT },
		{ "wag_rule", ROLE_AGENT },
		{ "wag_port_exact", ROLE_AGENT },
		{ "wag_port", ROLE_AGENT },
		{ "wag_rule_stat", ROLE_AGENT },
		{ "wag_rule_name", ROLE_AGENT },
		{ "wag_cidr", ROLE_AGENT },
		{ "wag_nodes", ROLE_AGENT },
		{ "wag_device", ROLE_AGENT },
		{ "wag_svc", ROLE_AGENT },
		{ "wag_svc_state", ROLE_AGENT },
		{ "wag_slot", ROLE_AGENT },
		{ "wag_backend", ROLE_AGENT },
		{ "wag_src_range", ROLE_AGENT },
		{ "wag_svc_name", ROLE_AGENT },
		{ "wag_stats", ROLE_AGENT },
		{ "wag_map_errors", ROLE_AGENT },
		{ "wag_pods", ROLE_CNI },
		{ "wag_endpoint", ROLE_CNI },
		{ "wag_limit", ROLE_CNI },
		{ "wag_netns", ROLE_CNI },
		{ "wag_hostport", ROLE_CNI },
		{ "wag_affinity", ROLE_FLOW },
		{ "wag_sock", ROLE_FLOW },
		{ "wag_frag", ROLE_FLOW },
		{ "wag_ct", ROLE_CT },
		{ "wag_xdp_dev", ROLE_FRESH },
		{ "wag_netns_learn", ROLE_FRESH },
		{ "wag_ct_ring", ROLE_FRESH },
		{ "wag_ct_clock", ROLE_FRESH },
		{ "wag_frag_hold", ROLE_FRESH },
		{ "wag_events", ROLE_FRESH },
		{ "wag_scratch", ROLE_FRESH },
		{ "wag_flow_cache", ROLE_FRESH },
		{ "wag_flow_xlat", ROLE_FRESH },
		{ "wag_flow_hop", ROLE_FRESH },
	};

	for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
		if (strcmp(roles[i].name, name) == 0)
			return roles[i].role;
	return ROLE_NONE;
}

bool dp_needs_migration(const struct dataplane *dp)
{
	for (size_t i = 0; i < dp->n_maps; i++)
		if (dp->maps[i].old_fd >= 0)
			return true;
	return false;
}

/* One map's way from old to new. */
struct carry {
	struct dataplane *dp;
	struct dp_map *map;
	struct bpf_map_info from, to;
	struct dp_plan key, value;
	size_t carried;
	uint64_t since_ns;    /* conntrack: only what began later; 0: all */
	uint32_t created_off; /* of wag_ct.created_ns in the new layout */
	int adopt_fd;
	uint32_t n_pairs;
	char *pairs; /* ADOPT_MAX of the new key and value, packed */
	char *room;  /* of one */
};

static void carry_done(struct carry *c)
{
	free(c->key.copies);
	free(c->value.copies);
	free(c->pairs);
	free(c->room);
}

static int whole_copy(struct dp_plan *plan, uint32_t from, uint32_t to)
{
	if (from != to)
		return -EINVAL;
	plan->copies = calloc(1, sizeof(*plan->copies));
	if (!plan->copies)
		return -ENOMEM;
	plan->copies[0].size = from;
	plan->n = 1;
	return 0;
}

static int make_plans(struct carry *c)
{
	struct btf *from = c->from.btf_id ? btf__load_from_kernel_by_id(c->from.btf_id) : NULL;
	struct btf *to = c->to.btf_id ? btf__load_from_kernel_by_id(c->to.btf_id) : NULL;
	int r;

	if (from && to && c->from.btf_value_type_id && c->to.btf_value_type_id) {
		r = dp_plan_make(&c->key, from, c->from.btf_key_type_id, to, c->to.btf_key_type_id);
		if (r == 0)
			r = dp_plan_make(&c->value, from, c->from.btf_value_type_id, to,
					 c->to.btf_value_type_id);
	} else {
		r = whole_copy(&c->key, c->from.key_size, c->to.key_size);
		if (r == 0)
			r = whole_copy(&c->value, c->from.value_size, c->to.value_size);
	}
	btf__free(from);
	btf__free(to);
	return r;
}

static int carry_init(struct carry *c, struct dataplane *dp, struct dp_map *map)
{
	int r;

	*c = (struct carry){ .dp = dp, .map = map, .adopt_fd = -1 };
	r = dp_map_info(map->old_fd, &c->from);
	if (r == 0)
		r = dp_map_info(map->fd, &c->to);
	if (r == 0)
		r = make_plans(c);
	if (r < 0)
		return r;
	c->room = calloc(1, c->to.key_size + c->to.value_size);
	if (!c->room)
		return -ENOMEM;
	if (role_of(map->name) != ROLE_CT)
		return 0;
	c->created_off = offsetof(struct wag_ct, created_ns);
	c->adopt_fd = dp_prog_fd(dp, "wag_ct_adopt");
	c->pairs = calloc(ADOPT_MAX, c->to.key_size + c->to.value_size);
	return c->pairs ? c->adopt_fd < 0 ? c->adopt_fd : 0 : -ENOMEM;
}

static int flush_pairs(struct carry *c)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = c->pairs,
		    .data_size_in = c->n_pairs * (c->to.key_size + c->to.value_size));
	int r;

	if (!c->n_pairs)
		return 0;
	r = bpf_prog_test_run_opts(c->adopt_fd, &opts);
	if (r < 0)
		return -errno;
	c->carried += opts.retval;
	c->n_pairs = 0;
	return 0;
}

static int carry_flow(struct carry *c, const void *key, const void *value)
{
	uint32_t pair = c->to.key_size + c->to.value_size;
	char *at = c->pairs + c->n_pairs * pair;
	uint64_t created;

	dp_plan_apply(&c->key, key, at, c->to.key_size);
	dp_plan_apply(&c->value, value, at + c->to.key_size, c->to.value_size);
	memcpy(&created, at + c->to.key_size + c->created_off, sizeof(created));
	if (created < c->since_ns)
		return 0;
	return ++c->n_pairs == ADOPT_MAX ? flush_pairs(c) : 0;
}

/* A table that became too small is an error only where losing an entry would lose a Service. */
static int carry_entry(struct carry *c, const void *key, const void *value)
{
	char *to_key = c->room, *to_value = c->room + c->to.key_size;

	dp_plan_apply(&c->key, key, to_key, c->to.key_size);
	dp_plan_apply(&c->value, value, to_value, c->to.value_size);
	if (bpf_map_update_elem(c->map->fd, to_key, to_value, BPF_NOEXIST) < 0) {
		if (errno == EEXIST || role_of(c->map->name) == ROLE_FLOW)
			return 0;
		return -errno;
	}
	c->carried++;
	return 0;
}

static int carry_one(const void *key, const void *value, void *ctx)
{
	struct carry *c = ctx;

	return c->pairs ? carry_flow(c, key, value) : carry_entry(c, key, value);
}

static int carry_entries(struct carry *c)
{
	const struct map_shape shape = { c->from.key_size, c->from.value_size,
					 c->from.max_entries };
	int r = map_walk(c->map->old_fd, &shape, carry_one, c);

	return r == 0 && c->pairs ? flush_pairs(c) : r;
}

static bool is_zero(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i])
			return false;
	return true;
}

static int carry_array(struct carry *c)
{
	bool percpu = c->from.type == BPF_MAP_TYPE_PERCPU_ARRAY;
	size_t cpus = percpu ? (size_t)libbpf_num_possible_cpus() : 1;
	size_t from_step = percpu ? (c->from.value_size + 7) / 8 * 8 : c->from.value_size;
	size_t to_step = percpu ? (c->to.value_size + 7) / 8 * 8 : c->to.value_size;
	_cleanup_free_ char *from = calloc(cpus, from_step);
	_cleanup_free_ char *to = calloc(cpus, to_step);

	if (!from || !to)
		return -ENOMEM;
	for (uint32_t i = 0; i < c->from.max_entries; i++) {
		if (bpf_map_lookup_elem(c->map->old_fd, &i, from) < 0)
			return -errno;
		if (is_zero(from, cpus * from_step))
			continue;
		if (i >= c->to.max_entries)
			return -E2BIG;
		for (size_t cpu = 0; cpu < cpus; cpu++)
			dp_plan_apply(&c->value, from + cpu * from_step, to + cpu * to_step,
				      c->to.value_size);
		if (bpf_map_update_elem(c->map->fd, &i, to, BPF_ANY) < 0)
			return -errno;
		c->carried++;
	}
	return 0;
}

static int carry_map(struct dataplane *dp, struct dp_map *map, uint64_t since_ns,
		     struct wag_err *err)
{
	struct carry c;
	int r = carry_init(&c, dp, map);

	c.since_ns = since_ns;
	if (r == 0 && (c.from.type != c.to.type))
		r = -EOPNOTSUPP;
	if (r == 0 &&
	    (c.from.type == BPF_MAP_TYPE_ARRAY || c.from.type == BPF_MAP_TYPE_PERCPU_ARRAY))
		r = carry_array(&c);
	else if (r == 0)
		r = carry_entries(&c);
	if (r == 0)
		dp_note(dp, "upgrade: map %s: %zu entries carried over", map->name, c.carried);
	carry_done(&c);
	if (r == -E2BIG)
		return wag_err_set(err, r,
				   "map %s: what is in use does not fit the new size: raise "
				   "--svc-max and --slot-max",
				   map->name);
	if (r < 0)
		return wag_err_set(err, r, "carrying map %s over: %s", map->name, strerror(-r));
	return 0;
}

static int carry_all(struct dataplane *dp, enum role role, uint64_t since_ns, struct wag_err *err)
{
	int r = 0;

	for (size_t i = 0; i < dp->n_maps && r == 0; i++)
		if (dp->maps[i].old_fd >= 0 && role_of(dp->maps[i].name) == role)
			r = carry_map(dp, &dp->maps[i], since_ns, err);
	return r;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int set_migrating(struct dataplane *dp, uint32_t on, struct wag_err *err)
{
	int fd = dataplane_map_fd(dp, "wag_runtime");
	int r = fd < 0 ? fd : bpfsys_array_store(fd, offsetof(struct wag_runtime, migrating), on);

	return r < 0 ? wag_err_set(err, r, "map wag_runtime: %s", strerror(-r)) : 0;
}

/* At every start, so that a map is not forgotten until the day it changes. */
static int check_roles(const struct dataplane *dp, struct wag_err *err)
{
	for (size_t i = 0; i < dp->n_maps; i++)
		if (role_of(dp->maps[i].name) == ROLE_NONE)
			return wag_err_set(err, -EINVAL, "map %s: no role in an upgrade",
					   dp->maps[i].name);
	return 0;
}

int dp_migrate_before(struct dataplane *dp, struct wag_err *err)
{
	int r = check_roles(dp, err);

	dp->bulk_ns = now_ns();
	if (r == 0)
		r = carry_all(dp, ROLE_AGENT, 0, err);
	if (r == 0)
		r = carry_all(dp, ROLE_FLOW, 0, err);
	if (r == 0)
		r = carry_all(dp, ROLE_CT, 0, err);
	return r;
}

int dp_migrate_locked(struct dataplane *dp, struct wag_err *err)
{
	return carry_all(dp, ROLE_CNI, 0, err);
}

int dp_migrate_begin(struct dataplane *dp, struct wag_err *err)
{
	dp->window_ns = now_ns();
	return dp_needs_migration(dp) ? set_migrating(dp, 1, err) : 0;
}

int dp_migrate_after(struct dataplane *dp, struct wag_err *err)
{
	int r = carry_all(dp, ROLE_CT, dp->bulk_ns, err);

	/* Also ends what an agent that died in the middle of an upgrade began. */
	if (r == 0)
		r = set_migrating(dp, 0, err);
	if (r == 0 && dp_needs_migration(dp))
		dp_note(dp, "upgrade: new flows waited %.0f ms", (now_ns() - dp->window_ns) / 1e6);
	/* Nobody waits for these: a socket that was just translated knows its peer anyway. */
	return r == 0 ? carry_all(dp, ROLE_FLOW, 0, err) : r;
}
