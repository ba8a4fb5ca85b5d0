// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include <waggle/file.h>

int file_replace(int temp_dir, const char *temp, int dir, const char *name)
{
	/* What the name stood for is under the temporary name then. */
	if (renameat2(temp_dir, temp, dir, name, RENAME_EXCHANGE) == 0) {
		unlinkat(temp_dir, temp, 0);
		return 0;
	}
	/* Nothing there yet, or a file system that cannot. */
	return renameat(temp_dir, temp, dir, name) < 0 ? -errno : 0;
}
