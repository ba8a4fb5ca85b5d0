/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port that answers HTTP as long as it lives. One that cannot be had is reported once, and tried
 * again until it can be: nothing else waits for it.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <waggle/abi_addr.h>
#include "source.h"

struct event_base;
struct evhttp_request;
struct http_port;

struct http_port_options {
	struct event_base *base;
	union {
		struct sockaddr sa;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} addr;
	bool both; /* addr is ::, and IPv4 is taken too; without IPv6 in the kernel, 0.0.0.0 */
	const char *what; /* names it in a report; copied */
	void (*answer)(struct evhttp_request *req, void *ctx); /* any path, GET and HEAD */
	void *ctx;
	struct source_reporter reporter;
};

int http_port_new(struct http_port **ret, const struct http_port_options *options); /* or -ENOMEM */
void http_port_free(struct http_port *p);
/* 0: it listens; else the positive errno of the last attempt. */
int http_port_error(const struct http_port *p);
/* The address the request came to. false: nobody knows any more. */
bool http_port_local(struct evhttp_request *req, struct wag_addr *ret);
void http_port_reply(struct evhttp_request *req, int code, const char *body);
