// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <event2/event.h>
#include <event2/util.h>
#include <jansson.h>
#include <malloc.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <waggle/cleanup.h>

#include "kube_parse.h"
#include "kube_split.h"
#include "kube_watch.h"

#define ERROR_BODY_MAX 65536
#define WATCH_MIN_S 240 /* and up to twice that, so that not all nodes come back at once */
#define SILENT_MAX 2	/* watches in a row without a byte: the resourceVersion may be no one's */
#define SAME_TEXT_MS 60000
#define STEADY_MS 5000 /* a watch that lived so long was a success */

enum watch_state { STATE_PAUSE, STATE_LIST, STATE_WATCH };

struct resource {
	const char *path, *plural, *selector;
	bool required, by_node;
	bool optional; /* a server that refuses or lacks it has none */
};

/* kube-proxy's selectors: another proxy's Services and headless ones are not ours. */
static const struct resource resources[MODEL_KINDS] = {
	[MODEL_SERVICE] = { "/api/v1/services", "services",
			    "!service.kubernetes.io/service-proxy-name", true },
	[MODEL_SLICE] = { "/apis/discovery.k8s.io/v1/endpointslices", "endpointslices",
			  "!service.kubernetes.io/service-proxy-name,"
			  "!service.kubernetes.io/headless",
			  true },
	[MODEL_NODE] = { "/api/v1/nodes", "nodes", NULL, false },
	[MODEL_NAMESPACE] = { "/api/v1/namespaces", "namespaces", NULL, false, .optional = true },
	[MODEL_POD] = { "/api/v1/pods", "pods", NULL, false, .by_node = true },
	[MODEL_POLICY] = { "/apis/networking.k8s.io/v1/networkpolicies", "networkpolicies", NULL,
			   false, .optional = true },
};

struct kube_watch {
	struct kube_cluster *cluster;
	const struct resource *res;
	enum model_kind kind;
	enum watch_state state;
	struct kube_request *req;
	struct event *timer; /* PAUSE: its end; else: silence for too long */
	struct kube_split split;
	struct kube_buf line; /* of a watch, or the body of an error */
	char *rv, *next_page; /* rv NULL: a list is needed */
	size_t server;	      /* index of the one this request went to */
	unsigned backoff_ms, silent, failures;
	unsigned stale; /* times in a row that our place was too old for the server */
	uint64_t started_ms, told_ms;
	bool got_bytes, lost_place, stalled;
	struct wag_err stop; /* why data() gave a transfer up */
	struct source_kind_status status;
};

static void start(struct kube_watch *w);

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

static unsigned random_below(unsigned n)
{
	uint32_t v;

	evutil_secure_rng_get_bytes(&v, sizeof(v));
	return n ? v % n : 0;
}

