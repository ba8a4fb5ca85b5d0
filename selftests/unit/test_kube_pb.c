// SPDX-License-Identifier: Apache-2.0
/* The API's protobuf: it says what its JSON says, and nothing else gets through. */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "agent/kube_pb.h"
#include "agent/kube_stream.h"
#include "agent/object.h"

#define PROTOBUF "application/vnd.kubernetes.protobuf"
#define JSON "application/json"

struct bytes {
	char *at;
	size_t n;
};

static void bytes_done(struct bytes *b)
{
	free(b->at);
}

static struct bytes read_fixture(const char *name, const char *suffix)
{
	struct bytes b = { .at = malloc(1 << 20) };
	_cleanup_fclose_ FILE *f = NULL;
	char path[512];

	snprintf(path, sizeof(path), "%s/k8s/fixtures/%s.%s", WAGGLE_SELFTESTS, name, suffix);
	f = fopen(path, "r");
	assert_non_null(f);
	b.n = fread(b.at, 1, 1 << 20, f);
	return b;
}

#define KEPT_MAX 256

struct seen {
	struct model *model;
	struct object *kept[KEPT_MAX]; /* what was put, in its order */
	size_t puts, bad, deleted, bookmarks, errors;
	struct kube_status status;
	char rv[64], error[512];
};

static int see(void *ctx, const struct kube_event *event)
{
	struct seen *seen = ctx;

	snprintf(seen->rv, sizeof(seen->rv), "%s", event->rv);
	switch (event->type) {
	case KUBE_PUT:
		seen->puts += event->obj != NULL;
		seen->bad += !event->obj;
		if (!event->obj)
			snprintf(seen->error, sizeof(seen->error), "%s", event->err.msg);
		else if (seen->model)
			assert_true(model_put(seen->model, event->obj) >= 0);
		if (event->obj && seen->puts <= KEPT_MAX)
			seen->kept[seen->puts - 1] = object_pack(event->obj);
		break;
	case KUBE_DELETED:
		seen->deleted++;
		if (seen->model)
			model_delete(seen->model, MODEL_SLICE, event->ns, event->name);
		break;
	case KUBE_BOOKMARK:
		seen->bookmarks++;
		break;
	case KUBE_ERROR:
		seen->errors++;
		seen->status = event->status;
		break;
	}
	return 0;
}

static void seen_done(struct seen *seen)
{
	for (size_t i = 0; i < KEPT_MAX; i++)
		object_free(seen->kept[i]);
	model_free(seen->model);
}

static int feed(struct kube_stream *s, const char *type, const struct bytes *b, size_t piece,
		struct seen *seen)
{
	struct wag_err err;
	int r = 0;

	for (size_t at = 0; at < b->n && r == 0; at += piece)
		r = kube_stream_feed(s, type, b->at + at, b->n - at < piece ? b->n - at : piece,
				     see, seen, &err);
	if (r < 0)
		snprintf(seen->error, sizeof(seen->error), "%s", err.msg);
	return r;
}

static int must_be_in(const struct object *obj, void *ctx)
{
	const struct object *twin = model_get(ctx, obj->kind, obj->ns, obj->name);

	assert_non_null(twin);
	assert_true(object_equal(obj, twin));
	return 0;
}

static void models_equal(struct model *a, struct model *b, enum model_kind kind)
{
	assert_int_equal(model_count(a, kind), model_count(b, kind));
	model_visit(a, kind, must_be_in, b);
}

static const struct {
	enum model_kind kind;
	const char *name;
	size_t items;
} lists[] = {
	{ MODEL_SERVICE, "list-full-services", 10 },
	{ MODEL_SLICE, "list-full-endpointslices", 11 },
	{ MODEL_SLICE, "list-terminating-endpointslices", 11 },
	{ MODEL_NODE, "list-full-nodes", 2 },
	{ MODEL_NAMESPACE, "list-full-namespaces", 5 },
	{ MODEL_POD, "list-full-pods", 2 },
	{ MODEL_POD, "list-terminating-pods", 5 },
	{ MODEL_POLICY, "list-full-networkpolicies", 2 },
};

