// SPDX-License-Identifier: Apache-2.0
#include <linux/pkt_sched.h>
#include <string.h>
#include "node_qdisc.h"

static const struct nl_qdisc *root_of(const struct nl_qdisc *list, size_t n, uint32_t ifindex)
{
	for (size_t i = 0; i < n; i++)
		if (list[i].ifindex == ifindex && list[i].parent == TC_H_ROOT)
			return &list[i];
	return NULL;
}

bool qdiscs_pace(const struct nl_qdisc *list, size_t n, uint32_t ifindex)
{
	const struct nl_qdisc *root = root_of(list, n, ifindex);
	size_t queues = 0;

	if (!root || strcmp(root->kind, "mq") != 0)
		return root && strcmp(root->kind, "fq") == 0;
	for (size_t i = 0; i < n; i++) {
		if (list[i].ifindex != ifindex || &list[i] == root ||
		    TC_H_MAJ(list[i].parent) != TC_H_MAJ(root->handle))
			continue;
		if (strcmp(list[i].kind, "fq") != 0)
			return false;
		queues++;
	}
	return queues > 0;
}
