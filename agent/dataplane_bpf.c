// SPDX-License-Identifier: Apache-2.0
/* The door to the kernel: tables, arrays, and what opening and closing it means. */
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/membarrier.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include <waggle/map_walk.h>
#include <waggle/pins.h>
#include "dataplane_internal.h"

#define BATCH_MIN 16
#define BATCH_MAX 4096
#define LOCK_TIMEOUT_MS 10000
#define WINDOW (64 << 10) /* bytes of an array mapped at once */

static const struct {
	const char *name;
	size_t key_size, value_size;
} tables[DP_TABLES] = {
	[DP_SVC] = { "wag_svc", sizeof(struct wag_svc_key), sizeof(struct wag_svc) },
	[DP_SVC_NAME] = { "wag_svc_name", sizeof(uint32_t), sizeof(struct wag_svc_name) },
	[DP_BACKEND] = { "wag_backend", sizeof(struct wag_backend_key),
			 sizeof(struct wag_backend) },
	[DP_SRC_RANGE] = { "wag_src_range", sizeof(struct wag_src_range_key),
			   sizeof(struct wag_src_range) },
	[DP_NODE_ADDR] = { "wag_node_addr", sizeof(struct wag_addr), sizeof(struct wag_node_addr) },
	[DP_POLICY_NS] = { "wag_policy_ns", sizeof(struct wag_policy_ns_key),
			   sizeof(struct wag_policy_ns) },
	[DP_CIDR] = { "wag_cidr", sizeof(struct wag_cidr_key), sizeof(struct wag_cidr) },
	[DP_NODES] = { "wag_nodes", sizeof(struct wag_addr), sizeof(struct wag_node) },
	[DP_DEVICE] = { "wag_device", sizeof(uint32_t), sizeof(struct wag_device) },
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
	return tables[table].name;
}

size_t dataplane_key_size(enum dp_table table)
{
	return tables[table].key_size;
}

size_t dataplane_value_size(enum dp_table table)
{
	return tables[table].value_size;
}

void dp_note(struct dataplane *dp, const char *fmt, ...)
{
	char msg[512];
	va_list ap;

	if (!dp->note)
		return;
	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	dp->note(dp->note_ctx, msg);
}

struct dp_map *dp_map_find(struct dataplane *dp, const char *name)
{
	for (size_t i = 0; i < dp->n_maps; i++)
		if (strcmp(dp->maps[i].name, name) == 0)
			return &dp->maps[i];
	return NULL;
}

int dp_map_info(int fd, struct bpf_map_info *ret)
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return -errno;
	*ret = info;
	return 0;
}

int dataplane_map_fd(const struct dataplane *dp, const char *name)
{
	for (size_t i = 0; i < dp->n_maps; i++)
		if (strcmp(dp->maps[i].name, name) == 0)
			return dp->maps[i].fd;
	return -ENOENT;
}

size_t dataplane_n_maps(const struct dataplane *dp)
{
	return dp->n_maps;
}

const char *dataplane_map_name(const struct dataplane *dp, size_t i)
{
	return dp->maps[i].name;
}

uint32_t dataplane_map_capacity(const struct dataplane *dp, size_t i)
{
	struct bpf_map_info info;

	return dp_map_info(dp->maps[i].fd, &info) < 0 ? 0 : info.max_entries;
}

size_t dataplane_n_cpus(void)
{
	int n = libbpf_num_possible_cpus();

	return n > 0 ? (size_t)n : 1;
}

uint32_t dataplane_attach_mode(const struct dataplane *dp)
{
	return dp->attach;
}

uint32_t dataplane_attach_mode_net(const struct dataplane *dp)
{
	return dp->net_attach;
}

static void count(struct dataplane *dp, enum dp_table table, uint64_t *ok, size_t done, int r)
{
	*ok += done;
	if (r < 0) {
		dp->ops[table].failed++;
		dp->errors[table][-r < WAG_MAP_ERRNOS ? -r : 0]++;
	}
}

/* A batch call says how many it did, and may stop in the middle of one. */
static int update_batch(int fd, const char *keys, const char *values, uint32_t *n)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts);

	return bpf_map_update_batch(fd, keys, values, n, &opts) < 0 ? -errno : 0;
}

