// SPDX-License-Identifier: Apache-2.0
/* waggle node list */
#include <stdio.h>
#include <string.h>
#include <waggle/cleanup.h>
#include "nodes.h"

static const struct output_column columns[] = {
	{ "ADDRESSES", "addresses" },
	{ "LINK", "way" },
	{ "MTU", "size" },
	{ "POD CIDRS", "podCIDRs" },
};

static json_t *row_of(const json_t *node)
{
	json_int_t mtu = json_integer_value(json_object_get(node, "mtu"));
	json_t *row = json_object();

	json_object_set(row, "addresses", json_object_get(node, "addresses"));
	json_object_set(row, "podCIDRs", json_object_get(node, "podCIDRs"));
	json_object_set_new(row, "way", node_way(node));
	json_object_set_new(row, "size", mtu ? json_sprintf("%lld", mtu) : json_string("-"));
	return row;
}

int cmd_node_list(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	_cleanup_json_ json_t *doc = NULL, *rows = json_array();
	json_t *node;
	size_t i;
	int r;

	r = nodes_read(cli, &doc, err);
	if (r < 0)
		return r;
	json_array_foreach(doc, i, node)
		json_array_append_new(rows, row_of(node));
	return output_print(cli->format, doc, rows, columns,
			    sizeof(columns) / sizeof(columns[0]), err);
}
