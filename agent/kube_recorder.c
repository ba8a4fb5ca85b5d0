// SPDX-License-Identifier: Apache-2.0
#include <ctype.h>
#include <errno.h>
#include <event2/event.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <waggle/cleanup.h>

#include "kube_parse.h"
#include "kube_recorder.h"
#include "kube_write.h"

#define COMPONENT "waggle-agent"
#define WAITING_MAX 64
#define BURST 32	  /* so many at once, */
#define REFILL_MS 5000	  /* then one in so long */
#define MESSAGE_MAX 1024  /* bytes; the API's own limit */
#define NAME_MAX_BYTES 230 /* of the object's, before the time: together a name may have 253 */

struct kube_recorder {
	struct kube_cluster *cluster;
	struct event *timer;
	struct kube_write *req;
	json_t *sending; /* of req, or of the one that failed; NULL: none */
	json_t *waiting; /* Events, in the order they came */
	unsigned budget;
	uint64_t budget_ms; /* when it was last counted */
	struct kube_trouble trouble;
};

static void step(struct kube_recorder *r);

/* ---- an Event ---- */

/* Names may be cut inside of a character, and what is no UTF-8 is no JSON. */
static json_t *text(const char *s)
{
	json_t *value = json_string(s);
	_cleanup_free_ char *ascii = NULL;

	if (value)
		return value;
	ascii = strdup(s);
	for (char *c = ascii; c && *c; c++)
		if (*c & 0x80)
			*c = '?';
	return ascii ? json_string(ascii) : NULL;
}

