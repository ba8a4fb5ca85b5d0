/* SPDX-License-Identifier: Apache-2.0 */
/* Single requests to the API server of a source: what the agent writes, and small reads for it. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "kube_cluster.h"

#define KUBE_JSON "application/json"
#define KUBE_MERGE_PATCH "application/merge-patch+json"

struct kube_write;

struct kube_answer {
	long status;		/* HTTP's; 0: no answer came */
	const json_t *body;	/* borrowed; NULL: none, or no JSON */
	unsigned retry_after_s; /* 0: not said */
	char error[512];	/* for a person; "" where status is 2xx */
};

/* Called once, from the event loop; the request is gone by then, so a new one may be made. */
typedef void (*kube_answer_fn)(void *ctx, const struct kube_answer *answer);

/*
 * body (NULL: none) is borrowed for the call only; type is its media type. *at is set to the
 * request and to NULL before fn is called. 0 or -errno: then fn is not called.
 */
int kube_write_send(struct kube_cluster *cluster, const char *method, const char *path,
		    const char *type, const json_t *body, kube_answer_fn fn, void *ctx,
		    struct kube_write **at);
void kube_write_cancel(struct kube_write *req); /* NULL is fine */

bool kube_answer_ok(const struct kube_answer *answer); /* 2xx */
