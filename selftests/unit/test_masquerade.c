// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <waggle/addr.h>
#include "agent/masquerade.h"

#define PRIVATE "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16"
#define LINK "169.254.0.0/16 fe80::/10"

/* The list as text, a space between. */
static const char *text_of(const struct node_prefix *list, size_t n)
{
	static char buf[4096];
	char addr[WAG_ADDR_TEXT];
	size_t len = 0;

	buf[0] = 0;
	for (size_t i = 0; i < n; i++)
		len += snprintf(buf + len, sizeof(buf) - len, "%s%s/%u", i ? " " : "",
				wag_addr_format(&list[i].addr, addr), list[i].bits);
	return buf;
}

static void test_values(void **state)
{
	static const struct {
		const char *text, *list;
		uint64_t resync_ms;
	} cases[] = {
		{ "", PRIVATE " " LINK, 60000 },
		{ "# nothing\n", PRIVATE " " LINK, 60000 },
		{ "{}", PRIVATE " " LINK, 60000 },
		{ "masqLinkLocal: true\n", PRIVATE " fe80::/10", 60000 },
		{ "masqLinkLocalIPv6: true\n", PRIVATE " 169.254.0.0/16", 60000 },
		{ "nonMasqueradeCIDRs: []\n", LINK, 60000 },
		{ "nonMasqueradeCIDRs:\n", LINK, 60000 },
		{ "nonMasqueradeCIDRs:\n  - 10.40.0.0/14\n  - fd00::/8\nresyncInterval: 1m30s\n"
		  "masqLinkLocal: true\nmasqLinkLocalIPv6: true\n",
		  "10.40.0.0/14 fd00::/8", 90000 },
		{ "{\"nonMasqueradeCIDRs\": [\"192.0.2.1/32\"], \"masqLinkLocal\": false, "
		  "\"cidrLimit\": 1, \"resyncInterval\": \"1.5h\"}",
		  "192.0.2.1/32 " LINK, 5400000 },
		{ "nonMasqueradeCIDRs: [0.0.0.0/0, '::/0']", "0.0.0.0/0 ::/0 " LINK, 60000 },
		{ "resyncInterval: 250ms", PRIVATE " " LINK, 250 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct wag_err err = { 0 };
		struct masq_cidrs m = { 0 };

		if (masq_parse(&m, cases[i].text, strlen(cases[i].text), &err) < 0)
			fail_msg("'%s': %s", cases[i].text, err.msg);
		assert_string_equal(text_of(m.list, m.n), cases[i].list);
		assert_int_equal(m.resync_ms, cases[i].resync_ms);
		masq_cidrs_done(&m);
	}
}

static void test_refused(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "nonMasqueradeCIDRs: 10.0.0.0/8", "is no list" },
		{ "a: 1\n", "unknown key 'a'" },
		{ "\nnonMasqueradeCIDR: []\n", "did you mean nonMasqueradeCIDRs?" },
		{ "nonMasqueradeCIDRs:\n- 10.0.0.0/8\n- ten\n",
		  "line 3: nonMasqueradeCIDRs: 'ten'" },
		{ "nonMasqueradeCIDRs: [10.0.0.1]", "is no CIDR" },
		{ "nonMasqueradeCIDRs: [10.0.0.0/33]", "'10.0.0.0/33' is no CIDR" },
		{ "nonMasqueradeCIDRs: [10.0.0.1/8]", "bits set behind" },
		{ "nonMasqueradeCIDRs: ['fd00::1/64']", "bits set behind" },
		{ "nonMasqueradeCIDRs: ['::ffff:10.0.0.0/104']", "is IPv4" },
		{ "nonMasqueradeCIDRs: [10]", "must be a string" },
		{ "nonMasqueradeCIDRs: [10.0.0.0/8, 11.0.0.0/8]\ncidrLimit: 1", "has 2 CIDRs" },
		{ "cidrLimit: -1", "is no number" },
		{ "masqLinkLocal: 1", "masqLinkLocal: must be true or false" },
		{ "masqLinkLocalIPv6: 'true'", "masqLinkLocalIPv6: must be" },
		{ "resyncInterval: 60", "duration" },
		{ "resyncInterval: 60x", "duration" },
		{ "resyncInterval: 0s", "duration" },
		{ "resyncInterval: -5s", "duration" },
		{ "resyncInterval: 1s2", "duration" },
		{ "- 10.0.0.0/8", "keys and values" },
		{ "nonMasqueradeCIDRs: [", "line" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct wag_err err = { 0 };
		struct masq_cidrs m = { 0 };

		if (masq_parse(&m, cases[i].text, strlen(cases[i].text), &err) == 0)
			fail_msg("'%s' was taken", cases[i].text);
		if (!strstr(err.msg, cases[i].says))
			fail_msg("'%s': '%s' does not say '%s'", cases[i].text, err.msg,
				 cases[i].says);
	}
}

