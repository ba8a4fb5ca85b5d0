// SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include <waggle/file.h>
#include <waggle/pins.h>
#include <waggle/record.h>

#define RECORD_MAX 32768

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

uint32_t record_ep_id(const char *container_id, const char *ifname, unsigned probe)
{
	uint32_t id = record_hash(container_id, ifname) + probe;

	return id ? id : RECORD_PROBES;
}

void record_init(struct record *rec, const char *container_id, const char *ifname, unsigned probe)
{
	uint64_t h = hash64(container_id, ifname);

	memset(rec, 0, sizeof(*rec));
	rec->ep_id = record_ep_id(container_id, ifname, probe);
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

/* ---- reading ---- */

static int copy(json_t *root, const char *key, char *buf, size_t size)
{
	const char *text = json_string_value(json_object_get(root, key));

	if (!text || strlen(text) >= size)
		return -EBADMSG;
	memcpy(buf, text, strlen(text) + 1);
	return 0;
}

static int addr_copy(json_t *root, const char *key, struct wag_addr *ret)
{
	const char *text = json_string_value(json_object_get(root, key));

	return text && wag_addr_parse(text, ret) == 0 ? 0 : -EBADMSG;
}

static int number_copy(json_t *root, const char *key, uint64_t max, uint64_t *ret)
{
	json_int_t v = json_integer_value(json_object_get(root, key));

	if (v < 0 || (uint64_t)v > max)
		return -EBADMSG;
	*ret = v;
	return 0;
}

static int mac_copy(json_t *root, const char *key, uint8_t mac[6])
{
	json_t *v = json_object_get(root, key);
	const char *text = json_string_value(v);
	int end = 0;

	if (!v)
		return 0;
	if (!text || sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", mac, mac + 1, mac + 2,
			    mac + 3, mac + 4, mac + 5, &end) != 6 || text[end])
		return -EBADMSG;
	return 0;
}

static int addrs_parse(json_t *root, struct record *rec)
{
	json_t *list = json_object_get(root, "addresses"), *obj;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) > RECORD_ADDRS)
		return -EBADMSG;
	json_array_foreach(list, i, obj)
	{
		struct record_addr *a = &rec->addrs[rec->addr_count++];

		if (addr_copy(obj, "address", &a->addr) < 0 ||
		    copy(obj, "range", a->range, sizeof(a->range)) < 0 || strchr(a->range, '/'))
			return -EBADMSG;
	}
	return 0;
}

static int routes_parse(json_t *root, struct record *rec)
{
	json_t *list = json_object_get(root, "routes"), *v;
	size_t i;

	if (json_array_size(list) > RECORD_ROUTES)
		return -EBADMSG;
	json_array_foreach(list, i, v)
	{
		struct record_route *route = &rec->routes[rec->route_count++];

		if (!json_is_string(v) ||
		    wag_cidr_parse(json_string_value(v), &route->dst, &route->bits) < 0)
			return -EBADMSG;
	}
	return 0;
}

static int ports_parse(json_t *root, struct record *rec)
{
	json_t *list = json_object_get(root, "ports"), *obj;
	size_t i;

	if (json_array_size(list) > RECORD_PORTS)
		return -EBADMSG;
	json_array_foreach(list, i, obj)
	{
		struct record_port *p = &rec->ports[rec->port_count++];
		uint64_t host_port, port, proto;

		if (addr_copy(obj, "host_address", &p->host_addr) < 0 ||
		    number_copy(obj, "host_port", UINT16_MAX, &host_port) < 0 ||
		    number_copy(obj, "port", UINT16_MAX, &port) < 0 ||
		    number_copy(obj, "proto", UINT8_MAX, &proto) < 0)
			return -EBADMSG;
		p->host_port = host_port;
		p->port = port;
		p->proto = proto;
	}
	return 0;
}

