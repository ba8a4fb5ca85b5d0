/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <jansson.h>
#include "cli.h"

/* [{name, entries, maxEntries}] of the maps that can run full. */
json_t *map_fill(const struct cli *cli);
