/* SPDX-License-Identifier: Apache-2.0 */
/* The API server as everybody who talks to it shares it: the way there, back-off, complaints. */
#pragma once

#include "kube_http.h"
#include "source.h"

struct event;
struct kube_recorder;

/* What the requests of one source share. Outlives them. */
struct kube_cluster {
	struct event_base *base;
	struct model *model;
	struct kube_http *http;
	struct kube_config *cfg;
	struct kube_options options; /* defaults filled in; its strings are not used */
	size_t server; /* index into cfg->servers: the one in use */
	char *node_name;
	struct kube_recorder *recorder; /* of Events; NULL: none */
};

void kube_report(const struct kube_cluster *cluster, enum wag_log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
const char *kube_server(const struct kube_cluster *cluster, size_t server); /* its URL */
/* The next server for all, if the one found broken is still in use and there is another. */
void kube_rotate_server(struct kube_cluster *cluster, size_t broken);

uint64_t kube_now_ms(void); /* CLOCK_MONOTONIC */
unsigned kube_random_below(unsigned n);
void kube_arm(struct event *timer, uint64_t ms);

/* What keeps failing: its wait doubles, and the same words are said now and then only. */
struct kube_trouble {
	char text[256]; /* "" when fine */
	uint64_t told_ms;
	unsigned backoff_ms;
};

#define KUBE_TELL_AGAIN_MS 60000

/* How long to wait before the next try: doubling, a random half of it, so that nodes spread out. */
unsigned kube_backoff_ms(const struct kube_cluster *cluster, unsigned *state);
/* Whether to say it: it is new, or was last said again_ms ago (0: the same is never said again). */
bool kube_trouble_note(struct kube_trouble *t, const char *text, uint64_t again_ms);
/* Fine again: returns whether it was not. */
bool kube_trouble_over(struct kube_trouble *t);
