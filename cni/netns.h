/* SPDX-License-Identifier: Apache-2.0 */
/* The pod's network namespace. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/err.h>

struct netns {
	int host_fd; /* the plugin's own: the node's */
	int pod_fd;
};

/* Opens both; refuses a path that is no network namespace or the node's own. */
int netns_open(const char *path, struct netns *ret, struct wag_err *err);
void netns_done(struct netns *ns);
int netns_enter(const struct netns *ns); /* the pod's; 0 or -errno */
int netns_leave(const struct netns *ns);

/*
 * The cookie of the pod's namespace: from the socket option, or before Linux 5.14 from the BPF
 * programs (wag_netns_learn). 0: nobody could tell.
 */
uint64_t netns_cookie_of(const char *pin_dir, const struct netns *ns);

/* Writes /proc/sys/net/... unless it holds the value already. 0 or -errno. */
int sysctl_set(const char *value, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Its value, without the newline. */
int sysctl_get(char *buf, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
bool sysctl_has_ipv6(void);
