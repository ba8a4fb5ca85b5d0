/* SPDX-License-Identifier: Apache-2.0 */
/* Label selectors as JSON -> struct selector. */
#pragma once

#include "kube_field.h"

/* tree is the selector itself; path ends with a dot. */
int kube_read_selector(const struct reader *rd, const json_t *tree, const char *path,
		       struct selector *s);
/* A member that is a selector. *ret_given (may be NULL): it is there. */
int kube_member_selector(const struct reader *rd, const json_t *tree, const char *path,
			 const char *key, struct selector *s, bool *ret_given);
