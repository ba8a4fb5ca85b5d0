// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "sync_world.h"

static struct wag_addr address(uint32_t v4)
{
	return (struct wag_addr){ .w = { 0, 0, htonl(WAG_V4MAPPED_W2), htonl(v4) } };
}

struct wag_svc_key world_key(unsigned vip)
{
	return (struct wag_svc_key){
		.addr = address(0x0a600000 + vip), .port = htons(80), .proto = IPPROTO_TCP
	};
}

static void add_backends(const struct world_port *from, struct svc_table_port *p)
{
	for (unsigned j = 0; j < p->n_backends; j++) {
		unsigned n = from->backends[j];

		p->backends[j].addr = address(0x0a010000 + n);
		p->backends[j].port = htons(8080);
		p->backends[j].flags = from->local ? n & 3 : WAG_BACKEND_CLUSTER;
	}
	qsort(p->backends, p->n_backends, sizeof(*p->backends), svc_backend_compare);
	if (from->local)
		p->slots_flags = WAG_SLOTS_ANY | (p->n_backends ? WAG_SLOTS_HEAD : 0);
	if (from->maglev && p->n_backends)
		p->slots_flags |= WAG_SLOTS_HEAD | WAG_SLOTS_MAGLEV;
}

static void add_ranges(struct svc_table_port *p)
{
	for (unsigned j = 0; j < p->n_ranges; j++) {
		struct wag_addr net = address(0x0a000000 + ((j + 1) << 16));

		p->ranges[j] = (struct wag_src_range_key){ .bits = 32 + 96 + 16 };
		memcpy(p->ranges[j].addr, net.w, sizeof(net.w));
	}
}

struct svc_table *world_table(const struct world_port *ports, size_t n)
{
	struct svc_table *t;
	char *at;

	if (n == 0)
		return NULL;
	t = calloc(1, sizeof(*t) + n * (sizeof(t->ports[0]) + 4 * sizeof(struct svc_frontend) +
					10 * sizeof(struct svc_backend) +
					4 * sizeof(struct wag_src_range_key)));
	assert_non_null(t);
	t->type = "ClusterIP";
	t->n_ports = n;
	at = (char *)&t->ports[n];
	for (size_t i = 0; i < n; i++) {
		struct svc_table_port *p = &t->ports[i];

		p->name = ports[i].name;
		p->proto = IPPROTO_TCP;
		p->family = 4;
		p->node_port = ports[i].node_port;
		p->affinity_s = ports[i].affinity_s;
		p->n_frontends = ports[i].n_vips;
		p->frontends = (struct svc_frontend *)at;
		at += p->n_frontends * sizeof(*p->frontends);
		p->n_backends = ports[i].n_backends;
		p->backends = (struct svc_backend *)at;
		at += p->n_backends * sizeof(*p->backends);
		p->n_ranges = ports[i].n_ranges;
		p->ranges = (struct wag_src_range_key *)at;
		at += p->n_ranges * sizeof(*p->ranges);
		for (unsigned j = 0; j < p->n_frontends; j++) {
			p->frontends[j].key = world_key(ports[i].vips[j]);
			p->frontends[j].flags = WAG_SVC_CLUSTER_IP;
		}
		add_backends(&ports[i], p);
		add_ranges(p);
	}
	return t;
}

unsigned world_random(struct world *w, unsigned n)
{
	w->seed = w->seed * 1664525 + 1013904223;
	return (w->seed >> 8) % n;
}

static void random_port(struct world *w, unsigned svc, unsigned port)
{
	static const char *const names[] = { "", "second" };
	struct world_port *p = &w->services[svc].ports[port];

	memset(p, 0, sizeof(*p));
	p->name = names[port];
	p->vips[p->n_vips++] = 1 + svc * 4 + port * 2;
	if (world_random(w, 2))
		p->vips[p->n_vips++] = 2 + svc * 4 + port * 2;
	if (world_random(w, 3) == 0)
		p->vips[p->n_vips++] = WORLD_SHARED + port * 2 + world_random(w, 2);
	p->node_port = world_random(w, 3);
	p->local = world_random(w, 2);
	p->maglev = world_random(w, 3) == 0;
	p->n_ranges = world_random(w, 3);
	for (unsigned i = 0; i < 10; i++)
		if (world_random(w, 3) == 0)
			p->backends[p->n_backends++] = i + 1;
}

