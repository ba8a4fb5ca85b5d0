/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the model comes from: an API server (list + watch) or a folder of manifests. A source
 * lives on the event loop of its base, writes the model from there, and never blocks or logs:
 * what a person should read goes to the report function.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <waggle/err.h>
#include <waggle/log.h>

#include "model.h"

struct event_base;
struct kube_cluster;
struct source;

/* One line for the daemon's log. */
typedef void (*source_report_fn)(void *ctx, enum wag_log_level level, const char *msg);

struct source_reporter {
	source_report_fn fn; /* may be NULL */
	void *ctx;
};

struct kube_options {
	const char *kubeconfig; /* NULL: the in-cluster service account */
	/* "https://HOST:PORT[,...]": instead of the address either gives; may be NULL */
	const char *api_servers;
	const char *node_name; /* whose Pods are watched */
	const char *sa_dir;    /* service account folder; NULL: where kubelet puts it */
	struct source_reporter reporter;
	/* 0: the default. For tests. */
	unsigned backoff_min_ms, backoff_max_ms; /* 200, 30000 */
	/* A request silent for so long is made anew: 150000, as bookmarks come every 60 s. */
	unsigned stall_ms;
	unsigned page_limit;	 /* 500 */
	unsigned line_max_bytes; /* one object: 64 MiB */
};

struct source_kind_status {
	bool synced;
	bool protobuf;	     /* the last answer was; else JSON */
	bool required;	     /* counts for readiness: Services and EndpointSlices */
	char error[256];     /* last failure not yet recovered from; "" when fine */
	uint64_t last_event_ms; /* CLOCK_MONOTONIC; 0: never */
	uint64_t relists, reconnects, events, bytes, bad_objects;
};

struct source_status {
	const char *type;  /* "kubernetes" or "manifests" */
	char detail[256];  /* the server in use, or the folder */
	struct source_kind_status kinds[MODEL_KINDS];
};

/* 0 or -errno with err filled; the caller owns *ret; base and model must outlive it. */
int source_new_kube(struct source **ret, struct event_base *base, struct model *model,
		    const struct kube_options *options, struct wag_err *err);
/* Reads the folder once before it returns: broken files are reported, and do not fail it. */
int source_new_manifests(struct source **ret, struct event_base *base, struct model *model,
			 const char *dir, const struct source_reporter *reporter,
			 struct wag_err *err);
/* Not only this node's Pods, from now on; and whether the model has them all. */
void source_want_all_pods(struct source *s);
bool source_has_all_pods(const struct source *s);
void source_status(const struct source *s, struct source_status *ret);
/* The way to the API server, for writing to it as well; NULL: this source has none. */
struct kube_cluster *source_cluster(const struct source *s);
void source_free(struct source *s); /* NULL is fine */
void source_freep(struct source **s);

/* What a source is made of: for its implementations only, who embed struct source first. */
struct source_ops {
	void (*status)(const struct source *s, struct source_status *ret);
	void (*free)(struct source *s);
	/* NULL: it has all of them anyway. */
	void (*want_all_pods)(struct source *s);
	bool (*has_all_pods)(const struct source *s);
};

struct source {
	const struct source_ops *ops;
	struct kube_cluster *cluster; /* may be NULL */
};
