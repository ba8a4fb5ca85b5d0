// SPDX-License-Identifier: Apache-2.0
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf.h"
#include "env.h"

#define ALNUM "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

static int command_parse(const char *text, enum cni_command *ret, struct wag_err *err)
{
	static const struct {
		const char *name;
		enum cni_command command;
	} commands[] = {
		{ "ADD", CNI_ADD },
		{ "DEL", CNI_DEL },
		{ "CHECK", CNI_CHECK },
		{ "GC", CNI_GC },
		{ "STATUS", CNI_STATUS },
		{ "VERSION", CNI_VERSION },
	};

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(commands[i].name, text) == 0) {
			*ret = commands[i].command;
			return 0;
		}
	}
	return wag_err_set(err, CNI_E_ENV,
			   "CNI_COMMAND \"%.32s\" is not known; use ADD, DEL, CHECK, GC, STATUS or "
			   "VERSION",
			   text);
}

static int var_copy(const char *name, bool needed, char *buf, size_t size, struct wag_err *err)
{
	const char *v = getenv(name);

	if (!v || !*v) {
		buf[0] = '\0';
		return needed ? wag_err_set(err, CNI_E_ENV, "%s is not set", name) : 0;
	}
	if (strlen(v) >= size)
		return wag_err_set(err, CNI_E_ENV, "%s is longer than %zu bytes", name, size - 1);
	for (const char *c = v; *c; c++)
		if (*c < 0x20 || *c > 0x7e)
			return wag_err_set(err, CNI_E_ENV, "%s has a byte that is not ASCII text",
					   name);
	memcpy(buf, v, strlen(v) + 1);
	return 0;
}

static int ids_check(const struct cni_env *env, struct wag_err *err)
{
	const char *id = env->container_id, *ifname = env->ifname;

	if (id[strspn(id, ALNUM "._-")] || strchr("._-", id[0]))
		return wag_err_set(
			err, CNI_E_ENV,
			"CNI_CONTAINERID must start with a letter or digit and have only "
			"letters, digits, '.', '_', '-'");
	if (strpbrk(ifname, "/: \t%") || strcmp(ifname, ".") == 0 || strcmp(ifname, "..") == 0)
		return wag_err_set(err, CNI_E_ENV,
				   "CNI_IFNAME \"%s\" is no interface name: no '/', ':', '%%' or "
				   "space",
				   ifname);
	if (strcmp(ifname, "all") == 0 || strcmp(ifname, "default") == 0)
		return wag_err_set(err, CNI_E_ENV,
				   "CNI_IFNAME \"%s\" is no interface name: sysctls have it",
				   ifname);
	return 0;
}

static int arg_take(struct cni_env *env, const char *key, size_t key_len, const char *value,
		    size_t len, bool *unknown, struct wag_err *err)
{
	const struct {
		const char *key;
		char *buf;
		size_t size;
	} known[] = {
		{ "K8S_POD_NAMESPACE", env->ns, sizeof(env->ns) },
		{ "K8S_POD_NAME", env->pod, sizeof(env->pod) },
		{ "K8S_POD_UID", env->uid, sizeof(env->uid) },
		{ "K8S_POD_INFRA_CONTAINER_ID", NULL, 0 },
		{ "IgnoreUnknown", NULL, 0 },
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (strlen(known[i].key) != key_len || memcmp(known[i].key, key, key_len) != 0)
			continue;
		if (!known[i].buf)
			return 0;
		if (len >= known[i].size)
			return wag_err_set(err, CNI_E_ENV, "CNI_ARGS: %s is longer than %zu bytes",
					   known[i].key, known[i].size - 1);
		for (size_t k = 0; k < len; k++)
			if (!strchr(ALNUM ".-_:", value[k]))
				return wag_err_set(err, CNI_E_ENV, "CNI_ARGS: %s is no name",
						   known[i].key);
		memcpy(known[i].buf, value, len);
		known[i].buf[len] = '\0';
		return 0;
	}
	*unknown = true;
	return 0;
}

static bool ignore_unknown(const char *args)
{
	static const char *const yes[] = { "1", "t", "T", "true", "TRUE", "True" };

	for (; *args; args += strcspn(args, ";"), args += *args == ';') {
		size_t len = strcspn(args, ";");

		if (len < 14 || memcmp(args, "IgnoreUnknown=", 14) != 0)
			continue;
		for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
			if (len - 14 == strlen(yes[i]) && !memcmp(args + 14, yes[i], len - 14))
				return true;
	}
	return false;
}

int env_parse_args(const char *args, struct cni_env *env, struct wag_err *err)
{
	bool ignore = ignore_unknown(args);

	while (*args) {
		size_t len = strcspn(args, ";"), key = strcspn(args, "=;");
		bool unknown = false;
		int r;

		if (len && key == len)
			return wag_err_set(
				err, CNI_E_ENV,
				"CNI_ARGS: must be KEY=VALUE pairs with ';' between them");
		if (len) {
			r = arg_take(env, args, key, args + key + 1, len - key - 1, &unknown, err);
			if (r)
				return r;
		}
		if (unknown && !ignore)
			return wag_err_set(
				err, CNI_E_ENV,
				"CNI_ARGS: %.*s is not known; add IgnoreUnknown=1 to pass",
				(int)(key < 64 ? key : 64), args);
		args += len;
		args += *args == ';';
	}
	return 0;
}

int env_read(struct cni_env *ret, struct wag_err *err)
{
	char args[4096], command[64];
	int r;

	memset(ret, 0, sizeof(*ret));
	r = var_copy("CNI_COMMAND", true, command, sizeof(command), err);
	if (!r)
		r = command_parse(command, &ret->command, err);
	/* The others are about the network, not about one container. */
	if (r || ret->command == CNI_VERSION || ret->command == CNI_GC ||
	    ret->command == CNI_STATUS)
		return r;
	r = var_copy("CNI_CONTAINERID", true, ret->container_id, sizeof(ret->container_id), err);
	if (!r)
		r = var_copy("CNI_IFNAME", true, ret->ifname, sizeof(ret->ifname), err);
	if (!r)
		r = ids_check(ret, err);
	if (!r)
		r = var_copy("CNI_NETNS", ret->command != CNI_DEL, ret->netns, sizeof(ret->netns),
			     err);
	/* DEL finds the pod by its record: odd arguments must not keep it from going away. */
	if (r || ret->command == CNI_DEL)
		return r;
	r = var_copy("CNI_ARGS", false, args, sizeof(args), err);
	return r ? r : env_parse_args(args, ret, err);
}
