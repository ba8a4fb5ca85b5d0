// SPDX-License-Identifier: Apache-2.0
/* A test's line: ok NAME, or FAIL NAME: why. */
#include <stdarg.h>
#include <stdio.h>

#include "world.h"

static char why[1024];
static unsigned failed;

/* The first thing that is not as expected is what the test's line says. */
bool expect(bool ok, const char *fmt, ...)
{
	va_list args;

	if (ok || why[0])
		return ok;
	va_start(args, fmt);
	vsnprintf(why, sizeof(why), fmt, args);
	va_end(args);
	return false;
}

void test_begin(void)
{
	why[0] = '\0';
}

bool test_failed(void)
{
	return why[0];
}

void test_end(const char *fmt, ...)
{
	char name[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(name, sizeof(name), fmt, args);
	va_end(args);
	if (why[0])
		printf("FAIL bpf: %s: %s\n", name, why);
	else
		printf("ok bpf: %s\n", name);
	failed += why[0] != 0;
}

unsigned tests_failed(void)
{
	return failed;
}
