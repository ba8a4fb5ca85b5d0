// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <string.h>
#include <waggle/cleanup.h>

#include "kube_parse.h"
#include "kube_split.h"
#include "kube_write.h"

#define ANSWER_MAX (16U << 20) /* a list of leases */
#define TIMEOUT_MS 15000

struct kube_write {
	struct kube_cluster *cluster;
	struct kube_request *req;
	struct kube_buf buf;
	size_t server; /* the one it went to */
	bool too_long;
	char what[160]; /* "POST /apis/..." */
	kube_answer_fn fn;
	void *ctx;
	struct kube_write **at;
};

bool kube_answer_ok(const struct kube_answer *answer)
{
	return answer->status >= 200 && answer->status < 300;
}

static void write_free(struct kube_write *w)
{
	kube_buf_done(&w->buf);
	free(w);
}

static void write_freep(struct kube_write **w)
{
	if (*w)
		write_free(*w);
}

static int on_data(void *ctx, const struct kube_head *head, const char *bytes, size_t n)
{
	struct kube_write *w = ctx;
	int r = kube_buf_add(&w->buf, bytes, n, ANSWER_MAX);

	w->too_long = r == -EMSGSIZE;
	return r;
}

static const char *remedy(long status)
{
	if (status == 401)
		return "; the credentials were refused: renew the token or the client certificate";
	if (status == 403)
		return "; grant it: docs/ipam.md lists the rules this agent needs";
	return "";
}

static void describe(const struct kube_write *w, const struct kube_response *response,
		     struct kube_answer *answer)
{
	struct kube_status status = { 0 };

	if (w->too_long) {
		snprintf(answer->error, sizeof(answer->error), "%s: the answer is longer than %u",
			 w->what, ANSWER_MAX);
		return;
	}
	if (!response->head.status || response->error) {
		snprintf(answer->error, sizeof(answer->error), "%s: %s", w->what,
			 response->error ? response->error : "no answer");
		return;
	}
	kube_parse_status(answer->body, &status);
	if (!answer->retry_after_s)
		answer->retry_after_s = status.retry_after_s;
	snprintf(answer->error, sizeof(answer->error), "%s: HTTP %ld %s: %.200s%s", w->what,
		 response->head.status, status.reason, status.message,
		 remedy(response->head.status));
}

static void on_done(void *ctx, const struct kube_response *response)
{
	_cleanup_(write_freep) struct kube_write *w = ctx;
	struct kube_answer answer = { .retry_after_s = response->retry_after_s };
	json_error_t at;
	json_t *tree;

	tree = w->buf.n ? json_loadb(w->buf.bytes, w->buf.n, 0, &at) : NULL;
	answer.body = tree;
	if (!response->error)
		answer.status = response->head.status;
	if (!kube_answer_ok(&answer))
		describe(w, response, &answer);
	if (!answer.status || answer.status >= 500)
		kube_rotate_server(w->cluster, w->server);
	*w->at = NULL;
	w->fn(w->ctx, &answer);
	json_decref(tree);
}

int kube_write_send(struct kube_cluster *cluster, const char *method, const char *path,
		    const char *type, const json_t *body, kube_answer_fn fn, void *ctx,
		    struct kube_write **at)
{
	static const struct kube_http_ops ops = { on_data, on_done };
	_cleanup_(write_freep) struct kube_write *w = calloc(1, sizeof(*w));
	struct kube_http_call call = { .method = method, .path = path, .type = type,
				       .timeout_ms = TIMEOUT_MS };
	_cleanup_free_ char *text = NULL;
	int r;

	if (!w)
		return -ENOMEM;
	if (body) {
		call.body = text = json_dumps(body, JSON_COMPACT);
		if (!text)
			return -ENOMEM;
	}
	w->cluster = cluster;
	w->server = cluster->server;
	w->fn = fn;
	w->ctx = ctx;
	w->at = at;
	snprintf(w->what, sizeof(w->what), "%s %.*s", method, (int)strcspn(path, "?"), path);
	r = kube_http_send(cluster->http, cluster->cfg->servers[w->server], &call, &ops, w,
			   &w->req);
	if (r == 0)
		*at = TAKE_PTR(w);
	return r;
}

void kube_write_cancel(struct kube_write *w)
{
	if (!w)
		return;
	kube_http_cancel(w->req);
	*w->at = NULL;
	write_free(w);
}
