// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "bpf_btf.h"
#include "bpf_maps.h"
#include "services.h"

struct frontend {
	struct wag_svc_key key;
	struct wag_svc svc;
};

struct frontends {
	struct frontend *items;
	size_t n, size;
};

struct tables {
	struct pinned_map svc, state, slot, name, range;
	json_t *ranges; /* "svc_id" -> list of CIDRs */
};

static void frontends_done(struct frontends *list)
{
	free(list->items);
}

static void tables_done(struct tables *t)
{
	pinned_map_done(&t->svc);
	pinned_map_done(&t->state);
	pinned_map_done(&t->slot);
	pinned_map_done(&t->name);
	pinned_map_done(&t->range);
	json_decref(t->ranges);
}

static int tables_open(const struct cli *cli, struct tables *t, struct wag_err *err)
{
	int r;

	r = pinned_map_open_typed(cli, "wag_svc", sizeof(struct wag_svc_key),
				  sizeof(struct wag_svc), &t->svc, err);
	if (r == 0)
		r = pinned_map_open_typed(cli, "wag_svc_state", sizeof(__u32),
					  sizeof(struct wag_svc_state), &t->state, err);
	if (r == 0)
		r = pinned_map_open_typed(cli, "wag_slot", sizeof(__u32), sizeof(struct wag_slot),
					  &t->slot, err);
	if (r == 0)
		r = pinned_map_open_typed(cli, "wag_svc_name", sizeof(__u32),
					  sizeof(struct wag_svc_name), &t->name, err);
	if (r == 0)
		r = pinned_map_open_typed(cli, "wag_src_range", sizeof(struct wag_src_range_key),
					  sizeof(struct wag_src_range), &t->range, err);
	return r;
}

static int keep_frontend(const void *key, const void *value, void *ctx)
{
	struct frontends *list = ctx;

	if (list->n == list->size) {
		size_t size = list->size ? list->size * 2 : 64;
		struct frontend *items = realloc(list->items, size * sizeof(*items));

		if (!items)
			return -ENOMEM;
		list->items = items;
		list->size = size;
	}
	memcpy(&list->items[list->n].key, key, sizeof(struct wag_svc_key));
	memcpy(&list->items[list->n].svc, value, sizeof(struct wag_svc));
	list->n++;
	return 0;
}

static int compare_frontends(const void *a, const void *b)
{
	const struct frontend *x = a, *y = b;

	if (x->svc.index != y->svc.index)
		return x->svc.index < y->svc.index ? -1 : 1;
	return memcmp(&x->key, &y->key, sizeof(x->key));
}

static void address_text(const struct wag_addr *addr, __be16 port, __u8 proto, char *buf,
			 size_t size)
{
	char text[64];

	wag_addr_port_format(addr, port, text, sizeof(text));
	snprintf(buf, size, "%s/%s", text, wag_proto_name(proto));
}

static json_t *kinds_json(__u32 flags)
{
	static const struct {
		__u32 flag;
		const char *name;
	} kinds[] = {
		{ WAG_SVC_CLUSTER_IP, "ClusterIP" },
		{ WAG_SVC_NODE_PORT, "NodePort" },
		{ WAG_SVC_EXTERNAL_IP, "ExternalIP" },
		{ WAG_SVC_LOAD_BALANCER, "LoadBalancer" },
	};
	json_t *list = json_array();

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (flags & kinds[i].flag)
			json_array_append_new(list, json_string(kinds[i].name));
	return list;
}

static int keep_range(const void *key, const void *value, void *ctx)
{
	struct wag_src_range_key range;
	struct wag_cidr_key cidr;
	struct tables *t = ctx;
	char id[16], text[64];
	json_t *list;

	memcpy(&range, key, sizeof(range));
	cidr.bits = range.bits - 32;
	memcpy(cidr.addr, range.addr, sizeof(cidr.addr));
	cidr_key_text(&cidr, text, sizeof(text));
	snprintf(id, sizeof(id), "%u", range.svc_id);
	list = json_object_get(t->ranges, id);
	if (!list) {
		list = json_array();
		if (json_object_set_new(t->ranges, id, list) < 0)
			return -ENOMEM;
	}
	return json_array_append_new(list, json_string(text)) < 0 ? -ENOMEM : 0;
}

/* Of the frontends that ask for them; elsewhere the list is empty. */
static json_t *ranges_json(const struct tables *t, const struct wag_svc *svc,
			   const struct wag_svc_state *state)
{
	json_t *list = NULL;
	char id[16];

	snprintf(id, sizeof(id), "%u", state->svc_id);
	if (svc->flags & WAG_SVC_LOAD_BALANCER &&
	    WAG_SLOTS_FLAGS(state->slots) & WAG_SLOTS_SOURCE_RANGES)
		list = json_object_get(t->ranges, id);
	return list ? json_incref(list) : json_array();
}

/* Who may get a backend for a new flow; nobody: it only keeps the flows it has. */
static json_t *sets_json(__u16 flags, bool head)
{
	json_t *list = json_array();

	if (flags & WAG_BACKEND_CLUSTER || !head)
		json_array_append_new(list, json_string("cluster"));
	if (flags & WAG_BACKEND_LOCAL)
		json_array_append_new(list, json_string("local"));
	return list;
}

