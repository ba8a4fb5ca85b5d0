/* SPDX-License-Identifier: Apache-2.0 */
/* What manifests.c (the folder and its files) and manifests_claim.c (their objects) share. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uthash.h>
#include <waggle/log.h>

#include "manifests.h"

struct batch;
struct file;

/* One object's name, and the files that hold an object of it, by file name: the last one counts. */
struct claim {
	UT_hash_handle hh;
	union {
		struct file *file;   /* n_files is 1: the rule, and no memory of its own */
		struct file **files; /* 2 and more */
	};
	char *service; /* made of Endpoints: of this Service; else NULL */
	uint32_t n_files;
	uint32_t load; /* the load that met it last */
	bool hidden;   /* made of Endpoints, and its Service has real slices */
	uint8_t kind;
	char key[]; /* kind, ns, NUL, name */
};

struct stamp {
	uint64_t dev, ino;
	int64_t size;
	struct timespec modified;
};

struct file {
	char *name;
	struct stamp stamp; /* of the content in force, or of the one found broken */
	bool stale, seen;
	uint64_t hold_until_ms;
	char *error; /* first problem of the content; NULL: none */
	struct claim **claims;
	size_t n_claims;
	UT_hash_handle hh;
};

struct manifests {
	char *dir;
	struct model *model;
	struct source_reporter reporter;
	struct file *files;
	struct claim *claims;
	size_t n_legacy;
	uint32_t loads;
	struct manifests_stats stats;
	bool dir_failed;
};

/* manifests.c */
void manifests_report(const struct manifests *m, enum wag_log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void manifests_report_kept(const struct manifests *m, const struct file *f, size_t n);

/* manifests_claim.c */
/* f no longer holds the object: the next file's version counts, or the object goes. */
void manifests_claim_drop(struct manifests *m, struct claim *c, struct file *f);
void manifests_claim_free(struct manifests *m, struct claim *c);
/* The objects of the batch are what f holds. 0, or the first -errno. */
int manifests_apply(struct manifests *m, struct file *f, struct batch *b);
/* Endpoints stand in only for a Service that has no slice of its own. */
void manifests_settle_legacy(struct manifests *m);
