/* SPDX-License-Identifier: Apache-2.0 */
/* The running agent: source -> model -> compile -> sync -> maps, one way, on one event loop. */
#pragma once

#include <waggle/err.h>
#include "config.h"

/*
 * Runs until SIGTERM or SIGINT, which leave everything pinned and serving. Returns 0, 1 if the
 * agent should start anew (the node's main address has changed), or -errno.
 */
int loop_run(const struct config *config, struct wag_err *err);
