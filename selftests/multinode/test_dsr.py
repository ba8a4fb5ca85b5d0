# SPDX-License-Identifier: Apache-2.0
"""DSR: clients outside of the cluster are answered by the endpoint's node (docs/services.md)."""
import json

from suite import ask, expect, expect_ok, fields, host_port, observed, port, test, wait_for
from multinode import FAR_MTU, ip_family
from test_paths import call, without_port

NP_TCP, NP_UDP = 30080, 30081
PORTS = [port(80, 8080, "TCP", NP_TCP), port(80, 8080, "UDP", NP_UDP)]
EXTERNAL = {4: "10.99.0.1", 6: "fd99::1"}
SECOND = {4: "10.95.0.1", 6: "fd95::1"}
STREAM_RATE = 200


def by_dsr(env, mode):
    return mode == "connect" or "--lb-mode=dsr" in env.config.args


def flush(env):
    """Learnt path MTUs stay for ten minutes."""
    for lab, net in [(env.outside, "out"), *((node, pod) for node, pod, _ in env.pods())]:
        lab.ip(net, "route flush cache", "-6 route flush cache")


def expect_seen(env, node, line, mode, family, what):
    """The pod sees the client itself, or (snat) the node that it asked."""
    want = (env.outside if by_dsr(env, mode) else node).addr(
        *(("out", family) if by_dsr(env, mode) else (family,)))
    seen = without_port(line["seen"])
    if by_dsr(env, mode):
        expect(seen == want, f"{what}: was seen as {seen}, not {want}")
    else:
        expect(seen != env.outside.addr("out", family), f"{what}: was seen as itself")


@test("dsr")
def client_keeps_its_address(env):
    """Through every node, to a backend on every node; also one in a node's own namespace."""
    for backend in env.first_pods():
        env.service([backend], PORTS, "NodePort")
        for node in env.nodes:
            for family in env.node_families:
                for mode, number in (("connect", NP_TCP), ("udp", NP_UDP)):
                    what = f"{mode} -> {node.node_name} -> {backend[1]}, IPv{family}"
                    line = ask(env.outside, "out", mode, [(node.addr(family), number)])[0]
                    expect(line["is"] == "ok", f"{what}:", line)
                    expect_ok(line, backend[1])
                    expect_seen(env, node, line, mode, family, what)
        env.clean()
    on = env.nodes[1]
    ports = [port(80, 9000, "TCP", NP_TCP), port(80, 9000, "UDP", NP_UDP)]
    env.service([(on, "node", {f: on.addr(f) for f in env.families})], ports, "NodePort")
    for family in env.node_families:
        for mode, number in (("connect", NP_TCP), ("udp", NP_UDP)):
            what = f"{mode} -> {env.nodes[0].node_name} -> {on.node_name} itself, IPv{family}"
            line = ask(env.outside, "out", mode, [(env.nodes[0].addr(family), number)])[0]
            expect(line["is"] == "ok", f"{what}:", line)
            expect_ok(line, on.node_name)
            expect_seen(env, env.nodes[0], line, mode, family, what)


@test("dsr")
def external_addresses(env):
    """An address that the network sends to one node; the answer comes from it all the same."""
    first, last = env.nodes[0], env.first_pods()[2]
    env.service([last], PORTS, "NodePort", externalIPs=[EXTERNAL[f] for f in env.families])
    for family in env.node_families:
        bits = 32 if family == 4 else 128
        route = ip_family(family, f"route %s {EXTERNAL[family]}/{bits} via {first.addr(family)}")
        env.outside.ip("router", route % "add")
        try:
            call(env, env.outside, "out", EXTERNAL[family], 80, 80, last[1],
                 f"outside -> {EXTERNAL[family]}")
            line = ask(env.outside, "out", "connect", [(EXTERNAL[family], 80)])[0]
            expect_seen(env, first, line, "connect", family, "external IP")
        finally:
            env.outside.ip("router", route % "del")


@test("dsr")
def addresses_the_cluster_does_not_know(env):
    """NodePorts are served on each address of a node, and other nodes know but some of them."""
    first, last = env.nodes[0], env.first_pods()[2]
    env.service([last], PORTS, "NodePort")
    for family in env.node_families:
        bits = 32 if family == 4 else 128
        addr = f"{SECOND[family]}/{bits}"
        route = ip_family(family, f"route %s {addr} via {first.addr(family)}")
        first.ip("node", f"addr add {addr} dev eth0" + (" nodad" if family == 6 else ""))
        env.outside.ip("router", route % "add")
        try:
            wait_for(f"an answer from {addr}", lambda f=family: env.outside.connect(
                "out", SECOND[f], NP_TCP, timeout_ms=500)["is"] == "ok")
            call(env, env.outside, "out", SECOND[family], NP_TCP, NP_UDP, last[1],
                 f"outside -> {addr}")
        finally:
            env.outside.ip("router", route % "del")
            first.ip("node", f"addr del {addr} dev eth0")


