// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <waggle/cleanup.h>

#include "kube_resource.h"

#define WATCH_MIN_S 240 /* and up to twice that, so that not all nodes come back at once */

/* kube-proxy's selectors: another proxy's Services and headless ones are not ours. */
const struct kube_resource kube_resources[MODEL_KINDS] = {
	[MODEL_SERVICE] = { "/api/v1/services", "services",
			    "!service.kubernetes.io/service-proxy-name", true },
	[MODEL_SLICE] = { "/apis/discovery.k8s.io/v1/endpointslices", "endpointslices",
			  "!service.kubernetes.io/service-proxy-name,"
			  "!service.kubernetes.io/headless",
			  true },
	[MODEL_NODE] = { "/api/v1/nodes", "nodes", NULL, false },
	[MODEL_NAMESPACE] = { "/api/v1/namespaces", "namespaces", NULL, false, .optional = true },
	[MODEL_POD] = { "/api/v1/pods", "pods", NULL, false, .by_node = true },
	[MODEL_POLICY] = { "/apis/networking.k8s.io/v1/networkpolicies", "networkpolicies", NULL,
			   false, .optional = true },
	[MODEL_CLUSTER_POLICY] = { "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies",
				   "clusternetworkpolicies", NULL, false, .optional = true,
				   .may_lack = true },
};

/* "&labelSelector=..." or "&fieldSelector=...", or nothing. */
static int selectors(char **ret, const struct kube_cluster *cluster, enum model_kind kind,
		     bool wide)
{
	const struct kube_resource *res = &kube_resources[kind];
	_cleanup_free_ char *label = NULL, *node = NULL;
	int r = 0;

	if (res->selector)
		r = kube_http_escape(res->selector, &label);
	if (r == 0 && res->by_node && !wide)
		r = kube_http_escape(cluster->node_name, &node);
	if (r < 0)
		return r;
	r = asprintf(ret, "%s%s%s%s", label ? "&labelSelector=" : "", label ? label : "",
		     node ? "&fieldSelector=spec.nodeName%3D" : "", node ? node : "");
	return r < 0 ? -ENOMEM : 0;
}

int kube_list_path(char **ret, const struct kube_cluster *cluster, enum model_kind kind,
		   bool wide, const char *next)
{
	_cleanup_free_ char *which = NULL;
	int r = selectors(&which, cluster, kind, wide);

	if (r < 0)
		return r;
	r = asprintf(ret, "%s?limit=%u%s%s%s", kube_resources[kind].path,
		     cluster->options.page_limit, next ? "&continue=" : "", next ? next : "",
		     which);
	return r < 0 ? -ENOMEM : 0;
}

int kube_watch_path(char **ret, const struct kube_cluster *cluster, enum model_kind kind,
		    bool wide, const char *rv)
{
	_cleanup_free_ char *which = NULL;
	int r = selectors(&which, cluster, kind, wide);

	if (r < 0)
		return r;
	r = asprintf(ret,
		     "%s?watch=1&allowWatchBookmarks=true&resourceVersion=%s&timeoutSeconds=%u%s",
		     kube_resources[kind].path, rv, WATCH_MIN_S + kube_random_below(WATCH_MIN_S),
		     which);
	return r < 0 ? -ENOMEM : 0;
}
