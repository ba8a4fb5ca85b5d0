// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <waggle/addr.h>

#include "json_out.h"
#include "result.h"
#include "wire.h"

static int write_all(const char *text)
{
	for (size_t at = 0, size = strlen(text); at < size;) {
		ssize_t n = write(STDOUT_FILENO, text + at, size - at);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			at += n;
	}
	return 0;
}

static int flush(const struct json_out *j)
{
	return j->overflow ? -EMSGSIZE : write_all(j->buf);
}

int result_print_text(const char *json)
{
	int r = write_all(json);

	return r < 0 ? r : write_all("\n");
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
		snprintf(mtu, sizeof(mtu), ",\"mtu\":%u", rec->mtu);
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

static void put_ips(struct json_out *j, const struct cni_conf *conf, const struct record *rec)
{
	char text[WAG_ADDR_TEXT];

	jout_raw(j, ",\"ips\":[");
	for (unsigned i = 0; i < rec->addr_count; i++) {
		bool v4 = wag_addr_is_v4(&rec->addrs[i].addr);

		jout_raw(j, i ? ",{" : "{");
		if (has_old_ips(conf))
			jout_format(j, "\"version\":\"%d\",", v4 ? 4 : 6);
		jout_format(j, "\"interface\":1,\"address\":\"%s/%u\",\"gateway\":\"%s\"}",
			    wag_addr_format(&rec->addrs[i].addr, text),
			    wire_bits(&rec->addrs[i].addr),
			    v4 ? WIRE_GATEWAY_V4 : WIRE_GATEWAY_V6);
	}
	jout_raw(j, "]");
}

static void put_route(struct json_out *j, const struct cni_conf *conf, const struct record *rec,
		      const struct wag_addr *dst, unsigned bits, bool first)
{
	bool v4 = wag_addr_is_v4(dst);
	char text[WAG_ADDR_TEXT];

	jout_format(j, "%s{\"dst\":\"%s/%u\",\"gw\":\"%s\"", first ? "" : ",",
		    wag_addr_format(dst, text), bits, v4 ? WIRE_GATEWAY_V4 : WIRE_GATEWAY_V6);
	if (rec->route_mtu && strcmp(conf->version, "1.1.0") == 0)
		jout_format(j, ",\"mtu\":%u", rec->route_mtu);
	jout_raw(j, "}");
}

static void put_routes(struct json_out *j, const struct cni_conf *conf, const struct record *rec)
{
	struct wag_addr gw, any;
	bool first = true;

	jout_raw(j, ",\"routes\":[");
	for (int v4 = 1; v4 >= 0; v4--) {
		if (!wire_has_family(rec, v4))
			continue;
		wire_gateway(v4, &gw, &any);
		put_route(j, conf, rec, &any, 0, first);
		first = false;
	}
	for (unsigned i = 0; i < rec->route_count; i++)
		if (rec->routes[i].bits) /* the defaults stand there already */
			put_route(j, conf, rec, &rec->routes[i].dst, rec->routes[i].bits, false);
	jout_raw(j, "]");
}

int result_print(const struct cni_conf *conf, const struct record *rec, const char *dns)
{
	struct json_out j;
	int r;

	jout_init(&j);
	jout_raw(&j, "{\"cniVersion\":");
	jout_string(&j, conf->version);
	put_interfaces(&j, conf, rec);
	put_ips(&j, conf, rec);
	put_routes(&j, conf, rec);
	jout_raw(&j, ",\"dns\":");
	r = flush(&j);
	/* As long as somebody wrote it. */
	if (r == 0)
		r = write_all(conf->dns ? conf->dns : dns ? dns : "{}");
	return r < 0 ? r : write_all("}\n");
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

int result_print_error(const char *version, const struct wag_err *err, const char *details)
{
	struct json_out j;

	jout_init(&j);
	jout_raw(&j, "{\"cniVersion\":");
	jout_string(&j, *version ? version : CNI_VERSION_NEWEST);
	jout_format(&j, ",\"code\":%d", err->code);
	jout_member(&j, "msg", err->msg);
	if (details)
		jout_member(&j, "details", details);
	jout_raw(&j, "}\n");
	return flush(&j);
}
