/* SPDX-License-Identifier: Apache-2.0 */
/* Small files that others read while they change. */
#pragma once

/*
 * Puts a complete file in the place of another, or where none was, in one step; temp is gone
 * afterwards. Both in directories by their fds (AT_FDCWD as in renameat). It is not flushed: what
 * replaces a file by rename(2) waits for the disk on ext4, so the two change places instead.
 * 0 or -errno.
 */
int file_replace(int temp_dir, const char *temp, int dir, const char *name);
