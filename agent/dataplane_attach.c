// SPDX-License-Identifier: Apache-2.0
/*
 * Which program runs where. Every switch is one atomic step of the kernel (a link update or a
 * filter replaced in place), and what replaces something is there before that goes. The caller
 * holds the pin dir's lock.
 */
#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include <waggle/endpoint_limit.h>
#include <waggle/netlink.h>
#include <waggle/pins.h>
#include "dataplane_internal.h"

#define LO_IFINDEX 1

/* Does the kernel know TCX? A link to a device that cannot exist tells, and leaves no trace. */
static int probe_tcx(void)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts,
		    .expected_attach_type = (enum bpf_attach_type)DP_TCX_INGRESS);
	const struct bpf_insn insns[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	_cleanup_close_ int prog = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "wag_probe",
						 "Dual BSD/GPL", insns, 2, &opts);
	int fd;

	if (prog < 0)
		return errno == EINVAL ? 0 : -errno;
	fd = bpf_link_create(prog, INT32_MAX, (enum bpf_attach_type)DP_TCX_INGRESS, NULL);
	if (fd >= 0)
		close(fd);
	return fd >= 0 || errno == ENODEV;
}

/* Left to us, pods get clsact even where there is TCX: docs/adr/0007-pods-by-clsact.md. */
int dp_probe_attach(struct dataplane *dp, uint32_t wanted, struct wag_err *err)
{
	struct utsname uts;
	int tcx;

	dp->attach = wanted ? wanted : WAG_ATTACH_CLSACT;
	dp->net_attach = WAG_ATTACH_CLSACT;
	if (wanted == WAG_ATTACH_CLSACT)
		return 0;
	uname(&uts);
	tcx = probe_tcx();
	if (tcx < 0)
		return wag_err_set(err, tcx, "BPF programs cannot be loaded on Linux %s: %s%s",
				   uts.release, strerror(-tcx),
				   tcx == -EPERM ? " (run as root)" : "");
	if (!tcx && wanted == WAG_ATTACH_TCX)
		return wag_err_set(err, -EOPNOTSUPP,
				   "--attach=tcx: Linux %s has no TCX links (6.6 has): give "
				   "--attach=auto",
				   uts.release);
	if (tcx)
		dp->net_attach = WAG_ATTACH_TCX;
	return 0;
}

/* ---- TCX links ---- */

/* The kernel writes {ifindex, attach_type} at this place; 6.1's headers do not name it yet. */
uint32_t dp_link_ifindex(int fd)
{
	struct bpf_link_info info = { 0 };
	uint32_t len = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return 0;
	return info.xdp.ifindex;
}

static int attach_tcx(const char *path, uint32_t ifindex, bool egress, bool ahead, int prog_fd)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = ahead ? DP_TCX_BEFORE : 0);
	_cleanup_close_ int fd = bpf_obj_get(path);

	if (fd >= 0 && dp_link_ifindex(fd) == ifindex)
		return bpf_link_update(fd, prog_fd, NULL) < 0 ? -errno : 0;
	closep(&fd);
	fd = bpf_link_create(prog_fd, (int)ifindex,
			     (enum bpf_attach_type)(egress ? DP_TCX_EGRESS : DP_TCX_INGRESS),
			     &opts);
	if (fd < 0)
		return -errno;
	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	return bpf_obj_pin(fd, path) < 0 ? -errno : 0;
}

static int attach_one(const struct dataplane *dp, struct nl *nl, const struct dp_device *dev,
		      uint32_t how, bool egress, const char *prog, struct wag_err *err)
{
	int fd = dp_prog_fd(dp, prog), r;
	char path[4096];

	if (fd < 0)
		return wag_err_set(err, fd, "program %s: missing", prog);
	r = pins_tcx_path(path, sizeof(path), dp->pin_dir, dev->name, dev->ifindex, egress);
	if (r == 0 && how == WAG_ATTACH_TCX) {
		r = attach_tcx(path, dev->ifindex, egress, false, fd);
	} else if (r == 0) {
		r = nl_tc_attach(nl, dev->ifindex, egress, fd, prog);
		if (r == 0)
			unlink(path);
	}
	if (r < 0)
		return wag_err_set(err, r, "attaching %s to %s: %s", prog, dev->name, strerror(-r));
	return 0;
}

bool dataplane_pods_settle(const struct dataplane *dp)
{
	return dp->attach == WAG_ATTACH_CLSACT && dp->net_attach == WAG_ATTACH_TCX;
}

