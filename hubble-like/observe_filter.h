/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flow filters from flags: the same flag again is OR, another flag is AND. A flag for either end
 * (--pod, --ip, ...) is expanded into filters for each end.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <waggle/err.h>
#include "flow.pb-c.h"

enum observe_kind {
	OBSERVE_IP,
	OBSERVE_POD,
	OBSERVE_NAMESPACE,
	OBSERVE_SERVICE,
	OBSERVE_PORT,
	OBSERVE_IDENTITY,
	OBSERVE_LABEL,
	OBSERVE_WORKLOAD,
	OBSERVE_KINDS, /* those above have a source and a destination */
	OBSERVE_VERDICT = OBSERVE_KINDS,
	OBSERVE_TYPE,
	OBSERVE_PROTOCOL,
	OBSERVE_DROP_REASON,
	OBSERVE_NODE_NAME,
	OBSERVE_REPLY,
	OBSERVE_DIRECTION,
	OBSERVE_IP_VERSION,
	OBSERVE_TCP_FLAGS,
	OBSERVE_UUID,
	OBSERVE_SNAT_IP,
	OBSERVE_INTERFACE,
};

enum observe_side { OBSERVE_EITHER, OBSERVE_FROM, OBSERVE_TO, OBSERVE_SIDES };

struct observe_values {
	const char **v; /* borrowed texts */
	size_t n;
};

/* One list, allow or deny, in the making. */
struct observe_filter {
	Flow__FlowFilter base; /* what has no ends */
	struct observe_values ends[OBSERVE_SIDES][OBSERVE_KINDS];
	bool used;
};

void observe_filter_init(struct observe_filter *f);
void observe_filter_done(struct observe_filter *f);
/* value is borrowed. 0, or -EINVAL with what is wrong about it. */
int observe_filter_add(struct observe_filter *f, enum observe_kind kind, enum observe_side side,
		       const char *value, struct wag_err *err);
/* The filters; the caller frees each with flow__flow_filter__free_unpacked, and the list. */
int observe_filter_expand(struct observe_filter *f, Flow__FlowFilter ***ret, size_t *ret_n,
			  struct wag_err *err);
