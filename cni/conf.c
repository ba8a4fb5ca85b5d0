// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include <waggle/addr.h>
#include <waggle/cleanup.h>
#include <waggle/pins.h>

#include "conf.h"

static const char *const versions[] = { CNI_VERSIONS };

static bool is_known_version(const char *text)
{
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++)
		if (strcmp(versions[i], text) == 0)
			return true;
	return false;
}

static int version_parse(json_t *root, enum conf_use use, struct cni_conf *conf,
			 struct wag_err *err)
{
	json_t *v = json_object_get(root, "cniVersion");
	const char *text = json_string_value(v);

	if (v && !text)
		return wag_err_set(err, CNI_E_DECODE, "cniVersion: must be a string");
	if (!text)
		return wag_err_set(err, CNI_E_VERSION,
				   "cniVersion: missing; write one of 0.3.1, 0.4.0, 1.0.0, 1.1.0");
	if (is_known_version(text) ||
	    (use == CONF_VERSION && *text && strlen(text) < sizeof(conf->version))) {
		memcpy(conf->version, text, strlen(text) + 1);
		return 0;
	}
	return wag_err_set(err, CNI_E_VERSION,
			   "cniVersion \"%.32s\" is not supported; use one of 0.3.1, 0.4.0, 1.0.0, "
			   "1.1.0",
			   text);
}

static int name_parse(json_t *root, struct cni_conf *conf, struct wag_err *err)
{
	const char *name = json_string_value(json_object_get(root, "name"));
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789._-";

	if (!name || !*name)
		return wag_err_set(err, CNI_E_CONFIG,
				   "name: missing; give the network a name, such as \"waggle\"");
	if (strlen(name) >= sizeof(conf->name) || name[strspn(name, allowed)] ||
	    strchr("._-", name[0]))
		return wag_err_set(err, CNI_E_CONFIG,
				   "name: must start with a letter or digit and have only letters, "
				   "digits, '.', '_', '-' (at most %zu)",
				   sizeof(conf->name) - 1);
	snprintf(conf->name, sizeof(conf->name), "%s", name);
	return 0;
}

static int dir_parse(json_t *root, const char *key, const char *normal, char *buf, size_t size,
		     struct wag_err *err)
{
	json_t *v = json_object_get(root, key);
	const char *text = v ? json_string_value(v) : normal;

	if (!text || !pins_dir_is_plain(text) || strlen(text) >= size)
		return wag_err_set(err, CNI_E_CONFIG,
				   "%s: must be an absolute path without \".\" and \"..\" of at "
				   "most %zu bytes; the default is %s",
				   key, size - 1, normal);
	snprintf(buf, size, "%s", text);
	return 0;
}

static int mtu_parse(json_t *root, struct cni_conf *conf, struct wag_err *err)
{
	json_t *v = json_object_get(root, "mtu");
	json_int_t mtu = json_integer_value(v);

	if (v && (!json_is_integer(v) || (mtu && (mtu < 576 || mtu > 65535))))
		return wag_err_set(err, CNI_E_CONFIG,
				   "mtu: must be a whole number of 576 to 65535; leave it out for "
				   "what fits the node's devices");
	conf->mtu = mtu;
	return 0;
}

int conf_mtu(struct cni_conf *conf, uint32_t agent_mtu, struct wag_err *err)
{
	if (!conf->mtu)
		conf->mtu = agent_mtu ? agent_mtu : 1500;
	for (unsigned i = 0; i < conf->set_count; i++)
		if (!wag_addr_is_v4(&conf->sets[i].ranges[0].subnet) && conf->mtu < 1280)
			return wag_err_set(err, CNI_E_CONFIG,
					   "mtu: IPv6 needs 1280 or more, this is %u", conf->mtu);
	return 0;
}

static int chaining_parse(json_t *root, struct cni_conf *conf, struct wag_err *err)
{
	/* All of them give a pod one end of a veth and leave the other on the node. */
	static const char *const known[] = { "generic-veth", "aws-cni", "azure", "flannel" };
	json_t *v = json_object_get(root, "chainingMode");
	const char *text = json_string_value(v);

	if (!v || (text && (!*text || strcmp(text, "none") == 0)))
		return 0;
	for (size_t i = 0; text && i < sizeof(known) / sizeof(known[0]); i++)
		conf->chained = conf->chained || strcmp(text, known[i]) == 0;
	if (!conf->chained)
		return wag_err_set(err, CNI_E_CONFIG,
				   "chainingMode: must be none, generic-veth, aws-cni, azure or "
				   "flannel");
	return 0;
}

