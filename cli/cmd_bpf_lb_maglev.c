// SPDX-License-Identifier: Apache-2.0
/* waggle bpf lb maglev list|get: Maglev's lookup tables. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <waggle/cleanup.h>
#include "services.h"

static const struct output_column list_columns[] = {
	{ "ID", "id" }, { "SERVICE ADDRESS", "frontend" }, { "SET", "set" },
	{ "ENTRIES", "entries" }, { "BACKEND ADDRESS, ENTRIES", "backends" },
};

static const struct output_column get_columns[] = {
	{ "SET", "set" }, { "ENTRY", "entry" }, { "BACKEND ADDRESS", "backend" },
};

static const char *const sets[] = { "cluster", "local" };

/* How many entries each address has. */
static json_t *shares(const json_t *table)
{
	json_t *found = json_object(), *addr;
	size_t i;

	json_array_foreach((json_t *)table, i, addr) {
		const char *text = json_string_value(addr);
		json_int_t n = json_integer_value(json_object_get(found, text));

		json_object_set_new(found, text, json_integer(n + 1));
	}
	return found;
}

/* The same for people. */
static json_t *share_lines(const json_t *shares)
{
	json_t *lines = json_array(), *n;
	const char *addr;

	json_object_foreach((json_t *)shares, addr, n)
		json_array_append_new(lines, json_sprintf("%s %d", addr,
							  (int)json_integer_value(n)));
	return lines;
}

static void add_table(json_t *doc, json_t *rows, const json_t *service, const char *set)
{
	const json_t *table = json_object_get(service, set);
	json_t *one, *row;

	if (!json_array_size(table))
		return;
	one = json_pack("{s:O, s:O, s:s, s:i, s:o}", "id", json_object_get(service, "id"),
			"frontend", json_object_get(service, "frontend"), "set", set, "entries",
			(int)json_array_size(table), "backends", shares(table));
	row = json_copy(one);
	json_object_set_new(row, "backends", share_lines(json_object_get(one, "backends")));
	json_array_append_new(doc, one);
	json_array_append_new(rows, row);
}

int cmd_bpf_lb_maglev_list(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	_cleanup_json_ json_t *services = NULL, *doc = json_array(), *rows = json_array();
	json_t *service;
	size_t i;
	int r = services_read_maglev(cli, &services, err);

	if (r < 0)
		return r;
	json_array_foreach(services, i, service)
		for (size_t s = 0; s < sizeof(sets) / sizeof(sets[0]); s++)
			add_table(doc, rows, service, sets[s]);
	return output_print(cli->format, doc, rows, list_columns, 5, err);
}

static const json_t *find(const json_t *services, const char *which)
{
	const json_t *service;
	size_t i;

	json_array_foreach((json_t *)services, i, service) {
		const char *frontend = json_string_value(json_object_get(service, "frontend"));
		char id[16];

		snprintf(id, sizeof(id), "%d",
			 (int)json_integer_value(json_object_get(service, "id")));
		if (strcmp(which, id) == 0 || strcmp(which, frontend) == 0)
			return service;
	}
	return NULL;
}

int cmd_bpf_lb_maglev_get(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	_cleanup_json_ json_t *services = NULL, *list = json_array();
	const json_t *service;
	json_t *addr;
	size_t i;
	int r;

	if (argc < 1)
		return wag_err_set(err, -EINVAL,
				   "which? Give an ID of \"waggle bpf lb maglev list\"");
	r = services_read_maglev(cli, &services, err);
	if (r < 0)
		return r;
	service = find(services, argv[0]);
	if (!service)
		return wag_err_set(err, -ENOENT, "no Service with Maglev has the ID %s: see "
				   "\"waggle bpf lb maglev list\"", argv[0]);
	for (size_t s = 0; s < sizeof(sets) / sizeof(sets[0]); s++)
		json_array_foreach(json_object_get(service, sets[s]), i, addr)
			json_array_append_new(list, json_pack("{s:s, s:i, s:O}", "set", sets[s],
							      "entry", (int)i, "backend", addr));
	return output_print(cli->format, list, list, get_columns, 3, err);
}
