// SPDX-License-Identifier: Apache-2.0
/* The container runtime's folder of networks: our file, and the others'. */
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
#include <waggle/cni_dir.h>
#include <waggle/pins.h>
#include "agent/cni_conf.h"

#define OURS "05-waggle.conflist"
#define BRIDGE "{\"cniVersion\":\"0.4.0\",\"name\":\"cbr0\",\"type\":\"bridge\",\"mtu\":1400}"
#define PTP                                                                     \
	"{\"cniVersion\":\"1.0.0\",\"name\":\"podnet\",\"disableCheck\":true,"  \
	"\"plugins\":[{\"type\":\"ptp\"},{\"type\":\"portmap\"}]}"

struct folder {
	char path[64];
	struct cni_conf_options options;
};

static int make(void **state)
{
	struct folder *f = calloc(1, sizeof(*f));

	strcpy(f->path, "/tmp/waggle-test-cni-XXXXXX");
	assert_non_null(mkdtemp(f->path));
	f->options = (struct cni_conf_options){ .dir = f->path,
						.pin_dir = WAG_PIN_DIR,
						.state_dir = WAG_STATE_DIR };
	*state = f;
	return 0;
}

static int drop(void **state)
{
	struct folder *f = *state;
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", f->path);
	assert_int_equal(system(command), 0);
	free(f);
	return 0;
}

static char *at(const struct folder *f, const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", f->path, name);
	return path;
}

