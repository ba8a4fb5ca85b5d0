# SPDX-License-Identifier: Apache-2.0
"""Services as their clients see them: who answers, from where, and who is refused."""
import subprocess
from collections import Counter

from suite import (FAMILIES, expect, expect_ok, expect_refused, fields, host_port, port, test,
                   wait_for)
from netlab import NODE4, NODE6, OUT4, OUT6

WEBS = ("web-1", "web-2", "web-3")
NP_TCP, NP_UDP = 30080, 30081


def node_port_ports():
    return [port(80, 8080, "TCP", NP_TCP), port(80, 8080, "UDP", NP_UDP)]


@test()
def cluster_ip(env):
    vips = env.service(["web-1"])
    for net in ("client", "node"):
        for addr in vips:
            expect_ok(env.lab.connect(net, addr, 80), "web-1", peer=host_port(addr, 80))
            expect_ok(env.lab.udp(net, addr, 80), "web-1", **{"from": host_port(addr, 80)})
            expect_ok(env.lab.udp(net, addr, 80, "--connected"), "web-1")


@test()
def client_address_is_kept(env):
    for addr, mine in zip(env.service(["web-1"]), env.lab.pods["client"]):
        got = expect_ok(env.lab.connect("client", addr, 80), "web-1")
        expect(got["seen"] == got["local"] and mine in got["seen"], "the backend saw", got)


@test()
def node_port(env):
    env.service(WEBS, node_port_ports(), "NodePort")
    for net in ("client", "node", "out"):
        for addr in (NODE4, NODE6):
            expect_ok(env.lab.connect(net, addr, NP_TCP), WEBS, peer=host_port(addr, NP_TCP))
            expect_ok(env.lab.udp(net, addr, NP_UDP), WEBS, **{"from": host_port(addr, NP_UDP)})


@test("full", "clsact", "host")
def node_port_on_loopback(env):
    env.service(WEBS, node_port_ports(), "NodePort")
    for addr in ("127.0.0.1", "::1"):
        expect_ok(env.lab.connect("node", addr, NP_TCP), WEBS)
        expect_ok(env.lab.udp("node", addr, NP_UDP), WEBS)


@test()
def node_port_of_a_backend_outside(env):
    env.service([(OUT4, OUT6)], node_port_ports(), "NodePort")
    for net in ("client", "node"):
        for addr in (NODE4, NODE6):
            expect_ok(env.lab.connect(net, addr, NP_TCP), "outside")
    # far -> node port -> outside: the answer must come back through the node
    for addr in (NODE4, NODE6):
        expect_ok(env.lab.connect("far", addr, NP_TCP), "outside")


@test()
def spread_over_backends(env):
    for addr in env.service(WEBS):
        for net in ("client", "node"):
            lines = env.lab.wagtest(net, "connect", "--dst", host_port(addr, 80), "--count", 120)
            seen = Counter(expect_ok(line, WEBS)["label"] for line in lines)
            expect(len(seen) == 3 and min(seen.values()) >= 15, "uneven spread:", dict(seen))


@test()
def live_connection_keeps_its_backend(env):
    vips = env.service(["web-1"])
    for net in ("client", "node"):
        held = env.lab.background(net, "hold", "--dst", ",".join(host_port(a, 80) for a in vips),
                                  "--conns", 6, "--ms", 60000)
        env.again(vips, ["web-2"])
        for addr in vips:
            wait_for("the new list", lambda a=addr: env.lab.connect("client", a, 80).get("label")
                     == "web-2")
        # bytes still come back on the old connections, after the change
        tally = fields(stop_after(env, held, 0.3))
        expect(tally["ok"] == "6" and tally["reset"] == tally["closed"] == "0",
               "connections did not survive:", tally)
        expect(int(tally["max_gap_ms"]) < 400, "echoes stopped:", tally)
        env.again(vips, ["web-1"])
        for addr in vips:
            wait_for("the old list", lambda a=addr: env.lab.connect("client", a, 80).get("label")
                     == "web-1")


def stop_after(env, proc, seconds):
    """Lets a client run on for a while that is part of the test, then ends it."""
    try:
        proc.wait(seconds)
    except subprocess.TimeoutExpired:
        pass  # it is still running, as it should
    return env.lab.stop(proc)


@test()
def unconnected_udp_keeps_its_backend(env):
    vips = env.service(WEBS)
    for net in ("client", "node"):
        for addr in vips:
            lines = env.lab.wagtest(net, "udp", "--dst", host_port(addr, 80), "--count", 30,
                                    "--period", 1)
            seen = {expect_ok(line, WEBS, **{"from": host_port(addr, 80)})["label"]
                    for line in lines}
            expect(len(seen) == 1, "one socket met", seen)


