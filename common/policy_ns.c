// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <waggle/abi_maps.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include <waggle/pins.h>
#include <waggle/policy_ns.h>

int policy_ns_flags(const char *pin_dir, const char *ns, uint32_t *ret_flags)
{
	_cleanup_close_ int runtime_fd = -1, table_fd = -1;
	struct wag_policy_ns_key key = { 0 };
	struct wag_policy_ns value;
	struct wag_runtime runtime;
	uint32_t zero = 0;
	int r;

	runtime_fd = pins_map_open(pin_dir, "wag_runtime", sizeof(zero), sizeof(runtime));
	if (runtime_fd < 0)
		return runtime_fd;
	table_fd = pins_map_open(pin_dir, "wag_policy_ns", sizeof(key), sizeof(value));
	if (table_fd < 0)
		return table_fd;
	r = bpfsys_map_lookup(runtime_fd, &zero, &runtime);
	if (r < 0)
		return r;
	*ret_flags = 0;
	if (!runtime.policies)
		return 0;
	snprintf(key.ns, sizeof(key.ns), "%s", ns);
	r = bpfsys_map_lookup(table_fd, &key, &value);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r < 0 || value.flags & WAG_POLICY_NS_SELECTS)
		*ret_flags = WAG_POD_PENDING;
	return 0;
}
