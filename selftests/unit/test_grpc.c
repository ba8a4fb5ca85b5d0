// SPDX-License-Identifier: Apache-2.0
/* The flow server as its clients see it: over a unix socket, by the client flow-observe uses. */
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include "hubble-like/flow_push.h"
#include "hubble-like/grpc_client.h"
#include "hubble-like/observer.pb-c.h"

#define GET_FLOWS "/observer.Observer/GetFlows"

struct world {
	struct flow_server *server;
	struct grpc_client *client;
	char dir[32], path[64], url[80];
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct flow_config config = {
		.node_name = "n1", .events_fd = -1, .runtime_fd = -1, .stats_fd = -1, .capacity = 15
	};
	struct wag_err err = { 0 };

	strcpy(w->dir, "/tmp/waggle-grpc-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	snprintf(w->path, sizeof(w->path), "%s/h.sock", w->dir);
	snprintf(w->url, sizeof(w->url), "unix://%s", w->path);
	config.socket_path = w->path;
	if (flow_server_new(&w->server, &config, &err) < 0 ||
	    flow_server_start(w->server, &err) < 0 ||
	    grpc_client_new(&w->client, w->url, 1000, &err) < 0)
		fail_msg("%s", err.msg);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	struct stat st;

	grpc_client_free(w->client);
	flow_server_free(w->server);
	assert_int_equal(stat(w->path, &st), -1);
	assert_int_equal(rmdir(w->dir), 0);
	free(w);
	return 0;
}

static void push(struct world *w, unsigned n, uint8_t type)
{
	for (unsigned i = 0; i < n; i++) {
		struct wag_event e = { .type = type,
				       .point = WAG_POINT_FROM_POD,
				       .reason = type == WAG_EVENT_DROP ? WAG_DROP_NO_BACKEND : 0 };
		struct timespec ts;

		clock_gettime(CLOCK_MONOTONIC, &ts);
		e.time_ns = ts.tv_sec * 1000000000ULL + ts.tv_nsec;
		wag_addr_parse("10.0.0.1", &e.orig.saddr);
		wag_addr_parse("10.0.0.2", &e.orig.daddr);
		e.orig.proto = IPPROTO_UDP;
		flow_server_push(w->server, &e);
	}
}

struct seen {
	struct world *world;
	unsigned flows, lost_messages, dropped;
	uint64_t lost;
	unsigned stop_after, push_at_first;
};

static int on_message(void *ctx, const uint8_t *data, size_t len)
{
	Observer__GetFlowsResponse *m = observer__get_flows_response__unpack(NULL, len, data);
	struct seen *seen = ctx;

	assert_non_null(m);
	if (m->response_types_case == OBSERVER__GET_FLOWS_RESPONSE__RESPONSE_TYPES_LOST_EVENTS) {
		seen->lost_messages++;
		seen->lost += m->lost_events->num_events_lost;
	} else {
		seen->flows++;
		seen->dropped += m->flow->verdict == FLOW__VERDICT__DROPPED;
		assert_string_equal(m->node_name, "n1");
	}
	observer__get_flows_response__free_unpacked(m, NULL);
	if (seen->push_at_first) {
		push(seen->world, seen->push_at_first, WAG_EVENT_TRACE);
		seen->push_at_first = 0;
	}
	return seen->stop_after && seen->flows >= seen->stop_after ? -ECANCELED : 0;
}

static int get(struct world *w, const Observer__GetFlowsRequest *request, int timeout_ms,
	       struct seen *seen, struct wag_err *err)
{
	uint8_t buf[512];
	size_t len = observer__get_flows_request__pack(request, buf);

	return grpc_client_call(w->client, GET_FLOWS, buf, len, timeout_ms, on_message, seen, err);
}

static void amounts(void **state)
{
	static const struct {
		unsigned number;
		bool first;
		unsigned flows;
	} rows[] = { { 0, false, 10 }, { 3, false, 3 }, { 3, true, 3 }, { 100, false, 10 } };
	struct world *w = *state;
	struct wag_err err = { 0 };

	push(w, 10, WAG_EVENT_TRACE);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		Observer__GetFlowsRequest request = OBSERVER__GET_FLOWS_REQUEST__INIT;
		struct seen seen = { 0 };

		request.number = rows[i].number;
		request.first = rows[i].first;
		if (get(w, &request, 5000, &seen, &err) < 0)
			fail_msg("%s", err.msg);
		assert_int_equal(seen.flows, rows[i].flows);
	}
}

static void last_counts_what_matches(void **state)
{
	Observer__GetFlowsRequest request = OBSERVER__GET_FLOWS_REQUEST__INIT;
	Flow__FlowFilter filter = FLOW__FLOW_FILTER__INIT, *filters[] = { &filter };
	Flow__Verdict verdicts[] = { FLOW__VERDICT__DROPPED };
	struct world *w = *state;
	struct wag_err err = { 0 };
	struct seen seen = { 0 };

	push(w, 4, WAG_EVENT_DROP);
	push(w, 6, WAG_EVENT_TRACE);
	filter.verdict = verdicts;
	filter.n_verdict = 1;
	request.whitelist = filters;
	request.n_whitelist = 1;
	request.number = 3;
	assert_int_equal(get(w, &request, 5000, &seen, &err), 0);
	assert_int_equal(seen.flows, 3);
	assert_int_equal(seen.dropped, 3);
}