@test()
def unconnected_udp_moves_when_its_backend_left(env):
    vips = env.service(["web-1"])
    for addr in vips:
        client = env.lab.start("client", [env.lab.binary("wagtest"), "udp", "--dst",
                                          host_port(addr, 80), "--count", "1000", "--period", "10",
                                          "--timeout", "300"])
        wait_for("web-1's answer", lambda c=client: "label=web-1" in env.lab.log(c.log_name))
        env.again(vips, ["web-2"])
        wait_for("web-2's answer", lambda c=client: "label=web-2" in env.lab.log(c.log_name))
        env.lab.stop(client)
        env.again(vips, ["web-1"])
        wait_for("web-1 again",
                 lambda a=addr: env.lab.udp("client", a, 80).get("label") == "web-1")


@test()
def no_endpoints_refused(env):
    vips = env.service([], node_port_ports(), "NodePort")
    for family in FAMILIES:
        for net in ("client", "node"):
            expect_refused(env.lab.connect(net, vips[family], 80))
            expect_refused(env.lab.udp(net, vips[family], 80, "--connected"))
            expect_refused(env.lab.udp(net, vips[family], 80, "--recverr"))
        for net in ("client", "node", "out"):
            expect_refused(env.lab.connect(net, env.node_addr(family), NP_TCP))
            expect_refused(env.lab.udp(net, env.node_addr(family), NP_UDP, "--connected"))


@test()
def last_endpoint_leaves_and_comes_back(env):
    vips = env.service(["web-1"])
    env.again(vips, [])
    for addr in vips:
        wait_for("a refusal", lambda a=addr: env.lab.connect("client", a, 80).get("errno")
                 == "ECONNREFUSED")
    env.again(vips, ["web-2"])
    for addr in vips:
        wait_for("an answer", lambda a=addr: env.lab.connect("client", a, 80).get("label")
                 == "web-2")


@test()
def hairpin(env):
    vips = env.service(["web-1"], node_port_ports(), "NodePort")
    for family, addr in enumerate(vips):
        expect_ok(env.lab.connect("web-1", addr, 80), "web-1")
        expect_ok(env.lab.udp("web-1", addr, 80), "web-1", **{"from": host_port(addr, 80)})
        expect_ok(env.lab.udp("web-1", addr, 80, "--connected"), "web-1")
        expect_ok(env.lab.connect("web-1", env.node_addr(family), NP_TCP), "web-1")


@test()
def one_client_port_through_two_services(env):
    first, second = env.service(["web-1"]), env.service(["web-1"])
    mine, web = env.lab.pods["client"], env.lab.pods["web-1"]
    for family in FAMILIES:
        for n, others in enumerate(([first[family], second[family]],
                                    [web[family], first[family], second[family]],
                                    [first[family], web[family], second[family]])):
            dst = ",".join(host_port(a, 8080 if a == web[family] else 80) for a in others)
            src = host_port(mine[family], 20000 + n)
            proc = env.lab.background("client", "connect", "--reuse", "--hold-open", "--src", src,
                                      "--dst", dst, "--timeout", 2000)
            lines = [fields(line) for line in env.lab.log(proc.log_name).splitlines()]
            env.lab.stop(proc)
            expect(len(lines) == len(others) + 1, "answers of", dst, ":", lines)
            for line in lines[:-1]:
                expect_ok(line, "web-1")
            # The same with UDP: one socket, replies must come from whom it asked. A socket that
            # talks to a Service and to its backend itself sends both the same packets once they
            # are translated at the socket: only the packet path can promise that.
            if web[family] in others and env.socket_lb:
                continue
            lines = env.lab.wagtest("client", "udp", "--src", src, "--dst", dst, "--count", 2)
            for line, addr in zip(lines, others * 2):
                want = host_port(addr, 8080 if addr == web[family] else 80)
                expect_ok(line, "web-1", **{"from": want})


@test("host")
def host_only_translates_the_node_at_its_sockets(env):
    vips = env.service(["web-1"])
    for addr in vips:
        for net in ("client", "node"):
            expect_ok(env.lab.connect(net, addr, 80), "web-1", peer=host_port(addr, 80))
            expect_ok(env.lab.udp(net, addr, 80), "web-1", **{"from": host_port(addr, 80)})


@test()
def foreign_namespaces_are_left_alone(env):
    vips = env.service(["web-1"])
    lab = env.lab
    if "foreign" not in lab.nets:
        lab.add_net("foreign")  # below the node's cgroup, and yet no pod of it
    lab.ip("foreign", f"addr add {vips[0]}/32 dev lo", f"addr add {vips[1]}/128 dev lo nodad")
    server = lab.background("foreign", "echo", "--label", "foreign", "--port", "80")
    for addr in vips:
        expect_ok(lab.connect("foreign", addr, 80), "foreign")
        expect_ok(lab.udp("foreign", addr, 80), "foreign")
        expect_ok(lab.udp("foreign", addr, 80, "--connected"), "foreign")
    lab.stop(server)


@test()
def services_that_are_not_ours_pass(env):
    """An address that is no Service goes out untouched."""
    for addr in (OUT4, OUT6):
        for net in ("client", "node"):
            expect_ok(env.lab.connect(net, addr, 8080), "outside")
            expect_ok(env.lab.udp(net, addr, 8080), "outside")
