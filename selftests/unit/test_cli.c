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
		{ "127.0.0.1:99999", -EINVAL }, { "127.0.0.1:0", -EINVAL },
		{ "127.0.0.1: 80", -EINVAL }, { "127.0.0.1:80x", -EINVAL },
		{ "[]:80", -EINVAL },	 { "unix:/nowhere/at/all", -ECONNREFUSED },
	};
	char *body = NULL;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(http_get(cases[i].addr, "/", &body), cases[i].r);
	assert_null(body);
}

/* Of a command itself: what it says, and its exit status. */
struct line {
	const char *args;
	int status;
	const char *says;
};

static void check_lines(const char *program, const struct line *lines, size_t n_lines)
{
	for (size_t i = 0; i < n_lines; i++) {
		char command[1024], text[8192];
		int status;
		size_t n;
		FILE *f;

		snprintf(command, sizeof(command), "exec 2>&1 '%s' %s", program, lines[i].args);
		f = popen(command, "r");
		assert_non_null(f);
		n = fread(text, 1, sizeof(text) - 1, f);
		text[n] = '\0';
		status = pclose(f);
		if (!WIFEXITED(status) || WEXITSTATUS(status) != lines[i].status ||
		    !strstr(text, lines[i].says))
			fail_msg("%s %s: status %d, \"%s\"", program, lines[i].args, status >> 8,
				 text);
	}
}

static void test_command_lines(void **state)
{
	static const struct line lines[] = {
		{ "", 2, "usage: waggle" },
		{ "help", 0, "usage: waggle" },
		{ "statu", 2, "no command 'statu'; did you mean 'status'?" },
		{ "map list", 2, "did you mean 'bpf map list'?" },
		{ "bpf lb maglev", 2, "which one? 'bpf lb maglev list', 'bpf lb maglev get'" },
		{ "--otput json status", 2, "no option '--otput'; did you mean '--output'?" },
		{ "status -vx", 2, "waggle: no option '-x'; 'waggle --help' lists them" },
		{ "status --all=3", 2, "waggle: --all takes no value" },
		{ "ipam show --fix", 2, "ipam show takes no --fix; 'ipam check' does" },
		{ "--fix ipam show", 2, "ipam show takes no --fix; 'ipam check' does" },
		{ "ipam show --fi", 2, "ipam show takes no --fix; 'ipam check' does" },
		{ "ipam check -v", 2, "ipam check takes no --verbose; 'ipam show' does" },
		{ "status --force", 2, "takes no --force; 'doctor' and 'ipam release' do" },
		{ "bpf map list --all", 2, "bpf map list takes no --all; 'bpf map dump' does" },
		{ "init cni --path /x", 2, "'init bpffs' and 'init cgroup2' do" },
		{ "init cni -o json", 2, "init cni takes no --output; 'waggle --help' lists" },
		{ "version --yes", 2, "version takes no --yes; 'doctor' does" },
		{ "doctor --force", 2, "--force and --yes go with --clean-kube-proxy" },
		{ "version --pin-dir /x --state-dir /x --health-addr x:1", 0, "waggle " },
		{ "status --pin-dir", 2, "waggle: --pin-dir needs a value" },
		{ "status -o", 2, "waggle: -o needs a value" },
		{ "status -o xml", 2, "-o xml: one of table, json, yaml" },
		{ "endpoint get", 2, "which one?" },
		{ "bpf map dump ''", 2, "usage: waggle bpf map dump NAME" },
		{ "ipam release 10.244.0", 2, "'10.244.0' is no address" },
		{ "policy trace --port 80x", 2, "--port '80x': must be 1 to 65535" },
		{ "policy trace", 2, "--port is missing: 1 to 65535" },
		{ "policy trace --port ''", 2, "--port '': must be 1 to 65535" },
		{ "policy trace --port 0", 2, "--port '0': must be 1 to 65535" },
		{ "policy trace --port 65536", 2, "--port '65536': must be 1 to 65535" },
		{ "policy trace --port ' 80'", 2, "--port ' 80': must be 1 to 65535" },
		{ "policy trace --port -1", 2, "--port '-1': must be 1 to 65535" },
		{ "policy trace --port 4294967376", 2, "--port '4294967376': must be 1 to 65535" },
		{ "policy trace --port 80", 2, "--from is missing" },
		{ "init cni --source /x --bin-dir /x", 1, "--source /x: No such file" },
		{ "init uninstall-cni --bin-dir /x", 2, "Give --conf-dir DIR" },
		{ "ipam release --force x", 2, "'x' is no address" },
		{ "version", 0, "waggle " WAGGLE_VERSION "\n" },
		{ "version >/dev/full", 1, "waggle: output: No space left on device" },
		{ "version -o json >/dev/full", 1, "waggle: output: No space left on device" },
		{ "version -o yaml >/dev/full", 1, "waggle: output: No space left on device" },
	};

	check_lines(WAGGLE_COMMAND, lines, sizeof(lines) / sizeof(lines[0]));
}

static void test_observe_lines(void **state)
{
	static const struct line lines[] = {
		{ "--help", 0, "Usage: flow-observe" },
		{ "--version", 0, "flow-observe " WAGGLE_VERSION "\n" },
		{ "version", 0, "flow-observe " WAGGLE_VERSION "\n" },
		{ "version 1", 2, "unexpected argument" },
		{ "help", 0, "list namespaces|version]" },
		{ "--since 2026-02-31", 2, "--since: \"2026-02-31\" is neither" },
		{ "--sicne 5m", 2, "unknown flag --sicne: did you mean --since?" },
		{ "--pod", 2, "flag --pod needs a value" },
		{ "statsu", 2, "unexpected argument \"statsu\"" },
		{ "--allowlist '{'", 2, "--allowlist" },
		{ "--server nonsense", 2, "\"nonsense\" is neither unix:///PATH nor HOST:PORT" },
		{ "--server 127.0.0.1:1x", 2, "\"127.0.0.1:1x\" is neither" },
		{ "--server 127.0.0.1:http", 2, "\"127.0.0.1:http\" is neither" },
		{ "--server 127.0.0.1:0", 2, "\"127.0.0.1:0\" is neither" },
		{ "--server 127.0.0.1:1", 1, "cannot connect to 127.0.0.1:1" },
		{ "--server unix:///nowhere/at/all", 1, "cannot connect to unix:///nowhere" },
		{ "--input-file /nowhere/at/all", 1, "cannot read /nowhere/at/all" },
		{ "--input-file /dev/null", 0, "" },
	};

	check_lines(OBSERVE_COMMAND, lines, sizeof(lines) / sizeof(lines[0]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_suggest),	     cmocka_unit_test(test_compact),
		cmocka_unit_test(test_formats),	     cmocka_unit_test(test_format_names),
		cmocka_unit_test(test_http_addresses), cmocka_unit_test(test_command_lines),
		cmocka_unit_test(test_observe_lines),  cmocka_unit_test(test_reader_leaves),
	};

	return cmocka_run_group_tests_name("cli", tests, NULL, NULL);
}
