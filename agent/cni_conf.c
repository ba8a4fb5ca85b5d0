// SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <waggle/cleanup.h>
#include <waggle/cni_dir.h>
#include <waggle/pins.h>
#include "cni_conf.h"

#define PLUGIN "waggle-cni"

static void json_freep(json_t **j)
{
	json_decref(*j);
}
#define _cleanup_json_ _cleanup_(json_freep)

bool cni_conf_is_chained(const struct cni_conf_options *o)
{
	return o->chaining_mode && o->chaining_mode[0] && strcmp(o->chaining_mode, "none") != 0;
}

/* What the plugin has to know; NULL: out of memory. */
static json_t *our_plugin(const struct cni_conf_options *o)
{
	json_t *p = json_pack("{s:s}", "type", PLUGIN);
	int r = p ? 0 : -1;

	if (r == 0 && strcmp(o->pin_dir, WAG_PIN_DIR) != 0)
		r = json_object_set_new(p, "pinDir", json_string(o->pin_dir));
	if (r == 0 && strcmp(o->state_dir, WAG_STATE_DIR) != 0)
		r = json_object_set_new(p, "stateDir", json_string(o->state_dir));
	if (r == 0 && cni_conf_is_chained(o))
		r = json_object_set_new(p, "chainingMode", json_string(o->chaining_mode));
	else if (r == 0)
		r = json_object_set_new(p, "capabilities",
					json_pack("{s:b, s:b, s:b, s:b}", "portMappings", 1,
						  "bandwidth", 1, "mac", 1, "ips", 1));
	if (r == 0)
		return p;
	json_decref(p);
	return NULL;
}

/* A runtime that knows cniVersions takes the newest it can; one that does not takes cniVersion. */
static json_t *own_network(const struct cni_conf_options *o)
{
	return json_pack("{s:s, s:[s,s], s:s, s:[o]}", "cniVersion", "1.0.0", "cniVersions",
			 "1.0.0", "1.1.0", "name", "waggle", "plugins", our_plugin(o));
}

/* ---- behind another network ---- */

static bool has_us(const json_t *plugins)
{
	const json_t *p;
	size_t i;

	json_array_foreach(plugins, i, p)
	{
		const char *type = json_string_value(json_object_get(p, "type"));

		if (type && strcmp(type, PLUGIN) == 0)
			return true;
	}
	return false;
}

