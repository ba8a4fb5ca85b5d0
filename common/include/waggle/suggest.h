/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>

/* The candidate that a mistyped word most likely meant, or NULL if none is close. */
const char *suggest(const char *word, const char *const *candidates, size_t n);
