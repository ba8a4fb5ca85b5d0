// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <waggle/cleanup.h>
#include "observe_filter.h"

#define EXPAND_MAX 256

void observe_filter_init(struct observe_filter *f)
{
	memset(f, 0, sizeof(*f));
	flow__flow_filter__init(&f->base);
}

/* base was filled through heap copies only, so the library can free its members. */
void observe_filter_done(struct observe_filter *f)
{
	Flow__FlowFilter *base = malloc(sizeof(*base));

	for (int side = 0; side < OBSERVE_SIDES; side++)
		for (int kind = 0; kind < OBSERVE_KINDS; kind++)
			free(f->ends[side][kind].v);
	if (!base)
		return;
	*base = f->base;
	flow__flow_filter__free_unpacked(base, NULL);
}

static void *grow(void **list, size_t *n, size_t size)
{
	char *grown = realloc(*list, (*n + 1) * size);

	if (!grown)
		return NULL;
	*list = grown;
	memset(grown + *n * size, 0, size);
	return grown + (*n)++ * size;
}

static int add_string(char ***list, size_t *n, const char *value)
{
	char *copy = strdup(value);
	char **slot = copy ? grow((void **)list, n, sizeof(char *)) : NULL;

	if (!slot) {
		free(copy);
		return -ENOMEM;
	}
	*slot = copy;
	return 0;
}

/* Enum names in any case, "-" for "_". */
static int add_enum(void *list, size_t *n, const ProtobufCEnumDescriptor *desc, const char *value,
		    const char *flag, struct wag_err *err)
{
	char name[96];
	int *slot;

	snprintf(name, sizeof(name), "%s", value);
	for (char *p = name; *p; p++)
		if (*p == '-')
			*p = '_';
	for (unsigned i = 0; i < desc->n_values; i++) {
		if (strcasecmp(desc->values[i].name, name))
			continue;
		slot = grow(list, n, sizeof(int));
		if (!slot)
			return wag_err_set(err, -ENOMEM, "out of memory");
		*slot = desc->values[i].value;
		return 0;
	}
	return wag_err_set(err, -EINVAL, "--%s: \"%s\" is not known", flag, value);
}

/* A number of at most max, and nothing else. */
static int parse_number(const char *text, size_t len, unsigned long max, unsigned long *ret)
{
	unsigned long value;
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || end != text + len || value > max)
		return -EINVAL;
	*ret = value;
	return 0;
}

static int parse_sub_type(int type, const char *text, int *ret)
{
	static const char *const trace[] = {
		"to-endpoint",	 "to-proxy",   "to-host",     "to-stack",   "to-overlay",
		"from-endpoint", "from-proxy", "from-host",   "from-stack", "from-overlay",
		"from-network",	 "to-network", "from-crypto", "to-crypto",
	};
	static const char *const sock[] = { "unknown", "pre-xlate-fwd", "post-xlate-fwd",
					    "pre-xlate-rev", "post-xlate-rev" };
	const char *const *names = type == 7 ? sock : trace;
	size_t n = type == 7 ? 5 : type == 4 ? sizeof(trace) / sizeof(trace[0]) : 0;
	const ProtobufCEnumValue *drop;
	unsigned long number;

	if (parse_number(text, strlen(text), UINT8_MAX, &number) == 0) {
		*ret = number;
		return 0;
	}
	for (size_t i = 0; i < n; i++) {
		if (!strcasecmp(names[i], text)) {
			*ret = i;
			return 0;
		}
	}
	drop = protobuf_c_enum_descriptor_get_value_by_name(&flow__drop_reason__descriptor, text);
	if (type != 1 || !drop)
		return -EINVAL;
	*ret = drop->value;
	return 0;
}

static int add_type(Flow__FlowFilter *f, const char *value, struct wag_err *err)
{
	static const struct {
		const char *name;
		int type;
	} types[] = { { "drop", 1 },  { "debug", 2 },	       { "capture", 3 },
		      { "trace", 4 }, { "policy-verdict", 5 }, { "trace-sock", 7 },
		      { "sock", 7 },  { "l7", 129 },	       { "agent", 130 } };
	const char *colon = strchr(value, ':');
	size_t len = colon ? (size_t)(colon - value) : strlen(value);
	Flow__EventTypeFilter **slot, *item;
	unsigned long type = 0;
	int sub_type = 0;

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (strlen(types[i].name) == len && !strncasecmp(types[i].name, value, len))
			type = types[i].type;
	if (!type && parse_number(value, len, UINT8_MAX, &type) < 0)
		return wag_err_set(err, -EINVAL,
				   "--type: \"%s\" is not known (drop, trace, trace-sock, "
				   "policy-verdict, l7, capture, debug, agent or a number)",
				   value);
	if (colon && parse_sub_type(type, colon + 1, &sub_type) < 0)
		return wag_err_set(err, -EINVAL, "--type: subtype \"%s\" is not known", colon + 1);
	item = malloc(sizeof(*item));
	slot = item ? grow((void **)&f->event_type, &f->n_event_type, sizeof(void *)) : NULL;
	if (!slot) {
		free(item);
		return wag_err_set(err, -ENOMEM, "out of memory");
	}
	flow__event_type_filter__init(item);
	item->type = type;
	item->match_sub_type = colon != NULL;
	item->sub_type = sub_type;
	*slot = item;
	return 0;
}

