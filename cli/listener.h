/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Who listens on a TCP port of this network namespace: true, with "kube-proxy (pid 7)" in ret, or
 * "" where the process cannot be seen (it is in another PID namespace).
 */
bool tcp_listener(uint16_t port, char *ret, size_t size);
