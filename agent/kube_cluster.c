// SPDX-License-Identifier: Apache-2.0
#include <event2/event.h>
#include <event2/util.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "kube_cluster.h"

void kube_report(const struct kube_cluster *cluster, enum wag_log_level level, const char *fmt, ...)
{
	const struct source_reporter *reporter = &cluster->options.reporter;
	char msg[1024];
	va_list ap;

	if (!reporter->fn)
		return;
	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	reporter->fn(reporter->ctx, level, msg);
}

const char *kube_server(const struct kube_cluster *cluster, size_t server)
{
	return cluster->cfg->servers[server];
}

void kube_rotate_server(struct kube_cluster *cluster, size_t broken)
{
	if (cluster->cfg->n_servers < 2 || cluster->server != broken)
		return;
	cluster->server = (cluster->server + 1) % cluster->cfg->n_servers;
	kube_report(cluster, WAG_LOG_WARN, "going on with API server %s",
		    kube_server(cluster, cluster->server));
}

uint64_t kube_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

unsigned kube_random_below(unsigned n)
{
	uint32_t v;

	evutil_secure_rng_get_bytes(&v, sizeof(v));
	return n ? v % n : 0;
}

void kube_arm(struct event *timer, uint64_t ms)
{
	const struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	event_add(timer, &tv);
}

unsigned kube_backoff_ms(const struct kube_cluster *cluster, unsigned *state)
{
	const struct kube_options *o = &cluster->options;
	unsigned ms = *state ? *state * 2 : o->backoff_min_ms;

	*state = ms < o->backoff_max_ms ? ms : o->backoff_max_ms;
	return *state / 2 + kube_random_below(*state / 2 + 1);
}

bool kube_trouble_note(struct kube_trouble *t, const char *text, uint64_t again_ms)
{
	bool same = strcmp(t->text, text) == 0;

	snprintf(t->text, sizeof(t->text), "%s", text);
	if (same && (again_ms == 0 || kube_now_ms() - t->told_ms < again_ms))
		return false;
	t->told_ms = kube_now_ms();
	return true;
}

bool kube_trouble_over(struct kube_trouble *t)
{
	bool was = t->text[0];

	t->text[0] = 0;
	return was;
}
