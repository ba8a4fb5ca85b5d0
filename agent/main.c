// SPDX-License-Identifier: Apache-2.0
#include <argp.h>
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <waggle/err.h>
#include <waggle/log.h>
#include "config.h"
#include "dataplane_bpf.h"
#include "loop.h"
#include "node_net.h"

const char *argp_program_version = "waggle-agent " WAGGLE_VERSION;

static int run(const struct config *config, struct wag_err *err)
{
	if (config->cleanup) {
		int r = dataplane_cleanup(config->pin_dir, config->state_dir, err);

		return r < 0 ? r : node_net_cleanup(err);
	}
	if (!config->manifests && !config->kubeconfig && !getenv("KUBERNETES_SERVICE_HOST") &&
	    !config->api_server)
		return wag_err_set(err, -EINVAL,
				   "where do Services come from? Give --manifests DIR or "
				   "--kubeconfig FILE (inside a cluster neither is needed)");
	log_info("waggle-agent %s on node %s", WAGGLE_VERSION, config->node_name);
	return loop_run(config, err);
}

int main(int argc, char **argv)
{
	struct wag_err err = { 0 };
	struct config config;
	int r;

	signal(SIGPIPE, SIG_IGN);
	/* Two threads that hardly allocate at once share one heap; what is large goes back whole.
	 */
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_MMAP_THRESHOLD, 128 << 10);
	if (config_init(&config) < 0) {
		log_error("out of memory");
		return EXIT_FAILURE;
	}
	r = config_parse(&config, argc, argv, &err);
	if (r == 0) {
		wag_log_set_level(config.log_level);
		r = run(&config, &err);
	}
	config_done(&config);
	if (r == 1) {
		/* Starting anew in the same process interrupts no connection: all is pinned. */
		execv("/proc/self/exe", argv);
		log_error("starting anew: %m");
		return EXIT_FAILURE;
	}
	if (r < 0) {
		log_error("%s", err.msg[0] ? err.msg : strerror(-r));
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
