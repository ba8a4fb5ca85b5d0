// SPDX-License-Identifier: Apache-2.0
/* The reader against bytes, and the requests against a namespace of the test's own. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <cmocka.h>
#include <fcntl.h>
#include <unistd.h>
#include <waggle/addr.h>
#include "common/netlink_wire.h"

static int count(const struct nlmsghdr *h, void *ctx)
{
	(*(int *)ctx)++;
	return 0;
}

static void test_walk(void **state)
{
	struct {
		struct nlmsghdr h;
		int32_t code;
	} msg[2] = {
		{ { .nlmsg_len = 20, .nlmsg_type = RTM_NEWLINK, .nlmsg_seq = 5 }, 0 },
		{ { .nlmsg_len = 20, .nlmsg_type = NLMSG_ERROR, .nlmsg_seq = 5 }, -EPERM },
	};
	bool intr = false;
	int code = 1, n = 0;

	assert_int_equal(nl_walk(msg, sizeof(msg), 5, count, &n, &intr, &code), 1);
	assert_int_equal(code, -EPERM);
	assert_int_equal(n, 1);
	assert_int_equal(nl_walk(msg, sizeof(msg), 6, count, &n, &intr, &code), 0);
	assert_int_equal(n, 1);
	msg[1].code = 7;
	assert_int_equal(nl_walk(msg, sizeof(msg), 5, count, &n, &intr, &code), -EBADMSG);
	msg[0].h.nlmsg_len = 15;
	assert_int_equal(nl_walk(msg, sizeof(msg), 5, count, &n, &intr, &code), -EBADMSG);
	msg[0].h.nlmsg_len = 41;
	assert_int_equal(nl_walk(msg, sizeof(msg), 5, count, &n, &intr, &code), -EBADMSG);
	assert_false(intr);
	msg[0].h.nlmsg_len = 20;
	msg[0].h.nlmsg_flags = NLM_F_DUMP_INTR;
	nl_walk(msg, sizeof(msg), 5, count, &n, &intr, &code);
	assert_true(intr);
}

static void test_parse_refuses_bad_lengths(void **state)
{
	struct ifinfomsg ifi = { .ifi_index = 3 };
	struct nl_link link;
	struct rtattr *rta;
	struct nl_msg m;

	nl_msg_init(&m, RTM_NEWLINK, 0, &ifi, sizeof(ifi));
	nl_put_str(&m, IFLA_IFNAME, "a_name_longer_than_any_interface");
	assert_int_equal(nl_parse_link(&m.h, &link), 0);
	assert_string_equal(link.name, "a_name_longer_t");
	rta = (struct rtattr *)(m.buf + NLMSG_LENGTH(sizeof(ifi)));
	rta->rta_len = 3;
	assert_int_equal(nl_parse_link(&m.h, &link), -EBADMSG);
	rta->rta_len = 200;
	assert_int_equal(nl_parse_link(&m.h, &link), -EBADMSG);
	m.h.nlmsg_len = NLMSG_HDRLEN + 4;
	assert_int_equal(nl_parse_link(&m.h, &link), -EBADMSG);
}

static void test_a_request_too_long_is_refused(void **state)
{
	struct ifinfomsg ifi = { 0 };
	char big[600] = { 0 };
	struct nl_msg m;

	nl_msg_init(&m, RTM_NEWLINK, 0, &ifi, sizeof(ifi));
	nl_put(&m, 1, big, sizeof(big));
	assert_false(m.overflow);
	nl_put(&m, 1, big, sizeof(big));
	assert_true(m.overflow);
	assert_int_equal(nl_call(NULL, &m, NULL, NULL), -EMSGSIZE);
}

static int find_v0(const struct nl_link *link, void *ctx)
{
	if (strcmp(link->name, "v0") == 0)
		*(uint32_t *)ctx = link->ifindex;
	return 0;
}

static int find_addr(const struct nl_addr *a, void *ctx)
{
	char text[WAG_ADDR_TEXT];

	if (strcmp(wag_addr_format(&a->addr, text), "10.99.0.1") == 0 && a->bits == 32)
		*(int *)ctx += 1;
	if (strcmp(wag_addr_format(&a->addr, text), "fd99::1") == 0 && a->bits == 128)
		*(int *)ctx += 2;
	return 0;
}

static void addr_of(const char *text, struct wag_addr *ret)
{
	assert_int_equal(wag_addr_parse(text, ret), 0);
}

static int find_default(const struct nl_route *route, void *ctx)
{
	struct wag_addr gw;

	addr_of(wag_addr_is_v4(&route->dst) ? "10.99.1.1" : "fd99:1::1", &gw);
	if (!route->bits && route->mtu == 1300 && wag_addr_equal(&route->gw, &gw) &&
	    route->table == RT_TABLE_MAIN && route->protocol == RTPROT_STATIC)
		*(int *)ctx += wag_addr_is_v4(&route->dst) ? 1 : 2;
	return 0;
}

static int find_neigh(const struct nl_neigh *neigh, void *ctx)
{
	char text[WAG_ADDR_TEXT];

	if (neigh->permanent && neigh->mac[5] == 9) {
		wag_addr_format(&neigh->addr, text);
		*(int *)ctx += strcmp(text, "10.99.1.1") == 0 ? 1
			       : strcmp(text, "fd99:1::1") == 0 ? 2
								 : 4;
	}
	return 0;
}

static void routes_and_neighbours(struct nl *nl, uint32_t ifindex)
{
	static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 9 };
	static const char *const texts[][3] = { { "10.99.0.1", "10.99.1.1", "0.0.0.0" },
						{ "fd99::1", "fd99:1::1", "::" } };
	int seen = 0;

	for (int f = 0; f < 2; f++) {
		unsigned bits = f ? 128 : 32;
		struct wag_addr own, pod, any;

		addr_of(texts[f][0], &own);
		addr_of(texts[f][1], &pod);
		addr_of(texts[f][2], &any);
		assert_int_equal(nl_addr_add(nl, ifindex, &own, bits), 0);
		assert_int_equal(nl_addr_add(nl, ifindex, &own, bits), -EEXIST);
		assert_int_equal(nl_neigh_add(nl, ifindex, &pod, mac), 0);
		assert_int_equal(nl_route_add(nl, &pod, bits, NULL, ifindex, NULL, 1400), 0);
		assert_int_equal(nl_route_add(nl, &pod, bits, NULL, ifindex, &own, 0), 0);
		assert_int_equal(nl_route_add(nl, &any, 0, &pod, ifindex, NULL, 1300), 0);
		assert_int_equal(nl_route_del(nl, &pod, bits, ifindex), 0);
		assert_int_equal(nl_route_del(nl, &pod, bits, ifindex), -ESRCH);
	}
	assert_int_equal(nl_addr_list(nl, find_addr, &seen), 0);
	assert_int_equal(seen, 3);
	seen = 0;
	assert_int_equal(nl_route_list(nl, find_default, &seen), 0);
	assert_int_equal(seen, 3);
	seen = 0;
	assert_int_equal(nl_neigh_list(nl, find_neigh, &seen), 0);
	assert_int_equal(seen, 3);
}

struct seen_route {
	const char *dst;
	struct nl_route route;
	int n;
};

static int find_route(const struct nl_route *r, void *ctx)
{
	struct seen_route *seen = ctx;
	char text[WAG_ADDR_TEXT];

	if (r->table == RT_TABLE_MAIN && strcmp(wag_addr_format(&r->dst, text), seen->dst) == 0) {
		seen->route = *r;
		seen->n++;
	}
	return 0;
}

/* Routes of a protocol: put, replaced, told apart from others', and watched. */
static void routes_of_ours(struct nl *nl, uint32_t ifindex)
{
	static const char *const texts[][3] = { { "10.98.0.0", "10.99.0.7", "10.99.0.1" },
						{ "fd98::", "fd99::7", "fd99::1" } };
	int watch = nl_route_monitor_open();

	assert_true(watch >= 0);
	for (int f = 0; f < 2; f++) {
		struct nl_route r = { .bits = f ? 64 : 24, .ifindex = ifindex, .protocol = 78 };
		struct seen_route seen = { .dst = texts[f][0] };
		unsigned full = f ? 128 : 32;
		struct wag_addr gw;

		addr_of(texts[f][0], &r.dst);
		addr_of(texts[f][1], &gw);
		assert_int_equal(nl_route_put(nl, &r, false), 0);
		assert_int_equal(nl_route_put(nl, &r, false), -EEXIST);
		assert_int_equal(nl_route_monitor_read(watch, 78), 0);
		assert_int_equal(nl_route_add(nl, &gw, full, NULL, ifindex, NULL, 0), 0);
		(void)nl_route_monitor_read(watch, 78);
		r.gw = gw;
		r.mtu = 1400;
		addr_of(texts[f][2], &r.src);
		assert_int_equal(nl_route_put(nl, &r, true), 0);
		assert_int_equal(nl_route_monitor_read(watch, 78), 1);
		assert_int_equal(nl_route_list(nl, find_route, &seen), 0);
		assert_int_equal(seen.n, 1);
		assert_int_equal(seen.route.protocol, 78);
		assert_int_equal(seen.route.mtu, 1400);
		assert_true(wag_addr_equal(&seen.route.gw, &gw));
		assert_true(wag_addr_equal(&seen.route.src, &r.src));
		seen.route.protocol = 79;
		assert_int_equal(nl_route_drop(nl, &seen.route), -ESRCH);
		seen.route.protocol = 78;
		assert_int_equal(nl_route_drop(nl, &seen.route), 0);
		assert_int_equal(nl_route_monitor_read(watch, 79), 0);
		assert_int_equal(nl_route_put(nl, &r, false), 0);
		assert_int_equal(nl_route_drop(nl, &r), 0);
		assert_int_equal(nl_route_monitor_read(watch, 78), 1);
		assert_int_equal(nl_route_del(nl, &gw, full, ifindex), 0);
	}
	close(watch);
}