@test("dsr")
def affinity(env):
    """A client stays with one pod: the first node with its node, and that one with the pod."""
    first = env.nodes[0]
    pods = env.pods()
    env.service(pods, PORTS, "NodePort", sessionAffinity="ClientIP")
    for family in env.node_families:
        seen = {ask(env.outside, "out", "connect", [(first.addr(family), NP_TCP)])[0].get("label")
                for _ in range(12)}
        expect(len(seen) == 1, f"IPv{family}: several answered:", seen)


@test("dsr")
def maglev_by_every_node(env):
    """Whichever node a flow is sent to, it gets the same endpoint, which sees its client."""
    pods, numbers = env.pods(), range(23000, 23016)
    env.service(pods, PORTS, "NodePort", externalIPs=[EXTERNAL[f] for f in env.families],
                annotations={"service.waggle.io/lb-algorithm": "maglev"})

    def answered(node, family):
        bits = 32 if family == 4 else 128
        route = ip_family(family, f"route %s {EXTERNAL[family]}/{bits} via {node.addr(family)}")
        env.outside.ip("router", route % "add")
        try:
            lines = [ask(env.outside, "out", "udp", [(EXTERNAL[family], 80)], "--src", host_port(
                env.outside.addr("out", family), number))[0] for number in numbers]
        finally:
            env.outside.ip("router", route % "del")
        for line in lines:
            expect_ok(line, [name for _, name, _ in pods])
            expect_seen(env, node, line, "udp", family, f"through {node.node_name}")
        return [line["label"] for line in lines]
    for family in env.node_families:
        found = [answered(node, family) for node in env.nodes]
        expect(len(set(found[0])) > 2, f"IPv{family}: all went to", set(found[0]))
        expect(found[1] == found[0] and found[2] == found[0], f"IPv{family}: not the same:", found)


def received_packets(node):
    link = json.loads(node.sh("node", ["ip", "-j", "-s", "link", "show", "eth0"]))[0]
    return link["stats64"]["rx"]["packets"]


def stream(env, addr, ms):
    return env.outside.background("out", "stream", "--dst", host_port(addr, NP_UDP), "--rate",
                                  STREAM_RATE, "--ms", ms, "--timeout", 1000)


@test("dsr")
def answers_go_past_the_first_node(env):
    """What comes in there is what the client sends; with snat the answers come in as well."""
    first, last = env.nodes[0], env.first_pods()[2]
    for mode in ("dsr", "snat"):
        env.service([last], PORTS, "NodePort",
                    annotations={"service.waggle.io/forwarding-mode": mode})
        for family in env.node_families:
            before = received_packets(first)
            proc = stream(env, first.addr(family), 1500)
            proc.wait(timeout=20)
            came = received_packets(first) - before
            line = fields(env.outside.log(proc.log_name).splitlines()[-1])
            sent = int(line["sent"])
            expect(sent > 100 and line["received"] == line["sent"], f"{mode}: lost:", line)
            expect(came < 1.5 * sent if mode == "dsr" else came >= 2 * sent,
                   f"{mode}, IPv{family}: {sent} were sent, {came} came in at the first node")
        env.clean()


@test("dsr")
def a_service_says_snat(env):
    first, last = env.nodes[0], env.first_pods()[2]
    env.service([last], PORTS, "NodePort",
                annotations={"service.cilium.io/forwarding-mode": "snat"})
    for family in env.node_families:
        line = ask(env.outside, "out", "connect", [(first.addr(family), NP_TCP)])[0]
        expect_ok(line, last[1])
        expect(without_port(line["seen"]) == first.addr(family), "was seen as", line)


