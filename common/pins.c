// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include <waggle/pins.h>

#define PAUSE_MIN_US 500
#define PAUSE_MAX_US 50000

__attribute__((format(printf, 3, 4))) static int path_format(char *buf, size_t size,
							     const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(buf, size, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= size)
		return -ENAMETOOLONG;
	return 0;
}

bool pins_dir_is_plain(const char *path)
{
	if (*path != '/')
		return false;
	for (const char *part = path; *part;) {
		size_t len;

		part += strspn(part, "/");
		len = strcspn(part, "/");
		if ((len == 1 && part[0] == '.') || (len == 2 && memcmp(part, "..", 2) == 0))
			return false;
		part += len;
	}
	return true;
}

int pins_map_path(char *buf, size_t size, const char *pin_dir, const char *map)
{
	return path_format(buf, size, "%s/maps/%s", pin_dir, map);
}

int pins_prog_path(char *buf, size_t size, const char *pin_dir, const char *prog)
{
	return path_format(buf, size, "%s/progs/%s", pin_dir, prog);
}

int pins_tcx_path(char *buf, size_t size, const char *pin_dir, const char *ifname, uint32_t ifindex,
		  int egress)
{
	char name[64];
	int r;

	r = path_format(name, sizeof(name), "%s_%u_%s", ifname, ifindex,
			egress ? "egress" : "ingress");
	if (r < 0)
		return r;
	/* bpffs refuses a dot, VLAN devices have one; the ifindex keeps the name unique. */
	for (char *c = name; *c; c++)
		if (*c == '.')
			*c = '_';
	return path_format(buf, size, "%s/links/%s", pin_dir, name);
}

int pins_map_open(const char *pin_dir, const char *name, uint32_t key, uint32_t value)
{
	uint32_t have_key, have_value;
	_cleanup_close_ int fd = -1;
	char path[PATH_MAX];
	int r;

	r = pins_map_path(path, sizeof(path), pin_dir, name);
	if (r < 0)
		return r;
	fd = bpfsys_obj_get(path);
	if (fd < 0)
		return fd;
	r = bpfsys_map_sizes(fd, &have_key, &have_value);
	if (r < 0)
		return r;
	if (have_key != key || have_value != value)
		return -EPROTO;
	return TAKE_FD(fd);
}

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/*
 * There is no flock with a deadline, and a library must not play with signals: it asks again. Who
 * has waited longer asks less often, for hundreds that ask all the time leave the one that has the
 * lock no processor to be done with it.
 */
int pins_lock(const char *pin_dir, int timeout_ms)
{
	int64_t begin = now_us(), waited;
	_cleanup_close_ int fd = -1;

	fd = open(pin_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		waited = now_us() - begin;
		if (waited >= timeout_ms * 1000LL)
			return -EWOULDBLOCK;
		usleep(waited < 8 * PAUSE_MIN_US ? PAUSE_MIN_US :
		       waited < 8 * PAUSE_MAX_US ? waited / 8 :
						   PAUSE_MAX_US);
	}
	return TAKE_FD(fd);
}

int pins_mkdir_p(const char *path, unsigned mode)
{
	char buf[PATH_MAX];
	struct stat st;
	size_t len = strlen(path);

	if (!len || len >= sizeof(buf))
		return len ? -ENAMETOOLONG : -EINVAL;
	memcpy(buf, path, len + 1);
	for (char *c = buf + 1;; c++) {
		char end = *c;

		if (end && end != '/')
			continue;
		*c = '\0';
		if (mkdir(buf, mode) < 0 && errno != EEXIST)
			return -errno;
		*c = end;
		if (!end)
			break;
	}
	if (stat(path, &st) < 0)
		return -errno;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}
