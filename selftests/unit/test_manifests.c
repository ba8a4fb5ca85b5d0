// SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <cmocka.h>
#include <waggle/cleanup.h>

#include "agent/manifests.h"

static char dir[64], said[8192];
static struct model *model;

static bool io_error; /* of the next readdir() */

struct dirent *readdir(DIR *d)
{
	struct dirent *(*real)(DIR *) = (struct dirent * (*)(DIR *)) dlsym(RTLD_NEXT, "readdir64");

	if (!io_error)
		return real(d);
	errno = EIO;
	return NULL;
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

static void hear(void *ctx, enum wag_log_level level, const char *msg)
{
	size_t n = strlen(said);

	snprintf(said + n, sizeof(said) - n, "%s\n", msg);
}

static const struct source_reporter reporter = { .fn = hear };

static const char *in_dir(const char *name)
{
	static char path[2][512];
	static int turn;

	turn = !turn;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
	return path[turn];
}

static void put(const char *name, const char *text)
{
	FILE *f = fopen(in_dir(name), "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static char *service(const char *name, int port)
{
	static char text[512];

	snprintf(text, sizeof(text),
		 "apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec:\n"
		 "  clusterIP: 10.96.0.9\n  ports:\n  - port: %d\n",
		 name, port);
	return text;
}

static int port_of(const char *name)
{
	const struct object *obj = model_get(model, MODEL_SERVICE, "default", name);

	return obj ? obj->service.ports[0].port : 0;
}

static int setup(void **state)
{
	strcpy(dir, "/tmp/waggle-manifests-XXXXXX");
	said[0] = 0;
	model = NULL;
	return !mkdtemp(dir) || model_new(&model) < 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int teardown(void **state)
{
	model_free(model);
	return nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void test_yaml_in_all_its_forms(void **state)
{
	_cleanup_(manifests_freep) struct manifests *m = NULL;

	put("a.yaml",
	    "# a comment\n---\n---\napiVersion: v1\nkind: List\nitems:\n"
	    "- apiVersion: v1\n  kind: Service\n  metadata: &meta {name: one, namespace: n}\n"
	    "  spec: &spec\n    clusterIP: \"10.96.0.1\"\n    ports: [{port: 80}]\n"
	    "- {apiVersion: v1, kind: Service, metadata: {<<: *meta, name: two}, spec: *spec}\n"
	    "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n");
	put("b.json", "{\"kind\":\"ServiceList\",\"apiVersion\":\"v1\",\"items\":[{\"metadata\":"
		      "{\"name\":\"three\",\"annotations\":{\"x\":\"\\ud83d\\ude00\"}},\"spec\":"
		      "{\"clusterIP\":\"fd00::3\",\"ports\":[{\"port\":81}]}}]}");
	put("c.yml", "kind: Pod\nmetadata: {name: p}\nstatus: {podIPs: [{ip: 10.0.0.1}]}\n");
	put(".hidden.yaml", "][");
	put("d.yaml~", "][");
	assert_int_equal(manifests_new(&m, dir, model, &reporter), 0);
	assert_int_equal(manifests_scan(m, 0), 3);
	assert_string_equal(said, "");
	assert_non_null(model_get(model, MODEL_SERVICE, "n", "one"));
	assert_non_null(model_get(model, MODEL_SERVICE, "n", "two"));
	assert_int_equal(port_of("three"), 81);
	assert_int_equal(model_count(model, MODEL_POD), 1);
	assert_int_equal(manifests_scan(m, 0), 0);
}

/* As kubectl reads them: one JSON object behind the other. */
static void test_json_in_a_row(void **state)
{
#define META(name) "\"metadata\":{\"name\":\"" name "\"}"
#define PORTS(port) "\"clusterIP\":\"10.0.0.1\",\"ports\":[{\"port\":" port "}]"
#define ONE(name, port) "{\"kind\":\"Service\"," META(name) ",\n\"spec\":{" PORTS(port) "}}"
	_cleanup_(manifests_freep) struct manifests *m = NULL;

	assert_int_equal(manifests_new(&m, dir, model, &reporter), 0);
	put("a.json", ONE("a", "80") "\n" ONE("b", "81") ONE("c", "82") "\n\n");
	put("b.json", ONE("d", "83") "\n" ONE("e", "84") "\n]\n");
	assert_int_equal(manifests_scan(m, 0), 2);
	assert_int_equal(port_of("a"), 80);
	assert_int_equal(port_of("b"), 81);
	assert_int_equal(port_of("c"), 82);
	assert_int_equal(port_of("d") + port_of("e"), 0);
	assert_null(strstr(said, "/a.json"));
	assert_non_null(strstr(said, "/b.json:5: "));
}

static void test_broken_keeps_what_was(void **state)
{
	_cleanup_(manifests_freep) struct manifests *m = NULL;
	struct manifests_stats stats;

	assert_int_equal(manifests_new(&m, dir, model, &reporter), 0);
	put("a.yaml", service("a", 80));
	put("b.yaml", service("b", 80));
	assert_int_equal(manifests_scan(m, 0), 2);
	put("a.yaml", "kind: Service\nmetadata:\n  name: a\n bad: [\n");
	assert_int_equal(manifests_scan(m, 0), 1);
	assert_int_equal(port_of("a"), 80);
	assert_non_null(strstr(said, "/a.yaml:4: "));
	manifests_stats(m, &stats);
	assert_non_null(strstr(stats.error, "a.yaml:4: "));
	/* one bad object: named with its line, its old version and the other one stay */
	said[0] = 0;
	put("a.yaml", "kind: Service\nmetadata: {name: a}\nspec:\n  clusterIP: 10.0.0.1\n  ports:\n"
		      "  - port: 99999\n---\nkind: Service\nmetadata: {name: c}\n"
		      "spec: {clusterIP: 10.0.0.2, ports: [{port: 7}]}\n");
	assert_int_equal(manifests_scan(m, 0), 1);
	assert_non_null(strstr(said, "/a.yaml:6: Service default/a: spec.ports[0].port: 99999"));
	assert_int_equal(port_of("a"), 80);
	assert_int_equal(port_of("c"), 7);
	unlink(in_dir("a.yaml"));
	assert_int_equal(manifests_scan(m, 0), 1);
	assert_int_equal(port_of("a"), 0);
	assert_int_equal(port_of("b"), 80);
	manifests_stats(m, &stats);
	assert_string_equal(stats.error, "");
}

/* Of the right form and the wrong types: nobody can tell which object it was meant to be. */
static void test_wrong_types_keep_what_was(void **state)
{
	static const char *const texts[] = {
		"{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"x\"},\n"
		"\"spec\":{\"ports\":\"eighty\",\"clusterIP\":7}}\n",
		"{\"kind\":\"Service\",\"metadata\":{\"name\":\"a\"},\n\"spec\":{\"clusterIP\":[]}}"
		"\n",
		"{\"kind\":\"Service\",\"metadata\":{\"name\":7},\"spec\":{}}\n",
		"kind: Service\nmetadata: a\n",
		"kind: Service\nmetadata: {name: a}\nspec: []\n",
		"kind: List\nitems: {a: b}\n",
		"kind: EndpointSlice\nmetadata: {name: a}\naddressType: 4\nendpoints: no\n",
		"kind: Endpoints\nmetadata: {name: a}\nsubsets: 7\n",
		"kind: [Service]\nmetadata: {name: a}\n",
		"just words\n",
		"7\n",
	};
	_cleanup_(manifests_freep) struct manifests *m = NULL;

	assert_int_equal(manifests_new(&m, dir, model, &reporter), 0);
	put("a.yaml", service("a", 80));
	assert_int_equal(manifests_scan(m, 0), 1);
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		said[0] = 0;
		put("a.yaml", texts[i]);
		manifests_touch(m, "a.yaml");
		assert_int_equal(manifests_scan(m, 0), 1);
		assert_non_null(strstr(said, "/a.yaml:"));
		assert_non_null(strstr(said, "(1 objects) stays in force"));
		assert_int_equal(port_of("a"), 80);
	}
	put("a.yaml", service("b", 81));
	manifests_touch(m, "a.yaml");
	manifests_scan(m, 0);
	assert_int_equal(port_of("a"), 0);
	assert_int_equal(port_of("b"), 81);
}

static void test_a_broken_document_loses_no_other(void **state)
{
	static const struct {
		const char *text, *line;
	} cases[] = {
		{ "kind: Service\nmetadata:\n  name: x\n bad: [\n", "/a.yaml:14: " },
		{ "kind: Service\nmetadata:\n\tname: x\n", "/a.yaml:13: " },
		{ "\"unclosed\n", "/a.yaml:12: " },
		{ "a: 1\na: 2\n", "/a.yaml:12: key \"a\" stands here twice" },
		{ "a: \xff\n", "/a.yaml:10: invalid leading UTF-8" },
	};
	_cleanup_(manifests_freep) struct manifests *m = NULL;
	char text[2048];

	assert_int_equal(manifests_new(&m, dir, model, &reporter), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int n = snprintf(text, sizeof(text), "%%YAML 1.1\n---\n%s", service("a", 80));

		n += snprintf(text + n, sizeof(text) - n, "---\n%s", cases[i].text);
		n += snprintf(text + n, sizeof(text) - n, "--- # next\n%s", service("b", 81));
		snprintf(text + n, sizeof(text) - n,
			 "---\nkind: Service\nmetadata: {name: c}\nspec: {clusterIP: z}\n");
		said[0] = 0;
		put("a.yaml", text);
		manifests_touch(m, "a.yaml");
		assert_int_equal(manifests_scan(m, 0), 1);
		assert_int_equal(port_of("a"), 80);
		assert_int_equal(port_of("b"), 81);
		assert_non_null(strstr(said, cases[i].line));
		assert_non_null(strstr(said, ": Service default/c: spec.clusterIP"));
	}
	put("a.yaml", service("d", 82));
	manifests_touch(m, "a.yaml");
	manifests_scan(m, 0);
	assert_int_equal(port_of("a") + port_of("b"), 0);
	assert_int_equal(port_of("d"), 82);
}

/* A few lines that would be billions of objects, or a policy of millions of peers. */
static void test_aliases_multiply_no_further(void **state)
{
	_cleanup_(manifests_freep) struct manifests *m = NULL;
	FILE *f = fopen(in_dir("x.yaml"), "w");

	assert_non_null(f);
	fputs("kind: List\nitems:\n- &a0 {kind: Other}\n", f);
	for (int level = 1; level <= 3; level++) {
		fprintf(f, "- &a%d\n  kind: List\n  items:\n", level);
		for (int i = 0; i < 3000; i++)
			fprintf(f, "  - *a%d\n", level - 1);
	}
	fclose(f);
	put("y.yaml", service("a", 80));
	assert_int_equal(manifests_new(&m, dir, model, &reporter), 0);
	assert_int_equal(manifests_scan(m, 0), 2);
	assert_non_null(strstr(said, "/x.yaml:3675: aliases make it too large"));
	assert_int_equal(port_of("a"), 80);
}

static void test_files_that_are_no_text(void **state)
{
	_cleanup_(manifests_freep) struct manifests *m = NULL;

	assert_int_equal(manifests_new(&m, dir, model, &reporter), 0);
	assert_int_equal(mkfifo(in_dir("a.yaml"), 0600), 0);
	put("b.yaml", "");
	assert_int_equal(truncate(in_dir("b.yaml"), (64 << 20) + 1), 0);
	assert_int_equal(mkdir(in_dir("c.yaml"), 0700), 0);
	put("d.yaml", service("d", 80));
	assert_int_equal(symlink("nowhere", in_dir("e.yaml")), 0);
	assert_int_equal(symlink("f.yaml", in_dir("f.yaml")), 0);
	assert_int_equal(manifests_scan(m, 0), 5);
	assert_non_null(strstr(said, "/e.yaml: cannot read: it is a link to nothing\n"));
	assert_non_null(strstr(said, "/f.yaml: cannot read: Too many levels of symbolic links\n"));
	assert_non_null(strstr(said, "/a.yaml: cannot read: it is no regular file\n"));
	assert_non_null(strstr(said, "/b.yaml: cannot read: it is larger than 64 MiB; split it\n"));
	assert_int_equal(port_of("d"), 80);
	said[0] = 0;
	assert_int_equal(manifests_scan(m, 0), 0);
	assert_string_equal(said, "");
	put("nowhere", service("e", 81)); /* what the link meant comes, and goes */
	assert_int_equal(manifests_scan(m, 0), 1);
	assert_int_equal(port_of("e"), 81);
	assert_int_equal(unlink(in_dir("nowhere")), 0);
	assert_int_equal(manifests_scan(m, 0), 1);
	assert_int_equal(port_of("e"), 81);
	assert_non_null(strstr(said, "/e.yaml: what it held before (1 objects) stays in force\n"));
}

/* A folder on a network: what of it was not listed is not gone. */
static void test_a_folder_that_cannot_be_listed(void **state)
{
	_cleanup_(manifests_freep) struct manifests *m = NULL;

	assert_int_equal(manifests_new(&m, dir, model, &reporter), 0);
	put("a.yaml", service("a", 80));
	assert_int_equal(manifests_scan(m, 0), 1);
	io_error = true;
	assert_int_equal(manifests_scan(m, 0), -EIO);
	io_error = false;
	assert_non_null(strstr(said, "Input/output error; what it held stays in force"));
	assert_int_equal(port_of("a"), 80);
	assert_int_equal(manifests_scan(m, 0), 0);
}

static void test_last_file_wins(void **state)
{
	_cleanup_(manifests_freep) struct manifests *m = NULL;

	assert_int_equal(manifests_new(&m, dir, model, &reporter), 0);
	put("b.yaml", service("x", 2));
	assert_int_equal(manifests_scan(m, 0), 1);
	put("a.yaml", service("x", 1));
	assert_int_equal(manifests_scan(m, 0), 1);
	assert_int_equal(port_of("x"), 2);
	assert_non_null(
		strstr(said, "Service default/x is in a.yaml and in b.yaml: b.yaml counts"));
	put("c.yaml", service("x", 3));
	manifests_scan(m, 0);
	assert_int_equal(port_of("x"), 3);
	unlink(in_dir("c.yaml"));
	manifests_scan(m, 0);
	assert_int_equal(port_of("x"), 2);
	unlink(in_dir("b.yaml"));
	manifests_scan(m, 0);
	assert_int_equal(port_of("x"), 1);
}

#define ENDPOINTS "kind: Endpoints\nmetadata: {name: w}\nsubsets:\n- addresses: [{ip: 10.0.0.1}]\n"
#define SLICE                                                                                      \
	"kind: EndpointSlice\napiVersion: discovery.k8s.io/v1\nmetadata:\n  name: w-1\n"           \
	"  labels: {kubernetes.io/service-name: w}\naddressType: IPv4\n"

static void test_endpoints_yield_to_slices(void **state)
{
	_cleanup_(manifests_freep) struct manifests *m = NULL;
	const char *legacy = "w-endpoints-0";

	assert_int_equal(manifests_new(&m, dir, model, &reporter), 0);
	put("a.yaml", ENDPOINTS);
	manifests_scan(m, 0);
	assert_non_null(model_get(model, MODEL_SLICE, "default", legacy));
	put("b.yaml", SLICE);
	manifests_scan(m, 0);
	assert_null(model_get(model, MODEL_SLICE, "default", legacy));
	assert_non_null(model_get(model, MODEL_SLICE, "default", "w-1"));
	unlink(in_dir("b.yaml"));
	manifests_scan(m, 0);
	assert_non_null(model_get(model, MODEL_SLICE, "default", legacy));
	assert_string_equal(said, "");
}

static void test_hostile_texts(void **state)
{
	static const char *const texts[] = {
		"a: &a [*a]\n",
		"a: *nobody\n",
		"? [x]\n: y\n",
		"a: 1\na: 2\n",
		"<<: 7\n",
		"\xff\xfe\xfd",
		"kind: List\nitems: {}\n",
		"- 1\n- 2\n",
		"a: \"x\\0y\"\n",
		"kind: Service\nmetadata: {name: [x]}\n",
		"kind: 7\n",
		"\"unclosed",
		"{a: b",
	};
	_cleanup_(manifests_freep) struct manifests *m = NULL;
	char deep[4096];

	assert_int_equal(manifests_new(&m, dir, model, &reporter), 0);
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		said[0] = 0;
		put("x.yaml", texts[i]);
		manifests_touch(m, "x.yaml");
		assert_int_equal(manifests_scan(m, 0), 1);
		assert_non_null(strstr(said, "/x.yaml:"));
	}
	memset(deep, '[', sizeof(deep) - 1);
	deep[sizeof(deep) - 1] = 0;
	said[0] = 0;
	put("x.yaml", deep);
	manifests_scan(m, 0);
	assert_non_null(strstr(said, "/x.yaml:1: nested too deep"));
	assert_int_equal(model_count(model, MODEL_SERVICE), 0);
}

/* Runs the loop until the Service has the port (0: is gone). Returns how long that took. */
static uint64_t await(struct event_base *base, const char *name, int port)
{
	uint64_t start = now_ms();

	while (port_of(name) != port && now_ms() - start < 10000) {
		struct timeval tick = { .tv_usec = 2000 };

		event_base_loopexit(base, &tick);
		event_base_dispatch(base);
	}
	assert_int_equal(port_of(name), port);
	return now_ms() - start;
}

static void test_edits_are_live(void **state)
{
	struct event_base *base = event_base_new();
	struct source *s = NULL;
	struct source_status st;
	struct wag_err err;
	FILE *slow;

	put("a.yaml", service("a", 80));
	assert_int_equal(source_new_manifests(&s, base, model, dir, &reporter, &err), 0);
	assert_int_equal(port_of("a"), 80);
	assert_true(model_synced(model, MODEL_SERVICE) && model_synced(model, MODEL_POD));
	put("a.yaml", service("a", 81));
	assert_in_range(await(base, "a", 81), 0, 100);
	put("new", service("a", 82));
	rename(in_dir("new"), in_dir("a.yaml"));
	assert_in_range(await(base, "a", 82), 0, 100);
	unlink(in_dir("a.yaml"));
	assert_in_range(await(base, "a", 0), 0, 100);
	/* truncated and being written: what was there stays until the writer is done */
	put("b.yaml", service("b", 80));
	await(base, "b", 80);
	slow = fopen(in_dir("b.yaml"), "w");
	put("c.yaml", service("c", 80));
	await(base, "c", 80);
	assert_int_equal(port_of("b"), 80);
	fputs(service("b", 90), slow);
	fclose(slow);
	await(base, "b", 90);
	assert_string_equal(said, "");
	source_status(s, &st);
	assert_string_equal(st.type, "manifests");
	source_free(s);
	event_base_free(base);
}

static void test_configmap_swap(void **state)
{
	struct event_base *base = event_base_new();
	struct source *s = NULL;
	struct wag_err err;

	mkdir(in_dir("..v1"), 0755);
	mkdir(in_dir("..v2"), 0755);
	put("..v1/a.yaml", service("a", 80));
	put("..v2/a.yaml", service("a", 81));
	assert_int_equal(symlink("..v1", in_dir("..data")), 0);
	assert_int_equal(symlink("..data/a.yaml", in_dir("a.yaml")), 0);
	assert_int_equal(source_new_manifests(&s, base, model, dir, &reporter, &err), 0);
	assert_int_equal(port_of("a"), 80);
	assert_int_equal(symlink("..v2", in_dir("..data_tmp")), 0);
	rename(in_dir("..data_tmp"), in_dir("..data"));
	assert_in_range(await(base, "a", 81), 0, 100);
	source_free(s);
	s = NULL;
	assert_int_equal(source_new_manifests(&s, base, model, "/nowhere/x", &reporter, &err),
			 -ENOENT);
	assert_string_equal(err.msg, "--manifests /nowhere/x: No such file or directory");
	event_base_free(base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_yaml_in_all_its_forms, setup, teardown),
		cmocka_unit_test_setup_teardown(test_json_in_a_row, setup, teardown),
		cmocka_unit_test_setup_teardown(test_broken_keeps_what_was, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrong_types_keep_what_was, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_broken_document_loses_no_other, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_aliases_multiply_no_further, setup, teardown),
		cmocka_unit_test_setup_teardown(test_files_that_are_no_text, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_folder_that_cannot_be_listed, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_last_file_wins, setup, teardown),
		cmocka_unit_test_setup_teardown(test_endpoints_yield_to_slices, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_texts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_edits_are_live, setup, teardown),
		cmocka_unit_test_setup_teardown(test_configmap_swap, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
