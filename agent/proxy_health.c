// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <string.h>
#include "proxy_health.h"

void proxy_health_queued(struct proxy_health *h, uint64_t now_ms)
{
	if (h->queued)
		return;
	h->queued = true;
	h->queued_ms = now_ms;
}

void proxy_health_applied(struct proxy_health *h, struct timespec wall)
{
	h->queued = false;
	h->updated = wall;
}

bool proxy_health_ok(const struct proxy_health *h, uint64_t now_ms)
{
	return !h->queued || now_ms - h->queued_ms < PROXY_HEALTH_LATE_MS;
}

/* As Go prints a time; who was never up to date has its zero. */
static const char *time_text(struct timespec t, char buf[64])
{
	struct tm tm;
	size_t n;

	if (!t.tv_sec)
		return "0001-01-01 00:00:00 +0000 UTC";
	gmtime_r(&t.tv_sec, &tm);
	n = strftime(buf, 64, "%Y-%m-%d %H:%M:%S", &tm);
	snprintf(buf + n, 64 - n, ".%09ld +0000 UTC", t.tv_nsec);
	return buf;
}

/* Who is healthy is up to date: lastUpdated is then the current time, as readers have it. */
static size_t put_times(const struct proxy_health *h, bool ok, struct timespec wall,
			struct proxy_answer *ret)
{
	char updated[64], now[64];

	ret->code = ok ? 200 : 503;
	return (size_t)snprintf(ret->body, sizeof(ret->body),
				"{\"lastUpdated\": \"%s\",\"currentTime\": \"%s\"",
				time_text(ok ? wall : h->updated, updated), time_text(wall, now));
}

void proxy_health_healthz(const struct proxy_health *h, uint64_t now_ms, struct timespec wall,
			  bool node_eligible, struct proxy_answer *ret)
{
	size_t n = put_times(h, proxy_health_ok(h, now_ms) && node_eligible, wall, ret);

	snprintf(ret->body + n, sizeof(ret->body) - n, ", \"nodeEligible\": %s}",
		 node_eligible ? "true" : "false");
}

void proxy_health_livez(const struct proxy_health *h, uint64_t now_ms, struct timespec wall,
			struct proxy_answer *ret)
{
	size_t n = put_times(h, proxy_health_ok(h, now_ms), wall, ret);

	snprintf(ret->body + n, sizeof(ret->body) - n, "}");
}

/* A name from a manifest may hold anything. */
static const char *json_text(const char *text, char *buf, size_t size)
{
	size_t n = 0;

	for (; *text && n + 8 < size; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			buf[n++] = '\\';
		if (c < 0x20)
			n += (size_t)snprintf(buf + n, size - n, "\\u%04x", c);
		else
			buf[n++] = (char)c;
	}
	buf[n] = 0;
	return buf;
}

void proxy_health_service(const char *ns, const char *name, uint32_t local, bool proxy_ok,
			  struct proxy_answer *ret)
{
	char ns_text[160], name_text[520];

	ret->code = local && proxy_ok ? 200 : 503;
	snprintf(ret->body, sizeof(ret->body),
		 "{\n"
		 "\t\"service\": {\n"
		 "\t\t\"namespace\": \"%s\",\n"
		 "\t\t\"name\": \"%s\"\n"
		 "\t},\n"
		 "\t\"localEndpoints\": %u,\n"
		 "\t\"serviceProxyHealthy\": %s\n"
		 "}",
		 json_text(ns, ns_text, sizeof(ns_text)),
		 json_text(name, name_text, sizeof(name_text)), local, proxy_ok ? "true" : "false");
}
