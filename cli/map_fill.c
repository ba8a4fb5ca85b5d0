// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <string.h>
#include <waggle/cleanup.h>
#include "bpf_maps.h"
#include "map_fill.h"

/* Maps whose fill is worth a line: those that can run full. */
static const char *const filling[] = {
	"wag_svc", "wag_backend", "wag_svc_name", "wag_ct", "wag_sock", "wag_pods", "wag_endpoint",
	"wag_src_range", "wag_affinity", "wag_netns", "wag_cidr", "wag_nodes",
};

/* Conntrack counts itself; walking a quarter of a million flows for a status line would not do. */
static int64_t fill_of(const struct cli *cli, const struct pinned_map *map)
{
	_cleanup_map_ struct pinned_map clock = PINNED_MAP_NONE;
	struct wag_ct_clock value;
	__u32 zero = 0;

	if (strcmp(map->name, "wag_ct") != 0)
		return pinned_map_count(map);
	if (pinned_map_open_typed(cli, "wag_ct_clock", sizeof(zero), sizeof(value), &clock,
				  NULL) < 0 ||
	    pinned_map_lookup(&clock, &zero, &value) < 0)
		return -ENOENT;
	return value.used;
}

json_t *map_fill(const struct cli *cli)
{
	json_t *list = json_array();

	for (size_t i = 0; i < sizeof(filling) / sizeof(filling[0]); i++) {
		_cleanup_map_ struct pinned_map map = PINNED_MAP_NONE;
		int64_t used;

		if (pinned_map_open(cli, filling[i], &map, NULL) < 0)
			continue;
		used = fill_of(cli, &map);
		if (used >= 0)
			json_array_append_new(list, json_pack("{s:s, s:I, s:I}", "name",
				filling[i], "entries", (json_int_t)used, "maxEntries",
				(json_int_t)map.info.max_entries));
	}
	return list;
}