static void tunnels(struct nl *nl)
{
	const struct nl_tunnel vxlan = { "vxlan", 8472, true, true };
	struct nl_tunnel got;
	struct nl_link link;
	int r;

	assert_int_equal(nl_tunnel_get(nl, "t0", &got), -ENODEV);
	r = nl_tunnel_add(nl, "t0", &vxlan, 1450);
	if (r == -EOPNOTSUPP)
		return; /* this kernel has no VXLAN */
	assert_int_equal(r, 0);
	assert_int_equal(nl_tunnel_add(nl, "t0", &vxlan, 1450), -EEXIST);
	assert_int_equal(nl_tunnel_get(nl, "t0", &got), 0);
	assert_memory_equal(&got, &vxlan, sizeof(got));
	assert_int_equal(nl_tunnel_get(nl, "v0", &got), 0);
	assert_string_equal(got.kind, "veth");
	assert_false(got.external);
	assert_int_equal(nl_link_get(nl, "t0", &link), 0);
	assert_int_equal(link.mtu, 1450);
	assert_int_equal(nl_link_set_mtu(nl, link.ifindex, 1400), 0);
	assert_int_equal(nl_link_up_noarp(nl, link.ifindex), 0);
	assert_int_equal(nl_link_get(nl, "t0", &link), 0);
	assert_int_equal(link.mtu, 1400);
	assert_true((link.flags & IFF_UP) && (link.flags & IFF_NOARP));
	assert_int_equal(nl_link_del(nl, link.ifindex), 0);
}