static int add_tcp_flags(Flow__FlowFilter *f, const char *value, struct wag_err *err)
{
	Flow__TCPFlags **slot, *item = malloc(sizeof(*item));
	_cleanup_free_ char *copy = strdup(value);
	const ProtobufCFieldDescriptor *field;
	char *save = NULL;

	slot = item && copy ? grow((void **)&f->tcp_flags, &f->n_tcp_flags, sizeof(void *)) : NULL;
	if (!slot) {
		free(item);
		return wag_err_set(err, -ENOMEM, "out of memory");
	}
	flow__tcpflags__init(item);
	*slot = item;
	if (!*value)
		return wag_err_set(err, -EINVAL, "--tcp-flags: name one, like SYN");
	for (char *word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		for (char *p = word; *p; p++)
			*p = *p >= 'a' && *p <= 'z' ? *p - 32 : *p;
		field = protobuf_c_message_descriptor_get_field_by_name(&flow__tcpflags__descriptor,
									word);
		if (!field)
			return wag_err_set(err, -EINVAL, "--tcp-flags: \"%s\" is no TCP flag",
					   word);
		*(protobuf_c_boolean *)((char *)item + field->offset) = 1;
	}
	return 0;
}

static int add_interface(Flow__FlowFilter *f, const char *value)
{
	Flow__NetworkInterface **slot, *item = malloc(sizeof(*item));

	slot = item ? grow((void **)&f->interface, &f->n_interface, sizeof(void *)) : NULL;
	if (!slot) {
		free(item);
		return -ENOMEM;
	}
	flow__network_interface__init(item);
	*slot = item;
	item->name = strdup(value);
	return item->name ? 0 : -ENOMEM;
}

static int add_ip_version(Flow__FlowFilter *f, const char *value, struct wag_err *err)
{
	const char *name = !strcmp(value, "v4") || !strcmp(value, "4")	 ? "IPv4"
			   : !strcmp(value, "v6") || !strcmp(value, "6") ? "IPv6"
			   : !strcmp(value, "none")			 ? "IP_NOT_USED"
									 : value;

	return add_enum(&f->ip_version, &f->n_ip_version, &flow__ipversion__descriptor, name,
			"ip-version", err);
}

static int add_reply(Flow__FlowFilter *f, const char *value)
{
	protobuf_c_boolean *slot = grow((void **)&f->reply, &f->n_reply, sizeof(*slot));

	if (!slot)
		return -ENOMEM;
	*slot = strcmp(value, "false") != 0;
	return 0;
}

static int add_base(Flow__FlowFilter *f, enum observe_kind kind, const char *value,
		    struct wag_err *err)
{
	switch (kind) {
	case OBSERVE_VERDICT:
		return add_enum(&f->verdict, &f->n_verdict, &flow__verdict__descriptor, value,
				"verdict", err);
	case OBSERVE_DROP_REASON:
		return add_enum(&f->drop_reason_desc, &f->n_drop_reason_desc,
				&flow__drop_reason__descriptor, value, "drop-reason-desc", err);
	case OBSERVE_DIRECTION:
		return add_enum(&f->traffic_direction, &f->n_traffic_direction,
				&flow__traffic_direction__descriptor, value, "traffic-direction",
				err);
	case OBSERVE_TYPE:
		return add_type(f, value, err);
	case OBSERVE_TCP_FLAGS:
		return add_tcp_flags(f, value, err);
	case OBSERVE_IP_VERSION:
		return add_ip_version(f, value, err);
	case OBSERVE_PROTOCOL:
		return add_string(&f->protocol, &f->n_protocol, value);
	case OBSERVE_NODE_NAME:
		return add_string(&f->node_name, &f->n_node_name, value);
	case OBSERVE_UUID:
		return add_string(&f->uuid, &f->n_uuid, value);
	case OBSERVE_SNAT_IP:
		return add_string(&f->source_ip_xlated, &f->n_source_ip_xlated, value);
	case OBSERVE_INTERFACE:
		return add_interface(f, value);
	case OBSERVE_REPLY:
		return add_reply(f, value);
	default:
		return -EINVAL;
	}
}

