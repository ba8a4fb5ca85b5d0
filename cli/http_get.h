/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * GETs http://addr/path; addr is "127.0.0.1:9879", "[::1]:9879", "localhost:9879" or "unix:/path".
 * Returns the HTTP status with the body in *ret_body (caller frees), or -errno: -ECONNREFUSED when
 * nobody listens, -ETIMEDOUT after 2 s, -EINVAL for an address we cannot read, -EPROTO for an
 * answer we cannot.
 */
int http_get(const char *addr, const char *path, char **ret_body);
