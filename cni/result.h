/* SPDX-License-Identifier: Apache-2.0 */
/* What the plugin says on stdout, in the shape of the version asked for. */
#pragma once

#include <waggle/err.h>
#include <waggle/record.h>

#include "conf.h"

int result_print(const struct cni_conf *conf, const struct record *rec); /* 0 or -errno */
int result_print_versions(const char *version);
/* version: what the configuration asked for, or empty. */
int result_print_error(const char *version, const struct wag_err *err);
