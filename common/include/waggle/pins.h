/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where everything stands below --pin-dir (a bpffs), written once:
 *   DIR/maps/<map name>             every map
 *   DIR/progs/<program name>        wag_from_pod, wag_to_pod: what the CNI attaches
 *   DIR/links/<ifname>_<ifindex>_{ingress,egress}   TCX links
 *   DIR/links/cgroup_<program name> cgroup links
 *   flock on DIR itself             CNI attach against the agent's program switch
 * and below --state-dir (a disk):
 *   DIR/ipam/                       address leases (waggle/ipam.h)
 *   DIR/endpoints/<ep_id>.json      one file per pod interface, for DEL and for the agent's inotify
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WAG_PIN_DIR "/sys/fs/bpf/waggle"
#define WAG_STATE_DIR "/var/lib/waggle"

/* Absolute, and no part of it is "." or "..": where it leads is what it says. */
bool pins_dir_is_plain(const char *path);

/* Each fills buf and returns 0, or -ENAMETOOLONG. */
int pins_map_path(char *buf, size_t size, const char *pin_dir, const char *map);
int pins_prog_path(char *buf, size_t size, const char *pin_dir, const char *prog);
int pins_tcx_path(char *buf, size_t size, const char *pin_dir, const char *ifname, uint32_t ifindex,
		  int egress);
/* An fd, or -errno; -ENOENT: not pinned; -EPROTO: sizes differ, another version made it. */
int pins_map_open(const char *pin_dir, const char *map, uint32_t key_size, uint32_t value_size);
/* Opens the pin dir and flocks it; returns its fd, -EWOULDBLOCK after timeout_ms. Closing unlocks.
 */
int pins_lock(const char *pin_dir, int timeout_ms);
/* mkdir -p for a directory below; 0 or -errno. */
int pins_mkdir_p(const char *path, unsigned mode);
