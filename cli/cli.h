/* SPDX-License-Identifier: Apache-2.0 */
/* What every verb of the waggle command gets, and the verbs themselves. */
#pragma once

#include <stdbool.h>
#include <waggle/err.h>
#include "output.h"

#define CLI_CGROUP2_PATH "/run/waggle/cgroup2"
#define CLI_CNI_SOURCE "/usr/libexec/waggle/waggle-cni"

struct cli {
	const char *pin_dir;
	const char *state_dir;
	const char *health_addr;
	enum output_format format;
	/* of "init"; NULL: not given */
	const char *path;      /* --path: where to mount */
	const char *host_proc; /* --host-proc: in the namespaces of process 1 there */
	const char *bin_dir, *source, *conf_dir;
	/* bpf lb list: which of the three tables that it joins; none: joined */
	bool frontends, backends, source_ranges;
	bool all;     /* --all: also elements that are all zero */
	bool expired; /* --expired: only flows that are past their time */
	bool verbose; /* -v: each single one, too */
	bool fix;     /* --fix: repair what can be repaired */
	bool force;   /* --force: although somebody seems to need it */
	bool clean_kube_proxy, dry_run, yes;
	const char *from, *to, *port, *protocol; /* of "policy trace"; NULL: not given */
};

/* A verb: argv holds its own arguments only. 0, or -errno with err filled (-EINVAL:
 * wrong usage); > 0 is an exit status whose reason was already printed. */
typedef int (*cmd_fn)(const struct cli *cli, int argc, char **argv, struct wag_err *err);

int cmd_status(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_doctor(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_service_list(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_endpoint_get(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_policy_get(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_policy_trace(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_endpoint_list(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_node_list(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_bpf_lb_list(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_bpf_lb_maglev_list(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_bpf_lb_maglev_get(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_bpf_ct_list(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_bpf_map_list(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_bpf_map_dump(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_bpf_prog_list(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_init_bpffs(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_init_cgroup2(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_init_cni(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_init_uninstall_cni(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_ipam_show(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_ipam_check(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_ipam_release(const struct cli *cli, int argc, char **argv, struct wag_err *err);
int cmd_metrics(const struct cli *cli, int argc, char **argv, struct wag_err *err);
