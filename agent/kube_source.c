// SPDX-License-Identifier: Apache-2.0
/* The API server source: one watch per kind over one HTTP client. */
#include <errno.h>
#include <event2/event.h>
#include <string.h>
#include <waggle/cleanup.h>

#include "kube_recorder.h"
#include "kube_watch.h"

struct kube_source {
	struct source source;
	struct kube_cluster cluster;
	struct kube_watch *watches[MODEL_KINDS];
};

static void kube_source_status(const struct source *source, struct source_status *ret)
{
	const struct kube_source *s = (const struct kube_source *)source;

	ret->type = "kubernetes";
	snprintf(ret->detail, sizeof(ret->detail), "%s",
		 s->cluster.cfg->servers[s->cluster.server]);
	for (int k = 0; k < MODEL_KINDS; k++)
		kube_watch_status(s->watches[k], &ret->kinds[k]);
}

static void kube_source_free(struct source *source)
{
	struct kube_source *s = (struct kube_source *)source;

	for (int k = 0; k < MODEL_KINDS; k++)
		kube_watch_free(s->watches[k]);
	kube_recorder_free(s->cluster.recorder);
	kube_http_free(s->cluster.http);
	kube_config_free(s->cluster.cfg);
	free(s->cluster.node_name);
	free(s);
}

static void kube_source_freep(struct kube_source **s)
{
	if (*s)
		kube_source_free(&(*s)->source);
}

static void want_all_pods(struct source *source)
{
	struct kube_source *s = (struct kube_source *)source;

	kube_watch_widen(s->watches[MODEL_POD]);
}

static bool has_all_pods(const struct source *source)
{
	const struct kube_source *s = (const struct kube_source *)source;

	return kube_watch_is_wide(s->watches[MODEL_POD]);
}

static unsigned or_default(unsigned value, unsigned fallback)
{
	return value ? value : fallback;
}

static void fill_options(struct kube_options *o, const struct kube_options *given)
{
	*o = (struct kube_options){
		.reporter = given->reporter,
		.backoff_min_ms = or_default(given->backoff_min_ms, 200),
		.backoff_max_ms = or_default(given->backoff_max_ms, 30000),
		.stall_ms = or_default(given->stall_ms, 150000),
		.page_limit = or_default(given->page_limit, 500),
		.line_max_bytes = or_default(given->line_max_bytes, 64U << 20),
	};
}

int source_new_kube(struct source **ret, struct event_base *base, struct model *model,
		    const struct kube_options *options, struct wag_err *err)
{
	static const struct source_ops ops = { kube_source_status, kube_source_free,
					       want_all_pods, has_all_pods };
	_cleanup_(kube_source_freep) struct kube_source *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return wag_err_set(err, -ENOMEM, "out of memory");
	s->source.ops = &ops;
	s->source.cluster = &s->cluster;
	s->cluster.base = base;
	s->cluster.model = model;
	fill_options(&s->cluster.options, options);
	s->cluster.node_name = strdup(options->node_name ? options->node_name : "");
	if (!s->cluster.node_name)
		return wag_err_set(err, -ENOMEM, "out of memory");
	r = kube_config_load(&s->cluster.cfg, options->kubeconfig, options->api_servers,
			     options->sa_dir, err);
	if (r < 0)
		return r;
	r = kube_http_new(&s->cluster.http, base, s->cluster.cfg, err);
	if (r < 0)
		return r;
	if (kube_recorder_new(&s->cluster.recorder, &s->cluster) < 0)
		return wag_err_set(err, -ENOMEM, "out of memory");
	for (int k = 0; k < MODEL_KINDS; k++) {
		r = kube_watch_new(&s->watches[k], &s->cluster, k);
		if (r < 0)
			return wag_err_set(err, r, "out of memory");
	}
	*ret = &TAKE_PTR(s)->source;
	return 0;
}