static int classifier(void)
{
	static const struct bpf_insn insns[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = -1 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr attr = { .prog_type = BPF_PROG_TYPE_SCHED_CLS,
				.insns = (uintptr_t)insns,
				.insn_cnt = 2,
				.license = (uintptr_t) "GPL" };

	return (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));
}

static int find_clsact(const struct nlmsghdr *h, void *ctx)
{
	const struct tcmsg *tcm = NLMSG_DATA(h);
	uint32_t *ifindex = ctx;

	if (h->nlmsg_type == RTM_NEWQDISC && tcm->tcm_parent == TC_H_CLSACT &&
	    tcm->tcm_ifindex == (int)*ifindex)
		*ifindex = 0;
	return 0;
}

static bool has_clsact(struct nl *nl, uint32_t ifindex)
{
	struct tcmsg tcm = { .tcm_family = AF_UNSPEC };
	struct nl_msg m;

	nl_msg_init(&m, RTM_GETQDISC, NLM_F_DUMP, &tcm, sizeof(tcm));
	assert_int_equal(nl_call(nl, &m, find_clsact, &ifindex), 0);
	return ifindex == 0;
}

/* The clsact goes with the last filter, and stays while anybody else has one there. */
static void filters_come_and_go(struct nl *nl, uint32_t ifindex)
{
	struct tcmsg foreign = { .tcm_family = AF_UNSPEC,
				 .tcm_ifindex = (int)ifindex,
				 .tcm_handle = 1,
				 .tcm_parent = TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS),
				 .tcm_info = TC_H_MAKE(7U << 16, htons(ETH_P_ALL)) };
	struct rtattr *options;
	struct nl_msg m;
	uint32_t id = 0;
	int prog;

	assert_int_equal(nl_tc_attach(nl, ifindex, false, -1, "none"), -EBADF);
	prog = classifier();
	if (prog < 0)
		return; /* this kernel or container has no BPF */
	assert_int_equal(nl_tc_attach(nl, ifindex, false, prog, "in"), 0);
	assert_int_equal(nl_tc_attach(nl, ifindex, true, prog, "out"), 0);
	assert_int_equal(nl_tc_attach(nl, ifindex, true, prog, "again"), 0);
	assert_int_equal(nl_tc_prog_id(nl, ifindex, true, false, &id), 0);
	assert_true(id > 0);
	assert_int_equal(nl_tc_prog_id(nl, ifindex, true, true, &id), -ENOENT);
	assert_int_equal(nl_tc_attach_first(nl, ifindex, true, prog, "first"), 0);
	assert_int_equal(nl_tc_prog_id(nl, ifindex, true, true, &id), 0);
	assert_true(has_clsact(nl, ifindex));
	nl_tc_remove(nl, ifindex);
	assert_false(has_clsact(nl, ifindex));
	assert_int_equal(nl_tc_prog_id(nl, ifindex, true, false, &id), -ENOENT);
	nl_tc_remove(nl, ifindex);
	assert_int_equal(nl_tc_attach(nl, ifindex, false, prog, "in"), 0);
	nl_msg_init(&m, RTM_NEWTFILTER, NLM_F_CREATE, &foreign, sizeof(foreign));
	nl_put_str(&m, TCA_KIND, "bpf");
	options = nl_nest(&m, TCA_OPTIONS);
	nl_put_u32(&m, TCA_BPF_FD, prog);
	nl_put_str(&m, TCA_BPF_NAME, "foreign");
	nl_nest_end(&m, options);
	assert_int_equal(nl_call(nl, &m, NULL, NULL), 0);
	nl_tc_remove(nl, ifindex);
	assert_true(has_clsact(nl, ifindex));
	close(prog);
}

