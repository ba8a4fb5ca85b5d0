/* SPDX-License-Identifier: Apache-2.0 */
/* The pinned maps, read only: found, opened, walked. */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/abi_maps.h>
#include <waggle/abi_reason.h>
#include <waggle/map_walk.h>
#include "cli.h"

/* Keeps libbpf from writing to stderr: our errors say what a person needs. */
void bpf_maps_init(void);

struct pinned_map {
	int fd;
	char name[64]; /* of the pin */
	struct bpf_map_info info;
	uint64_t memory_bytes; /* 0: unknown */
};

/* Opens DIR/maps/NAME. An absent one is explained, with the names there are. */
int pinned_map_open(const struct cli *cli, const char *name, struct pinned_map *ret,
		    struct wag_err *err);
/* As above, and refuses a map whose key or value is not the struct this build knows. */
int pinned_map_open_typed(const struct cli *cli, const char *name, size_t key_size,
			  size_t value_size, struct pinned_map *ret, struct wag_err *err);
void pinned_map_done(struct pinned_map *map);
#define _cleanup_map_ _cleanup_(pinned_map_done)
#define PINNED_MAP_NONE { .fd = -1 }

/* Sorted names of all pinned maps; caller frees each and the list. Returns how many, or -errno. */
int pinned_map_names(const struct cli *cli, char ***ret, struct wag_err *err);
void pinned_names_free(char **names, int n);

/* map_walk() */
int pinned_map_each(const struct pinned_map *map, map_walk_fn fn, void *ctx);
int pinned_map_lookup(const struct pinned_map *map, const void *key, void *value); /* 0, -errno */
/* Elements in it now, or -errno. For arrays, all of them. */
int64_t pinned_map_count(const struct pinned_map *map);

bool pinned_map_is_per_cpu(const struct pinned_map *map);
bool pinned_map_is_array(const struct pinned_map *map);
size_t pinned_map_value_bytes(const struct pinned_map *map); /* of one lookup */
const char *pinned_map_type_name(uint32_t type);

/* Adds up wag_stats[point][reason] over CPUs. 0, or -errno with err filled. */
int stats_read(const struct cli *cli, struct wag_stat ret[], size_t n, struct wag_err *err);
int meta_read(const struct cli *cli, struct wag_meta *ret, struct wag_err *err);
