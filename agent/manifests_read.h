/* SPDX-License-Identifier: Apache-2.0 */
/* One manifest's text -> objects, before any of it touches the model. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <waggle/err.h>

#include "model.h"

struct kube_yaml;

/* Starts with complain and ctx set, the rest zero. */
struct batch {
	/* an object or a document is unusable; line 0: not known */
	void (*complain)(void *ctx, unsigned line, const char *text);
	void *ctx;
	struct kube_yaml *yaml; /* NULL while a plain JSON text is walked */
	struct object **objects;
	size_t n_objects;
	size_t n_bad; /* objects and documents that could not be used */
	bool quiet;   /* complain is not called: the same text will be read again */
};

/* 0, or -errno with err saying "line N: ..."; what was read of it is in the batch either way. */
int batch_parse(struct batch *b, const char *text, size_t size, bool json, struct wag_err *err);
/* The same, where err may begin with the line. */
void batch_complain(struct batch *b, const struct wag_err *err);
void batch_done(struct batch *b); /* ready for another text */
/* A regular file of a bearable size. The caller frees *ret; ret_st is from before the reading. */
int manifests_read_text(const char *path, struct stat *ret_st, char **ret, size_t *ret_size);
