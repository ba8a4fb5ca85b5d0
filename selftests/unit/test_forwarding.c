// SPDX-License-Identifier: Apache-2.0
/* A Service's annotations for DSR and the algorithm, in both languages of the API. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <waggle/cleanup.h>
#include "agent/kube_pb.h"
#include "agent/model.h"
#include "agent/object.h"

static const struct {
	const char *key, *value, *other; /* other: Cilium's, beside it */
	enum lb_mode mode;
	enum lb_algorithm algorithm;
	const char *other_key; /* NULL: that for DSR */
} rows[] = {
	{ "team", "dsr", NULL, LB_MODE_DEFAULT },
	{ MODEL_FORWARDING, "dsr", NULL, LB_MODE_DSR },
	{ MODEL_FORWARDING, "snat", NULL, LB_MODE_SNAT },
	{ MODEL_FORWARDING, "snat", "dsr", LB_MODE_SNAT },
	{ MODEL_FORWARDING, "", "dsr", LB_MODE_DSR },
	{ MODEL_FORWARDING, "DSR", NULL, LB_MODE_DEFAULT },
	{ MODEL_FORWARDING, "hybrid", NULL, LB_MODE_DEFAULT },
	{ "team", "x", "dsr", LB_MODE_DSR },
	{ "team", "x", "snat", LB_MODE_SNAT },
	{ MODEL_ALGORITHM, "maglev", NULL, 0, LB_ALGORITHM_MAGLEV },
	{ MODEL_ALGORITHM, "random", NULL, 0, LB_ALGORITHM_RANDOM },
	{ MODEL_ALGORITHM, "Maglev", NULL, 0, LB_ALGORITHM_UNKNOWN },
	{ MODEL_ALGORITHM, "", NULL, 0, LB_ALGORITHM_DEFAULT },
	{ MODEL_ALGORITHM, "random", "maglev", 0, LB_ALGORITHM_RANDOM, MODEL_ALGORITHM_CILIUM },
	{ MODEL_ALGORITHM, "", "maglev", 0, LB_ALGORITHM_MAGLEV, MODEL_ALGORITHM_CILIUM },
	{ "team", "x", "maglev", 0, LB_ALGORITHM_MAGLEV, MODEL_ALGORITHM_CILIUM },
	{ "team", "x", "rand", 0, LB_ALGORITHM_UNKNOWN, MODEL_ALGORITHM_CILIUM },
};

struct said {
	enum lb_mode mode;
	enum lb_algorithm algorithm;
};

static const char *other_key(size_t i)
{
	return rows[i].other_key ? rows[i].other_key : MODEL_FORWARDING_CILIUM;
}

static int keep(void *ctx, struct object *obj, const json_t *tree)
{
	*(struct said *)ctx = (struct said){ obj->service.forwarding, obj->service.algorithm };
	object_free(obj);
	return 0;
}

static void complain(void *ctx, const struct kube_ident *ident, const struct wag_err *err)
{
	fail_msg("%s", err->msg);
}

static struct said of_json(size_t i)
{
	const char *other = rows[i].other;
	struct said said = { LB_MODE_HYBRID };
	const struct kube_sink sink = { keep, complain, &said, NULL, false };
	json_t *tree = json_pack("{s:s, s:s, s:{s:s, s:s, s:{s:s, s:s*}}, s:{}}", "kind", "Service",
				 "apiVersion", "v1", "metadata", "namespace", "a", "name", "x",
				 "annotations", rows[i].key, rows[i].value, other_key(i),
				 other, "spec");

	assert_non_null(tree);
	assert_int_equal(kube_parse_any(tree, &sink), 0);
	json_decref(tree);
	return said;
}

/* Everything here is shorter than 128 bytes, so that a length is one. */
static size_t put(char *at, unsigned field, const char *bytes, size_t n)
{
	assert_in_range(n, 0, 127);
	at[0] = (char)(field << 3 | 2);
	at[1] = (char)n;
	memcpy(at + 2, bytes, n);
	return n + 2;
}

static size_t put_pair(char *at, const char *key, const char *value)
{
	char pair[128];
	size_t n = put(pair, 1, key, strlen(key));

	n += put(pair + n, 2, value, strlen(value));
	return put(at, 12, pair, n);
}

static struct said of_protobuf(size_t i)
{
	struct kube_arena arena = { .max = 1 << 16 };
	const struct object *obj = NULL;
	struct kube_ident ident;
	struct wag_err err = { 0 };
	char meta[256], bytes[256];
	struct said said;
	size_t n = put(meta, 1, "x", 1);

	n += put(meta + n, 3, "a", 1);
	n += put_pair(meta + n, rows[i].key, rows[i].value);
	if (rows[i].other)
		n += put_pair(meta + n, other_key(i), rows[i].other);
	n = put(bytes, 1, meta, n);
	assert_int_equal(kube_pb_object(MODEL_SERVICE, bytes, n, &arena, &obj, &ident, &err), 0);
	said = (struct said){ obj->service.forwarding, obj->service.algorithm };
	kube_arena_done(&arena);
	return said;
}

static void test_annotations(void **state)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct said said[] = { of_json(i), of_protobuf(i) };

		for (int j = 0; j < 2; j++) {
			assert_int_equal(said[j].mode, rows[i].mode);
			assert_int_equal(said[j].algorithm, rows[i].algorithm);
		}
	}
}

static void test_a_change_is_one(void **state)
{
	const struct object a = { .kind = MODEL_SERVICE };
	struct object b = a;

	assert_true(object_equal(&a, &b));
	b.service.forwarding = LB_MODE_DSR;
	assert_false(object_equal(&a, &b));
	b = a;
	b.service.algorithm = LB_ALGORITHM_MAGLEV;
	assert_false(object_equal(&a, &b));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_annotations),
		cmocka_unit_test(test_a_change_is_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
