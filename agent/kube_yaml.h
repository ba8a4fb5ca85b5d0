/* SPDX-License-Identifier: Apache-2.0 */
/* YAML (and with it JSON) text -> jansson trees, one document at a time, with the line of every
 * value. */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <waggle/err.h>

struct kube_yaml;

/* text must outlive *ret; the caller owns *ret. */
int kube_yaml_new(struct kube_yaml **ret, const char *text, size_t size);
/*
 * Reads the next document. Anchors, aliases and merge keys are resolved; untagged plain scalars are
 * typed as YAML 1.2's core schema says, quoted ones are always strings. Returns 1 with *ret
 * borrowed until the next call (NULL: an empty document), 0 at the end, or -errno with err saying
 * "line N: ..."; after -EINVAL the next call goes on with the next document.
 */
int kube_yaml_next(struct kube_yaml *y, json_t **ret, struct wag_err *err);
/* The line of a value of the current document; 0: unknown. */
unsigned kube_yaml_line(const struct kube_yaml *y, const json_t *value);
void kube_yaml_free(struct kube_yaml *y);
void kube_yaml_freep(struct kube_yaml **y);
