/* SPDX-License-Identifier: Apache-2.0 */
/* The network configuration on stdin. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <waggle/err.h>
#include <waggle/ipam.h>

/*
 * Error codes of the CNI specification. In cni/, a function with a struct wag_err returns 0 or one
 * of these; err then holds the same code and the text for the user.
 */
enum cni_code {
	CNI_E_VERSION = 1,
	CNI_E_FIELD = 2,
	CNI_E_CONTAINER = 3,
	CNI_E_ENV = 4,
	CNI_E_IO = 5,
	CNI_E_DECODE = 6,
	CNI_E_CONFIG = 7,
	CNI_E_AGAIN = 11,
	CNI_E_EXISTS = 100, /* ours: the container already has this interface */
	CNI_E_KERNEL = 101, /* ours: the kernel refused */
	CNI_E_CHECK = 102,  /* ours: CHECK found a difference */
};

#define CONF_STDIN_MAX (1024 * 1024)
#define CONF_SETS 8
#define CONF_RANGES 16
#define CNI_VERSIONS "0.3.1", "0.4.0", "1.0.0", "1.1.0"
#define CNI_VERSION_NEWEST "1.1.0"

struct cni_conf {
	char version[8];
	char name[128];
	char pin_dir[256];
	char state_dir[256];
	uint32_t mtu;
	unsigned set_count;
	struct conf_set {
		unsigned range_count;
		struct ipam_range ranges[CONF_RANGES];
	} sets[CONF_SETS]; /* one address from each */
	char *dns;	   /* JSON text passed on to the result, or NULL */
};

enum conf_use {
	CONF_VERSION, /* cniVersion is enough */
	CONF_DEL,     /* a broken ipam section must not keep a container from going away */
	CONF_ADD,
};

/* ret is filled as far as reading came, also on error, so that the error can name its version. */
int conf_parse(const char *text, size_t size, enum conf_use use, struct cni_conf *ret,
	       struct wag_err *err);
void conf_done(struct cni_conf *conf);