void world_change(struct world *w, unsigned n)
{
	while (n--) {
		unsigned i = world_random(w, WORLD_SERVICES), what = world_random(w, 5);
		struct world_service *s = &w->services[i];

		s->dirty = true;
		if (what == 0) {
			s->n_ports = 0;
			continue;
		}
		if (what == 1 || s->n_ports == 0)
			s->n_ports = 1 + world_random(w, 2);
		for (unsigned j = 0; j < s->n_ports; j++)
			random_port(w, i, j);
	}
}

void world_apply(struct world *w, struct sync *s)
{
	for (unsigned i = 0; i < WORLD_SERVICES; i++) {
		char name[8];

		if (!w->services[i].dirty)
			continue;
		w->services[i].dirty = false;
		snprintf(name, sizeof(name), "svc%u", i);
		assert_true(sync_set_service(s, "ns", name,
					     world_table(w->services[i].ports,
							 w->services[i].n_ports)) >= 0);
	}
}

void world_forget(struct world *w)
{
	for (unsigned i = 0; i < WORLD_SERVICES; i++)
		w->services[i].dirty = true;
}

/* ---- the judge ---- */

struct look {
	struct world *w;
	struct dataplane *dp;
	bool hold;
};

static const struct wag_svc_name *name_of(struct dataplane *dp, uint32_t index)
{
	return dataplane_fake_get(dp, DP_SVC_NAME, &index);
}

static void check_slots(struct dataplane *dp, uint64_t slots, uint32_t svc_id)
{
	size_t n;
	const struct wag_slot *slot = dataplane_slots(dp, &n) + WAG_SLOTS_BASE(slots);

	assert_true(WAG_SLOTS_BASE(slots) + WAG_SLOTS_COUNT(slots) <= n);
	for (unsigned i = 0; i < WAG_SLOTS_COUNT(slots); i++)
		assert_int_equal(slot[i].svc_id, svc_id);
}

static void check_backends(struct dataplane *dp, uint64_t slots, uint32_t svc_id)
{
	size_t n;
	const struct wag_slot *slot = dataplane_slots(dp, &n) + WAG_SLOTS_BASE(slots);
	const struct wag_slot_head *head = (const struct wag_slot_head *)slot;
	unsigned first = WAG_SLOTS_FLAGS(slots) & WAG_SLOTS_HEAD ? 1 : 0;
	unsigned end = WAG_SLOTS_FLAGS(slots) & WAG_SLOTS_MAGLEV ? head->local_table :
								   WAG_SLOTS_COUNT(slots);

	for (unsigned i = first; i < end; i++) {
		struct wag_backend_key key = {
			.addr = slot[i].addr, .svc_id = svc_id, .port = slot[i].port,
			.proto = IPPROTO_TCP
		};

		assert_non_null(dataplane_fake_get(dp, DP_BACKEND, &key));
		if (!first)
			continue;
		assert_int_equal(!!(slot[i].flags & WAG_BACKEND_LOCAL), i - 1 < head->local_count);
		assert_int_equal(!!(slot[i].flags & WAG_BACKEND_CLUSTER),
				 i >= head->cluster_first &&
					 i - head->cluster_first < head->cluster_count);
	}
}

/* A frontend leads to a published state of a Service that may have it, and its own slots. */
static int look_at_frontend(const void *k, const void *value, void *ctx)
{
	const struct wag_svc_key *key = k;
	const struct wag_svc *svc = value;
	struct look *look = ctx;
	unsigned vip = ntohl(key->addr.w[3]) & 0xffff, owner;
	const struct wag_svc_name *name = name_of(look->dp, svc->index);
	const struct wag_svc_state *st;
	size_t n;

	st = &dataplane_svc_state(look->dp, &n)[svc->index];
	assert_true(svc->index && svc->index < n && st->svc_id);
	assert_non_null(name);
	assert_int_equal(name->svc_id, st->svc_id);
	if (vip < WORLD_SHARED) {
		assert_int_equal(sscanf(name->name, "svc%u", &owner), 1);
		assert_int_equal((vip - 1) / 4, owner);
		assert_int_equal((vip - 1) % 4 / 2, name->port_name[0] != '\0');
	}
	check_slots(look->dp, st->slots, st->svc_id);
	check_backends(look->dp, st->slots, st->svc_id);
	if (look->hold && look->w->n_held < 64)
		look->w->held[look->w->n_held++] = (struct world_held){ st->slots, st->svc_id };
	return 0;
}

