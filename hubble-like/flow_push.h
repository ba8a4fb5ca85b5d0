/* SPDX-License-Identifier: Apache-2.0 */
/* The exporter's inner door: what the ring buffer's reader does, for tests without one. */
#pragma once

#include <waggle/abi_event.h>
#include "flow.h"

/* Thread safe. Events that make no sense are counted as seen and forgotten. */
void flow_server_push(struct flow_server *s, const struct wag_event *event);
void flow_server_push_lost(struct flow_server *s, uint64_t count);
