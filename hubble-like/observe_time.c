// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "json_in.h"
#include "observe_args.h"

#define NS_PER_S 1000000000ULL

int observe_duration_parse(const char *text, uint64_t *ret_ns)
{
	static const struct {
		const char *unit;
		double ns;
	} units[] = { { "ms", 1e6 }, { "us", 1e3 },   { "ns", 1 },     { "s", 1e9 },
		      { "m", 60e9 }, { "h", 3600e9 }, { "d", 86400e9 },
		      /* Go has both letters: the micro sign and the Greek one. */
		      { "\u00b5s", 1e3 }, { "\u03bcs", 1e3 } };
	double sum = 0;

	if (!*text)
		return -EINVAL;
	while (*text) {
		const char *end = text + strspn(text, "0123456789.");
		size_t i = 0, n = sizeof(units) / sizeof(units[0]);
		double value;
		char *read;

		/* strtod() alone would also take signs, blanks, hex and "nan". */
		if (end == text)
			return -EINVAL;
		value = strtod(text, &read);
		if (read != end || value > 1e9)
			return -EINVAL;
		while (i < n && strncmp(units[i].unit, end, strlen(units[i].unit)))
			i++;
		if (i == n)
			return -EINVAL;
		sum += value * units[i].ns;
		text = end + strlen(units[i].unit);
	}
	if (sum > 9e18)
		return -EINVAL;
	*ret_ns = sum;
	return 0;
}

/* The coarser of Hubble's formats; %z is "Z", "+01:00" or "+0100". */
static int parse_coarse(const char *text, int64_t *ret_seconds)
{
	static const char *const formats[] = { "%Y-%m-%d", "%Y-%m-%dT%H%z", "%Y-%m-%dT%H:%M%z",
					       "%a, %d %b %Y %H:%M:%S %z" };

	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		struct tm tm = { 0 };
		const char *end = strptime(text, formats[i], &tm);
		long offset = tm.tm_gmtoff;

		if (!end || *end)
			continue;
		if (json_tm_seconds(&tm, ret_seconds) < 0)
			return -EINVAL;
		*ret_seconds -= offset;
		return 0;
	}
	return -EINVAL;
}

int observe_time_parse(const char *text, uint64_t now_ns, uint64_t *ret_ns)
{
	uint64_t duration;
	int64_t seconds;
	int32_t nanos = 0;

	if (!strcmp(text, "now")) {
		*ret_ns = now_ns;
		return 0;
	}
	if (observe_duration_parse(text, &duration) == 0) {
		*ret_ns = duration < now_ns ? now_ns - duration : 1;
		return 0;
	}
	if (json_time_parse(text, &seconds, &nanos) < 0 && parse_coarse(text, &seconds) < 0)
		return -EINVAL;
	if (seconds < 0 || seconds > (int64_t)(INT64_MAX / NS_PER_S) - 1)
		return -EINVAL;
	*ret_ns = seconds * NS_PER_S + nanos;
	return 0;
}
