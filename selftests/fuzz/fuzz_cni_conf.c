// SPDX-License-Identifier: Apache-2.0
/* The network configuration, results of other plugins, CNI_ARGS and the endpoint records. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <waggle/record.h>

#include "cni/conf.h"
#include "cni/env.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ranges_check(const struct cni_conf *conf)
{
	for (unsigned i = 0; i < conf->set_count; i++) {
		for (unsigned k = 0; k < conf->sets[i].range_count; k++) {
			const struct ipam_range *range = &conf->sets[i].ranges[k];
			char key[IPAM_RANGE_KEY];

			ipam_range_key(range, key);
			if (range->first > range->last || !range->first)
				abort();
		}
	}
}

static void args_parse(const uint8_t *data, size_t size)
{
	struct cni_env env = { 0 };
	struct wag_err err = { 0 };
	char *args = malloc(size + 1);

	if (!args)
		return;
	memcpy(args, data, size);
	args[size] = '\0';
	if (env_parse_args(args, &env, &err) > 0 && !err.msg[0])
		abort();
	free(args);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wag_err err = { 0 };
	struct conf_result result;
	struct cni_conf conf;
	struct record rec;

	for (enum conf_use use = CONF_VERSION; use < CONF_ADD; use++) {
		if (conf_parse((const char *)data, size, use, &conf, &err) && !err.msg[0])
			abort();
		conf_done(&conf);
	}
	if (conf_parse_result((const char *)data, size, "x", &result, &err) == 0 &&
	    (result.addr_count > RECORD_ADDRS || result.route_count > RECORD_ROUTES))
		abort();
	conf_result_done(&result);
	err = (struct wag_err){ 0 };
	if (conf_parse((const char *)data, size, CONF_ADD, &conf, &err) == 0)
		ranges_check(&conf);
	else if (!err.code || !err.msg[0])
		abort();
	conf_done(&conf);
	(void)record_parse((const char *)data, size, &rec);
	args_parse(data, size);
	return 0;
}
