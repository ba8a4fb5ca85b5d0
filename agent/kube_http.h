/* SPDX-License-Identifier: Apache-2.0 */
/* HTTPS to an API server on the event loop: libcurl's multi interface driven by libevent. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <waggle/err.h>

#include "kube_config.h"

struct event_base;
struct kube_http;
struct kube_request;

/* How an answer begins. */
struct kube_head {
	long status;	  /* HTTP's; 0: no answer came */
	const char *type; /* Content-Type; NULL: not said */
};

struct kube_response {
	struct kube_head head;
	unsigned retry_after_s; /* 0: not said */
	const char *error;	/* what broke the transfer; NULL: it is complete */
};

struct kube_http_ops {
	/* Bytes of the body as they come. Not 0 gives the transfer up (done is called then, too).
	 */
	int (*data)(void *ctx, const struct kube_head *head, const char *bytes, size_t n);
	/* Called once, never from kube_http_send() itself; the request is gone afterwards. */
	void (*done)(void *ctx, const struct kube_response *response);
};

/* 0 or -errno; the caller owns *ret; base and cfg must outlive it. */
int kube_http_new(struct kube_http **ret, struct event_base *base, struct kube_config *cfg,
		  struct wag_err *err);
struct kube_http_call {
	const char *method; /* "GET", ... */
	const char *path;   /* from the first slash */
	const char *type;   /* of the body; may be NULL without one */
	const char *body;   /* NULL: none */
	const char *accept; /* media types of the answer; NULL: JSON */
	bool fresh;	    /* do not use a kept connection (the last one failed) */
	unsigned timeout_ms; /* of the whole exchange; 0: none */
};

/* Nothing of call is borrowed. *ret is for cancelling only. */
int kube_http_send(struct kube_http *http, const char *server, const struct kube_http_call *call,
		   const struct kube_http_ops *ops, void *ctx, struct kube_request **ret);
/* No callback comes any more. Not from within data(). NULL is fine. */
void kube_http_cancel(struct kube_request *req);
/* Escapes text for a URL; the caller frees *ret. */
int kube_http_escape(const char *text, char **ret);
void kube_http_free(struct kube_http *http); /* cancels what runs; NULL is fine */
