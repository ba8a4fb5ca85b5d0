// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <waggle/abi_maps.h>
#include <waggle/bpfsys.h>
#include <waggle/cleanup.h>
#include <waggle/ipam.h>
#include <waggle/pins.h>
#include <waggle/policy_ns.h>

#include "conf.h"
#include "policy.h"

static int map_fail(const char *pin_dir, const char *name, int r, struct wag_err *err)
{
	return wag_err_set(err, r == -ENOENT || r == -EPROTO ? CNI_E_AGAIN : CNI_E_KERNEL,
			   "map %s in pin dir %s: %s", name, pin_dir,
			   r == -ENOENT   ? "missing: start the waggle-agent of this version"
			   : r == -EPROTO ? "has another layout: install the waggle-cni of the "
					    "running waggle-agent's version"
					  : strerror(-r));
}

int policy_flags(const char *pin_dir, const char *ns, uint32_t *ret, struct wag_err *err)
{
	int r = policy_ns_flags(pin_dir, ns, ret);

	return r < 0 ? map_fail(pin_dir, "wag_policy_ns", r, err) : 0;
}

bool agent_alive(const char *state_dir)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	_cleanup_close_ int fd = -1;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/agent.lock", state_dir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	return fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static bool is_pending(int pods_fd, const struct record *rec)
{
	struct wag_pod pod;

	for (unsigned i = 0; i < rec->addr_count; i++)
		if (bpfsys_map_lookup(pods_fd, &rec->addrs[i].addr, &pod) == 0 &&
		    pod.ep_id == rec->ep_id && pod.flags & WAG_POD_PENDING)
			return true;
	return false;
}

int policy_wait(const char *pin_dir, const char *state_dir, const struct record *rec,
		struct wag_err *err)
{
	struct timespec pause = { .tv_nsec = 1000000 };
	int64_t end = ipam_now_ms() + POLICY_WAIT_MS;
	_cleanup_close_ int pods = -1;

	pods = pins_map_open(pin_dir, "wag_pods", sizeof(struct wag_addr), sizeof(struct wag_pod));
	if (pods < 0)
		return map_fail(pin_dir, "wag_pods", pods, err);
	while (is_pending(pods, rec)) {
		if (!agent_alive(state_dir))
			return 0;
		if (ipam_now_ms() >= end)
			return wag_err_set(err, CNI_E_AGAIN,
					   "waggle-agent did not put the pod's policy in force "
					   "within %d s: try again, and see its log",
					   POLICY_WAIT_MS / 1000);
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < 16000000)
			pause.tv_nsec *= 2;
	}
	return 0;
}