int observe_filter_add(struct observe_filter *f, enum observe_kind kind, enum observe_side side,
		       const char *value, struct wag_err *err)
{
	struct observe_values *values;
	const char **slot;
	int r;

	f->used = true;
	if (kind >= OBSERVE_KINDS) {
		r = add_base(&f->base, kind, value, err);
		return r == -ENOMEM ? wag_err_set(err, r, "out of memory") : r;
	}
	values = &f->ends[side][kind];
	slot = grow((void **)&values->v, &values->n, sizeof(*slot));
	if (!slot)
		return wag_err_set(err, -ENOMEM, "out of memory");
	*slot = value;
	return 0;
}

/* A number's list is not a list of texts: identities, and names that are looked up here. */
static int add_identity(Flow__FlowFilter *f, bool source, const char *value, struct wag_err *err)
{
	uint32_t **list = source ? &f->source_identity : &f->destination_identity;
	size_t *n = source ? &f->n_source_identity : &f->n_destination_identity;
	static const char *const names[] = { "unknown",	    "host",	      "world",
					     "unmanaged",   "health",	      "init",
					     "remote-node", "kube-apiserver", "ingress" };
	const unsigned n_names = sizeof(names) / sizeof(names[0]);
	unsigned long id = 0;
	uint32_t *slot;

	while (id < n_names && strcmp(names[id], value))
		id++;
	if (id == n_names && parse_number(value, strlen(value), UINT32_MAX, &id) < 0)
		return wag_err_set(err, -EINVAL,
				   "--identity: \"%s\" is neither a number nor a "
				   "reserved identity",
				   value);
	slot = grow((void **)list, n, sizeof(*slot));
	if (!slot)
		return wag_err_set(err, -ENOMEM, "out of memory");
	*slot = id;
	return 0;
}

static int add_workload(Flow__FlowFilter *f, bool source, const char *value)
{
	Flow__Workload ***list = source ? &f->source_workload : &f->destination_workload;
	size_t *n = source ? &f->n_source_workload : &f->n_destination_workload;
	const char *slash = strchr(value, '/');
	Flow__Workload *item = malloc(sizeof(*item)), **slot;

	slot = item ? grow((void **)list, n, sizeof(*slot)) : NULL;
	if (!slot) {
		free(item);
		return -ENOMEM;
	}
	flow__workload__init(item);
	*slot = item;
	item->name = strdup(slash ? slash + 1 : value);
	item->kind = strndup(value, slash ? slash - value : 0);
	return item->name && item->kind ? 0 : -ENOMEM;
}

static int add_end(Flow__FlowFilter *f, enum observe_kind kind, bool source, const char *value,
		   struct wag_err *err)
{
	struct {
		char ***list;
		size_t *n;
	} at;

	switch (kind) {
	case OBSERVE_IP:
		at.list = source ? &f->source_ip : &f->destination_ip;
		at.n = source ? &f->n_source_ip : &f->n_destination_ip;
		break;
	case OBSERVE_POD:
	case OBSERVE_NAMESPACE:
		at.list = source ? &f->source_pod : &f->destination_pod;
		at.n = source ? &f->n_source_pod : &f->n_destination_pod;
		break;
	case OBSERVE_SERVICE:
		at.list = source ? &f->source_service : &f->destination_service;
		at.n = source ? &f->n_source_service : &f->n_destination_service;
		break;
	case OBSERVE_PORT:
		at.list = source ? &f->source_port : &f->destination_port;
		at.n = source ? &f->n_source_port : &f->n_destination_port;
		break;
	case OBSERVE_LABEL:
		at.list = source ? &f->source_label : &f->destination_label;
		at.n = source ? &f->n_source_label : &f->n_destination_label;
		break;
	case OBSERVE_IDENTITY:
		return add_identity(f, source, value, err);
	default:
		return add_workload(f, source, value);
	}
	return add_string(at.list, at.n, value);
}

/* A name without a namespace is in those that were given, if any. */
static int add_qualified(Flow__FlowFilter *f, enum observe_kind kind, bool source,
			 const char *value, const struct observe_values *namespaces,
			 struct wag_err *err)
{
	char name[400];
	int r = 0;

