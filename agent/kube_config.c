// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <waggle/cleanup.h>

#include "kube_config.h"
#include "kube_yaml.h"
#include "object.h"

#define SA_DIR "/var/run/secrets/kubernetes.io/serviceaccount"
#define FILE_MAX_BYTES (4 << 20)
#define TOKEN_CHECK_MS 10000

static int read_file(const char *path, char **ret, size_t *ret_size)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_close_ int fd = -1;
	size_t used = 0;
	struct stat st;
	ssize_t n;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size > FILE_MAX_BYTES)
		return -EFBIG;
	text = malloc(FILE_MAX_BYTES);
	if (!text)
		return -ENOMEM;
	while ((n = read(fd, text + used, FILE_MAX_BYTES - 1 - used)) > 0)
		used += n;
	if (n < 0)
		return -errno;
	text[used] = 0;
	*ret_size = used;
	*ret = realloc(TAKE_PTR(text), used + 1);
	return 0;
}

static int base64_value(char c)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

static int base64_decode(const char *text, char **ret)
{
	_cleanup_free_ char *out = malloc(strlen(text) + 1);
	uint32_t bits = 0;
	size_t n = 0;
	int have = 0;

	if (!out)
		return -ENOMEM;
	for (; *text && *text != '='; text++) {
		int v = base64_value(*text);

		if (strchr("\r\n\t ", *text))
			continue;
		if (v < 0)
			return -EINVAL;
		bits = bits << 6 | (uint32_t)v;
		have += 6;
		if (have >= 8) {
			have -= 8;
			out[n++] = (char)(bits >> have);
		}
	}
	if (strspn(text, "=\r\n\t ") != strlen(text))
		return -EINVAL;
	out[n] = 0;
	*ret = TAKE_PTR(out);
	return 0;
}

static int copy(const char *text, char **ret)
{
	*ret = strdup(text);
	return *ret ? 0 : -ENOMEM;
}

static const char *text_of(const json_t *tree, const char *key)
{
	const char *text = json_string_value(json_object_get(tree, key));

	return text && text[0] ? text : NULL;
}

/* One kubeconfig file while it is read. */
struct reading {
	const char *path;
	struct kube_config *cfg;
	struct wag_err *err;
};

/* A file named in a kubeconfig counts from the folder of the kubeconfig. */
static int take_file(const struct reading *rd, const json_t *tree, const char *key, char **ret)
{
	const char *name = text_of(tree, key), *slash = strrchr(rd->path, '/');

	if (!name)
		return 0;
	if (name[0] == '/' || !slash)
		return copy(name, ret);
	return asprintf(ret, "%.*s/%s", (int)(slash - rd->path), rd->path, name) < 0 ? -ENOMEM : 0;
}

static int take_data(const struct reading *rd, const json_t *tree, const char *key, char **ret)
{
	const char *text = text_of(tree, key);

	if (!text)
		return 0;
	if (base64_decode(text, ret) < 0)
		return wag_err_set(rd->err, -EINVAL, "%s: %s is not base64", rd->path, key);
	return 0;
}

static int take_text(const json_t *tree, const char *key, char **ret)
{
	const char *text = text_of(tree, key);

	return text ? copy(text, ret) : 0;
}

/* The entry called name of one of the file's three lists, or NULL. */
static const json_t *find_named(const json_t *root, const char *list, const char *name,
				const char *member)
{
	const json_t *entry;
	size_t i;

	json_array_foreach(json_object_get(root, list), i, entry)
	{
		const char *is = text_of(entry, "name");

		if (is && strcmp(is, name) == 0)
			return json_object_get(entry, member);
	}
	return NULL;
}

static int add_server(struct kube_config *cfg, const char *text, size_t len, struct wag_err *err)
{
	char **at;

	while (len > 0 && text[len - 1] == '/')
		len--;
	if (strncmp(text, "https://", 8) != 0 && strncmp(text, "http://", 7) != 0)
		return wag_err_set(err, -EINVAL,
				   "API server \"%.*s\": must start with https:// (or http://)",
				   (int)len, text);
	at = array_grow(&cfg->servers, &cfg->n_servers, sizeof(*at));
	if (!at)
		return wag_err_set(err, -ENOMEM, "out of memory");
	*at = strndup(text, len);
	return *at ? 0 : wag_err_set(err, -ENOMEM, "out of memory");
}

