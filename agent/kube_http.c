// SPDX-License-Identifier: Apache-2.0
#include <curl/curl.h>
#include <errno.h>
#include <event2/event.h>
#include <string.h>
#include <time.h>
#include <waggle/cleanup.h>

#include "kube_http.h"

#define CONNECT_TIMEOUT_MS 10000L

struct kube_http {
	struct event_base *base;
	struct kube_config *cfg;
	CURLM *multi;
	struct event *timer;
	struct kube_request *requests;
};

struct kube_request {
	struct kube_http *http;
	CURL *easy;
	struct curl_slist *headers, *connect_to;
	const struct kube_http_ops *ops;
	void *ctx;
	char error[CURL_ERROR_SIZE];
	struct kube_request *next, *prev;
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

static void request_unlink(struct kube_request *req)
{
	if (req->prev)
		req->prev->next = req->next;
	else
		req->http->requests = req->next;
	if (req->next)
		req->next->prev = req->prev;
}

static void request_free(struct kube_request *req)
{
	if (!req)
		return;
	if (req->easy)
		curl_easy_cleanup(req->easy);
	curl_slist_free_all(req->headers);
	curl_slist_free_all(req->connect_to);
	free(req);
}

static void request_freep(struct kube_request **req)
{
	request_free(*req);
}

static struct kube_head read_head(CURL *easy)
{
	struct kube_head head = { 0 };
	char *type = NULL;

	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &head.status);
	curl_easy_getinfo(easy, CURLINFO_CONTENT_TYPE, &type);
	head.type = type;
	return head;
}

static void finish(struct kube_http *http, CURL *easy, CURLcode code)
{
	struct kube_response response = { .head = read_head(easy) };
	struct kube_request *req = NULL;
	curl_off_t retry_after = 0;

	curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&req);
	curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &retry_after);
	if (retry_after > 0)
		response.retry_after_s = retry_after < 3600 ? retry_after : 3600;
	if (code != CURLE_OK)
		response.error = req->error[0] ? req->error : curl_easy_strerror(code);
	curl_multi_remove_handle(http->multi, easy);
	request_unlink(req);
	req->ops->done(req->ctx, &response);
	request_free(req);
}

static void collect(struct kube_http *http)
{
	CURLMsg *msg;
	int left;

	while ((msg = curl_multi_info_read(http->multi, &left))) {
		if (msg->msg == CURLMSG_DONE)
			finish(http, msg->easy_handle, msg->data.result);
	}
}

static void on_socket(evutil_socket_t fd, short what, void *ctx)
{
	int flags =
		(what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0);
	struct kube_http *http = ctx;
	int running;

	curl_multi_socket_action(http->multi, fd, flags, &running);
	collect(http);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
	struct kube_http *http = ctx;
	int running;

	curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	collect(http);
}

/* libcurl says which events it waits for on a socket; socketp is the event we hung there. */
static int socket_wanted(CURL *easy, curl_socket_t fd, int what, void *ctx, void *socketp)
{
	struct kube_http *http = ctx;
	struct event *ev = socketp;
	short flags = EV_PERSIST;

	if (ev)
		event_free(ev);
	if (what == CURL_POLL_REMOVE) {
		curl_multi_assign(http->multi, fd, NULL);
		return 0;
	}
	if (what & CURL_POLL_IN)
		flags |= EV_READ;
	if (what & CURL_POLL_OUT)
		flags |= EV_WRITE;
	ev = event_new(http->base, fd, flags, on_socket, http);
	curl_multi_assign(http->multi, fd, ev);
	return ev && event_add(ev, NULL) == 0 ? 0 : -1;
}

static int timer_wanted(CURLM *multi, long ms, void *ctx)
{
	struct kube_http *http = ctx;
	const struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	return ms < 0 ? event_del(http->timer) : event_add(http->timer, &tv);
}

static size_t on_body(char *bytes, size_t size, size_t n, void *ctx)
{
	struct kube_request *req = ctx;
	struct kube_head head = read_head(req->easy);

	if (req->ops->data(req->ctx, &head, bytes, size * n) != 0)
		return 0; /* an error to libcurl */
	return size * n;
}

