// SPDX-License-Identifier: Apache-2.0
/* Envelopes: the magic, Unknown, events, lists and errors. */
#include <errno.h>
#include <string.h>

#include "kube.pb-c.h"
#include "kube_pb_internal.h"

#define MAGIC "k8s" /* and its 0 */

/* protobuf-c says only that it failed: what memory had to do with that is noted here. */
struct source_of_memory {
	struct kube_arena *arena;
	bool failed;
};

static void *take(void *ctx, size_t size)
{
	struct source_of_memory *m = ctx;
	void *at = kube_arena_get(m->arena, size);

	m->failed |= !at;
	return at;
}

static void give_back(void *ctx, void *at)
{
}

int kube_pb_unpack(const ProtobufCMessageDescriptor *what, const char *bytes, size_t n,
		   struct kube_arena *arena, void *ret)
{
	struct source_of_memory m = { .arena = arena };
	ProtobufCAllocator allocator = { take, give_back, &m };
	ProtobufCMessage *message;

	message = protobuf_c_message_unpack(what, &allocator, n, (const uint8_t *)bytes);
	if (!message)
		return m.failed ? -EMSGSIZE : -EBADMSG;
	*(ProtobufCMessage **)ret = message;
	return 0;
}

static const char *or_empty(const char *text)
{
	return text ? text : "";
}

static int open_envelope(const char *bytes, size_t n, struct kube_arena *arena, Kube__Unknown **ret)
{
	if (n < sizeof(MAGIC) || memcmp(bytes, MAGIC, sizeof(MAGIC)) != 0)
		return -EBADMSG;
	return kube_pb_unpack(&kube__unknown__descriptor, bytes + sizeof(MAGIC), n - sizeof(MAGIC),
			      arena, ret);
}

int kube_pb_event(const char *bytes, size_t n, struct kube_arena *arena, struct kube_pb_event *ret)
{
	Kube__WatchEvent *event;
	Kube__Unknown *unknown;
	int r;

	r = kube_pb_unpack(&kube__watch_event__descriptor, bytes, n, arena, &event);
	if (r < 0)
		return r;
	if (!event->type || !event->object || !event->object->has_raw)
		return -EBADMSG;
	r = open_envelope((const char *)event->object->raw.data, event->object->raw.len, arena,
			  &unknown);
	if (r < 0)
		return r;
	*ret = (struct kube_pb_event){ event->type, (const char *)unknown->raw.data,
				       unknown->raw.len };
	return 0;
}

int kube_pb_meta(const char *bytes, size_t n, struct kube_arena *arena, struct kube_pb_meta *ret)
{
	const Kube__ObjectMeta *meta;
	Kube__Partial *partial;
	int r;

	r = kube_pb_unpack(&kube__partial__descriptor, bytes, n, arena, &partial);
	if (r < 0)
		return r;
	*ret = (struct kube_pb_meta){ "", "", "" };
	meta = partial->metadata;
	if (meta)
		*ret = (struct kube_pb_meta){ or_empty(meta->namespace_), or_empty(meta->name),
					      or_empty(meta->resource_version) };
	return 0;
}

int kube_pb_list_meta(const char *bytes, size_t n, struct kube_arena *arena, const char **ret_rv,
		      const char **ret_next)
{
	Kube__ListMeta *meta;
	int r;

	r = kube_pb_unpack(&kube__list_meta__descriptor, bytes, n, arena, &meta);
	if (r < 0)
		return r;
	*ret_rv = or_empty(meta->resource_version);
	*ret_next = or_empty(meta->continue_token);
	return 0;
}

bool kube_pb_status(const char *bytes, size_t n, struct kube_arena *arena, struct kube_status *ret)
{
	Kube__Status *status;
	int retry;

	if (kube_pb_unpack(&kube__status__descriptor, bytes, n, arena, &status) < 0)
		return false;
	*ret = (struct kube_status){ .code = status->code };
	retry = status->details ? status->details->retry_after_seconds : 0;
	ret->retry_after_s = retry > 0 && retry < 3600 ? retry : 0;
	snprintf(ret->reason, sizeof(ret->reason), "%s", or_empty(status->reason));
	snprintf(ret->message, sizeof(ret->message), "%s", or_empty(status->message));
	return true;
}

bool kube_pb_status_body(const char *bytes, size_t n, struct kube_arena *arena,
			 struct kube_status *ret)
{
	Kube__Unknown *unknown;

	if (open_envelope(bytes, n, arena, &unknown) < 0 || !unknown->type_meta ||
	    strcmp(or_empty(unknown->type_meta->kind), "Status") != 0)
		return false;
	return kube_pb_status((const char *)unknown->raw.data, unknown->raw.len, arena, ret);
}