static int add_servers(struct kube_config *cfg, const char *list, struct wag_err *err)
{
	while (*list) {
		size_t len = strcspn(list, ",");
		int r;

		if (len > 0) {
			r = add_server(cfg, list, len, err);
			if (r < 0)
				return r;
		}
		list += len + (list[len] == ',');
	}
	return cfg->n_servers ? 0 : wag_err_set(err, -EINVAL, "--api-server: no URL in it");
}

static int take_cluster(const struct reading *rd, const json_t *cluster, bool want_server)
{
	struct kube_config *cfg = rd->cfg;
	const char *server = text_of(cluster, "server");
	int r;

	if ((r = take_file(rd, cluster, "certificate-authority", &cfg->ca_file)) < 0 ||
	    (r = take_data(rd, cluster, "certificate-authority-data", &cfg->ca_pem)) < 0 ||
	    (r = take_text(cluster, "tls-server-name", &cfg->tls_server_name)) < 0 ||
	    (r = take_text(cluster, "proxy-url", &cfg->proxy_url)) < 0)
		return r;
	cfg->insecure = json_is_true(json_object_get(cluster, "insecure-skip-tls-verify"));
	if (!want_server)
		return 0;
	if (!server)
		return wag_err_set(rd->err, -EINVAL, "%s: the cluster has no server", rd->path);
	return add_server(cfg, server, strlen(server), rd->err);
}

static int take_user(const struct reading *rd, const char *name, const json_t *user)
{
	struct kube_config *cfg = rd->cfg;
	const char *command = text_of(json_object_get(user, "exec"), "command");
	const char *provider = text_of(json_object_get(user, "auth-provider"), "name");
	int r;

	if (command || provider)
		return wag_err_set(rd->err, -EOPNOTSUPP,
				   "%s: user %s: %s \"%s\" is not supported: give the user a "
				   "token, a tokenFile or a client certificate",
				   rd->path, name, command ? "exec plugin" : "auth-provider",
				   command ? command : provider);
	if ((r = take_file(rd, user, "client-certificate", &cfg->cert_file)) < 0 ||
	    (r = take_data(rd, user, "client-certificate-data", &cfg->cert_pem)) < 0 ||
	    (r = take_file(rd, user, "client-key", &cfg->key_file)) < 0 ||
	    (r = take_data(rd, user, "client-key-data", &cfg->key_pem)) < 0 ||
	    (r = take_text(user, "token", &cfg->token)) < 0 ||
	    (r = take_file(rd, user, "tokenFile", &cfg->token_file)) < 0 ||
	    (r = take_text(user, "username", &cfg->username)) < 0 ||
	    (r = take_text(user, "password", &cfg->password)) < 0)
		return r;
	if ((cfg->cert_file || cfg->cert_pem) && !cfg->key_file && !cfg->key_pem)
		return wag_err_set(rd->err, -EINVAL,
				   "%s: user %s has a client certificate but no client key",
				   rd->path, name);
	return 0;
}

static int take_root(const struct reading *rd, const json_t *root, bool want_server)
{
	const char *name = text_of(root, "current-context"), *cluster_name, *user_name;
	const json_t *context, *cluster, *user = NULL;
	int r;

	if (!name)
		return wag_err_set(
			rd->err, -EINVAL,
			"%s: current-context is not set: kubectl config use-context NAME",
			rd->path);
	context = find_named(root, "contexts", name, "context");
	cluster_name = text_of(context, "cluster");
	user_name = text_of(context, "user");
	if (!cluster_name)
		return wag_err_set(rd->err, -EINVAL, "%s: context %s: %s", rd->path, name,
				   context ? "names no cluster" : "is not in the file");
	cluster = find_named(root, "clusters", cluster_name, "cluster");
	if (!cluster)
		return wag_err_set(rd->err, -EINVAL, "%s: cluster %s is not in the file", rd->path,
				   cluster_name);
	if (user_name && !(user = find_named(root, "users", user_name, "user")))
		return wag_err_set(rd->err, -EINVAL, "%s: user %s is not in the file", rd->path,
				   user_name);
	r = take_cluster(rd, cluster, want_server);
	return r < 0 || !user ? r : take_user(rd, user_name, user);
}

static int load_kubeconfig(struct kube_config *cfg, const char *path, bool want_server,
			   struct wag_err *err)
{
	const struct reading rd = { .path = path, .cfg = cfg, .err = err };
	_cleanup_(kube_yaml_freep) struct kube_yaml *yaml = NULL;
	_cleanup_free_ char *text = NULL;
	json_t *root = NULL;
	size_t size = 0;
	int r;

