/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines of commands and daemon loops: "level=info msg=..." on stderr. Library code never logs.
 */
#pragma once

enum wag_log_level { WAG_LOG_ERROR, WAG_LOG_WARN, WAG_LOG_INFO, WAG_LOG_DEBUG };

void wag_log_set_level(enum wag_log_level level);
int wag_log_level_parse(const char *text, enum wag_log_level *ret); /* 0 or -EINVAL */
void wag_log(enum wag_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) wag_log(WAG_LOG_ERROR, __VA_ARGS__)
#define log_warn(...) wag_log(WAG_LOG_WARN, __VA_ARGS__)
#define log_info(...) wag_log(WAG_LOG_INFO, __VA_ARGS__)
#define log_debug(...) wag_log(WAG_LOG_DEBUG, __VA_ARGS__)
