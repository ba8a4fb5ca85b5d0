// SPDX-License-Identifier: Apache-2.0
/* What the agent tells in one place each: wag_runtime to the programs, wag_meta to CNI and CLI. */
#include <bpf/bpf.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include "dataplane_internal.h"

/* One switch of wag_runtime, which has other writers too. */
static int set_runtime(struct dataplane *dp, size_t offset, bool on)
{
	int fd = dataplane_map_fd(dp, "wag_runtime");

	return fd < 0 ? fd : bpfsys_array_store(fd, offset, on);
}

int dataplane_set_policies(struct dataplane *dp, bool on)
{
	return set_runtime(dp, offsetof(struct wag_runtime, policies), on);
}

int dataplane_set_nodes(struct dataplane *dp)
{
	return set_runtime(dp, offsetof(struct wag_runtime, nodes), true);
}

int dataplane_set_pacing(struct dataplane *dp, bool on)
{
	return set_runtime(dp, offsetof(struct wag_runtime, pacing), on);
}

/*
 * Until ABI 2 there were two generations, named by the lowest bit of the epoch. This one says the
 * same to the programs of that agent, which still run, and to ours.
 */
static int adopt_two_generations(struct dataplane *dp)
{
	uint32_t epoch;
	int r = dataplane_policy_epoch(dp, &epoch);

	return r < 0 || !(epoch & 2) ? r : dataplane_set_policy_epoch(dp, epoch + 2);
}

int dp_write_meta(struct dataplane *dp, const struct dataplane_options *o, struct wag_err *err)
{
	struct wag_meta meta = {
		.magic = WAG_META_MAGIC,
		.abi = WAG_ABI,
		.attach = dp->attach,
		.socket_lb = dp->socket_lb,
		.agent_pid = (uint32_t)getpid(),
		.mtu = o->mtu,
		.route_mtu = o->route_mtu,
		.routing = o->routing,
		.node_v4 = o->node_v4,
		.node_v6 = o->node_v6,
	};
	int fd = dataplane_map_fd(dp, "wag_meta"), r = 0;
	struct wag_meta before = { 0 };
	struct timespec now;
	uint32_t zero = 0;

	/* The agent before this one knew the nodes, even if it did not know this switch yet. */
	if (bpf_map_lookup_elem(fd, &zero, &before) == 0 && before.synced_ns)
		r = dataplane_set_nodes(dp);
	if (r == 0 && before.abi < 2)
		r = adopt_two_generations(dp);
	if (r < 0)
		return wag_err_set(err, r, "map wag_runtime: %s", strerror(-r));
	clock_gettime(CLOCK_MONOTONIC, &now);
	meta.started_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	snprintf(meta.node_name, sizeof(meta.node_name), "%s", o->node_name);
	snprintf(meta.version, sizeof(meta.version), "%s", WAGGLE_VERSION);
	if (bpf_map_update_elem(fd, &zero, &meta, BPF_ANY) < 0)
		return wag_err_set(err, -errno, "map wag_meta: %s", strerror(errno));
	return 0;
}

int dataplane_set_mtu(struct dataplane *dp, uint32_t mtu, uint32_t route_mtu)
{
	int fd = dataplane_map_fd(dp, "wag_meta");
	struct wag_meta meta;
	uint32_t zero = 0;

	if (bpf_map_lookup_elem(fd, &zero, &meta) < 0)
		return -errno;
	if (meta.mtu == mtu && meta.route_mtu == route_mtu)
		return 0;
	meta.mtu = mtu;
	meta.route_mtu = route_mtu;
	return bpf_map_update_elem(fd, &zero, &meta, BPF_ANY) < 0 ? -errno : 0;
}

int dataplane_set_synced(struct dataplane *dp, uint64_t now_ns)
{
	int fd = dataplane_map_fd(dp, "wag_meta");
	struct wag_meta meta;
	uint32_t zero = 0;

	if (bpf_map_lookup_elem(fd, &zero, &meta) < 0)
		return -errno;
	meta.synced_ns = now_ns;
	return bpf_map_update_elem(fd, &zero, &meta, BPF_ANY) < 0 ? -errno : 0;
}

int dataplane_set_policy_epoch(struct dataplane *dp, uint32_t epoch)
{
	int fd = dataplane_map_fd(dp, "wag_runtime");

	return fd < 0 ? fd :
			bpfsys_array_store(fd, offsetof(struct wag_runtime, policy_epoch), epoch);
}

int dataplane_policy_epoch(struct dataplane *dp, uint32_t *ret)
{
	int fd = dataplane_map_fd(dp, "wag_runtime");
	struct wag_runtime runtime;
	uint32_t zero = 0;

	if (fd < 0 || bpf_map_lookup_elem(fd, &zero, &runtime) < 0)
		return fd < 0 ? fd : -errno;
	*ret = runtime.policy_epoch;
	return 0;
}

int dataplane_reset_rule(struct dataplane *dp, uint32_t rule)
{
	_cleanup_free_ struct wag_stat *zero = calloc(dataplane_n_cpus(), sizeof(*zero));
	int fd = dataplane_map_fd(dp, "wag_rule_stat");

	if (!zero || fd < 0)
		return zero ? fd : -ENOMEM;
	return bpf_map_update_elem(fd, &rule, zero, BPF_ANY) < 0 ? -errno : 0;
}
