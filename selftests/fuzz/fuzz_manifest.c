// SPDX-License-Identifier: Apache-2.0
/* A manifest's text: YAML or JSON, any encoding, any tree. */
#include <stdint.h>
#include <string.h>

#include "agent/manifests_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void complain(void *ctx, unsigned line, const char *text)
{
	if (!text[0])
		__builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct batch b = { .complain = complain };
	struct wag_err err = { 0 };
	int r;

	r = batch_parse(&b, (const char *)data, size, size & 1, &err);
	if (r < 0 && !err.msg[0])
		__builtin_trap();
	batch_done(&b);
	return 0;
}
