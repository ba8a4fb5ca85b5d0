/* SPDX-License-Identifier: Apache-2.0 */
/* Hubble's FlowFilter lists, checked and parsed once, then asked for every flow. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <waggle/err.h>
#include "flow.pb-c.h"

struct filter_list;

/*
 * The messages are borrowed for the list's life. Returns 0, -ENOMEM, or -EINVAL with the name of
 * the member that is wrong or not supported.
 */
int filter_list_new(struct filter_list **ret, Flow__FlowFilter *const *filters, size_t n,
		    struct wag_err *err);
void filter_list_free(struct filter_list *list);
void filter_list_freep(struct filter_list **list);

bool filter_list_empty(const struct filter_list *list);
bool filter_list_match(const struct filter_list *list, const Flow__Flow *flow); /* any of them */
/* Passes an empty allow list and no deny list; either may be NULL. */
bool filter_pass(const struct filter_list *allow, const struct filter_list *deny,
		 const Flow__Flow *flow);
