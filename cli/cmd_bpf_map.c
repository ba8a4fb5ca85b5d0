// SPDX-License-Identifier: Apache-2.0
/* waggle bpf map list, waggle bpf map dump NAME */
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <waggle/cleanup.h>
#include "bpf_btf.h"
#include "bpf_maps.h"

static const struct output_column list_columns[] = {
	{ "NAME", "name" },	  { "ID", "id" },	{ "TYPE", "type" },
	{ "KEY", "keyBytes" },	  { "VALUE", "valueBytes" }, { "ENTRIES", "entries" },
	{ "MAX", "maxEntries" }, { "MEMORY", "memory" },
};

static json_t *memory_text(uint64_t bytes)
{
	if (bytes >= 1 << 20)
		return json_sprintf("%.1f MiB", (double)bytes / (1 << 20));
	return json_sprintf("%.1f KiB", (double)bytes / (1 << 10));
}

static json_t *map_json(const struct pinned_map *map)
{
	bool ring = map->info.type == BPF_MAP_TYPE_RINGBUF;
	int64_t count = ring ? -1 : pinned_map_count(map);
	json_t *one;

	one = json_pack("{s:s, s:I, s:s, s:I, s:I, s:I, s:I}", "name", map->name,
			"id", (json_int_t)map->info.id, "type",
			pinned_map_type_name(map->info.type),
			"keyBytes", (json_int_t)map->info.key_size,
			"valueBytes", (json_int_t)map->info.value_size,
			"maxEntries", (json_int_t)map->info.max_entries,
			"memoryBytes", (json_int_t)map->memory_bytes);
	json_object_set_new(one, "entries", count < 0 ? json_null() : json_integer(count));
	return one;
}

int cmd_bpf_map_list(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	_cleanup_json_ json_t *doc = json_array(), *rows = json_array();
	char **names = NULL;
	int n, r = 0;

	n = pinned_map_names(cli, &names, err);
	if (n < 0)
		return n;
	for (int i = 0; i < n && r == 0; i++) {
		_cleanup_map_ struct pinned_map map = PINNED_MAP_NONE;
		json_t *row;

		r = pinned_map_open(cli, names[i], &map, err);
		if (r < 0)
			break;
		json_array_append_new(doc, map_json(&map));
		row = json_copy(json_array_get(doc, i));
		json_object_set_new(row, "memory", memory_text(map.memory_bytes));
		json_array_append_new(rows, row);
	}
	pinned_names_free(names, n);
	if (r < 0)
		return r;
	return output_print(cli->format, doc, rows, list_columns,
			    sizeof(list_columns) / sizeof(list_columns[0]), err);
}

/* ---- dump ---- */

struct dump {
	const struct cli *cli;
	const struct pinned_map *map;
	struct btf *btf;
	json_t *list;
};

static bool all_zero(const unsigned char *data, size_t size)
{
	return size == 0 || (data[0] == 0 && memcmp(data, data + 1, size - 1) == 0);
}

static json_t *value_json(const struct dump *d, const void *value)
{
	const struct bpf_map_info *info = &d->map->info;
	size_t rounded = (info->value_size + 7UL) & ~7UL;
	json_t *list;

	if (!pinned_map_is_per_cpu(d->map))
		return btf_to_json(d->btf, info->btf_value_type_id, value, info->value_size);
	list = json_array();
	for (int cpu = 0; cpu < libbpf_num_possible_cpus(); cpu++) {
		const char *one = (const char *)value + cpu * rounded;

		if (!d->cli->all && all_zero((const unsigned char *)one, info->value_size))
			continue;
		json_array_append_new(list, json_pack("{s:i, s:o}", "cpu", cpu, "value",
			btf_to_json(d->btf, info->btf_value_type_id, one, info->value_size)));
	}
	return list;
}

static int dump_one(const void *key, const void *value, void *ctx)
{
	struct dump *d = ctx;
	const struct bpf_map_info *info = &d->map->info;
	json_t *one;

	if (!d->cli->all && pinned_map_is_array(d->map) &&
	    all_zero(value, pinned_map_value_bytes(d->map)))
		return 0;
	one = json_pack("{s:o, s:o}", "key",
			btf_to_json(d->btf, info->btf_key_type_id, key, info->key_size), "value",
			value_json(d, value));
	return one && json_array_append_new(d->list, one) == 0 ? 0 : -ENOMEM;
}

/* A ring buffer has no elements to read twice: only where its two ends are. */
static json_t *ring_json(const struct pinned_map *map)
{
	size_t page = sysconf(_SC_PAGESIZE);
	unsigned long consumer, producer;
	char *pages;

	pages = mmap(NULL, 2 * page, PROT_READ, MAP_SHARED, map->fd, 0);
	if (pages == MAP_FAILED)
		return NULL;
	consumer = *(volatile unsigned long *)pages;
	producer = *(volatile unsigned long *)(pages + page);
	munmap(pages, 2 * page);
	return json_pack("[{s:s, s:{s:I, s:I, s:I, s:I}}]", "key", "ring buffer", "value",
			 "consumerPosition", (json_int_t)consumer, "producerPosition",
			 (json_int_t)producer, "waitingBytes", (json_int_t)(producer - consumer),
			 "sizeBytes", (json_int_t)map->info.max_entries);
}

static int print_dump(const struct dump *d, struct wag_err *err)
{
	static const struct output_column columns[] = { { "KEY", "key" }, { "VALUE", "value" } };
	_cleanup_json_ json_t *rows = json_array();
	json_t *one;
	size_t i;

	json_array_foreach(d->list, i, one) {
		_cleanup_free_ char *key = output_compact(json_object_get(one, "key"));
		_cleanup_free_ char *value = output_compact(json_object_get(one, "value"));

		if (d->cli->format != OUTPUT_TABLE)
			break;
		json_array_append_new(rows, json_pack("{s:s, s:s}", "key", key ? key : "?",
						      "value", value ? value : "?"));
	}
	return output_print(d->cli->format, d->list, rows, columns, 2, err);
}

int cmd_bpf_map_dump(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	_cleanup_map_ struct pinned_map map = PINNED_MAP_NONE;
	struct dump d = { .cli = cli, .map = &map };
	int r;

	if (argc != 1 || !*argv[0])
		return wag_err_set(err, -EINVAL, "usage: waggle bpf map dump NAME "
				   "(names: waggle bpf map list)");
	r = pinned_map_open(cli, argv[0], &map, err);
	if (r < 0)
		return r;
	if (map.info.type == BPF_MAP_TYPE_RINGBUF) {
		d.list = ring_json(&map);
		fprintf(stderr, "%s is a ring buffer: flow-observe shows what passes through it\n",
			map.name);
		r = d.list ? 0 : -EIO;
	} else {
		d.list = json_array();
		d.btf = map.info.btf_id ? btf__load_from_kernel_by_id(map.info.btf_id) : NULL;
		r = pinned_map_each(&map, dump_one, &d);
	}
	if (r < 0)
		wag_err_set(err, r, "%s: %s", map.name, strerror(-r));
	else
		r = print_dump(&d, err);
	btf__free(d.btf);
	json_decref(d.list);
	return r;
}
