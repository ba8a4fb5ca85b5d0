/* SPDX-License-Identifier: Apache-2.0 */
/* Other programs of the node, run without a shell. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <waggle/err.h>

/* In the PATH or where administrators' programs are? */
bool command_exists(const char *name);
/*
 * Runs argv (NULL ends it) with input as its standard input (NULL: none); its output in *ret_out
 * (NUL-terminated; caller frees; NULL: not wanted). 0; -ENOENT: there is no such program; -EIO: it
 * failed, and err says with which words.
 */
int command_run(const char *const argv[], const char *input, char **ret_out, struct wag_err *err);