static int find_root(const struct nl_qdisc *qdisc, void *ctx)
{
	struct nl_qdisc *found = ctx;

	if (qdisc->ifindex == found->ifindex && qdisc->parent == TC_H_ROOT)
		*found = *qdisc;
	return 0;
}

/* A change of queueing is told, and read. */
static void queueing(struct nl *nl, uint32_t ifindex)
{
	struct tcmsg tcm = { .tcm_family = AF_UNSPEC,
			     .tcm_ifindex = (int)ifindex,
			     .tcm_handle = 0x77610000,
			     .tcm_parent = TC_H_ROOT };
	struct tc_fifo_qopt fifo = { .limit = 100 };
	struct nl_qdisc found = { .ifindex = ifindex };
	int watch = nl_monitor_open();
	struct nl_msg m;

	assert_true(watch >= 0);
	nl_msg_init(&m, RTM_NEWQDISC, NLM_F_CREATE, &tcm, sizeof(tcm));
	nl_put_str(&m, TCA_KIND, "pfifo");
	nl_put(&m, TCA_OPTIONS, &fifo, sizeof(fifo));
	assert_int_equal(nl_call(nl, &m, NULL, NULL), 0);
	assert_int_equal(nl_monitor_read(watch), 1);
	assert_int_equal(nl_qdisc_list(nl, find_root, &found), 0);
	assert_string_equal(found.kind, "pfifo");
	assert_int_equal(found.handle, tcm.tcm_handle);
	close(watch);
}

