// SPDX-License-Identifier: Apache-2.0
/* Runs every packet test. */
#include <stdio.h>
#include <string.h>

#include "world.h"

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
	return tests_failed() ? 1 : 0;
}
