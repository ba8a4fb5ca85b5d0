/* SPDX-License-Identifier: Apache-2.0 */
/* Flows as text, in the shapes of "hubble observe". */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include "flow.pb-c.h"
#include "observer.pb-c.h"

enum print_output { PRINT_COMPACT, PRINT_TABLE, PRINT_DICT, PRINT_JSONPB };

enum print_time {
	PRINT_STAMP_MILLI, /* Jan  1 00:20:34.567 */
	PRINT_RFC3339,
	PRINT_RFC3339_MILLI,
	PRINT_RFC3339_MICRO,
	PRINT_RFC3339_NANO,
	PRINT_RFC1123Z,
};

struct print_table;

struct printer {
	FILE *out, *err;
	enum print_output output;
	enum print_time time_format;
	bool node_name, numeric, color, policy_names;
	unsigned lines;
	struct print_table *table; /* cells waiting for the last row */
};

void printer_init(struct printer *p, FILE *out, FILE *err);
int printer_finish(struct printer *p); /* 0, or -errno when the output could not be written */
void printer_done(struct printer *p);

int print_output_parse(const char *text, enum print_output *ret); /* 0 or -EINVAL */
int print_time_parse(const char *text, enum print_time *ret);	  /* 0 or -EINVAL */

/* 0 or -errno of the output. */
int print_response(struct printer *p, const Observer__GetFlowsResponse *response);
int print_status(struct printer *p, const Observer__ServerStatusResponse *status);

/* The words of a flow, for the printers. */
void print_time_format(enum print_time format, const Google__Protobuf__Timestamp *ts, char *buf,
		       size_t size);
void print_hosts(const struct printer *p, const Flow__Flow *flow, char *source, char *destination,
		 size_t size);
void print_identity(const Flow__Endpoint *ep, char *buf, size_t size);
void print_type(const Flow__Flow *flow, char *buf, size_t size);
void print_verdict(const struct printer *p, const Flow__Flow *flow, char *buf, size_t size);
const char *print_drop_text(const Flow__Flow *flow); /* NULL: not known */
/* Control characters become visible: names come from elsewhere, and this goes to a terminal. */
void print_safe(FILE *f, const char *text);

/* ---- a table whose columns fit, as Go's tabwriter lays them out ---- */
struct print_table *print_table_new(void); /* NULL: out of memory */
void print_table_free(struct print_table *t);
int print_table_row(struct print_table *t, const char *const *cells, size_t n); /* 0 or -ENOMEM */
void print_table_flush(struct print_table *t, FILE *out);
