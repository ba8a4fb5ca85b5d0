// SPDX-License-Identifier: Apache-2.0
/* Ranges of the node, Leases of an API server, and pools somebody typed. */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <waggle/node_ranges.h>

#include "agent/ipam_pool.h"
#include "agent/kube_lease.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void lease(const char *text, size_t size)
{
	struct kube_lease found;
	char name[KUBE_LEASE_NAME];
	json_t *tree = json_loadb(text, size, 0, NULL);

	/* Whatever is taken for a lease has the name of its block. */
	if (kube_lease_read(tree, &found) == 0) {
		kube_lease_name(&found.block, name);
		if (strcmp(name, found.name) != 0 || !ipam_range_size(&found.block))
			abort();
	}
	json_decref(tree);
}

static void pool(const char *text, size_t size)
{
	char *list = size ? strndup(text + 1, size - 1) : NULL;
	struct wag_err err = { 0 };
	struct ipam_pool found;
	struct ipam_range block;

	if (list && ipam_pool_parse(&found, text[0] & 1, list, (uint8_t)text[0] / 2, "flag",
				    &err) == 0) {
		for (uint64_t i = 0; i < found.total && i < 4; i++) {
			ipam_pool_block(&found, found.total - 1 - i, &block);
			if (!ipam_pool_has(&found, &block))
				abort();
		}
	} else if (list && !err.msg[0]) {
		abort();
	}
	free(list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	struct node_ranges ranges;
	struct wag_err err = { 0 };

	if (node_ranges_parse(text, size, &ranges, &err) < 0 && !err.msg[0])
		abort();
	lease(text, size);
	pool(text, size);
	return 0;
}
