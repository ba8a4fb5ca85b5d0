// SPDX-License-Identifier: Apache-2.0
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/membarrier.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <waggle/cleanup.h>
#include <waggle/netlink.h>
#include "bpf_features.h"

/* Newer than the libbpf and the headers of our oldest build machine. */
#define TCX_INGRESS 46
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif
#define FUNC_FOR_EACH_MAP_ELEM 164
#define FUNC_TIMER_INIT 169
#define FUNC_SET_RETVAL 187

static json_t *helper(enum bpf_prog_type type, int id)
{
	return json_boolean(libbpf_probe_bpf_helper(type, (enum bpf_func_id)id, NULL) == 1);
}

/* A kernel with TCX looks for the interface (there is none of this index); one without refuses. */
static json_t *probe_tcx(void)
{
	struct bpf_insn insns[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = (enum bpf_attach_type)
		    TCX_INGRESS);
	_cleanup_close_ int prog = -1, link = -1;

	prog = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "wag_probe", "GPL", insns, 2, &opts);
	if (prog < 0)
		return json_false();
	link = bpf_link_create(prog, INT32_MAX, (enum bpf_attach_type)TCX_INGRESS, NULL);
	return json_boolean(link >= 0 || errno == ENODEV);
}

static json_t *probe_netns_cookie(void)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	unsigned long long cookie;
	socklen_t len = sizeof(cookie);

	return json_boolean(fd >= 0 &&
			    getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) == 0);
}

static json_t *probe_membarrier(void)
{
	long commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);

	return json_boolean(commands > 0 && commands & MEMBARRIER_CMD_GLOBAL);
}

/* There is no such socket: a kernel that could close it says so, one that cannot does before. */
static json_t *probe_sock_destroy(void)
{
	_cleanup_(nl_freep) struct nl *nl = NULL;
	const struct nl_socket none = { .family = AF_INET };

	return json_boolean(nl_new_diag(&nl) == 0 && nl_socket_destroy(nl, &none) == -ENOENT);
}

json_t *kernel_features(void)
{
	struct utsname name;

	if (uname(&name) < 0)
		return NULL;
	return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "release", name.release,
			 "tcx", probe_tcx(),
			 "setRetval", helper(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, FUNC_SET_RETVAL),
			 "bpfTimers", helper(BPF_PROG_TYPE_SCHED_CLS, FUNC_TIMER_INIT),
			 "forEachMapElem", helper(BPF_PROG_TYPE_SCHED_CLS, FUNC_FOR_EACH_MAP_ELEM),
			 "netnsCookie", probe_netns_cookie(), "membarrier", probe_membarrier(),
			 "sockDestroy", probe_sock_destroy());
}
