/* SPDX-License-Identifier: Apache-2.0 */
/* What the plugin says on stdout, in the shape of the version asked for. */
#pragma once

#include <waggle/err.h>
#include <waggle/record.h>

#include "conf.h"

/* Each 0 or -errno. dns: JSON text from a delegated plugin, or NULL; the configuration's wins. */
int result_print(const struct cni_conf *conf, const struct record *rec, const char *dns);
int result_print_text(const char *json);
int result_print_versions(const char *version);
/* version: what the configuration asked for, or empty. details may be NULL. */
int result_print_error(const char *version, const struct wag_err *err, const char *details);