@test("dsr")
def too_big_for_the_tunnel_to_the_endpoint(env):
    """The client is told by the first node, and then its packets pass."""
    mtu = env.cluster.mtu - env.config.overhead
    first, last = env.nodes[0], env.first_pods()[2]
    env.service([last], PORTS, "NodePort")
    try:
        for family in env.node_families:
            if by_dsr(env, "udp"):
                line = env.outside.wagtest("out", "pmtu", "--dst", host_port(
                    first.addr(family), NP_UDP), "--size", 1440)[0]
                expect(line["is"] == "ok" and line["mtu"] == str(mtu), f"IPv{family}:", line)
            flush(env)
            line = env.outside.wagtest("out", "bulk", "--dst", host_port(
                first.addr(family), NP_TCP), "--size", 1 << 20, "--timeout", 5000)[0]
            expect(line["is"] == "ok", f"bulk, IPv{family}:", line)
            # The first ones are cut for the client's own link.
            env.outside.udp("out", first.addr(family), NP_UDP, "--size", 8000, timeout_ms=200)
            line = env.outside.udp("out", first.addr(family), NP_UDP, "--size", 8000)
            expect(line["is"] == "ok", f"fragments, IPv{family}:", line)
            expect_ok(line, last[1], len="8000", intact="1")
    finally:
        flush(env)


@test("dsr")
def narrow_link_to_the_client(env):
    """A router's error about an answer reaches the first node, and through it the pod."""
    first, last = env.nodes[0], env.first_pods()[2]
    env.service([last], PORTS, "NodePort")
    for family in env.node_families:
        client = env.outside.addr("out", family)
        route = ip_family(family, f"route %s {client}/{32 if family == 4 else 128} dev out mtu "
                          f"lock {FAR_MTU}")
        env.outside.ip("router", route % "add")
        try:
            wait_for(f"an answer of 1350 bytes over IPv{family}", lambda f=family: env.outside.udp(
                "out", first.addr(f), NP_UDP, "--size", 1350, timeout_ms=500)["is"] == "ok")
            learnt = last[0].sh(last[1], ["ip", "route", "get", client])
            expect(not by_dsr(env, "udp") or f"mtu {FAR_MTU}" in learnt,
                   f"{last[1]} has not learnt it:", learnt)
        finally:
            env.outside.ip("router", route % "del")
            flush(env)


@test("dsr")
def a_backend_goes(env):
    """A connection stays with it, datagrams and new connections go elsewhere."""
    first, (_, _, last) = env.nodes[0], env.first_pods()
    env.service([last], PORTS, "NodePort")
    name, number = env.services[-1], env.next_vip - 1
    for family in env.node_families:
        hold = env.outside.background("out", "hold", "--dst", host_port(
            first.addr(family), NP_TCP), "--conns", 2, "--ms", 60000)
        udp = stream(env, first.addr(family), 60000)
        vips = {4: f"10.96.0.{number}", 6: f"fd00:10:96::{number:x}"}
        away = env.first_pods()[1]

        def serve(backend, vips=vips):
            env.cluster.service(name, [vips[f] for f in env.families],
                                [backend[2][f] for f in env.families], PORTS, "NodePort",
                                {backend[2][f]: backend[0].node_name for f in env.families})

        def answers(backend, f=family):
            return all(ask(env.outside, "out", mode, [(first.addr(f), n)])[0].get("label")
                       == backend[1] for mode, n in (("connect", NP_TCP), ("udp", NP_UDP)))

        serve(away)
        wait_for(f"answers of {away[1]}", lambda b=away: answers(b))
        serve(last)
        wait_for(f"answers of {last[1]}", lambda b=last: answers(b))
        tcp, told = fields(env.outside.stop(hold)), fields(env.outside.stop(udp))
        expect(tcp["ok"] == "2" and tcp["reset"] == tcp["closed"] == "0",
               f"IPv{family}: a connection was disturbed:", tcp)
        expect(int(told["received"]) > int(told["sent"]) / 2 > 0,
               f"IPv{family}: datagrams did not move:", told)


@test("dsr")
def flows_are_shown(env):
    """At the first node what came, at the other one what became of it."""
    first, last = env.nodes[0], env.first_pods()[2]
    env.service([last], PORTS, "NodePort")
    family = env.node_families[0]
    line = ask(env.outside, "out", "connect", [(first.addr(family), NP_TCP)])[0]
    expect_ok(line, last[1])
    client = env.outside.addr("out", family)

    def seen(node, destination):
        return [f for f in observed(node, "--last", "200") if f.get("verdict") == "FORWARDED"
                and f.get("IP", {}).get("source") == client
                and f.get("IP", {}).get("destination") == destination]

    wait_for("the packet at the first node", lambda: seen(first, first.addr(family)))
    wait_for("the packet at the endpoint's", lambda: seen(last[0], last[2][family]))
    flows = json.loads(first.cli("bpf", "ct", "list", "-o", "json"))
    expect(any("dsr" in f["flags"] for f in flows), "no flow is marked dsr:", flows)
    listed = json.loads(first.cli("service", "list", "-o", "json"))
    expect(any(s["forwarding"] == "dsr" for s in listed), "service list:", listed)