/* Behind the last endpoint, from the range's base: a lookup table may follow. */
static __u32 backends_end(const struct tables *t, const struct wag_svc_state *state)
{
	__u32 base = WAG_SLOTS_BASE(state->slots), count = WAG_SLOTS_COUNT(state->slots);
	struct wag_slot_head head;

	if (!(WAG_SLOTS_FLAGS(state->slots) & WAG_SLOTS_MAGLEV) ||
	    pinned_map_lookup(&t->slot, &base, &head) < 0 || head.svc_id != state->svc_id)
		return count;
	return head.local_table < count ? head.local_table : count;
}

static json_t *backends_json(const struct tables *t, const struct wag_svc_state *state, __u8 proto)
{
	bool head = WAG_SLOTS_FLAGS(state->slots) & WAG_SLOTS_HEAD;
	__u32 end = backends_end(t, state);
	json_t *list = json_array();

	for (__u32 i = head; i < end; i++) {
		__u32 index = WAG_SLOTS_BASE(state->slots) + i;
		struct wag_slot slot;
		char text[80];

		if (pinned_map_lookup(&t->slot, &index, &slot) < 0 ||
		    slot.svc_id != state->svc_id)
			continue;
		address_text(&slot.addr, slot.port, proto, text, sizeof(text));
		json_array_append_new(list, json_pack("{s:i, s:s, s:o}", "slot",
						      (int)(i + 1 - head), "address", text, "sets",
						      sets_json(slot.flags, head)));
	}
	return list;
}

static const char *policy_of(const struct wag_svc *svc, __u64 slots)
{
	__u16 local = svc->flags & WAG_SVC_EXTERNAL ? WAG_SLOTS_EXTERNAL_LOCAL :
						      WAG_SLOTS_INTERNAL_LOCAL;

	return WAG_SLOTS_FLAGS(slots) & local ? "Local" : "Cluster";
}

static const char *forwarding_of(const struct wag_svc *svc, __u64 slots)
{
	return svc->flags & WAG_SVC_EXTERNAL && WAG_SLOTS_FLAGS(slots) & WAG_SLOTS_DSR ? "dsr" :
											 "snat";
}

static const char *algorithm_of(__u64 slots)
{
	return WAG_SLOTS_FLAGS(slots) & WAG_SLOTS_MAGLEV ? "maglev" : "random";
}

static json_t *frontend_json(const struct tables *t, const struct frontend *f)
{
	struct wag_svc_state state = {};
	struct wag_svc_name name = {};
	char text[80];

	if (pinned_map_lookup(&t->state, &f->svc.index, &state) < 0)
		state.slots = 0;
	/* A name of the index's former owner is nobody's name. */
	if (pinned_map_lookup(&t->name, &f->svc.index, &name) < 0 || name.svc_id != state.svc_id)
		memset(&name, 0, sizeof(name));
	name.ns[sizeof(name.ns) - 1] = name.name[sizeof(name.name) - 1] = '\0';
	name.port_name[sizeof(name.port_name) - 1] = name.type[sizeof(name.type) - 1] = '\0';
	address_text(&f->key.addr, f->key.port, f->key.proto, text, sizeof(text));
	return json_pack("{s:i, s:s, s:s, s:s, s:s, s:o, s:s, s:s, s:s, s:s, s:s, s:i, s:b, s:o, "
			 "s:o}",
			 "id", (int)f->svc.index, "namespace", name.ns, "name", name.name,
			 "portName", name.port_name, "type", name.type,
			 "kinds", kinds_json(f->svc.flags),
			 "forwarding", forwarding_of(&f->svc, state.slots),
			 "algorithm", algorithm_of(state.slots),
			 "frontend", text,
			 "protocol", wag_proto_name(f->key.proto),
			 "trafficPolicy", policy_of(&f->svc, state.slots),
			 "affinitySeconds", (int)state.affinity_s,
			 "endpoints", (int)(WAG_SLOTS_FLAGS(state.slots) & WAG_SLOTS_ANY),
			 "sourceRanges", ranges_json(t, &f->svc, &state),
			 "backends", backends_json(t, &state, f->key.proto));
}

/* One set's lookup table: the address in each of its entries. */
static json_t *lookup_table(const struct tables *t, const struct wag_svc_state *state, __u8 proto,
			    __u32 table, __u32 entries)
{
	__u32 base = WAG_SLOTS_BASE(state->slots);
	json_t *list = json_array();

	for (__u32 i = 0; i < entries; i++) {
		__u32 index = base + table + i / WAG_SLOT_ENTRIES;
		struct wag_slot_entries part;
		struct wag_slot slot;
		char text[80];

		if (pinned_map_lookup(&t->slot, &index, &part) < 0 || part.svc_id != state->svc_id)
			break; /* it has just been replaced */
		index = base + part.at[i % WAG_SLOT_ENTRIES];
		if (pinned_map_lookup(&t->slot, &index, &slot) < 0 || slot.svc_id != state->svc_id)
			break;
		address_text(&slot.addr, slot.port, proto, text, sizeof(text));
		json_array_append_new(list, json_string(text));
	}
	return list;
}

