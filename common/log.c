// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <waggle/log.h>

static enum wag_log_level max_level = WAG_LOG_INFO;
static const char *const names[] = { "error", "warn", "info", "debug" };

void wag_log_set_level(enum wag_log_level level)
{
	max_level = level;
}

int wag_log_level_parse(const char *text, enum wag_log_level *ret)
{
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcasecmp(text, names[i]) == 0) {
			*ret = (enum wag_log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

void wag_log(enum wag_log_level level, const char *fmt, ...)
{
	char line[1024], stamp[32];
	struct timespec now;
	struct tm tm;
	va_list ap;

	if (level > max_level)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
	/* One write per line, so that lines of several threads do not mix. */
	fprintf(stderr, "%s.%03ldZ level=%s %s\n", stamp, now.tv_nsec / 1000000, names[level],
		line);
}
