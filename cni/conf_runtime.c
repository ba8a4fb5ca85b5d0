// SPDX-License-Identifier: Apache-2.0
/* runtimeConfig: capabilities portMappings, bandwidth, mac and ips. Others are not ours. */
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "conf.h"

static int port_number(json_t *obj, const char *key, uint16_t *ret, struct wag_err *err)
{
	json_t *v = json_object_get(obj, key);
	json_int_t port = json_integer_value(v);

	if (!json_is_integer(v) || port < 1 || port > UINT16_MAX)
		return wag_err_set(err, CNI_E_CONFIG,
				   "runtimeConfig.portMappings: %s must be 1 to 65535", key);
	*ret = port;
	return 0;
}

static int protocol_parse(json_t *obj, uint8_t *ret, struct wag_err *err)
{
	static const struct {
		const char *name;
		uint8_t proto;
	} known[] = { { "tcp", IPPROTO_TCP }, { "udp", IPPROTO_UDP }, { "sctp", IPPROTO_SCTP } };
	json_t *v = json_object_get(obj, "protocol");
	const char *text = v ? json_string_value(v) : "tcp";

	for (size_t i = 0; text && i < sizeof(known) / sizeof(known[0]); i++) {
		if (strcasecmp(text, known[i].name) == 0) {
			*ret = known[i].proto;
			return 0;
		}
	}
	return wag_err_set(err, CNI_E_CONFIG,
			   "runtimeConfig.portMappings: protocol must be tcp, udp or sctp");
}

static int port_parse(json_t *obj, struct conf_port *ret, struct wag_err *err)
{
	json_t *host_ip = json_object_get(obj, "hostIP");
	const char *addr = json_string_value(host_ip);
	int r;

	r = port_number(obj, "hostPort", &ret->host_port, err);
	if (!r)
		r = port_number(obj, "containerPort", &ret->port, err);
	if (!r)
		r = protocol_parse(obj, &ret->proto, err);
	if (r)
		return r;
	if (host_ip && !addr && !json_is_null(host_ip))
		return wag_err_set(err, CNI_E_CONFIG,
				   "runtimeConfig.portMappings: hostIP must be an address");
	ret->has_addr = addr && *addr;
	if (ret->has_addr && wag_addr_parse(addr, &ret->addr) < 0)
		return wag_err_set(err, CNI_E_CONFIG,
				   "runtimeConfig.portMappings: hostIP \"%.64s\" is no address",
				   addr);
	return 0;
}

static int ports_parse(json_t *list, struct conf_runtime *ret, struct wag_err *err)
{
	json_t *obj;
	size_t i;
	int r;

	/* Each may become two entries, one a family. */
	if (!json_is_array(list) || json_array_size(list) > RECORD_PORTS / 2)
		return wag_err_set(err, CNI_E_CONFIG,
				   "runtimeConfig.portMappings: must be a list of at most %d",
				   RECORD_PORTS / 2);
	json_array_foreach(list, i, obj)
	{
		r = port_parse(obj, &ret->ports[i], err);
		if (r)
			return r;
		ret->port_count++;
	}
	return 0;
}

static int bandwidth_parse(json_t *obj, struct conf_runtime *ret, struct wag_err *err)
{
	const struct {
		const char *key;
		uint64_t *value;
	} fields[] = {
		{ "egressRate", &ret->egress_rate },
		{ "egressBurst", &ret->egress_burst },
		{ "ingressRate", &ret->ingress_rate },
		{ "ingressBurst", &ret->ingress_burst },
	};

	if (!json_is_object(obj))
		return wag_err_set(err, CNI_E_CONFIG, "runtimeConfig.bandwidth: must be an object");
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		json_t *v = json_object_get(obj, fields[i].key);

		if (v && (!json_is_integer(v) || json_integer_value(v) < 0))
			return wag_err_set(err, CNI_E_CONFIG,
					   "runtimeConfig.bandwidth: %s must be a whole number, "
					   "0 or more",
					   fields[i].key);
		*fields[i].value = json_integer_value(v);
	}
	if ((ret->egress_burst && !ret->egress_rate) || (ret->ingress_burst && !ret->ingress_rate))
		return wag_err_set(err, CNI_E_CONFIG,
				   "runtimeConfig.bandwidth: a burst needs its rate");
	return 0;
}

static int mac_parse(json_t *v, struct conf_runtime *ret, struct wag_err *err)
{
	const char *text = json_string_value(v);
	uint8_t *m = ret->mac;
	int end = 0;

	if (text && !*text)
		return 0;
	if (!text || sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", m, m + 1, m + 2, m + 3,
			    m + 4, m + 5, &end) != 6 || text[end] || strlen(text) != 17 ||
	    m[0] & 1 || !memcmp(m, "\0\0\0\0\0", 6))
		return wag_err_set(err, CNI_E_CONFIG,
				   "runtimeConfig.mac: must be a unicast MAC address such as "
				   "\"0a:58:0a:f4:00:05\"");
	ret->has_mac = true;
	return 0;
}

static int ips_parse(json_t *list, struct conf_runtime *ret, struct wag_err *err)
{
	json_t *v;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) > CONF_IPS)
		return wag_err_set(err, CNI_E_CONFIG,
				   "runtimeConfig.ips: must be a list of at most %d addresses",
				   CONF_IPS);
	json_array_foreach(list, i, v)
	{
		const char *text = json_is_string(v) ? json_string_value(v) : "";
		unsigned bits;

		/* A prefix length may follow; a pod's address stands for itself. */
		if (wag_cidr_parse(text, &ret->ips[i], &bits) < 0)
			return wag_err_set(err, CNI_E_CONFIG,
					   "runtimeConfig.ips: \"%.64s\" is no address", text);
		ret->ip_count++;
	}
	return 0;
}

int conf_runtime_parse(json_t *runtime, struct conf_runtime *ret, struct wag_err *err)
{
	const struct {
		const char *key;
		int (*fn)(json_t *v, struct conf_runtime *ret, struct wag_err *err);
	} fields[] = {
		{ "portMappings", ports_parse },
		{ "bandwidth", bandwidth_parse },
		{ "mac", mac_parse },
		{ "ips", ips_parse },
	};

	if (runtime && !json_is_object(runtime))
		return wag_err_set(err, CNI_E_CONFIG, "runtimeConfig: must be an object");
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		json_t *v = json_object_get(runtime, fields[i].key);
		int r = v && !json_is_null(v) ? fields[i].fn(v, ret, err) : 0;

		if (r)
			return r;
	}
	return 0;
}
