// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <waggle/cleanup.h>
#include "field_mask.h"
#include "filter.h"
#include "flow_build.h"
#include "health.pb-c.h"
#include "observer.h"

#define NAMESPACES_MAX 512
#define SCAN_MAX 4096 /* flows looked at before other clients get their turn */

/* One GetFlows call. */
struct flows_call {
	Observer__GetFlowsRequest *request; /* owns what the filters borrow */
	struct filter_list *allow, *deny;
	struct field_mask mask;
	uint64_t next, end; /* sequence numbers; end: UINT64_MAX when following */
	uint64_t left;	    /* flows still to send */
	uint64_t since_ns, until_ns;
	uint64_t last_ns; /* time of the last record looked at */
};

static uint64_t clock_now(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

void observer_init(struct observer *o, struct flow_ring *ring, const char *node_name)
{
	memset(o, 0, sizeof(*o));
	o->ring = ring;
	o->node_name = node_name;
	o->boot_id = clock_now(CLOCK_REALTIME);
	o->started_ns = clock_now(CLOCK_MONOTONIC);
}

void observer_tick(struct observer *o, uint64_t now_ns)
{
	uint64_t last = o->n_samples ? (o->n_samples - 1) % OBSERVER_RATE_SECONDS : 0;

	if (o->n_samples && now_ns - o->samples[last].time_ns < 1000000000ULL)
		return;
	o->samples[o->n_samples % OBSERVER_RATE_SECONDS].time_ns = now_ns;
	o->samples[o->n_samples % OBSERVER_RATE_SECONDS].seen = o->seen;
	o->n_samples++;
}

double observer_rate(const struct observer *o, uint64_t now_ns)
{
	unsigned oldest =
		o->n_samples > OBSERVER_RATE_SECONDS ? o->n_samples % OBSERVER_RATE_SECONDS : 0;
	uint64_t passed_ns = o->n_samples ? now_ns - o->samples[oldest].time_ns : 0;

	if (!passed_ns)
		return 0;
	return (o->seen - o->samples[oldest].seen) * 1e9 / passed_ns;
}

static void flows_call_free(struct flows_call *c)
{
	if (!c)
		return;
	filter_list_free(c->allow);
	filter_list_free(c->deny);
	if (c->request)
		observer__get_flows_request__free_unpacked(c->request, NULL);
	free(c);
}

static void flows_call_freep(struct flows_call **c)
{
	flows_call_free(*c);
}

static void send(struct grpc_call *call, const ProtobufCMessage *msg)
{
	size_t len = protobuf_c_message_get_packed_size(msg);
	uint8_t *to = grpc_call_message(call, len);

	if (!to) {
		grpc_call_finish(call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
		return;
	}
	protobuf_c_message_pack(msg, to);
}

static void answer(struct grpc_call *call, const ProtobufCMessage *msg)
{
	send(call, msg);
	grpc_call_finish(call, GRPC_OK, NULL);
}

static bool in_time(const struct flows_call *c, const struct flow_record *rec)
{
	return rec->time_ns >= c->since_ns && (!c->until_ns || rec->time_ns <= c->until_ns);
}

/* Builds the record's message if the call wants it. */
static bool wanted(const struct observer *o, const struct flows_call *c, uint64_t seq,
		   struct flow_msg *msg)
{
	const struct flow_record *rec = flow_ring_get(o->ring, seq);

	if (!in_time(c, rec))
		return false;
	flow_build(msg, rec, o->node_name, o->boot_id, seq);
	return rec->kind == FLOW_RECORD_LOST || filter_pass(c->allow, c->deny, &msg->flow);
}

/* Where to begin so that the last "number" flows that match, and what came between, are sent. */
static uint64_t rewind_flows(const struct observer *o, const struct flows_call *c, uint64_t number)
{
	uint64_t oldest = flow_ring_oldest(o->ring), seq = flow_ring_next(o->ring), start = seq;
	struct flow_msg msg;

	while (seq > oldest && number) {
		seq--;
		if (!wanted(o, c, seq, &msg) ||
		    flow_ring_get(o->ring, seq)->kind == FLOW_RECORD_LOST)
			continue;
		start = seq;
		number--;
	}
	return number ? oldest : start;
}

static uint64_t timestamp_ns(const Google__Protobuf__Timestamp *ts)
{
	if (ts->seconds < 0 || ts->nanos < 0 || ts->nanos > 999999999)
		return 0;
	if (ts->seconds > INT64_MAX / 1000000000)
		return UINT64_MAX;
	return ts->seconds * 1000000000ULL + ts->nanos;
}

static int flows_call_init(const struct observer *o, struct flows_call *c, struct wag_err *err)
{
	const Observer__GetFlowsRequest *request = c->request;
	int r;

	if (request->first && request->follow)
		return wag_err_set(err, -EINVAL, "first cannot be combined with follow");
	r = filter_list_new(&c->allow, request->whitelist, request->n_whitelist, err);
	if (r < 0)
		return wag_err_prefix(err, "whitelist: ");
	r = filter_list_new(&c->deny, request->blacklist, request->n_blacklist, err);
	if (r < 0)
		return wag_err_prefix(err, "blacklist: ");
	if (request->field_mask) {
		r = field_mask_init(&c->mask, request->field_mask->paths,
				    request->field_mask->n_paths, err);
		if (r < 0)
			return r;
	}
	if (request->since)
		c->since_ns = timestamp_ns(request->since);
	if (request->until && !request->follow)
		c->until_ns = timestamp_ns(request->until);
	c->end = request->follow ? UINT64_MAX : flow_ring_next(o->ring);
	c->left = request->number && !request->follow ? request->number : UINT64_MAX;
	if (request->first || (!request->number && (!request->follow || request->since)))
		c->next = flow_ring_oldest(o->ring);
	else
		c->next = rewind_flows(o, c, request->number);
	return 0;
}

static void start_flows(struct observer *o, struct grpc_call *call, const uint8_t *data, size_t len)
{
	_cleanup_(flows_call_freep) struct flows_call *c = calloc(1, sizeof(*c));
	struct wag_err err = { 0 };

	if (!c) {
		grpc_call_finish(call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
		return;
	}
	c->request = observer__get_flows_request__unpack(NULL, len, data);
	if (!c->request) {
		grpc_call_finish(call, GRPC_INVALID_ARGUMENT, "the request cannot be decoded");
		return;
	}
	if (flows_call_init(o, c, &err) < 0) {
		grpc_call_finish(call, GRPC_INVALID_ARGUMENT, err.msg);
		return;
	}
	o->streams++;
	o->followers += !!c->request->follow;
	grpc_call_set_state(call, TAKE_PTR(c));
}

/* The ring went past this client. */
static void send_missed(struct observer *o, struct grpc_call *call, struct flows_call *c)
{
	Observer__GetFlowsResponse response = OBSERVER__GET_FLOWS_RESPONSE__INIT;
	Google__Protobuf__Timestamp time, first, last;
	Flow__LostEvent lost = FLOW__LOST_EVENT__INIT;
	uint64_t oldest = flow_ring_oldest(o->ring);

	lost.source = FLOW__LOST_EVENT_SOURCE__HUBBLE_RING_BUFFER;
	lost.num_events_lost = oldest - c->next;
	if (c->last_ns) {
		flow_time(&first, c->last_ns);
		flow_time(&last, flow_ring_get(o->ring, oldest)->time_ns);
		lost.first = &first;
		lost.last = &last;
	}
	flow_time(&time, clock_now(CLOCK_REALTIME));
	response.response_types_case = OBSERVER__GET_FLOWS_RESPONSE__RESPONSE_TYPES_LOST_EVENTS;
	response.lost_events = &lost;
	response.node_name = (char *)o->node_name;
	response.time = &time;
	send(call, &response.base);
	o->lost_queue += lost.num_events_lost;
	c->next = oldest;
}

static void on_fill(void *ctx, struct grpc_call *call)
{
	struct flows_call *c = grpc_call_state(call);
	struct observer *o = ctx;
	unsigned scanned = 0;
	struct flow_msg msg;

	while (c && grpc_call_room(call) && !grpc_call_finished(call)) {
		uint64_t seq = c->next;

		if (seq >= c->end || !c->left) {
			grpc_call_finish(call, GRPC_OK, NULL);
			return;
		}
		if (seq >= flow_ring_next(o->ring) || scanned++ == SCAN_MAX)
			return;
		if (seq < flow_ring_oldest(o->ring)) {
			send_missed(o, call, c);
			continue;
		}
		c->next++;
		c->last_ns = flow_ring_get(o->ring, seq)->time_ns;
		if (!wanted(o, c, seq, &msg))
			continue;
		if (msg.response.response_types_case ==
		    OBSERVER__GET_FLOWS_RESPONSE__RESPONSE_TYPES_FLOW) {
			field_mask_apply(&c->mask, &msg.flow);
			c->left -= c->left != UINT64_MAX;
		}
		send(call, &msg.response.base);
	}
}

static void on_end(void *ctx, struct grpc_call *call)
{
	struct flows_call *c = grpc_call_state(call);
	struct observer *o = ctx;

	if (!c)
		return;
	o->streams--;
	o->followers -= !!c->request->follow;
	flows_call_free(c);
}

static uint64_t num_flows(const struct observer *o)
{
	return flow_ring_next(o->ring) - flow_ring_oldest(o->ring);
}

static void server_status(struct observer *o, struct grpc_call *call)
{
	Observer__ServerStatusResponse response = OBSERVER__SERVER_STATUS_RESPONSE__INIT;
	Google__Protobuf__Int32Value connected = GOOGLE__PROTOBUF__INT32_VALUE__INIT;
	Google__Protobuf__Int32Value unavailable = GOOGLE__PROTOBUF__INT32_VALUE__INIT;
	uint64_t now = clock_now(CLOCK_MONOTONIC);

	connected.value = 1;
	response.num_flows = num_flows(o);
	response.max_flows = flow_ring_capacity(o->ring);
	response.seen_flows = o->seen;
	response.uptime_ns = now - o->started_ns;
	response.num_connected_nodes = &connected;
	response.num_unavailable_nodes = &unavailable;
	response.version = (char *)"waggle v" WAGGLE_VERSION;
	response.flows_rate = observer_rate(o, now);
	answer(call, &response.base);
}

static void get_nodes(struct observer *o, struct grpc_call *call)
{
	Observer__GetNodesResponse response = OBSERVER__GET_NODES_RESPONSE__INIT;
	Observer__Node node = OBSERVER__NODE__INIT, *nodes[] = { &node };

	node.name = (char *)o->node_name;
	node.version = (char *)"waggle v" WAGGLE_VERSION;
	node.state = RELAY__NODE_STATE__NODE_CONNECTED;
	node.uptime_ns = clock_now(CLOCK_MONOTONIC) - o->started_ns;
	node.num_flows = num_flows(o);
	node.max_flows = flow_ring_capacity(o->ring);
	node.seen_flows = o->seen;
	response.nodes = nodes;
	response.n_nodes = 1;
	answer(call, &response.base);
}

static int compare_namespaces(const void *a, const void *b)
{
	const Observer__Namespace *const *left = a, *const *right = b;

	return strcmp((*left)->namespace_, (*right)->namespace_);
}

static void add_namespace(Observer__GetNamespacesResponse *response, Observer__Namespace *items,
			  const struct flow_name *name)
{
	const char *ns = flow_name_part(name, FLOW_NAME_NS);

	for (size_t i = 0; i < response->n_namespaces; i++)
		if (!strcmp(items[i].namespace_, ns))
			return;
	if (!*ns || response->n_namespaces == NAMESPACES_MAX)
		return;
	observer__namespace__init(&items[response->n_namespaces]);
	items[response->n_namespaces].namespace_ = (char *)ns;
	response->namespaces[response->n_namespaces] = &items[response->n_namespaces];
	response->n_namespaces++;
}

static void get_namespaces(struct observer *o, struct grpc_call *call)
{
	Observer__GetNamespacesResponse response = OBSERVER__GET_NAMESPACES_RESPONSE__INIT;
	_cleanup_free_ Observer__Namespace *items = calloc(NAMESPACES_MAX, sizeof(*items));
	_cleanup_free_ Observer__Namespace **list = calloc(NAMESPACES_MAX, sizeof(*list));

	if (!items || !list) {
		grpc_call_finish(call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
		return;
	}
	response.namespaces = list;
	for (uint64_t i = flow_ring_oldest(o->ring); i < flow_ring_next(o->ring); i++) {
		add_namespace(&response, items, flow_ring_get(o->ring, i)->source);
		add_namespace(&response, items, flow_ring_get(o->ring, i)->destination);
	}
	qsort(list, response.n_namespaces, sizeof(*list), compare_namespaces);
	answer(call, &response.base);
}

static void health_check(struct grpc_call *call, const uint8_t *data, size_t len)
{
	Grpc__Health__V1__HealthCheckResponse response =
		GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
	Grpc__Health__V1__HealthCheckRequest *request =
		grpc__health__v1__health_check_request__unpack(NULL, len, data);

	if (!request) {
		grpc_call_finish(call, GRPC_INVALID_ARGUMENT, "the request cannot be decoded");
		return;
	}
	response.status = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
	if (!*request->service || !strcmp(request->service, "observer.Observer"))
		answer(call, &response.base);
	else
		grpc_call_finish(call, GRPC_NOT_FOUND, "unknown service");
	grpc__health__v1__health_check_request__free_unpacked(request, NULL);
}

static void on_start(void *ctx, struct grpc_call *call, const char *path, const uint8_t *msg,
		     size_t len)
{
	struct observer *o = ctx;

	if (!strcmp(path, "/observer.Observer/GetFlows"))
		start_flows(o, call, msg, len);
	else if (!strcmp(path, "/observer.Observer/ServerStatus"))
		server_status(o, call);
	else if (!strcmp(path, "/observer.Observer/GetNodes"))
		get_nodes(o, call);
	else if (!strcmp(path, "/observer.Observer/GetNamespaces"))
		get_namespaces(o, call);
	else if (!strcmp(path, "/grpc.health.v1.Health/Check"))
		health_check(call, msg, len);
	else
		grpc_call_finish(call, GRPC_UNIMPLEMENTED, "this method is not served here");
}

struct grpc_handler observer_handler(struct observer *o)
{
	return (struct grpc_handler){ o, on_start, on_fill, on_end };
}
