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
#include <unistd.h>
#include <cmocka.h>
#include "agent/config.h"

static void test_values(void **state)
{
	static const struct {
		const char *key, *value;
		int r;
		const char *says; /* in the error */
	} cases[] = {
		{ "node-name", "n1", 0, NULL },
		{ "socket-lb", "host", 0, NULL },
		{ "socket-lb", "maybe", -EINVAL, "full|host|off" },
		{ "attach", "clsact", 0, NULL },
		{ "attach", "xdp", -EINVAL, "auto|tcx|clsact" },
		{ "ct-max", "65536", 0, NULL },
		{ "ct-max", "-1", -EINVAL, "ct-max" },
		{ "ct-max", "12k", -EINVAL, "'12k'" },
		{ "ct-max", "", -EINVAL, "ct-max" },
		{ "ct-max", "10", -EINVAL, "1024" },
		{ "ct-max", "99999999999999999999", -EINVAL, "ct-max" },
		{ "log-level", "debug", 0, NULL },
		{ "log-level", "loud", -EINVAL, "error|warn|info|debug" },
		{ "mtu", "9000", 0, NULL },
		{ "mtu", "1279", -EINVAL, "from 1280 to 65535" },
		{ "routing-mode", "auto", 0, NULL },
		{ "routing-mode", "overlay", -EINVAL, "native|tunnel|auto" },
		{ "tunnel-protocol", "geneve", 0, NULL },
		{ "tunnel-protocol", "gre", -EINVAL, "vxlan|geneve" },
		{ "tunnel-port", "4789", 0, NULL },
		{ "tunnel-port", "0", -EINVAL, "from 1 to 65535" },
		{ "tunnel-port", "65536", -EINVAL, "from 1 to 65535" },
		{ "underlay-protocol", "ipv6", 0, NULL },
		{ "underlay-protocol", "6", -EINVAL, "auto|ipv4|ipv6" },
		{ "auto-direct-node-routes", "true", 0, NULL },
		{ "auto-direct-node-routes", "no", 0, NULL },
		{ "auto-direct-node-routes", "", -EINVAL, "neither true nor false" },
		{ "auto-direct-node-routes", "2", -EINVAL, "'2'" },
		{ "ipv4-native-routing-cidr", "10.0.0.0/8", 0, NULL },
		{ "ipv4-native-routing-cidr", "fd00::/8", -EINVAL, "not of IPv4" },
		{ "ipv6-native-routing-cidr", "10.0.0.0/8", -EINVAL, "not of IPv6" },
		{ "non-masquerade-cidrs", "10.0.0.0/8,fd00::/8", 0, NULL },
		{ "non-masquerade-cidrs", "", 0, NULL },
		{ "non-masquerade-cidrs", "10.0.0.0/33", -EINVAL, "'10.0.0.0/33'" },
		{ "host-routing", "kernel", 0, NULL },
		{ "host-routing", "off", -EINVAL, "bpf|kernel" },
		{ "manifest", "x", -EINVAL, "did you mean 'manifests'" },
		{ "socketlb", "x", -EINVAL, "did you mean 'socket-lb'" },
		{ "entirely-different", "x", -EINVAL, "--help" },
		{ "a-key-that-is-longer-than-any-flag-could-ever-be", "x", -EINVAL, "unknown" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct wag_err err = { 0 };
		struct config c;

		assert_int_equal(config_init(&c), 0);
		assert_int_equal(config_set(&c, cases[i].key, cases[i].value, &err), cases[i].r);
		if (cases[i].says && !strstr(err.msg, cases[i].says))
			fail_msg("'%s' does not say '%s'", err.msg, cases[i].says);
		config_done(&c);
	}
}

struct dir {
	char path[64];
};

static int make_dir(void **state)
{
	struct dir *d = calloc(1, sizeof(*d));

	if (!d)
		return -1;
	strcpy(d->path, "/tmp/waggle-config-XXXXXX");
	*state = d;
	return mkdtemp(d->path) ? 0 : -1;
}

static void put_file(const struct dir *d, const char *name, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", d->path, name);
	f = fopen(path, "we");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static int remove_dir(void **state)
{
	static const char *const names[] = { "node-name", "socket-lb", "ct-max", "devces",
					     "..data" };
	struct dir *d = *state;
	char path[256];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", d->path, names[i]);
		remove(path);
	}
	rmdir(d->path);
	free(d);
	return 0;
}

static void test_dir_and_flags(void **state)
{
	struct dir *d = *state;
	char arg[96], path[96];
	char *argv[] = { "waggle-agent", arg, "--node-name=flag", "--cgroup=/c", NULL };
	struct wag_err err = { 0 };
	struct config c;

	put_file(d, "node-name", "file\n");
	put_file(d, "socket-lb", "host\n");
	put_file(d, "ct-max", "4096");
	snprintf(path, sizeof(path), "%s/..data", d->path);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(arg, sizeof(arg), "--config-dir=%s", d->path);
	assert_int_equal(config_init(&c), 0);
	assert_int_equal(config_parse(&c, 4, argv, &err), 0);
	assert_string_equal(c.node_name, "flag");
	assert_int_equal(c.socket_lb, WAG_SOCKET_LB_HOST);
	assert_int_equal(c.ct_max, 4096);
	config_done(&c);

	put_file(d, "devces", "eth0");
	assert_int_equal(config_init(&c), 0);
	assert_int_equal(config_parse(&c, 4, argv, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "did you mean 'devices'"));
	assert_non_null(strstr(err.msg, d->path));
	config_done(&c);
}

static void test_sources_exclude_each_other(void **state)
{
	char *argv[] = { "waggle-agent", "--manifests=/m", "--kubeconfig=/k", "--cgroup=/c", NULL };
	struct wag_err err = { 0 };
	struct config c;

	assert_int_equal(config_init(&c), 0);
	assert_int_equal(config_parse(&c, 4, argv, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "--kubeconfig"));
	config_done(&c);
}

static void test_together(void **state)
{
	static const struct {
		const char *flags[4];
		const char *says[2]; /* in the error; NULL: there is none */
	} cases[] = {
		{ { "--routing-mode=native", "--auto-direct-node-routes=true" }, { NULL } },
		{ { "--routing-mode=auto", "--auto-direct-node-routes=true" }, { NULL } },
		{ { "--routing-mode=tunnel", "--auto-direct-node-routes=false" }, { NULL } },
		{ { "--routing-mode=tunnel", "--auto-direct-node-routes=true" },
		  { "--auto-direct-node-routes", "--routing-mode=tunnel" } },
		{ { "--direct-routing-skip-unreachable=1" },
		  { "--direct-routing-skip-unreachable", "--auto-direct-node-routes" } },
		{ { "--auto-direct-node-routes=1", "--direct-routing-skip-unreachable=1" },
		  { NULL } },
		{ { "--lb-mode=dsr", "--routing-mode=tunnel" }, { NULL } },
		{ { "--lb-mode=hybrid", "--routing-mode=auto" }, { NULL } },
		{ { "--lb-mode=snat", "--routing-mode=native" }, { NULL } },
		{ { "--lb-mode=dsr" }, { "--lb-mode=dsr", "--routing-mode=auto or tunnel" } },
		{ { "--lb-mode=hybrid", "--routing-mode=native" },
		  { "--lb-mode=hybrid", "--routing-mode=native" } },
		{ { "--lb-mode=dsr", "--routing-mode=tunnel", "--cni-chaining-mode=flannel" },
		  { "--lb-mode=dsr", "--cni-chaining-mode" } },
		{ { "--lb-mode=ipip" }, { "lb-mode: 'ipip' is none of snat|dsr|hybrid" } },
		{ { "--lb-algorithm=maglev" }, { NULL } },
		{ { "--lb-algorithm=hash" }, { "lb-algorithm: 'hash' is none of random|maglev" } },
		{ { "--pin-dir=relative" }, { "--pin-dir", "absolute" } },
		{ { "--pin-dir=/x/../y", "--state-dir=relative" }, { NULL } },
		{ { "--cni-conf-dir=/c", "--pin-dir=/x/.." }, { "--pin-dir '/x/..'", "without" } },
		{ { "--cni-conf-dir=/c", "--state-dir=relative" },
		  { "--state-dir 'relative'", "absolute" } },
		{ { "--ipam=cluster-pool" }, { NULL } },
		{ { "--ipam=cluster-pool", "--manifests=/m" },
		  { "--manifests has none: give --kubeconfig", "spec.podCIDRs" } },
		{ { "--ipam=kubernetes", "--manifests=/m" }, { NULL } },
		{ { "--ipam=cluster-pool", "--cluster-pool-ipv4-cidr=10.0.0.0/25" },
		  { "--cluster-pool-ipv4-cidr", "smaller than one block of /24" } },
		{ { "--ipam=cluster-pool", "--cluster-pool-ipv4-cidr=" },
		  { "--cluster-pool-ipv6-cidr" } },
		{ { "--ipam=cluster-pool", "--cluster-pool-ipv4-cidr=",
		    "--cluster-pool-ipv6-cidr=fd00::/104" },
		  { NULL } },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *argv[8] = { "waggle-agent", "--cgroup=/c" };
		struct wag_err err = { 0 };
		struct config c;
		int n = 2;

		for (size_t f = 0; f < 4 && cases[i].flags[f]; f++)
			argv[n++] = (char *)cases[i].flags[f];
		assert_int_equal(config_init(&c), 0);
		assert_int_equal(config_parse(&c, n, argv, &err),
				 cases[i].says[0] ? -EINVAL : 0);
		for (size_t s = 0; s < 2 && cases[i].says[s]; s++)
			if (!strstr(err.msg, cases[i].says[s]))
				fail_msg("'%s' does not say '%s'", err.msg, cases[i].says[s]);
		config_done(&c);
	}
}

static void test_routing_defaults(void **state)
{
	char *argv[] = { "waggle-agent", "--cgroup=/c", "--tunnel-protocol=geneve", NULL };
	struct wag_err err = { 0 };
	struct config c;

	assert_int_equal(config_init(&c), 0);
	assert_int_equal(config_parse(&c, 2, argv, &err), 0);
	assert_int_equal(c.routing_mode, WAG_ROUTING_NATIVE);
	assert_int_equal(c.tunnel_port, 8472);
	assert_true(c.masquerade_v4 && c.masquerade_v6);
	assert_int_equal(c.host_routing, 1);
	assert_false(c.auto_direct_node_routes || c.skip_unreachable);
	config_done(&c);

	assert_int_equal(config_init(&c), 0);
	assert_int_equal(config_parse(&c, 3, argv, &err), 0);
	assert_int_equal(c.tunnel_port, 6081);
	config_done(&c);
}

static void test_cgroup2_mount(void **state)
{
	static const struct {
		const char *mounts, *path;
		int r;
	} cases[] = {
		{ "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"
		  "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
		  "/sys/fs/cgroup/unified", 0 },
		{ "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", "/sys/fs/cgroup", 0 },
		{ "tmpfs /cgroup2 tmpfs rw 0 0\n", NULL, -ENOENT },
		{ "garbage\n\n", NULL, -ENOENT },
		{ "", NULL, -ENOENT },
	};
	struct dir *d = *state;
	char path[96], found[64];

	snprintf(path, sizeof(path), "%s/node-name", d->path);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		put_file(d, "node-name", cases[i].mounts);
		assert_int_equal(config_find_cgroup2(path, found, sizeof(found)), cases[i].r);
		if (cases[i].path)
			assert_string_equal(found, cases[i].path);
	}
	put_file(d, "node-name", cases[0].mounts);
	assert_int_equal(config_find_cgroup2(path, found, 4), -ENAMETOOLONG);
	assert_int_equal(config_find_cgroup2("/nonexistent", found, 4), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
		cmocka_unit_test_setup_teardown(test_dir_and_flags, make_dir, remove_dir),
		cmocka_unit_test(test_sources_exclude_each_other),
		cmocka_unit_test(test_together),
		cmocka_unit_test(test_routing_defaults),
		cmocka_unit_test_setup_teardown(test_cgroup2_mount, make_dir, remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
