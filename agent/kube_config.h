/* SPDX-License-Identifier: Apache-2.0 */
/* How to reach an API server and who to be there: a kubeconfig file or the service account. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <waggle/err.h>

struct kube_config {
	char **servers; /* "https://host:port[/path]", no slash at the end; at least one */
	size_t n_servers;
	/* Each may be NULL. Files are absolute or relative to the working directory. */
	char *ca_file, *ca_pem;
	char *cert_file, *cert_pem;
	char *key_file, *key_pem;
	char *token, *token_file;
	char *username, *password;
	char *tls_server_name;
	char *proxy_url;
	bool insecure;
	/* the token file as it was read last */
	char *file_token;
	int64_t token_mtime_ns;
	uint64_t token_checked_ms; /* 0: never */
};

/*
 * kubeconfig NULL: the in-cluster service account in sa_dir (NULL: the usual place).
 * api_servers (comma-separated, may be NULL) replaces the address in either.
 * Returns 0 or -errno with err saying what to do; the caller owns *ret.
 */
int kube_config_load(struct kube_config **ret, const char *kubeconfig, const char *api_servers,
		     const char *sa_dir, struct wag_err *err);
/*
 * The bearer token to send now, NULL: none. A token file is looked at again at most every 10 s
 * (kubelet renews it in place) and read again when it changed. Borrowed until the next call.
 */
const char *kube_config_token(struct kube_config *cfg, uint64_t now_ms);
void kube_config_free(struct kube_config *cfg);
void kube_config_freep(struct kube_config **cfg);
