// SPDX-License-Identifier: Apache-2.0
/* What another plugin answered: prevResult of a list, or an ipam plugin's own result. */
#include <stdio.h>
#include <string.h>

#include <waggle/addr.h>
#include <waggle/cleanup.h>

#include "conf.h"

static int list_get(json_t *root, const char *key, const char *what, json_t **ret,
		    struct wag_err *err)
{
	*ret = json_object_get(root, key);
	if (*ret && !json_is_array(*ret) && !json_is_null(*ret))
		return wag_err_set(err, CNI_E_DECODE, "%s: %s must be a list", what, key);
	return 0;
}

static bool has_index(json_t *index)
{
	return json_is_integer(index) && json_integer_value(index) >= 0;
}

/* Is interfaces[index] the container's? Without an index, the address is the container's. */
static bool is_in_sandbox(json_t *root, json_t *index)
{
	json_t *interfaces = json_object_get(root, "interfaces");
	const char *sandbox;

	if (!has_index(index))
		return true;
	sandbox = json_string_value(json_object_get(
		json_array_get(interfaces, json_integer_value(index)), "sandbox"));
	return sandbox && *sandbox;
}

static int addrs_parse(json_t *root, const char *what, struct conf_result *ret,
		       struct wag_err *err)
{
	json_t *list, *obj;
	size_t i;
	int r;

	r = list_get(root, "ips", what, &list, err);
	if (r)
		return r;
	json_array_foreach(list, i, obj)
	{
		const char *text = json_string_value(json_object_get(obj, "address"));
		json_t *index = json_object_get(obj, "interface");
		struct conf_addr *a = &ret->addrs[ret->addr_count];

		if (!text || !strchr(text, '/') || wag_cidr_parse(text, &a->addr, &a->bits) < 0)
			return wag_err_set(err, CNI_E_DECODE,
					   "%s: ips: address must be like \"10.1.0.5/24\"", what);
		if (!is_in_sandbox(root, index))
			continue;
		if (ret->addr_count == RECORD_ADDRS - 1)
			return wag_err_set(err, CNI_E_CONFIG, "%s: more than %d addresses", what,
					   RECORD_ADDRS - 1);
		a->iface = has_index(index) && json_integer_value(index) < CONF_IFACES
				   ? (int)json_integer_value(index)
				   : -1;
		ret->addr_count++;
	}
	return 0;
}

/* 0 also where it is no number or none that the kernel could have. */
static uint32_t number_get(json_t *obj, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(obj, key));

	return n > 0 && n <= UINT32_MAX ? n : 0;
}

static int gateway_parse(json_t *obj, const char *what, struct wag_addr *ret, struct wag_err *err)
{
	json_t *v = json_object_get(obj, "gw");
	const char *text = json_string_value(v);

	memset(ret, 0, sizeof(*ret));
	if (!v || json_is_null(v) || (text && !*text))
		return 0;
	if (!text || wag_addr_parse(text, ret) < 0)
		return wag_err_set(err, CNI_E_DECODE,
				   "%s: routes: gw must be like \"10.0.0.1\"", what);
	return 0;
}

static int routes_parse(json_t *root, const char *what, struct conf_result *ret,
			struct wag_err *err)
{
	json_t *list, *obj;
	size_t i;
	int r;

	r = list_get(root, "routes", what, &list, err);
	if (r)
		return r;
	json_array_foreach(list, i, obj)
	{
		const char *text = json_string_value(json_object_get(obj, "dst"));
		struct conf_route *route = &ret->routes[ret->route_count];

		if (ret->route_count == RECORD_ROUTES)
			return wag_err_set(err, CNI_E_CONFIG, "%s: more than %d routes", what,
					   RECORD_ROUTES);
		if (!text || wag_cidr_parse(text, &route->to.dst, &route->to.bits) < 0)
			return wag_err_set(err, CNI_E_DECODE,
					   "%s: routes: dst must be like \"10.0.0.0/8\"", what);
		r = gateway_parse(obj, what, &route->gw, err);
		if (r)
			return r;
		route->table = number_get(obj, "table");
		route->priority = number_get(obj, "priority");
		ret->route_count++;
	}
	return 0;
}

static void text_get(json_t *obj, const char *key, char *buf, size_t size)
{
	const char *text = json_string_value(json_object_get(obj, key));

	snprintf(buf, size, "%s", text ? text : "");
}

static int ifaces_parse(json_t *root, const char *what, struct conf_result *ret,
			struct wag_err *err)
{
	json_t *list, *obj;
	size_t i;
	int r;

	r = list_get(root, "interfaces", what, &list, err);
	if (r)
		return r;
	json_array_foreach(list, i, obj)
	{
		struct conf_iface *iface = &ret->ifaces[ret->iface_count];

		if (ret->iface_count == CONF_IFACES)
			break;
		text_get(obj, "name", iface->name, sizeof(iface->name));
		text_get(obj, "mac", iface->mac, sizeof(iface->mac));
		text_get(obj, "sandbox", iface->sandbox, sizeof(iface->sandbox));
		iface->mtu = number_get(obj, "mtu");
		ret->iface_count++;
	}
	return 0;
}

int conf_result_parse(json_t *root, const char *what, struct conf_result *ret, struct wag_err *err)
{
	json_t *dns = json_object_get(root, "dns");
	int r;

	if (!json_is_object(root))
		return wag_err_set(err, CNI_E_DECODE, "%s: must be an object", what);
	r = addrs_parse(root, what, ret, err);
	if (!r)
		r = routes_parse(root, what, ret, err);
	if (!r)
		r = ifaces_parse(root, what, ret, err);
	if (r)
		return r;
	if (json_is_object(dns) && json_object_size(dns)) {
		ret->dns = json_dumps(dns, JSON_COMPACT);
		if (!ret->dns)
			return wag_err_set(err, CNI_E_IO, "out of memory");
	}
	return 0;
}

int conf_parse_result(const char *text, size_t size, const char *what, struct conf_result *ret,
		      struct wag_err *err)
{
	_cleanup_(json_decrefp) json_t *root = NULL;
	json_error_t at;

	memset(ret, 0, sizeof(*ret));
	root = json_loadb(text, size, 0, &at);
	if (!root)
		return wag_err_set(err, CNI_E_DECODE, "%s: its answer is not JSON: line %d: %s",
				   what, at.line, at.text);
	return conf_result_parse(root, what, ret, err);
}

void conf_result_done(struct conf_result *result)
{
	free(result->dns);
	result->dns = NULL;
}

const struct conf_iface *conf_result_iface(const struct conf_result *result, const char *name,
					   bool pod)
{
	for (unsigned i = 0; i < result->iface_count; i++)
		if (strcmp(result->ifaces[i].name, name) == 0 &&
		    !result->ifaces[i].sandbox[0] == !pod)
			return &result->ifaces[i];
	return NULL;
}