static int ipam_type_parse(json_t *ipam, struct cni_conf *conf, struct wag_err *err)
{
	json_t *v = json_object_get(ipam, "type");
	const char *text = json_string_value(v);

	if (!v || (text && !*text))
		return 0;
	if (!text || strlen(text) >= sizeof(conf->ipam_type) || strchr(text, '/') || *text == '.')
		return wag_err_set(err, CNI_E_CONFIG,
				   "ipam.type: must be the name of a plugin in CNI_PATH; leave it "
				   "out for waggle's own addresses");
	memcpy(conf->ipam_type, text, strlen(text) + 1);
	return 0;
}

static int ipam_parse(json_t *root, struct cni_conf *conf, struct wag_err *err)
{
	json_t *ipam = json_object_get(root, "ipam"), *v;
	const char *key;
	int r;

	if (ipam && !json_is_object(ipam))
		return wag_err_set(err, CNI_E_CONFIG, "ipam: must be an object");
	r = ipam_type_parse(ipam, conf, err);
	if (r || conf->ipam_type[0])
		return r; /* the rest is the plugin's */
	json_object_foreach(ipam, key, v)
	{
		if (strcmp(key, "ranges") != 0 && strcmp(key, "type") != 0)
			return wag_err_set(err, CNI_E_FIELD,
					   "ipam.%.64s is not supported; without a type, ipam has "
					   "only ranges",
					   key);
	}
	v = json_object_get(ipam, "ranges");
	return v ? conf_ranges_parse(v, conf, err) : 0;
}

static int dns_parse(json_t *root, struct cni_conf *conf, struct wag_err *err)
{
	json_t *dns = json_object_get(root, "dns");

	if (dns && !json_is_object(dns))
		return wag_err_set(err, CNI_E_CONFIG, "dns: must be an object");
	if (dns) {
		conf->dns = json_dumps(dns, JSON_COMPACT);
		if (!conf->dns)
			return wag_err_set(err, CNI_E_IO, "out of memory");
	}
	return 0;
}

static int prev_result_parse(json_t *root, struct cni_conf *conf, struct wag_err *err)
{
	json_t *prev = json_object_get(root, "prevResult");
	int r;

	if (!prev || json_is_null(prev))
		return 0;
	r = conf_result_parse(prev, "prevResult", &conf->prev, err);
	if (r)
		return r;
	conf->prev_result = json_dumps(prev, JSON_COMPACT);
	return conf->prev_result ? 0 : wag_err_set(err, CNI_E_IO, "out of memory");
}

static int prev_result_check(const struct cni_conf *conf, struct wag_err *err)
{
	if (conf->prev_result && !conf->chained)
		return wag_err_set(err, CNI_E_FIELD,
				   "prevResult: waggle-cni must be the first plugin of the list, "
				   "or be given a chainingMode such as generic-veth");
	if (!conf->prev_result && conf->chained)
		return wag_err_set(err, CNI_E_CONFIG,
				   "prevResult: missing; with a chainingMode, waggle-cni comes "
				   "after the plugin that makes the interface");
	return 0;
}

static int attachments_parse(json_t *root, struct cni_conf *conf, struct wag_err *err)
{
	json_t *list = json_object_get(root, "cni.dev/valid-attachments"), *obj;
	size_t i;

	if (!list)
		return 0; /* cnitool sends none */
	/* Go writes an empty list as null. */
	if (!json_is_array(list) && !json_is_null(list))
		return wag_err_set(err, CNI_E_CONFIG,
				   "cni.dev/valid-attachments: must be a list of attachments to "
				   "keep");
	conf->attachments = calloc(json_array_size(list) + 1, sizeof(*conf->attachments));
	if (!conf->attachments)
		return wag_err_set(err, CNI_E_IO, "out of memory");
	json_array_foreach(list, i, obj)
	{
		const char *id = json_string_value(json_object_get(obj, "containerID"));
		const char *ifname = json_string_value(json_object_get(obj, "ifname"));
		struct conf_attachment *a = &conf->attachments[conf->attachment_count];

		if (!id || !ifname)
			return wag_err_set(err, CNI_E_CONFIG,
					   "cni.dev/valid-attachments: each needs a containerID "
					   "and an ifname");
		/* Longer than any of ours. */
		if (strlen(id) >= sizeof(a->container_id) || strlen(ifname) >= sizeof(a->ifname))
			continue;
		memcpy(a->container_id, id, strlen(id) + 1);
		memcpy(a->ifname, ifname, strlen(ifname) + 1);
		conf->attachment_count++;
	}
	return 0;
}

