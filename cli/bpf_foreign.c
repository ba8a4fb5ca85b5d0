// SPDX-License-Identifier: Apache-2.0
#include <bpf/bpf.h>
#include <string.h>
#include <waggle/cleanup.h>
#include "bpf_foreign.h"

size_t bpf_programs_named(const char *prefix)
{
	size_t n = 0;
	__u32 id = 0;

	while (bpf_prog_get_next_id(id, &id) == 0) {
		_cleanup_close_ int fd = bpf_prog_get_fd_by_id(id);
		struct bpf_prog_info info = {};
		__u32 len = sizeof(info);

		if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &len) == 0)
			n += strncmp(info.name, prefix, strlen(prefix)) == 0;
	}
	return n;
}
