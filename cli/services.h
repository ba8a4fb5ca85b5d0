/* SPDX-License-Identifier: Apache-2.0 */
/* The service tables joined: frontends with their backends and names. */
#pragma once

#include "cli.h"

/*
 * An array of {id, namespace, name, portName, type, kinds, frontend, protocol, affinitySeconds,
 * backends: [{slot, address}]}, sorted by id and frontend. 0, or -errno with err filled.
 */
int services_read(const struct cli *cli, json_t **ret, struct wag_err *err);
