// SPDX-License-Identifier: Apache-2.0
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <waggle/cleanup.h>
#include <waggle/pins.h>
#include <waggle/suggest.h>
#include "bpf_maps.h"

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	return 0;
}

void bpf_maps_init(void)
{
	libbpf_set_print(quiet);
}

static int pin_dir_missing(const struct cli *cli, struct wag_err *err)
{
	return wag_err_set(
		err, -ENOENT,
		"%s/maps does not exist: no agent has run here since the machine booted, "
		"or it pins elsewhere (then say --pin-dir DIR)",
		cli->pin_dir);
}

static int cannot_read(const char *what, int code, struct wag_err *err)
{
	return wag_err_set(err, code, "%s: %s%s", what, strerror(-code),
			   code == -EACCES || code == -EPERM ? " (run as root)" : "");
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

int pinned_map_names(const struct cli *cli, char ***ret, struct wag_err *err)
{
	struct dirent **entries;
	char path[PATH_MAX];
	char **names;
	int n;

	if (snprintf(path, sizeof(path), "%s/maps", cli->pin_dir) >= (int)sizeof(path))
		return wag_err_set(err, -ENAMETOOLONG, "--pin-dir: %s", strerror(ENAMETOOLONG));
	n = scandir(path, &entries, visible, NULL);
	if (n < 0)
		return errno == ENOENT ? pin_dir_missing(cli, err) : cannot_read(path, -errno, err);
	names = calloc(n + 1, sizeof(*names));
	for (int i = 0; i < n; i++) {
		if (names)
			names[i] = strdup(entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	for (int i = 0; names && i < n; i++) {
		if (!names[i]) {
			pinned_names_free(names, n);
			names = NULL;
		}
	}
	if (!names)
		return wag_err_set(err, -ENOMEM, "out of memory");
	qsort(names, n, sizeof(*names), compare_names);
	*ret = names;
	return n;
}

void pinned_names_free(char **names, int n)
{
	if (!names)
		return;
	for (int i = 0; i < n; i++)
		free(names[i]);
	free(names);
}

/* "no map X; did you mean Y? There are: ..." */
static int explain_unknown(const struct cli *cli, const char *name, struct wag_err *err)
{
	char **names = NULL;
	const char *close;
	char list[400] = "";
	size_t len = 0;
	int n;

	n = pinned_map_names(cli, &names, err);
	if (n < 0)
		return n;
	for (int i = 0; i < n && len < sizeof(list); i++)
		len += snprintf(list + len, sizeof(list) - len, " %s", names[i]);
	close = suggest(name, (const char *const *)names, n);
	wag_err_set(err, -ENOENT, "no map '%s'%s%s%s There are:%s", name,
		    close ? "; did you mean '" : ".", close ? close : "", close ? "'?" : "", list);
	pinned_names_free(names, n);
	return -ENOENT;
}

/* The kernel says a map's memory in its fd's fdinfo. */
static uint64_t memory_of(int fd)
{
	_cleanup_fclose_ FILE *f = NULL;
	unsigned long long bytes = 0;
	char path[64], line[256];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "memlock: %llu", &bytes) == 1)
			break;
	return bytes;
}

int pinned_map_open(const struct cli *cli, const char *name, struct pinned_map *ret,
		    struct wag_err *err)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);
	_cleanup_close_ int fd = -1;
	char path[PATH_MAX];
	int r;

	r = strchr(name, '/') ? -ENOENT : pins_map_path(path, sizeof(path), cli->pin_dir, name);
	if (r == -ENOENT)
		return explain_unknown(cli, name, err);
	if (r < 0)
		return wag_err_set(err, r, "map name too long");
	fd = bpf_obj_get(path);
	if (fd < 0)
		return errno == ENOENT ? explain_unknown(cli, name, err) :
					 cannot_read(path, -errno, err);
	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return cannot_read(path, -errno, err);
	memset(ret, 0, sizeof(*ret));
	ret->info = info;
	ret->memory_bytes = memory_of(fd);
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	ret->fd = TAKE_FD(fd);
	return 0;
}