static void read_list(size_t which, const char *type, size_t piece, struct model **ret,
		      struct kube_list_end *ret_end)
{
	struct kube_stream s;
	_cleanup_(seen_done) struct seen seen = { 0 };
	struct wag_err err;
	_cleanup_(bytes_done) struct bytes b = read_fixture(
		lists[which].name, kube_type_is_protobuf(type) ? "pb" : "json");

	assert_int_equal(model_new(&seen.model), 0);
	kube_stream_init(&s, lists[which].kind, 1 << 20);
	kube_stream_begin(&s, false);
	assert_int_equal(feed(&s, type, &b, piece, &seen), 0);
	assert_int_equal(seen.bad, 0);
	assert_int_equal(seen.puts, lists[which].items);
	assert_int_equal(kube_stream_list_end(&s, ret_end, &err), 0);
	kube_stream_done(&s);
	*ret = TAKE_PTR(seen.model);
}

static void test_lists_say_what_their_json_says(void **state)
{
	static const size_t pieces[] = { 1, 2, 3, 7, 100, 4096, 1 << 20 };

	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		_cleanup_(model_freep) struct model *json = NULL;
		struct kube_list_end json_end, end;

		read_list(i, JSON, 1 << 20, &json, &json_end);
		for (size_t k = 0; k < sizeof(pieces) / sizeof(pieces[0]); k++) {
			_cleanup_(model_freep) struct model *m = NULL;

			read_list(i, PROTOBUF, pieces[k], &m, &end);
			models_equal(json, m, lists[i].kind);
			assert_string_equal(end.rv, json_end.rv);
			assert_true(end.rv[0] && !end.next[0]);
		}
	}
}

static void read_watch(enum model_kind kind, const char *name, const char *type, size_t piece,
		       struct seen *seen)
{
	struct kube_stream s;
	_cleanup_(bytes_done) struct bytes b =
		read_fixture(name, kube_type_is_protobuf(type) ? "pb" : "jsonl");

	*seen = (struct seen){ 0 };
	assert_int_equal(model_new(&seen->model), 0);
	kube_stream_init(&s, kind, 1 << 20);
	kube_stream_begin(&s, true);
	assert_int_equal(feed(&s, type, &b, piece, seen), 0);
	kube_stream_done(&s);
}

/* Returns whether the slice says why it was written, which makes no two slices different. */
static bool twins_equal(const struct object *a, const struct object *b)
{
	assert_true(object_equal(a, b));
	if (a->kind != MODEL_SLICE)
		return false;
	assert_true(a->slice.trigger_ms == b->slice.trigger_ms);
	return a->slice.trigger_ms;
}

static void test_watches_say_what_their_json_says(void **state)
{
	static const struct {
		enum model_kind kind;
		const char *name;
	} watches[] = { { MODEL_SERVICE, "watch-services" },
			{ MODEL_SLICE, "watch-endpointslices" } };
	size_t triggered = 0;

	for (size_t i = 0; i < 2; i++) {
		struct seen json, pb;

		read_watch(watches[i].kind, watches[i].name, JSON, 1 << 20, &json);
		for (size_t piece = 1; piece < 200000; piece = piece * 5 + 2) {
			read_watch(watches[i].kind, watches[i].name,
				   PROTOBUF ";stream=watch", piece, &pb);
			assert_int_equal(pb.puts, json.puts);
			assert_int_equal(pb.bad, 0);
			assert_int_equal(pb.deleted, json.deleted);
			assert_int_equal(pb.errors, 0);
			assert_true(pb.bookmarks > 0 && pb.rv[0]);
			for (size_t k = 0; k < json.puts; k++)
				triggered += twins_equal(json.kept[k], pb.kept[k]);
			models_equal(json.model, pb.model, watches[i].kind);
			seen_done(&pb);
		}
		assert_in_range(json.puts, 10, KEPT_MAX);
		seen_done(&json);
	}
	assert_true(triggered > 0);
}

