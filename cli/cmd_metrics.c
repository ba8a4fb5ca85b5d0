// SPDX-License-Identifier: Apache-2.0
/* waggle metrics: the agent's own text when it is up; always the datapath's counters. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "bpf_maps.h"
#include "http_get.h"

static const struct output_column columns[] = {
	{ "POINT", "point" },
	{ "REASON", "reason" },
	{ "PACKETS", "packets" },
	{ "BYTES", "bytes" },
};

static json_t *stats_json(const struct wag_stat *stats)
{
	json_t *list = json_array();

	for (unsigned point = 0; point < WAG_POINTS; point++) {
		for (unsigned reason = 0; reason < WAG_REASON_COUNT; reason++) {
			const struct wag_stat *s = &stats[WAG_STAT_INDEX(point, reason)];

			if (!s->packets)
				continue;
			json_array_append_new(list, json_pack("{s:s, s:s, s:b, s:I, s:I}",
				"point", wag_point_name(point), "reason", wag_reason_text(reason),
				"dropped", reason != WAG_DROP_FORWARDED, "packets",
				(json_int_t)s->packets, "bytes", (json_int_t)s->bytes));
		}
	}
	return list;
}

int cmd_metrics(const struct cli *cli, int argc, char **argv, struct wag_err *err)
{
	static struct wag_stat stats[WAG_POINTS * WAG_REASONS_MAX];
	_cleanup_json_ json_t *list = NULL;
	_cleanup_free_ char *body = NULL;
	int r;

	if (cli->format == OUTPUT_TABLE && http_get(cli->health_addr, "/metrics", &body) == 200) {
		errno = 0;
		fputs(body, stdout);
		return output_done(err);
	}
	r = stats_read(cli, stats, sizeof(stats) / sizeof(stats[0]), err);
	if (r < 0)
		return r;
	if (cli->format == OUTPUT_TABLE)
		fprintf(stderr, "no agent answers on %s: these are the datapath's counters\n",
			cli->health_addr);
	list = stats_json(stats);
	return output_print(cli->format, list, list, columns,
			    sizeof(columns) / sizeof(columns[0]), err);
}
