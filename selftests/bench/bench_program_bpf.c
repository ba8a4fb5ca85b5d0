// SPDX-License-Identifier: Apache-2.0
/* Real maps on a bpffs of our own, in namespaces of our own: nothing stays behind. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include "agent/dataplane_bpf.h"
#include "bench_program.h"

static char dir[] = "/tmp/waggle-bench-XXXXXX";
static char bpffs[sizeof(dir) + 8], pins[sizeof(bpffs) + 8];

static void clean(void)
{
	umount2(bpffs, MNT_DETACH);
	umount2(dir, MNT_DETACH);
	rmdir(dir);
}

int bench_dataplane_open(struct dataplane **ret, const char *unused)
{
	struct dataplane_options o = {
		.pin_dir = pins,
		.state_dir = dir,
		.node_name = "bench",
		.socket_lb = WAG_SOCKET_LB_OFF,
		.ct_max = 1024,
		.svc_max = 65536,
		.slot_max = 262144,
		.mtu = 1500,
	};
	struct wag_err err = { 0 };
	int r;

	if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || !mkdtemp(dir)) {
		perror("bench_program_bpf: namespaces");
		return -errno;
	}
	atexit(clean);
	snprintf(bpffs, sizeof(bpffs), "%s/bpf", dir);
	snprintf(pins, sizeof(pins), "%s/pins", bpffs);
	if (mount("tmpfs", dir, "tmpfs", 0, NULL) < 0 || mkdir(bpffs, 0700) < 0 ||
	    mount("bpf", bpffs, "bpf", 0, NULL) < 0) {
		perror("bench_program_bpf: mounts");
		return -errno;
	}
	r = dataplane_open(ret, &o, &err);
	if (r < 0)
		fprintf(stderr, "bench_program_bpf: %s\n", err.msg);
	return r;
}
