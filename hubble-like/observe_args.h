/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of flow-observe, in the flags of "hubble observe". */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "observe_filter.h"
#include "observer.pb-c.h"
#include "print.h"

enum observe_command { OBSERVE_FLOWS, OBSERVE_STATUS, OBSERVE_LIST_NODES, OBSERVE_LIST_NAMESPACES };

struct observe_args {
	enum observe_command command;
	const char *server;
	const char *input_file; /* NULL: ask the server */
	int timeout_ms, request_timeout_ms;
	bool print_raw_filters, silent, help, version;
	enum print_output output;
	enum print_time time_format;
	bool node_name, numeric, policy_names, use_default_mask;
	int color; /* 0 auto, 1 always, -1 never */
	/* what to ask for */
	uint64_t first, last;
	bool has_first, has_last, all, follow;
	uint64_t since_ns, until_ns; /* CLOCK_REALTIME; 0: not given */
	const char *field_mask;
	struct observe_filter filters[2]; /* allow, deny */
	const char *raw[2][16];		  /* filters as JSON */
	size_t n_raw[2];
};

/* 0, or -EINVAL with what is wrong. Values point into argv. */
int observe_args_parse(struct observe_args *args, int argc, char **argv, struct wag_err *err);
void observe_args_done(struct observe_args *args);
void observe_args_help(FILE *f);
/* The request, for observer__get_flows_request__free_unpacked(). */
int observe_request(struct observe_args *args, Observer__GetFlowsRequest **ret,
		    struct wag_err *err);
/* "5m", "1h43m", "now", RFC 3339 in several precisions; *ret_ns CLOCK_REALTIME. 0 or -EINVAL. */
int observe_time_parse(const char *text, uint64_t now_ns, uint64_t *ret_ns);
int observe_duration_parse(const char *text, uint64_t *ret_ns);
