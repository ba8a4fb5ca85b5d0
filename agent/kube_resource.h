/* SPDX-License-Identifier: Apache-2.0 */
/* Where the objects of a kind are at an API server, and which of them the agent wants. */
#pragma once

#include "kube_cluster.h"

struct kube_resource {
	const char *path, *plural, *selector;
	bool required, by_node;
	bool optional; /* a server that refuses or lacks it has none */
	bool may_lack; /* and that is not worth a word: it is defined by a CRD */
};

extern const struct kube_resource kube_resources[MODEL_KINDS];

/* A page of the list (next: its escaped continue token, NULL: the first), and a watch from rv. The
 * caller frees *ret. 0 or -ENOMEM. */
int kube_list_path(char **ret, const struct kube_cluster *cluster, enum model_kind kind,
		   bool wide, const char *next);
int kube_watch_path(char **ret, const struct kube_cluster *cluster, enum model_kind kind,
		    bool wide, const char *rv);