static int numbers_parse(json_t *root, struct record *rec)
{
	uint64_t id, ifindex, mtu, route_mtu;

	if (number_copy(root, "ep_id", UINT32_MAX, &id) < 0 || !id ||
	    number_copy(root, "ifindex", INT32_MAX, &ifindex) < 0 ||
	    number_copy(root, "mtu", UINT32_MAX, &mtu) < 0 ||
	    number_copy(root, "route_mtu", UINT32_MAX, &route_mtu) < 0 ||
	    number_copy(root, "netns_cookie", UINT64_MAX, &rec->netns_cookie) < 0 ||
	    number_copy(root, "egress_rate", UINT64_MAX, &rec->egress_rate) < 0 ||
	    number_copy(root, "egress_burst", UINT64_MAX, &rec->egress_burst) < 0 ||
	    number_copy(root, "ingress_rate", UINT64_MAX, &rec->ingress_rate) < 0 ||
	    number_copy(root, "ingress_burst", UINT64_MAX, &rec->ingress_burst) < 0)
		return -EBADMSG;
	rec->ep_id = id;
	rec->ifindex = ifindex;
	rec->mtu = mtu;
	rec->route_mtu = route_mtu;
	rec->ready = json_is_true(json_object_get(root, "ready"));
	rec->chained = json_is_true(json_object_get(root, "chained"));
	return 0;
}

int record_parse(const char *text, size_t size, struct record *ret)
{
	_cleanup_(json_decrefp) json_t *root = json_loadb(text, size, 0, NULL);
	char container_id[128], ifname[16];
	struct record rec;

	if (copy(root, "container_id", container_id, sizeof(container_id)) ||
	    copy(root, "ifname", ifname, sizeof(ifname)))
		return -EBADMSG;
	/* An older version left out what follows from the attachment. */
	record_init(&rec, container_id, ifname, 0);
	if (numbers_parse(root, &rec) < 0 ||
	    copy(root, "host_ifname", rec.host_ifname, sizeof(rec.host_ifname)) ||
	    strchr(rec.host_ifname, '/') ||
	    copy(root, "network", rec.network, sizeof(rec.network)) ||
	    copy(root, "netns", rec.netns, sizeof(rec.netns)) ||
	    copy(root, "namespace", rec.ns, sizeof(rec.ns)) ||
	    copy(root, "pod", rec.pod, sizeof(rec.pod)) ||
	    copy(root, "uid", rec.uid, sizeof(rec.uid)) ||
	    copy(root, "boot_id", rec.boot_id, sizeof(rec.boot_id)) ||
	    (json_object_get(root, "ipam") && copy(root, "ipam", rec.ipam, sizeof(rec.ipam))) ||
	    strchr(rec.ipam, '/') ||
	    mac_copy(root, "mac", rec.mac) || mac_copy(root, "host_mac", rec.host_mac) ||
	    addrs_parse(root, &rec) || routes_parse(root, &rec) || ports_parse(root, &rec))
		return -EBADMSG;
	*ret = rec;
	return 0;
}

static void record_path(char *buf, size_t size, const char *state_dir, uint32_t ep_id)
{
	snprintf(buf, size, "%s/endpoints/%u.json", state_dir, ep_id);
}

bool record_exists(const char *state_dir, uint32_t ep_id)
{
	char path[PATH_MAX];

	record_path(path, sizeof(path), state_dir, ep_id);
	return access(path, F_OK) == 0;
}

int record_discard(const char *state_dir, uint32_t ep_id)
{
	char path[PATH_MAX];

	record_path(path, sizeof(path), state_dir, ep_id);
	return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

int record_read(const char *state_dir, uint32_t ep_id, struct record *ret)
{
	_cleanup_free_ char *text = malloc(RECORD_MAX);
	_cleanup_close_ int fd = -1;
	char path[PATH_MAX];
	struct record rec;
	ssize_t n;
	int r;

	if (!text)
		return -ENOMEM;
	record_path(path, sizeof(path), state_dir, ep_id);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, text, RECORD_MAX);
	if (n < 0)
		return -errno;
	r = record_parse(text, n, &rec);
	if (r < 0 || rec.ep_id != ep_id)
		return -EBADMSG;
	*ret = rec;
	return 0;
}

int record_find(const char *state_dir, const char *container_id, const char *ifname,
		struct record *ret, unsigned *ret_probe)
{
	int free_probe = -1;