static void report(const struct kube_watch *w, enum wag_log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void report(const struct kube_watch *w, enum wag_log_level level, const char *fmt, ...)
{
	const struct source_reporter *reporter = &w->cluster->options.reporter;
	char msg[1024];
	va_list ap;

	if (!reporter->fn)
		return;
	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	reporter->fn(reporter->ctx, level, msg);
}

static void arm(struct kube_watch *w, unsigned ms)
{
	const struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	event_add(w->timer, &tv);
}

/* Doubling up to the maximum; a random half of it is the wait, so that nodes spread out. */
static unsigned next_backoff(struct kube_watch *w)
{
	const struct kube_options *o = &w->cluster->options;
	unsigned ms = w->backoff_ms ? w->backoff_ms * 2 : o->backoff_min_ms;

	w->backoff_ms = ms < o->backoff_max_ms ? ms : o->backoff_max_ms;
	return w->backoff_ms / 2 + random_below(w->backoff_ms / 2 + 1);
}

static void pause_for(struct kube_watch *w, unsigned ms)
{
	w->state = STATE_PAUSE;
	arm(w, ms);
}

/* The same words are said once a minute only, or once; the status always has the newest. */
static void set_error(struct kube_watch *w, const char *text)
{
	bool same = strcmp(w->status.error, text) == 0;

	snprintf(w->status.error, sizeof(w->status.error), "%s", text);
	if (same && (w->res->optional || now_ms() - w->told_ms < SAME_TEXT_MS))
		return;
	w->told_ms = now_ms();
	report(w, w->res->required ? WAG_LOG_ERROR : WAG_LOG_WARN, "%s: %s",
	       w->cluster->cfg->servers[w->server], text);
}

static void recovered(struct kube_watch *w)
{
	if (!w->stale) /* a list that no watch can follow is no recovery */
		w->backoff_ms = 0;
	w->failures = 0;
	w->silent = 0;
	if (w->status.error[0])
		report(w, WAG_LOG_INFO, "%s: %s: fine again", w->cluster->cfg->servers[w->server],
		       w->res->plural);
	w->status.error[0] = 0;
}

/* Another server is tried by whoever finds the one in use broken first. */
static void rotate_server(struct kube_watch *w)
{
	struct kube_cluster *cluster = w->cluster;

	if (cluster->cfg->n_servers > 1 && cluster->server == w->server) {
		cluster->server = (cluster->server + 1) % cluster->cfg->n_servers;
		report(w, WAG_LOG_WARN, "going on with API server %s",
		       cluster->cfg->servers[cluster->server]);
	}
}

static void fail(struct kube_watch *w, bool server_broken, unsigned retry_after_s, const char *text)
{
	unsigned ms = next_backoff(w);

	w->failures++;
	set_error(w, text);
	if (server_broken)
		rotate_server(w);
	if (ms < retry_after_s * 1000)
		ms = retry_after_s * 1000 + random_below(500);
	pause_for(w, ms);
}

static void forget_place(struct kube_watch *w)
{
	free(w->rv);
	free(w->next_page);
	w->rv = w->next_page = NULL;
}

/*
 * A server that restarted forgets the past: that is no failure of anybody, and whatever the outage
 * has cost in back-off, the list comes at once. Again and again it is a sick server: -EAGAIN.
 */
static int list_anew(struct kube_watch *w, const char *why)
{
	forget_place(w);
	if (w->stale++ > 0)
		return -EAGAIN;
	report(w, WAG_LOG_INFO, "%s: %s: listing anew", w->cluster->cfg->servers[w->server], why);
	start(w);
	return 0;
}

static int stop_at(struct kube_watch *w, int code, const char *what)
{
	const char *why = code == -EMSGSIZE ? "is larger than allowed" : strerror(-code);

	return wag_err_set(&w->stop, code, "%s %s: %s %s",
			   w->state == STATE_LIST ? "list" : "watch", w->res->plural, what, why);
}

static void bad_object(struct kube_watch *w, const struct wag_err *err)
{
	w->status.bad_objects++;
	report(w, WAG_LOG_ERROR, "%s; what was known of it stays in force", err->msg);
}

/* An object of a list or an ADDED or MODIFIED event. A bad one costs no other. */
static int take_object(struct kube_watch *w, const json_t *tree)
{
	static const struct kube_sink sink = { 0 };
	struct object *obj = NULL;
	struct kube_ident ident;
	struct wag_err err;
	int r;

	r = kube_parse_object(w->kind, tree, &sink, &obj, &ident, &err);
	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		bad_object(w, &err);
		/* Keeps its place in a relist: what is unreadable is not gone. */
		if (ident.name[0])
			model_keep(w->cluster->model, w->kind, ident.ns, ident.name);
		return 0;
	}
	r = model_upsert(w->cluster->model, obj);
	return r < 0 ? r : 0;
}

static int list_item(void *ctx, const char *text, size_t n)
{
	struct kube_watch *w = ctx;
	json_error_t at;
	json_t *tree;
	int r;

	tree = json_loadb(text, n, 0, &at);
	if (!tree) {
		wag_err_set(&w->stop, -EBADMSG, "list %s: an item is no JSON: %s", w->res->plural,
			    at.text);
		return -EBADMSG;
	}
	r = take_object(w, tree);
	json_decref(tree);
	return r < 0 ? stop_at(w, r, "an item:") : 0;
}

