// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include <waggle/file.h>
#include <waggle/ipam.h>
#include <waggle/pins.h>

#define CURSOR_MAGIC 0x77616c31U

struct cursor {
	uint32_t magic;
	uint32_t pad;
	uint64_t next; /* offset of the first address never given */
	uint64_t head; /* record of the queue that goes out next */
	char boot_id[40];
};

/* One range's directory while it is worked on. */
struct store {
	struct ipam *ipam;
	const struct ipam_range *range;
	int dir_fd, leases_fd, queue_fd, cursor_fd;
	struct cursor cur;
	uint64_t queued; /* records in the queue file */
};

static void store_done(struct store *s)
{
	closep(&s->dir_fd);
	closep(&s->leases_fd);
	closep(&s->queue_fd);
	closep(&s->cursor_fd);
}

int ipam_init(struct ipam *ipam, const char *state_dir, const char *boot_id, int64_t now_ms)
{
	char path[PATH_MAX];
	int r;

	ipam->lock_fd = -1;
	ipam->now_ms = now_ms;
	snprintf(ipam->boot_id, sizeof(ipam->boot_id), "%s", boot_id);
	r = snprintf(ipam->dir, sizeof(ipam->dir), "%s/ipam", state_dir);
	if (r < 0 || (size_t)r >= sizeof(ipam->dir))
		return -ENAMETOOLONG;
	r = pins_mkdir_p(ipam->dir, 0755);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/lock", ipam->dir);
	ipam->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (ipam->lock_fd < 0)
		return -errno;
	while (flock(ipam->lock_fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

void ipam_done(struct ipam *ipam)
{
	closep(&ipam->lock_fd);
	ipam->lock_fd = -1;
}

/* ---- offsets ---- */

static uint64_t addr_low(const struct wag_addr *addr)
{
	return wag_addr_is_v4(addr) ? ntohl(addr->w[3]) : be64toh(addr->d[1]);
}

static struct wag_addr addr_at(const struct ipam_range *range, uint64_t offset)
{
	struct wag_addr addr = range->subnet;
	uint64_t low = addr_low(&range->subnet) + offset;

	if (wag_addr_is_v4(&addr))
		addr.w[3] = htonl((uint32_t)low);
	else
		addr.d[1] = htobe64(low);
	return addr;
}

/* ---- leases ---- */

static int lease_write(const struct store *s, const char *name, bool leased,
		       const struct ipam_owner *owner)
{
	_cleanup_close_ int fd = -1;
	char text[320];
	int n;

	n = snprintf(text, sizeof(text), "%s %s %lld %s %s\n", leased ? "leased" : "released",
		     s->ipam->boot_id, (long long)s->ipam->now_ms, owner->container_id,
		     owner->ifname);
	if (n < 0 || (size_t)n >= sizeof(text))
		return -EINVAL;
	/* The store's lock makes us the only writer: one name will do. */
	fd = openat(s->dir_fd, "lease.tmp", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	if (write(fd, text, n) != n)
		return -ENOSPC;
	/* No fsync: a lease only has to outlive this process, not this boot (docs/adr/0006). */
	return file_replace(s->dir_fd, "lease.tmp", s->leases_fd, name);
}

static bool lease_owned(const struct ipam_lease *lease, const struct ipam_owner *owner)
{
	return lease->leased && strcmp(lease->container_id, owner->container_id) == 0 &&
	       strcmp(lease->ifname, owner->ifname) == 0;
}

/* ---- queue and cursor ---- */

static int cursor_save(struct store *s)
{
	ssize_t n = pwrite(s->cursor_fd, &s->cur, sizeof(s->cur), 0);

	return n == sizeof(s->cur) ? 0 : n < 0 ? -errno : -ENOSPC;
}

static int queue_append(struct store *s, uint64_t offset)
{
	ssize_t n = pwrite(s->queue_fd, &offset, sizeof(offset), s->queued * sizeof(offset));

	if (n != sizeof(offset))
		return n < 0 ? -errno : -ENOSPC;
	s->queued++;
	return 0;
}

/* Cuts off what has been given out, once it is most of the file. */
static int queue_compact(struct store *s)
{
	uint64_t left = s->queued - s->cur.head;
	_cleanup_close_ int fd = -1;
	_cleanup_free_ uint64_t *buf = NULL;
	size_t size = left * sizeof(*buf);
	int r;

	if (s->cur.head < 1024 || s->cur.head < left)
		return 0;
	buf = malloc(size ? size : 1);
	if (!buf)
		return -ENOMEM;
	if (pread(s->queue_fd, buf, size, s->cur.head * sizeof(*buf)) != (ssize_t)size)
		return -EIO;
	fd = openat(s->dir_fd, "queue.tmp", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	if (write(fd, buf, size) != (ssize_t)size)
		return -ENOSPC;
	/*
	 * Killed between the two steps below, head points past records that were not given out;
	 * they come back when the range seems exhausted. The other order would give no such
	 * promise.
	 */
	if (renameat(s->dir_fd, "queue.tmp", s->dir_fd, "queue") < 0)
		return -errno;
	s->cur.head = 0;
	s->queued = left;
	r = cursor_save(s);
	close(s->queue_fd);
	s->queue_fd = TAKE_FD(fd);
	return r;
}

struct free_addr {
	uint64_t offset;
	int64_t time_ms;
};

static int free_addr_cmp(const void *a, const void *b)
{
	const struct free_addr *x = a, *y = b;

	if (x->time_ms != y->time_ms)
		return x->time_ms < y->time_ms ? -1 : 1;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Every address of the range that has a file but no living owner. */
static int store_scan(struct store *s, struct free_addr **ret, size_t *ret_count)
{
	_cleanup_free_ struct free_addr *list = NULL;
	size_t count = 0, room = 0;
	struct dirent *e;
	DIR *d;
	int fd;

	fd = openat(s->dir_fd, "leases", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	d = fd < 0 ? NULL : fdopendir(fd);
	if (!d)
		return -errno;
	while ((e = readdir(d))) {
		struct wag_addr addr;
		struct ipam_lease lease;
		bool current;

		if (wag_addr_parse(e->d_name, &addr) < 0 ||
		    !wag_addr_in_cidr(&addr, &s->range->subnet, s->range->bits) ||
		    ipam_lease_read(s->leases_fd, e->d_name, &lease) < 0)
			continue;
		current = strcmp(lease.boot_id, s->ipam->boot_id) == 0;
		if (ipam_lease_holds(&lease, s->ipam->boot_id))
			continue;
		if (count == room) {
			struct free_addr *p;

			room = room ? room * 2 : 256;
			p = reallocarray(list, room, sizeof(*list));
			if (!p) {
				closedir(d);
				return -ENOMEM;
			}
			list = p;
		}
		list[count].offset = addr_low(&addr) - addr_low(&s->range->subnet);
		list[count++].time_ms = current ? lease.time_ms : 0;
	}
	closedir(d);
	if (count)
		qsort(list, count, sizeof(*list), free_addr_cmp);
	*ret = TAKE_PTR(list);
	*ret_count = count;
	return 0;
}

/* Makes the queue anew from the leases, the truth. */
static int store_rebuild(struct store *s)
{
	_cleanup_free_ struct free_addr *list = NULL;
	size_t count = 0;
	int r;

	/* Until this boot's id stands in the cursor, a killed rebuild is simply done again. */
	r = store_scan(s, &list, &count);
	if (r < 0)
		return r;
	s->cur.head = s->queued = 0;
	if (ftruncate(s->queue_fd, 0) < 0)
		return -errno;
	for (size_t i = 0; i < count; i++) {
		r = queue_append(s, list[i].offset);
		if (r < 0)
			return r;
	}
	s->cur.magic = CURSOR_MAGIC;
	memset(s->cur.boot_id, 0, sizeof(s->cur.boot_id));
	snprintf(s->cur.boot_id, sizeof(s->cur.boot_id), "%s", s->ipam->boot_id);
	return cursor_save(s);
}

static int store_open(struct store *s, struct ipam *ipam, const char *key, bool create)
{
	char path[PATH_MAX];
	struct stat st;
	ssize_t n;
	int r;

	s->ipam = ipam;
	snprintf(path, sizeof(path), "%s/%s/leases", ipam->dir, key);
	if (create) {
		r = pins_mkdir_p(path, 0755);
		if (r < 0)
			return r;
	}
	s->leases_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->leases_fd < 0)
		return -errno;
	s->dir_fd = openat(s->leases_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	s->queue_fd = openat(s->dir_fd, "queue", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	s->cursor_fd = openat(s->dir_fd, "cursor", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (s->queue_fd < 0 || s->cursor_fd < 0 || fstat(s->queue_fd, &st) < 0)
		return -errno;
	s->queued = st.st_size / sizeof(uint64_t);
	n = pread(s->cursor_fd, &s->cur, sizeof(s->cur), 0);
	if (n != sizeof(s->cur) || s->cur.magic != CURSOR_MAGIC)
		memset(&s->cur, 0, sizeof(s->cur));
	if (s->cur.head > s->queued)
		s->cur.head = s->queued;
	return 0;
}

/* ---- allocation ---- */

/* 1: given; 0: not free. */
static int try_give(struct store *s, uint64_t offset, const struct ipam_owner *owner,
		    struct wag_addr *ret)
{
	struct wag_addr addr = addr_at(s->range, offset);
	char name[WAG_ADDR_TEXT];
	struct ipam_lease lease;
	int r;

	if (offset < s->range->first || offset > s->range->last || offset == s->range->gateway)
		return 0;
	wag_addr_format(&addr, name);
	r = ipam_lease_read(s->leases_fd, name, &lease);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == 0 && (ipam_lease_holds(&lease, s->ipam->boot_id) ||
		       ipam_lease_waits(&lease, s->ipam->boot_id, s->ipam->now_ms)))
		return 0;
	r = lease_write(s, name, true, owner);
	if (r < 0)
		return r;
	*ret = addr;
	return 1;
}

static int give_fresh(struct store *s, const struct ipam_owner *owner, struct wag_addr *ret)
{
	int r = 0;

	if (s->cur.next < s->range->first)
		s->cur.next = s->range->first;
	while (!r && s->cur.next <= s->range->last && s->cur.next != UINT64_MAX)
		r = try_give(s, s->cur.next++, owner, ret);
	return r;
}

/* 1: in quarantine; 0: not; the caller asks this about the head only. */
static int head_quarantined(struct store *s, uint64_t offset)
{
	struct wag_addr addr = addr_at(s->range, offset);
	char name[WAG_ADDR_TEXT];
	struct ipam_lease lease;
	int r;

	r = ipam_lease_read(s->leases_fd, wag_addr_format(&addr, name), &lease);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	return ipam_lease_waits(&lease, s->ipam->boot_id, s->ipam->now_ms);
}

static int give_released(struct store *s, const struct ipam_owner *owner, struct wag_addr *ret)
{
	int r = 0;

	while (!r && s->cur.head < s->queued) {
		uint64_t offset;

		if (pread(s->queue_fd, &offset, sizeof(offset), s->cur.head * sizeof(offset)) !=
		    sizeof(offset))
			return -EIO;
		r = head_quarantined(s, offset);
		if (r)
			return r < 0 ? r : 0;
		r = try_give(s, offset, owner, ret);
		if (r >= 0)
			s->cur.head++;
	}
	return r;
}

static int range_allocate(struct ipam *ipam, const struct ipam_range *range,
			  const struct ipam_owner *owner, struct wag_addr *ret,
			  uint64_t *ret_quarantined)
{
	_cleanup_(store_done) struct store s = {
		.range = range, .dir_fd = -1, .leases_fd = -1, .queue_fd = -1, .cursor_fd = -1
	};
	char key[IPAM_RANGE_KEY];
	int r, saved;

	ipam_range_key(range, key);
	r = store_open(&s, ipam, key, true);
	if (r == 0 && strcmp(s.cur.boot_id, ipam->boot_id) != 0)
		r = store_rebuild(&s);
	if (r < 0)
		return r;
	if (s.queued - s.cur.head >= IPAM_QUEUE_LONG)
		r = give_released(&s, owner, ret);
	if (!r)
		r = give_fresh(&s, owner, ret);
	if (!r)
		r = give_released(&s, owner, ret);
	if (!r) {
		r = store_rebuild(&s);
		if (r == 0)
			r = give_released(&s, owner, ret);
	}
	*ret_quarantined = s.queued - s.cur.head;
	saved = cursor_save(&s);
	if (saved == 0)
		saved = queue_compact(&s);
	return r < 0 ? r : saved < 0 ? saved : r ? 0 : -EADDRNOTAVAIL;
}

static int exhausted(const struct ipam_range *range, uint64_t quarantined, struct wag_err *err)
{
	char text[WAG_ADDR_TEXT];

	return wag_err_set(
		err, -EADDRNOTAVAIL,
		"no address left in %s/%u: all %llu are taken, %llu of them wait %d s "
		"after their release; delete pods on this node or give it a larger range",
		wag_addr_format(&range->subnet, text), range->bits,
		(unsigned long long)ipam_range_size(range), (unsigned long long)quarantined,
		IPAM_QUARANTINE_MS / 1000);
}

int ipam_allocate(struct ipam *ipam, const struct ipam_range *ranges, unsigned count,
		  const struct ipam_owner *owner, struct wag_addr *ret, unsigned *ret_range,
		  struct wag_err *err)
{
	int r = -EINVAL;

	for (unsigned i = 0; i < count; i++) {
		uint64_t quarantined = 0;

		r = range_allocate(ipam, ranges + i, owner, ret, &quarantined);
		if (r == 0) {
			*ret_range = i;
			return 0;
		}
		if (r != -EADDRNOTAVAIL)
			return wag_err_set(err, r, "address store %s: %s", ipam->dir, strerror(-r));
		exhausted(ranges + i, quarantined, err);
	}
	return r;
}

int ipam_take(struct ipam *ipam, const struct ipam_range *range, const struct wag_addr *addr,
	      const struct ipam_owner *owner)
{
	_cleanup_(store_done) struct store s = {
		.range = range, .dir_fd = -1, .leases_fd = -1, .queue_fd = -1, .cursor_fd = -1
	};
	char key[IPAM_RANGE_KEY], name[WAG_ADDR_TEXT];
	struct ipam_lease lease;
	uint64_t offset;
	int r;

	offset = addr_low(addr) - addr_low(&range->subnet);
	if (!wag_addr_in_cidr(addr, &range->subnet, range->bits) || offset < range->first ||
	    offset > range->last || offset == range->gateway)
		return -ERANGE;
	ipam_range_key(range, key);
	r = store_open(&s, ipam, key, true);
	if (r < 0)
		return r;
	r = ipam_lease_read(s.leases_fd, wag_addr_format(addr, name), &lease);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == 0 && ipam_lease_holds(&lease, ipam->boot_id) && !lease_owned(&lease, owner))
		return -EEXIST;
	return lease_write(&s, name, true, owner);
}

/* ---- release ---- */

int ipam_release(struct ipam *ipam, const char *range_key, const struct wag_addr *addr,
		 const struct ipam_owner *owner)
{
	struct ipam_range range;
	_cleanup_(store_done) struct store s = {
		.range = &range, .dir_fd = -1, .leases_fd = -1, .queue_fd = -1, .cursor_fd = -1
	};
	char name[WAG_ADDR_TEXT];
	struct ipam_lease lease;
	int r;

	r = ipam_range_from_key(range_key, &range);
	if (r == 0)
		r = store_open(&s, ipam, range_key, false);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = ipam_lease_read(s.leases_fd, wag_addr_format(addr, name), &lease);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (!lease_owned(&lease, owner))
		return 0;
	/* Killed between the two steps, the address comes back when the range seems exhausted. */
	r = lease_write(&s, name, false, owner);
	if (r < 0)
		return r;
	return queue_append(&s, addr_low(addr) - addr_low(&range.subnet));
}

static int release_range(struct ipam *ipam, const char *key, const struct ipam_owner *owner)
{
	char path[PATH_MAX];
	struct dirent *e;
	int r = 0;
	DIR *d;

	snprintf(path, sizeof(path), "%s/%s/leases", ipam->dir, key);
	d = opendir(path);
	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while (r == 0 && (e = readdir(d))) {
		struct wag_addr addr;
		struct ipam_lease lease;

		if (wag_addr_parse(e->d_name, &addr) < 0 ||
		    ipam_lease_read(dirfd(d), e->d_name, &lease) < 0 || !lease_owned(&lease, owner))
			continue;
		r = ipam_release(ipam, key, &addr, owner);
	}
	closedir(d);
	return r;
}

int ipam_release_all(struct ipam *ipam, const struct ipam_owner *owner)
{
	struct dirent *e;
	int r = 0;
	DIR *d;

	d = opendir(ipam->dir);
	if (!d)
		return -errno;
	while (r == 0 && (e = readdir(d)))
		if (e->d_type == DT_DIR && e->d_name[0] != '.')
			r = release_range(ipam, e->d_name, owner);
	closedir(d);
	return r;
}
