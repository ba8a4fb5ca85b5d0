// SPDX-License-Identifier: Apache-2.0
/* An API server's protobuf: cut, decoded, packed, put into a model. */
#include <waggle/cleanup.h>

#include "agent/kube_pb.h"
#include "agent/kube_stream.h"
#include "agent/object.h"

#define PROTOBUF "application/vnd.kubernetes.protobuf"
#define PIECE_MAX 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int put(void *ctx, const struct kube_event *event)
{
	if (event->type == KUBE_PUT && event->obj)
		model_put(ctx, event->obj);
	else if (event->type == KUBE_PUT && !event->err.msg[0])
		__builtin_trap();
	else if (event->type == KUBE_DELETED)
		model_delete(ctx, MODEL_SERVICE, event->ns, event->name);
	return 0;
}

static void answer(struct model *m, enum model_kind kind, const char *bytes, size_t n, bool watch)
{
	size_t piece = n % 7 ? n : 5;
	struct kube_list_end end;
	struct kube_stream s;
	struct wag_err err;
	int r = 0;

	kube_stream_init(&s, kind, PIECE_MAX);
	kube_stream_begin(&s, watch);
	for (size_t at = 0; at < n && r == 0; at += piece)
		r = kube_stream_feed(&s, PROTOBUF, bytes + at, n - at < piece ? n - at : piece, put,
				     m, &err);
	if (r < 0 && !err.msg[0])
		__builtin_trap();
	if (r == 0 && !watch)
		kube_stream_list_end(&s, &end, &err);
	kube_stream_done(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *bytes = (const char *)data + 1;
	struct kube_arena arena = { .max = 1 << 20 };
	const struct object *obj;
	struct kube_status status;
	struct kube_ident ident;
	struct model *m = NULL;
	enum model_kind kind;
	struct wag_err err;

	if (size < 1 || model_new(&m) < 0)
		return 0;
	kind = data[0] % MODEL_KINDS;
	if (kube_pb_object(kind, bytes, size - 1, &arena, &obj, &ident, &err) == 0) {
		model_put(m, obj);
		object_drop(obj);
	}
	kube_arena_reset(&arena);
	kube_pb_status_body(bytes, size - 1, &arena, &status);
	kube_arena_done(&arena);
	answer(m, kind, bytes, size - 1, false);
	answer(m, kind, bytes, size - 1, true);
	model_free(m);
	return 0;
}
