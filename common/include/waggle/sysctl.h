/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Makes the sysctl at path ("/proc/sys/...") have this one-character value, if it has not. A
 * container sees its own /proc/sys read-only, and may be given the node's below /host: that is
 * tried then. 0, -ENOENT (no such sysctl, for example without IPv6), -EROFS or another -errno.
 */
int sysctl_ensure(const char *path, char value);