struct watched {
	struct event_base *base;
	struct masq_watch *watch;
	char dir[64], path[96];
	char list[4096], error[512];
	unsigned changes, errors;
};

static void on_changed(void *ctx, const struct node_prefix *list, size_t n)
{
	struct watched *t = ctx;

	snprintf(t->list, sizeof(t->list), "%s", text_of(list, n));
	t->changes++;
	event_base_loopbreak(t->base);
}

static void on_report(void *ctx, enum wag_log_level level, const char *msg)
{
	struct watched *t = ctx;

	if (level != WAG_LOG_ERROR)
		return;
	snprintf(t->error, sizeof(t->error), "%s", msg);
	t->errors++;
	event_base_loopbreak(t->base);
}

/* As a mounted ConfigMap changes: another file takes the name. */
static void write_file(struct watched *t, const char *text)
{
	char other[128];
	FILE *f;

	snprintf(other, sizeof(other), "%s.new", t->path);
	f = fopen(other, "we");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	assert_int_equal(rename(other, t->path), 0);
}

static int set_up(void **state)
{
	struct watched *t = calloc(1, sizeof(*t));

	strcpy(t->dir, "/tmp/waggle-masq-XXXXXX");
	if (!mkdtemp(t->dir))
		return -1;
	snprintf(t->path, sizeof(t->path), "%s/config", t->dir);
	t->base = event_base_new();
	*state = t;
	return 0;
}

static int tear_down(void **state)
{
	struct watched *t = *state;

	masq_watch_free(t->watch);
	event_base_free(t->base);
	unlink(t->path);
	rmdir(t->dir);
	free(t);
	return 0;
}

static void begin(struct watched *t)
{
	assert_int_equal(masq_watch_new(&t->watch, t->base, t->path, on_changed, on_report, t), 0);
}

/* Until something is told; the test's own time limit is what ends a wait in vain. */
static void wait_for(struct watched *t)
{
	event_base_dispatch(t->base);
}

static void test_follows(void **state)
{
	struct watched *t = *state;

	write_file(t, "nonMasqueradeCIDRs: [10.0.0.0/8]\nresyncInterval: 10ms\n");
	begin(t);
	assert_int_equal(t->changes, 1);
	assert_string_equal(t->list, "10.0.0.0/8 " LINK);
	write_file(t, "nonMasqueradeCIDRs: [11.0.0.0/8]\nresyncInterval: 10ms\n");
	wait_for(t);
	assert_int_equal(t->changes, 2);
	assert_string_equal(t->list, "11.0.0.0/8 " LINK);
	/* A file that says nothing sensible changes nothing, and is told once. */
	write_file(t, "nonMasqueradeCIDRs: [12]\nresyncInterval: 10ms\n");
	wait_for(t);
	assert_int_equal(t->changes, 2);
	assert_int_equal(t->errors, 1);
	assert_non_null(strstr(t->error, t->path));
	assert_non_null(strstr(t->error, "must be a string"));
	/* The same list again is no change; the next one is. */
	write_file(t, "nonMasqueradeCIDRs: [11.0.0.0/8]\nresyncInterval: 10ms\n");
	event_base_loop(t->base, EVLOOP_ONCE);
	write_file(t, "nonMasqueradeCIDRs: []\nresyncInterval: 10ms\n");
	wait_for(t);
	assert_int_equal(t->changes, 3);
	assert_string_equal(t->list, LINK);
	unlink(t->path);
	wait_for(t);
	assert_int_equal(t->changes, 4);
	assert_string_equal(t->list, PRIVATE " " LINK);
}

static void test_begins_without(void **state)
{
	struct watched *t = *state;

	begin(t);
	assert_int_equal(t->changes, 1);
	assert_string_equal(t->list, PRIVATE " " LINK);
}

static void test_begins_with_nonsense(void **state)
{
	struct watched *t = *state;

	write_file(t, "nonMasqueradeCIDRs: {}\n");
	begin(t);
	assert_int_equal(t->errors, 1);
	assert_int_equal(t->changes, 1);
	assert_string_equal(t->list, PRIVATE " " LINK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_refused),
		cmocka_unit_test_setup_teardown(test_follows, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_begins_without, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_begins_with_nonsense, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