/* A new reference to the network of this file as a list, or NULL: it is none, or another one. */
static json_t *read_network(const struct cni_conf_options *o, int dir_fd, const char *file)
{
	_cleanup_close_ int fd = openat(dir_fd, file, O_RDONLY | O_CLOEXEC);
	_cleanup_json_ json_t *root = fd < 0 ? NULL : json_loadfd(fd, 0, NULL);
	const char *name = json_string_value(json_object_get(root, "name"));
	json_t *plugins = json_object_get(root, "plugins"), *list;

	if (!name || (o->chaining_target && o->chaining_target[0] &&
		      strcmp(name, o->chaining_target) != 0))
		return NULL;
	if (json_is_array(plugins))
		return has_us(plugins) ? NULL : TAKE_PTR(root);
	if (!json_is_string(json_object_get(root, "type")))
		return NULL;
	list = json_pack("{s:s, s:[O]}", "name", name, "plugins", root);
	if (list && json_object_get(root, "cniVersion"))
		json_object_set(list, "cniVersion", json_object_get(root, "cniVersion"));
	return list;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_conf(const struct dirent *e)
{
	return cni_dir_is_conf(e->d_name);
}

static int no_target(const struct cni_conf_options *o, struct wag_err *err)
{
	bool named = o->chaining_target && o->chaining_target[0];

	return wag_err_set(err, -ENOENT,
			   "--cni-conf-dir %s: no network %s%sto add %s to (--cni-chaining-mode "
			   "%s): waiting for it",
			   o->dir, named ? o->chaining_target : "", named ? " " : "", PLUGIN,
			   o->chaining_mode);
}

static int check_target(const struct cni_conf_options *o, const char *file, const json_t *network,
			struct wag_err *err)
{
	const char *version = json_string_value(json_object_get(network, "cniVersion"));

	if (strcmp(file, CNI_DIR_CONF) < 0)
		return wag_err_set(err, -EINVAL,
				   "%s/%s: the runtime takes it before %s: give it a later name",
				   o->dir, file, CNI_DIR_CONF);
	if (!version || strcmp(version, "0.3.1") < 0)
		return wag_err_set(err, -EINVAL,
				   "%s/%s: cniVersion %s: a plugin behind another needs 0.3.1 or "
				   "later",
				   o->dir, file, version ? version : "is missing");
	return 0;
}

static int chained_network(const struct cni_conf_options *o, int dir_fd, json_t **ret,
			   struct wag_err *err)
{
	_cleanup_json_ json_t *network = NULL;
	struct dirent **files;
	int n = scandirat(dir_fd, ".", &files, is_conf, by_name), r = -ENOENT;

	if (n < 0)
		return wag_err_set(err, -errno, "--cni-conf-dir %s: %s", o->dir, strerror(errno));
	for (int i = 0; i < n; i++) {
		if (!network) {
			network = read_network(o, dir_fd, files[i]->d_name);
			if (network)
				r = check_target(o, files[i]->d_name, network, err);
		}
		free(files[i]);
	}
	free(files);
	if (!network)
		return no_target(o, err);
	if (r == 0 && json_array_append_new(json_object_get(network, "plugins"), our_plugin(o)) < 0)
		r = wag_err_set(err, -ENOMEM, "out of memory");
	if (r == 0)
		*ret = TAKE_PTR(network);
	return r;
}

/* ---- the folder ---- */

static bool is_there(int dir_fd, const char *text, size_t len)
{
	_cleanup_close_ int fd = openat(dir_fd, CNI_DIR_CONF, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	_cleanup_free_ char *now = malloc(len + 1);

	return fd >= 0 && now && read(fd, now, len + 1) == (ssize_t)len &&
	       memcmp(now, text, len) == 0;
}

static int put_file(const struct cni_conf_options *o, int dir_fd, struct wag_err *err)
{
	_cleanup_json_ json_t *network = NULL;
	_cleanup_free_ char *text = NULL;
	int r = 0;

	if (cni_conf_is_chained(o))
		r = chained_network(o, dir_fd, &network, err);
	else
		network = own_network(o);
	if (r < 0)
		return r;
	text = network ? json_dumps(network, JSON_INDENT(2)) : NULL;
	if (!text)
		return wag_err_set(err, -ENOMEM, "out of memory");
	if (is_there(dir_fd, text, strlen(text)))
		return 0;
	r = cni_dir_replace(dir_fd, CNI_DIR_CONF, text, strlen(text), 0600);
	return r < 0 ? wag_err_set(err, r, "%s/%s: %s", o->dir, CNI_DIR_CONF, strerror(-r)) : 1;
}

static int move_aside(const struct cni_conf_options *o, int dir_fd, const char *name,
		      struct wag_err *err)
{
	char backup[512];

	snprintf(backup, sizeof(backup), "%s" CNI_DIR_BACKUP, name);
	if (renameat(dir_fd, name, dir_fd, backup) == 0)
		return 1;
	if (errno == ENOENT) /* its owner was faster */
		return 0;
	return wag_err_set(err, -errno, "%s/%s: making it stand aside: %s", o->dir, name,
			   strerror(errno));
}

static int others_aside(const struct cni_conf_options *o, int dir_fd, struct wag_err *err)
{
	DIR *dir = opendir(o->dir);
	int moved = 0, r = 0;
	struct dirent *e;

	if (!dir)
		return wag_err_set(err, -errno, "--cni-conf-dir %s: %s", o->dir, strerror(errno));
	while (r >= 0 && (e = readdir(dir))) {
		if (!cni_dir_is_conf(e->d_name))
			continue;
		r = move_aside(o, dir_fd, e->d_name, err);
		moved |= r > 0;
	}
	closedir(dir);
	return r < 0 ? r : moved;
}

int cni_conf_apply(const struct cni_conf_options *o, struct wag_err *err)
{
	int r = pins_mkdir_p(o->dir, 0755), moved = 0;
	_cleanup_close_ int fd = r < 0 ? -1 : open(o->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return wag_err_set(err, r < 0 ? r : -errno, "--cni-conf-dir %s: %s", o->dir,
				   strerror(r < 0 ? -r : errno));
	/* Ours first: the runtime is never without a network. */
	r = put_file(o, fd, err);
	if (r >= 0 && o->exclusive && !cni_conf_is_chained(o))
		moved = others_aside(o, fd, err);
	return moved < 0 ? moved : r < 0 ? r : r | moved;
}
