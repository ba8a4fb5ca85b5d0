// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "print.h"

#define COLUMNS_MAX 16
#define PADDING 3

struct row {
	struct row *next;
	size_t n;
	char *cells[COLUMNS_MAX];
};

struct print_table {
	struct row *first, **last;
	size_t widths[COLUMNS_MAX];
};

struct print_table *print_table_new(void)
{
	struct print_table *t = calloc(1, sizeof(*t));

	if (t)
		t->last = &t->first;
	return t;
}

static void rows_free(struct print_table *t)
{
	while (t->first) {
		struct row *row = t->first;

		t->first = row->next;
		for (size_t i = 0; i < row->n; i++)
			free(row->cells[i]);
		free(row);
	}
	t->last = &t->first;
}

void print_table_free(struct print_table *t)
{
	if (!t)
		return;
	rows_free(t);
	free(t);
}

static size_t width(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += (*text & 0xc0) != 0x80;
	return n;
}

int print_table_row(struct print_table *t, const char *const *cells, size_t n)
{
	struct row *row = calloc(1, sizeof(*row));

	if (!row || n > COLUMNS_MAX) {
		free(row);
		return -ENOMEM;
	}
	*t->last = row;
	t->last = &row->next;
	for (; row->n < n; row->n++) {
		row->cells[row->n] = strdup(cells[row->n]);
		if (!row->cells[row->n])
			return -ENOMEM;
		if (width(cells[row->n]) > t->widths[row->n])
			t->widths[row->n] = width(cells[row->n]);
	}
	return 0;
}

void print_table_flush(struct print_table *t, FILE *out)
{
	for (const struct row *row = t->first; row; row = row->next) {
		for (size_t i = 0; i < row->n; i++) {
			print_safe(out, row->cells[i]);
			if (i + 1 < row->n)
				fprintf(out, "%*s",
					(int)(t->widths[i] + PADDING - width(row->cells[i])), "");
		}
		fputc('\n', out);
	}
	rows_free(t);
}
