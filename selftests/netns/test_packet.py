# SPDX-License-Identifier: Apache-2.0
"""What the packets of a Service go through: fragments, ICMP errors, SCTP."""
import itertools

from suite import (FAMILIES, expect, expect_ok, expect_refused, host_port, observed, port, test,
                   wait_for)
from netlab import FAR4, FAR6, NODE4, NODE6, OUT4, OUT6

NP_TCP, NP_UDP, NP_SCTP = 30082, 30083, 30084


@test()
def fragments(env):
    ports = [port(80, 8080, "TCP", NP_TCP), port(80, 8080, "UDP", NP_UDP)]
    vips = env.service(["web-1"], ports, "NodePort")
    for addr in vips:
        for net in ("client", "node"):
            for size in (1400, 1600, 8000, 30000):
                got = env.lab.udp(net, addr, 80, "--size", size)
                expect_ok(got, "web-1", len=str(size), intact="1")
    for addr in (NODE4, NODE6):
        for size in (1600, 8000):
            got = env.lab.udp("out", addr, NP_UDP, "--size", size)
            expect_ok(got, "web-1", len=str(size), intact="1")


@test()
def fragments_in_any_order(env):
    """The last fragment first: it waits for the one that says to whom it belongs."""
    ports = [port(80, 8080, "TCP", NP_TCP), port(80, 8080, "UDP", NP_UDP)]
    vips = env.service(["web-1"], ports, "NodePort")
    lab = env.lab
    ways = [("client", lab.pods["client"], lab.pods["web-1"], 8080),
            ("out", (OUT4, OUT6), (NODE4, NODE6), NP_UDP)]
    if not env.socket_lb:
        ways.append(("client", lab.pods["client"], vips, 80))
    for n, (net, src, dst, number) in enumerate(ways):
        for family in FAMILIES:
            for order in ((), ("--reverse",)):
                line = lab.wagtest(net, "frag", "--src", host_port(src[family], 4000 + n),
                                   "--dst", host_port(dst[family], number), "--size", 2000,
                                   "--answer", "--timeout", 2000, *order)[0]
                expect(line["is"] == "ok" and line["label"] == "web-1" and line["len"] == "2000",
                       f"{net} -> {dst[family]}:{number} {order}:", line)


@test()
def closed_backend_port_is_reported(env):
    """The backend's own ICMP error (UDP) and reset (TCP) reach the client, from the Service."""
    vips = env.service(["web-1"], [port(80, 9, "UDP"), port(81, 9)], live=False)
    env.wait_live(vips, [], False)
    for addr in vips:
        for net in ("client", "node"):
            expect_refused(env.lab.udp(net, addr, 80, "--connected"))
            expect_refused(env.lab.connect(net, addr, 81))


@test()
def path_mtu_is_learnt_through_the_service(env):
    """A backend behind a narrow link: the router quotes the backend, the client must understand."""
    vips = env.service([(FAR4, FAR6)])
    for addr in vips:
        for net in ("client", "other"):
            lines = env.lab.wagtest(net, "pmtu", "--dst", host_port(addr, 80), "--size", 1400)
            expect(lines and lines[0]["is"] == "ok" and lines[0]["mtu"] == "1300",
                   f"{net} to {addr}:", lines)


@test()
def path_mtu_of_a_pod_with_a_small_one(env):
    """What is longer than the pod's interface takes is answered, or cut, as a router does it."""
    lab = env.lab
    lab.add_pod("narrow", conf={"mtu": 1300})
    server = lab.background("narrow", "echo", "--label", "narrow", "--port", "8080",
                            name="echo-narrow")
    try:
        vips = env.service(["narrow"], [port(80, 8080, "TCP", NP_TCP),
                                        port(80, 8080, "UDP", NP_UDP)], "NodePort")
        pod, nodes = lab.pods["narrow"], (NODE4, NODE6)
        ways = [("client", pod, 8080), ("client", vips, 80), ("out", pod, 8080),
                ("out", nodes, NP_UDP)]
        for (net, addrs, number), family in itertools.product(ways, FAMILIES):
            where = host_port(addrs[family], number)
            got = lab.wagtest(net, "pmtu", "--dst", where, "--size", 1400)[0]
            expect(got["is"] == "ok" and got["mtu"] == "1300", f"{net} to {where}:", got)
            expect_ok(lab.udp(net, addrs[family], number, "--size", 1400), "narrow", len="1400",
                      intact="1")
            lab.ip(net, "route flush cache", "-6 route flush cache")
    finally:
        lab.stop(server)
        lab.del_pod("narrow")


@test()
def node_port_icmp_error_reaches_outside(env):
    env.service(["web-1"], [port(80, 9, "UDP", NP_UDP)], "NodePort", live=False)
    for addr in (NODE4, NODE6):
        wait_for("a refusal", lambda a=addr: env.lab.udp(
            "out", a, NP_UDP, "--connected", timeout_ms=300).get("errno") == "ECONNREFUSED")


@test()
def sctp(env):
    ports = [port(80, 8080, "TCP", NP_TCP), port(90, 7000, "SCTP", NP_SCTP)]
    vips = env.service(["web-1"], ports, "NodePort")
    mine = env.lab.pods["client"]
    for family, addr in enumerate(vips):
        got = env.lab.wagtest("client", "sctp", "--src", host_port(mine[family], 5000),
                              "--dst", host_port(addr, 90))[0]
        expect_ok(got, "web-1", crc="good", **{"from": host_port(addr, 90)})
    outside = (("out", "10.90.0.254", NODE4), ("out", "fd90::fe", NODE6))
    for net, src, addr in outside:
        got = env.lab.wagtest(net, "sctp", "--src", host_port(src, 5001),
                              "--dst", host_port(addr, NP_SCTP))[0]
        expect_ok(got, "web-1", crc="good", **{"from": host_port(addr, NP_SCTP)})
    expect("bad crc" not in env.lab.log("sctp-web-1"), "the backend saw a wrong CRC")


@test()
def refused_connections_are_shown(env):
    vips = env.service([], name="empty")
    mine = env.lab.pods["client"]
    for family, addr in enumerate(vips):
        expect_refused(env.lab.connect("client", addr, 80))

        def shown(a=addr, m=mine[family]):
            return [f for f in observed(env, "--verdict", "DROPPED", "--last", "50")
                    if f.get("IP", {}).get("destination") == a and f["IP"].get("source") == m]
        flow = wait_for("the drop in flow-observe", shown)[-1]
        expect(flow.get("verdict") == "DROPPED", "not a drop:", flow)
        expect(flow.get("source", {}).get("pod_name") == "client", "no pod name:", flow)
    text = env.lab.observe("--verdict", "DROPPED", "--last", "50", "-o", "compact")
    expect("default/client" in text and "DROPPED" in text, "not in the compact output:", text)


@test("off")
def checksums_whoever_computes_them(env):
    """With offload a packet carries the seed of a checksum, without it the checksum itself."""
    addrs = [*env.service([(OUT4, OUT6)]), *env.service(["web-1"])]
    nets = ("client", "node", "web-1")
    try:
        for states in itertools.product(("on", "off"), repeat=len(nets)):
            for net, state in zip(nets, states):
                env.lab.sh(net, ["ethtool", "-K", "eth0", "tx", state])
            for net, addr in itertools.product(("client", "node"), addrs):
                expect_ok(env.lab.connect(net, addr, 80))
                expect_ok(env.lab.udp(net, addr, 80))
    finally:
        for net in nets:
            env.lab.sh(net, ["ethtool", "-K", "eth0", "tx", "on"])
