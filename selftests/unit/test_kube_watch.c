// SPDX-License-Identifier: Apache-2.0
/* How the watch machine cuts what arrives; the machine itself is driven by k8s/test_watch.py. */
#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <waggle/cleanup.h>

#include "agent/kube_split.h"

struct seen {
	size_t n, bytes;
	char last[256];
	int stop_after; /* 0: never */
};

static int see(void *ctx, const char *text, size_t n)
{
	struct seen *seen = ctx;

	seen->n++;
	seen->bytes += n;
	snprintf(seen->last, sizeof(seen->last), "%.*s", (int)n, text);
	return seen->stop_after && seen->n == (size_t)seen->stop_after ? -EINTR : 0;
}

static char *read_fixture(const char *name, size_t *ret_size)
{
	_cleanup_fclose_ FILE *f = NULL;
	char path[512], *text;

	snprintf(path, sizeof(path), "%s/k8s/fixtures/%s", WAGGLE_SELFTESTS, name);
	f = fopen(path, "r");
	assert_non_null(f);
	text = malloc(1 << 20);
	*ret_size = fread(text, 1, 1 << 20, f);
	return text;
}

static void test_a_list_in_any_pieces(void **state)
{
	static const size_t pieces[] = { 1, 2, 3, 7, 100, 4096, 1 << 20 };
	_cleanup_free_ char *text = NULL;
	size_t size;

	text = read_fixture("list-full-endpointslices.json", &size);
	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		struct kube_split split = { .piece_max = 1 << 20 };
		struct seen seen = { 0 };
		json_t *envelope;

		for (size_t at = 0; at < size; at += pieces[i]) {
			size_t n = size - at < pieces[i] ? size - at : pieces[i];

			assert_int_equal(kube_split_feed(&split, text + at, n, see, &seen), 0);
		}
		assert_int_equal(seen.n, 11);
		envelope = json_loadb(split.envelope.bytes, split.envelope.n, 0, NULL);
		assert_non_null(envelope);
		assert_int_equal(json_array_size(json_object_get(envelope, "items")), 0);
		assert_true(json_is_string(
			json_object_get(json_object_get(envelope, "metadata"), "resourceVersion")));
		json_decref(envelope);
		kube_split_done(&split);
	}
}

static void test_odd_lists(void **state)
{
	static const struct {
		const char *text;
		size_t n;
		const char *last, *envelope;
	} cases[] = {
		{ "{\"items\":[]}", 0, "", "{\"items\":[]}" },
		{ "{\"items\" : [ {} , {\"a\":\"],[\\\"}\"} ] ,\"x\":1}", 2, "{\"a\":\"],[\\\"}\"}",
		  "{\"items\" : [] ,\"x\":1}" },
		{ "{\"items\":[1,[2,3],\"a,b\"]}", 3, "\"a,b\"", "{\"items\":[]}" },
		{ "{\"items\":null}", 0, "", "{\"items\":null}" },
		{ "{\"items\":{\"items\":[1]}}", 0, "", "{\"items\":{\"items\":[1]}}" },
		{ "{\"x\":\"\\\"items\\\":[\",\"items\":[7]}", 1, "7",
		  "{\"x\":\"\\\"items\\\":[\",\"items\":[]}" },
		{ "]}]}{{", 0, "", "]}]}{{" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kube_split split = { .piece_max = 1 << 20 };
		struct seen seen = { 0 };

		assert_int_equal(
			kube_split_feed(&split, cases[i].text, strlen(cases[i].text), see, &seen),
			0);
		assert_int_equal(seen.n, cases[i].n);
		assert_string_equal(seen.last, cases[i].last);
		assert_int_equal(split.envelope.n, strlen(cases[i].envelope));
		assert_memory_equal(split.envelope.bytes, cases[i].envelope, split.envelope.n);
		kube_split_done(&split);
	}
}

static void test_limits(void **state)
{
	struct kube_split split = { .piece_max = 10 };
	_cleanup_free_ char *deep = malloc(1000);
	struct seen seen = { .stop_after = 1 };
	struct kube_buf line = { 0 };

	assert_int_equal(kube_split_feed(&split, "{\"items\":[\"12345678901\"]}", 25, see, &seen),
			 -EMSGSIZE);
	kube_split_done(&split);
	memset(deep, '[', 1000);
	assert_int_equal(kube_split_feed(&split, deep, 1000, see, &seen), -EMSGSIZE);
	kube_split_done(&split);
	assert_int_equal(kube_split_feed(&split, "{\"items\":[1,2]}", 15, see, &seen), -EINTR);
	kube_split_done(&split);
	assert_int_equal(kube_lines_feed(&line, "0123456789\n", 11, 5, see, &seen), -EMSGSIZE);
	kube_buf_done(&line);
}

static void test_a_watch_in_any_pieces(void **state)
{
	_cleanup_free_ char *text = NULL;
	size_t size;

	text = read_fixture("watch-services.jsonl", &size);
	for (size_t piece = 1; piece < 40000; piece = piece * 3 + 1) {
		struct kube_buf line = { 0 };
		struct seen seen = { 0 };

		for (size_t at = 0; at < size; at += piece)
			assert_int_equal(kube_lines_feed(&line, text + at,
							 size - at < piece ? size - at : piece,
							 1 << 20, see, &seen),
					 0);
		assert_int_equal(seen.n, 28);
		assert_int_equal(seen.bytes, size - 28);
		kube_buf_done(&line);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_list_in_any_pieces),
		cmocka_unit_test(test_odd_lists),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_a_watch_in_any_pieces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
