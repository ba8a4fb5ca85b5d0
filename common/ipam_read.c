// SPDX-License-Identifier: Apache-2.0
/* What is in the address store, for those who only look. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include <waggle/ipam.h>

#define BITS_MIN 8

int ipam_boot_id(char buf[40])
{
	_cleanup_close_ int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, 39);

	if (n <= 0)
		return n < 0 ? -errno : -EIO;
	buf[n] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return 0;
}

int64_t ipam_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- ranges ---- */

void ipam_range_key(const struct ipam_range *range, char buf[IPAM_RANGE_KEY])
{
	char text[WAG_ADDR_TEXT];

	snprintf(buf, IPAM_RANGE_KEY, "%s-%u", wag_addr_format(&range->subnet, text), range->bits);
}

int ipam_range_from_key(const char *key, struct ipam_range *ret)
{
	struct ipam_range range = { 0 };
	char text[IPAM_RANGE_KEY];
	char *dash;
	int r;

	if (snprintf(text, sizeof(text), "%s", key) >= (int)sizeof(text))
		return -EINVAL;
	dash = strrchr(text, '-');
	if (!dash)
		return -EINVAL;
	*dash = '/';
	r = wag_cidr_parse(text, &range.subnet, &range.bits);
	if (r == 0)
		*ret = range;
	return r;
}

static bool has_host_bits(const struct wag_addr *addr, unsigned bits128)
{
	for (unsigned i = bits128; i < 128; i++)
		if (addr->b[i / 8] & (0x80 >> i % 8))
			return true;
	return false;
}

/* IPv6 around ::ffff:0:0/96: its addresses would be taken for IPv4. */
static bool has_mapped(const struct ipam_range *range)
{
	struct wag_addr mapped = wag_addr_from_v4(0);

	for (unsigned i = range->bits; i < 96; i++)
		mapped.b[i / 8] &= ~(0x80 >> i % 8);
	return range->bits < 96 && memcmp(&mapped, &range->subnet, sizeof(mapped)) == 0;
}

int ipam_range_parse(const char *cidr, struct ipam_range *ret)
{
	struct ipam_range range = { .first = 1, .gateway = 1 };
	unsigned host, width;

	if (wag_cidr_parse(cidr, &range.subnet, &range.bits) < 0)
		return -EINVAL;
	width = wag_addr_is_v4(&range.subnet) ? 32 : 128;
	if (range.bits < BITS_MIN || range.bits > width - 2 ||
	    has_host_bits(&range.subnet, range.bits + 128 - width) ||
	    (width == 128 && has_mapped(&range)))
		return -EINVAL;
	host = width - range.bits;
	range.last = host >= 64 ? UINT64_MAX - 1 : (1ULL << host) - 1;
	if (width == 32)
		range.last--;
	*ret = range;
	return 0;
}

uint64_t ipam_range_size(const struct ipam_range *range)
{
	uint64_t n = range->last - range->first;

	if (range->gateway >= range->first && range->gateway <= range->last)
		return n;
	return n == UINT64_MAX ? n : n + 1;
}

/* ---- leases ---- */

int ipam_lease_read(int leases_fd, const char *name, struct ipam_lease *ret)
{
	_cleanup_close_ int fd = openat(leases_fd, name, O_RDONLY | O_CLOEXEC);
	char text[320], state[16];
	long long time_ms;
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return -errno;
	text[n] = '\0';
	memset(ret, 0, sizeof(*ret));
	/* Torn by a power cut: then it is of an earlier boot, which an empty boot_id says. */
	if (sscanf(text, "%15s %39s %lld %127s %15s", state, ret->boot_id, &time_ms,
		   ret->container_id, ret->ifname) != 5) {
		ret->boot_id[0] = '\0';
		return 0;
	}
	ret->leased = strcmp(state, "leased") == 0;
	ret->time_ms = time_ms;
	return 0;
}

bool ipam_lease_holds(const struct ipam_lease *lease, const char *boot_id)
{
	return lease->leased && strcmp(lease->boot_id, boot_id) == 0;
}

bool ipam_lease_waits(const struct ipam_lease *lease, const char *boot_id, int64_t now_ms)
{
	return !lease->leased && strcmp(lease->boot_id, boot_id) == 0 &&
	       now_ms - lease->time_ms < IPAM_QUARANTINE_MS;
}

static int visit_range(const char *state_dir, const char *key, ipam_lease_fn fn, void *ctx)
{
	struct ipam_range range;
	char path[PATH_MAX];
	struct dirent *e;
	int r = 0;
	DIR *d;

	if (ipam_range_from_key(key, &range) < 0)
		return 0;
	snprintf(path, sizeof(path), "%s/ipam/%s/leases", state_dir, key);
	d = opendir(path);
	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while (r == 0 && (e = readdir(d))) {
		struct ipam_lease lease;
		struct wag_addr addr;

		if (wag_addr_parse(e->d_name, &addr) == 0 &&
		    wag_addr_in_cidr(&addr, &range.subnet, range.bits) &&
		    ipam_lease_read(dirfd(d), e->d_name, &lease) == 0)
			r = fn(&range, &addr, &lease, ctx);
	}
	closedir(d);
	return r;
}

int ipam_visit(const char *state_dir, const char *range_key, ipam_lease_fn fn, void *ctx)
{
	char path[PATH_MAX];
	struct dirent *e;
	int r = 0;
	DIR *d;

	if (range_key)
		return visit_range(state_dir, range_key, fn, ctx);
	snprintf(path, sizeof(path), "%s/ipam", state_dir);
	d = opendir(path);
	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while (r == 0 && (e = readdir(d)))
		if (e->d_name[0] != '.')
			r = visit_range(state_dir, e->d_name, fn, ctx);
	closedir(d);
	return r;
}

struct count {
	struct ipam_usage *usage;
	const char *boot_id;
	int64_t now_ms;
};

static int count_lease(const struct ipam_range *range, const struct wag_addr *addr,
		       const struct ipam_lease *lease, void *ctx)
{
	const struct count *c = ctx;

	c->usage->used += ipam_lease_holds(lease, c->boot_id);
	c->usage->quarantined += ipam_lease_waits(lease, c->boot_id, c->now_ms);
	return 0;
}

int ipam_usage(const char *state_dir, const struct ipam_range *range, const char *boot_id,
	       int64_t now_ms, struct ipam_usage *ret)
{
	struct ipam_usage usage = { .capacity = ipam_range_size(range) };
	struct count count = { &usage, boot_id, now_ms };
	char key[IPAM_RANGE_KEY];
	int r;

	ipam_range_key(range, key);
	r = ipam_visit(state_dir, key, count_lease, &count);
	if (r == 0)
		*ret = usage;
	return r;
}