static void put(const struct folder *f, const char *name, const char *text)
{
	FILE *file = fopen(at(f, name), "w");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static bool exists(const struct folder *f, const char *name)
{
	return access(at(f, name), F_OK) == 0;
}

/* Without white space, so that it compares. */
static const char *content(const struct folder *f, const char *name)
{
	static char text[4096];
	FILE *file = fopen(at(f, name), "r");
	size_t n = 0;
	int c;

	assert_non_null(file);
	while ((c = fgetc(file)) != EOF && n < sizeof(text) - 1)
		if (c != ' ' && c != '\n')
			text[n++] = (char)c;
	text[n] = 0;
	fclose(file);
	return text;
}

static int apply(const struct folder *f)
{
	struct wag_err err = { 0 };
	int r = cni_conf_apply(&f->options, &err);

	if (r < 0)
		print_message("%s\n", err.msg);
	return r;
}

static void test_own(void **state)
{
	struct folder *f = *state;
	struct stat st;

	assert_int_equal(apply(f), 1);
	assert_string_equal(content(f, OURS),
			    "{\"cniVersion\":\"1.0.0\",\"cniVersions\":[\"1.0.0\",\"1.1.0\"],"
			    "\"name\":\"waggle\",\"plugins\":[{\"type\":\"waggle-cni\","
			    "\"capabilities\":{\"portMappings\":true,\"bandwidth\":true,"
			    "\"mac\":true,\"ips\":true}}]}");
	assert_int_equal(stat(at(f, OURS), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(apply(f), 0); /* all is so: no write that a watch would see */
	put(f, OURS, "{}");
	assert_int_equal(apply(f), 1);
	f->options.pin_dir = "/sys/fs/bpf/other";
	f->options.state_dir = "/var/lib/other";
	assert_int_equal(apply(f), 1);
	assert_non_null(strstr(content(f, OURS), "\"pinDir\":\"/sys/fs/bpf/other\","
						 "\"stateDir\":\"/var/lib/other\""));
}

static void test_not_exclusive(void **state)
{
	struct folder *f = *state;

	put(f, "10-bridge.conf", BRIDGE);
	assert_int_equal(apply(f), 1);
	assert_true(exists(f, "10-bridge.conf"));
}

static void test_exclusive(void **state)
{
	static const char *const kept[] = { "calico-kubeconfig", "whereabouts.d", "old.conf.bak",
					    ".hidden.conf" };
	struct folder *f = *state;

	f->options.exclusive = true;
	put(f, "10-bridge.conf", BRIDGE);
	put(f, "20-ptp.conflist", PTP);
	put(f, "30-x.json", "{}");
	for (size_t i = 0; i < 4; i++)
		put(f, kept[i], "x");
	assert_int_equal(apply(f), 1);
	assert_true(exists(f, OURS));
	assert_true(exists(f, "10-bridge.conf.waggle_bak"));
	assert_true(exists(f, "20-ptp.conflist.waggle_bak"));
	assert_true(exists(f, "30-x.json.waggle_bak"));
	assert_false(exists(f, "10-bridge.conf"));
	for (size_t i = 0; i < 4; i++)
		assert_true(exists(f, kept[i]));
	assert_int_equal(apply(f), 0);

	/* Its installer comes back. */
	put(f, "10-bridge.conf", PTP);
	assert_int_equal(apply(f), 1);
	assert_string_equal(content(f, "10-bridge.conf.waggle_bak"), PTP);
}

static void test_restore(void **state)
{
	struct folder *f = *state;

	f->options.exclusive = true;
	put(f, "10-bridge.conf", BRIDGE);
	put(f, "20-ptp.conflist", PTP);
	assert_int_equal(apply(f), 1);
	put(f, "20-ptp.conflist", "newer");
	assert_int_equal(cni_dir_restore(f->path), 1);
	assert_string_equal(content(f, "10-bridge.conf"), BRIDGE);
	assert_string_equal(content(f, "20-ptp.conflist"), "newer");
	assert_false(exists(f, OURS));
	assert_int_equal(cni_dir_restore(f->path), 0);
	assert_int_equal(cni_dir_restore("/tmp/waggle-test-absent"), -ENOENT);
}

static void test_chained(void **state)
{
	struct folder *f = *state;

	f->options.exclusive = true; /* means nothing here: the other network is needed */
	f->options.chaining_mode = "generic-veth";
	assert_int_equal(apply(f), -ENOENT);
	assert_false(exists(f, OURS));
	put(f, "10-ptp.conflist", PTP);
	put(f, "20-bridge.conf", BRIDGE);
	assert_int_equal(apply(f), 1);
	assert_string_equal(content(f, OURS),
			    "{\"cniVersion\":\"1.0.0\",\"name\":\"podnet\",\"disableCheck\":true,"
			    "\"plugins\":[{\"type\":\"ptp\"},{\"type\":\"portmap\"},"
			    "{\"type\":\"waggle-cni\",\"chainingMode\":\"generic-veth\"}]}");
	assert_true(exists(f, "10-ptp.conflist"));
	assert_int_equal(apply(f), 0);

	f->options.chaining_target = "cbr0"; /* and a single plugin becomes a list */
	assert_int_equal(apply(f), 1);
	assert_string_equal(content(f, OURS),
			    "{\"name\":\"cbr0\",\"plugins\":[{\"cniVersion\":\"0.4.0\","
			    "\"name\":\"cbr0\",\"type\":\"bridge\",\"mtu\":1400},"
			    "{\"type\":\"waggle-cni\",\"chainingMode\":\"generic-veth\"}],"
			    "\"cniVersion\":\"0.4.0\"}");
	f->options.chaining_target = "absent";
	assert_int_equal(apply(f), -ENOENT);
	assert_true(exists(f, OURS)); /* what works is not taken away */
}

static void test_chained_refused(void **state)
{
	struct folder *f = *state;

	f->options.chaining_mode = "generic-veth";
	put(f, "10-broken.conflist", "{\"name\":");
	assert_int_equal(apply(f), -ENOENT);
	put(f, "10-old.conf", "{\"cniVersion\":\"0.2.0\",\"name\":\"old\",\"type\":\"bridge\"}");
	assert_int_equal(apply(f), -EINVAL);
	put(f, "00-first.conflist", PTP);
	assert_int_equal(apply(f), -EINVAL); /* the runtime would take that one */
	assert_false(exists(f, OURS));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_own, make, drop),
		cmocka_unit_test_setup_teardown(test_not_exclusive, make, drop),
		cmocka_unit_test_setup_teardown(test_exclusive, make, drop),
		cmocka_unit_test_setup_teardown(test_restore, make, drop),
		cmocka_unit_test_setup_teardown(test_chained, make, drop),
		cmocka_unit_test_setup_teardown(test_chained_refused, make, drop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
