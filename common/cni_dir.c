// SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <waggle/cleanup.h>
#include <waggle/cni_dir.h>

static bool ends_with(const char *name, const char *end)
{
	size_t n = strlen(name), m = strlen(end);

	return n > m && strcmp(name + n - m, end) == 0;
}

bool cni_dir_is_conf(const char *name)
{
	return name[0] != '.' && strcmp(name, CNI_DIR_CONF) != 0 &&
	       (ends_with(name, ".conf") || ends_with(name, ".conflist") ||
		ends_with(name, ".json"));
}

static int write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

static int write_new(int dir_fd, const char *name, const void *data, size_t len, unsigned mode)
{
	_cleanup_close_ int fd =
		openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r;

	if (fd < 0)
		return -errno;
	r = write_all(fd, data, len);
	/* Whatever the umask; on disk before it gets its name. */
	if (r == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0))
		r = -errno;
	return r;
}

int cni_dir_replace(int dir_fd, const char *name, const void *data, size_t len, unsigned mode)
{
	char temp[256];
	int n = snprintf(temp, sizeof(temp), ".%s.new", name), r;

	if (n < 0 || n >= (int)sizeof(temp))
		return -ENAMETOOLONG;
	/* Of one that was killed. */
	if (unlinkat(dir_fd, temp, 0) < 0 && errno != ENOENT)
		return -errno;
	r = write_new(dir_fd, temp, data, len, mode);
	if (r == 0 && renameat(dir_fd, temp, dir_fd, name) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(dir_fd, temp, 0);
	else if (fsync(dir_fd) < 0)
		r = -errno;
	return r;
}

static int give_back(int dir_fd, const char *backup)
{
	char name[256];

	snprintf(name, sizeof(name), "%.*s", (int)(strlen(backup) - strlen(CNI_DIR_BACKUP)),
		 backup);
	if (renameat2(dir_fd, backup, dir_fd, name, RENAME_NOREPLACE) == 0)
		return 1;
	return errno == EEXIST || errno == ENOENT ? 0 : -errno;
}

int cni_dir_restore(const char *dir)
{
	_cleanup_close_ int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *e;
	int given = 0, r = 0;
	DIR *d;

	if (fd < 0)
		return -errno;
	d = opendir(dir);
	if (!d)
		return -errno;
	while (r >= 0 && (e = readdir(d))) {
		if (!ends_with(e->d_name, CNI_DIR_BACKUP))
			continue;
		r = give_back(fd, e->d_name);
		given += r > 0;
	}
	closedir(d);
	/* Last: the runtime is never without a network. */
	if (r >= 0 && unlinkat(fd, CNI_DIR_CONF, 0) < 0 && errno != ENOENT)
		r = -errno;
	return r < 0 ? r : given;
}
