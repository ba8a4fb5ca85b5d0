/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small random cluster for test_sync.c: what each Service should look like, and a judge that
 * looks at the maps after every single operation.
 */
#pragma once

#include "agent/compile_service.h"
#include "agent/dataplane_fake.h"
#include "agent/sync.h"

#define WORLD_SERVICES 10
#define WORLD_SHARED 200 /* frontends from here on are claimed by several Services */

struct world_port {
	const char *name;
	unsigned vips[4], n_vips; /* 10.96.0.<n>:80/TCP */
	unsigned backends[10], n_backends; /* 10.1.0.<n>:8080 */
	bool local; /* it has a local set: who is in which set is told by the number */
	bool maglev;
	unsigned n_ranges; /* 10.<n>.0.0/16 for n of 1.. */
	uint16_t node_port;
	uint32_t affinity_s;
};

struct world_held {
	uint64_t slots;
	uint32_t svc_id;
};

struct world {
	unsigned seed;
	struct world_service {
		bool dirty;
		unsigned n_ports; /* 0: there is no such Service */
		struct world_port ports[2];
	} services[WORLD_SERVICES];
	/* What a program that read the frontends a while ago still holds, until the next grace. */
	struct world_held held[64];
	size_t n_held;
	uint64_t held_graces;
};

struct wag_svc_key world_key(unsigned vip);
struct svc_table *world_table(const struct world_port *ports, size_t n); /* NULL if n is 0 */
unsigned world_random(struct world *w, unsigned n); /* 0 .. n - 1 */
void world_change(struct world *w, unsigned n);
void world_apply(struct world *w, struct sync *s); /* sets every Service that changed */
void world_forget(struct world *w); /* a new agent: everything is to be set again */
void world_watch(struct world *w, struct dataplane *dp);
void world_check(const struct world *w, struct dataplane *dp); /* nothing missing, nothing left */
void world_scribble(struct world *w, struct dataplane *dp);