static int add_lookup_tables(const struct tables *t, const struct frontend *f, json_t *doc)
{
	struct wag_svc_state state = {};
	struct wag_slot_head head;
	char text[80];
	__u32 base;

	if (pinned_map_lookup(&t->state, &f->svc.index, &state) < 0 ||
	    !(WAG_SLOTS_FLAGS(state.slots) & WAG_SLOTS_MAGLEV))
		return 0;
	base = WAG_SLOTS_BASE(state.slots);
	if (pinned_map_lookup(&t->slot, &base, &head) < 0 || head.svc_id != state.svc_id)
		return 0;
	address_text(&f->key.addr, f->key.port, f->key.proto, text, sizeof(text));
	return json_array_append_new(doc, json_pack("{s:i, s:s, s:o, s:o}",
		"id", (int)f->svc.index, "frontend", text,
		"cluster", lookup_table(t, &state, f->key.proto, head.cluster_table,
					head.cluster_entries),
		"local", lookup_table(t, &state, f->key.proto, head.local_table,
				      head.local_entries)));
}

static int add_frontend(const struct tables *t, const struct frontend *f, json_t *doc)
{
	return json_array_append_new(doc, frontend_json(t, f));
}

static int read_each(const struct cli *cli,
		     int (*add)(const struct tables *t, const struct frontend *f, json_t *doc),
		     json_t **ret, struct wag_err *err)
{
	_cleanup_(tables_done) struct tables t = {
		.svc = PINNED_MAP_NONE, .state = PINNED_MAP_NONE,
		.slot = PINNED_MAP_NONE, .name = PINNED_MAP_NONE,
		.range = PINNED_MAP_NONE, .ranges = json_object(),
	};
	_cleanup_(frontends_done) struct frontends list = {};
	_cleanup_json_ json_t *doc = json_array();
	int r;

	r = tables_open(cli, &t, err);
	if (r < 0)
		return r;
	r = pinned_map_each(&t.svc, keep_frontend, &list);
	if (r < 0)
		return wag_err_set(err, r, "wag_svc: %s", strerror(-r));
	r = pinned_map_each(&t.range, keep_range, &t);
	if (r < 0)
		return wag_err_set(err, r, "wag_src_range: %s", strerror(-r));
	if (list.n)
		qsort(list.items, list.n, sizeof(*list.items), compare_frontends);
	for (size_t i = 0; i < list.n; i++)
		if (add(&t, &list.items[i], doc) < 0)
			return wag_err_set(err, -ENOMEM, "out of memory");
	*ret = TAKE_PTR(doc);
	return 0;
}

int services_read(const struct cli *cli, json_t **ret, struct wag_err *err)
{
	return read_each(cli, add_frontend, ret, err);
}

int services_read_maglev(const struct cli *cli, json_t **ret, struct wag_err *err)
{
	return read_each(cli, add_lookup_tables, ret, err);
}

static bool says(const json_t *service, const char *key, const char *value)
{
	const char *text = json_string_value(json_object_get(service, key));

	return text && strcmp(text, value) == 0;
}

static bool is_local(const json_t *service)
{
	return says(service, "trafficPolicy", "Local");
}

void service_rules(const json_t *service, char *buf, size_t size)
{
	int affinity = (int)json_integer_value(json_object_get(service, "affinitySeconds"));
	bool ranges = json_array_size(json_object_get(service, "sourceRanges"));
	char seconds[32] = "";
	const char *rules[] = { is_local(service) ? "Local" : "",
				says(service, "forwarding", "dsr") ? "DSR" : "",
				says(service, "algorithm", "maglev") ? "Maglev" : "",
				seconds, ranges ? "source ranges" : "" };
	size_t len = 0;

	if (affinity)
		snprintf(seconds, sizeof(seconds), "affinity %d s", affinity);
	buf[0] = '\0';
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]) && len < size; i++)
		if (rules[i][0])
			len += (size_t)snprintf(buf + len, size - len, "%s%s", len ? ", " : "",
						rules[i]);
}

static bool in_set(const json_t *backend, const char *set)
{
	const json_t *sets = json_object_get(backend, "sets"), *value;
	size_t i;

	json_array_foreach((json_t *)sets, i, value)
		if (strcmp(json_string_value(value), set) == 0)
			return true;
	return false;
}

const char *service_backend_note(const json_t *service, const json_t *backend)
{
	bool local = in_set(backend, "local"), cluster = in_set(backend, "cluster");

	if (!local && !cluster)
		return " (no new flows)";
	if (!is_local(service))
		return cluster ? "" : " (Local only)";
	return local ? "" : " (not Local)";
}

const char *service_silence(const json_t *service)
{
	const json_t *backends = json_object_get(service, "backends"), *backend;
	size_t i;

	json_array_foreach((json_t *)backends, i, backend)
		if (in_set(backend, is_local(service) ? "local" : "cluster"))
			return NULL;
	return json_is_true(json_object_get(service, "endpoints")) ? "none here: dropped" :
								      "none: refused";
}
