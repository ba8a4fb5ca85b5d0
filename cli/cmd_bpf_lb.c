// SPDX-License-Identifier: Apache-2.0
/* waggle bpf lb list: the load-balancing tables, in the shape cilium-dbg prints its own. */
#include <stdio.h>
#include <string.h>
#include <waggle/cleanup.h>
#include "services.h"

static const struct output_column columns[] = {
	{ "SERVICE ADDRESS", "service" },
	{ "BACKEND ADDRESS (REVNAT_ID) (SLOT)", "backend" },
};

/* Adds one line: to the table's rows and to the document's list of this frontend. */
static void add_line(json_t *rows, json_t *lines, const char *frontend, int slot, json_t *backend)
{
	json_t *service = json_sprintf("%s (%d)", frontend, slot);

	json_array_append_new(rows, json_pack("{s:o, s:O}", "service", service, "backend",
					      backend));
	json_array_append_new(lines, backend);
}

static const char *kind_of(const json_t *service)
{
	const char *kind = json_string_value(json_array_get(json_object_get(service, "kinds"), 0));

	return kind ? kind : "?";
}

static void add_frontend(json_t *rows, json_t *doc, const json_t *service)
{
	const char *frontend = json_string_value(json_object_get(service, "frontend"));
	const json_t *backends = json_object_get(service, "backends"), *backend;
	int id = (int)json_integer_value(json_object_get(service, "id"));
	const char *silence = service_silence(service);
	json_t *lines = json_array();
	char rules[96];
	size_t i;

	service_rules(service, rules, sizeof(rules));
	/* Slot 0 is the frontend itself. */
	add_line(rows, lines, frontend, 0,
		 json_sprintf("%s (%d) (0) [%s%s%s%s%s]",
			      strchr(frontend, '[') ? "[::]:0" : "0.0.0.0:0", id, kind_of(service),
			      *rules ? ", " : "", rules, silence ? ", backends: " : "",
			      silence ? silence : ""));
	json_array_foreach((json_t *)backends, i, backend) {
		int slot = (int)json_integer_value(json_object_get(backend, "slot"));

		add_line(rows, lines, frontend, slot,
			 json_sprintf("%s (%d) (%d)%s",
				      json_string_value(json_object_get(backend, "address")), id,
				      slot, service_backend_note(service, backend)));
	}
	json_object_set_new(doc, frontend, lines);
}

/* ---- one table, or some, of those that the list joins ---- */

static json_t *frontends_of(const json_t *services)
{
	json_t *list = json_array();
	const json_t *service;
	char rules[96];
	size_t i;

	json_array_foreach((json_t *)services, i, service) {
		service_rules(service, rules, sizeof(rules));
		json_array_append_new(list, json_pack("{s:O, s:O, s:s, s:s}", "frontend",
						      json_object_get(service, "frontend"), "id",
						      json_object_get(service, "id"), "kind",
						      kind_of(service), "rules", rules));
	}
	return list;
}

/* Frontends of one id stand together and have the same backends. */
static json_t *backends_of(const json_t *services)
{
	json_t *list = json_array();
	const json_t *service, *backend;
	json_int_t last = -1;
	size_t i, j;

	json_array_foreach((json_t *)services, i, service) {
		json_t *id = json_object_get(service, "id");

		if (json_integer_value(id) == last)
			continue;
		last = json_integer_value(id);
		json_array_foreach(json_object_get(service, "backends"), j, backend)
			json_array_append_new(list, json_pack("{s:O, s:O, s:O}", "id", id,
				"address", json_object_get(backend, "address"),
				"sets", json_object_get(backend, "sets")));
	}
	return list;
}

static json_t *ranges_of(const json_t *services)
{
	json_t *list = json_array();
	const json_t *service;
	size_t i;

	json_array_foreach((json_t *)services, i, service)
		if (json_array_size(json_object_get(service, "sourceRanges")))
			json_array_append_new(list, json_pack("{s:O, s:O, s:O}", "frontend",
				json_object_get(service, "frontend"),
				"id", json_object_get(service, "id"),
				"sourceRanges", json_object_get(service, "sourceRanges")));
	return list;
}

static const struct table {
	const char *name;
	json_t *(*list)(const json_t *services);
	size_t n_columns;
	struct output_column columns[4];
} tables[] = {
	{ "frontends", frontends_of, 4,
	  { { "SERVICE ADDRESS", "frontend" }, { "ID", "id" }, { "KIND", "kind" },
	    { "RULES", "rules" } } },
	{ "backends", backends_of, 3,
	  { { "ID", "id" }, { "BACKEND ADDRESS", "address" }, { "SETS", "sets" } } },
	{ "sourceRanges", ranges_of, 3,
	  { { "SERVICE ADDRESS", "frontend" }, { "ID", "id" },
	    { "SOURCE RANGES", "sourceRanges" } } },
};
#define N_TABLES (sizeof(tables) / sizeof(tables[0]))

/* Several are one below the other; as a document, an object of their lists. */
static int list_tables(const struct cli *cli, const bool wanted[N_TABLES], const json_t *services,
		       struct wag_err *err)
{
	_cleanup_json_ json_t *doc = json_object();
	size_t shown = 0;
	int r = 0;

	for (size_t i = 0; i < N_TABLES; i++)
		if (wanted[i])
			json_object_set_new(doc, tables[i].name, tables[i].list(services));
	if (json_object_size(doc) > 1 && cli->format != OUTPUT_TABLE)
		return output_print(cli->format, doc, doc, NULL, 0, err);
	for (size_t i = 0; i < N_TABLES && r == 0; i++) {
		const json_t *list = json_object_get(doc, tables[i].name);

		if (!list)
			continue;
		if (shown++)
			putchar('\n');
		r = output_print(cli->format, list, list, tables[i].columns, tables[i].n_columns,
				 err);
	}
	return r;
}

int cmd_bpf_lb_list(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	_cleanup_json_ json_t *services = NULL, *rows = json_array(), *doc = json_object();
	const bool wanted[] = { cli->frontends, cli->backends, cli->source_ranges };
	json_t *service;
	size_t i;
	int r;

	r = services_read(cli, &services, err);
	if (r < 0)
		return r;
	if (cli->frontends || cli->backends || cli->source_ranges)
		return list_tables(cli, wanted, services, err);
	json_array_foreach(services, i, service)
		add_frontend(rows, doc, service);
	return output_print(cli->format, doc, rows, columns, 2, err);
}
