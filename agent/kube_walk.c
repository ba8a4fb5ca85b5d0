// SPDX-License-Identifier: Apache-2.0
/* Lists, Endpoints and whatever else may stand where an object is expected. */
#include <errno.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "kube_field.h"
#include "kube_parse.h"
#include "object.h"

#define LIST_DEPTH_MAX 4

static int walk_object(enum model_kind kind, const json_t *tree, const struct kube_sink *sink)
{
	struct object *obj = NULL;
	struct kube_ident ident;
	struct wag_err err;
	int r;

	r = kube_parse_object(kind, tree, sink, &obj, &ident, &err);
	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		sink->bad(sink->ctx, &ident, &err);
		return 0;
	}
	if (object_is_unreadable(obj))
		sink->bad(sink->ctx, &ident, &err);
	return sink->object(sink->ctx, obj, tree);
}

/* Endpoints of one family of one subset, appended to the slice. */
static int legacy_endpoints(const struct reader *rd, const json_t *subset, size_t index,
			    const char *key, bool ready, struct slice *slice)
{
	const json_t *list, *value;
	char path[64];
	size_t i;
	int r;

	snprintf(path, sizeof(path), "subsets[%zu].", index);
	r = field_typed(rd, subset, path, key, JSON_ARRAY, &list);
	if (r < 0)
		return r;
	json_array_foreach(list, i, value)
	{
		struct slice_endpoint *ep;
		struct wag_addr addr;
		const char *ip;

		snprintf(path, sizeof(path), "subsets[%zu].%s[%zu].", index, key, i);
		r = field_str(rd, value, path, "ip", &ip);
		if (r < 0)
			return r;
		if (wag_addr_parse(ip, &addr) < 0)
			return field_bad(rd, value, "%sip: \"%.64s\" is no IP address", path, ip);
		if (wag_addr_is_v4(&addr) == slice->v6)
			continue;
		ep = array_grow(&slice->endpoints, &slice->n_endpoints, sizeof(*ep));
		if (!ep)
			return field_no_memory(rd);
		ep->ready = ep->serving = ready;
		if ((r = field_add_addr(rd, json_object_get(value, "ip"), path, &ep->addrs,
					&ep->n_addrs)) < 0 ||
		    (r = field_dup(rd, value, path, "nodeName", &ep->node_name)) < 0 ||
		    (r = kube_read_target(rd, value, path, ep)) < 0)
			return r;
	}
	return 0;
}

static int legacy_slice(const struct reader *rd, const json_t *subset, size_t index, bool v6,
			struct object **ret)
{
	_cleanup_(object_freep) struct object *obj = NULL;
	const json_t *ports, *value;
	char name[KUBE_NAME_MAX + 64], path[64];
	size_t i;
	int r;

	snprintf(name, sizeof(name), "%s" KUBE_LEGACY_SUFFIX "%zu%s", rd->ident->name, index,
		 v6 ? "-v6" : "");
	obj = object_new(MODEL_SLICE, rd->ident->ns, name);
	if (!obj)
		return field_no_memory(rd);
	obj->origin = KUBE_ORIGIN_LEGACY;
	obj->slice.v6 = v6;
	snprintf(path, sizeof(path), "subsets[%zu].", index);
	if ((r = field_copy(rd, rd->ident->name, &obj->slice.service)) < 0 ||
	    (r = field_typed(rd, subset, path, "ports", JSON_ARRAY, &ports)) < 0 ||
	    (r = legacy_endpoints(rd, subset, index, "addresses", true, &obj->slice)) < 0 ||
	    (r = legacy_endpoints(rd, subset, index, "notReadyAddresses", false, &obj->slice)) < 0)
		return r;
	json_array_foreach(ports, i, value)
	{
		snprintf(path, sizeof(path), "subsets[%zu].ports[%zu].", index, i);
		r = kube_read_port(rd, value, path, &obj->slice);
		if (r < 0)
			return r;
	}
	*ret = TAKE_PTR(obj);
	return 0;
}

static int walk_legacy(const json_t *tree, const struct kube_sink *sink)
{
	struct kube_ident ident = { .kind = "Endpoints", .ns = "", .name = "" };
	struct wag_err err;
	const struct reader rd = { .sink = sink, .ident = &ident, .err = &err };
	const json_t *subsets, *subset;
	size_t i;
	int r;

	if ((r = kube_read_ident(&rd, tree, true)) == 0)
		r = field_typed(&rd, tree, "", "subsets", JSON_ARRAY, &subsets);
	if (r < 0)
		goto bad;
	json_array_foreach(subsets, i, subset)
	{
		for (int v6 = 0; v6 < 2; v6++) {
			struct object *obj = NULL;

			r = legacy_slice(&rd, subset, i, v6, &obj);
			if (r < 0)
				goto bad;
			if (obj->slice.n_endpoints == 0) {
				object_free(obj);
				continue;
			}
			r = sink->object(sink->ctx, obj, tree);
			if (r)
				return r;
		}
	}
	return 0;
bad:
	if (r == -ENOMEM)
		return r;
	sink->bad(sink->ctx, &ident, &err);
	return 0;
}