/* A pod that has its link by now keeps it. */
static bool has_settled(const struct dataplane *dp, const struct dp_device *dev)
{
	_cleanup_close_ int fd = -1;
	char path[4096];

	if (!dataplane_pods_settle(dp) ||
	    pins_tcx_path(path, sizeof(path), dp->pin_dir, dev->name, dev->ifindex, false) < 0)
		return false;
	fd = bpf_obj_get(path);
	return fd >= 0 && dp_link_ifindex(fd) == dev->ifindex;
}

static int attach_pod(const struct dataplane *dp, struct nl *nl, const struct dp_device *dev,
		      struct wag_err *err)
{
	bool settled = has_settled(dp, dev);
	int r = attach_one(dp, nl, dev, settled ? WAG_ATTACH_TCX : dp->attach, false,
			   "wag_from_pod", err);

	if (r == 0)
		r = attach_one(dp, nl, dev, dp->attach, true, "wag_to_pod", err);
	if (r == 0 && dp->attach == WAG_ATTACH_TCX)
		nl_tc_remove(nl, dev->ifindex);
	else if (r == 0 && settled)
		nl_tc_detach(nl, dev->ifindex, false);
	return r;
}

static int attach_both(const struct dataplane *dp, struct nl *nl, const struct dp_device *dev,
		       uint32_t how, const char *ingress, const char *egress, struct wag_err *err)
{
	int r = attach_one(dp, nl, dev, how, false, ingress, err);

	if (r == 0)
		r = attach_one(dp, nl, dev, how, true, egress, err);
	if (r == 0 && how == WAG_ATTACH_TCX)
		nl_tc_remove(nl, dev->ifindex);
	return r;
}

/* ---- pods: what the CNI attached before ---- */

static bool has_limit(const struct dataplane *dp, uint32_t ifindex, uint32_t direction)
{
	struct wag_limit_key key = { ifindex, direction };
	struct wag_limit value;

	return bpf_map_lookup_elem(dataplane_map_fd(dp, "wag_limit"), &key, &value) == 0;
}

static int attach_limit(const struct dataplane *dp, struct nl *nl, const struct dp_device *dev,
			bool egress, const char *prog, struct wag_err *err)
{
	int fd = dp_prog_fd(dp, prog), r = fd;
	char path[4096];

	if (r >= 0)
		r = limit_link_path(path, sizeof(path), dp->pin_dir, dev->name, dev->ifindex,
				    egress);
	if (r == 0 && dp->attach == WAG_ATTACH_TCX) {
		r = attach_tcx(path, dev->ifindex, egress, true, fd);
	} else if (r == 0) {
		r = nl_tc_attach_first(nl, dev->ifindex, egress, fd, prog);
		if (r == 0)
			unlink(path);
	}
	return r < 0 ? wag_err_set(err, r, "attaching %s to %s: %s", prog, dev->name, strerror(-r))
		     : 0;
}

/* Only where the pod has one, before the others: they are replaced behind it. */
static int attach_limits(const struct dataplane *dp, struct nl *nl, const struct dp_device *dev,
			 struct wag_err *err)
{
	int r = 0;

	if (has_limit(dp, dev->ifindex, WAG_LIMIT_EGRESS))
		r = attach_limit(dp, nl, dev, false, "wag_limit_egress", err);
	if (r == 0 && has_limit(dp, dev->ifindex, WAG_LIMIT_INGRESS))
		r = attach_limit(dp, nl, dev, true, "wag_limit_ingress", err);
	return r;
}

