/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder of manifests as the model sees it: which file holds which objects, and whose version of
 * an object counts. Knows nothing of inotify or the event loop: manifests_watch.c drives it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "source.h"

struct manifests;

/* 0 or -errno; the caller owns *ret; model must outlive it. Reads nothing yet. */
int manifests_new(struct manifests **ret, const char *dir, struct model *model,
		  const struct source_reporter *reporter);
/* Whether a name in the folder is a manifest: *.yaml *.yml *.json, no dot file, no editor's copy.
 */
bool manifests_wants(const char *name);
/*
 * Brings the model to what the folder holds now; only files that changed are read. now_ms is
 * CLOCK_MONOTONIC. Returns the number of files read or removed, or -errno if the folder itself
 * cannot be read (then nothing changes).
 */
int manifests_scan(struct manifests *m, uint64_t now_ms);
/* The next scan reads the file even if its stat looks the same. */
void manifests_touch(struct manifests *m, const char *name);
/* Somebody has the file open and writes it: not read before until_ms; 0 lifts the hold. */
void manifests_hold(struct manifests *m, const char *name, uint64_t until_ms);
/* When the earliest hold ends; 0: none. */
uint64_t manifests_next_hold(const struct manifests *m);

struct manifests_stats {
	uint64_t scans, files_read, bytes, bad_objects;
	char error[256]; /* of the first broken file by name; "" when all are fine */
};
void manifests_stats(const struct manifests *m, struct manifests_stats *ret);
void manifests_free(struct manifests *m);
void manifests_freep(struct manifests **m);
