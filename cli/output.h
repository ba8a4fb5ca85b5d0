/* SPDX-License-Identifier: Apache-2.0 */
/* One result, three ways to print it: table, json, yaml. */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <waggle/err.h>

enum output_format { OUTPUT_TABLE, OUTPUT_JSON, OUTPUT_YAML };

struct output_column {
	const char *title;
	const char *key; /* member of a row */
};

int output_format_parse(const char *text, enum output_format *ret); /* 0 or -EINVAL */

/*
 * Prints doc as JSON or YAML, or rows as a table: an array of objects, one cell a column. A cell
 * that is an array takes one line an element. Returns 0, or -errno with err filled (-EPIPE: nobody
 * reads).
 */
int output_print(enum output_format format, const json_t *doc, const json_t *rows,
		 const struct output_column *columns, size_t n_columns, struct wag_err *err);

/* Has all that was printed arrived? 0, or -errno with err filled (-EPIPE: nobody reads). */
int output_done(struct wag_err *err);

/* "key=value key=value" of any value, for a table's cell; caller frees. NULL: out of memory. */
char *output_compact(const json_t *value);

void output_json_decref(json_t **value); /* for _cleanup_() */
#define _cleanup_json_ _cleanup_(output_json_decref)
