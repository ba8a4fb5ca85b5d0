// SPDX-License-Identifier: Apache-2.0
/* waggle init bpffs|cgroup2: mounts what the agent wants; an init container has no shell. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <waggle/cleanup.h>
#include <waggle/pins.h>
#include "cli.h"

struct file_system {
	const char *type, *verb, *path, *options;
	long magic;
};

static const struct file_system bpffs = { "bpf", "bpffs", "/sys/fs/bpf", "mode=0700",
					  BPF_FS_MAGIC };
static const struct file_system cgroup2 = { "cgroup2", "cgroup2", CLI_CGROUP2_PATH, NULL,
					    CGROUP2_SUPER_MAGIC };

static int enter(const char *host_proc, const char *ns, int flag, struct wag_err *err)
{
	_cleanup_close_ int fd = -1;
	char path[4096];
	int n = snprintf(path, sizeof(path), "%s/1/ns/%s", host_proc, ns);

	if (n < 0 || n >= (int)sizeof(path))
		return wag_err_set(err, -ENAMETOOLONG, "--host-proc: too long");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return wag_err_set(err, -errno,
				   "%s: %s (is the host's /proc mounted at --host-proc, and "
				   "CAP_SYS_PTRACE given?)",
				   path, strerror(errno));
	if (setns(fd, flag) < 0)
		return wag_err_set(err, -errno,
				   "entering %s: %s (it needs CAP_SYS_ADMIN and CAP_SYS_CHROOT)",
				   path, strerror(errno));
	return 0;
}

/* Where the mount has to be seen: what a container mounts for itself ends with it. The hierarchy
 * of cgroups is seen from the cgroup namespace's root, so the host's is entered first. */
static int enter_host(const char *host_proc, struct wag_err *err)
{
	int r;

	if (!host_proc)
		return 0;
	r = enter(host_proc, "cgroup", CLONE_NEWCGROUP, err);
	return r < 0 ? r : enter(host_proc, "mnt", CLONE_NEWNS, err);
}

static int ensure_mounted(const struct cli *cli, const struct file_system *fs, struct wag_err *err)
{
	const char *path = cli->path ? cli->path : fs->path;
	struct statfs st;
	int r;

	if (path[0] != '/')
		return wag_err_set(err, -EINVAL, "--path '%s': an absolute path is needed", path);
	r = enter_host(cli->host_proc, err);
	if (r < 0)
		return r;
	r = pins_mkdir_p(path, 0755);
	if (r < 0 || statfs(path, &st) < 0)
		return wag_err_set(err, r < 0 ? r : -errno, "%s: %s", path,
				   strerror(r < 0 ? -r : errno));
	if (st.f_type == fs->magic) {
		printf("%s is already a %s\n", path, fs->verb);
		return 0;
	}
	if (mount(fs->type, path, fs->type, 0, fs->options) < 0)
		return wag_err_set(err, -errno, "mounting %s at %s: %s%s", fs->type, path,
				   strerror(errno),
				   errno == ENODEV ? ": this kernel has no such file system" :
				   errno == EPERM  ? " (it needs CAP_SYS_ADMIN)" :
						     "");
	printf("%s mounted at %s\n", fs->type, path);
	return 0;
}

int cmd_init_bpffs(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	return ensure_mounted(cli, &bpffs, err);
}

int cmd_init_cgroup2(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	return ensure_mounted(cli, &cgroup2, err);
}