static void look_at_everything(struct dataplane *dp, void *ctx)
{
	struct look look = { .w = ctx, .dp = dp };
	struct world *w = ctx;

	if (w->held_graces != dataplane_fake_graces(dp))
		w->n_held = 0;
	w->held_graces = dataplane_fake_graces(dp);
	for (size_t i = 0; i < w->n_held; i++)
		check_slots(dp, w->held[i].slots, w->held[i].svc_id);
	look.hold = w->n_held == 0;
	assert_int_equal(dataplane_visit(dp, DP_SVC, look_at_frontend, &look), 0);
}

void world_watch(struct world *w, struct dataplane *dp)
{
	dataplane_fake_hook(dp, look_at_everything, w);
}

struct search {
	const char *name, *port_name;
	const struct wag_svc_name *found;
	uint32_t index;
};

static int search_name(const void *key, const void *value, void *ctx)
{
	const struct wag_svc_name *name = value;
	struct search *s = ctx;

	if (strcmp(name->name, s->name) != 0 || strcmp(name->port_name, s->port_name) != 0)
		return 0;
	assert_null(s->found);
	s->found = name;
	memcpy(&s->index, key, sizeof(s->index));
	return 0;
}

static bool wants(const struct world_port *p, unsigned vip)
{
	for (unsigned i = 0; i < p->n_vips; i++)
		if (p->vips[i] == vip)
			return true;
	return false;
}

static void check_frontends(struct dataplane *dp, const struct world_port *p, uint32_t index)
{
	for (unsigned i = 0; i < p->n_vips; i++) {
		struct wag_svc_key key = world_key(p->vips[i]);
		const struct wag_svc *svc = dataplane_fake_get(dp, DP_SVC, &key);

		assert_non_null(svc);
		if (p->vips[i] < WORLD_SHARED)
			assert_int_equal(svc->index, index);
	}
}

static void check_ranges(struct dataplane *dp, const struct svc_table_port *want, uint32_t svc_id)
{
	for (uint32_t i = 0; i < want->n_ranges; i++) {
		struct wag_src_range_key key = want->ranges[i];

		key.svc_id = svc_id;
		assert_non_null(dataplane_fake_get(dp, DP_SRC_RANGE, &key));
	}
}

/* Every entry of the tables leads to an endpoint of its set. */
static void check_table(const struct wag_slot *range, const struct svc_table_port *want)
{
	const struct wag_slot_head *head = (const struct wag_slot_head *)range;

	for (int set = 0; want->slots_flags & WAG_SLOTS_MAGLEV && set < 2; set++) {
		uint32_t n = set ? head->local_entries : head->cluster_entries;
		const struct wag_slot_entries *table = (const struct wag_slot_entries *)range +
						       (set ? head->local_table :
							      head->cluster_table);

		for (uint32_t i = 0; i < n; i++) {
			uint32_t at = table[i / WAG_SLOT_ENTRIES].at[i % WAG_SLOT_ENTRIES];

			assert_in_range(at, 1, want->n_backends);
			assert_true(range[at].flags &
				    (set ? WAG_BACKEND_LOCAL : WAG_BACKEND_CLUSTER));
		}
	}
}

static void check_port(struct dataplane *dp, const char *svc, const struct world_port *p)
{
	struct search s = { .name = svc, .port_name = p->name };
	struct svc_table *table = world_table(p, 1);
	const struct svc_table_port *want = &table->ports[0];
	const struct wag_svc_state *st;
	const struct wag_slot *slots;
	size_t n;

	dataplane_visit(dp, DP_SVC_NAME, search_name, &s);
	assert_non_null(s.found);
	assert_int_equal(s.found->node_port, p->node_port);
	st = &dataplane_svc_state(dp, &n)[s.index];
	slots = dataplane_slots(dp, &n) + WAG_SLOTS_BASE(st->slots);
	assert_int_equal(st->svc_id, s.found->svc_id);
	assert_int_equal(WAG_SLOTS_FLAGS(st->slots), want->slots_flags);
	slots += want->slots_flags & WAG_SLOTS_HEAD ? 1 : 0;
	assert_int_equal(WAG_SLOTS_COUNT(st->slots), svc_slots(want));
	check_table(slots - 1, want);
	for (unsigned i = 0; i < p->n_backends; i++) {
		const struct wag_backend *backend;
		struct wag_backend_key key = {
			.addr = slots[i].addr, .svc_id = st->svc_id, .port = htons(8080),
			.proto = IPPROTO_TCP
		};

		assert_memory_equal(&slots[i].addr, &want->backends[i].addr, 16);
		assert_int_equal(slots[i].flags, want->backends[i].flags);
		backend = dataplane_fake_get(dp, DP_BACKEND, &key);
		assert_int_equal(backend->flags, want->backends[i].flags);
	}
	check_slots(dp, st->slots, st->svc_id);
	check_backends(dp, st->slots, st->svc_id);
	check_frontends(dp, p, s.index);
	check_ranges(dp, want, st->svc_id);
	free(table);
}