static void test_requests(void **state)
{
	static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 1 }, peer_mac[6] = { 2, 0, 0, 0, 0, 2 };
	struct nl_link link;
	uint32_t index = 0;
	int home, monitor;
	struct nl *nl;

	home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_true(home >= 0);
	if (unshare(CLONE_NEWNET) < 0) {
		close(home);
		skip(); /* needs root */
	}
	assert_int_equal(nl_new(&nl), 0);
	monitor = nl_monitor_open();
	assert_true(monitor >= 0);
	assert_int_equal(nl_monitor_read(monitor), 0);
	/* Both ends in the one namespace of the test. */
	index = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_int_equal(nl_veth_add(nl, "v0", "v1", index, 1400, mac, peer_mac), 0);
	assert_int_equal(nl_veth_add(nl, "v0", "v1", index, 1400, mac, peer_mac), -EEXIST);
	close(index);
	assert_int_equal(nl_link_get(nl, "v1", &link), 0);
	assert_memory_equal(link.mac, peer_mac, 6);
	assert_string_equal(link.kind, "veth");
	assert_int_equal(link.mtu, 1400);
	assert_int_equal(nl_link_up(nl, link.ifindex), 0);
	assert_int_equal(nl_link_list(nl, find_v0, &index), 0);
	assert_int_equal(index, link.peer_ifindex);
	assert_int_equal(nl_link_up(nl, index), 0);
	assert_int_equal(nl_link_get_by_index(nl, index, &link), 0);
	assert_true(link.flags & IFF_UP);
	routes_and_neighbours(nl, index);
	routes_of_ours(nl, index);
	tunnels(nl);
	queueing(nl, index);
	filters_come_and_go(nl, index);
	assert_int_equal(nl_monitor_read(monitor), 1);
	assert_int_equal(nl_link_del(nl, index), 0);
	assert_int_equal(nl_link_get(nl, "v1", &link), -ENODEV);
	assert_int_equal(nl_link_del(nl, index), -ENODEV);
	close(monitor);
	nl_free(nl);
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	close(home);
}

struct found {
	uint64_t cookie;
	struct nl_socket sock;
	int n;
};

static int find_socket(const struct nl_socket *s, void *ctx)
{
	struct found *f = ctx;

	if (s->cookie == f->cookie) {
		f->sock = *s;
		f->n++;
	}
	return 0;
}

static void one_socket(struct nl *diag, const char *text, int family, const char *peer)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(9) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(9) };
	int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;
	struct found f = { 0 };
	socklen_t len = sizeof(f.cookie);
	char buf[WAG_ADDR_TEXT];

	assert_int_equal(inet_pton(family, text,
				   family == AF_INET ? (void *)&v4.sin_addr : &v6.sin6_addr), 1);
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &f.cookie, &len), 0);
	assert_int_equal(nl_udp_list(diag, find_socket, &f), 0);
	assert_int_equal(f.n, 0); /* it has no peer */
	if (family == AF_INET)
		assert_int_equal(connect(fd, (void *)&v4, sizeof(v4)), 0);
	else
		assert_int_equal(connect(fd, (void *)&v6, sizeof(v6)), 0);
	assert_int_equal(nl_udp_list(diag, find_socket, &f), 0);
	assert_int_equal(f.n, 1);
	assert_string_equal(wag_addr_format(&f.sock.peer, buf), peer);
	assert_int_equal(f.sock.peer_port, htons(9));
	r = nl_socket_destroy(diag, &f.sock);
	if (r != -EOPNOTSUPP) {
		assert_int_equal(r, 0);
		assert_int_equal(send(fd, "x", 1, 0), -1);
		assert_int_equal(nl_socket_destroy(diag, &f.sock), -ENOENT);
	}
	close(fd);
}

static void test_sockets_are_found_and_closed(void **state)
{
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	struct nl *nl, *diag;

	if (unshare(CLONE_NEWNET) < 0) {
		close(home);
		skip();
	}
	assert_int_equal(nl_new(&nl), 0);
	assert_int_equal(nl_link_up(nl, 1), 0); /* lo */
	assert_int_equal(nl_new_diag(&diag), 0);
	one_socket(diag, "127.0.0.1", AF_INET, "127.0.0.1");
	one_socket(diag, "::1", AF_INET6, "::1");
	one_socket(diag, "::ffff:127.0.0.1", AF_INET6, "127.0.0.1");
	nl_free(diag);
	nl_free(nl);
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	close(home);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_walk),
		cmocka_unit_test(test_parse_refuses_bad_lengths),
		cmocka_unit_test(test_a_request_too_long_is_refused),
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_sockets_are_found_and_closed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