static int set_rv(struct kube_watch *w, const json_t *meta)
{
	const char *rv = json_string_value(json_object_get(meta, "resourceVersion"));
	char *own;

	if (!rv || !rv[0])
		return 0;
	own = strdup(rv);
	if (!own)
		return -ENOMEM;
	free(w->rv);
	w->rv = own;
	return 0;
}

static int error_event(struct kube_watch *w, const json_t *object)
{
	struct kube_status status = { 0 };

	kube_parse_status(object, &status);
	w->lost_place = true; /* whatever it says, a list puts it right */
	if (status.code == 410)
		return wag_err_set(&w->stop, -ESTALE, "watch %s: %s", w->res->plural,
				   status.message);
	return wag_err_set(&w->stop, -EREMOTEIO, "watch %s: the server reports %d %s: %s",
			   w->res->plural, status.code, status.reason, status.message);
}

static int take_event(struct kube_watch *w, const json_t *tree)
{
	const char *type = json_string_value(json_object_get(tree, "type"));
	const json_t *object = json_object_get(tree, "object");
	const json_t *meta = json_object_get(object, "metadata");
	const char *ns = json_string_value(json_object_get(meta, "namespace"));
	const char *name = json_string_value(json_object_get(meta, "name"));
	int r = 0;

	if (!type || !json_is_object(object))
		return wag_err_set(&w->stop, -EBADMSG, "watch %s: a line is no event",
				   w->res->plural);
	if (strcmp(type, "ERROR") == 0)
		return error_event(w, object);
	if (strcmp(type, "ADDED") == 0 || strcmp(type, "MODIFIED") == 0)
		r = take_object(w, object);
	else if (strcmp(type, "DELETED") == 0 && name)
		model_delete(w->cluster->model, w->kind, ns ? ns : "", name);
	if (r == 0)
		r = set_rv(w, meta);
	return r < 0 ? stop_at(w, r, "an event:") : 0;
}

static int watch_line(void *ctx, const char *text, size_t n)
{
	struct kube_watch *w = ctx;
	json_error_t at;
	json_t *tree;
	int r;

	tree = json_loadb(text, n, 0, &at);
	if (!tree)
		return wag_err_set(&w->stop, -EBADMSG, "watch %s: a line is no JSON: %s",
				   w->res->plural, at.text);
	r = take_event(w, tree);
	json_decref(tree);
	if (r < 0)
		return r;
	w->status.events++;
	w->status.last_event_ms = now_ms();
	w->stale = 0;
	recovered(w);
	return 0;
}

static int on_data(void *ctx, long status, const char *bytes, size_t n)
{
	struct kube_watch *w = ctx;
	size_t max = w->cluster->options.line_max_bytes;
	int r;

	w->status.bytes += n;
	w->got_bytes = true;
	arm(w, w->cluster->options.stall_ms);
	if (status != 200) {
		r = kube_buf_add(&w->line, bytes, n, ERROR_BODY_MAX);
		return r == -EMSGSIZE ? 0 : r; /* its beginning says enough */
	}
	if (w->state == STATE_LIST)
		r = kube_split_feed(&w->split, bytes, n, list_item, w);
	else
		r = kube_lines_feed(&w->line, bytes, n, max, watch_line, w);
	if (r < 0 && !w->stop.code)
		stop_at(w, r, "one object");
	return r;
}

static const char *remedy(long status)
{
	if (status == 401)
		return "; the credentials were refused: renew the token or the client certificate";
	if (status == 403)
		return "; grant it: a ClusterRole with verbs [list, watch] on this resource, bound "
		       "to this user";
	return "";
}

/* An HTTP error: its Status says more than its number. */
static void refused(struct kube_watch *w, const struct kube_response *response)
{
	const char *verb = w->state == STATE_LIST ? "list" : "watch";
	struct kube_status status = { 0 };
	unsigned retry_after = response->retry_after_s;
	json_error_t at;
	char text[512];
	json_t *tree;

	tree = w->line.n ? json_loadb(w->line.bytes, w->line.n, 0, &at) : NULL;
	kube_parse_status(tree, &status);
	json_decref(tree);
	if (!retry_after)
		retry_after = status.retry_after_s;
	snprintf(text, sizeof(text), "cannot %s %s: HTTP %ld %s: %.256s%s", verb, w->res->plural,
		 response->status, status.reason, status.message, remedy(response->status));
	if (response->status == 410 && list_anew(w, text) == 0)
		return;
	fail(w, response->status >= 500, retry_after, text);
	if (w->res->optional && (response->status == 403 || response->status == 404))
		model_set_synced(w->cluster->model, w->kind);
}