static void test_error_event(void **state)
{
	struct seen seen;

	read_watch(MODEL_SERVICE, "410-watch-rv1", PROTOBUF ";stream=watch", 7, &seen);
	assert_int_equal(seen.errors, 1);
	assert_int_equal(seen.status.code, 410);
	assert_string_equal(seen.status.reason, "Expired");
	assert_string_equal(seen.status.message, "too old resource version: 1 (283)");
	seen_done(&seen);
}

/* ---- made by hand ---- */

struct message {
	char at[4096];
	size_t n;
};

static void put_number(struct message *m, uint64_t v)
{
	for (; v > 0x7f; v >>= 7)
		m->at[m->n++] = v | 0x80;
	m->at[m->n++] = v;
}

static void put_int(struct message *m, unsigned field, uint64_t v)
{
	put_number(m, field << 3);
	put_number(m, v);
}

static void put_bytes(struct message *m, unsigned field, const void *bytes, size_t n)
{
	put_number(m, field << 3 | 2);
	put_number(m, n);
	memcpy(m->at + m->n, bytes, n);
	m->n += n;
}

static void put_text(struct message *m, unsigned field, const char *text)
{
	put_bytes(m, field, text, strlen(text));
}

static void put_message(struct message *m, unsigned field, const struct message *inner)
{
	put_bytes(m, field, inner->at, inner->n);
}

/* Metadata of a/x, and one label. */
static struct message with_meta(const char *key, const char *value)
{
	struct message m = { 0 }, meta = { 0 }, label = { 0 };

	put_text(&meta, 1, "x");
	put_text(&meta, 3, "a");
	put_text(&label, 1, key);
	put_text(&label, 2, value);
	put_message(&meta, 11, &label);
	put_message(&m, 1, &meta);
	return m;
}

static int parse(enum model_kind kind, const void *bytes, size_t n, struct seen *seen)
{
	struct kube_arena arena = { .max = 1 << 20 };
	const struct object *obj = NULL;
	struct kube_ident ident;
	struct wag_err err = { 0 };
	int r = kube_pb_object(kind, bytes, n, &arena, &obj, &ident, &err);

	assert_int_equal(r == 0, obj != NULL);
	if (r == 0 && seen->model)
		model_put(seen->model, obj);
	object_drop(obj);
	snprintf(seen->error, sizeof(seen->error), "%s", err.msg);
	kube_arena_done(&arena);
	return r;
}

static void expect(enum model_kind kind, const struct message *m, const char *error)
{
	_cleanup_(seen_done) struct seen seen = { 0 };

	assert_int_equal(parse(kind, m->at, m->n, &seen), error[0] ? -EINVAL : 0);
	assert_string_equal(seen.error, error);
}

static struct message service_with_port(uint64_t port, const char *proto)
{
	struct message m = with_meta("k", "v"), spec = { 0 }, p = { 0 };

	put_text(&p, 2, proto);
	put_int(&p, 3, port);
	put_message(&spec, 1, &p);
	put_message(&m, 2, &spec);
	return m;
}

static struct message service_with_range(const char *range)
{
	struct message m = with_meta("k", "v"), spec = { 0 };

	put_text(&spec, 9, range);
	put_message(&m, 2, &spec);
	return m;
}

static struct message slice_with(const char *type, const char *addr)
{
	struct message m = with_meta("kubernetes.io/service-name", "s"), ep = { 0 };

	put_text(&ep, 1, addr);
	put_message(&m, 2, &ep);
	put_text(&m, 4, type);
	return m;
}

