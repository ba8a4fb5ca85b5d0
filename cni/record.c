// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include <waggle/pins.h>

#include "conf.h"
#include "json_out.h"
#include "record.h"

#define RECORD_MAX 16384

static uint64_t hash64(const char *container_id, const char *ifname)
{
	uint64_t h = 0xcbf29ce484222325ULL; /* FNV-1a */

	for (const char *c = container_id; *c; c++)
		h = (h ^ (uint8_t)*c) * 0x100000001b3ULL;
	h = (h ^ '/') * 0x100000001b3ULL;
	for (const char *c = ifname; *c; c++)
		h = (h ^ (uint8_t)*c) * 0x100000001b3ULL;
	/* FNV leaves the high bits of short inputs alike. */
	h = (h ^ h >> 32) * 0xd6e8feb86659fd93ULL;
	return h ^ h >> 32;
}

uint32_t record_hash(const char *container_id, const char *ifname)
{
	uint32_t h = hash64(container_id, ifname);

	return h ? h : 1;
}

void record_init(struct record *rec, const char *container_id, const char *ifname, unsigned probe)
{
	uint64_t h = hash64(container_id, ifname);
	uint32_t id = record_hash(container_id, ifname) + probe;

	memset(rec, 0, sizeof(*rec));
	rec->ep_id = id ? id : RECORD_PROBES;
	snprintf(rec->container_id, sizeof(rec->container_id), "%s", container_id);
	snprintf(rec->ifname, sizeof(rec->ifname), "%s", ifname);
	snprintf(rec->host_ifname, sizeof(rec->host_ifname), "wag%08x", rec->ep_id);
	/* Locally administered; the last byte tells the two sides apart. */
	rec->mac[0] = 0x0a;
	memcpy(rec->mac + 1, &h, 4);
	rec->mac[5] = (h >> 32 & 0x7f) << 1;
	memcpy(rec->host_mac, rec->mac, sizeof(rec->mac));
	rec->host_mac[5] |= 1;
}

int record_lock(const char *state_dir, uint32_t hash, int timeout_ms)
{
	/* A byte of one file per attachment: gone with its process, and no lock file to clean up.
	 */
	struct flock byte = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = hash, .l_len = 1
	};
	struct timespec pause = { .tv_nsec = 5000000 };
	_cleanup_close_ int fd = -1;
	char path[PATH_MAX];
	int r;

	snprintf(path, sizeof(path), "%s/endpoints", state_dir);
	r = pins_mkdir_p(path, 0755);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/lock", state_dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	while (fcntl(fd, F_OFD_SETLK, &byte) < 0) {
		if (errno != EAGAIN && errno != EACCES)
			return -errno;
		if (timeout_ms <= 0)
			return -EWOULDBLOCK;
		nanosleep(&pause, NULL);
		timeout_ms -= 5;
	}
	return TAKE_FD(fd);
}

static void record_path(char *buf, size_t size, const char *state_dir, uint32_t ep_id)
{
	snprintf(buf, size, "%s/endpoints/%u.json", state_dir, ep_id);
}

static int record_read(const char *path, struct record *ret)
{
	_cleanup_free_ char *text = malloc(RECORD_MAX);
	_cleanup_close_ int fd = -1;
	ssize_t n;

	if (!text)
		return -ENOMEM;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, text, RECORD_MAX);
	if (n < 0)
		return -errno;
	return conf_parse_record(text, n, ret);
}

int record_find(const char *state_dir, const char *container_id, const char *ifname,
		struct record *ret, unsigned *ret_probe)
{
	int free_probe = -1;
	char path[PATH_MAX];

	for (unsigned i = 0; i < RECORD_PROBES; i++) {
		struct record want, rec;
		int r;

		record_init(&want, container_id, ifname, i);
		record_path(path, sizeof(path), state_dir, want.ep_id);
		r = record_read(path, &rec);
		if (r == 0 && rec.ep_id == want.ep_id &&
		    strcmp(rec.container_id, container_id) == 0 &&
		    strcmp(rec.ifname, ifname) == 0) {
			*ret = rec;
			*ret_probe = i;
			return 0;
		}
		if (r < 0 && r != -ENOENT && r != -EBADMSG)
			return r;
		/* What a power cut made unreadable is of an earlier boot: overwrite it. */
		if (r < 0 && free_probe < 0)
			free_probe = i;
	}
	if (free_probe < 0)
		return -EEXIST;
	*ret_probe = free_probe;
	return -ENOENT;
}

static void record_format(struct json_out *j, const struct record *rec)
{
	char text[WAG_ADDR_TEXT];

	jout_raw(j, "{");
	jout_format(j, "\"ep_id\":%u,\"ifindex\":%u,\"ready\":%s", rec->ep_id, rec->ifindex,
		    rec->ready ? "true" : "false");
	jout_member(j, "container_id", rec->container_id);
	jout_member(j, "ifname", rec->ifname);
	jout_member(j, "host_ifname", rec->host_ifname);
	jout_member(j, "network", rec->network);
	jout_member(j, "netns", rec->netns);
	jout_member(j, "namespace", rec->ns);
	jout_member(j, "pod", rec->pod);
	jout_member(j, "uid", rec->uid);
	jout_member(j, "boot_id", rec->boot_id);
	jout_raw(j, ",\"addresses\":[");
	for (unsigned i = 0; i < rec->addr_count; i++) {
		jout_raw(j, i ? ",{" : "{");
		jout_format(j, "\"address\":\"%s\"", wag_addr_format(&rec->addrs[i].addr, text));
		jout_member(j, "range", rec->addrs[i].range);
		jout_raw(j, "}");
	}
	jout_raw(j, "]}\n");
}

int record_write(const char *state_dir, const struct record *rec)
{
	_cleanup_close_ int fd = -1;
	char path[PATH_MAX], temp[PATH_MAX];
	struct json_out j;
	ssize_t n;

	jout_init(&j);
	record_format(&j, rec);
	if (j.overflow)
		return -EMSGSIZE;
	record_path(path, sizeof(path), state_dir, rec->ep_id);
	snprintf(temp, sizeof(temp), "%s/endpoints/.%u.tmp", state_dir,
		 record_hash(rec->container_id, rec->ifname));
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	n = write(fd, j.buf, j.len);
	if (n != (ssize_t)j.len)
		return n < 0 ? -errno : -ENOSPC;
	/* No fsync: a record only has to outlive this process, not this boot (docs/adr/0006). */
	return rename(temp, path) < 0 ? -errno : 0;
}

int record_remove(const char *state_dir, const struct record *rec)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/endpoints/.%u.tmp", state_dir,
		 record_hash(rec->container_id, rec->ifname));
	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	record_path(path, sizeof(path), state_dir, rec->ep_id);
	return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}
