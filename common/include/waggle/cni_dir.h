/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The container runtime's network folder (/etc/cni/net.d): the file that names us, and the files of
 * others that stand aside for it. libcni takes the first in order of the name.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define CNI_DIR_CONF "05-waggle.conflist"
#define CNI_DIR_BACKUP ".waggle_bak" /* behind the name of a file that stands aside */

/* *.conf, *.conflist or *.json: what libcni would read; never our own file. */
bool cni_dir_is_conf(const char *name);
/* Puts len bytes in place as dir/name with this mode in one step: whoever opens it sees the old or
 * the new file whole. 0 or -errno. */
int cni_dir_replace(int dir_fd, const char *name, const void *data, size_t len, unsigned mode);
/* Removes our file and gives every file that stands aside its name back, unless another one has
 * taken it since. Returns how many got theirs back, or -errno. */
int cni_dir_restore(const char *dir);