static void test_bad_objects_are_named(void **state)
{
	struct message m = { 0 }, meta = { 0 };

	expect(MODEL_SERVICE, &m, "Service (no name): metadata.name: is missing");
	put_text(&meta, 1, "x");
	put_message(&m, 1, &meta);
	expect(MODEL_SERVICE, &m, "Service x: metadata.namespace: is missing");
	expect(MODEL_NODE, &m, "");
	m = service_with_port(80, "TCP");
	expect(MODEL_SERVICE, &m, "");
	m = service_with_port(70000, "TCP");
	expect(MODEL_SERVICE, &m, "Service a/x: spec.ports[0].port: 70000 is not in 1..65535");
	m = service_with_port((uint64_t)-1, "TCP");
	expect(MODEL_SERVICE, &m, "Service a/x: spec.ports[0].port: -1 is not in 1..65535");
	m = service_with_port(80, "ICMP");
	expect(MODEL_SERVICE, &m,
	       "Service a/x: spec.ports[0].protocol: \"ICMP\" is not TCP, UDP or SCTP");
	m = service_with_range(" 10.0.0.0/8 ");
	expect(MODEL_SERVICE, &m, "");
	m = service_with_range("ten");
	expect(MODEL_SERVICE, &m,
	       "Service a/x: spec.loadBalancerSourceRanges[0]: \"ten\" is no CIDR");
	m = slice_with("IPv4", "10.0.0.1");
	expect(MODEL_SLICE, &m, "");
	m = slice_with("IPv5", "10.0.0.1");
	expect(MODEL_SLICE, &m,
	       "EndpointSlice a/x: addressType: \"IPv5\" is not IPv4, IPv6 or FQDN");
	m = slice_with("IPv4", "fd00::1");
	expect(MODEL_SLICE, &m,
	       "EndpointSlice a/x: endpoints[0].addresses[0]: is not of addressType IPv4");
	m = slice_with("IPv4", "10.0.0.300");
	expect(MODEL_SLICE, &m,
	       "EndpointSlice a/x: endpoints[0].addresses[0]: \"10.0.0.300\" is no IP address");
	m = slice_with("FQDN", "a.b");
	expect(MODEL_SLICE, &m, "");
}

static void test_hints_are_joined(void **state)
{
	struct message m = with_meta("service.kubernetes.io/headless", ""), ep = { 0 },
		       hints = { 0 }, name = { 0 };
	_cleanup_(seen_done) struct seen seen = { 0 };
	const struct slice *slice;

	assert_int_equal(model_new(&seen.model), 0);
	put_text(&name, 1, "a");
	put_message(&hints, 1, &name);
	put_message(&hints, 1, &(struct message){ 0 });
	put_message(&hints, 2, &name);
	name.n = 0;
	put_text(&name, 1, "bcd");
	put_message(&hints, 1, &name);
	put_text(&ep, 1, "10.0.0.1");
	put_message(&ep, 8, &hints);
	put_message(&m, 2, &ep);
	put_text(&m, 4, "IPv4");
	assert_int_equal(parse(MODEL_SLICE, m.at, m.n, &seen), 0);
	slice = &model_get(seen.model, MODEL_SLICE, "a", "x")->slice;
	assert_string_equal(slice->endpoints[0].hint_zones, "a,bcd");
	assert_string_equal(slice->endpoints[0].hint_nodes, "a");
	assert_true(slice->other_proxy);
}

/* What no object of the recording has: a pod of its node's network, with the old field only. */
static void test_host_network_pod(void **state)
{
	struct message m = with_meta("k", "v"), spec = { 0 }, status = { 0 };
	_cleanup_(seen_done) struct seen seen = { 0 };
	const struct pod *pod;

	assert_int_equal(model_new(&seen.model), 0);
	put_text(&spec, 10, "node-1");
	put_int(&spec, 11, 1);
	put_message(&m, 2, &spec);
	put_text(&status, 1, "Running");
	put_text(&status, 6, "192.0.2.1");
	put_message(&m, 3, &status);
	assert_int_equal(parse(MODEL_POD, m.at, m.n, &seen), 0);
	pod = &model_get(seen.model, MODEL_POD, "a", "x")->pod;
	assert_true(pod->host_network);
	assert_string_equal(pod->node_name, "node-1");
	assert_string_equal(pod->phase, "Running");
	assert_int_equal(pod->n_addrs, 1);
	assert_string_equal(pod->labels[0].key, "k");
}