int dataplane_update(struct dataplane *dp, enum dp_table table, const void *keys,
		     const void *values, size_t n, size_t *ret_done)
{
	size_t ks = tables[table].key_size, vs = tables[table].value_size, done = 0;
	int fd = dataplane_map_fd(dp, tables[table].name), r = 0;

	while (done < n && r == 0) {
		const char *k = (const char *)keys + done * ks;
		const char *v = (const char *)values + done * vs;
		uint32_t some = (uint32_t)(n - done < BATCH_MAX ? n - done : BATCH_MAX);

		if (some >= BATCH_MIN) {
			uint32_t did = some;

			r = update_batch(fd, k, v, &did);
			done += r == 0 ? some : did < some ? did : 0;
			if (r == 0)
				continue;
			k = (const char *)keys + done * ks;
			v = (const char *)values + done * vs;
		}
		/* One by one: few of them, or to learn which one of a batch failed and why. */
		r = bpf_map_update_elem(fd, k, v, BPF_ANY) < 0 ? -errno : 0;
		done += r == 0;
	}
	count(dp, table, &dp->ops[table].updated, done, r);
	if (ret_done)
		*ret_done = done;
	return r;
}

int dataplane_delete(struct dataplane *dp, enum dp_table table, const void *keys, size_t n,
		     size_t *ret_done)
{
	size_t ks = tables[table].key_size, done = 0;
	int fd = dataplane_map_fd(dp, tables[table].name), r = 0;

	while (done < n && r == 0) {
		if (bpf_map_delete_elem(fd, (const char *)keys + done * ks) < 0 && errno != ENOENT)
			r = -errno;
		else
			done++;
	}
	count(dp, table, &dp->ops[table].deleted, done, r);
	if (ret_done)
		*ret_done = done;
	return r;
}

int dataplane_visit(struct dataplane *dp, enum dp_table table, dataplane_visit_fn fn, void *ctx)
{
	int fd = dataplane_map_fd(dp, tables[table].name);
	struct map_shape shape = { tables[table].key_size, tables[table].value_size };
	struct bpf_map_info info;
	int r = dp_map_info(fd, &info);

	if (r < 0)
		return r;
	shape.max_entries = info.max_entries;
	return map_walk(fd, &shape, fn, ctx);
}

struct wag_svc_state *dataplane_svc_state(struct dataplane *dp, size_t *ret_n)
{
	*ret_n = dp->states.n;
	return dp->states.base;
}

struct wag_slot *dataplane_slots(struct dataplane *dp, size_t *ret_n)
{
	*ret_n = dp->slots.n;
	return dp->slots.base;
}

static int array_reach(struct dp_array *a, size_t size, size_t n)
{
	size_t want = (n * size + WINDOW - 1) / WINDOW * WINDOW;

	if (n > a->n)
		return -EINVAL;
	if (want > a->bytes)
		want = a->bytes;
	if (want <= a->mapped)
		return 0;
	if (mmap((char *)a->base + a->mapped, want - a->mapped, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED, a->fd, (off_t)a->mapped) == MAP_FAILED)
		return -errno;
	a->mapped = want;
	return 0;
}

int dataplane_reach(struct dataplane *dp, size_t n_states, size_t n_slots)
{
	int r = array_reach(&dp->states, sizeof(struct wag_svc_state), n_states);

	return r == 0 ? array_reach(&dp->slots, sizeof(struct wag_slot), n_slots) : r;
}

void dataplane_grace(struct dataplane *dp)
{
	const struct timespec wait = { .tv_nsec = 100000000 };

	/* GLOBAL waits for an RCU grace period: every program that ran has left. */
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) < 0)
		nanosleep(&wait, NULL);
}

static void *grace(void *dp)
{
	dataplane_grace(dp);
	return NULL;
}

void dataplane_grace_begin(struct dataplane *dp, uint32_t gen)
{
	struct dp_grace *g = &dp->graces[gen];

	dataplane_grace_end(dp, gen);
	g->begun = true;
	g->threaded = pthread_create(&g->thread, NULL, grace, dp) == 0;
}

void dataplane_grace_end(struct dataplane *dp, uint32_t gen)
{
	struct dp_grace *g = &dp->graces[gen];

	if (!g->begun)
		return;
	if (g->threaded)
		pthread_join(g->thread, NULL);
	else
		dataplane_grace(dp);
	g->begun = false;
}

void dataplane_visit_errors(struct dataplane *dp, dataplane_error_fn fn, void *ctx)
{
	for (unsigned t = 0; t < DP_TABLES; t++)
		for (int e = 0; e < WAG_MAP_ERRNOS; e++)
			if (dp->errors[t][e])
				fn(tables[t].name, e, dp->errors[t][e], ctx);
}

void dataplane_ops(const struct dataplane *dp, enum dp_table table, struct dp_ops *ret)
{
	*ret = dp->ops[table];
}