static int add_parse(json_t *root, enum conf_use use, struct cni_conf *conf, struct wag_err *err)
{
	int r;

	r = chaining_parse(root, conf, err);
	if (!r)
		r = mtu_parse(root, conf, err);
	if (!r && !conf->chained)
		r = ipam_parse(root, conf, err);
	if (!r)
		r = dns_parse(root, conf, err);
	if (r || use == CONF_STATUS)
		return r;
	r = conf_runtime_parse(json_object_get(root, "runtimeConfig"), &conf->runtime, err);
	if (!r)
		r = prev_result_parse(root, conf, err);
	return r ? r : prev_result_check(conf, err);
}

/* CHECK came with 0.4.0, GC and STATUS with 1.1.0. */
static int use_check(const struct cni_conf *conf, enum conf_use use, struct wag_err *err)
{
	const char *since = use == CONF_CHECK ? "0.4.0"
			    : use == CONF_GC || use == CONF_STATUS ? "1.1.0"
								    : "0.3.1";

	if (strcmp(conf->version, since) < 0)
		return wag_err_set(err, CNI_E_VERSION,
				   "cniVersion %s has no %s; write %s or later", conf->version,
				   use == CONF_CHECK ? "CHECK" : use == CONF_GC ? "GC" : "STATUS",
				   since);
	return 0;
}

static int use_parse(json_t *root, enum conf_use use, struct cni_conf *conf, struct wag_err *err)
{
	struct wag_err ignored = { 0 };

	if (use == CONF_ADD || use == CONF_STATUS)
		return add_parse(root, use, conf, err);
	/* The rest may be broken by now. */
	chaining_parse(root, conf, &ignored);
	if (!conf->chained)
		ipam_type_parse(json_object_get(root, "ipam"), conf, &ignored);
	return use == CONF_CHECK ? prev_result_parse(root, conf, err)
	       : use == CONF_GC	 ? attachments_parse(root, conf, err)
				 : 0;
}

int conf_parse(const char *text, size_t size, enum conf_use use, struct cni_conf *ret,
	       struct wag_err *err)
{
	_cleanup_(json_decrefp) json_t *root = NULL;
	json_error_t at;
	int r;

	memset(ret, 0, sizeof(*ret));
	if (size > CONF_STDIN_MAX)
		return wag_err_set(err, CNI_E_DECODE,
				   "the network configuration on stdin is larger than 1 MB");
	root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &at);
	if (!root)
		return wag_err_set(err, CNI_E_DECODE,
				   "the network configuration on stdin is not JSON: line %d: %s",
				   at.line, at.text);
	if (!json_is_object(root))
		return wag_err_set(err, CNI_E_DECODE,
				   "the network configuration on stdin is not a JSON object");
	r = version_parse(root, use, ret, err);
	if (r || use == CONF_VERSION)
		return r;
	r = use_check(ret, use, err);
	if (!r)
		r = name_parse(root, ret, err);
	if (!r)
		r = dir_parse(root, "pinDir", WAG_PIN_DIR, ret->pin_dir, sizeof(ret->pin_dir), err);
	if (!r)
		r = dir_parse(root, "stateDir", WAG_STATE_DIR, ret->state_dir,
			      sizeof(ret->state_dir), err);
	return r ? r : use_parse(root, use, ret, err);
}

void conf_done(struct cni_conf *conf)
{
	conf_result_done(&conf->prev);
	free(conf->dns);
	free(conf->prev_result);
	free(conf->attachments);
	conf->dns = conf->prev_result = NULL;
	conf->attachments = NULL;
}
