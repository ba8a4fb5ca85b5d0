/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the ipam plugin of the configuration, as the specification says of delegated plugins. */
#pragma once

#include <stddef.h>
#include <waggle/err.h>

#include "env.h"

struct delegate {
	const char *type;	    /* its file in a folder of CNI_PATH */
	const char *command;	    /* CNI_COMMAND */
	const char *conf;	    /* what we got on stdin */
	size_t conf_size;
	const char *container_id;   /* these three may be empty: GC, STATUS */
	const char *ifname, *netns;
	int lock_fd; /* stays locked while it runs, also when we are killed; -1: none */
};

/*
 * 0, and what it wrote to stdout (caller frees; may be empty); or its own error code, or
 * CNI_E_CONFIG when there is no such plugin.
 */
int delegate_run(const struct delegate *d, char **ret_answer, size_t *ret_size,
		 struct wag_err *err);
/* Is the plugin there? Errors as above. */
int delegate_look(const char *type, struct wag_err *err);
