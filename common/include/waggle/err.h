/* SPDX-License-Identifier: Apache-2.0 */
/* An error a person reads: what failed, on what, and what to do next. */
#pragma once

struct wag_err {
	int code; /* -errno; 0: none */
	char msg[512];
};

/* Fills err (may be NULL) and returns code, so that "return wag_err_set(err, -EINVAL, ...)" reads
 * well. */
int wag_err_set(struct wag_err *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Puts words before what err already says. */
int wag_err_prefix(struct wag_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
