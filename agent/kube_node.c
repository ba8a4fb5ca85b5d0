// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
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
