/* SPDX-License-Identifier: Apache-2.0 */
/* Label selectors of flow filters: "k", "!k", "k=v", "k==v", "k!=v", all of "a,b". */
#pragma once

#include <stdbool.h>
#include "flow.pb-c.h"

int filter_label_check(const char *selector); /* 0, or -EINVAL: not one of the above */
bool filter_label_match(const char *selector, const Flow__Endpoint *ep);
/* "world" for 2, ...; NULL if the identity is not a reserved one. */
const char *filter_reserved_name(uint32_t identity);
