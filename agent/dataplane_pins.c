// SPDX-License-Identifier: Apache-2.0
/* Where things stand below the pin dir: bpffs, the ABI found there, and putting pins in place. */
#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <waggle/cleanup.h>
#include <waggle/pins.h>
#include "dataplane_internal.h"

int dp_path(char *buf, size_t size, const char *pin_dir, const char *sub, const char *name)
{
	int n = snprintf(buf, size, "%s/%s%s%s", pin_dir, sub, name ? "/" : "", name ? name : "");

	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

/* ---- bpffs ---- */

/* 1: path, or the nearest parent that exists, is on a bpffs; 0: not. */
static int on_bpffs(const char *path)
{
	char at[4096];
	struct statfs fs;

	if (strlen(path) >= sizeof(at))
		return -ENAMETOOLONG;
	strcpy(at, path);
	while (statfs(at, &fs) < 0) {
		char *slash = strrchr(at, '/');

		if (errno != ENOENT || !slash)
			return -errno;
		slash[slash == at] = 0;
	}
	return fs.f_type == BPF_FS_MAGIC;
}

static int mount_bpffs(const char *pin_dir, struct wag_err *err)
{
	const char *usual = "/sys/fs/bpf";
	char at[4096], *slash;
	int r;

	if (strlen(pin_dir) >= sizeof(at))
		return wag_err_set(err, -ENAMETOOLONG, "--pin-dir: too long");
	strcpy(at, pin_dir);
	slash = strrchr(at, '/');
	if (strncmp(pin_dir, usual, strlen(usual)) == 0)
		strcpy(at, usual);
	else if (slash && slash != at)
		*slash = 0;
	else
		return wag_err_set(err, -EINVAL,
				   "--pin-dir %s: an absolute path below a bpffs is needed",
				   pin_dir);
	r = pins_mkdir_p(at, 0755);
	if (r == 0 && mount("bpf", at, "bpf", 0, "mode=0700") < 0)
		r = -errno;
	if (r < 0)
		return wag_err_set(err, r,
				   "%s is on no bpffs and mounting one failed (%s): as root run "
				   "mount -t bpf bpf %s",
				   pin_dir, strerror(-r), at);
	return 0;
}

int dp_ensure_bpffs(const char *pin_dir, struct wag_err *err)
{
	static const char *const subs[] = { "maps", "progs", "links" };
	char path[4096];
	int r = on_bpffs(pin_dir);

	if (r == 0)
		r = mount_bpffs(pin_dir, err);
	else if (r < 0)
		wag_err_set(err, r, "--pin-dir %s: %s", pin_dir, strerror(-r));
	for (size_t i = 0; i < 3 && r >= 0; i++) {
		r = dp_path(path, sizeof(path), pin_dir, subs[i], NULL);
		if (r == 0)
			r = pins_mkdir_p(path, 0700);
		if (r < 0)
			wag_err_set(err, r, "--pin-dir %s/%s: %s", pin_dir, subs[i], strerror(-r));
	}
	return r < 0 ? r : 0;
}

/* wag_meta starts with its magic and its ABI in every version of it. */
int dp_check_abi(const char *pin_dir, struct wag_err *err)
{
	_cleanup_close_ int fd = -1;
	_cleanup_free_ uint32_t *value = NULL;
	struct bpf_map_info info;
	uint32_t zero = 0;
	char path[4096];
	int r;

	r = pins_map_path(path, sizeof(path), pin_dir, "wag_meta");
	if (r < 0)
		return wag_err_set(err, r, "--pin-dir: too long");
	fd = bpf_obj_get(path);
	if (fd < 0)
		return errno == ENOENT ? 0
				       : wag_err_set(err, -errno, "%s: %s", path, strerror(errno));
	r = dp_map_info(fd, &info);
	if (r < 0)
		return wag_err_set(err, r, "%s: %s", path, strerror(-r));
	value = calloc(1, info.value_size + 2 * sizeof(*value));
	if (!value)
		return wag_err_set(err, -ENOMEM, "out of memory");
	if (info.type != BPF_MAP_TYPE_ARRAY || bpf_map_lookup_elem(fd, &zero, value) < 0 ||
	    (value[0] != WAG_META_MAGIC && value[0] != 0))
		return wag_err_set(err, -EINVAL,
				   "%s is not Waggle's: give another --pin-dir, or remove it",
				   path);
	if (value[1] > WAG_ABI)
		return wag_err_set(err, -EPROTONOSUPPORT,
				   "%s belongs to a newer Waggle (ABI %u, this one knows %u): run "
				   "that version, or remove its state with waggle-agent --cleanup "
				   "--pin-dir %s (ends its connections)",
				   pin_dir, value[1], WAG_ABI, pin_dir);
	return 0;
}

void dp_remove_dir(const char *pin_dir, const char *sub)
{
	char path[4096];
	struct dirent *e;
	DIR *dir;

	if (dp_path(path, sizeof(path), pin_dir, sub, NULL) < 0)
		return;
	dir = opendir(path);
	if (!dir)
		return;
	while ((e = readdir(dir)))
		if (e->d_name[0] != '.')
			unlinkat(dirfd(dir), e->d_name, 0);
	closedir(dir);
	rmdir(path);
}

static int pin(const struct dataplane *dp, const char *sub, const char *name, int fd,
	       struct wag_err *err)
{
	char path[4096];
	int r = dp_path(path, sizeof(path), dp->pin_dir, sub, name);

	if (r == 0 && unlink(path) < 0 && errno != ENOENT)
		r = -errno;
	if (r == 0 && bpf_obj_pin(fd, path) < 0)
		r = -errno;
	return r < 0 ? wag_err_set(err, r, "pin of %s/%s: %s", sub, name, strerror(-r)) : 0;
}

static int rename_pin(const struct dataplane *dp, const char *from_sub, const char *from,
		      const char *to_sub, const char *to, struct wag_err *err)
{
	char a[4096], b[4096];
	int r = dp_path(a, sizeof(a), dp->pin_dir, from_sub, from);

	if (r == 0)
		r = dp_path(b, sizeof(b), dp->pin_dir, to_sub, to);
	if (r == 0 && rename(a, b) < 0)
		r = -errno;
	return r < 0 ? wag_err_set(err, r, "rename of pin %s to %s: %s", a, b, strerror(-r)) : 0;
}

/*
 * New maps that replace none get their name now. Those that do stand aside until every program uses
 * them; wag_ct comes last, so that its being there says that the set aside is whole.
 */
int dp_pin_maps(struct dataplane *dp, struct wag_err *err)
{
	char path[4096];
	int r = dp_path(path, sizeof(path), dp->pin_dir, DP_ASIDE, NULL);

	if (r == 0 && dp_needs_migration(dp))
		r = pins_mkdir_p(path, 0700);
	if (r < 0)
		return wag_err_set(err, r, "%s: %s", path, strerror(-r));
	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < dp->n_maps && r == 0; i++) {
			const struct dp_map *m = &dp->maps[i];

			if (m->fresh && (strcmp(m->name, "wag_ct") == 0) == (pass == 1))
				r = pin(dp, m->old_fd >= 0 ? DP_ASIDE : "maps", m->name, m->fd,
					err);
		}
	}
	return r;
}

