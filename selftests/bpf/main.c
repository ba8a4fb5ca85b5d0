// SPDX-License-Identifier: Apache-2.0
/* Runs every packet test: ok NAME, or FAIL NAME: why. With an argument, only names that hold it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

int main(void)
{
	struct wag_config cfg;
	struct world w;
	int r;

	setvbuf(stdout, NULL, _IOLBF, 0);
	r = world_enter();
	if (r < 0) {
		printf("FAIL bpf: a namespace of our own: %s\n", strerror(-r));
		return 1;
	}
	world_defaults(&cfg);
	r = world_open(&w, &cfg);
	if (r < 0) {
		printf("FAIL bpf: programs load: %s\n", strerror(-r));
		return 1;
	}
	suite_cases(&w);
	suite_refuse(&w);
	suite_icmp(&w);
	suite_adopt(&w);
	suite_config(&w);
	suite_fragment(&w);
	suite_limit(&w);
	suite_flow_cache(&w);
	suite_service(&w);
	suite_random(&w);
	suite_policy_random(&w);
	suite_xdp(&w);
	world_close(&w);
	suite_conntrack();
	suite_tunnel();
	suite_dsr();
	suite_pack();
	suite_masquerade();
	return failed ? 1 : 0;
}
