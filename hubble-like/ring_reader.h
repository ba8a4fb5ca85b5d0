/* SPDX-License-Identifier: Apache-2.0 */
/* The maps behind the flows: the ring buffer, the switch for more events, the count of lost ones.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <waggle/abi_event.h>
#include <waggle/err.h>

struct ring_reader;

typedef void (*ring_reader_fn)(void *ctx, const struct wag_event *event);

/* The fds are borrowed; runtime_fd and stats_fd may be -1. 0 or -errno. */
int ring_reader_new(struct ring_reader **ret, int events_fd, int runtime_fd, int stats_fd,
		    ring_reader_fn fn, void *ctx, struct wag_err *err);
void ring_reader_free(struct ring_reader *r); /* NULL is fine */
void ring_reader_freep(struct ring_reader **r);

#define RING_READER_BATCH 4096

/*
 * Calls fn for what is in the buffer, without waiting; at most RING_READER_BATCH, or a busy node
 * would never let go of its reader. 1: there may be more; 0; -errno.
 */
int ring_reader_consume(struct ring_reader *r);
/* Sets wag_runtime.trace. 0 or -errno. */
int ring_reader_set_trace(struct ring_reader *r, bool on);
/* Events the programs could not write since the last call. */
uint64_t ring_reader_lost(struct ring_reader *r);