static int page_done(struct kube_watch *w)
{
	struct model *model = w->cluster->model;
	const char *next;
	json_error_t at;
	json_t *tree, *meta;
	int r;

	tree = w->split.envelope.n
		       ? json_loadb(w->split.envelope.bytes, w->split.envelope.n, 0, &at)
		       : NULL;
	kube_split_done(&w->split);
	meta = json_object_get(tree, "metadata");
	free(w->next_page);
	w->next_page = NULL;
	if (!json_is_object(meta)) {
		json_decref(tree);
		return wag_err_set(&w->stop, -EBADMSG, "list %s: the answer is no list",
				   w->res->plural);
	}
	next = json_string_value(json_object_get(meta, "continue"));
	if (next && next[0]) {
		r = kube_http_escape(next, &w->next_page);
		json_decref(tree);
		return r;
	}
	r = set_rv(w, meta);
	json_decref(tree);
	if (r < 0)
		return r;
	if (!w->rv)
		return wag_err_set(&w->stop, -EBADMSG, "list %s: without a resourceVersion",
				   w->res->plural);
	w->status.relists++;
	w->status.last_event_ms = now_ms();
	model_relist_end(model, w->kind);
	malloc_trim(0);
	recovered(w);
	model_set_synced(model, w->kind);
	return 0;
}

static void watch_done(struct kube_watch *w, const struct kube_response *response)
{
	char text[400];

	w->status.reconnects++;
	if (now_ms() - w->started_ms >= STEADY_MS)
		w->stale = 0;
	if (w->lost_place) {
		if (w->stop.code == -ESTALE && list_anew(w, w->stop.msg) == 0)
			return;
		forget_place(w);
		fail(w, false, 0, w->stop.msg);
	} else if (w->stop.code) {
		/* The same bytes would come again from the same place. */
		if (w->failures > 0)
			forget_place(w);
		fail(w, false, 0, w->stop.msg);
	} else if (response->error) {
		snprintf(text, sizeof(text), "watch %s: %s", w->res->plural, response->error);
		fail(w, true, 0, text);
	} else if (now_ms() - w->started_ms < STEADY_MS && !w->got_bytes) {
		pause_for(w, next_backoff(w)); /* ended at once: no tight loop */
	} else {
		start(w);
	}
}

static void list_done(struct kube_watch *w, const struct kube_response *response)
{
	char text[400];
	int r = 0;

	if (!w->stop.code && !response->error)
		r = page_done(w);
	if (r < 0 && !w->stop.code)
		stop_at(w, r, "");
	if (!w->stop.code && !response->error) {
		start(w);
		return;
	}
	snprintf(text, sizeof(text), "list %s: %s", w->res->plural, response->error);
	forget_place(w);
	fail(w, !w->stop.code, 0, w->stop.code ? w->stop.msg : text);
}

static void on_done(void *ctx, const struct kube_response *response)
{
	struct kube_watch *w = ctx;

	w->req = NULL;
	event_del(w->timer);
	if (response->status && response->status != 200)
		refused(w, response);
	else if (w->state == STATE_LIST)
		list_done(w, response);
	else
		watch_done(w, response);
}