static CURLcode set_blob(CURL *easy, CURLoption option, char *pem)
{
	struct curl_blob blob = { .data = pem, .len = strlen(pem), .flags = CURL_BLOB_NOCOPY };

	return curl_easy_setopt(easy, option, &blob);
}

static CURLcode set_tls(CURL *easy, const struct kube_config *cfg)
{
	CURLcode c = CURLE_OK;

	if (cfg->ca_pem)
		c = set_blob(easy, CURLOPT_CAINFO_BLOB, cfg->ca_pem);
	else if (cfg->ca_file)
		c = curl_easy_setopt(easy, CURLOPT_CAINFO, cfg->ca_file);
	if (c == CURLE_OK && cfg->cert_pem)
		c = set_blob(easy, CURLOPT_SSLCERT_BLOB, cfg->cert_pem);
	else if (c == CURLE_OK && cfg->cert_file)
		c = curl_easy_setopt(easy, CURLOPT_SSLCERT, cfg->cert_file);
	if (c == CURLE_OK && cfg->key_pem)
		c = set_blob(easy, CURLOPT_SSLKEY_BLOB, cfg->key_pem);
	else if (c == CURLE_OK && cfg->key_file)
		c = curl_easy_setopt(easy, CURLOPT_SSLKEY, cfg->key_file);
	if (cfg->insecure) {
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	return c;
}

/* Another name than the URL's has to be in the certificate: put it there, connect elsewhere. */
static int set_url(struct kube_request *req, const char *server, const char *path)
{
	const char *name = req->http->cfg->tls_server_name;
	_cleanup_free_ char *url = NULL, *to = NULL;
	const char *host = strstr(server, "://") + 3;
	size_t len = strcspn(host, "/"),
	       host_len = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/");
	int r;

	if (!name) {
		r = asprintf(&url, "%s%s", server, path);
	} else {
		r = asprintf(&url, "%.*s%s%s%s", (int)(host - server), server, name,
			     host + host_len, path);
		if (r >= 0 &&
		    asprintf(&to, "::%.*s%s", (int)len, host, host_len == len ? ":443" : "") < 0)
			r = -1;
	}
	if (r < 0)
		return -ENOMEM;
	if (to && !(req->connect_to = curl_slist_append(NULL, to)))
		return -ENOMEM;
	if (to)
		curl_easy_setopt(req->easy, CURLOPT_CONNECT_TO, req->connect_to);
	return curl_easy_setopt(req->easy, CURLOPT_URL, url) == CURLE_OK ? 0 : -ENOMEM;
}

static int add_header(struct kube_request *req, const char *name, const char *value)
{
	_cleanup_free_ char *header = NULL;
	struct curl_slist *headers;

	if (asprintf(&header, "%s: %s", name, value) < 0)
		return -ENOMEM;
	headers = curl_slist_append(req->headers, header);
	if (!headers)
		return -ENOMEM;
	req->headers = headers;
	curl_easy_setopt(req->easy, CURLOPT_HTTPHEADER, req->headers);
	return 0;
}

static int set_identity(struct kube_request *req, const char *accept)
{
	struct kube_config *cfg = req->http->cfg;
	const char *token = kube_config_token(cfg, now_ms());
	_cleanup_free_ char *bearer = NULL;
	int r;

	r = add_header(req, "Accept", accept ? accept : "application/json");
	if (r < 0)
		return r;
	if (token) {
		if (asprintf(&bearer, "Bearer %s", token) < 0)
			return -ENOMEM;
		return add_header(req, "Authorization", bearer);
	}
	if (cfg->username) {
		curl_easy_setopt(req->easy, CURLOPT_USERNAME, cfg->username);
		curl_easy_setopt(req->easy, CURLOPT_PASSWORD, cfg->password ? cfg->password : "");
	}
	return 0;
}

static void set_transfer(struct kube_request *req)
{
	const struct kube_config *cfg = req->http->cfg;
	CURL *easy = req->easy;

	curl_easy_setopt(easy, CURLOPT_PRIVATE, (char *)req);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, req->error);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, req);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "waggle-agent/" WAGGLE_VERSION);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 15L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 5L);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	curl_easy_setopt(easy, CURLOPT_PIPEWAIT, 1L); /* one connection for all the watches */
	/* The environment's proxies are for other traffic than the node's own API server. */
	if (cfg->proxy_url)
		curl_easy_setopt(easy, CURLOPT_PROXY, cfg->proxy_url);
	else
		curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
}

