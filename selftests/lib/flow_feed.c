// SPDX-License-Identifier: Apache-2.0
/*
 * A flow server without a datapath: serves made-up flows on a unix socket until stdin ends. A line
 * on stdin pushes flows: "N" of them, or "lost N" as lost.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <waggle/addr.h>
#include "hubble-like/flow_push.h"

static int endpoint(void *ctx, const struct wag_addr *addr, struct flow_endpoint *ret)
{
	if (!wag_addr_is_v4(addr) || addr->b[12] != 10)
		return -1;
	memset(ret, 0, sizeof(*ret));
	ret->id = addr->b[15];
	ret->identity = 1000 + addr->b[15];
	strcpy(ret->ns, "default");
	snprintf(ret->pod, sizeof(ret->pod), "pod-%u", addr->b[15]);
	strcpy(ret->labels[0], "k8s:app=feed");
	return 0;
}

static int service(void *ctx, const struct wag_addr *addr, __be16 port, uint8_t proto,
		   struct flow_service *ret)
{
	if (!wag_addr_is_v4(addr) || addr->b[12] != 172)
		return -1;
	strcpy(ret->ns, "default");
	strcpy(ret->name, "web");
	return 0;
}

static struct wag_event make_event(unsigned i)
{
	struct wag_event e = { .type = 1 + i % 3 };
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	e.time_ns = ts.tv_sec * 1000000000ULL + ts.tv_nsec;
	wag_addr_parse("10.0.0.1", &e.orig.saddr);
	wag_addr_parse("172.20.0.1", &e.orig.daddr);
	e.orig.saddr.b[15] = 1 + i % 250;
	e.orig.sport = htons(32768 + i % 20000);
	e.orig.dport = htons(80);
	e.orig.proto = i % 5 == 4 ? IPPROTO_UDP : IPPROTO_TCP;
	e.xlat = e.orig;
	wag_addr_parse("10.0.0.200", &e.xlat.daddr);
	e.xlat.dport = htons(8080);
	e.point = e.type == WAG_EVENT_SOCK ? WAG_POINT_CONNECT : WAG_POINT_FROM_POD;
	e.reason = e.type == WAG_EVENT_DROP ? WAG_DROP_NO_BACKEND : 0;
	e.flags = e.type == WAG_EVENT_DROP ? 0 : WAG_EVENT_F_XLAT;
	e.ct = e.type == WAG_EVENT_SOCK ? 0 : WAG_EVENT_CT_NEW;
	e.next = WAG_NEXT_POD;
	e.tcp_flags = 2;
	e.ifindex = 1;
	e.line = e.type == WAG_EVENT_DROP ? 42 : 0;
	e.cookie = i;
	return e;
}

int main(int argc, char **argv)
{
	struct flow_config config = {
		.socket_path = argc > 1 ? argv[1] : "/tmp/flow-feed.sock",
		.node_name = "node-a",
		.events_fd = -1,
		.runtime_fd = -1,
		.stats_fd = -1,
		.capacity = argc > 2 ? strtoul(argv[2], NULL, 10) : 0,
		.resolver = { .endpoint = endpoint, .service = service },
	};
	struct flow_server *s = NULL;
	struct wag_err err = { 0 };
	unsigned long n, next = 0;
	char line[64];

	if (flow_server_new(&s, &config, &err) < 0 || flow_server_start(s, &err) < 0) {
		fprintf(stderr, "flow_feed: %s\n", err.msg);
		flow_server_free(s);
		return 1;
	}
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "lost %lu", &n) == 1) {
			flow_server_push_lost(s, n);
		} else if (sscanf(line, "%lu", &n) == 1) {
			for (; n; n--) {
				struct wag_event e = make_event(next++);

				flow_server_push(s, &e);
			}
		}
		puts("ok");
		fflush(stdout);
	}
	flow_server_free(s);
	return 0;
}
