// SPDX-License-Identifier: Apache-2.0
/*
 * The XDP program on the node's devices. A link's pin says where and how it is attached:
 * links/NAME_IFINDEX_xdp_native or _xdp_generic. The caller holds the pin dir's lock.
 */
#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include <waggle/pins.h>
#include "dataplane_internal.h"

#define XDP_MARK "_xdp_"

static bool is_generic(const struct dataplane *dp)
{
	return dp->acceleration == WAG_ACCELERATION_GENERIC;
}

static int link_name(const struct dataplane *dp, const struct dp_device *dev, char *buf,
		     size_t size)
{
	int n = snprintf(buf, size, "%s_%u" XDP_MARK "%s", dev->name, dev->ifindex,
			 is_generic(dp) ? "generic" : "native");

	if (n < 0 || n >= (int)size)
		return -ENAMETOOLONG;
	for (char *c = buf; *c; c++) /* bpffs refuses a dot */
		if (*c == '.')
			*c = '-';
	return 0;
}

/* At once: an unlinked link goes some time later, and until then no other takes its place. */
static void detach(const char *dir, const char *name)
{
	_cleanup_close_ int link = -1;
	char path[4096];

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
		return;
	link = bpf_obj_get(path);
	if (link >= 0)
		bpf_link_detach(link);
	unlink(path);
}

/* A link that went with its device, or that sits where, or how, it should not any more. */
static int collect(const struct dataplane *dp, const struct dp_device *devices, size_t n)
{
	char path[4096], want[64];
	struct dirent *e;
	DIR *dir;

	if (dp_path(path, sizeof(path), dp->pin_dir, "links", NULL) < 0)
		return -ENAMETOOLONG;
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? 0 : -errno;
	while ((e = readdir(dir))) {
		bool keep = !strstr(e->d_name, XDP_MARK);

		for (size_t i = 0; !keep && dp->acceleration && i < n; i++)
			keep = link_name(dp, &devices[i], want, sizeof(want)) == 0 &&
			       strcmp(want, e->d_name) == 0;
		if (!keep)
			detach(path, e->d_name);
	}
	closedir(dir);
	return 0;
}

static int attach(const struct dataplane *dp, const struct dp_device *dev)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts,
		    .flags = is_generic(dp) ? XDP_FLAGS_SKB_MODE : XDP_FLAGS_DRV_MODE);
	int prog = dp_prog_fd(dp, "wag_xdp_net"), r;
	_cleanup_close_ int link = -1;
	char path[4096], name[64];

	r = link_name(dp, dev, name, sizeof(name));
	if (r == 0)
		r = dp_path(path, sizeof(path), dp->pin_dir, "links", name);
	if (r < 0)
		return r;
	link = bpf_obj_get(path);
	if (link >= 0 && dp_link_ifindex(link) == dev->ifindex)
		return bpf_link_update(link, prog, NULL) < 0 ? -errno : 0;
	closep(&link);
	link = bpf_link_create(prog, (int)dev->ifindex, BPF_XDP, &opts);
	if (link < 0)
		return -errno;
	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	return bpf_obj_pin(link, path) < 0 ? -errno : 0;
}

static const char *remedy(int r)
{
	if (r == -EBUSY || r == -EEXIST)
		return "another XDP program is there (ip link set dev NAME xdp off)";
	if (r == -EOPNOTSUPP)
		return "its driver has no XDP";
	if (r == -EINVAL || r == -ERANGE || r == -ENOSPC)
		return "its driver refuses: a smaller MTU, fewer queues or no LRO may help";
	return strerror(-r);
}

/* Does the device take what other devices' programs send on? */
static int tell(const struct dataplane *dp, uint32_t ifindex, bool takes)
{
	int fd = dataplane_map_fd(dp, "wag_xdp_dev");
	uint32_t one = 1;

	if (takes)
		return bpf_map_update_elem(fd, &ifindex, &one, BPF_ANY) < 0 ? -errno : 0;
	bpf_map_delete_elem(fd, &ifindex);
	return 0;
}

static void forget_others(const struct dataplane *dp, const struct dp_device *devices, size_t n)
{
	int fd = dataplane_map_fd(dp, "wag_xdp_dev");
	uint32_t key, next;
	int r = bpf_map_get_next_key(fd, NULL, &next);

	while (r == 0) {
		bool known = false;

		key = next;
		r = bpf_map_get_next_key(fd, &key, &next);
		for (size_t i = 0; i < n; i++)
			known |= devices[i].ifindex == key;
		if (!known || !dp->acceleration)
			bpf_map_delete_elem(fd, &key);
	}
}

int dp_attach_xdp(struct dataplane *dp, const struct dp_device *devices, size_t n,
		  struct wag_err *err)
{
	int r = collect(dp, devices, n);

	if (r < 0)
		return wag_err_set(err, r, "%s/links: %s", dp->pin_dir, strerror(-r));
	forget_others(dp, devices, n);
	for (size_t i = 0; dp->acceleration && i < n; i++) {
		r = attach(dp, &devices[i]);
		if (r == -ENODEV)
			continue; /* it went away since it was listed */
		if (r < 0 && dp->acceleration != WAG_ACCELERATION_BEST_EFFORT)
			return wag_err_set(err, r,
					   "XDP on %s: %s; or give --lb-acceleration=best-effort",
					   devices[i].name, remedy(r));
		if (r < 0)
			dp_note(dp, "no XDP on %s, load balancing goes on without: %s",
				devices[i].name, remedy(r));
		r = tell(dp, devices[i].ifindex, r == 0);
		if (r < 0)
			return wag_err_set(err, r, "map wag_xdp_dev: %s", strerror(-r));
	}
	return 0;
}
