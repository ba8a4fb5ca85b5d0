// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <event2/event.h>
#include <malloc.h>
#include <string.h>
#include <waggle/cleanup.h>

#include "kube_resource.h"
#include "kube_stream.h"
#include "kube_watch.h"
#include "object.h"

#define ERROR_BODY_MAX 65536
#define SILENT_MAX 2   /* watches in a row without a byte: the resourceVersion may be no one's */
#define STEADY_MS 5000 /* a watch that lived so long was a success */

enum watch_state { STATE_PAUSE, STATE_LIST, STATE_WATCH };

struct kube_watch {
	struct kube_cluster *cluster;
	const struct kube_resource *res;
	enum model_kind kind;
	enum watch_state state;
	struct kube_request *req;
	struct event *timer; /* PAUSE: its end; else: silence for too long */
	struct kube_stream stream;
	struct kube_buf refusal; /* the body of an error */
	char *rv, *next_page;	 /* rv NULL: a list is needed */
	size_t server;		 /* index of the one this request went to */
	unsigned silent, failures;
	unsigned stale; /* times in a row that our place was too old for the server */
	uint64_t started_ms;
	bool got_bytes, lost_place, stalled;
	bool json_only;	    /* the server's protobuf is not for us */
	bool wide, wide_known; /* of every node, though by_node; its list is in the model */
	struct wag_err stop; /* why data() gave a transfer up */
	struct kube_trouble trouble;
	struct source_kind_status status;
};

static void start(struct kube_watch *w);

static void pause_for(struct kube_watch *w, unsigned ms)
{
	w->state = STATE_PAUSE;
	kube_arm(w->timer, ms);
}

static const char *server_of(const struct kube_watch *w)
{
	return kube_server(w->cluster, w->server);
}

static const char *verb_of(const struct kube_watch *w)
{
	return w->state == STATE_LIST ? "list" : "watch";
}

static void recovered(struct kube_watch *w)
{
	if (!w->stale) /* a list that no watch can follow is no recovery */
		w->trouble.backoff_ms = 0;
	w->failures = 0;
	w->silent = 0;
	if (kube_trouble_over(&w->trouble))
		kube_report(w->cluster, WAG_LOG_INFO, "%s: %s: fine again", server_of(w),
			    w->res->plural);
}

static void fail(struct kube_watch *w, bool server_broken, unsigned retry_after_s, const char *text)
{
	unsigned ms = kube_backoff_ms(w->cluster, &w->trouble.backoff_ms);

	w->failures++;
	if (kube_trouble_note(&w->trouble, text, w->res->optional ? 0 : KUBE_TELL_AGAIN_MS))
		kube_report(w->cluster, w->res->required ? WAG_LOG_ERROR : WAG_LOG_WARN, "%s: %s",
			    server_of(w), text);
	if (server_broken)
		kube_rotate_server(w->cluster, w->server);
	if (ms < retry_after_s * 1000)
		ms = retry_after_s * 1000 + kube_random_below(500);
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
	kube_report(w->cluster, WAG_LOG_INFO, "%s: %s: listing anew", server_of(w), why);
	start(w);
	return 0;
}

/* Once: what we cannot read, or the server will not send, is asked for in JSON. */
static bool fall_back(struct kube_watch *w, const char *why)
{
	if (w->json_only)
		return false;
	w->json_only = true;
	kube_report(w->cluster, WAG_LOG_WARN, "%s: %s: going on with JSON", server_of(w), why);
	return true;
}

/* What the answer says cannot be taken: the transfer is given up. */
static int stop_at(struct kube_watch *w, int code, const char *why)
{
	wag_err_set(&w->stop, code, "%s %s: %s", verb_of(w), w->res->plural, why);
	if (code == -EBADMSG && w->stream.protobuf)
		fall_back(w, w->stop.msg);
	return code;
}

/* A bad object costs no other, and keeps its place in a relist: what is unreadable is not gone. */
static void keep_bad(struct kube_watch *w, const struct kube_event *event)
{
	w->status.bad_objects++;
	kube_report(w->cluster, WAG_LOG_ERROR, "%s; what was known of it stays in force",
		    event->err.msg);
	if (event->name[0])
		model_keep(w->cluster->model, w->kind, event->ns, event->name);
}

