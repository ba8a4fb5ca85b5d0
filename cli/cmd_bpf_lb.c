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

static const struct output_column frontend_columns[] = {
	{ "SERVICE ADDRESS", "frontend" }, { "ID", "id" }, { "KIND", "kind" }, { "RULES", "rules" },
};

static const struct output_column backend_columns[] = {
	{ "ID", "id" }, { "BACKEND ADDRESS", "address" }, { "SETS", "sets" },
};

static const struct output_column range_columns[] = {
	{ "SERVICE ADDRESS", "frontend" }, { "ID", "id" }, { "SOURCE RANGES", "sourceRanges" },
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

static int list_frontends(const struct cli *cli, const json_t *services, struct wag_err *err)
{
	_cleanup_json_ json_t *list = json_array();
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
	return output_print(cli->format, list, list, frontend_columns, 4, err);
}

/* Frontends of one id stand together and have the same backends. */
static int list_backends(const struct cli *cli, const json_t *services, struct wag_err *err)
{
	_cleanup_json_ json_t *list = json_array();
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
	return output_print(cli->format, list, list, backend_columns, 3, err);
}

static int list_ranges(const struct cli *cli, const json_t *services, struct wag_err *err)
{
	_cleanup_json_ json_t *list = json_array();
	const json_t *service;
	size_t i;

	json_array_foreach((json_t *)services, i, service)
		if (json_array_size(json_object_get(service, "sourceRanges")))
			json_array_append_new(list, json_pack("{s:O, s:O, s:O}", "frontend",
				json_object_get(service, "frontend"),
				"id", json_object_get(service, "id"),
				"sourceRanges", json_object_get(service, "sourceRanges")));
	return output_print(cli->format, list, list, range_columns, 3, err);
}

int cmd_bpf_lb_list(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	_cleanup_json_ json_t *services = NULL, *rows = json_array(), *doc = json_object();
	json_t *service;
	size_t i;
	int r;

	r = services_read(cli, &services, err);
	if (r < 0)
		return r;
	if (cli->frontends)
		return list_frontends(cli, services, err);
	if (cli->backends)
		return list_backends(cli, services, err);
	if (cli->source_ranges)
		return list_ranges(cli, services, err);
	json_array_foreach(services, i, service)
		add_frontend(rows, doc, service);
	return output_print(cli->format, doc, rows, columns, 2, err);
}