int dp_pin_maps_final(struct dataplane *dp, struct wag_err *err)
{
	int r = 0;

	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < dp->n_maps && r == 0; i++) {
			struct dp_map *m = &dp->maps[i];

			if (!m->fresh || (strcmp(m->name, "wag_ct") == 0) != (pass == 1))
				continue;
			if (m->old_fd >= 0)
				r = rename_pin(dp, DP_ASIDE, m->name, "maps", m->name, err);
			closep(&m->old_fd);
			m->old_fd = -1;
			m->fresh = false;
		}
	}
	if (r == 0)
		dp_remove_dir(dp->pin_dir, DP_ASIDE);
	return r;
}

int dp_pin_programs(struct dataplane *dp, struct wag_err *err)
{
	static const char *const names[][2] = { { "wag_from_pod", "new_from_pod" },
						{ "wag_to_pod", "new_to_pod" },
						{ "wag_limit_egress", "new_egress" },
						{ "wag_limit_ingress", "new_ingress" } };
	int r = 0;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && r == 0; i++) {
		int fd = dp_prog_fd(dp, names[i][0]);

		r = fd < 0 ? wag_err_set(err, fd, "program %s: missing", names[i][0])
			   : pin(dp, "progs", names[i][1], fd, err);
		if (r == 0)
			r = rename_pin(dp, "progs", names[i][1], "progs", names[i][0], err);
	}
	return r;
}
