// SPDX-License-Identifier: Apache-2.0
/* waggle init cni|uninstall-cni: the plugin in the runtime's folder, and everything back again. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <waggle/cleanup.h>
#include <waggle/cni_dir.h>
#include "cli.h"

#define PLUGIN "waggle-cni"

static int open_source(const char *path, size_t *ret_size, struct wag_err *err)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return wag_err_set(err, -errno, "--source %s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || !(st.st_mode & 0111) || !st.st_size)
		return wag_err_set(err, -EINVAL, "--source %s: is no program", path);
	*ret_size = (size_t)st.st_size;
	return TAKE_FD(fd);
}

/* A plugin that runs meanwhile keeps the file it was started from. */
int cmd_init_cni(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	const char *source = cli->source ? cli->source : CLI_CNI_SOURCE;
	_cleanup_close_ int from = -1, dir = -1;
	size_t size = 0;
	void *data;
	int r;

	if (!cli->bin_dir)
		return wag_err_set(err, -EINVAL,
				   "init cni: where to? Give --bin-dir DIR, the container "
				   "runtime's plugin folder (often /opt/cni/bin)");
	from = open_source(source, &size, err);
	if (from < 0)
		return from;
	dir = open(cli->bin_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return wag_err_set(err, -errno, "--bin-dir %s: %s", cli->bin_dir, strerror(errno));
	data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, from, 0);
	if (data == MAP_FAILED)
		return wag_err_set(err, -errno, "--source %s: %s", source, strerror(errno));
	r = cni_dir_replace(dir, PLUGIN, data, size, 0755);
	munmap(data, size);
	if (r < 0)
		return wag_err_set(err, r, "%s/%s: %s", cli->bin_dir, PLUGIN, strerror(-r));
	printf("%s/%s installed (%zu bytes)\n", cli->bin_dir, PLUGIN, size);
	return 0;
}

/* The program goes last: as long as the runtime names it, it is there. */
int cmd_init_uninstall_cni(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	char path[4096];
	int r;

	if (!cli->conf_dir)
		return wag_err_set(err, -EINVAL,
				   "init uninstall-cni: from where? Give --conf-dir DIR, the "
				   "container runtime's network folder (often /etc/cni/net.d)");
	r = cni_dir_restore(cli->conf_dir);
	if (r < 0)
		return wag_err_set(err, r, "--conf-dir %s: %s", cli->conf_dir, strerror(-r));
	printf("%s removed from %s; %d files have their names back\n", CNI_DIR_CONF, cli->conf_dir,
	       r);
	if (!cli->bin_dir)
		return 0;
	r = snprintf(path, sizeof(path), "%s/%s", cli->bin_dir, PLUGIN);
	if (r < 0 || r >= (int)sizeof(path))
		return wag_err_set(err, -ENAMETOOLONG, "--bin-dir: too long");
	if (unlink(path) < 0 && errno != ENOENT)
		return wag_err_set(err, -errno, "%s: %s", path, strerror(errno));
	printf("%s removed\n", path);
	return 0;
}
