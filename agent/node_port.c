// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <waggle/abi_config.h>
#include <waggle/addr.h>
#include "node_port.h"

#define ITEM_MAX 64 /* a CIDR */

/* The next item of a comma-separated list, "" if it is too long for any; false: no more. */
static bool next_item(const char **list, char item[ITEM_MAX])
{
	size_t len = strcspn(*list, ",");

	if (!**list)
		return false;
	snprintf(item, ITEM_MAX, "%.*s", len < ITEM_MAX ? (int)len : 0, *list);
	*list += len + ((*list)[len] == ',');
	return true;
}

int node_port_check(const char *list, struct wag_err *err)
{
	const char *at = list ? list : "";
	struct wag_addr addr;
	char item[ITEM_MAX];
	unsigned bits;

	while (next_item(&at, item))
		if (strcmp(item, NODE_PORT_PRIMARY) != 0 && wag_cidr_parse(item, &addr, &bits) < 0)
			return wag_err_set(err, -EINVAL,
					   "--nodeport-addresses '%s': '%s' is neither a CIDR nor "
					   "'" NODE_PORT_PRIMARY "'", list, item);
	return 0;
}

bool node_port_serves(const char *list, const struct wag_addr *addr,
		      const struct wag_addr *primary)
{
	const char *at = list ? list : "";
	bool said = false;
	char item[ITEM_MAX];

	while (next_item(&at, item)) {
		struct wag_addr net;
		unsigned bits;

		if (strcmp(item, NODE_PORT_PRIMARY) == 0) {
			said = true;
			if (wag_addr_equal(addr, primary))
				return true;
			continue;
		}
		if (wag_cidr_parse(item, &net, &bits) < 0 ||
		    wag_addr_is_v4(&net) != wag_addr_is_v4(addr))
			continue;
		said = true;
		if (wag_addr_in_cidr(addr, &net, bits))
			return true;
	}
	return !said;
}

uint32_t node_port_loopback(const char *list)
{
	const struct wag_addr none = { 0 };
	struct wag_addr v4, v6;

	wag_addr_parse("127.0.0.1", &v4);
	wag_addr_parse("::1", &v6);
	return (node_port_serves(list, &v4, &none) ? WAG_LOOPBACK_V4 : 0) |
	       (node_port_serves(list, &v6, &none) ? WAG_LOOPBACK_V6 : 0);
}