/* Address space for the whole array; dataplane_reach() fills it with pages of the map. */
static int reserve_array(struct dataplane *dp, const char *name, size_t size, struct dp_array *ret,
			 struct wag_err *err)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	int fd = dataplane_map_fd(dp, name);
	struct bpf_map_info info;
	void *p;
	int r;

	r = fd < 0 ? fd : dp_map_info(fd, &info);
	if (r < 0)
		return wag_err_set(err, r, "map %s: %s", name, strerror(-r));
	ret->fd = fd;
	ret->n = info.max_entries;
	ret->bytes = (info.max_entries * size + page - 1) / page * page;
	p = mmap(NULL, ret->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return wag_err_set(err, -errno, "mmap of map %s: %s", name, strerror(errno));
	ret->base = p;
	r = array_reach(ret, size, 1);
	return r < 0 ? wag_err_set(err, r, "mmap of map %s: %s", name, strerror(-r)) : 0;
}

static int lock_failed(const char *path, int code, struct wag_err *err)
{
	if (code != EWOULDBLOCK && code != EACCES)
		return wag_err_set(err, -code, "lock of %s: %s", path, strerror(code));
	return wag_err_set(err, -EBUSY,
			   "another waggle-agent runs on %s: end it first, or give this one its "
			   "own --pin-dir and --state-dir",
			   path);
}

static int lock_dir(const char *path, int *ret, struct wag_err *err)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return wag_err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return lock_failed(path, errno, err);
	*ret = TAKE_FD(fd);
	return 0;
}

/* One that can be asked about without taking it: the CNI plugin looks whether an agent lives. */
static int lock_state(const char *path, int *ret, struct wag_err *err)
{
	_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (fd < 0)
		return wag_err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (fcntl(fd, F_OFD_SETLK, &whole) < 0)
		return lock_failed(path, errno, err);
	*ret = TAKE_FD(fd);
	return 0;
}

static int take_locks(const char *pin_dir, const char *state_dir, int *ret_state, int *ret_pin,
		      struct wag_err *err)
{
	char path[4096];
	int r;

	r = pins_mkdir_p(state_dir, 0755);
	if (r < 0)
		return wag_err_set(err, r, "--state-dir %s: %s", state_dir, strerror(-r));
	if (snprintf(path, sizeof(path), "%s/agent.lock", state_dir) >= (int)sizeof(path))
		return wag_err_set(err, -ENAMETOOLONG, "--state-dir: too long");
	r = lock_state(path, ret_state, err);
	if (r < 0)
		return r;
	r = dp_path(path, sizeof(path), pin_dir, "maps", NULL);
	if (r < 0)
		return wag_err_set(err, r, "--pin-dir: too long");
	return lock_dir(path, ret_pin, err);
}

int dataplane_in_use(const char *pin_dir, const char *state_dir, struct wag_err *err)
{
	_cleanup_close_ int state_fd = -1, pin_fd = -1;
	char path[4096];
	int r = 0;

	if (snprintf(path, sizeof(path), "%s/agent.lock", state_dir) < (int)sizeof(path) &&
	    access(path, F_OK) == 0)
		r = lock_state(path, &state_fd, err);
	if (r == 0 && dp_path(path, sizeof(path), pin_dir, "maps", NULL) == 0 &&
	    access(path, F_OK) == 0)
		r = lock_dir(path, &pin_fd, err);
	return r;
}

/* The moment of change: programs, pods and devices, under the lock the CNI takes too. */
static int switch_over(struct dataplane *dp, const struct dataplane_options *o, struct wag_err *err)
{
	_cleanup_close_ int lock = pins_lock(dp->pin_dir, LOCK_TIMEOUT_MS);
	int r;

	if (lock < 0)
		return wag_err_set(err, lock, "lock of %s: %s", dp->pin_dir,
				   lock == -EWOULDBLOCK ? "held by a CNI call for over 10 s"
							: strerror(-lock));
	r = dp_migrate_locked(dp, err);
	if (r == 0)
		r = dp_pin_maps(dp, err);
	if (r == 0)
		r = dp_pin_programs(dp, err);
	/* Sockets know no conntrack: they are not part of the time in which new flows must wait. */
	if (r == 0)
		r = dp_attach_cgroup(dp, err);
	if (r == 0)
		r = dp_migrate_begin(dp, err);
	if (r == 0)
		r = dp_attach_pods(dp, err);
	if (r == 0)
		r = dp_attach_tunnel(dp, err);
	if (r == 0)
		r = dp_attach_devices(dp, o->devices, o->n_devices, err);
	if (r == 0)
		r = dp_attach_xdp(dp, o->devices, o->n_devices, err);
	if (r == 0)
		r = dp_migrate_after(dp, err);
	if (r == 0)
		r = dp_pin_maps_final(dp, err);
	if (r == 0)
		r = dp_collect_devices(dp, o->devices, o->n_devices, err);
	return r;
}

