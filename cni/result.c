// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <waggle/addr.h>

#include "json_out.h"
#include "result.h"
#include "wire.h"

static int flush(const struct json_out *j)
{
	size_t at = 0;

	if (j->overflow)
		return -EMSGSIZE;
	while (at < j->len) {
		ssize_t n = write(STDOUT_FILENO, j->buf + at, j->len - at);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			at += n;
	}
	return 0;
}

static bool has_old_ips(const struct cni_conf *conf)
{
	return strcmp(conf->version, "0.3.1") == 0 || strcmp(conf->version, "0.4.0") == 0;
}

static void put_interfaces(struct json_out *j, const struct cni_conf *conf,
			   const struct record *rec)
{
	char mtu[32] = "";

	if (strcmp(conf->version, "1.1.0") == 0)
		snprintf(mtu, sizeof(mtu), ",\"mtu\":%u", conf->mtu);
	jout_raw(j, ",\"interfaces\":[");
	for (int pod = 0; pod < 2; pod++) {
		const uint8_t *m = pod ? rec->mac : rec->host_mac;

		jout_raw(j, pod ? ",{\"name\":" : "{\"name\":");
		jout_string(j, pod ? rec->ifname : rec->host_ifname);
		jout_format(j, ",\"mac\":\"%02x:%02x:%02x:%02x:%02x:%02x\"%s", m[0], m[1], m[2],
			    m[3], m[4], m[5], mtu);
		if (pod)
			jout_member(j, "sandbox", rec->netns);
		jout_raw(j, "}");
	}
	jout_raw(j, "]");
}

int result_print(const struct cni_conf *conf, const struct record *rec)
{
	bool old = has_old_ips(conf);
	struct json_out j;

	jout_init(&j);
	jout_raw(&j, "{\"cniVersion\":");
	jout_string(&j, conf->version);
	put_interfaces(&j, conf, rec);
	jout_raw(&j, ",\"ips\":[");
	for (unsigned i = 0; i < rec->addr_count; i++) {
		bool v4 = wag_addr_is_v4(&rec->addrs[i].addr);
		char text[WAG_ADDR_TEXT];

		jout_raw(&j, i ? ",{" : "{");
		if (old)
			jout_format(&j, "\"version\":\"%d\",", v4 ? 4 : 6);
		jout_format(&j, "\"interface\":1,\"address\":\"%s/%d\",\"gateway\":\"%s\"}",
			    wag_addr_format(&rec->addrs[i].addr, text), v4 ? 32 : 128,
			    v4 ? WIRE_GATEWAY_V4 : WIRE_GATEWAY_V6);
	}
	jout_raw(&j, "],\"routes\":[");
	for (unsigned i = 0; i < rec->addr_count; i++) {
		bool v4 = wag_addr_is_v4(&rec->addrs[i].addr);

		jout_format(&j, "%s{\"dst\":\"%s\",\"gw\":\"%s\"}", i ? "," : "",
			    v4 ? "0.0.0.0/0" : "::/0", v4 ? WIRE_GATEWAY_V4 : WIRE_GATEWAY_V6);
	}
	jout_format(&j, "],\"dns\":%s}\n", conf->dns ? conf->dns : "{}");
	return flush(&j);
}

int result_print_versions(const char *version)
{
	static const char *const versions[] = { CNI_VERSIONS };
	struct json_out j;

	jout_init(&j);
	jout_raw(&j, "{\"cniVersion\":");
	jout_string(&j, version);
	jout_raw(&j, ",\"supportedVersions\":[");
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++)
		jout_format(&j, "%s\"%s\"", i ? "," : "", versions[i]);
	jout_raw(&j, "]}\n");
	return flush(&j);
}

int result_print_error(const char *version, const struct wag_err *err)
{
	struct json_out j;

	jout_init(&j);
	jout_raw(&j, "{\"cniVersion\":");
	jout_string(&j, *version ? version : CNI_VERSION_NEWEST);
	jout_format(&j, ",\"code\":%d", err->code);
	jout_member(&j, "msg", err->msg);
	jout_raw(&j, "}\n");
	return flush(&j);
}
