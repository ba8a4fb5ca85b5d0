// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <waggle/cleanup.h>
#include <yaml.h>
#include "output.h"

#define MAX_COLUMNS 16

int output_format_parse(const char *text, enum output_format *ret)
{
	static const char *const names[] = { "table", "json", "yaml" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(text, names[i]) == 0) {
			*ret = (enum output_format)i;
			return 0;
		}
	}
	return -EINVAL;
}

void output_json_decref(json_t **value)
{
	json_decref(*value);
}

/* ---- text of one value ---- */

static void put_compact(FILE *f, const json_t *value)
{
	const char *key, *sep = "";
	json_t *member;
	size_t i;

	switch (json_typeof(value)) {
	case JSON_OBJECT:
		json_object_foreach((json_t *)value, key, member) {
			bool nested = json_is_object(member) || json_is_array(member);

			fprintf(f, nested ? "%s%s={" : "%s%s=", sep, key);
			put_compact(f, member);
			if (nested)
				fputc('}', f);
			sep = " ";
		}
		break;
	case JSON_ARRAY:
		json_array_foreach((json_t *)value, i, member) {
			fputs(sep, f);
			put_compact(f, member);
			sep = ", ";
		}
		break;
	case JSON_STRING:
		fputs(json_string_value(value), f);
		break;
	case JSON_INTEGER:
		fprintf(f, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
		break;
	case JSON_REAL:
		fprintf(f, "%.1f", json_real_value(value));
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		fputs(json_is_true(value) ? "true" : "false", f);
		break;
	default:
		fputc('-', f);
	}
}

char *output_compact(const json_t *value)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return NULL;
	put_compact(f, value);
	if (fclose(f) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

/* ---- table ---- */

static size_t cell_lines(const json_t *cell)
{
	if (!cell || !json_is_array(cell))
		return 1;
	return json_array_size(cell) ? json_array_size(cell) : 1;
}

/* Line number of a cell, as text; caller frees. NULL: out of memory. */
static char *cell_text(const json_t *cell, size_t line)
{
	if (cell && json_is_array(cell))
		cell = json_array_get(cell, line);
	else if (line > 0)
		cell = NULL;
	return cell ? output_compact(cell) : strdup("");
}

static int widen(const json_t *row, const struct output_column *columns, size_t n, size_t *widths)
{
	for (size_t c = 0; c < n; c++) {
		const json_t *cell = json_object_get(row, columns[c].key);

		for (size_t line = 0; line < cell_lines(cell); line++) {
			_cleanup_free_ char *text = cell_text(cell, line);

			if (!text)
				return -ENOMEM;
			if (strlen(text) > widths[c])
				widths[c] = strlen(text);
		}
	}
	return 0;
}

static int print_row(const json_t *row, const struct output_column *columns, size_t n,
		     const size_t *widths)
{
	size_t lines = 1;

	for (size_t c = 0; c < n; c++) {
		size_t l = cell_lines(json_object_get(row, columns[c].key));

		lines = l > lines ? l : lines;
	}
	for (size_t line = 0; line < lines; line++) {
		size_t pending = 0; /* blanks owed: none are printed at a line's end */

		for (size_t c = 0; c < n; c++) {
			_cleanup_free_ char *text =
				cell_text(json_object_get(row, columns[c].key), line);

			if (!text)
				return -ENOMEM;
			if (*text) {
				printf("%*s%s", (int)pending, "", text);
				pending = 0;
			}
			pending += widths[c] - strlen(text) + 3;
		}
		putchar('\n');
	}
	return 0;
}

static int print_table(const json_t *rows, const struct output_column *columns, size_t n)
{
	size_t widths[MAX_COLUMNS], i;
	json_t *row;
	int r;

	if (n > MAX_COLUMNS)
		return -E2BIG;
	for (size_t c = 0; c < n; c++)
		widths[c] = strlen(columns[c].title);
	json_array_foreach((json_t *)rows, i, row) {
		r = widen(row, columns, n, widths);
		if (r < 0)
			return r;
	}
	for (size_t c = 0; c < n; c++)
		printf("%-*s%s", c + 1 < n ? (int)widths[c] + 3 : 0, columns[c].title,
		       c + 1 < n ? "" : "\n");
	json_array_foreach((json_t *)rows, i, row) {
		r = print_row(row, columns, n, widths);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- yaml ---- */

static int emit_scalar(yaml_emitter_t *emitter, const char *text, bool quoted)
{
	yaml_event_t event;

	if (!yaml_scalar_event_initialize(&event, NULL, NULL, (yaml_char_t *)text, -1, 1, 1,
					  quoted ? YAML_DOUBLE_QUOTED_SCALAR_STYLE :
						   YAML_PLAIN_SCALAR_STYLE))
		return -ENOMEM;
	return yaml_emitter_emit(emitter, &event) ? 0 : -EIO;
}

/* A string that a YAML reader would take for something else. */
static bool needs_quotes(const char *text)
{
	static const char *const words[] = {
		"true", "false", "null", "yes", "no", "on", "off", "~"
	};

	if (!*text || strspn(text, "0123456789.+-eExX_:") == strlen(text))
		return true;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strcasecmp(text, words[i]) == 0)
			return true;
	return false;
}

static int emit_value(yaml_emitter_t *emitter, const json_t *value);

static int emit_container(yaml_emitter_t *emitter, const json_t *value)
{
	bool is_map = json_is_object(value);
	yaml_event_t event;
	const char *key;
	json_t *member;
	size_t i;
	int r;

	r = is_map ? yaml_mapping_start_event_initialize(&event, NULL, NULL, 1,
							 YAML_BLOCK_MAPPING_STYLE) :
		     yaml_sequence_start_event_initialize(&event, NULL, NULL, 1,
							  YAML_BLOCK_SEQUENCE_STYLE);
	if (!r || !yaml_emitter_emit(emitter, &event))
		return -EIO;
	json_object_foreach((json_t *)value, key, member) {
		r = emit_scalar(emitter, key, needs_quotes(key));
		if (r == 0)
			r = emit_value(emitter, member);
		if (r < 0)
			return r;
	}
	json_array_foreach((json_t *)value, i, member) {
		r = emit_value(emitter, member);
		if (r < 0)
			return r;
	}
	r = is_map ? yaml_mapping_end_event_initialize(&event) :
		     yaml_sequence_end_event_initialize(&event);
	return r && yaml_emitter_emit(emitter, &event) ? 0 : -EIO;
}

static int emit_value(yaml_emitter_t *emitter, const json_t *value)
{
	_cleanup_free_ char *text = NULL;

	if (json_is_object(value) || json_is_array(value))
		return emit_container(emitter, value);
	if (json_is_null(value))
		return emit_scalar(emitter, "null", false);
	text = output_compact(value);
	if (!text)
		return -ENOMEM;
	return emit_scalar(emitter, text, json_is_string(value) && needs_quotes(text));
}

static int print_yaml(const json_t *doc)
{
	yaml_emitter_t emitter;
	yaml_event_t event;
	int r = -EIO;

	if (!yaml_emitter_initialize(&emitter))
		return -ENOMEM;
	yaml_emitter_set_output_file(&emitter, stdout);
	yaml_emitter_set_width(&emitter, -1);
	yaml_emitter_set_unicode(&emitter, 1);
	if (yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING) &&
	    yaml_emitter_emit(&emitter, &event) &&
	    yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1) &&
	    yaml_emitter_emit(&emitter, &event)) {
		r = emit_value(&emitter, doc);
		if (r == 0 && (!yaml_document_end_event_initialize(&event, 1) ||
			       !yaml_emitter_emit(&emitter, &event) ||
			       !yaml_stream_end_event_initialize(&event) ||
			       !yaml_emitter_emit(&emitter, &event)))
			r = -EIO;
	}
	yaml_emitter_delete(&emitter);
	return r;
}

int output_done(struct wag_err *err)
{
	int r;

	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	r = errno ? -errno : -EIO;
	return wag_err_set(err, r, "output: %s", strerror(-r));
}

int output_print(enum output_format format, const json_t *doc, const json_t *rows,
		 const struct output_column *columns, size_t n_columns, struct wag_err *err)
{
	int done, r = doc && rows ? 0 : -ENOMEM;

	if (r < 0)
		return wag_err_set(err, r, "output: %s", strerror(-r));
	errno = 0; /* a write that fails says why, whoever notices it */
	switch (format) {
	case OUTPUT_TABLE:
		r = print_table(rows, columns, n_columns);
		break;
	case OUTPUT_JSON:
		if (json_dumpf(doc, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY) != 0)
			r = -EIO;
		putchar('\n');
		break;
	case OUTPUT_YAML:
		r = print_yaml(doc);
		break;
	}
	done = output_done(err);
	if (done < 0)
		return done;
	return r < 0 ? wag_err_set(err, r, "output: %s", strerror(-r)) : 0;
}