static int set_rv(struct kube_watch *w, const char *rv)
{
	char *own;

	if (!rv[0])
		return 0;
	own = strdup(rv);
	if (!own)
		return -ENOMEM;
	free(w->rv);
	w->rv = own;
	return 0;
}

static int error_event(struct kube_watch *w, const struct kube_status *status)
{
	w->lost_place = true; /* whatever it says, a list puts it right */
	if (status->code == 410)
		return stop_at(w, -ESTALE, status->message);
	return wag_err_set(&w->stop, -EREMOTEIO, "watch %s: the server reports %d %s: %s",
			   w->res->plural, status->code, status->reason, status->message);
}

static int take(struct kube_watch *w, const struct kube_event *event)
{
	int r = 0;

	if (event->type == KUBE_ERROR)
		return error_event(w, &event->status);
	if (event->type == KUBE_PUT && event->obj) {
		w->status.bad_objects += object_is_unreadable(event->obj);
		r = model_put(w->cluster->model, event->obj);
	} else if (event->type == KUBE_PUT) {
		keep_bad(w, event);
	} else if (event->type == KUBE_DELETED) {
		model_delete(w->cluster->model, w->kind, event->ns, event->name);
	}
	if (r >= 0 && w->state == STATE_WATCH)
		r = set_rv(w, event->rv);
	return r < 0 ? stop_at(w, r, strerror(-r)) : 0;
}

static int on_event(void *ctx, const struct kube_event *event)
{
	struct kube_watch *w = ctx;
	int r = take(w, event);

	if (r < 0 || w->state == STATE_LIST)
		return r;
	w->status.events++;
	w->status.last_event_ms = kube_now_ms();
	w->stale = 0;
	recovered(w);
	return 0;
}

static int on_data(void *ctx, const struct kube_head *head, const char *bytes, size_t n)
{
	struct kube_watch *w = ctx;
	struct wag_err err;
	int r;

	w->status.bytes += n;
	w->got_bytes = true;
	kube_arm(w->timer, w->cluster->options.stall_ms);
	if (head->status != 200) {
		r = kube_buf_add(&w->refusal, bytes, n, ERROR_BODY_MAX);
		return r == -EMSGSIZE ? 0 : r; /* its beginning says enough */
	}
	w->status.protobuf = kube_type_is_protobuf(head->type);
	r = kube_stream_feed(&w->stream, head->type, bytes, n, on_event, w, &err);
	if (r < 0 && !w->stop.code)
		stop_at(w, r, err.msg);
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

/* A kind that nobody has defined in this cluster, or does not any more: there are none of it. */
static void kind_missing(struct kube_watch *w)
{
	forget_place(w);
	model_relist_begin(w->cluster->model, w->kind);
	model_relist_end(w->cluster->model, w->kind);
	model_set_synced(w->cluster->model, w->kind);
	pause_for(w, kube_backoff_ms(w->cluster, &w->trouble.backoff_ms));
}

/* An HTTP error: its Status says more than its number. */
static void refused(struct kube_watch *w, const struct kube_response *response)
{
	struct kube_status status = { 0 };
	unsigned retry_after = response->retry_after_s;
	long code = response->head.status;
	char text[512];

	kube_status_read(response->head.type, w->refusal.bytes, w->refusal.n, &status);
	if (!retry_after)
		retry_after = status.retry_after_s;
	snprintf(text, sizeof(text), "cannot %s %s: HTTP %ld %s: %.256s%s", verb_of(w),
		 w->res->plural, code, status.reason, status.message, remedy(code));
	if (code == 410 && list_anew(w, text) == 0)
		return;
	if ((code == 406 || code == 415) && fall_back(w, text)) {
		start(w);
		return;
	}
	if (code == 404 && w->res->may_lack) {
		kind_missing(w);
		return;
	}
	fail(w, code >= 500, retry_after, text);
	if (w->res->optional && (code == 403 || code == 404))
		model_set_synced(w->cluster->model, w->kind);
}

static int page_done(struct kube_watch *w)
{
	struct model *model = w->cluster->model;
	struct kube_list_end end;
	struct wag_err err;
	int r;

	r = kube_stream_list_end(&w->stream, &end, &err);
	if (r < 0)
		return stop_at(w, r, err.msg);
	free(w->next_page);
	w->next_page = NULL;
	r = end.next[0] ? kube_http_escape(end.next, &w->next_page) : set_rv(w, end.rv);
	if (r < 0)
		return stop_at(w, r, strerror(-r));
	if (w->next_page)
		return 0;
	if (!w->rv)
		return stop_at(w, -EBADMSG, "without a resourceVersion");
	w->status.relists++;
	w->status.last_event_ms = kube_now_ms();
	model_relist_end(model, w->kind);
	malloc_trim(0);
	recovered(w);
	w->wide_known = w->wide;
	model_set_synced(model, w->kind);
	return 0;
}

static void watch_done(struct kube_watch *w, const struct kube_response *response)
{
	char text[400];

	w->status.reconnects++;
	if (kube_now_ms() - w->started_ms >= STEADY_MS)
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
	} else if (kube_now_ms() - w->started_ms < STEADY_MS && !w->got_bytes) {
		/* Ended at once: no tight loop. */
		pause_for(w, kube_backoff_ms(w->cluster, &w->trouble.backoff_ms));
	} else {
		start(w);
	}
}

