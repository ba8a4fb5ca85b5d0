// SPDX-License-Identifier: Apache-2.0
/* waggle bpf prog list: every loaded program that uses our maps, however it is attached. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <waggle/cleanup.h>
#include "bpf_maps.h"

#define MAX_MAPS 64

static const struct output_column columns[] = {
	{ "ID", "id" },	     { "NAME", "name" }, { "TYPE", "type" },   { "TAG", "tag" },
	{ "BYTES", "bytes" }, { "VERIFIED", "verifiedInsns" }, { "PINNED AS", "pins" },
};

struct map_ids {
	__u32 ids[MAX_MAPS];
	int n;
};

static int read_map_ids(const struct cli *cli, struct map_ids *ret, struct wag_err *err)
{
	char **names = NULL;
	int n, r = 0;

	n = pinned_map_names(cli, &names, err);
	if (n < 0)
		return n;
	for (int i = 0; i < n && ret->n < MAX_MAPS && r == 0; i++) {
		_cleanup_map_ struct pinned_map map = PINNED_MAP_NONE;

		r = pinned_map_open(cli, names[i], &map, err);
		if (r == 0)
			ret->ids[ret->n++] = map.info.id;
	}
	pinned_names_free(names, n);
	return r;
}

static bool uses_ours(const struct map_ids *ours, const __u32 *ids, __u32 n)
{
	for (__u32 i = 0; i < n; i++)
		for (int j = 0; j < ours->n; j++)
			if (ids[i] == ours->ids[j])
				return true;
	return false;
}

/* The program behind a pin: of a program itself or of a link; 0: neither. */
static __u32 prog_id_of_pin(const char *path, bool is_link)
{
	_cleanup_close_ int fd = bpf_obj_get(path);
	struct bpf_prog_info prog = {};
	struct bpf_link_info link = {};
	__u32 len = is_link ? sizeof(link) : sizeof(prog);

	if (fd < 0)
		return 0;
	if (bpf_obj_get_info_by_fd(fd, is_link ? (void *)&link : (void *)&prog, &len) < 0)
		return 0;
	return is_link ? link.prog_id : prog.id;
}

static void add_pins(const struct cli *cli, const char *folder, __u32 id, json_t *pins)
{
	char path[PATH_MAX];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/%s", cli->pin_dir, folder);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.' ||
		    snprintf(path, sizeof(path), "%s/%s/%s", cli->pin_dir, folder,
			     entry->d_name) >= (int)sizeof(path))
			continue;
		if (prog_id_of_pin(path, strcmp(folder, "links") == 0) == id)
			json_array_append_new(pins, json_sprintf("%s/%s", folder, entry->d_name));
	}
	if (dir)
		closedir(dir);
}

static json_t *prog_json(const struct cli *cli, const struct bpf_prog_info *info)
{
	const char *type = libbpf_bpf_prog_type_str(info->type);
	json_t *pins = json_array();
	char tag[2 * BPF_TAG_SIZE + 1];

	for (int i = 0; i < BPF_TAG_SIZE; i++)
		sprintf(tag + 2 * i, "%02x", info->tag[i]);
	add_pins(cli, "progs", info->id, pins);
	add_pins(cli, "links", info->id, pins);
	return json_pack("{s:I, s:s, s:s, s:s, s:I, s:I, s:o}", "id", (json_int_t)info->id,
			 "name", info->name, "type", type ? type : "?", "tag", tag, "bytes",
			 (json_int_t)info->xlated_prog_len, "verifiedInsns",
			 (json_int_t)info->verified_insns, "pins", pins);
}

int cmd_bpf_prog_list(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	_cleanup_json_ json_t *list = json_array();
	struct map_ids ours = {};
	__u32 id = 0;
	int r;

	r = read_map_ids(cli, &ours, err);
	if (r < 0)
		return r;
	while (bpf_prog_get_next_id(id, &id) == 0) {
		_cleanup_close_ int fd = bpf_prog_get_fd_by_id(id);
		struct bpf_prog_info info = {};
		__u32 ids[MAX_MAPS], len = sizeof(info);

		info.nr_map_ids = MAX_MAPS;
		info.map_ids = (__u64)(uintptr_t)ids;
		/* A program may be unloaded while we look. */
		if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
			continue;
		if (uses_ours(&ours, ids, info.nr_map_ids < MAX_MAPS ? info.nr_map_ids : MAX_MAPS))
			json_array_append_new(list, prog_json(cli, &info));
	}
	return output_print(cli->format, list, list, columns,
			    sizeof(columns) / sizeof(columns[0]), err);
}
