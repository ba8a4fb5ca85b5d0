// SPDX-License-Identifier: Apache-2.0
/* waggle service list */
#include <stdio.h>
#include <string.h>
#include <waggle/cleanup.h>
#include "services.h"

static const struct output_column columns[] = {
	{ "ID", "id" }, { "NAME", "title" }, { "FRONTEND", "frontend" }, { "TYPE", "kind" },
	{ "RULES", "rules" }, { "BACKENDS", "lines" },
};

/* The table's row of one frontend: backends as "1 => 10.0.0.1:80/TCP", one a line. */
static json_t *row_of(const json_t *service)
{
	const char *port = json_string_value(json_object_get(service, "portName"));
	const char *name = json_string_value(json_object_get(service, "name"));
	const json_t *backend, *backends = json_object_get(service, "backends");
	const json_t *kinds = json_object_get(service, "kinds");
	json_t *lines = json_array(), *row = json_object();
	const char *silence = service_silence(service);
	char title[256], rules[96];
	size_t i;

	json_array_foreach((json_t *)backends, i, backend)
		json_array_append_new(lines, json_sprintf("%d => %s%s",
			(int)json_integer_value(json_object_get(backend, "slot")),
			json_string_value(json_object_get(backend, "address")),
			service_backend_note(service, backend)));
	if (silence)
		json_array_insert_new(lines, 0, json_string(silence));
	service_rules(service, rules, sizeof(rules));
	json_object_set_new(row, "rules", json_string(rules));
	snprintf(title, sizeof(title), "%s/%s%s%s",
		 json_string_value(json_object_get(service, "namespace")), name,
		 *port ? ":" : "", port);
	json_object_set(row, "id", json_object_get(service, "id"));
	json_object_set_new(row, "title", json_string(*name ? title : "-"));
	json_object_set(row, "frontend", json_object_get(service, "frontend"));
	json_object_set(row, "kind", json_array_size(kinds) ? json_array_get(kinds, 0) :
							      json_object_get(service, "type"));
	json_object_set_new(row, "lines", lines);
	return row;
}

int cmd_service_list(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	_cleanup_json_ json_t *doc = NULL, *rows = json_array();
	json_t *service;
	size_t i;
	int r;

	r = services_read(cli, &doc, err);
	if (r < 0)
		return r;
	json_array_foreach(doc, i, service)
		json_array_append_new(rows, row_of(service));
	return output_print(cli->format, doc, rows, columns,
			    sizeof(columns) / sizeof(columns[0]), err);
}