static void list_done(struct kube_watch *w, const struct kube_response *response)
{
	char text[400];

	if (!w->stop.code && !response->error)
		page_done(w);
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
	if (response->head.status && response->head.status != 200)
		refused(w, response);
	else if (w->state == STATE_LIST)
		list_done(w, response);
	else
		watch_done(w, response);
}

/* The next request: a page of a list, or a watch from where we are. */
static void start(struct kube_watch *w)
{
	static const struct kube_http_ops ops = { on_data, on_done };
	struct kube_http_call call = { .method = "GET",
				       .accept = w->json_only ? KUBE_ACCEPT_JSON : KUBE_ACCEPT,
				       .fresh = w->failures > 0 || w->stalled };
	struct kube_cluster *cluster = w->cluster;
	_cleanup_free_ char *path = NULL;
	char text[128];
	int r;

	w->state = w->rv ? STATE_WATCH : STATE_LIST;
	if (w->state == STATE_LIST && !w->next_page)
		model_relist_begin(cluster->model, w->kind);
	kube_stream_begin(&w->stream, w->state == STATE_WATCH);
	w->refusal.n = 0;
	w->stop.code = 0;
	w->got_bytes = w->lost_place = false;
	w->server = cluster->server;
	w->started_ms = kube_now_ms();
	r = w->state == STATE_LIST ? kube_list_path(&path, cluster, w->kind, w->wide, w->next_page)
				   : kube_watch_path(&path, cluster, w->kind, w->wide, w->rv);
	call.path = path;
	if (r == 0)
		r = kube_http_send(cluster->http, server_of(w), &call, &ops, w, &w->req);
	if (r < 0) {
		snprintf(text, sizeof(text), "%s: no request can be made: %s", w->res->plural,
			 strerror(-r));
		fail(w, false, 0, text);
		return;
	}
	w->stalled = false;
	kube_arm(w->timer, cluster->options.stall_ms);
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
	snprintf(text, sizeof(text), "%s %s: no byte for %u ms", verb_of(w), w->res->plural,
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
	w->res = &kube_resources[kind];
	w->json_only = w->res->may_lack; /* what a CRD defines has no protobuf */
	kube_stream_init(&w->stream, kind, cluster->options.line_max_bytes);
	w->timer = evtimer_new(cluster->base, on_timer, w);
	if (!w->timer) {
		free(w);
		return -ENOMEM;
	}
	pause_for(w, 0); /* the loop makes the first request */
	*ret = w;
	return 0;
}

void kube_watch_widen(struct kube_watch *w)
{
	if (w->wide)
		return;
	w->wide = true;
	kube_http_cancel(w->req);
	w->req = NULL;
	forget_place(w);
	pause_for(w, 0);
}

bool kube_watch_is_wide(const struct kube_watch *w)
{
	return w->wide_known;
}

void kube_watch_status(const struct kube_watch *w, struct source_kind_status *ret)
{
	*ret = w->status;
	snprintf(ret->error, sizeof(ret->error), "%s", w->trouble.text);
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
	kube_stream_done(&w->stream);
	kube_buf_done(&w->refusal);
	forget_place(w);
	free(w);
}