void world_check(const struct world *w, struct dataplane *dp)
{
	size_t ports = 0, backends = 0, frontends = 0, ranges = 0, states = 0, n;
	const struct wag_svc_state *st = dataplane_svc_state(dp, &n);

	for (size_t i = 1; i < n; i++)
		states += st[i].svc_id != 0 || st[i].slots != 0;
	for (unsigned vip = 1; vip < WORLD_SHARED + 4; vip++) {
		bool wanted = false;

		for (unsigned i = 0; i < WORLD_SERVICES; i++)
			for (unsigned j = 0; j < w->services[i].n_ports; j++)
				wanted |= wants(&w->services[i].ports[j], vip);
		frontends += wanted;
	}
	for (unsigned i = 0; i < WORLD_SERVICES; i++) {
		for (unsigned j = 0; j < w->services[i].n_ports; j++) {
			char name[8];

			snprintf(name, sizeof(name), "svc%u", i);
			check_port(dp, name, &w->services[i].ports[j]);
			ports++;
			backends += w->services[i].ports[j].n_backends;
			ranges += w->services[i].ports[j].n_ranges;
		}
	}
	assert_int_equal(dataplane_fake_count(dp, DP_SVC_NAME), ports);
	assert_int_equal(dataplane_fake_count(dp, DP_BACKEND), backends);
	assert_int_equal(dataplane_fake_count(dp, DP_SVC), frontends);
	assert_int_equal(dataplane_fake_count(dp, DP_SRC_RANGE), ranges);
	assert_int_equal(states, ports);
}

/* ---- nonsense ---- */

static void scribble_name(struct world *w, struct dataplane *dp, uint32_t index, uint32_t svc_id)
{
	struct wag_svc_name name = { .svc_id = svc_id, .proto = IPPROTO_TCP, .family = 4 };

	snprintf(name.ns, sizeof(name.ns), "ns");
	snprintf(name.name, sizeof(name.name), "svc%u", world_random(w, WORLD_SERVICES));
	snprintf(name.port_name, sizeof(name.port_name), "%s", world_random(w, 2) ? "" : "second");
	if (world_random(w, 5) == 0)
		memset(&name, 0xff, sizeof(name));
	assert_int_equal(dataplane_update(dp, DP_SVC_NAME, &index, &name, 1, NULL), 0);
}

void world_scribble(struct world *w, struct dataplane *dp)
{
	size_t n_states, n_slots;
	struct wag_svc_state *st = dataplane_svc_state(dp, &n_states);
	struct wag_slot *slots = dataplane_slots(dp, &n_slots);

	for (unsigned i = 0; i < 20; i++) {
		struct wag_svc_key key = world_key(1 + world_random(w, WORLD_SHARED + 3));
		struct wag_svc svc = { .index = world_random(w, n_states + 4) };
		struct wag_backend_key bk = {
			.addr = address(0x0a010000 + world_random(w, 12)),
			.svc_id = world_random(w, 12), .port = htons(8080), .proto = IPPROTO_TCP
		};
		struct wag_src_range_key range = { .bits = 64, .svc_id = world_random(w, 12) };
		struct wag_src_range any = { 0 };
		struct wag_backend b = { .flags = world_random(w, 5) };
		uint32_t index = world_random(w, n_states);

		assert_int_equal(dataplane_update(dp, DP_SVC, &key, &svc, 1, NULL), 0);
		assert_int_equal(dataplane_update(dp, DP_BACKEND, &bk, &b, 1, NULL), 0);
		assert_int_equal(dataplane_update(dp, DP_SRC_RANGE, &range, &any, 1, NULL), 0);
		if (index == 0)
			continue;
		if (world_random(w, 2))
			scribble_name(w, dp, index, world_random(w, 12));
		st[index].svc_id = world_random(w, 12);
		st[index].slots = WAG_SLOTS(world_random(w, n_slots + 9), world_random(w, 9),
					    world_random(w, 4));
	}
	for (size_t i = 0; i < n_slots; i++)
		slots[i] = (struct wag_slot){
			.addr = address(0x0a010000 + world_random(w, 12)),
			.port = htons(8080), .svc_id = world_random(w, 12),
			.flags = world_random(w, 5)
		};
}
