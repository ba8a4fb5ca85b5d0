// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>
#include <waggle/cleanup.h>

#include "agent/kube_config.h"

static char dir[64], config_path[128], token_path[128];

static void put(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static int setup(void **state)
{
	strcpy(dir, "/tmp/waggle-config-XXXXXX");
	if (!mkdtemp(dir))
		return 1;
	snprintf(config_path, sizeof(config_path), "%s/config", dir);
	snprintf(token_path, sizeof(token_path), "%s/token", dir);
	unsetenv("KUBERNETES_SERVICE_HOST");
	unsetenv("KUBERNETES_SERVICE_PORT");
	return 0;
}

static int teardown(void **state)
{
	unlink(config_path);
	unlink(token_path);
	return rmdir(dir);
}

#define CONTEXT "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"
#define CLUSTER "clusters: [{name: k, cluster: {server: \"https://h:6443/\"}}]\n"

static void test_kubeconfig(void **state)
{
	_cleanup_(kube_config_freep) struct kube_config *cfg = NULL;
	struct wag_err err;
	char want[200];

	put(config_path, CONTEXT
	    "clusters:\n- name: other\n- name: k\n  cluster:\n    server: https://h:6443/\n"
	    "    certificate-authority: pki/ca.crt\n    certificate-authority-data: aGVsbG8=\n"
	    "    tls-server-name: kubernetes\nusers:\n- name: u\n  user:\n"
	    "    client-certificate: /abs/c.crt\n    client-key-data: a2V5\n    token: tok\n");
	assert_int_equal(kube_config_load(&cfg, config_path, NULL, NULL, &err), 0);
	assert_int_equal(cfg->n_servers, 1);
	assert_string_equal(cfg->servers[0], "https://h:6443");
	snprintf(want, sizeof(want), "%s/pki/ca.crt", dir);
	assert_string_equal(cfg->ca_file, want);
	assert_string_equal(cfg->ca_pem, "hello");
	assert_string_equal(cfg->cert_file, "/abs/c.crt");
	assert_string_equal(cfg->key_pem, "key");
	assert_string_equal(cfg->tls_server_name, "kubernetes");
	assert_string_equal(kube_config_token(cfg, 1), "tok");
}

static void test_servers_given(void **state)
{
	_cleanup_(kube_config_freep) struct kube_config *cfg = NULL;
	struct wag_err err;

	put(config_path, CONTEXT CLUSTER "users: [{name: u, user: {}}]\n");
	assert_int_equal(
		kube_config_load(&cfg, config_path, "https://a:1,https://b:2/", NULL, &err), 0);
	assert_int_equal(cfg->n_servers, 2);
	assert_string_equal(cfg->servers[1], "https://b:2");
	assert_null(kube_config_token(cfg, 1));
}

static void test_what_is_wrong_is_said(void **state)
{
	static const struct {
		const char *text, *servers, *error;
	} cases[] = {
		{ "clusters: []\n", NULL, "current-context is not set" },
		{ "current-context: x\n", NULL, "context x: is not in the file" },
		{ CONTEXT, NULL, "cluster k is not in the file" },
		{ CONTEXT CLUSTER, NULL, "user u is not in the file" },
		{ CONTEXT "clusters: [{name: k, cluster: {}}]\nusers: [{name: u, user: {}}]\n",
		  NULL, "the cluster has no server" },
		{ CONTEXT
		  "clusters: [{name: k, cluster: {server: h}}]\nusers: [{name: u, user: {}}]\n",
		  NULL, "API server \"h\": must start with https://" },
		{ CONTEXT CLUSTER "users: [{name: u, user: {exec: {command: aws}}}]\n", NULL,
		  "user u: exec plugin \"aws\" is not supported: give the user a token" },
		{ CONTEXT CLUSTER "users: [{name: u, user: {client-certificate: x}}]\n", NULL,
		  "user u has a client certificate but no client key" },
		{ CONTEXT CLUSTER "users: [{name: u, user: {client-key-data: \"?\"}}]\n", NULL,
		  "client-key-data is not base64" },
		{ "a: [\n", NULL, "config: line 2: " },
		{ CONTEXT CLUSTER "users: [{name: u, user: {}}]\n", "ftp://x",
		  "API server \"ftp://x\": must start with https://" },
		{ "", NULL, "current-context is not set" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		_cleanup_(kube_config_freep) struct kube_config *cfg = NULL;
		struct wag_err err = { 0 };

		put(config_path, cases[i].text);
		assert_true(kube_config_load(&cfg, config_path, cases[i].servers, NULL, &err) < 0);
		if (!strstr(err.msg, cases[i].error))
			fail_msg("\"%s\" has no \"%s\"", err.msg, cases[i].error);
	}
}

static void test_in_cluster_and_token_reread(void **state)
{
	_cleanup_(kube_config_freep) struct kube_config *cfg = NULL;
	struct timespec times[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
	struct wag_err err;

	assert_int_equal(kube_config_load(&cfg, NULL, NULL, dir, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "give --kubeconfig FILE or --manifests DIR"));
	put(token_path, "one\n");
	assert_int_equal(kube_config_load(&cfg, NULL, NULL, dir, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "--api-server"));
	setenv("KUBERNETES_SERVICE_HOST", "fd00::1", 1);
	setenv("KUBERNETES_SERVICE_PORT", "443", 1);
	assert_int_equal(kube_config_load(&cfg, NULL, NULL, dir, &err), 0);
	assert_string_equal(cfg->servers[0], "https://[fd00::1]:443");
	assert_string_equal(kube_config_token(cfg, 1000), "one");
	put(token_path, "two\n");
	assert_int_equal(utimensat(AT_FDCWD, token_path, times, 0), 0);
	assert_string_equal(kube_config_token(cfg, 5000), "one");
	assert_string_equal(kube_config_token(cfg, 11000), "two");
	unlink(token_path);
	assert_string_equal(kube_config_token(cfg, 30000), "two");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_kubeconfig, setup, teardown),
		cmocka_unit_test_setup_teardown(test_servers_given, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_wrong_is_said, setup, teardown),
		cmocka_unit_test_setup_teardown(test_in_cluster_and_token_reread, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
