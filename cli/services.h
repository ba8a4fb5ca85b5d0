/* SPDX-License-Identifier: Apache-2.0 */
/* The service tables joined: frontends with their backends and names. */
#pragma once

#include "cli.h"

/*
 * An array of {id, namespace, name, portName, type, kinds, forwarding, algorithm, frontend,
 * protocol, trafficPolicy, affinitySeconds, endpoints, sourceRanges: [CIDR], backends: [{slot,
 * address, sets}]}, sorted by id and frontend. endpoints: there are some, if none here. 0, or
 * -errno with err filled.
 */
int services_read(const struct cli *cli, json_t **ret, struct wag_err *err);
/*
 * Of the frontends with Maglev: an array of {id, frontend, cluster, local}, the last two a set's
 * lookup table, the backend's address in each entry; empty where any backend of the set will do.
 */
int services_read_maglev(const struct cli *cli, json_t **ret, struct wag_err *err);
/* "Local, affinity 10800 s, source ranges": what is not as usual about a frontend; "" : nothing. */
void service_rules(const json_t *service, char *buf, size_t size);
/* A word behind a backend's address: who may not get it. "": all that ask this frontend may. */
const char *service_backend_note(const json_t *service, const json_t *backend);
/* Why a frontend without backends for its clients does not answer; NULL: it has some. */
const char *service_silence(const json_t *service);