static void test_nodes_that_are_about_to_go(void **state)
{
	struct message node = { 0 }, meta = { 0 }, spec = { 0 }, taint = { 0 }, time = { 0 };
	_cleanup_(seen_done) struct seen seen = { 0 };

	assert_int_equal(model_new(&seen.model), 0);
	put_text(&meta, 1, "n");
	put_message(&node, 1, &meta);
	put_text(&taint, 1, "node.kubernetes.io/unschedulable");
	put_message(&spec, 5, &taint);
	put_message(&node, 2, &spec);
	assert_int_equal(parse(MODEL_NODE, node.at, node.n, &seen), 0);
	assert_false(model_get(seen.model, MODEL_NODE, "", "n")->node.leaving);
	taint.n = spec.n = 0;
	put_text(&taint, 1, "ToBeDeletedByClusterAutoscaler");
	put_message(&spec, 5, &taint);
	put_message(&node, 2, &spec);
	assert_int_equal(parse(MODEL_NODE, node.at, node.n, &seen), 0);
	assert_true(model_get(seen.model, MODEL_NODE, "", "n")->node.leaving);
	node.n = 0;
	put_int(&time, 1, 1767225600);
	put_message(&meta, 9, &time);
	put_message(&node, 1, &meta);
	assert_int_equal(parse(MODEL_NODE, node.at, node.n, &seen), 0);
	assert_true(model_get(seen.model, MODEL_NODE, "", "n")->node.leaving);
}

static void test_text_is_utf8(void **state)
{
	struct message m = { 0 }, meta = { 0 };

	m = with_meta("kubernetes.io/service-name", "\xc3\xa4");
	put_text(&m, 4, "IPv4");
	expect(MODEL_SLICE, &m, "");
	m = with_meta("kubernetes.io/service-name", "\xc3(");
	put_text(&m, 4, "IPv4");
	expect(MODEL_SLICE, &m, "EndpointSlice a/x: metadata.labels: is not UTF-8");
	m = with_meta("\xff", "v");
	expect(MODEL_POD, &m, "Pod a/x: metadata.labels: is not UTF-8");
	m.n = 0;
	put_text(&meta, 1, "\xed\xa0\x80");
	put_message(&m, 1, &meta);
	expect(MODEL_NODE, &m, "Node (no name): metadata.name: is not UTF-8");
}

static void test_unknown_fields_are_passed_over(void **state)
{
	struct message m = service_with_port(80, "UDP"), plain = m;
	_cleanup_(model_freep) struct model *a = NULL, *b = NULL;
	_cleanup_(seen_done) struct seen seen = { 0 };

	put_int(&m, 99, 1);
	put_text(&m, 100, "text");
	put_number(&m, 101 << 3 | 1);
	memset(m.at + m.n, 7, 8);
	m.n += 8;
	put_number(&m, 102 << 3 | 5);
	memset(m.at + m.n, 7, 4);
	m.n += 4;
	assert_int_equal(model_new(&a), 0);
	assert_int_equal(model_new(&b), 0);
	seen.model = a;
	assert_int_equal(parse(MODEL_SERVICE, m.at, m.n, &seen), 0);
	seen.model = b;
	assert_int_equal(parse(MODEL_SERVICE, plain.at, plain.n, &seen), 0);
	models_equal(a, b, MODEL_SERVICE);
	seen.model = NULL;
}

/* Broken in the middle of anything; a prefix that happens to be whole is an object of its own. */
static void test_cut_objects(void **state)
{
	struct message m = service_with_port(80, "TCP");
	size_t whole = 0;

	for (size_t n = 0; n < m.n; n++) {
		_cleanup_(seen_done) struct seen seen = { 0 };
		int r = parse(MODEL_SERVICE, m.at, n, &seen);

		assert_true(r == 0 || r == -EBADMSG || r == -EINVAL);
		whole += r == 0;
	}
	assert_int_equal(whole, 1); /* the metadata alone */
}

