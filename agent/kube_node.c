// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <time.h>
#include <waggle/cleanup.h>

#include "kube_node.h"

static int node_path(char **ret, const char *node)
{
	char *path;

	if (asprintf(&path, "/api/v1/nodes/%s", node) < 0)
		return -ENOMEM;
	*ret = path;
	return 0;
}

int kube_node_get(struct kube_cluster *cluster, const char *node, kube_answer_fn fn, void *ctx,
		  struct kube_write **at)
{
	_cleanup_free_ char *path = NULL;
	int r = node_path(&path, node);

	return r < 0 ? r : kube_write_send(cluster, "GET", path, NULL, NULL, fn, ctx, at);
}

int kube_node_publish(struct kube_cluster *cluster, const char *node, const char *uid,
		      const char *cidrs, kube_answer_fn fn, void *ctx, struct kube_write **at)
{
	json_t *patch = json_pack("{s:{s:s, s:{s:s?}}}", "metadata", "uid", uid, "annotations",
				  MODEL_POD_CIDRS, cidrs);
	_cleanup_free_ char *path = NULL;
	int r = patch ? node_path(&path, node) : -ENOMEM;

	if (r == 0)
		r = kube_write_send(cluster, "PATCH", path, KUBE_MERGE_PATCH, patch, fn, ctx, at);
	json_decref(patch);
	return r;
}

static json_t *second_time(const struct timespec *now)
{
	struct tm tm;

	gmtime_r(&now->tv_sec, &tm);
	return json_sprintf("%04d-%02d-%02dT%02d:%02d:%02dZ", tm.tm_year + 1900, tm.tm_mon + 1,
			    tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

int kube_node_event(struct kube_cluster *cluster, const char *node, const char *uid,
		    const char *reason, const char *message, kube_answer_fn fn, void *ctx,
		    struct kube_write **at)
{
	struct timespec now;
	json_t *event, *involved, *meta;
	int r;

	clock_gettime(CLOCK_REALTIME, &now);
	involved = json_pack("{s:s, s:s, s:s, s:s}", "apiVersion", "v1", "kind", "Node", "name",
			     node, "uid", uid);
	meta = json_pack("{s:o, s:s}", "name",
			 json_sprintf("%s.%llx", node,
				      now.tv_sec * 1000000000ULL + (unsigned long long)now.tv_nsec),
			 "namespace", "default");
	event = json_pack("{s:s, s:s, s:o, s:o, s:s, s:s, s:s, s:{s:s, s:s}, s:o, s:o, s:i}",
			  "apiVersion", "v1", "kind", "Event", "metadata", meta, "involvedObject",
			  involved, "reason", reason, "message", message, "type", "Warning",
			  "source", "component", "waggle-agent", "host", node, "firstTimestamp",
			  second_time(&now), "lastTimestamp", second_time(&now), "count", 1);
	if (!event)
		return -ENOMEM;
	r = kube_write_send(cluster, "POST", "/api/v1/namespaces/default/events", KUBE_JSON, event,
			    fn, ctx, at);
	json_decref(event);
	return r;
}