static void follow_and_lost(void **state)
{
	Observer__GetFlowsRequest request = OBSERVER__GET_FLOWS_REQUEST__INIT;
	struct world *w = *state;
	struct wag_err err = { 0 };
	struct seen seen = { .stop_after = 5 };
	struct flow_stats stats;

	push(w, 2, WAG_EVENT_TRACE);
	flow_server_push_lost(w->server, 9);
	push(w, 3, WAG_EVENT_TRACE);
	request.follow = 1;
	request.number = 5;
	assert_int_equal(get(w, &request, 5000, &seen, &err), -ECANCELED);
	assert_int_equal(seen.flows, 5);
	assert_int_equal(seen.lost, 9);
	flow_server_stats(w->server, &stats);
	assert_int_equal(stats.seen, 5);
	assert_int_equal(stats.lost_ring, 9);
	/* Nothing more comes: the client's patience ends, not the server's. */
	request.number = 0;
	seen = (struct seen){ 0 };
	assert_int_equal(get(w, &request, 200, &seen, &err), -ETIMEDOUT);
	assert_int_equal(seen.flows, 0);
}

static void refusals(void **state)
{
	Observer__GetFlowsRequest request = OBSERVER__GET_FLOWS_REQUEST__INIT;
	Flow__FlowFilter filter = FLOW__FLOW_FILTER__INIT, *filters[] = { &filter };
	char *fqdn[] = { (char *)"a.b" };
	struct world *w = *state;
	struct wag_err err = { 0 };
	struct seen seen = { 0 };

	request.first = request.follow = 1;
	assert_int_equal(get(w, &request, 5000, &seen, &err), -EREMOTEIO);
	assert_non_null(strstr(err.msg, "first cannot be combined with follow"));
	request.first = request.follow = 0;
	filter.source_fqdn = fqdn;
	filter.n_source_fqdn = 1;
	request.blacklist = filters;
	request.n_blacklist = 1;
	assert_int_equal(get(w, &request, 5000, &seen, &err), -EREMOTEIO);
	assert_non_null(strstr(err.msg, "blacklist: filter source_fqdn is not supported"));
	assert_int_equal(grpc_client_call(w->client, "/observer.Observer/Nope", NULL, 0, 5000,
					  on_message, &seen, &err),
			 -EREMOTEIO);
	assert_non_null(strstr(err.msg, "status 12"));
	assert_int_equal(grpc_client_call(w->client, GET_FLOWS, (const uint8_t *)"\xff\xff", 2,
					  5000, on_message, &seen, &err),
			 -EREMOTEIO);
	assert_non_null(strstr(err.msg, "status 3"));
}

/* A client that is busy must not hold anything up, and must learn what it missed. */
static void slow_reader(void **state)
{
	Observer__GetFlowsRequest request = OBSERVER__GET_FLOWS_REQUEST__INIT;
	struct world *w = *state;
	struct seen seen = { .world = w, .stop_after = 5, .push_at_first = 5000 };
	struct wag_err err = { 0 };
	struct flow_stats stats;

	push(w, 1, WAG_EVENT_TRACE);
	request.follow = 1;
	request.number = 1;
	assert_int_equal(get(w, &request, 10000, &seen, &err), -ECANCELED);
	assert_int_equal(seen.flows, 5);
	assert_true(seen.lost_messages > 0);
	assert_true(seen.lost > 0 && seen.lost <= 5000 - 4);
	flow_server_stats(w->server, &stats);
	assert_int_equal(stats.seen, 5001);
	assert_true(stats.lost_queue >= seen.lost);
}

static void garbage(void **state)
{
	static const char inputs[][20] = { "GET / HTTP/1.1\r\n\r\n", "\0\0\0\0", "PRI * HTTP/2.0" };
	Observer__GetFlowsRequest request = OBSERVER__GET_FLOWS_REQUEST__INIT;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct world *w = *state;
	struct wag_err err = { 0 };
	struct seen seen = { 0 };

	strcpy(addr.sun_path, w->path);
	for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]); i++) {
		_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
		assert_true(send(fd, inputs[i], sizeof(inputs[i]), MSG_NOSIGNAL) > 0 ||
			    errno == EPIPE);
	}
	assert_int_equal(get(w, &request, 5000, &seen, &err), 0);
}

static void the_socket(void **state)
{
	struct flow_config config = { .node_name = "n2", .events_fd = -1 };
	struct flow_server *second = NULL;
	struct world *w = *state;
	struct wag_err err = { 0 };
	struct stat st;

	assert_int_equal(stat(w->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
	config.socket_path = w->path;
	assert_int_equal(flow_server_new(&second, &config, &err), -EADDRINUSE);
	assert_non_null(strstr(err.msg, w->path));
	assert_null(second);
	assert_int_equal(stat(w->path, &st), 0);
}

static void nobody_there(void **state)
{
	struct grpc_client *c = NULL;
	struct wag_err err = { 0 };

	assert_true(grpc_client_new(&c, "unix:///nonexistent/h.sock", 100, &err) < 0);
	assert_non_null(strstr(err.msg, "is waggle-agent running? use --server"));
	assert_true(grpc_client_new(&c, "nonsense", 100, &err) < 0);
	assert_non_null(strstr(err.msg, "HOST:PORT"));
	assert_null(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(amounts, setup, teardown),
		cmocka_unit_test_setup_teardown(last_counts_what_matches, setup, teardown),
		cmocka_unit_test_setup_teardown(follow_and_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(refusals, setup, teardown),
		cmocka_unit_test_setup_teardown(slow_reader, setup, teardown),
		cmocka_unit_test_setup_teardown(garbage, setup, teardown),
		cmocka_unit_test_setup_teardown(the_socket, setup, teardown),
		cmocka_unit_test(nobody_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
