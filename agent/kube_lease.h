/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Lease objects (coordination.k8s.io/v1) that say which node holds which address block. Their
 * name is made of the block alone: the API server creates one of a name only once, and that is the
 * whole lock.
 *
 *   metadata.name                        waggle-ipam-10-0-3-0-24
 *   metadata.labels waggle.io/ipam       v4-24: family and size of the block
 *   metadata.labels waggle.io/node       the node (a name of more than 63 characters: shortened)
 *   metadata.annotations waggle.io/block 10.0.3.0/24
 *   metadata.ownerReferences             the Node, so that the block is freed with it
 *   spec.holderIdentity                  the node
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <waggle/ipam.h>

#define KUBE_LEASE_IPAM "waggle.io/ipam"
#define KUBE_LEASE_NODE "waggle.io/node"
#define KUBE_LEASE_BLOCK "waggle.io/block"
#define KUBE_LEASE_NAME 80

struct kube_lease {
	struct ipam_range block;
	char name[KUBE_LEASE_NAME];
	char holder[254];
	char uid[64], rv[32]; /* metadata.resourceVersion */
	char owner_uid[64];   /* of the Node it belongs to; may be empty */
};

void kube_lease_name(const struct ipam_range *block, char buf[KUBE_LEASE_NAME]);
void kube_lease_size(bool v6, unsigned mask, char buf[16]);
void kube_lease_node(const char *node, char buf[64]);
/* A Lease to create (old NULL), or to put in the place of an old one. NULL: out of memory. */
json_t *kube_lease_make(const struct ipam_range *block, const char *node, const char *node_uid,
			const struct kube_lease *old);
/* 0, or -EINVAL: none of ours. */
int kube_lease_read(const json_t *tree, struct kube_lease *ret);
/* DeleteOptions: only this very state of it. NULL: out of memory. */
json_t *kube_lease_delete_options(const struct kube_lease *lease);
/* ".../namespaces/NS/leases[/NAME]"; the caller frees *ret. */
int kube_lease_path(char **ret, const char *ns, const char *name);
/* A list; selector is not escaped yet, page is metadata.continue of the page before or NULL. */
int kube_lease_list_path(char **ret, const char *ns, const char *selector, const char *page);