static void test_wrong_wire_types(void **state)
{
	struct message m = { 0 }, meta = { 0 };
	_cleanup_(seen_done) struct seen seen = { 0 };

	put_int(&meta, 1, 5); /* a name that is a number */
	put_message(&m, 1, &meta);
	assert_int_equal(parse(MODEL_SERVICE, m.at, m.n, &seen), -EBADMSG);
	m.n = 0;
	put_int(&m, 1, 5);
	assert_int_equal(parse(MODEL_SERVICE, m.at, m.n, &seen), -EBADMSG);
	m.n = 0;
	put_number(&m, 1 << 3 | 3); /* a group */
	assert_int_equal(parse(MODEL_SERVICE, m.at, m.n, &seen), -EBADMSG);
	assert_string_equal(seen.error, "Service: cannot be decoded");
}

/* Two bytes on the wire, a hundred in memory: bounded. */
static void test_memory_is_bounded(void **state)
{
	enum { N = 100000 };
	_cleanup_free_ char *bytes = malloc(2 * N);
	_cleanup_(seen_done) struct seen seen = { 0 };

	for (size_t i = 0; i < N; i++)
		memcpy(bytes + 2 * i, "\x12\0", 2);
	assert_int_equal(parse(MODEL_SLICE, bytes, 2 * N, &seen), -EMSGSIZE);
	assert_string_equal(seen.error, "EndpointSlice: it is larger than allowed");
}

static int feed_list(const void *bytes, size_t n, size_t piece_max, struct seen *seen, bool watch)
{
	const struct bytes b = { (char *)bytes, n };
	struct kube_list_end end;
	struct kube_stream s;
	struct wag_err err;
	int r;

	kube_stream_init(&s, MODEL_SERVICE, piece_max);
	kube_stream_begin(&s, watch);
	r = feed(&s, PROTOBUF, &b, n ? n : 1, seen);
	if (r == 0 && !watch)
		r = kube_stream_list_end(&s, &end, &err);
	kube_stream_done(&s);
	return r;
}

static void test_cut_lists_are_no_lists(void **state)
{
	_cleanup_(bytes_done) struct bytes b = read_fixture("list-full-services", "pb");
	/* The contentEncoding and contentType behind the list are both empty. */
	const size_t tail = 4;

	for (size_t n = 0; n <= b.n; n++) {
		_cleanup_(seen_done) struct seen seen = { 0 };
		int r = feed_list(b.at, n, 1 << 20, &seen, false);

		if (n == b.n || n == b.n - 2 || n == b.n - tail)
			assert_int_equal(r, 0);
		else
			assert_int_equal(r, -EBADMSG);
	}
}

static struct message list_of(const struct message *fields)
{
	struct message m = { .at = "k8s", .n = 4 };

	put_message(&m, 2, fields);
	return m;
}

static void test_odd_lists(void **state)
{
	struct message item = service_with_port(80, "TCP"), meta = { 0 }, fields = { 0 }, m;
	_cleanup_(seen_done) struct seen seen = { 0 };

	put_text(&meta, 2, "17");
	put_text(&meta, 3, "more");
	/* Items before the metadata, fields nobody knows between them, an empty item. */
	put_message(&fields, 2, &item);
	put_int(&fields, 9, 300);
	put_bytes(&fields, 2, "", 0);
	put_text(&fields, 10, "text");
	put_message(&fields, 1, &meta);
	put_number(&fields, 11 << 3 | 5);
	fields.n += 4;
	m = list_of(&fields);
	assert_int_equal(feed_list(m.at, m.n, 1000, &seen, false), 0);
	assert_int_equal(seen.puts, 1);
	assert_int_equal(seen.bad, 1);
	assert_string_equal(seen.error, "Service (no name): metadata.name: is missing");
	assert_int_equal(feed_list(m.at, m.n, item.n - 1, &seen, false), -EMSGSIZE);
	assert_string_equal(seen.error, "one object is larger than allowed");
	assert_int_equal(feed_list("{\"items\":[]}", 12, 1000, &seen, false), -EBADMSG);
	assert_string_equal(seen.error, "the answer is no protobuf of Kubernetes");
	m = list_of(&(struct message){ 0 });
	assert_int_equal(feed_list(m.at, m.n, 1000, &seen, false), 0);
}