	if (!namespaces->n)
		return add_end(f, kind, source, value, err);
	if (strchr(value, '/'))
		return wag_err_set(err, -EINVAL,
				   "filters --namespace and --%s cannot be combined when \"%s\" "
				   "names a namespace",
				   kind == OBSERVE_POD ? "pod" : "service", value);
	for (size_t i = 0; r == 0 && i < namespaces->n; i++) {
		snprintf(name, sizeof(name), "%s/%s", namespaces->v[i], value);
		r = add_end(f, kind, source, name, err);
	}
	return r;
}

static int apply(struct observe_filter *of, Flow__FlowFilter *f, enum observe_kind kind,
		 enum observe_side flags, bool source, struct wag_err *err)
{
	const struct observe_values *values = &of->ends[flags][kind];
	const struct observe_values *namespaces = &of->ends[flags][OBSERVE_NAMESPACE];
	bool named = of->ends[flags][OBSERVE_POD].n || of->ends[flags][OBSERVE_SERVICE].n;
	char name[128];
	int r = 0;

	for (size_t i = 0; r == 0 && i < values->n; i++) {
		if (kind == OBSERVE_NAMESPACE) {
			snprintf(name, sizeof(name), "%s/", values->v[i]);
			r = named ? 0 : add_end(f, kind, source, name, err);
		} else if (kind == OBSERVE_POD || kind == OBSERVE_SERVICE) {
			r = add_qualified(f, kind, source, values->v[i], namespaces, err);
		} else {
			r = add_end(f, kind, source, values->v[i], err);
		}
	}
	return r == -ENOMEM ? wag_err_set(err, r, "out of memory") : r;
}

/* A deep copy, by way of the wire. */
static Flow__FlowFilter *copy(const Flow__FlowFilter *f)
{
	size_t len = flow__flow_filter__get_packed_size(f);
	_cleanup_free_ uint8_t *buf = malloc(len + 1);

	if (!buf)
		return NULL;
	flow__flow_filter__pack(f, buf);
	return flow__flow_filter__unpack(NULL, len, buf);
}

static bool counts(const struct observe_filter *of, int kind)
{
	const struct observe_values *either = of->ends[OBSERVE_EITHER];

	if (kind == OBSERVE_NAMESPACE && (either[OBSERVE_POD].n || either[OBSERVE_SERVICE].n))
		return false;
	return either[kind].n > 0;
}

/* mask bit k: the k-th flag for either end is about the destination. */
static int expand_one(struct observe_filter *of, unsigned mask, Flow__FlowFilter *f,
		      struct wag_err *err)
{
	unsigned bit = 0;
	int r = 0;

	for (int kind = 0; r == 0 && kind < OBSERVE_KINDS; kind++) {
		r = apply(of, f, kind, OBSERVE_FROM, true, err);
		if (r == 0)
			r = apply(of, f, kind, OBSERVE_TO, false, err);
		if (r == 0 && counts(of, kind))
			r = apply(of, f, kind, OBSERVE_EITHER, !(mask & 1U << bit++), err);
	}
	return r;
}

static int check_conflicts(const struct observe_filter *of, struct wag_err *err)
{
	static const char *const names[] = { "ip",   "pod",	 "namespace", "service",
					     "port", "identity", "label",     "workload" };

	for (int kind = 0; kind < OBSERVE_KINDS; kind++)
		for (int side = OBSERVE_FROM; side <= OBSERVE_TO; side++)
			if (of->ends[OBSERVE_EITHER][kind].n && of->ends[side][kind].n)
				return wag_err_set(
					err, -EINVAL, "filters --%s and --%s-%s cannot be combined",
					names[kind], side == OBSERVE_FROM ? "from" : "to",
					names[kind]);
	return 0;
}

int observe_filter_expand(struct observe_filter *of, Flow__FlowFilter ***ret, size_t *ret_n,
			  struct wag_err *err)
{
	unsigned total = 1;
	int r = check_conflicts(of, err);

	*ret = NULL;
	*ret_n = 0;
	if (!of->used || r < 0)
		return r;
	for (int kind = 0; kind < OBSERVE_KINDS; kind++)
		total <<= counts(of, kind);
	if (total > EXPAND_MAX)
		return wag_err_set(err, -EINVAL, "too many filters for either end");
	for (unsigned mask = 0; r == 0 && mask < total; mask++) {
		Flow__FlowFilter *f = copy(&of->base), **slot;

		slot = f ? grow((void **)ret, ret_n, sizeof(*slot)) : NULL;
		if (!slot) {
			if (f)
				flow__flow_filter__free_unpacked(f, NULL);
			return wag_err_set(err, -ENOMEM, "out of memory");
		}
		*slot = f;
		r = expand_one(of, mask, f, err);
	}
	return r;
}
