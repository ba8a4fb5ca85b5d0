// SPDX-License-Identifier: Apache-2.0
/* An API server's bytes: cut, parsed, walked, packed, put into a model. */
#include <string.h>
#include <waggle/cleanup.h>

#include "agent/kube_parse.h"
#include "agent/kube_split.h"
#include "agent/object.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int keep(void *ctx, struct object *obj, const json_t *tree)
{
	model_upsert(ctx, obj);
	return 0;
}

static void bad(void *ctx, const struct kube_ident *ident, const struct wag_err *err)
{
	if (!err->msg[0] || !ident->kind)
		__builtin_trap();
}

static int parse(void *ctx, const char *text, size_t n)
{
	struct kube_sink sink = { keep, bad, ctx, "default", n & 1 };
	json_t *tree = json_loadb(text, n, JSON_DECODE_ANY, NULL);
	struct kube_status status;
	struct object *obj = NULL;
	struct kube_ident ident;
	struct wag_err err;

	kube_parse_status(tree, &status);
	for (int k = 0; tree && k < MODEL_KINDS; k++) {
		if (kube_parse_object(k, tree, &sink, &obj, &ident, &err) == 0)
			model_upsert(ctx, obj);
	}
	if (tree)
		kube_parse_any(tree, &sink);
	json_decref(tree);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kube_split split = { .piece_max = 65536 };
	struct kube_buf line = { 0 };
	struct model *m = NULL;

	if (model_new(&m) < 0)
		return 0;
	model_relist_begin(m, MODEL_SERVICE);
	parse(m, (const char *)data, size);
	kube_split_feed(&split, (const char *)data, size, parse, m);
	kube_lines_feed(&line, (const char *)data, size, 65536, parse, m);
	model_relist_end(m, MODEL_SERVICE);
	kube_split_done(&split);
	kube_buf_done(&line);
	model_free(m);
	return 0;
}