static int new_dataplane(struct dataplane **ret, const struct dataplane_options *o)
{
	_cleanup_(dataplane_freep) struct dataplane *dp = calloc(1, sizeof(*dp));

	if (!dp)
		return -ENOMEM;
	dp->lock_fd = dp->pin_lock_fd = dp->cgroup_fd = -1;
	dp->socket_lb = o->socket_lb;
	dp->acceleration = o->acceleration;
	dp->note = o->note;
	dp->note_ctx = o->ctx;
	dp->tunnel_dev = o->tunnel.dev;
	dp->pin_dir = strdup(o->pin_dir);
	dp->state_dir = strdup(o->state_dir);
	if (!dp->pin_dir || !dp->state_dir)
		return -ENOMEM;
	*ret = TAKE_PTR(dp);
	return 0;
}

static int open_cgroup(const char *path, int *ret, struct wag_err *err)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct statfs fs;

	if (fd < 0 || fstatfs(fd, &fs) < 0)
		return wag_err_set(err, -errno, "--cgroup %s: %s", path, strerror(errno));
	if (fs.f_type != CGROUP2_SUPER_MAGIC)
		return wag_err_set(err, -EINVAL,
				   "--cgroup %s: not on a cgroup2 mount: name a folder of one, or "
				   "give --socket-lb=off",
				   path);
	*ret = TAKE_FD(fd);
	return 0;
}

int dataplane_open(struct dataplane **ret, const struct dataplane_options *o, struct wag_err *err)
{
	_cleanup_(dataplane_freep) struct dataplane *dp = NULL;
	int r;

	r = new_dataplane(&dp, o);
	if (r < 0)
		return wag_err_set(err, r, "out of memory");
	r = dp_ensure_bpffs(o->pin_dir, err);
	if (r == 0)
		r = take_locks(o->pin_dir, o->state_dir, &dp->lock_fd, &dp->pin_lock_fd, err);
	if (r == 0)
		r = dp_check_abi(o->pin_dir, err);
	if (r == 0)
		r = dp_probe_attach(dp, o->attach, err);
	if (r == 0 && o->socket_lb != WAG_SOCKET_LB_OFF)
		r = open_cgroup(o->cgroup, &dp->cgroup_fd, err);
	if (r == 0)
		r = dp_load(dp, o, err);
	if (r == 0)
		r = dp_migrate_before(dp, err);
	if (r == 0)
		r = reserve_array(dp, "wag_svc_state", sizeof(struct wag_svc_state), &dp->states,
				  err);
	if (r == 0)
		r = reserve_array(dp, "wag_slot", sizeof(struct wag_slot), &dp->slots, err);
	if (r == 0)
		r = dp_write_meta(dp, o, err);
	if (r == 0)
		r = switch_over(dp, o, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(dp);
	return 0;
}

int dataplane_set_devices(struct dataplane *dp, const struct dp_device *devices, size_t n,
			  struct wag_err *err)
{
	_cleanup_close_ int lock = pins_lock(dp->pin_dir, LOCK_TIMEOUT_MS);
	int r;

	if (lock < 0)
		return wag_err_set(err, lock, "lock of %s: %s", dp->pin_dir, strerror(-lock));
	r = dp_attach_devices(dp, devices, n, err);
	if (r == 0)
		r = dp_attach_xdp(dp, devices, n, err);
	return r == 0 ? dp_collect_devices(dp, devices, n, err) : r;
}

int dataplane_cleanup(const char *pin_dir, const char *state_dir, struct wag_err *err)
{
	_cleanup_close_ int state_fd = -1, pin_fd = -1;
	char path[4096];
	int r;

	if (dp_path(path, sizeof(path), pin_dir, "maps", NULL) == 0 && access(path, F_OK) < 0)
		return 0;
	r = take_locks(pin_dir, state_dir, &state_fd, &pin_fd, err);
	return r < 0 ? r : dp_detach_all(pin_dir, err);
}

void dataplane_free(struct dataplane *dp)
{
	if (!dp)
		return;
	for (uint32_t gen = 0; gen < WAG_POLICY_GENS; gen++)
		dataplane_grace_end(dp, gen);
	if (dp->states.base)
		munmap(dp->states.base, dp->states.bytes);
	if (dp->slots.base)
		munmap(dp->slots.base, dp->slots.bytes);
	dp_unload(dp);
	closep(&dp->cgroup_fd);
	closep(&dp->pin_lock_fd);
	closep(&dp->lock_fd);
	free(dp->pin_dir);
	free(dp->state_dir);
	free(dp);
}

void dataplane_freep(struct dataplane **dp)
{
	dataplane_free(*dp);
}