static int set_call(struct kube_request *req, const struct kube_http_call *call)
{
	if (call->fresh)
		curl_easy_setopt(req->easy, CURLOPT_FRESH_CONNECT, 1L);
	if (call->timeout_ms)
		curl_easy_setopt(req->easy, CURLOPT_TIMEOUT_MS, (long)call->timeout_ms);
	if (strcmp(call->method, "GET") != 0 &&
	    curl_easy_setopt(req->easy, CURLOPT_CUSTOMREQUEST, call->method) != CURLE_OK)
		return -ENOMEM;
	if (!call->body)
		return 0;
	if (curl_easy_setopt(req->easy, CURLOPT_COPYPOSTFIELDS, call->body) != CURLE_OK)
		return -ENOMEM;
	/* Without a question first: what is sent here is small. */
	if (add_header(req, "Expect", "") < 0)
		return -ENOMEM;
	return add_header(req, "Content-Type", call->type);
}

int kube_http_send(struct kube_http *http, const char *server, const struct kube_http_call *call,
		   const struct kube_http_ops *ops, void *ctx, struct kube_request **ret)
{
	_cleanup_(request_freep) struct kube_request *req = calloc(1, sizeof(*req));
	int r;

	if (!req)
		return -ENOMEM;
	req->http = http;
	req->ops = ops;
	req->ctx = ctx;
	req->easy = curl_easy_init();
	if (!req->easy)
		return -ENOMEM;
	set_transfer(req);
	if ((r = set_url(req, server, call->path)) < 0 ||
	    (r = set_identity(req, call->accept)) < 0 || (r = set_call(req, call)) < 0)
		return r;
	if (set_tls(req->easy, http->cfg) != CURLE_OK)
		return -EOPNOTSUPP;
	if (curl_multi_add_handle(http->multi, req->easy) != CURLM_OK)
		return -EIO;
	req->next = http->requests;
	if (req->next)
		req->next->prev = req;
	http->requests = req;
	*ret = TAKE_PTR(req);
	return 0;
}

void kube_http_cancel(struct kube_request *req)
{
	if (!req)
		return;
	curl_multi_remove_handle(req->http->multi, req->easy);
	request_unlink(req);
	request_free(req);
}

int kube_http_escape(const char *text, char **ret)
{
	char *escaped = curl_easy_escape(NULL, text, 0);
	int r;

	if (!escaped)
		return -ENOMEM;
	*ret = strdup(escaped);
	r = *ret ? 0 : -ENOMEM;
	curl_free(escaped);
	return r;
}

int kube_http_new(struct kube_http **ret, struct event_base *base, struct kube_config *cfg,
		  struct wag_err *err)
{
	struct kube_http *http;

	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return wag_err_set(err, -EIO, "libcurl does not start");
	http = calloc(1, sizeof(*http));
	if (!http)
		return wag_err_set(err, -ENOMEM, "out of memory");
	http->base = base;
	http->cfg = cfg;
	http->multi = curl_multi_init();
	http->timer = evtimer_new(base, on_timer, http);
	if (!http->multi || !http->timer) {
		kube_http_free(http);
		return wag_err_set(err, -ENOMEM, "out of memory");
	}
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, socket_wanted);
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, timer_wanted);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
	*ret = http;
	return 0;
}

void kube_http_free(struct kube_http *http)
{
	if (!http)
		return;
	while (http->requests)
		kube_http_cancel(http->requests);
	if (http->multi)
		curl_multi_cleanup(http->multi);
	if (http->timer)
		event_free(http->timer);
	free(http);
	curl_global_cleanup();
}
