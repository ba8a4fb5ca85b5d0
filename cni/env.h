/* SPDX-License-Identifier: Apache-2.0 */
/* The runtime's CNI_* variables, checked. */
#pragma once

#include <waggle/err.h>

enum cni_command { CNI_VERSION, CNI_ADD, CNI_DEL, CNI_CHECK, CNI_GC, CNI_STATUS };

struct cni_env {
	enum cni_command command;
	char container_id[128];
	char ifname[16];
	char netns[256]; /* may be empty for DEL */
	char ns[64], pod[256], uid[64];
};

int env_read(struct cni_env *ret, struct wag_err *err);
/* CNI_ARGS: "K=V;K=V". */
int env_parse_args(const char *args, struct cni_env *env, struct wag_err *err);