static int make_path(const struct kube_watch *w, char **ret)
{
	_cleanup_free_ char *selector = NULL, *node = NULL;
	const struct kube_cluster *cluster = w->cluster;
	int r = 0;

	if (w->res->selector)
		r = kube_http_escape(w->res->selector, &selector);
	if (r == 0 && w->res->by_node)
		r = kube_http_escape(cluster->node_name, &node);
	if (r < 0)
		return r;
	if (w->state == STATE_LIST)
		r = asprintf(ret, "%s?limit=%u%s%s%s%s%s%s", w->res->path,
			     cluster->options.page_limit, w->next_page ? "&continue=" : "",
			     w->next_page ? w->next_page : "", selector ? "&labelSelector=" : "",
			     selector ? selector : "",
			     node ? "&fieldSelector=spec.nodeName%3D" : "", node ? node : "");
	else
		r = asprintf(ret,
			     "%s?watch=1&allowWatchBookmarks=true&resourceVersion=%s"
			     "&timeoutSeconds=%u%s%s%s%s",
			     w->res->path, w->rv, WATCH_MIN_S + random_below(WATCH_MIN_S),
			     selector ? "&labelSelector=" : "", selector ? selector : "",
			     node ? "&fieldSelector=spec.nodeName%3D" : "", node ? node : "");
	return r < 0 ? -ENOMEM : 0;
}

/* The next request: a page of a list, or a watch from where we are. */
static void start(struct kube_watch *w)
{
	static const struct kube_http_ops ops = { on_data, on_done };
	struct kube_http_call call = { .method = "GET", .fresh = w->failures > 0 || w->stalled };
	struct kube_cluster *cluster = w->cluster;
	_cleanup_free_ char *path = NULL;
	char text[128];
	int r;

	w->state = w->rv ? STATE_WATCH : STATE_LIST;
	if (w->state == STATE_LIST && !w->next_page)
		model_relist_begin(cluster->model, w->kind);
	w->line.n = 0;
	kube_split_done(&w->split);
	w->stop.code = 0;
	w->got_bytes = w->lost_place = false;
	w->server = cluster->server;
	w->started_ms = now_ms();
	r = make_path(w, &path);
	call.path = path;
	if (r == 0)
		r = kube_http_send(cluster->http, cluster->cfg->servers[w->server], &call, &ops, w,
				   &w->req);
	if (r < 0) {
		snprintf(text, sizeof(text), "%s: no request can be made: %s", w->res->plural,
			 strerror(-r));
		fail(w, false, 0, text);
		return;
	}
	w->stalled = false;
	arm(w, cluster->options.stall_ms);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
	struct kube_watch *w = ctx;
	char text[128];

	if (w->state == STATE_PAUSE) {
		start(w);
		return;
	}
	kube_http_cancel(w->req);
	w->req = NULL;
	w->stalled = true; /* the next request goes over a connection of its own */
	w->status.reconnects++;
	if (w->state == STATE_WATCH && w->got_bytes) {
		start(w); /* quiet for long: maybe the connection is dead */
		return;
	}
	/* A resourceVersion of the future (a restored etcd) is answered by silence: list again. */
	if (w->state == STATE_LIST || ++w->silent >= SILENT_MAX)
		forget_place(w);
	snprintf(text, sizeof(text), "%s %s: no byte for %u ms",
		 w->state == STATE_LIST ? "list" : "watch", w->res->plural,
		 w->cluster->options.stall_ms);
	fail(w, true, 0, text);
}

int kube_watch_new(struct kube_watch **ret, struct kube_cluster *cluster, enum model_kind kind)
{
	struct kube_watch *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->cluster = cluster;
	w->kind = kind;
	w->res = &resources[kind];
	w->split.piece_max = cluster->options.line_max_bytes;
	w->timer = evtimer_new(cluster->base, on_timer, w);
	if (!w->timer) {
		free(w);
		return -ENOMEM;
	}
	pause_for(w, 0); /* the loop makes the first request */
	*ret = w;
	return 0;
}

void kube_watch_status(const struct kube_watch *w, struct source_kind_status *ret)
{
	*ret = w->status;
	ret->synced = model_synced(w->cluster->model, w->kind);
	ret->required = w->res->required;
}

void kube_watch_free(struct kube_watch *w)
{
	if (!w)
		return;
	kube_http_cancel(w->req);
	if (w->timer)
		event_free(w->timer);
	kube_split_done(&w->split);
	kube_buf_done(&w->line);
	forget_place(w);
	free(w);
}