	for (unsigned i = 0; i < RECORD_PROBES; i++) {
		struct record want, rec;
		int r;

		record_init(&want, container_id, ifname, i);
		r = record_read(state_dir, want.ep_id, &rec);
		if (r == 0 && strcmp(rec.container_id, container_id) == 0 &&
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

int record_list(const char *state_dir, record_fn fn, void *ctx)
{
	struct record rec;
	struct dirent *e;
	char path[PATH_MAX];
	int r = 0;
	DIR *d;

	snprintf(path, sizeof(path), "%s/endpoints", state_dir);
	d = opendir(path);
	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while (r == 0 && (e = readdir(d))) {
		unsigned ep_id;
		int end = 0;

		if (sscanf(e->d_name, "%u.json%n", &ep_id, &end) != 1 || !end || e->d_name[end])
			continue;
		r = record_read(state_dir, ep_id, &rec);
		if (r == -ENOENT)
			r = 0; /* removed meanwhile */
		else if (r == 0 || r == -EBADMSG)
			r = fn(ep_id, r == 0 ? &rec : NULL, ctx);
	}
	closedir(d);
	return r;
}

/* ---- writing ---- */

static json_t *addrs_format(const struct record *rec)
{
	json_t *list = json_array();
	char text[WAG_ADDR_TEXT];

	for (unsigned i = 0; i < rec->addr_count; i++)
		json_array_append_new(list, json_pack("{s:s,s:s}", "address",
						      wag_addr_format(&rec->addrs[i].addr, text),
						      "range", rec->addrs[i].range));
	return list;
}

static json_t *routes_format(const struct record *rec)
{
	char text[WAG_ADDR_TEXT], route[WAG_ADDR_TEXT + 8];
	json_t *list = json_array();

	for (unsigned i = 0; i < rec->route_count; i++) {
		snprintf(route, sizeof(route), "%s/%u",
			 wag_addr_format(&rec->routes[i].dst, text), rec->routes[i].bits);
		json_array_append_new(list, json_string(route));
	}
	return list;
}

static json_t *ports_format(const struct record *rec)
{
	json_t *list = json_array();
	char text[WAG_ADDR_TEXT];

	for (unsigned i = 0; i < rec->port_count; i++) {
		const struct record_port *p = &rec->ports[i];

		json_array_append_new(list, json_pack("{s:s,s:i,s:i,s:i}", "host_address",
						      wag_addr_format(&p->host_addr, text),
						      "host_port", p->host_port, "port", p->port,
						      "proto", p->proto));
	}
	return list;
}

static json_t *mac_format(const uint8_t m[6])
{
	return json_sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
}

static json_t *record_format(const struct record *rec)
{
	json_t *root = json_pack(
		"{s:I,s:I,s:b,s:b,s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:o,s:o,s:o,s:o,s:o}",
		"ep_id", (json_int_t)rec->ep_id, "ifindex", (json_int_t)rec->ifindex, "ready",
		rec->ready, "chained", rec->chained, "container_id", rec->container_id, "ifname",
		rec->ifname, "host_ifname", rec->host_ifname, "network", rec->network, "netns",
		rec->netns, "namespace", rec->ns, "pod", rec->pod, "uid", rec->uid, "boot_id",
		rec->boot_id, "ipam", rec->ipam, "mac", mac_format(rec->mac), "host_mac",
		mac_format(rec->host_mac), "addresses", addrs_format(rec), "routes",
		routes_format(rec), "ports", ports_format(rec));
	const struct {
		const char *key;
		uint64_t value;
	} numbers[] = {
		{ "netns_cookie", rec->netns_cookie },
		{ "mtu", rec->mtu },
		{ "route_mtu", rec->route_mtu },
		{ "egress_rate", rec->egress_rate },
		{ "egress_burst", rec->egress_burst },
		{ "ingress_rate", rec->ingress_rate },
		{ "ingress_burst", rec->ingress_burst },
	};

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		if (numbers[i].value)
			json_object_set_new(root, numbers[i].key, json_integer(numbers[i].value));
	return root;
}

int record_write(const char *state_dir, const struct record *rec)
{
	_cleanup_(json_decrefp) json_t *root = record_format(rec);
	_cleanup_free_ char *text = json_dumps(root, JSON_COMPACT);
	_cleanup_close_ int fd = -1;
	char path[PATH_MAX], temp[PATH_MAX];
	size_t len;
	ssize_t n;

	if (!text)
		return -EINVAL; /* a text that is not UTF-8, or no memory */
	len = strlen(text);
	if (len > RECORD_MAX)
		return -EMSGSIZE;
	record_path(path, sizeof(path), state_dir, rec->ep_id);
	snprintf(temp, sizeof(temp), "%s/endpoints/.%u.tmp", state_dir,
		 record_hash(rec->container_id, rec->ifname));
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	n = write(fd, text, len);
	if (n != (ssize_t)len)
		return n < 0 ? -errno : -ENOSPC;
	/* No fsync: a record only has to outlive this process, not this boot (docs/adr/0006). */
	return file_replace(AT_FDCWD, temp, AT_FDCWD, path);
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
