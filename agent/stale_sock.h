/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connected UDP sockets whose backend has left its Service: they never ask our hooks again, so they
 * would send into the void for ever. They are closed, as Cilium does: the owner's next call gets
 * ECONNABORTED, and who connects again gets another backend. Only a socket that we translated, for
 * that Service, to that backend. In slices on the agent's loop, well after the maps.
 */
#pragma once

#include <stdint.h>
#include <waggle/abi_maps.h>
#include "source.h"

struct event_base;
struct stale_sock;

struct stale_sock_options {
	struct event_base *base;
	int sock_fd;	       /* wag_sock; borrowed */
	const char *state_dir; /* whose records say where pods' network namespaces are */
	struct source_reporter reporter;
};

struct stale_sock_stats {
	uint64_t closed;
	uint64_t failed; /* namespaces that could not be looked into, and sockets that stayed */
};

int stale_sock_new(struct stale_sock **ret, const struct stale_sock_options *options);
void stale_sock_free(struct stale_sock *s); /* NULL is fine */
void stale_sock_gone(struct stale_sock *s, const struct wag_backend_key *backend);
void stale_sock_get_stats(const struct stale_sock *s, struct stale_sock_stats *ret);