	r = read_file(path, &text, &size);
	if (r < 0)
		return wag_err_set(err, r, "--kubeconfig %s: %s", path, strerror(-r));
	r = kube_yaml_new(&yaml, text, size);
	if (r < 0)
		return wag_err_set(err, r, "out of memory");
	r = kube_yaml_next(yaml, &root, err);
	if (r < 0) {
		wag_err_prefix(err, "%s: ", path);
		return r;
	}
	r = take_root(&rd, r ? root : NULL, want_server);
	return r == -ENOMEM ? wag_err_set(err, r, "out of memory") : r;
}

static int load_in_cluster(struct kube_config *cfg, const char *dir, bool want_server,
			   struct wag_err *err)
{
	const char *host = getenv("KUBERNETES_SERVICE_HOST");
	const char *port = getenv("KUBERNETES_SERVICE_PORT");
	_cleanup_free_ char *url = NULL;

	if (asprintf(&cfg->ca_file, "%s/ca.crt", dir) < 0 ||
	    asprintf(&cfg->token_file, "%s/token", dir) < 0)
		return wag_err_set(err, -ENOMEM, "out of memory");
	if (access(cfg->token_file, R_OK) < 0)
		return wag_err_set(
			err, -errno,
			"no source: %s: %s; give --kubeconfig FILE or --manifests DIR, or "
			"run in a pod with a service account",
			cfg->token_file, strerror(errno));
	if (!want_server)
		return 0;
	if (!host || !port)
		return wag_err_set(
			err, -EINVAL,
			"KUBERNETES_SERVICE_HOST and _PORT are not set: give --api-server "
			"https://HOST:PORT");
	if (asprintf(&url, strchr(host, ':') ? "https://[%s]:%s" : "https://%s:%s", host, port) < 0)
		return wag_err_set(err, -ENOMEM, "out of memory");
	return add_server(cfg, url, strlen(url), err);
}

int kube_config_load(struct kube_config **ret, const char *kubeconfig, const char *api_servers,
		     const char *sa_dir, struct wag_err *err)
{
	_cleanup_(kube_config_freep) struct kube_config *cfg = calloc(1, sizeof(*cfg));
	bool overridden = api_servers && api_servers[0];
	int r;

	if (!cfg)
		return wag_err_set(err, -ENOMEM, "out of memory");
	if (kubeconfig)
		r = load_kubeconfig(cfg, kubeconfig, !overridden, err);
	else
		r = load_in_cluster(cfg, sa_dir ? sa_dir : SA_DIR, !overridden, err);
	if (r == 0 && overridden)
		r = add_servers(cfg, api_servers, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(cfg);
	return 0;
}

static void reread_token(struct kube_config *cfg)
{
	_cleanup_free_ char *text = NULL;
	size_t size = 0;
	struct stat st;
	int64_t mtime;

	if (stat(cfg->token_file, &st) < 0)
		return; /* the old one may still be good */
	mtime = st.st_mtim.tv_sec * 1000000000LL + st.st_mtim.tv_nsec;
	if (cfg->file_token && mtime == cfg->token_mtime_ns)
		return;
	if (read_file(cfg->token_file, &text, &size) < 0 || !text)
		return;
	text[strcspn(text, "\r\n \t")] = 0;
	if (!text[0])
		return;
	free(cfg->file_token);
	cfg->file_token = TAKE_PTR(text);
	cfg->token_mtime_ns = mtime;
}

const char *kube_config_token(struct kube_config *cfg, uint64_t now_ms)
{
	if (!cfg->token_file)
		return cfg->token;
	if (!cfg->token_checked_ms || now_ms - cfg->token_checked_ms >= TOKEN_CHECK_MS) {
		cfg->token_checked_ms = now_ms ? now_ms : 1;
		reread_token(cfg);
	}
	return cfg->file_token ? cfg->file_token : cfg->token;
}

void kube_config_free(struct kube_config *cfg)
{
	if (!cfg)
		return;
	for (size_t i = 0; i < cfg->n_servers; i++)
		free(cfg->servers[i]);
	free(cfg->servers);
	free(cfg->ca_file);
	free(cfg->ca_pem);
	free(cfg->cert_file);
	free(cfg->cert_pem);
	free(cfg->key_file);
	free(cfg->key_pem);
	free(cfg->token);
	free(cfg->token_file);
	free(cfg->username);
	free(cfg->password);
	free(cfg->tls_server_name);
	free(cfg->proxy_url);
	free(cfg->file_token);
	free(cfg);
}

void kube_config_freep(struct kube_config **cfg)
{
	kube_config_free(*cfg);
}