int dp_attach_pods(struct dataplane *dp, struct wag_err *err)
{
	_cleanup_(nl_freep) struct nl *nl = NULL;
	int fd = dataplane_map_fd(dp, "wag_endpoint"), r;
	struct wag_endpoint ep;
	uint32_t id = 0;
	bool first = true;

	r = nl_new(&nl);
	if (r < 0)
		return wag_err_set(err, r, "rtnetlink: %s", strerror(-r));
	while (bpf_map_get_next_key(fd, first ? NULL : &id, &id) == 0) {
		struct dp_device dev = { 0 };
		struct nl_link link;

		first = false;
		if (bpf_map_lookup_elem(fd, &id, &ep) < 0)
			continue;
		/* A pod whose namespace is gone without a DEL: nothing to attach to. */
		if (nl_link_get_by_index(nl, ep.ifindex, &link) < 0)
			continue;
		dev.ifindex = ep.ifindex;
		memcpy(dev.name, ep.ifname, sizeof(dev.name));
		dev.name[sizeof(dev.name) - 1] = 0;
		r = attach_pod(dp, nl, &dev, err);
		if (r == 0)
			r = attach_limits(dp, nl, &dev, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int dp_attach_tunnel(struct dataplane *dp, struct wag_err *err)
{
	_cleanup_(nl_freep) struct nl *nl = NULL;
	int r;

	if (!dp->tunnel)
		return 0;
	r = nl_new(&nl);
	if (r < 0)
		return wag_err_set(err, r, "rtnetlink: %s", strerror(-r));
	return attach_both(dp, nl, &dp->tunnel_dev, dp->net_attach, "wag_from_tunnel",
			   "wag_to_tunnel", err);
}

/* ---- node devices ---- */

static bool is_kept(const struct dataplane *dp, const char *name, const struct dp_device *devices,
		    size_t n)
{
	char path[4096];

	for (size_t i = 0; i < n; i++) {
		for (int egress = 0; egress < 2; egress++) {
			if (pins_tcx_path(path, sizeof(path), dp->pin_dir, devices[i].name,
					  devices[i].ifindex, egress) == 0 &&
			    strcmp(strrchr(path, '/') + 1, name) == 0)
				return true;
		}
	}
	return false;
}

/* A link whose device is gone, or that sits on a device that is none of the node's any more. */
static void collect_link(const struct dataplane *dp, const char *name,
			 const struct dp_device *devices, size_t n)
{
	_cleanup_close_ int fd = -1;
	char path[4096];

	if (strncmp(name, "cgroup_", 7) == 0 || strstr(name, "_xdp_") ||
	    dp_path(path, sizeof(path), dp->pin_dir, "links", name) < 0)
		return;
	fd = bpf_obj_get(path);
	if (fd < 0)
		return;
	if (dp_link_ifindex(fd) == 0 ||
	    (strncmp(name, "wag", 3) != 0 && !is_kept(dp, name, devices, n)))
		unlink(path);
}

static int collect_links(const struct dataplane *dp, const struct dp_device *devices, size_t n)
{
	char path[4096];
	struct dirent *e;
	DIR *dir;

	if (dp_path(path, sizeof(path), dp->pin_dir, "links", NULL) < 0)
		return -ENAMETOOLONG;
	dir = opendir(path);
	if (!dir)
		return -errno;
	while ((e = readdir(dir)))
		if (e->d_name[0] != '.')
			collect_link(dp, e->d_name, devices, n);
	closedir(dir);
	return 0;
}

struct filters {
	struct nl *nl;
	const struct dp_device *devices;
	size_t n;
};

/* clsact leaves no pins to tell where we were: our fixed handle on any other device is removed. */
static int collect_filter(const struct nl_link *link, void *ctx)
{
	const struct filters *f = ctx;

	if (strncmp(link->name, "wag", 3) == 0)
		return 0;
	for (size_t i = 0; i < f->n; i++)
		if (f->devices[i].ifindex == link->ifindex)
			return 0;
	nl_tc_remove(f->nl, link->ifindex);
	return 0;
}

/* The node's devices, and lo where the packet path must serve the node's own sockets. */
static struct dp_device *all_devices(const struct dataplane *dp, const struct dp_device *devices,
				     size_t *n)
{
	struct dp_device *all = calloc(*n + 1, sizeof(*all));

	if (!all)
		return NULL;
	if (*n)
		memcpy(all, devices, *n * sizeof(*all));
	if (dp->socket_lb == WAG_SOCKET_LB_OFF) {
		all[*n].ifindex = LO_IFINDEX;
		strcpy(all[(*n)++].name, "lo");
	}
	return all;
}

int dp_attach_devices(struct dataplane *dp, const struct dp_device *devices, size_t n,
		      struct wag_err *err)
{
	_cleanup_free_ struct dp_device *all = all_devices(dp, devices, &n);
	_cleanup_(nl_freep) struct nl *nl = NULL;
	int r = all ? nl_new(&nl) : -ENOMEM;

	if (r < 0)
		return wag_err_set(err, r, "rtnetlink: %s", strerror(-r));
	for (size_t i = 0; i < n; i++) {
		r = attach_both(dp, nl, &all[i], dp->net_attach, "wag_from_net", "wag_to_net", err);
		/* A device that went away since it was listed is the next listing's matter. */
		if (r < 0 && r != -ENODEV)
			return r;
	}
	return 0;
}

int dp_collect_devices(struct dataplane *dp, const struct dp_device *devices, size_t n,
		       struct wag_err *err)
{
	_cleanup_free_ struct dp_device *all = all_devices(dp, devices, &n);
	_cleanup_(nl_freep) struct nl *nl = NULL;
	_cleanup_(nl_freep) struct nl *list = NULL;
	struct filters filters;
	int r = all ? nl_new(&nl) : -ENOMEM;

	if (r == 0)
		r = nl_new(&list);
	if (r < 0)
		return wag_err_set(err, r, "rtnetlink: %s", strerror(-r));
	r = collect_links(dp, all, n);
	if (r < 0)
		return wag_err_set(err, r, "%s/links: %s", dp->pin_dir, strerror(-r));
	filters = (struct filters){ nl, all, n };
	nl_link_list(list, collect_filter, &filters);
	return 0;
}

/* ---- the cgroup ---- */

static bool same_cgroup(int link_fd, int cgroup_fd)
{
	struct bpf_link_info info = { 0 };
	uint32_t len = sizeof(info);
	struct stat st;

	return bpf_obj_get_info_by_fd(link_fd, &info, &len) == 0 && fstat(cgroup_fd, &st) == 0 &&
	       info.cgroup.cgroup_id == st.st_ino;
}

static int attach_cgroup_one(const struct dataplane *dp, const struct bpf_program *prog,
			     struct wag_err *err)
{
	enum bpf_attach_type type = bpf_program__expected_attach_type(prog);
	int prog_fd = bpf_program__fd(prog), r;
	_cleanup_close_ int fd = -1;
	char path[4096], name[64];

	snprintf(name, sizeof(name), "cgroup_%s", bpf_program__name(prog));
	r = dp_path(path, sizeof(path), dp->pin_dir, "links", name);
	if (r < 0)
		return wag_err_set(err, r, "--pin-dir: too long");
	fd = bpf_obj_get(path);
	if (fd >= 0 && same_cgroup(fd, dp->cgroup_fd)) {
		if (bpf_link_update(fd, prog_fd, NULL) == 0)
			return 0;
		return wag_err_set(err, -errno, "update of %s: %s", name, strerror(errno));
	}
	closep(&fd);
	fd = bpf_link_create(prog_fd, dp->cgroup_fd, type, NULL);
	if (fd < 0)
		return wag_err_set(err, -errno,
				   "attaching %s to the cgroup: %s (is --cgroup a cgroup2 folder, "
				   "and CONFIG_CGROUP_BPF on? --socket-lb=off does without)",
				   bpf_program__name(prog), strerror(errno));
	if ((unlink(path) < 0 && errno != ENOENT) || bpf_obj_pin(fd, path) < 0)
		return wag_err_set(err, -errno, "pin of %s: %s", path, strerror(errno));
	return 0;
}

static int remove_links(const char *pin_dir, const char *prefix)
{
	char path[4096];
	struct dirent *e;
	DIR *dir;

	if (dp_path(path, sizeof(path), pin_dir, "links", NULL) < 0)
		return -ENAMETOOLONG;
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? 0 : -errno;
	while ((e = readdir(dir)))
		if (e->d_name[0] != '.' && strncmp(e->d_name, prefix, strlen(prefix)) == 0)
			unlinkat(dirfd(dir), e->d_name, 0);
	closedir(dir);
	return 0;
}

int dp_attach_cgroup(struct dataplane *dp, struct wag_err *err)
{
	struct bpf_object *obj = dp_object(dp, 2);
	struct bpf_program *prog;
	int r = 0;

	if (!obj) {
		r = remove_links(dp->pin_dir, "cgroup_");
		return r < 0 ? wag_err_set(err, r, "%s/links: %s", dp->pin_dir, strerror(-r)) : 0;
	}
	bpf_object__for_each_program(prog, obj)
	{
		r = attach_cgroup_one(dp, prog, err);
		if (r < 0)
			break;
	}
	return r;
}

/* ---- --cleanup ---- */

static int detach_filters(const struct nl_link *link, void *ctx)
{
	nl_tc_remove(ctx, link->ifindex);
	return 0;
}

int dp_detach_all(const char *pin_dir, struct wag_err *err)
{
	static const char *const subs[] = { "links", "progs", DP_ASIDE, "maps" };
	_cleanup_(nl_freep) struct nl *nl = NULL;
	_cleanup_(nl_freep) struct nl *list = NULL;
	_cleanup_close_ int lock = pins_lock(pin_dir, 10000);
	int r = lock < 0 ? lock : nl_new(&nl);

	if (r == 0)
		r = nl_new(&list);
	if (r < 0)
		return wag_err_set(err, r, "%s: %s", pin_dir, strerror(-r));
	nl_link_list(list, detach_filters, nl);
	for (size_t i = 0; i < 4; i++)
		dp_remove_dir(pin_dir, subs[i]);
	if (rmdir(pin_dir) < 0 && errno != ENOENT)
		return wag_err_set(err, -errno, "%s: %s", pin_dir, strerror(errno));
	return 0;
}
