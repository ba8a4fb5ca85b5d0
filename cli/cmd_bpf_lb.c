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

static void add_frontend(json_t *rows, json_t *doc, const json_t *service)
{
	const char *frontend = json_string_value(json_object_get(service, "frontend"));
	const json_t *kinds = json_object_get(service, "kinds");
	const json_t *backends = json_object_get(service, "backends"), *backend;
	const char *kind = json_string_value(json_array_get(kinds, 0));
	int id = (int)json_integer_value(json_object_get(service, "id"));
	json_t *lines = json_array();
	size_t i;

	/* Slot 0 is the frontend itself. */
	add_line(rows, lines, frontend, 0,
		 json_sprintf("%s (%d) (0) [%s%s]", strchr(frontend, '[') ? "[::]:0" : "0.0.0.0:0",
			      id, kind ? kind : "?",
			      json_array_size(backends) ? "" : ", no backend: refused"));
	json_array_foreach((json_t *)backends, i, backend) {
		int slot = (int)json_integer_value(json_object_get(backend, "slot"));

		add_line(rows, lines, frontend, slot,
			 json_sprintf("%s (%d) (%d)",
				      json_string_value(json_object_get(backend, "address")), id,
				      slot));
	}
	json_object_set_new(doc, frontend, lines);
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
	json_array_foreach(services, i, service)
		add_frontend(rows, doc, service);
	r = output_print(cli->format, doc, rows, columns, sizeof(columns) / sizeof(columns[0]));
	return r < 0 ? wag_err_set(err, r, "output: %s", strerror(-r)) : 0;
}
