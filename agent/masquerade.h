/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --ip-masq-agent-config: what pods reach with their own address, beside what flags say. The file
 * is in the format of ip-masq-agent (github.com/kubernetes-sigs/ip-masq-agent), YAML or JSON:
 *   nonMasqueradeCIDRs  list; absent: 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16
 *   masqLinkLocal       bool; false: 169.254.0.0/16 is on the list
 *   masqLinkLocalIPv6   bool; false: fe80::/10 is (it is never masqueraded, whatever stands here)
 *   cidrLimit           number; more CIDRs are refused; absent: no limit
 *   resyncInterval      "60s", "1m30s"; how long a change may take to be seen. It takes no longer
 *                       than MASQ_LOOK_MS
 * A file that is not there, or is empty, is one in which everything is absent.
 */
#pragma once

#include <event2/event.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/err.h>
#include <waggle/log.h>
#include "compile_node.h"

#define MASQ_LOOK_MS 5000

struct masq_cidrs {
	struct node_prefix *list; /* in the file's order, link-local ones last */
	size_t n;
	uint64_t resync_ms; /* never 0 */
};

/* The caller owns *ret. 0 or -errno; err names the line. */
int masq_parse(struct masq_cidrs *ret, const char *text, size_t size, struct wag_err *err);
/* The same of a file; -ENOENT is none: the defaults. */
int masq_read(struct masq_cidrs *ret, const char *path, struct wag_err *err);
void masq_cidrs_done(struct masq_cidrs *m);

struct masq_watch;

/* The list is another one now; it is borrowed for the call. */
typedef void (*masq_changed_fn)(void *ctx, const struct node_prefix *list, size_t n);
/* A line for the daemon's log. */
typedef void (*masq_report_fn)(void *ctx, enum wag_log_level level, const char *msg);

/*
 * Follows the file; tells the first list before it returns. A file that cannot be read changes
 * nothing (at first: the defaults are taken) and is reported once. 0 or -errno.
 */
int masq_watch_new(struct masq_watch **ret, struct event_base *base, const char *path,
		   masq_changed_fn changed, masq_report_fn report, void *ctx);
void masq_watch_free(struct masq_watch *w); /* NULL is fine */
