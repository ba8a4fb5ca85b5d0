// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <waggle/addr.h>
#include <waggle/record.h>
#include "cni/conf.h"
#include "cni/env.h"

#define CONF(rest) "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"type\":\"waggle-cni\"" rest "}"
#define RANGES(list) ",\"ipam\":{\"ranges\":" list "}"
#define RUNTIME(text) CONF(",\"runtimeConfig\":" text RANGES("[" V4 "]"))
#define CHAINED(prev) CONF(",\"chainingMode\":\"generic-veth\",\"prevResult\":" prev)
#define V4 "[{\"subnet\":\"10.1.0.0/24\"}]"
#define V6 "[{\"subnet\":\"fd00:1::/64\"}]"

static void test_errors_name_the_field(void **state)
{
	static const struct {
		const char *text;
		int code;
		const char *says;
	} cases[] = {
		{ "", CNI_E_DECODE, "not JSON" },
		{ "{", CNI_E_DECODE, "line 1" },
		{ "[]", CNI_E_DECODE, "not a JSON object" },
		{ "{}", CNI_E_VERSION, "cniVersion: missing" },
		{ "{\"cniVersion\":\"0.2.0\"}", CNI_E_VERSION, "0.2.0" },
		{ "{\"cniVersion\":1}", CNI_E_DECODE, "cniVersion" },
		{ "{\"cniVersion\":\"1.0.0\"}", CNI_E_CONFIG, "name: missing" },
		{ "{\"cniVersion\":\"1.0.0\",\"name\":\"a/b\"}", CNI_E_CONFIG, "name: must" },
		{ CONF(",\"ipam\":7"), CNI_E_CONFIG, "ipam: must" },
		{ CONF(",\"ipam\":{\"type\":\"a/b\"}"), CNI_E_CONFIG, "ipam.type:" },
		{ CONF(",\"ipam\":{\"subnet\":\"10.1.0.0/24\"}"), CNI_E_FIELD, "ipam.subnet" },
		{ CONF(",\"mtu\":12"), CNI_E_CONFIG, "mtu:" },
		{ CONF(",\"mtu\":\"1500\""), CNI_E_CONFIG, "mtu:" },
		{ CONF(",\"pinDir\":\"x\""), CNI_E_CONFIG, "pinDir:" },
		{ CONF(",\"pinDir\":\"\""), CNI_E_CONFIG, "pinDir:" },
		{ CONF(",\"pinDir\":\"/x/..\""), CNI_E_CONFIG, "pinDir: must be an absolute" },
		{ CONF(",\"pinDir\":\"/./x\""), CNI_E_CONFIG, "pinDir:" },
		{ CONF(",\"stateDir\":\"/a/../b\""), CNI_E_CONFIG, "stateDir:" },
		{ CONF(",\"dns\":1" RANGES("[" V4 "]")), CNI_E_CONFIG, "dns:" },
		{ CONF(",\"prevResult\":{}" RANGES("[" V4 "]")), CNI_E_FIELD, "prevResult" },
		{ CONF(",\"prevResult\":[],\"chainingMode\":\"azure\""), CNI_E_DECODE,
		  "prevResult: must be an object" },
		{ CHAINED("{\"ips\":[{\"address\":\"10.1.0.5\"}]}"), CNI_E_DECODE,
		  "prevResult: ips" },
		{ CHAINED("{\"routes\":[{\"dst\":7}]}"), CNI_E_DECODE, "prevResult: routes" },
		{ CHAINED("{\"routes\":[{\"dst\":\"::/0\",\"gw\":7}]}"), CNI_E_DECODE,
		  "prevResult: routes: gw" },
		{ CHAINED("{\"ips\":\"x\"}"), CNI_E_DECODE, "prevResult: ips must be a list" },
		{ CHAINED("{\"routes\":{}}"), CNI_E_DECODE, "prevResult: routes must be a list" },
		{ CHAINED("7"), CNI_E_DECODE, "prevResult: must be an object" },
		{ CONF(",\"chainingMode\":\"generic-veth\""), CNI_E_CONFIG, "prevResult: missing" },
		{ CONF(",\"chainingMode\":\"x\""), CNI_E_CONFIG, "chainingMode: must be none" },
		{ RUNTIME("7"), CNI_E_CONFIG, "runtimeConfig: must" },
		{ RUNTIME("{\"portMappings\":{}}"), CNI_E_CONFIG, "portMappings: must be a list" },
		{ RUNTIME("{\"portMappings\":[{\"hostPort\":0}]}"), CNI_E_CONFIG,
		  "hostPort must be" },
		{ RUNTIME("{\"portMappings\":[{\"hostPort\":80}]}"), CNI_E_CONFIG,
		  "containerPort" },
		{ RUNTIME("{\"portMappings\":[{\"hostPort\":8,\"containerPort\":8,"
			  "\"protocol\":\"icmp\"}]}"),
		  CNI_E_CONFIG, "tcp, udp or sctp" },
		{ RUNTIME("{\"portMappings\":[{\"hostPort\":8,\"containerPort\":8,"
			  "\"hostIP\":\"x\"}]}"),
		  CNI_E_CONFIG, "hostIP \"x\"" },
		{ RUNTIME("{\"portMappings\":[{\"hostPort\":8,\"containerPort\":8,"
			  "\"hostIP\":7}]}"),
		  CNI_E_CONFIG, "hostIP must be" },
		{ RUNTIME("{\"bandwidth\":{\"egressRate\":-1}}"), CNI_E_CONFIG, "egressRate must" },
		{ RUNTIME("{\"bandwidth\":{\"ingressBurst\":1}}"), CNI_E_CONFIG, "needs its rate" },
		{ RUNTIME("{\"mac\":\"01:00:00:00:00:01\"}"), CNI_E_CONFIG, "unicast" },
		{ RUNTIME("{\"mac\":\"2:0:0:0:0:1\"}"), CNI_E_CONFIG, "unicast" },
		{ RUNTIME("{\"ips\":[\"10.1.0\"]}"), CNI_E_CONFIG, "\"10.1.0\" is no address" },
		{ RUNTIME("{\"ips\":[\"10.1.0.5/99\"]}"), CNI_E_CONFIG, "/99\" is no address" },
		{ CONF(RANGES("[]")), CNI_E_CONFIG, "ipam.ranges" },
		{ CONF(RANGES("[[{\"subnet\":\"fd00::/48\",\"rangeEnd\":\"fd00:0:0:1::\"}]]")),
		  CNI_E_CONFIG, "outside of the first /64 of subnet fd00::/48" },
		{ CONF(RANGES("[[]]")), CNI_E_CONFIG, "1 to" },
		{ CONF(RANGES("[[1]]")), CNI_E_CONFIG, "list of lists" },
		{ CONF(RANGES("[" V4 "," V4 "]")), CNI_E_CONFIG, "overlap" },
		{ CONF(RANGES("[" V4 ",[{\"subnet\":\"10.2.0.0/24\"}]]")), CNI_E_CONFIG,
		  "two lists" },
		{ CONF(RANGES("[[{\"subnet\":\"10.1.0.0/24\"},{\"subnet\":\"fd00::/64\"}]]")),
		  CNI_E_CONFIG, "IPv4 and IPv6 in one list" },
		{ CONF(RANGES("[[{\"subnet\":\"10.1.0.1/24\"}]]")), CNI_E_CONFIG, "host bits" },
		{ CONF(RANGES("[[{\"subnet\":\"10.1.0.0/31\"}]]")), CNI_E_CONFIG, "8 to 30" },
		{ CONF(RANGES("[[{\"subnet\":\"10.1.0.0\"}]]")), CNI_E_CONFIG, "subnet: must" },
		{ CONF(RANGES("[[{\"subnet\":\"10.1.0.0/24\",\"x\":1}]]")), CNI_E_FIELD, "x is" },
		{ CONF(RANGES("[[{\"subnet\":\"10.1.0.0/24\",\"rangeStart\":\"10.2.0.1\"}]]")),
		  CNI_E_CONFIG, "rangeStart 10.2.0.1 lies outside of subnet 10.1.0.0/24" },
		{ CONF(RANGES("[[{\"subnet\":\"10.1.0.0/24\",\"rangeEnd\":\"10.1.0.255\"}]]")),
		  CNI_E_CONFIG, "broadcast" },
		{ CONF(RANGES("[[{\"subnet\":\"10.1.0.0/24\",\"gateway\":7}]]")), CNI_E_CONFIG,
		  "gateway" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct wag_err err = { 0 };
		struct cni_conf conf;
		int r;

		r = conf_parse(cases[i].text, strlen(cases[i].text), CONF_ADD, &conf, &err);
		if (r != cases[i].code || !strstr(err.msg, cases[i].says))
			fail_msg("%s: code %d, %s", cases[i].text, r, err.msg);
		assert_int_equal(err.code, r);
		conf_done(&conf);
	}
}

static void test_defaults_and_ranges(void **state)
{
	static const char text[] = CONF(",\"dns\":{\"nameservers\":[\"1.1.1.1\"]}" RANGES(
		"[[{\"subnet\":\"10.1.0.0/24\",\"rangeStart\":\"10.1.0.10\",\"rangeEnd\":"
		"\"10.1.0.20\",\"gateway\":\"10.1.0.11\"},{\"subnet\":\"10.2.0.0/16\"}]," V6 "]"));
	struct wag_err err = { 0 };
	struct cni_conf conf;

	assert_int_equal(conf_parse(text, strlen(text), CONF_ADD, &conf, &err), 0);
	assert_string_equal(conf.pin_dir, "/sys/fs/bpf/waggle");
	assert_string_equal(conf.state_dir, "/var/lib/waggle");
	assert_int_equal(conf.mtu, 0);
	assert_int_equal(conf_mtu(&conf, 9000, &err), 0);
	assert_int_equal(conf.mtu, 9000);
	conf.mtu = 1000;
	assert_int_equal(conf_mtu(&conf, 9000, &err), CNI_E_CONFIG);
	assert_non_null(strstr(err.msg, "IPv6 needs 1280"));
	assert_string_equal(conf.dns, "{\"nameservers\":[\"1.1.1.1\"]}");
	assert_int_equal(conf.set_count, 2);
	assert_int_equal(conf.sets[0].range_count, 2);
	assert_int_equal(conf.sets[0].ranges[0].first, 10);
	assert_int_equal(conf.sets[0].ranges[0].last, 20);
	assert_int_equal(conf.sets[0].ranges[0].gateway, 11);
	assert_int_equal(ipam_range_size(&conf.sets[0].ranges[0]), 10);
	assert_int_equal(conf.sets[0].ranges[1].last, 65534);
	assert_int_equal(ipam_range_size(&conf.sets[0].ranges[1]), 65533);
	assert_true(conf.sets[1].ranges[0].last == UINT64_MAX - 1);
	conf_done(&conf);
}

static void test_del_does_not_need_ipam(void **state)
{
	static const char text[] = CONF(",\"mtu\":\"bad\",\"ipam\":7,\"prevResult\":{}");
	struct wag_err err = { 0 };
	struct cni_conf conf;

	assert_int_equal(conf_parse(text, strlen(text), CONF_DEL, &conf, &err), 0);
	assert_int_equal(conf_parse("{\"cniVersion\":\"0.4.0\"}", 22, CONF_VERSION, &conf, &err),
			 0);
	assert_string_equal(conf.version, "0.4.0");
	/* Who asks which versions there are may speak a later one. */
	assert_int_equal(conf_parse("{\"cniVersion\":\"1.2.0\"}", 22, CONF_VERSION, &conf, &err),
			 0);
	assert_string_equal(conf.version, "1.2.0");
}

static void test_runtime_config(void **state)
{
	static const char text[] = RUNTIME(
		"{\"portMappings\":[{\"hostPort\":8080,\"containerPort\":80,\"protocol\":\"UDP\","
		"\"hostIP\":\"fd00::1\"},{\"hostPort\":1,\"containerPort\":65535}],"
		"\"bandwidth\":{\"egressRate\":1000000,\"egressBurst\":8000},"
		"\"mac\":\"0a:58:0a:f4:00:FF\",\"ips\":[\"10.1.0.5/24\",\"fd00::7\"],\"x\":[]}");
	struct wag_err err = { 0 };
	char addr[WAG_ADDR_TEXT];
	struct cni_conf conf;

	assert_int_equal(conf_parse(text, strlen(text), CONF_ADD, &conf, &err), 0);
	assert_int_equal(conf.runtime.port_count, 2);
	assert_true(conf.runtime.ports[0].has_addr);
	assert_int_equal(conf.runtime.ports[0].proto, 17);
	assert_int_equal(conf.runtime.ports[0].host_port, 8080);
	assert_false(conf.runtime.ports[1].has_addr);
	assert_int_equal(conf.runtime.ports[1].proto, 6);
	assert_int_equal(conf.runtime.ports[1].port, 65535);
	assert_int_equal(conf.runtime.egress_rate, 1000000);
	assert_int_equal(conf.runtime.egress_burst, 8000);
	assert_int_equal(conf.runtime.ingress_rate, 0);
	assert_true(conf.runtime.has_mac);
	assert_int_equal(conf.runtime.mac[5], 0xff);
	assert_int_equal(conf.runtime.ip_count, 2);
	assert_string_equal(wag_addr_format(&conf.runtime.ips[0], addr), "10.1.0.5");
	conf_done(&conf);
}

static void test_prev_result(void **state)
{
	static const char text[] = CHAINED(
		"{\"cniVersion\":\"1.0.0\",\"interfaces\":[{\"name\":\"br\",\"mac\":\"aa\"},"
		"{\"name\":\"eth0\",\"mac\":\"0a:00:00:00:00:01\",\"sandbox\":\"/n\","
		"\"mtu\":1400}],"
		"\"ips\":[{\"interface\":0,\"address\":\"10.1.0.1/24\"},{\"interface\":1,"
		"\"address\":\"10.1.0.5/24\"},{\"address\":\"fd00::5/64\"}],"
		"\"routes\":[{\"dst\":\"0.0.0.0/0\",\"gw\":\"10.1.0.1\",\"table\":7},"
		"{\"dst\":\"::/0\",\"gw\":\"\",\"priority\":-1}],\"dns\":{}}");
	struct wag_err err = { 0 };
	char addr[WAG_ADDR_TEXT];
	struct cni_conf conf;

	assert_int_equal(conf_parse(text, strlen(text), CONF_ADD, &conf, &err), 0);
	assert_true(conf.chained);
	assert_int_equal(conf.prev.addr_count, 2);
	assert_string_equal(wag_addr_format(&conf.prev.addrs[0].addr, addr), "10.1.0.5");
	assert_string_equal(wag_addr_format(&conf.prev.addrs[1].addr, addr), "fd00::5");
	assert_int_equal(conf.prev.iface_count, 2);
	assert_string_equal(conf.prev.ifaces[0].sandbox, "");
	assert_string_equal(conf.prev.ifaces[1].name, "eth0");
	assert_string_equal(conf.prev.ifaces[1].mac, "0a:00:00:00:00:01");
	assert_string_equal(conf.prev.ifaces[1].sandbox, "/n");
	assert_int_equal(conf.prev.ifaces[0].mtu, 0);
	assert_int_equal(conf.prev.ifaces[1].mtu, 1400);
	assert_int_equal(conf.prev.addrs[0].bits, 24);
	assert_int_equal(conf.prev.addrs[0].iface, 1);
	assert_int_equal(conf.prev.addrs[1].iface, -1);
	assert_int_equal(conf.prev.route_count, 2);
	assert_string_equal(wag_addr_format(&conf.prev.routes[0].gw, addr), "10.1.0.1");
	assert_int_equal(conf.prev.routes[0].table, 7);
	assert_true(wag_addr_is_zero(&conf.prev.routes[1].gw));
	assert_int_equal(conf.prev.routes[1].priority, 0);
	assert_null(conf.prev.dns);
	assert_int_equal(conf.prev_result[0], '{');
	conf_done(&conf);
}

static void test_verbs_and_versions(void **state)
{
	static const char old[] = "{\"cniVersion\":\"0.3.1\",\"name\":\"n\"}";
	static const char gc[] = "{\"cniVersion\":\"1.1.0\",\"name\":\"n\",\"cni.dev/valid-"
				 "attachments\":[{\"containerID\":\"c\",\"ifname\":\"eth0\"}]}";
	struct wag_err err = { 0 };
	struct cni_conf conf;

	assert_int_equal(conf_parse(old, strlen(old), CONF_DEL, &conf, &err), 0);
	assert_int_equal(conf_parse(old, strlen(old), CONF_CHECK, &conf, &err), CNI_E_VERSION);
	assert_non_null(strstr(err.msg, "0.4.0"));
	assert_int_equal(conf_parse(old, strlen(old), CONF_GC, &conf, &err), CNI_E_VERSION);
	assert_int_equal(conf_parse(old, strlen(old), CONF_STATUS, &conf, &err), CNI_E_VERSION);
	assert_int_equal(conf_parse(gc, strlen(gc), CONF_GC, &conf, &err), 0);
	assert_int_equal(conf.attachment_count, 1);
	assert_string_equal(conf.attachments[0].container_id, "c");
	conf_done(&conf);
	assert_int_equal(conf_parse(CONF(""), strlen(CONF("")), CONF_GC, &conf, &err),
			 CNI_E_VERSION);
}

static void test_args(void **state)
{
	static const struct {
		const char *text;
		int code;
		const char *pod;
	} cases[] = {
		{ "", 0, "" },
		{ ";", 0, "" },
		{ "IgnoreUnknown=1;K8S_POD_NAME=p;FOO=bar", 0, "p" },
		{ "FOO=bar;K8S_POD_NAME=p;IgnoreUnknown=true", 0, "p" },
		{ "K8S_POD_NAME=p;FOO=bar", CNI_E_ENV, "p" },
		{ "K8S_POD_NAME=p;FOO=bar;XIgnoreUnknown=1", CNI_E_ENV, "p" },
		{ "K8S_POD_NAME=p;FOO=bar;IgnoreUnknown=0", CNI_E_ENV, "p" },
		{ "K8S_POD_NAME", CNI_E_ENV, "" },
		{ "K8S_POD_NAME=a b", CNI_E_ENV, "" },
		{ "K8S_POD_NAME=a\"b", CNI_E_ENV, "" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct cni_env env = { 0 };
		struct wag_err err = { 0 };

		assert_int_equal(env_parse_args(cases[i].text, &env, &err), cases[i].code);
		assert_string_equal(env.pod, cases[i].pod);
	}
}

static void test_record_survives_the_disk(void **state)
{
	char dir[] = "/tmp/waggle-record-XXXXXX", cmd[128];
	struct record rec, read_back;
	unsigned probe = 9;
	int lock;

	assert_non_null(mkdtemp(dir));
	lock = record_lock(dir, record_hash("c1", "eth0"), 0);
	assert_true(lock >= 0);
	assert_int_equal(record_lock(dir, record_hash("c1", "eth0"), 0), -EWOULDBLOCK);
	assert_int_equal(record_find(dir, "c1", "eth0", &read_back, &probe), -ENOENT);
	assert_int_equal(probe, 0);
	record_init(&rec, "c1", "eth0", 0);
	snprintf(rec.netns, sizeof(rec.netns), "/run/\"quoted\"\\\n");
	snprintf(rec.pod, sizeof(rec.pod), "p");
	rec.addr_count = 1;
	assert_int_equal(wag_addr_parse("fd00::5", &rec.addrs[0].addr), 0);
	snprintf(rec.addrs[0].range, sizeof(rec.addrs[0].range), "fd00::-64");
	rec.chained = true;
	rec.netns_cookie = 1ULL << 40;
	rec.mtu = 9000;
	rec.route_mtu = 8950;
	rec.egress_rate = 10000000000ULL;
	rec.ingress_burst = 7;
	memcpy(rec.mac, "\x02\xff\x00\x7f\x80\x01", 6);
	snprintf(rec.ipam, sizeof(rec.ipam), "host-local");
	rec.route_count = 1;
	assert_int_equal(wag_cidr_parse("10.0.0.0/8", &rec.routes[0].dst, &rec.routes[0].bits), 0);
	rec.port_count = 1;
	rec.ports[0] = (struct record_port){ .host_port = 65535, .port = 80, .proto = 132 };
	assert_int_equal(record_write(dir, &rec), 0);
	assert_int_equal(record_find(dir, "c1", "eth0", &read_back, &probe), 0);
	assert_memory_equal(&rec, &read_back, sizeof(rec));
	assert_int_equal(record_find(dir, "c1", "eth1", &read_back, &probe), -ENOENT);
	assert_int_equal(record_remove(dir, &rec), 0);
	assert_int_equal(record_find(dir, "c1", "eth0", &read_back, &probe), -ENOENT);
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
	assert_int_equal(system(cmd), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_errors_name_the_field),
		cmocka_unit_test(test_defaults_and_ranges),
		cmocka_unit_test(test_del_does_not_need_ipam),
		cmocka_unit_test(test_runtime_config),
		cmocka_unit_test(test_prev_result),
		cmocka_unit_test(test_verbs_and_versions),
		cmocka_unit_test(test_args),
		cmocka_unit_test(test_record_survives_the_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