static int walk_tree(const json_t *tree, const char *list_kind, const struct kube_sink *sink,
		     int depth);

static int walk_list(const json_t *tree, const char *kind, const struct kube_sink *sink, int depth)
{
	struct kube_ident ident = { .kind = kind, .ns = "", .name = "", .at = tree };
	char item_kind[64];
	const json_t *items = field_member(tree, "items"), *item;
	struct wag_err err;
	size_t i;
	int r;

	if (depth >= LIST_DEPTH_MAX || (items && !json_is_array(items))) {
		wag_err_set(&err, -EINVAL, "%s: %s", kind,
			    depth >= LIST_DEPTH_MAX ? "lists nested too deep"
						    : "items: must be a list");
		sink->bad(sink->ctx, &ident, &err);
		return 0;
	}
	snprintf(item_kind, sizeof(item_kind), "%.*s", (int)(strlen(kind) - strlen("List")), kind);
	json_array_foreach(items, i, item)
	{
		r = walk_tree(item, item_kind, sink, depth + 1);
		if (r)
			return r;
	}
	return 0;
}

/* A version of a kind's group that is not read. Other groups' kinds may have the same name. */
static bool other_version(const char *api, enum model_kind kind)
{
	const char *own = kube_kind_api(kind), *slash = strchr(own, '/');

	return strcmp(api, own) != 0 &&
	       (!strchr(api, '/') || (slash && strncmp(api, own, slash + 1 - own) == 0));
}

static int walk_kind(enum model_kind kind, const char *api, const json_t *tree,
		     const struct kube_sink *sink)
{
	struct kube_ident ident = { .kind = kube_kind_name(kind), .ns = "", .name = "" };
	struct wag_err err;
	const struct reader rd = { .sink = sink, .ident = &ident, .err = &err };

	if (!api || strcmp(api, kube_kind_api(kind)) == 0)
		return walk_object(kind, tree, sink);
	if (!other_version(api, kind))
		return 0;
	if (kube_read_ident(&rd, tree, false) == 0)
		field_bad(&rd, json_object_get(tree, "apiVersion"),
			  "apiVersion: \"%.64s\" is not %s, the one that is read", api,
			  kube_kind_api(kind));
	sink->bad(sink->ctx, &ident, &err);
	return 0;
}

static int walk_tree(const json_t *tree, const char *list_kind, const struct kube_sink *sink,
		     int depth)
{
	const char *kind = json_string_value(json_object_get(tree, "kind"));
	const char *api = json_string_value(json_object_get(tree, "apiVersion"));
	struct kube_ident ident = { .kind = "object", .ns = "", .name = "", .at = tree };
	struct wag_err err;
	size_t len;

	if (!kind)
		kind = list_kind; /* the items of a typed list do not repeat it */
	if (!json_is_object(tree) || !kind || !kind[0]) {
		wag_err_set(&err, -EINVAL, "not a Kubernetes object: %s",
			    json_is_object(tree) ? "kind is missing" : "it is no mapping");
		sink->bad(sink->ctx, &ident, &err);
		return 0;
	}
	for (int k = 0; k < MODEL_KINDS; k++) {
		if (strcmp(kind, kube_kind_name(k)) == 0)
			return walk_kind(k, api, tree, sink);
	}
	if (strcmp(kind, "Endpoints") == 0 && (!api || strcmp(api, "v1") == 0))
		return walk_legacy(tree, sink);
	len = strlen(kind);
	if (len >= 4 && strcmp(kind + len - 4, "List") == 0 && json_object_get(tree, "items"))
		return walk_list(tree, kind, sink, depth);
	return 0;
}

int kube_parse_any(const json_t *tree, const struct kube_sink *sink)
{
	return walk_tree(tree, NULL, sink, 0);
}

bool kube_parse_status(const json_t *tree, struct kube_status *ret)
{
	const char *kind = json_string_value(json_object_get(tree, "kind"));
	const char *reason = json_string_value(json_object_get(tree, "reason"));
	const char *message = json_string_value(json_object_get(tree, "message"));
	json_int_t retry;

	if (!kind || strcmp(kind, "Status") != 0)
		return false;
	*ret = (struct kube_status){ .code = json_integer_value(json_object_get(tree, "code")) };
	retry = json_integer_value(
		json_object_get(json_object_get(tree, "details"), "retryAfterSeconds"));
	ret->retry_after_s = retry > 0 && retry < 3600 ? retry : 0;
	snprintf(ret->reason, sizeof(ret->reason), "%s", reason ? reason : "");
	snprintf(ret->message, sizeof(ret->message), "%s", message ? message : "");
	return true;
}