static json_t *second_time(const struct timespec *now)
{
	struct tm tm;

	gmtime_r(&now->tv_sec, &tm);
	return json_sprintf("%04d-%02d-%02dT%02d:%02d:%02dZ", tm.tm_year + 1900, tm.tm_mon + 1,
			    tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

/* "NAME.TIME", a DNS subdomain as the object's own name is. */
static json_t *event_name(const char *name, const struct timespec *now)
{
	int len = (int)strnlen(name, NAME_MAX_BYTES);

	while (len > 0 && !isalnum((unsigned char)name[len - 1]))
		len--;
	return json_sprintf("%.*s.%llx", len, name,
			    now->tv_sec * 1000000000ULL + (unsigned long long)now->tv_nsec);
}

static json_t *warning_new(const struct kube_cluster *cluster, const struct kube_ref *about,
			   const char *reason, const char *message)
{
	const char *node = cluster->node_name;
	struct timespec now;
	json_t *involved, *meta;

	clock_gettime(CLOCK_REALTIME, &now);
	involved = json_pack("{s:s, s:s, s:s}", "apiVersion", kube_kind_api(about->kind), "kind",
			     kube_kind_name(about->kind), "name", about->name);
	if (about->ns[0])
		json_object_set_new(involved, "namespace", json_string(about->ns));
	if (about->uid)
		json_object_set_new(involved, "uid", json_string(about->uid));
	/* Events of what has no namespace are in this one. */
	meta = json_pack("{s:o, s:s}", "name", event_name(about->name, &now), "namespace",
			 about->ns[0] ? about->ns : "default");
	return json_pack("{s:s, s:s, s:o, s:o, s:s, s:o, s:s, s:{s:s, s:s}, s:s, s:s, s:o, s:o, "
			 "s:i}",
			 "apiVersion", "v1", "kind", "Event", "metadata", meta, "involvedObject",
			 involved, "reason", reason, "message", text(message), "type", "Warning",
			 "source", "component", COMPONENT, "host", node, "reportingComponent",
			 COMPONENT, "reportingInstance", node, "firstTimestamp", second_time(&now),
			 "lastTimestamp", second_time(&now), "count", 1);
}

static bool same_news(const json_t *a, const json_t *b)
{
	return json_equal(json_object_get(a, "involvedObject"),
			  json_object_get(b, "involvedObject")) &&
	       json_equal(json_object_get(a, "reason"), json_object_get(b, "reason"));
}

/* ---- sending ---- */

static void trouble(struct kube_recorder *r, const char *why)
{
	if (kube_trouble_note(&r->trouble, why, KUBE_TELL_AGAIN_MS))
		kube_report(r->cluster, WAG_LOG_WARN, "an Event could not be made: %s", why);
}

static void done(struct kube_recorder *r)
{
	json_decref(r->sending);
	r->sending = NULL;
	r->trouble.backoff_ms = 0;
	step(r);
}

static void later(struct kube_recorder *r, unsigned least_ms)
{
	unsigned ms = kube_backoff_ms(r->cluster, &r->trouble.backoff_ms);

	kube_arm(r->timer, ms > least_ms ? ms : least_ms);
}

static void on_answer(void *ctx, const struct kube_answer *answer)
{
	struct kube_recorder *r = ctx;

	/* 409: it is there, and only the answer was lost. */
	if (kube_answer_ok(answer) || answer->status == 409) {
		kube_trouble_over(&r->trouble);
		done(r);
		return;
	}
	trouble(r, answer->error);
	/* What is refused once is refused again. */
	if (answer->status && answer->status < 500 && answer->status != 429)
		done(r);
	else
		later(r, answer->retry_after_s * 1000);
}

static int post(struct kube_recorder *r)
{
	const json_t *meta = json_object_get(r->sending, "metadata");
	_cleanup_free_ char *path = NULL;

	if (asprintf(&path, "/api/v1/namespaces/%s/events",
		     json_string_value(json_object_get(meta, "namespace"))) < 0)
		return -ENOMEM;
	return kube_write_send(r->cluster, "POST", path, KUBE_JSON, r->sending, on_answer, r,
			       &r->req);
}

static bool may_send(struct kube_recorder *r)
{
	uint64_t now = kube_now_ms(), more = (now - r->budget_ms) / REFILL_MS;

	r->budget = r->budget + more < BURST ? r->budget + (unsigned)more : BURST;
	r->budget_ms += more * REFILL_MS;
	if (r->budget)
		return true;
	kube_arm(r->timer, r->budget_ms + REFILL_MS - now);
	return false;
}

static void step(struct kube_recorder *r)
{
	int e;

	if (r->req || event_pending(r->timer, EV_TIMEOUT, NULL))
		return;
	if (!r->sending) {
		if (!json_array_size(r->waiting) || !may_send(r))
			return;
		r->budget--;
		r->sending = json_incref(json_array_get(r->waiting, 0));
		json_array_remove(r->waiting, 0);
	}
	e = post(r);
	if (e < 0) {
		trouble(r, strerror(-e));
		later(r, 0);
	}
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
	step(ctx);
}

static int add(struct kube_recorder *r, json_t *event)
{
	const json_t *old;
	size_t i;

	json_array_foreach(r->waiting, i, old)
		if (same_news(old, event))
			return json_array_set_new(r->waiting, i, event);
	if (json_array_size(r->waiting) < WAITING_MAX)
		return json_array_append_new(r->waiting, event);
	json_decref(event);
	trouble(r, "too many of them wait already");
	return 0;
}

void kube_warn(const struct kube_cluster *cluster, const struct kube_ref *about, const char *reason,
	       const char *fmt, ...)
{
	struct kube_recorder *r = cluster ? cluster->recorder : NULL;
	char message[MESSAGE_MAX];
	json_t *event;
	va_list ap;

	if (!r)
		return;
	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	event = warning_new(cluster, about, reason, message);
	if (!event || add(r, event) < 0)
		trouble(r, strerror(ENOMEM));
	step(r);
}

/* ---- life ---- */

int kube_recorder_new(struct kube_recorder **ret, struct kube_cluster *cluster)
{
	struct kube_recorder *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->cluster = cluster;
	r->budget = BURST;
	r->budget_ms = kube_now_ms();
	r->waiting = json_array();
	r->timer = evtimer_new(cluster->base, on_timer, r);
	if (!r->waiting || !r->timer) {
		kube_recorder_free(r);
		return -ENOMEM;
	}
	*ret = r;
	return 0;
}

void kube_recorder_free(struct kube_recorder *r)
{
	if (!r)
		return;
	kube_write_cancel(r->req);
	if (r->timer)
		event_free(r->timer);
	json_decref(r->sending);
	json_decref(r->waiting);
	free(r);
}