int pinned_map_open_typed(const struct cli *cli, const char *name, size_t key_size,
			  size_t value_size, struct pinned_map *ret, struct wag_err *err)
{
	_cleanup_map_ struct pinned_map map = PINNED_MAP_NONE;
	int r = pinned_map_open(cli, name, &map, err);

	if (r < 0)
		return r;
	if (map.info.key_size != key_size || map.info.value_size != value_size)
		return wag_err_set(
			err, -EPROTO,
			"%s was made by another version of waggle; use the waggle of the "
			"agent that runs here, or 'waggle bpf map dump %s'",
			name, name);
	*ret = map;
	map.fd = -1;
	return 0;
}

void pinned_map_done(struct pinned_map *map)
{
	if (map->fd >= 0)
		close(map->fd);
	map->fd = -1;
}

bool pinned_map_is_per_cpu(const struct pinned_map *map)
{
	return map->info.type == BPF_MAP_TYPE_PERCPU_ARRAY ||
	       map->info.type == BPF_MAP_TYPE_PERCPU_HASH ||
	       map->info.type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

bool pinned_map_is_array(const struct pinned_map *map)
{
	return map->info.type == BPF_MAP_TYPE_ARRAY || map->info.type == BPF_MAP_TYPE_PERCPU_ARRAY;
}

size_t pinned_map_value_bytes(const struct pinned_map *map)
{
	size_t rounded = (map->info.value_size + 7UL) & ~7UL;

	return pinned_map_is_per_cpu(map) ? rounded * libbpf_num_possible_cpus() :
					    map->info.value_size;
}

const char *pinned_map_type_name(uint32_t type)
{
	const char *name = libbpf_bpf_map_type_str(type);

	return name ? name : "?";
}

int pinned_map_lookup(const struct pinned_map *map, const void *key, void *value)
{
	return bpf_map_lookup_elem(map->fd, key, value) < 0 ? -errno : 0;
}

int pinned_map_each(const struct pinned_map *map, map_walk_fn fn, void *ctx)
{
	const struct map_shape shape = { map->info.key_size, pinned_map_value_bytes(map),
					 map->info.max_entries };

	return map_walk(map->fd, &shape, fn, ctx);
}

static int count_one(const void *key, const void *value, void *ctx)
{
	(*(int64_t *)ctx)++;
	return 0;
}

int64_t pinned_map_count(const struct pinned_map *map)
{
	int64_t count = 0;
	int r;

	if (pinned_map_is_array(map))
		return map->info.max_entries;
	r = pinned_map_each(map, count_one, &count);
	return r < 0 ? r : count;
}

int stats_read(const struct cli *cli, struct wag_stat ret[], size_t n, struct wag_err *err)
{
	_cleanup_map_ struct pinned_map map = PINNED_MAP_NONE;
	int cpus = libbpf_num_possible_cpus(), r;
	_cleanup_free_ struct wag_stat *values = NULL;

	r = pinned_map_open_typed(cli, "wag_stats", sizeof(__u32), sizeof(struct wag_stat), &map,
				  err);
	if (r < 0)
		return r;
	values = calloc(cpus, sizeof(*values));
	if (!values)
		return wag_err_set(err, -ENOMEM, "out of memory");
	memset(ret, 0, n * sizeof(*ret));
	for (__u32 i = 0; i < n && i < map.info.max_entries; i++) {
		if (pinned_map_lookup(&map, &i, values) < 0)
			continue;
		for (int cpu = 0; cpu < cpus; cpu++) {
			ret[i].packets += values[cpu].packets;
			ret[i].bytes += values[cpu].bytes;
		}
	}
	return 0;
}

int meta_read(const struct cli *cli, struct wag_meta *ret, struct wag_err *err)
{
	_cleanup_map_ struct pinned_map map = PINNED_MAP_NONE;
	__u32 zero = 0;
	int r;

	r = pinned_map_open_typed(cli, "wag_meta", sizeof(__u32), sizeof(*ret), &map, err);
	if (r < 0)
		return r;
	r = pinned_map_lookup(&map, &zero, ret);
	if (r < 0)
		return wag_err_set(err, r, "wag_meta: %s", strerror(-r));
	if (ret->magic != WAG_META_MAGIC)
		return wag_err_set(err, -EPROTO,
				   "%s: the agent did not finish starting (wag_meta is empty)",
				   cli->pin_dir);
	ret->node_name[sizeof(ret->node_name) - 1] = '\0';
	ret->version[sizeof(ret->version) - 1] = '\0';
	return 0;
}
