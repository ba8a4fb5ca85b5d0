// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "cli/http_get.h"
#include "cli/output.h"
#include <waggle/suggest.h>

static void test_suggest(void **state)
{
	static const char *const names[] = { "status", "service list", "bpf lb list",
					     "bpf ct list" };
	static const struct {
		const char *typed, *want;
	} cases[] = {
		{ "statsu", "status" },	     { "servic list", "service list" },
		{ "bpf lb lst", "bpf lb list" }, { "frobnicate", NULL },
		{ "", NULL },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *got = suggest(cases[i].typed, names, 4);

		if (cases[i].want)
			assert_string_equal(got, cases[i].want);
		else
			assert_null(got);
	}
}

static void test_compact(void **state)
{
	json_t *value =
		json_pack("{s:i, s:s, s:{s:b}, s:[i,i]}", "a", 1, "b", "x", "c", "d", 1, "e", 2, 3);
	char *text = output_compact(value);

	assert_string_equal(text, "a=1 b=x c={d=true} e={2, 3}");
	free(text);
	json_decref(value);
}

/* What output_print() writes, read back; caller frees. */
static char *printed(enum output_format format, json_t *doc, const struct output_column *columns,
		     size_t n)
{
	FILE *f = tmpfile();
	int saved = dup(STDOUT_FILENO);
	char *text = calloc(1, 4096);

	assert_non_null(f);
	fflush(stdout);
	dup2(fileno(f), STDOUT_FILENO);
	assert_int_equal(output_print(format, doc, doc, columns, n, NULL), 0);
	fflush(stdout);
	dup2(saved, STDOUT_FILENO);
	close(saved);
	rewind(f);
	assert_true(fread(text, 1, 4095, f) > 0);
	fclose(f);
	return text;
}

static void test_formats(void **state)
{
	static const struct output_column columns[] = { { "ID", "id" }, { "LINES", "lines" } };
	json_t *doc = json_pack("[{s:i, s:[s,s]}, {s:i, s:[]}]", "id", 7, "lines", "one", "1.0",
				"id", 8, "lines");
	char *text;

	text = printed(OUTPUT_TABLE, doc, columns, 2);
	assert_string_equal(text, "ID   LINES\n7    one\n     1.0\n8\n");
	free(text);
	text = printed(OUTPUT_YAML, doc, columns, 2);
	assert_string_equal(text,
			    "- id: 7\n  lines:\n  - one\n  - \"1.0\"\n- id: 8\n  lines: []\n");
	free(text);
	text = printed(OUTPUT_JSON, doc, columns, 2);
	json_decref(doc);
	doc = json_loads(text, 0, NULL);
	assert_int_equal(json_array_size(doc), 2);
	free(text);
	json_decref(doc);
}

/* More than stdio keeps back, to a reader that has left: in a process of its own. */
static void test_reader_leaves(void **state)
{
	static const struct output_column columns[] = { { "N", "n" } };
	json_t *doc = json_array();

	for (int i = 0; i < 20000; i++)
		json_array_append_new(doc, json_pack("{s:i}", "n", i));
	fflush(stdout);
	for (enum output_format format = OUTPUT_TABLE; format <= OUTPUT_YAML; format++) {
		pid_t pid = fork();
		int status, fds[2];

		assert_true(pid >= 0);
		if (pid == 0) {
			signal(SIGPIPE, SIG_IGN);
			if (pipe(fds) < 0 || close(fds[0]) < 0 || dup2(fds[1], STDOUT_FILENO) < 0)
				_exit(1);
			_exit(-output_print(format, doc, doc, columns, 1, NULL));
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), EPIPE);
	}
	json_decref(doc);
}

static void test_format_names(void **state)
{
	enum output_format format = OUTPUT_TABLE;

	assert_int_equal(output_format_parse("yaml", &format), 0);
	assert_int_equal(format, OUTPUT_YAML);
	assert_int_equal(output_format_parse("xml", &format), -EINVAL);
	assert_int_equal(format, OUTPUT_YAML);
}

static void test_http_addresses(void **state)
{
	static const struct {
		const char *addr;
		int r;
	} cases[] = {
		{ "nonsense", -EINVAL }, { ":80", -EINVAL }, { "127.0.0.1:", -EINVAL },
		{ "[]:80", -EINVAL },	 { "unix:/nowhere/at/all", -ECONNREFUSED },
	};
	char *body = NULL;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(http_get(cases[i].addr, "/", &body), cases[i].r);
	assert_null(body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_suggest),	     cmocka_unit_test(test_compact),
		cmocka_unit_test(test_formats),	     cmocka_unit_test(test_format_names),
		cmocka_unit_test(test_http_addresses),
		cmocka_unit_test(test_reader_leaves),
	};

	return cmocka_run_group_tests_name("cli", tests, NULL, NULL);
}