static void test_huge_lengths(void **state)
{
	struct message m = { .at = "k8s", .n = 4 }, n = m;
	_cleanup_(seen_done) struct seen seen = { 0 };

	/* An item longer than its list; a list without end, of an item without end. */
	put_bytes(&m, 2, "\x12\x7f", 2);
	assert_int_equal(feed_list(m.at, m.n, 1000, &seen, false), -EBADMSG);
	put_number(&n, 2 << 3 | 2);
	put_number(&n, 1ULL << 60);
	put_number(&n, 2 << 3 | 2);
	put_number(&n, 1ULL << 50);
	assert_int_equal(feed_list(n.at, n.n, 1000, &seen, false), -EMSGSIZE);
	n.n = 4;
	put_number(&n, 2 << 3 | 2);
	memset(n.at + n.n, 0xff, 11); /* no number of 64 bits */
	n.n += 11;
	assert_int_equal(feed_list(n.at, n.n, 1000, &seen, false), -EBADMSG);
	assert_int_equal(feed_list("\xff\xff\xff\xff...", 7, 1000, &seen, true), -EMSGSIZE);
	assert_int_equal(feed_list("\0\0\0\0", 4, 1000, &seen, true), -EBADMSG);
	assert_string_equal(seen.error, "a frame is no event");
}

static void test_status_body(void **state)
{
	struct message type = { 0 }, status = { 0 }, details = { 0 }, m = { .at = "k8s", .n = 4 };
	struct kube_status st;

	put_text(&type, 2, "Status");
	put_text(&status, 3, "later");
	put_text(&status, 4, "TooManyRequests");
	put_int(&details, 5, 7);
	put_message(&status, 5, &details);
	put_int(&status, 6, 429);
	put_message(&m, 1, &type);
	put_message(&m, 2, &status);
	assert_true(kube_status_read(PROTOBUF, m.at, m.n, &st));
	assert_int_equal(st.code, 429);
	assert_int_equal(st.retry_after_s, 7);
	assert_string_equal(st.reason, "TooManyRequests");
	assert_string_equal(st.message, "later");
	assert_false(kube_status_read(PROTOBUF, m.at, 10, &st));
	assert_false(kube_status_read(PROTOBUF, NULL, 0, &st));
	assert_false(kube_status_read(JSON, m.at, m.n, &st));
	assert_true(kube_status_read(NULL, "{\"kind\":\"Status\",\"code\":401}", 28, &st));
	assert_int_equal(st.code, 401);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lists_say_what_their_json_says),
		cmocka_unit_test(test_watches_say_what_their_json_says),
		cmocka_unit_test(test_error_event),
		cmocka_unit_test(test_bad_objects_are_named),
		cmocka_unit_test(test_hints_are_joined),
		cmocka_unit_test(test_host_network_pod),
		cmocka_unit_test(test_nodes_that_are_about_to_go),
		cmocka_unit_test(test_text_is_utf8),
		cmocka_unit_test(test_unknown_fields_are_passed_over),
		cmocka_unit_test(test_cut_objects),
		cmocka_unit_test(test_wrong_wire_types),
		cmocka_unit_test(test_memory_is_bounded),
		cmocka_unit_test(test_cut_lists_are_no_lists),
		cmocka_unit_test(test_odd_lists),
		cmocka_unit_test(test_huge_lengths),
		cmocka_unit_test(test_status_body),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
